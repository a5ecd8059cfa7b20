"""`pvstub images symbols`: a kernel as an ELF file with a symbol table, for gdb.

A copy of the decompressed kernel, which is an ELF file without symbols, with three sections added: ``.symtab`` and
``.strtab`` from the kernel's own kallsyms, ``.debug_frame`` from its unwind table (``orc``). All else stays where it
was, so sections, notes and code are the kernel's. The copies are kept in the cache, by the kernel's SHA-256.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness import cache, catalogue, progress
from harness.kallsyms import KernelSymbol, read_kallsyms
from stub.errors import ImageError
from stub.gdb.symbols import LAYOUT, SHT_SYMTAB
from stub.image.elf import HEADER, SECTION_HEADER, Elf, Section, parse_elf, read_sections
from stub.image.faults import Fault
from stub.image.load import read_file, unwrap
from stub.image.symbols import SHN_ABS, STT_FUNC, STT_OBJECT

Array = npt.NDArray[Any]
# Goes into the recipe; count it up when the files come out differently than before.
SYMBOLS_FORMAT = 1
SHT_PROGBITS, SHT_STRTAB = 1, 3
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
WEAK = "vVwW"


def executable(name_or_path: str | Path) -> Path | None:
    """A file with the symbols of an image or of a kernel file, made now if need be; None if none can be had."""
    try:
        return symbols_for(kernel_file(name_or_path))
    except ImageError:
        return None


def kernel_file(name_or_path: str | Path, waiting: Callable[[], None] = lambda: None) -> Path:
    """An image's kernel, or the kernel file itself; the same as `pvstub boot` takes. UsageError for neither."""
    text = str(name_or_path)
    if os.sep in text or os.path.isfile(text):
        return Path(text)
    return catalogue.load(text, waiting).kernel


def symbols_for(kernel: Path, waiting: Callable[[], None] = lambda: None) -> Path:
    """An ELF file with the symbols of a kernel file: the file itself if it has them, else one in the cache.

    ``waiting`` is called when another process is making it. Raises ImageError for a kernel that has none.
    """
    try:
        file = read_file(kernel)
        if _has_symbols(file.data):
            return kernel
        made = cache.ensure(
            cache.cache_folder() / "symbols" / file.sha256,
            str(SYMBOLS_FORMAT),
            lambda: cache.Made(
                f"{kernel.name.replace('vmlinuz', 'vmlinux')}.symbols",
                _make(unwrap(file, cache.cache_folder() / "kernels").elf, kernel.name),
                {"kernel": kernel.name},
            ),
            waiting,
        )
    except Fault as fault:
        raise fault.named(kernel) from None
    return made.path


def _has_symbols(data: memoryview) -> bool:
    try:
        return any(section.type == SHT_SYMTAB for section in read_sections(parse_elf(data)))
    except Fault:
        return False


def _make(data: memoryview, name: str) -> bytes:
    """The ELF file ``data`` with its symbols added."""
    from harness import orc

    if _has_symbols(data):  # all that it needed was to be decompressed
        return bytes(data)
    elf = parse_elf(data)
    if elf.bits != 64:
        raise Fault("a 32-bit kernel, whose kallsyms cannot be read yet", "name a vmlinux that has symbols")
    have = read_sections(elf)
    with progress.pulse(f"symbols of {name}"):
        table, strings, local = symbol_table(read_kallsyms(elf), have)
        frames = orc.debug_frame(elf)
    count = max(len(have), 1)
    added = [
        Added(".symtab", SHT_SYMTAB, table, link=count + 1, info=local, entry_size=LAYOUT[64].itemsize),
        Added(".strtab", SHT_STRTAB, strings),
        *([Added(".debug_frame", SHT_PROGBITS, frames)] if frames else []),
    ]
    return add_sections(elf, added)


def symbol_table(symbols: Sequence[KernelSymbol], sections: Sequence[Section]) -> tuple[bytes, bytes, int]:
    """``.symtab``, ``.strtab`` and the number of entries that are local, the empty one included.

    A symbol reaches to the next one, or to the end of its section: kallsyms has no sizes, and gdb wants them.
    """
    encoded = [symbol.name.encode() + b"\0" for symbol in symbols]
    rows = np.zeros(len(symbols), LAYOUT[64])
    rows["name"] = np.concatenate(([1], 1 + np.cumsum([len(name) for name in encoded])))[: len(rows)]
    rows["value"] = np.array([symbol.address for symbol in symbols], np.uint64)
    kinds = np.array([symbol.kind for symbol in symbols], "U1")
    binding = np.where(np.char.islower(kinds), STB_LOCAL, STB_GLOBAL)
    binding[np.isin(kinds, list(WEAK))] = STB_WEAK
    rows["section"], code, ends = _place(rows["value"], sections)
    rows["info"] = binding << 4 | np.where(code, STT_FUNC, STT_OBJECT)
    rows["size"] = _sizes(rows["value"], ends)
    order = np.argsort(binding != STB_LOCAL, kind="stable")
    local = 1 + int(np.count_nonzero(binding == STB_LOCAL))
    return bytes(LAYOUT[64].itemsize) + rows[order].tobytes(), b"\0" + b"".join(encoded), local


def _place(values: Array, sections: Sequence[Section]) -> tuple[Array, Array, Array]:
    """For each address its section's index, whether that is code, and its end. SHN_ABS where there is no section."""
    index, code, end = np.full(len(values), SHN_ABS, np.uint16), np.zeros(len(values), bool), values.copy()
    # Twice: a symbol that marks a section's end belongs to it, unless another begins there.
    for past in (True, False):
        for number, section in enumerate(sections):
            if not section.flags & SHF_ALLOC or not section.size:
                continue
            last = np.uint64(section.address + section.size)
            inside = (values >= np.uint64(section.address)) & ((values == last) if past else (values < last))
            index[inside], code[inside], end[inside] = number, bool(section.flags & SHF_EXECINSTR), last
    return index, code, end


def _sizes(values: Array, ends: Array) -> Array:
    distinct = np.unique(values)
    following = np.searchsorted(distinct, values, side="right")
    after = np.where(following < len(distinct), distinct[np.minimum(following, len(distinct) - 1)], ends)
    return np.minimum(after, ends) - values


class Added(NamedTuple):
    """A section to add; ``link`` and ``info`` as the System V ABI has them for its type."""

    name: str
    type: int
    data: bytes
    link: int = 0
    info: int = 0
    entry_size: int = 0


def add_sections(elf: Elf, added: Sequence[Added]) -> bytes:
    """The file with sections added behind all that it has, and a new table of sections at its end."""
    layout = SECTION_HEADER[64]
    offset, size, _, _ = elf.section_place
    have = read_sections(elf)
    table = bytearray(elf.data[offset : offset + len(have) * size]) if have else bytearray(layout.size)
    names = b"\0".join(name.encode() for name in ["", *(s.name for s in have[1:]), *(a.name for a in added)])
    names += b"\0.shstrtab\0"
    parts: list[bytes | bytearray | memoryview] = [elf.data]
    end = len(elf.data)
    for number in range(1, len(have)):
        # The old table of names is another's now: one name may be the tail of another in it, so ours replaces it.
        struct.pack_into("<I", table, number * layout.size, _name_at(names, have[number].name))
    for section in (*added, Added(".shstrtab", SHT_STRTAB, names)):
        padding = -end % 16
        table += layout.pack(
            _name_at(names, section.name), section.type, 0, 0, end + padding, len(section.data), section.link,
            section.info, 16 if section.entry_size else 1, section.entry_size,
        )  # fmt: skip
        parts += [bytes(padding), section.data]
        end += padding + len(section.data)
    padding = -end % 16
    parts += [bytes(padding), table]
    header = list(HEADER[64].unpack_from(elf.data, 16))
    header[5], header[10:13] = end + padding, [layout.size, len(table) // layout.size, len(table) // layout.size - 1]
    whole = bytearray().join(parts)
    HEADER[64].pack_into(whole, 16, *header)
    return bytes(whole)


def _name_at(names: bytes, name: str) -> int:
    return names.index(b"\0" + name.encode() + b"\0") + 1
