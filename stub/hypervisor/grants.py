"""The grant table of one domain: its frames, its entries, and who uses them (xen/common/grant_table.c).

The law: an entry in use is pinned. Its ``Active`` record says by how many mappings and of which frame, whatever the
guest writes to the entry meanwhile; GTF_reading and GTF_writing in the shared entry (version 1) or in its status word
(version 2) tell the guest so. Answers are GNTST_*; what was wrong is left in ``refusal``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stub.abi import grant_table as abi
from stub.abi.errno import EBUSY, ERANGE
from stub.domain.builder import grant_entries
from stub.domain.domain import Domain
from stub.hypervisor.maptrack import Mappings
from stub.memory.frames import NONE, XEN
from stub.units import PAGE_SIZE

MAX_FRAMES = 64  # max_grant_frames, xl's default
RESERVED_ENTRIES = abi.GNTTAB_NR_RESERVED_ENTRIES
LAYOUTS = {1: abi.GrantEntryV1, 2: abi.GrantEntryV2}
_STATUS = 2  # bytes of a grant_status_t, one for each entry of version 2
_MOST_USES = 0x80  # of a sort at a time, before Xen's 8-bit counter might overflow
_IN_USE = abi.GTF_reading | abi.GTF_writing

# The sorts of use, as they are counted in Active.uses: the low bit is "reads only".
HOST_WRITE, HOST_READ, DEVICE_WRITE, DEVICE_READ = range(4)


class Entry(NamedTuple):
    """A shared entry as the guest has it now; ``start`` and ``length`` are of the part of the page that is granted."""

    flags: int
    domid: int
    frame: int
    start: int = 0
    length: int = PAGE_SIZE

    @property
    def kind(self) -> int:
        """GTF_invalid, GTF_permit_access, GTF_accept_transfer or GTF_transitive."""
        return self.flags & abi.GTF_type_mask


@dataclass
class Active:
    """An entry in use by one domain (struct active_grant_entry)."""

    domid: int
    frame: int
    start: int = 0
    length: int = PAGE_SIZE
    uses: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    @property
    def writers(self) -> int:
        """Uses that may write."""
        return self.uses[HOST_WRITE] + self.uses[DEVICE_WRITE]


class GrantTable:
    """``frames`` are the MFNs of the table's pages, ``status_frames`` those of the status words (version 2).

    ``active`` has the entries in use by reference, ``mappings`` what the domain itself has mapped of others' grants.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.version = 1
        self.frames: list[int] = []
        self.status_frames: list[int] = []
        self.active: dict[int, Active] = {}
        self.mappings = Mappings()
        self.refusal = ""
        self._bytes = domain.ram.bytes
        self._halves = domain.ram.bytes.cast("H")
        self._spare: list[int] = []
        self.grow(1)
        layout = domain.layout
        rings = [int(domain.p2m[span.pfn]) for span in (layout.console, layout.xenstore)]
        entries = grant_entries(*rings)
        at = self.frames[0] * PAGE_SIZE
        domain.ram.bytes[at : at + len(entries)] = entries
        for ref, mfn in enumerate(rings):  # domain 0's back ends have mapped them
            self.active[ref] = Active(0, mfn, uses=[1, 0, 0, 0])
            self.set_flags(ref, _IN_USE)

    # -- frames

    def _take(self) -> int:
        if self._spare:
            mfn = self._spare.pop()
            self.domain.ram.pages[mfn] = 0
        else:
            mfn = self.domain.area.take()
        self.domain.frames.share(mfn)
        return mfn

    def grow(self, count: int) -> bool:
        """Have at least ``count`` frames, and their status words; False past the maximum."""
        if count > MAX_FRAMES:
            return False
        while len(self.frames) < count:
            self.frames.append(self._take())
        if self.version == 2:
            self._match_status()
        return True

    def _match_status(self) -> None:
        entries = len(self.frames) * PAGE_SIZE // abi.GrantEntryV2.size
        while len(self.status_frames) * PAGE_SIZE < entries * _STATUS:
            self.status_frames.append(self._take())

    def _drop_status(self) -> int:
        """Take the status frames back from the guest; -EBUSY while it has one mapped."""
        frames = self.domain.frames
        for mfn in self.status_frames:
            if frames.refs[mfn] != 1:
                self.refusal = f"status frame {mfn:#x} is still mapped"
                return -EBUSY
        for mfn in self.status_frames:
            frames.owner[mfn], frames.flags[mfn] = XEN, 0
            frames.type[mfn], frames.type_count[mfn] = NONE, 0
        self._spare += self.status_frames
        self.status_frames = []
        return 0

    # -- entries

    @property
    def entries(self) -> int:
        """How many entries the table has."""
        return len(self.frames) * PAGE_SIZE // LAYOUTS[self.version].size

    def _place(self, ref: int) -> int:
        """The machine address of an entry."""
        size = LAYOUTS[self.version].size
        per_frame = PAGE_SIZE // size
        return self.frames[ref // per_frame] * PAGE_SIZE + ref % per_frame * size

    def _status_word(self, ref: int) -> int:
        """Where GTF_reading and GTF_writing are, as a 16-bit index of machine memory: in version 1 with the flags."""
        if self.version == 1:
            return self._place(ref) >> 1
        per_frame = PAGE_SIZE // _STATUS
        return (self.status_frames[ref // per_frame] * PAGE_SIZE >> 1) + ref % per_frame

    def entry(self, ref: int) -> Entry:
        """An entry of the table; ``ref`` is below ``entries``."""
        record = LAYOUTS[self.version].unpack_from(self._bytes, self._place(ref))
        if self.version == 1:
            return Entry(record.flags, record.domid, record.frame)
        if record.flags & abi.GTF_sub_page:
            return Entry(
                record.flags, record.domid, record.sub_page_frame, record.sub_page_page_off, record.sub_page_length
            )
        return Entry(record.flags, record.domid, record.full_page_frame)

    def set_flags(self, ref: int, flags: int) -> None:
        """Set bits in the flags of an entry."""
        self._halves[self._place(ref) >> 1] |= flags

    def set_frame(self, ref: int, frame: int) -> None:
        """Write the frame of an entry."""
        field_name = "frame" if self.version == 1 else "full_page_frame"
        LAYOUTS[self.version].pack_into(self._bytes, self._place(ref), **{field_name: frame})

    # -- use

    def take(self, ref: int, uses: Sequence[int], mapping: bool, by: int | None = None) -> int:
        """Use an entry that the domain granted to ``by``, once for each sort in ``uses`` (all read, or all write).

        ``by`` is the domain itself, or domain 0 and its back ends. ``mapping``: for good, else for the time of a copy.
        With GNTST_okay, ``active`` has it (acquire_grant_for_copy, the first half of map_grant_ref).
        """
        domid = self.domain.domid if by is None else by
        if ref >= self.entries:
            self.refusal = f"grant reference {ref:#x} is beyond the table's {self.entries:#x} entries"
            return abi.GNTST_bad_gntref
        readonly = bool(uses[0] & 1)
        active = self.active.get(ref)
        if active is not None and (active.domid != domid or max(active.uses) >= _MOST_USES):
            how = f"{_MOST_USES} times" if active.domid == domid else f"by domain {active.domid}"
            self.refusal = f"grant {ref:#x} is in use {how}"
            return abi.GNTST_general_error
        if active is None or not (readonly or active.writers):
            entry = self.entry(ref)
            if not self._may_use(ref, entry, active, readonly, mapping, domid):
                return abi.GNTST_general_error
            self._halves[self._status_word(ref)] |= abi.GTF_reading if readonly else _IN_USE
            rc = self._activate(ref, entry, active, domid)
            if rc:
                self._tell(ref, readonly)
                return rc
        for use in uses:
            self.active[ref].uses[use] += 1
        return abi.GNTST_okay

    def _may_use(
        self, ref: int, entry: Entry, active: Active | None, readonly: bool, mapping: bool, domid: int
    ) -> bool:
        """_set_status: whether the entry as it stands allows it; an entry in use is asked for no more than writing."""
        kinds = {abi.GTF_permit_access} if mapping or self.version == 1 else {abi.GTF_permit_access, abi.GTF_transitive}
        if active is None and (
            entry.kind not in kinds or entry.domid != domid or (mapping and entry.flags & abi.GTF_sub_page)
        ):
            part = " to a part of the page" if mapping and entry.flags & abi.GTF_sub_page else ""
            theirs = f"flags {entry.flags:#x} for domain {entry.domid}{part}"
            self.refusal = f"grant {ref:#x} has {theirs}: no access for domain {domid}"
            return False
        if not readonly and entry.flags & abi.GTF_readonly:
            self.refusal = f"grant {ref:#x} is read-only"
            return False
        return True

    def _activate(self, ref: int, entry: Entry, active: Active | None, domid: int) -> int:
        """Look up what is granted, on the first use."""
        if self.version == 2 and entry.kind == abi.GTF_transitive:
            self.refusal = f"grant {ref:#x} passes on a grant of the domain itself, or of one that does not exist"
            return abi.GNTST_general_error
        if active is not None:
            return abi.GNTST_okay
        frames = self.domain.frames
        if not frames.get(entry.frame):
            self.refusal = f"grant {ref:#x} is of frame {entry.frame:#x}, which is not the domain's"
            return abi.GNTST_bad_page
        frames.put(entry.frame)
        self.active[ref] = Active(domid, entry.frame, entry.start, entry.length)
        return abi.GNTST_okay

    def release(self, ref: int, use: int) -> None:
        """End one use."""
        active = self.active[ref]
        active.uses[use] -= 1
        if not any(active.uses):
            del self.active[ref]
        self._tell(ref, bool(use & 1))

    def _tell(self, ref: int, readonly: bool) -> None:
        """After a use ended: take away what the guest was told of it, if no other use says the same."""
        active = self.active.get(ref)
        clear = 0 if readonly or (active and active.writers) else abi.GTF_writing
        if active is None:
            clear |= abi.GTF_reading
        self._halves[self._status_word(ref)] &= ~clear & 0xFFFF

    def reads(self) -> Iterator[int]:
        """The frames that are mapped for reading and in no page table, once a mapping.

        They are a device's, or domain 0's: each has a reference for it, and no type.
        """
        for active in self.active.values():
            back_ends = active.uses[HOST_READ] if active.domid != self.domain.domid else 0
            yield from [active.frame] * (active.uses[DEVICE_READ] + back_ends)

    # -- the table as a whole

    def swap(self, a: int, b: int) -> int:
        """GNTTABOP_swap_grant_ref."""
        for ref in (a, b):
            if ref >= self.entries:
                self.refusal = f"grant reference {ref:#x} is beyond the table's {self.entries:#x} entries"
                return abi.GNTST_bad_gntref
        if a == b:
            return abi.GNTST_okay
        for ref in (a, b):
            if ref in self.active:
                self.refusal = f"grant {ref:#x} is in use"
                return abi.GNTST_eagain
        size = LAYOUTS[self.version].size
        places = [slice(self._place(ref), self._place(ref) + size) for ref in (a, b)]
        first = bytes(self._bytes[places[0]])
        self._bytes[places[0]] = bytes(self._bytes[places[1]])
        self._bytes[places[1]] = first
        if self.version == 2:
            x, y = self._status_word(a), self._status_word(b)
            self._halves[x], self._halves[y] = self._halves[y], self._halves[x]
        return abi.GNTST_okay

    def set_version(self, wanted: int) -> int:
        """Use entries of the other version: the first eight survive, all others are cleared. 0 or an error number."""
        used = next((ref for ref in self.active if ref >= RESERVED_ENTRIES), None)
        if used is not None:
            self.refusal = f"grant {used:#x} is in use"
            return -EBUSY
        reserved = [self.entry(ref) for ref in range(RESERVED_ENTRIES)]
        states = [self._halves[self._status_word(ref)] & _IN_USE for ref in range(RESERVED_ENTRIES)]
        if wanted == 1:
            for ref, entry in enumerate(reserved):
                if entry.kind == abi.GTF_transitive or (entry.kind == abi.GTF_permit_access and entry.frame >> 32):
                    self.refusal = f"grant {ref:#x} cannot be said in version 1"
                    return -ERANGE
            reserved = [e if e.kind == abi.GTF_permit_access else Entry(0, 0, 0) for e in reserved]
            states = [s if e.kind else 0 for s, e in zip(states, reserved, strict=True)]
            rc = self._drop_status()
            if rc:
                return rc
        self.version = wanted
        if wanted == 2:
            self._match_status()
        for mfn in self.frames:
            self.domain.ram.pages[mfn] = 0
        for ref, (entry, state) in enumerate(zip(reserved, states, strict=True)):
            flags = entry.flags & ~_IN_USE if wanted == 2 else entry.flags
            LAYOUTS[wanted].pack_into(self._bytes, self._place(ref), flags=flags, domid=entry.domid)
            self.set_frame(ref, entry.frame)
            self._halves[self._status_word(ref)] |= state
        return 0
