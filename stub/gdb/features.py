"""The registers as gdb sees them: one table for each guest bitness, and the target description made from it.

The first three features are gdb's own (GDB manual, G.5.5 "x86 Features"; gdb/features/i386/*.xml): gdb demands all of
their registers, and of the core one their order. Then come the control registers, and what a vCPU is to Xen.
Registers that a function called from gdb must not have put back afterwards are marked so (``save-restore``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from operator import itemgetter
from xml.sax.saxutils import quoteattr

from stub.engine.base import NAMES

CORE, SSE, SEGMENTS = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.segments"
AVX = "org.gnu.gdb.i386.avx"
CONTROL, XEN = "org.pvstub.x86.control", "org.pvstub.xen"

_ST = tuple(f"st{n}" for n in range(8))
_FPU = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_GENERAL_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
_GENERAL_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")

# Flags types: name, bytes, fields as (name, bit). Intel SDM vol. 3, 2.3, 2.5 and 2.2.1; vol. 1, 10.2.3.
_Fields = Sequence[tuple[str, int]]
_EFLAGS: _Fields = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11),
    ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
)  # fmt: skip
_MXCSR: _Fields = (
    ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8), ("ZM", 9),
    ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
)  # fmt: skip
_CR0: _Fields = (
    ("PE", 0), ("MP", 1), ("EM", 2), ("TS", 3), ("ET", 4), ("NE", 5), ("WP", 16), ("AM", 18), ("NW", 29), ("CD", 30),
    ("PG", 31),
)  # fmt: skip
_CR4: _Fields = (
    ("VME", 0), ("PVI", 1), ("TSD", 2), ("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6), ("PGE", 7), ("PCE", 8),
    ("OSFXSR", 9), ("OSXMMEXCPT", 10), ("UMIP", 11), ("LA57", 12), ("VMXE", 13), ("SMXE", 14), ("FSGSBASE", 16),
    ("PCIDE", 17), ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21), ("PKE", 22),
)  # fmt: skip
_EFER: _Fields = (("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11), ("SVME", 12), ("FFXSR", 14))

_MODES = ("kernel", "user")


@dataclass(frozen=True)
class Register:
    """One register: its number is its place in the table. ``type``: of gdb's, or of the description's feature."""

    name: str
    bits: int
    type: str
    feature: str
    attributes: str = ""

    @property
    def size(self) -> int:
        """Bytes in packets."""
        return self.bits // 8


_KEEP_OFF = ' save-restore="no"'


def _core(bits: int) -> Iterator[Register]:
    wide = f"int{bits}"
    general, pc = (_GENERAL_64, "rip") if bits == 64 else (_GENERAL_32, "eip")
    pointers = {"rbp", "rsp", "ebp", "esp"}
    for name in general:
        yield Register(name, bits, "data_ptr" if name in pointers else wide, CORE)
    yield Register(pc, bits, "code_ptr", CORE)
    yield Register("eflags", 32, "i386_eflags", CORE)
    yield from (Register(name, 32, "int32", CORE) for name in _SELECTORS)
    yield from (Register(name, 80, "i387_ext", CORE) for name in _ST)
    yield from (Register(name, 32, "int", CORE, ' group="float"') for name in _FPU)


def _rest(bits: int) -> Iterator[Register]:
    for n in range(16 if bits == 64 else 8):
        yield Register(f"xmm{n}", 128, "vec128", SSE)
    yield Register("mxcsr", 32, "i386_mxcsr", SSE, ' group="vector"')
    # gdb 13 fails an assertion of its own if a 32-bit description has the segments feature.
    for name in ("fs_base", "gs_base"):
        yield Register(name, bits, f"int{bits}", SEGMENTS if bits == 64 else CONTROL)
    types = {"cr0": "cr0", "cr4": "cr4", "efer": "efer"}
    control = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "k_gs_base") if bits == 64 else ("cr0", "cr2", "cr3", "cr4")
    for name in control:
        yield Register(name, bits, types.get(name, f"int{bits}"), CONTROL, _KEEP_OFF)
    if bits == 32:
        yield Register("efer", 64, "efer", CONTROL, _KEEP_OFF)
    yield Register("mode", 32, "vcpu_mode", XEN, _KEEP_OFF)
    for name in ("event_mask", "event_pending"):
        yield Register(name, 32, "uint32", XEN, _KEEP_OFF)
    for name in ("virtual_time", "retired"):
        yield Register(name, 64, "uint64", XEN, _KEEP_OFF)


def _upper_halves(bits: int) -> Iterator[Register]:
    """Of the AVX registers, from which gdb makes whole ones."""
    for n in range(16 if bits == 64 else 8):
        yield Register(f"ymm{n}h", 128, "uint128", AVX)


def _flags(name: str, size: int, fields: _Fields) -> str:
    inner = "".join(f'<field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in fields)
    return f'<flags id="{name}" size="{size}">{inner}</flags>'


def _vectors() -> str:
    rows = (
        ("v4_float", "ieee_single", 4), ("v2_double", "ieee_double", 2), ("v16_int8", "int8", 16),
        ("v8_int16", "int16", 8), ("v4_int32", "int32", 4), ("v2_int64", "int64", 2),
    )  # fmt: skip
    types = "".join(f'<vector id="{name}_t" type="{item}" count="{count}"/>' for name, item, count in rows)
    fields = "".join(f'<field name="{name}" type="{name}_t"/>' for name, _, _ in rows)
    return types + f'<union id="vec128">{fields}<field name="uint128" type="uint128"/></union>'


def _types(bits: int) -> dict[str, str]:
    wide = bits // 8
    modes = "".join(f'<evalue name="{name}" value="{value}"/>' for value, name in enumerate(_MODES))
    return {
        CORE: _flags("i386_eflags", 4, _EFLAGS),
        SSE: _vectors() + _flags("i386_mxcsr", 4, _MXCSR),
        CONTROL: _flags("cr0", wide, _CR0) + _flags("cr4", wide, _CR4) + _flags("efer", 8, _EFER),
        XEN: f'<enum id="vcpu_mode" size="4">{modes}</enum>',
    }


def _word_name(name: str) -> str:
    """What the engine's register file calls it."""
    return "r" + name[1:] if len(name) > 2 and name[0] == "e" and name != "efer" else name


class Description:
    """The registers of a guest of one bitness, by number, with all that the protocol needs of them.

    ``avx``: its CPU has AVX registers, too.
    """

    def __init__(self, bits: int, avx: bool = False) -> None:
        self.bits = bits
        upper = _upper_halves(bits) if avx else ()
        self.registers: tuple[Register, ...] = (*_core(bits), *_rest(bits), *upper)
        self.number_of: Mapping[str, int] = {register.name: n for n, register in enumerate(self.registers)}
        # The control registers are not read from the engine's file: what the guest sees may be something else.
        self.word_of: Mapping[int, int] = {
            n: NAMES.index(_word_name(register.name))
            for n, register in enumerate(self.registers)
            if not register.name.startswith("cr") and _word_name(register.name) in NAMES
        }
        self.hex_digits = tuple(2 * register.size for register in self.registers)
        self._masks = tuple((1 << register.bits) - 1 for register in self.registers)
        head = next(n for n in range(len(self.registers)) if n not in self.word_of)
        self._head = itemgetter(*(self.word_of[n] for n in range(head)))
        self._head_masks = self._masks[:head]
        self._head_pack = struct.Struct("<" + "".join("Q" if r.bits == 64 else "I" for r in self.registers[:head])).pack
        self._tail = tuple(enumerate(self.registers))[head:]
        wide = "<Q" if bits == 64 else "<I"
        self._pack_word = struct.Struct(wide).pack
        self._word_mask = (1 << bits) - 1
        names = ("rip", "rsp", "rbp") if bits == 64 else ("eip", "esp", "ebp")
        self._expedited = tuple((b"%02x:" % self.number_of[n], self.word_of[self.number_of[n]]) for n in names)
        self.pc = names[0]

    def __len__(self) -> int:
        return len(self.registers)

    def expedited(self, words: memoryview) -> bytes:
        """The registers of a stop reply, which save gdb a question after each step."""
        (pc, pc_at), (sp, sp_at), (fp, fp_at) = self._expedited
        pack, mask = self._pack_word, self._word_mask
        return b"%b%b;%b%b;%b%b;" % (
            pc, pack(words[pc_at] & mask).hex().encode(),
            sp, pack(words[sp_at] & mask).hex().encode(),
            fp, pack(words[fp_at] & mask).hex().encode(),
        )  # fmt: skip

    def read(self, number: int, words: memoryview, read_register: Callable[[str], int]) -> int:
        """A register's value, by its number; IndexError if there is none."""
        word = self.word_of.get(number)
        value = words[word] if word is not None else read_register(self.registers[number].name)
        return value & self._masks[number]

    def pack(self, number: int, value: int) -> bytes:
        """As it stands in packets: little-endian, before it is made hexadecimal."""
        return value.to_bytes(self.registers[number].size, "little")

    def pack_all(self, words: memoryview, read_register: Callable[[str], int]) -> bytes:
        """Every register, in the order of their numbers: what a ``g`` packet asks for."""
        head = self._head_pack(*map(int.__and__, self._head(words), self._head_masks))
        word_of, masks = self.word_of, self._masks
        tail = [
            ((words[word_of[n]] if n in word_of else read_register(register.name)) & masks[n]).to_bytes(
                register.size, "little"
            )
            for n, register in self._tail
        ]
        return head + b"".join(tail)

    def unpack_all(self, data: bytes) -> Iterator[tuple[str, int]]:
        """The registers of a ``G`` packet, as many as it has whole."""
        at = 0
        for register in self.registers:
            if at + register.size > len(data):
                return
            yield register.name, int.from_bytes(data[at : at + register.size], "little")
            at += register.size

    @cached_property
    def xml(self) -> bytes:
        """The target description (GDB manual, G.2): what ``qXfer:features:read:target.xml`` gives."""
        architecture = "i386:x86-64" if self.bits == 64 else "i386"
        types = _types(self.bits)
        lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', '<target version="1.0">']
        lines.append(f"<architecture>{architecture}</architecture>")
        feature = ""
        for number, register in enumerate(self.registers):
            if register.feature != feature:
                lines += ["</feature>"] if feature else []
                feature = register.feature
                lines += [f"<feature name={quoteattr(feature)}>", *filter(None, [types.get(feature)])]
            lines.append(
                f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}" regnum="{number}"'
                f"{register.attributes}/>"
            )
        lines += ["</feature>", "</target>", ""]
        return "\n".join(lines).encode()


@cache
def description(bits: int, avx: bool = False) -> Description:
    """The one of this bitness, and of a CPU with AVX or without."""
    return Description(bits, avx)
