"""The hypercall log's file format, version 1: what the writer packs and the reader unpacks; nothing else knows it.

A file is a header and then records, little endian, back to back; a kind byte of zero ends them::

    header   magic[8] | version u16 | reserved u16 | length u32 | identity: JSON object of that many bytes
    record   kind u8 | vcpu u8 | code u8 | words u8 | payload_length u16 | out_length u16 | time_ns u64 | rip u64
             | words * u64 | payload | out

``code`` and the words depend on the kind (`WORDS`). The kind byte is stored last, so a record is either there or not:
a reader that looks at a file while it grows, or after its writer was killed, never sees half of one. The file grows by
windows filled with zeros, and is cut to its content when the run ends.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

MAGIC: Final = b"PVSTUBHC"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sHHI")
IDENTITY_CAP: Final = 64 << 10
HEAD: Final = struct.Struct("<BBBBHHQQ")
LENGTHS: Final = struct.Struct("<3xBHH")
"""Of a head: words, payload_length, out_length."""
TIME: Final = slice(8, 16)
WORDS_CAP: Final = 16
PART_CAP: Final = 0xFFFF
RECORD_CAP: Final = HEAD.size + 8 * WORDS_CAP + 2 * PART_CAP
"""No record is longer: the writer opens its next window while that much room is left."""

WINDOW: Final = 1 << 20
"""The file grows by this much: a log that was cut ends in no more zeros than that."""


class Kind(IntEnum):
    """What a record tells; never renumbered, no gaps, zero is no record."""

    HYPERCALL = 1
    NESTED = 2
    WIDE = 3
    NESTED_WIDE = 4
    EXCEPTION = 5
    UPCALL = 6
    CPUID = 7
    PRIVILEGED = 8
    PORT_IO = 9
    PT_WRITE = 10
    CONSOLE = 11
    NOTE = 12
    START = 13
    END = 14


WORDS: Final[dict[Kind, tuple[str, ...]]] = {
    # code: hypercall number; payload: argument structures; out: what they were after
    Kind.HYPERCALL: ("a1", "a2", "a3", "a4", "a5", "rc"),
    # the same, as an entry of the multicall whose record follows
    Kind.NESTED: ("a1", "a2", "a3", "a4", "a5", "rc"),
    # a number that does not fit in code
    Kind.WIDE: ("a1", "a2", "a3", "a4", "a5", "rc", "nr"),
    Kind.NESTED_WIDE: ("a1", "a2", "a3", "a4", "a5", "rc", "nr"),
    # code: vector; error_code is all ones where the vector has none
    Kind.EXCEPTION: ("error_code", "cr2", "rsp", "to_rip", "user"),
    Kind.UPCALL: ("rsp", "to_rip", "user"),
    # code: 1 by the forced-emulation prefix, 0 trapped; register pairs, the first in the low half
    Kind.CPUID: ("leaf_subleaf", "eax_ebx", "ecx_edx"),
    # payload: the instruction's bytes
    Kind.PRIVILEGED: ("rax", "rbx", "rcx", "rdx", "out_rax", "out_rbx", "out_rcx", "out_rdx"),
    # code: 1 for a write
    Kind.PORT_IO: ("port", "size", "value"),
    Kind.PT_WRITE: ("vaddr", "maddr", "value", "size", "rc"),
    Kind.CONSOLE: ("offset", "length"),
    # payload: text, about the hypercall record that follows
    Kind.NOTE: (),
    Kind.START: ("rsp", "memory_pages"),
    # code: exit status; payload: verdict's kind; out: reason
    Kind.END: (),
}

HYPERCALLS: Final = frozenset({Kind.HYPERCALL, Kind.NESTED, Kind.WIDE, Kind.NESTED_WIDE})
NESTED: Final = frozenset({Kind.NESTED, Kind.NESTED_WIDE})
WIDE: Final = frozenset({Kind.WIDE, Kind.NESTED_WIDE})
SIGNED: Final = frozenset({"rc", "error_code"})
"""Words that are two's complement."""

STRUCTS: Final = {
    kind: struct.Struct(HEAD.format + "".join("q" if name in SIGNED else "Q" for name in names))
    for kind, names in WORDS.items()
}
"""The head and the words of each kind, in one struct."""
