"""The window: the engine's own frames behind the guest's, and what lies in them before QEMU starts.

Their pages are listed in ``mailbox.h``. The shim's image begins with two lengths (to its entry, to the end of a list)
and a list of places: each says how far behind itself a 32-bit field lies, and the field how far from itself what it is
to name by its machine address; so the image can lie anywhere below 4 GiB.
"""

from __future__ import annotations

import mmap
import struct
from importlib import resources

from stub.engine.qemu import _core
from stub.errors import EngineError
from stub.units import PAGE_SIZE

FRAMES: int = _core.PAGES
APIC = 0xFEE00000
_MOST_MEMORY = 0xB0000000  # more the machine does not have in one piece (hw/i386/microvm.c)
_PRESENT = 0x63  # present, writable, accessed, dirty; for the supervisor only
_LARGE = 0x80
_FRAME = 0x000F_FFFF_FFFF_F000
_ENTRIES = 512


def _image() -> bytes:
    file = resources.files(__package__ or "stub.engine.qemu") / "shim.bin"
    if not file.is_file():
        raise EngineError(
            "qemu engine: the shim is not built; install pvstub again (pip install .) on an x86-64 machine"
        )
    return file.read_bytes()


class Window:
    """The frames of the memory ``ram`` that the page-table entries at machine address ``entries`` map."""

    def __init__(self, ram: mmap.mmap, entries: int) -> None:
        at = int(struct.unpack_from("<Q", ram, entries)[0]) & _FRAME
        if len(ram) >= _MOST_MEMORY:
            most = _MOST_MEMORY >> 20
            raise EngineError(f"qemu engine: {len(ram) >> 20} MiB of memory with Xen's own; use less than {most} MiB")
        self._ram, self.at, self._entries = ram, at, entries
        self.map(_core.PAGE_APIC, APIC)
        self.entry = self._load(_image())

    def page(self, number: int) -> int:
        """The machine address of one of its pages."""
        return self.at + number * PAGE_SIZE

    @property
    def mailbox(self) -> int:
        """The machine address of the register file, and of the words behind it."""
        return self.page(_core.PAGE_MAIL)

    def map(self, number: int, maddr: int) -> None:
        """Show another machine page at one of its places."""
        self._word(self._entries + 8 * number, maddr & ~(PAGE_SIZE - 1) | _PRESENT)

    def _word(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self._ram, at, value)

    def _load(self, image: bytes) -> int:
        """Put the shim in place; the machine address of its first instruction."""
        base = self.page(_core.PAGE_CODE)
        self._ram[base : base + len(image)] = image
        entry, end = struct.unpack_from("<II", image)
        for at in range(8, 4 + end, 4):
            field = at + struct.unpack_from("<i", image, at)[0]
            distance = struct.unpack_from("<i", image, field)[0]
            struct.pack_into("<I", self._ram, base + field, base + field + distance)
        return base + int(entry)

    def build_first_tables(self, slot: int, slot_entry: int) -> None:
        """The address space that the shim starts in: its own machine addresses as they are, and the window.

        ``slot`` is the L4 slot of the window's virtual address, ``slot_entry`` what every address space has in it.
        """
        root = self.page(_core.PAGE_ROOT)
        l3, l2 = root + PAGE_SIZE, root + 2 * PAGE_SIZE
        start = self.page(_core.PAGE_CODE)
        self._word(root, l3 | _PRESENT)
        self._word(l3 + 8 * (start >> 30), l2 | _PRESENT)
        self._word(l2 + 8 * (start >> 21 & 511), start >> 21 << 21 | _PRESENT | _LARGE)
        self._word(root + 8 * slot, slot_entry)

    def words(self, number: int, *values: int) -> None:
        """Write words of the mailbox."""
        struct.pack_into(f"<{len(values)}Q", self._ram, self.mailbox + 8 * number, *values)
