"""From notes or ``__xen_guest`` to ``XenParms``, with Xen's precedence, defaults and sanity checks.

Source: Xen 4.17, what its libelf does for a PV domain: notes of PT_NOTE segments, else of SHT_NOTE sections, else the
``__xen_guest`` section; only notes whose owner is exactly "Xen" count (GNU Mach's is another).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from stub.abi import elfnote, features
from stub.abi.arch_x86 import HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_START_PAE
from stub.image.elf import EM_386, SPAN_LIMIT, Elf
from stub.image.faults import Fault, c_string, printable
from stub.image.legacy import c_number, find_guest_string, parse_guest_string
from stub.image.model import Note, Segment, XenParms
from stub.image.notes import OWNER, number, pairs
from stub.units import GIB, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, U64, is_canonical, page_up

PV_KERNEL = "use a kernel built as a Xen PV guest (Linux: CONFIG_XEN_PV)"
BUILD_AGAIN = "fetch or build the kernel again"

BIT_NAMES = {bit: name.removeprefix("XENFEAT_") for bit, name in features.FEATURES.items()}
FEATURE_NAMES = frozenset(
    BIT_NAMES[bit]
    for bit in (
        features.XENFEAT_writable_page_tables,
        features.XENFEAT_writable_descriptor_tables,
        features.XENFEAT_auto_translated_physmap,
        features.XENFEAT_supervisor_mode_kernel,
        features.XENFEAT_pae_pgdir_above_4gb,
        features.XENFEAT_hvm_callback_vector,
        features.XENFEAT_dom0,
    )
)
"""The names that Xen's loader knows in a FEATURES string."""


class Features(NamedTuple):
    """A FEATURES string read as Xen reads it; ``unknown`` is the first required name that Xen does not know."""

    supported: frozenset[str]
    required: frozenset[str]
    unknown: str | None


def parse_features(text: str) -> Features:
    """Names joined by "|"; "!" before one makes it required. Unknown ones that are not required do not count."""
    supported: set[str] = set()
    required: set[str] = set()
    unknown = None
    for item in text.split("|"):
        name = item.removeprefix("!")
        if name in FEATURE_NAMES:
            supported.add(name)
            if item != name:
                required.add(name)
        elif item != name and unknown is None:
            unknown = name
    return Features(frozenset(supported), frozenset(required), unknown)


def _features(text: str) -> dict[str, Any]:
    found = parse_features(text)
    if found.unknown is not None:
        raise Fault(
            f'the kernel requires the feature "{printable(found.unknown, 64)}", which Xen 4.17 does not know',
            "use a kernel that can do without it",
        )
    return {"features_supported": found.supported, "features_required": found.required}


def _note_pae(text: str) -> dict[str, Any]:
    if "bimodal" in text:
        return {"pae": "bimodal"}
    return {"pae": "extended-cr3"} if text == "yes" else {}


def _legacy_pae(text: str) -> dict[str, Any]:
    if text == "yes[extended-cr3]":
        return {"pae": "extended-cr3"}
    return {"pae": "yes"} if text.startswith("yes") else {}


NOTE_PARMS: dict[int, Callable[[bytes], dict[str, Any]]] = {
    elfnote.XEN_ELFNOTE_ENTRY: lambda d: {"entry": number(d)},
    elfnote.XEN_ELFNOTE_HYPERCALL_PAGE: lambda d: {"hypercall_page": number(d)},
    elfnote.XEN_ELFNOTE_VIRT_BASE: lambda d: {"virt_base": number(d)},
    elfnote.XEN_ELFNOTE_PADDR_OFFSET: lambda d: {"paddr_offset": number(d)},
    elfnote.XEN_ELFNOTE_XEN_VERSION: lambda d: {"xen_version": c_string(d)},
    elfnote.XEN_ELFNOTE_GUEST_OS: lambda d: {"guest_os": c_string(d)},
    elfnote.XEN_ELFNOTE_GUEST_VERSION: lambda d: {"guest_version": c_string(d)},
    elfnote.XEN_ELFNOTE_LOADER: lambda d: {"loader": c_string(d)},
    elfnote.XEN_ELFNOTE_PAE_MODE: lambda d: _note_pae(c_string(d)),
    elfnote.XEN_ELFNOTE_FEATURES: lambda d: _features(c_string(d)),
    elfnote.XEN_ELFNOTE_BSD_SYMTAB: lambda d: {"bsd_symtab": True} if c_string(d) == "yes" else {},
    elfnote.XEN_ELFNOTE_HV_START_LOW: lambda d: {"hv_start_low": number(d)},
    elfnote.XEN_ELFNOTE_L1_MFN_VALID: lambda d: {"l1_mfn_valid": pairs(d)},
    elfnote.XEN_ELFNOTE_SUSPEND_CANCEL: lambda d: {"suspend_cancel": number(d)},
    elfnote.XEN_ELFNOTE_INIT_P2M: lambda d: {"init_p2m": number(d)},
    elfnote.XEN_ELFNOTE_MOD_START_PFN: lambda d: {"mod_start_pfn": number(d) != 0},
    elfnote.XEN_ELFNOTE_SUPPORTED_FEATURES: lambda d: {"supported_features": int.from_bytes(d[:4], "little")},
    elfnote.XEN_ELFNOTE_PHYS32_ENTRY: lambda d: {"phys32_entry": number(d)},
}
LEGACY_PARMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "LOADER": lambda v: {"loader": v},
    "GUEST_OS": lambda v: {"guest_os": v},
    "GUEST_VER": lambda v: {"guest_version": v},
    "XEN_VER": lambda v: {"xen_version": v},
    "PAE": _legacy_pae,
    "BSD_SYMTAB": lambda v: {"bsd_symtab": True},
    "VIRT_BASE": lambda v: {"virt_base": c_number(v)},
    "VIRT_ENTRY": lambda v: {"entry": c_number(v)},
    "ELF_PADDR_OFFSET": lambda v: {"paddr_offset": c_number(v)},
    "HYPERCALL_PAGE": lambda v: {"hypercall_page": c_number(v) << PAGE_SHIFT & U64},
    "FEATURES": _features,
}


def find_parms(elf: Elf, notes: Iterable[Note]) -> XenParms:
    """What the kernel says, defaults filled in. ``Fault`` when it says nothing to Xen, or nothing about PV."""
    xen_notes = [note for note in notes if note.owner == OWNER]
    if xen_notes:
        values, source = _from_notes(xen_notes), xen_notes[0].source
        _refuse_pvh_only(values)
    else:
        text = find_guest_string(elf)
        if text is None:
            raise Fault("a plain ELF file, no Xen guest: it has neither Xen notes nor a __xen_guest section", PV_KERNEL)
        values, source = _from_guest_string(text), "__xen_guest"
    return _completed(elf, values, source)


def _from_notes(notes: Iterable[Note]) -> dict[str, Any]:
    """Every known note's values; of two of a kind the later one counts, but features add up."""
    values: dict[str, Any] = {}
    for note in notes:
        if note.type in NOTE_PARMS:
            _merge(values, NOTE_PARMS[note.type](note.desc))
    return values


def _from_guest_string(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in parse_guest_string(text):
        if key in LEGACY_PARMS:
            _merge(values, LEGACY_PARMS[key](value))
    if "virt_base" in values and "hypercall_page" in values:
        values["hypercall_page"] = (values["hypercall_page"] + values["virt_base"]) & U64
    return values


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        values[name] = values[name] | value if isinstance(value, frozenset) and name in values else value


def _refuse_pvh_only(values: Mapping[str, Any]) -> None:
    """A PHYS32_ENTRY without any virtual address is a PVH kernel: there is nowhere for a PV guest to begin."""
    if "phys32_entry" in values and not values.keys() & {"entry", "virt_base", "hypercall_page"}:
        raise Fault(
            f"a PVH kernel only: PHYS32_ENTRY is {values['phys32_entry']:#x} and there is no PV entry",
            "use a kernel with a PV entry (Linux: CONFIG_XEN_PV)",
        )


def _completed(elf: Elf, values: dict[str, Any], source: str) -> XenParms:
    """``values`` with the defaults for what is missing."""
    if "paddr_offset" in values and "virt_base" not in values:
        raise Fault("a PADDR_OFFSET without a VIRT_BASE", BUILD_AGAIN)
    values.setdefault("virt_base", 0)
    values.setdefault("paddr_offset", values["virt_base"] if source == "__xen_guest" else 0)
    values.setdefault("entry", elf.entry)
    if values.get("supported_features"):
        bits = values["supported_features"]
        named = frozenset(name for bit, name in BIT_NAMES.items() if bits >> bit & 1)
        values["features_supported"] = values.get("features_supported", frozenset()) | named
    p2m = values.get("init_p2m")
    # Xen takes no notice of one it cannot use.
    if p2m is not None and (p2m & PAGE_MASK or p2m >= values["virt_base"] or elf.machine == EM_386):
        values["init_p2m"] = None
    return XenParms(source=source, **values)


def check_parms(parms: XenParms) -> None:
    """``Fault`` for a kernel that Xen would not start as a PV domU for what it says about itself."""
    if not parms.loader.startswith("generic") and not parms.guest_os.startswith("linux"):
        raise Fault(
            f'made for the loader "{printable(parms.loader, 32)}" and the system "{printable(parms.guest_os, 32)}"; '
            "Xen starts only the loader generic or the system linux",
            PV_KERNEL,
        )
    if not parms.xen_version.startswith("xen-3.0"):
        raise Fault(f'made for Xen "{printable(parms.xen_version, 32)}", not for xen-3.0', PV_KERNEL)
    if "dom0" in parms.features_required:
        raise Fault("a kernel that requires to be dom0", "use a kernel that runs as a domU")


def kernel_range(segments: tuple[Segment, ...], parms: XenParms) -> tuple[int, int]:
    """(virt_kstart, virt_kend) as Xen computes them, modulo 2^64."""
    offset = parms.virt_base - parms.paddr_offset
    start = min(s.paddr for s in segments)
    end = max(s.paddr + s.memsz for s in segments)
    return (start + offset) & U64, (end + offset) & U64


def check_addresses(segments: tuple[Segment, ...], parms: XenParms, bits: int) -> None:
    """``Fault`` when the kernel's addresses cannot be laid out: Xen's checks, then those of its domain builder."""
    start, end = kernel_range(segments, parms)
    base, entry = parms.virt_base, parms.entry
    where = f"the kernel ({start:#x} to {end:#x})"
    if segments[0].paddr < parms.paddr_offset or not base <= start <= end:
        raise Fault(f"{where} does not lie above VIRT_BASE {base:#x}", BUILD_AGAIN)
    if not start <= entry <= end:
        raise Fault(f"the entry {entry:#x} lies outside {where}", BUILD_AGAIN)
    if parms.init_p2m is not None and start <= parms.init_p2m < end:
        raise Fault(f"INIT_P2M {parms.init_p2m:#x} lies inside {where}", BUILD_AGAIN)
    page = parms.hypercall_page
    if page is not None and not start <= page <= page_up(end) - PAGE_SIZE:
        raise Fault(f"the hypercall page {page:#x} lies outside {where}", BUILD_AGAIN)
    if start & PAGE_MASK or base & PAGE_MASK:
        raise Fault(f"{where} does not begin on a page", BUILD_AGAIN)
    if segments[-1].paddr + segments[-1].memsz - parms.paddr_offset > SPAN_LIMIT:
        raise Fault(f"{where} ends more than {SPAN_LIMIT // GIB} GiB above VIRT_BASE {base:#x}", BUILD_AGAIN)
    if bits == 32 and end > HYPERVISOR_VIRT_START_PAE:
        raise Fault(f"{where} reaches past {HYPERVISOR_VIRT_START_PAE:#x}, where Xen's part begins", BUILD_AGAIN)
    if bits == 64 and not (is_canonical(base) and is_canonical(start) and is_canonical(end)):
        raise Fault(f"{where} has addresses that are not canonical", BUILD_AGAIN)
    if bits == 64 and base < HYPERVISOR_VIRT_END and end > HYPERVISOR_VIRT_START:
        raise Fault(f"{where} overlaps the addresses that belong to Xen", BUILD_AGAIN)
