"""The numbers that stand in our own C are the ones of the Python tables, which are compared with Xen's headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stub.abi import arch_x86, x86_defns, xen
from stub.engine import base
from stub.memory import entries
from stub.trace import format as log
from stub.trace.format import Kind

STUB = Path(__file__).resolve().parents[2] / "stub"
VGCF_IN_SYSCALL = 1 << 8  # xen-x86_64.h
FLAGS = ("TF", "IF", "DF", "IOPL", "NT", "RF", "VM", "AC")

# Header → name there → the same in Python.
NUMBERS = {
    "hypervisor/entry.h": {
        **{
            name: getattr(x86_defns, f"X86_EFLAGS_{name}")
            for name in ("TF", "IF", "DF", "IOPL", "NT", "RF", "VM", "AC")
        },
        "FLAT_KERNEL_CS": arch_x86.FLAT_KERNEL_CS,
        "FLAT_KERNEL_SS": arch_x86.FLAT_KERNEL_SS,
        "VGCF_IN_SYSCALL": VGCF_IN_SYSCALL,
        "HYPERCALL_IRET": xen.Hypercall.iret,
        "VCPU_INFO_MASK": xen.VcpuInfo64.offset("evtchn_upcall_mask"),
        "VCPU_INFO_CR2": xen.VcpuInfo64.offset("arch_cr2"),
        "COMPAT_VCPU_INFO_CR2": xen.VcpuInfo32.offset("arch_cr2"),
        "FLAT_RING1_DS": arch_x86.FLAT_RING1_DS,
        "PFEC_P": x86_defns.PFEC_page_present,
        "PFEC_W": x86_defns.PFEC_write_access,
        "PFEC_U": x86_defns.PFEC_user_mode,
        "PFEC_RSVD": x86_defns.PFEC_reserved_bit,
        "PFEC_I": x86_defns.PFEC_insn_fetch,
    },
    "memory/walk.h": {
        "HYPERVISOR_START": arch_x86.HYPERVISOR_VIRT_START,
        "HYPERVISOR_END": arch_x86.HYPERVISOR_VIRT_END,
        "LOW_END": 1 << 47,
        "FRAME_BITS": entries.ADDRESS_MASK,
        "PTE_P": entries.P,
        "PTE_RW": entries.RW,
        "PTE_A": entries.A,
        "PTE_D": entries.D,
    },
    "trace/recorder.h": {
        "KIND_HYPERCALL": Kind.HYPERCALL,
        "KIND_NESTED": Kind.NESTED,
        "KIND_EXCEPTION": Kind.EXCEPTION,
        "KIND_CPUID": Kind.CPUID,
        "KIND_PORT_IO": Kind.PORT_IO,
        "HEAD_SIZE": log.HEAD.size,
        "WORDS_CAP": log.WORDS_CAP,
        "PART_CAP": log.PART_CAP,
    },
}


def numbers(header: str) -> dict[str, int]:
    """``NAME = number`` and ``#define NAME number`` of a header."""
    found = re.findall(r"\b([A-Z][A-Z0-9_]+)(?: = |\s+)(0x[0-9a-f]+|\d+)(?:ULL)?\b", (STUB / header).read_text())
    return {name: int(value, 0) for name, value in found}


@pytest.mark.parametrize("header", NUMBERS)
def test_c_and_python_agree(header: str) -> None:
    found = numbers(header)
    assert {name: found.get(name) for name in NUMBERS[header]} == {name: int(n) for name, n in NUMBERS[header].items()}


def test_the_register_file_has_one_order() -> None:
    """The enumeration of engine.h, word by word, is base.py's."""
    text = (STUB / "engine/engine.h").read_text()
    body = re.sub(r"/\*.*?\*/", "", text[text.index("enum {") : text.index("N_WORDS\n")], flags=re.DOTALL)
    names = re.findall(r"[A-Z][A-Z0-9_]*", body.replace("EXIT_VECTOR = N_REGISTERS", "EXIT_VECTOR"))
    names.remove("N_REGISTERS")
    assert [getattr(base, name) for name in names] == list(range(base.N_WORDS))


def test_the_kinds_of_exit_are_the_same() -> None:
    text = (STUB / "engine/engine.h").read_text()
    names = re.findall(r"EXIT_(\w+)", text[text.index("enum { EXIT_SYSCALL") :].partition("}")[0])
    asked = names.index("LEARN")  # the engine's own question
    assert {name: number for number, name in enumerate(names) if number != asked} == {
        e.name: e.value for e in base.Exit
    }
