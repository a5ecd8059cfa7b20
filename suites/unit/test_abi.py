"""stub/abi says what Xen's public headers say: every size, offset, type, constant and name.

The C compiler answers for the headers (``abi_probe``), in the view of a 64-bit guest, a 32-bit guest and, for
the few constants that a guest does not see, the tools. What the headers cannot confirm stands in a table here,
with its reason; so does what they define and we leave out.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import struct
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

import pytest

import stub.abi
from stub.abi.layout import Field, Struct, Twin
from stub.abi.names import value_names
from stub.abi.widths import WIDTHS
from stub.abi.xen import Hypercall
from suites.unit.abi_probe import probe

MODULES: Mapping[str, ModuleType] = {
    name: importlib.import_module(f"stub.abi.{name}")
    for _, name, _ in pkgutil.iter_modules(stub.abi.__path__)
    if name not in {"layout", "names"}
}
STRUCTS: Mapping[str, Struct] = {
    name: value for module in MODULES.values() for name, value in vars(module).items() if isinstance(value, Struct)
}
TWINS: Mapping[str, Twin] = {
    name: value for module in MODULES.values() for name, value in vars(module).items() if isinstance(value, Twin)
}
CONSTANTS: Mapping[str, int] = {
    name: value for module in MODULES.values() for name, value in vars(module).items() if type(value) is int
}
TABLES: Mapping[str, tuple[ModuleType, dict[int, str]]] = {
    name: (module, value)
    for module in MODULES.values()
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, dict)
}

# Ours alone, by pattern: why the headers cannot confirm it.
UNCONFIRMED = {
    r"E820Entry": "the BIOS's format, which Xen's header only points to",
    r"EVTCHNOP_reset_cont": "in the header for Xen itself only",
    r"MEMOP_.*": "in Xen's own xen/hypercall.h",
    r"TI_.*": "in the header as accessor macros, TI_GET_DPL and TI_GET_IF",
    r"X86_XCR0_.*|XSTATE_.*": "in Xen's own asm/xstate.h",
    r"X86_EXC_.*|X86_XEC_.*|PFEC_.*|MSR_.*|XEN_MSR_PAT": "the architecture's; no public header has them",
}

# Structures that end like a width and have no twin: why.
NO_TWINS = {
    r"IretContext64": "what a 32-bit guest's iret takes off the stack is no structure of the headers",
    r"XenCallback32": "a 64-bit guest's is an address",
    r"XenpfSettime(32|64)": "two commands",
}

# C types whose name is not the Python name in lower case.
C_TYPES = {
    "GrantEntryV2": "union grant_entry_v2",
    "XenpfSettime32": "struct xenpf_settime32",
    "XenpfSettime64": "struct xenpf_settime64",
}

# Members of nested structures and unions, which we give one name: structure (either width) → field → path in C.
MEMBERS = {
    "CallbackRegister32": {"address_cs": "address.cs", "address_eip": "address.eip"},
    "EvtchnStatus": {
        "unbound_dom": "u.unbound.dom",
        "interdomain_dom": "u.interdomain.dom",
        "interdomain_port": "u.interdomain.port",
        "pirq": "u.pirq",
        "virq": "u.virq",
    },
    "GnttabCacheFlush": {"dev_bus_addr": "a.dev_bus_addr", "ref": "a.ref"},
    "GnttabCopy": {
        "source_ref": "source.u.ref",
        "source_gmfn": "source.u.gmfn",
        "source_domid": "source.domid",
        "source_offset": "source.offset",
        "dest_ref": "dest.u.ref",
        "dest_gmfn": "dest.u.gmfn",
        "dest_domid": "dest.domid",
        "dest_offset": "dest.offset",
    },
    "GrantEntryV2": {
        "flags": "hdr.flags",
        "domid": "hdr.domid",
        "full_page_frame": "full_page.frame",
        "sub_page_page_off": "sub_page.page_off",
        "sub_page_length": "sub_page.length",
        "sub_page_frame": "sub_page.frame",
        "transitive_trans_domid": "transitive.trans_domid",
        "transitive_gref": "transitive.gref",
    },
    "PhysdevDbgpOp": {"pci_seg": "u.pci.seg", "pci_bus": "u.pci.bus", "pci_devfn": "u.pci.devfn"},
    "PhysdevManagePciExt": {"physfn_bus": "physfn.bus", "physfn_devfn": "physfn.devfn"},
    "PhysdevPciDeviceAdd": {"physfn_bus": "physfn.bus", "physfn_devfn": "physfn.devfn"},
    "SharedInfo32": {"wc_sec_hi": "arch.wc_sec_hi"},
    "StartInfo": {"console_mfn": "console.domU.mfn", "console_evtchn": "console.domU.evtchn"},
    "VcpuInfo": {"arch_cr2": "arch.cr2"},
    "XenAddToPhysmapBatch": {"foreign_domid": "u.foreign_domid"},
}

# Constants that the headers spell otherwise: C expression.
EXPRESSIONS = {
    "EVTCHN_2L_NR_CHANNELS64": "EVTCHN_2L_NR_CHANNELS",
    "EVTCHN_2L_NR_CHANNELS32": "EVTCHN_2L_NR_CHANNELS",
    "XEN_COMMANDLINE_LEN": "sizeof(xen_commandline_t)",
    "XEN_DOMAIN_HANDLE_LEN": "sizeof(xen_domain_handle_t)",
}

# The views that have a structure, where they are not the guest's: the toolstack's calls.
VIEW_OF_STRUCT = {"XenDomctl": ("tools",), "XenSysctl": ("tools",)}

# The view that has a constant, where it is not the 64-bit guest's: first pattern that matches.
VIEW_OF_CONSTANT = {
    r"FLAT_RING1_.*|FLAT_RING3_.S|(HYPERVISOR|MACH2PHYS)_VIRT_.*_PAE|EVTCHN_2L_NR_CHANNELS32": "32",
    r"XENMEM_(get_sharing_.*|paging_op|access_op|sharing_op|claim_pages|reserved_device_memory_map)": "tools",
    r"XEN_(DOMCTL|SYSCTL)_\w+": "tools",
}

# Families that must be whole: pattern of the header's macros → which of them we leave out, and why.
FAMILIES = {
    r"VIRQ_\w+": "",
    r"MMU_\w+": "",
    r"MMUEXT_\w+": "",
    r"UVMF_\w+": "",
    r"CONSOLEIO_\w+": "",
    r"VMASST_\w+": "",
    r"DOMID_\w+": "",
    r"SIF_\w+": "",
    r"SEGBASE_\w+": "",
    r"VGCF_[a-z]\w+": "",
    r"FLAT_\w+": "",
    r"XENMEM_[a-z]\w+": r"XENMEM_(resource_ioreq_server_frame|access_op|paging_op|sharing_op)_.*",  # tools'
    r"XENMAPSPACE_\w+": "",
    r"EVTCHNOP_\w+": "",
    r"EVTCHNSTAT_\w+": "",
    r"EVTCHN_FIFO_\w+": "",
    r"GNTTABOP_\w+": r"GNTTABOP_error_msgs",  # prose
    r"GTF_\w+": "",
    r"GNTMAP_\w+": "",
    r"GNTCOPY_\w+": "",
    r"GNTST_\w+": "",
    r"VCPUOP_\w+": "",
    r"RUNSTATE_\w+": "",
    r"SCHEDOP_\w+": "",
    r"SHUTDOWN_\w+": "",
    r"CALLBACK\w+": "",
    r"XENVER_\w+": "",
    r"XENFEAT_\w+": "",
    r"PHYSDEVOP_\w+": r"PHYSDEVOP_(DBGP|IRQ_UNMASK)_\w+|PHYSDEVOP_pirq_eoi_gmfn",  # debug ports; second names
    r"XENIRQSTAT_\w+": "",
    r"XEN_ELFNOTE_\w+": "",
    r"XENNMI_\w+": "",
    r"XENPF_[a-z]\w+": r"XENPF_settime",  # second name
    r"XENSTORE_\w+": "",
    r"XEN_HVM_MEMMAP_\w+": "",
    r"BLKIF_(OP|RSP|MAX|DISCARD)_\w+": "",
    r"VDISK_\w+": "",
    r"XEN_CPUID_\w+": r"XEN_CPUID_(NO_SUBLEAF|INPUT_UNUSED)",  # domctls'
}


@pytest.fixture(scope="module")
def macros() -> frozenset[str]:
    """Names of the headers' macros, in all views."""
    try:
        return frozenset().union(*map(probe.macros, probe.VIEWS))
    except probe.ProbeError as error:
        pytest.fail(str(error), pytrace=False)


class Question(NamedTuple):
    """One C expression and who asks: ``subject`` is a structure's or a constant's name."""

    view: str
    subject: str
    expression: str
    expected: int


def confirmed(name: str) -> bool:
    return not any(re.fullmatch(pattern, name) for pattern in UNCONFIRMED)


def c_type(name: str) -> str:
    return (
        C_TYPES.get(name)
        or "struct " + re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("64").removesuffix("32")).lower()
    )


def c_member(name: str, field: str) -> str:
    paths = MEMBERS.get(name) or MEMBERS.get(name[:-2], {})
    return paths.get(field, field.rstrip("_"))


def views_of_struct(name: str) -> tuple[str, ...]:
    if name in VIEW_OF_STRUCT:
        return VIEW_OF_STRUCT[name]
    return (name[-2:],) if name[-2:] in {"64", "32"} and name not in C_TYPES else ("64", "32")


def field_questions(view: str, name: str, field: str, place: Field) -> Iterator[Question]:
    type_, member = c_type(name), c_member(name, field)
    value = f"(({type_} *)0)->{member}"
    yield Question(view, name, f"offsetof({type_}, {member})", place.offset)
    yield Question(view, name, f"sizeof({value})", place.size)
    if place.is_array:
        value += "[0]"
        yield Question(view, name, f"sizeof({value})", struct.calcsize("<" + place.format[-1]))
    if place.format[-1] != "s":
        signed = f"_Generic({value}, signed char: 1, short: 1, int: 1, long: 1, long long: 1, default: 0)"
        yield Question(view, name, signed, int(place.format[-1].islower()))


def questions() -> Iterator[Question]:
    for name, layout in filter(lambda item: confirmed(item[0]), STRUCTS.items()):
        for view in views_of_struct(name):
            yield Question(view, name, f"sizeof({c_type(name)})", layout.size)
            for field, place in layout.fields.items():
                yield from field_questions(view, name, field, place)
    for name, value in filter(lambda item: confirmed(item[0]), CONSTANTS.items()):
        view = next((view for pattern, view in VIEW_OF_CONSTANT.items() if re.fullmatch(pattern, name)), "64")
        yield Question(view, name, EXPRESSIONS.get(name, name), value)
    for call in Hypercall:
        yield Question("64", f"Hypercall.{call.name}", f"__HYPERVISOR_{call.name}", call.value)


@pytest.fixture(scope="module")
def wrong_answers() -> dict[str, list[str]]:
    """What the headers contradict, by subject; one compilation a view."""
    try:
        return contradictions()
    except probe.ProbeError as error:
        pytest.fail(str(error), pytrace=False)


def contradictions() -> dict[str, list[str]]:
    wrong: dict[str, list[str]] = {question.subject: [] for question in questions()}
    for view, group in itertools.groupby(sorted(questions(), key=lambda q: q.view), key=lambda q: q.view):
        asked = list(group)
        for question, answer in zip(asked, probe.numbers(view, [q.expression for q in asked]), strict=True):
            if answer != question.expected and answer != question.expected - (1 << 64):
                wrong[question.subject].append(
                    f"{question.expression} is {answer:#x} ({view} view), ours {question.expected:#x}"
                )
    return wrong


@pytest.mark.parametrize("name", sorted(filter(confirmed, STRUCTS)))
def test_layout_is_the_headers(name: str, wrong_answers: dict[str, list[str]]) -> None:
    assert STRUCTS[name].name == name
    assert wrong_answers[name] == []


def test_what_differs_by_width_has_a_twin() -> None:
    alone = {
        name for name in STRUCTS if re.search("(64|32)$", name) and not any(re.fullmatch(row, name) for row in NO_TWINS)
    }
    assert alone == {f"{name}{bits}" for name in TWINS for bits in WIDTHS}
    for name, twin in TWINS.items():
        assert {bits: twin.of(bits) for bits in WIDTHS} == {bits: STRUCTS[f"{name}{bits}"] for bits in WIDTHS}


def test_both_widths_have_the_same_members() -> None:
    """Who reads a structure by its twin need not know the width; the rest says itself which one it reads."""
    differ = {name for name, twin in TWINS.items() if twin.of(64).fields.keys() != twin.of(32).fields.keys()}
    assert differ == {"ArchSharedInfo", "CallbackRegister", "CpuUserRegs", "VcpuGuestContext"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_constants_are_the_headers(module: str, wrong_answers: dict[str, list[str]]) -> None:
    names = [name for name in vars(MODULES[module]) if name in CONSTANTS and confirmed(name)]
    assert [fault for name in names for fault in wrong_answers[name]] == []


def test_hypercalls_are_the_headers_and_whole(wrong_answers: dict[str, list[str]], macros: frozenset[str]) -> None:
    assert [fault for call in Hypercall for fault in wrong_answers[f"Hypercall.{call.name}"]] == []
    # In lower case: the rest are the hole's bounds, which begin alike.
    theirs = {name for name in macros if re.fullmatch(r"__HYPERVISOR_[a-z]\w+", name)}
    assert theirs == {f"__HYPERVISOR_{call.name}" for call in Hypercall}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_whole(family: str, macros: frozenset[str]) -> None:
    theirs = {name for name in macros if re.fullmatch(family, name)}
    left_out = {name for name in theirs if re.fullmatch(FAMILIES[family], name)}
    assert theirs, "no such family in the headers"
    assert theirs - left_out - CONSTANTS.keys() == set()
    assert not left_out & CONSTANTS.keys()


def test_texts_are_the_headers() -> None:
    xs_wire, arch_x86 = MODULES["xs_wire"], MODULES["arch_x86"]
    prefix, *modes = probe.texts(
        "64", ["XEN_EMULATE_PREFIX", "XS_WRITE_NONE", "XS_WRITE_CREATE", "XS_WRITE_CREATE_EXCL"]
    )
    xenbus = MODULES["xenbus"]
    protocols = [xenbus.XEN_IO_PROTO_ABI_X86_32, xenbus.XEN_IO_PROTO_ABI_X86_64]
    named = probe.texts("64", ["XEN_IO_PROTO_ABI_X86_32", "XEN_IO_PROTO_ABI_X86_64"])
    assert [name.encode() for name in named] == protocols
    # In the header it is an assembler line: .byte 0x0f,0x0b,…
    assert bytes(int(byte, 16) for byte in re.findall(r"0x\w\w", prefix)) == arch_x86.XEN_EMULATE_PREFIX
    assert [mode.encode() for mode in modes] == [
        xs_wire.XS_WRITE_NONE,
        xs_wire.XS_WRITE_CREATE,
        xs_wire.XS_WRITE_CREATE_EXCL,
    ]
    table = probe.preprocessed("64").partition("xsd_errors[]")[2].partition("};")[0]
    assert tuple(re.findall(r'"(E\w+)"', table)) == xs_wire.XSD_ERRORS


@pytest.mark.parametrize("name", sorted(TABLES))
def test_name_table_decodes_each_value_once(name: str) -> None:
    module, table = TABLES[name]
    assert table
    assert len(set(table.values())) == len(table)
    assert {label: value for value, label in table.items()}.items() <= vars(module).items()


def test_missing_compiler_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(probe.ProbeError, match=r"no-such-compiler.*apt-get install gcc .*libxen-dev"):
        probe.numbers("64", ["1"])


def test_two_names_for_one_value_are_refused() -> None:
    with pytest.raises(ValueError, match="A_ONE and A_UNO are both 1"):
        value_names({"A_ONE": 1, "A_UNO": 1, "B_ONE": 1}, "A_")
    assert value_names({"A_TWO": 2, "A_ONE": 1, "A_UNO": 1, "A_TEXT": "1"}, "A_", skip={"A_UNO"}) == {
        1: "A_ONE",
        2: "A_TWO",
    }
