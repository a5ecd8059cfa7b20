"""``pvstub inspect``: what a file is and what it tells Xen, as data. ``render`` makes text of it.

Addresses are hex strings, because JSON's numbers end at 2^53 for many readers; sizes and counts are numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stub.abi import elfnote
from stub.errors import PvstubError
from stub.image.bzimage import is_bzimage, parse_setup_header
from stub.image.elf import FILE_TYPES, Elf, load_segments, loadable, machine_name, parse_elf, read_sections
from stub.image.faults import Fault, c_string, printable
from stub.image.fingerprint import fingerprint
from stub.image.legacy import find_guest_string, parse_guest_string
from stub.image.load import KernelFile, Unwrapped, assemble, check_supported, read_file, strip_outer, unwrap
from stub.image.model import Image, Note, Segment, XenParms
from stub.image.notes import OWNER, XEN_NOTES, number, pairs, read_notes
from stub.image.parms import BIT_NAMES, find_parms
from stub.image.probe import what_is
from stub.image.render import render
from stub.image.setup_report import describe_setup_header, describe_zero_page
from stub.units import PAGE_SHIFT, U64

__all__ = ["describe", "render"]

Report = dict[str, Any]
PROGRAM_HEADER_TYPES = {
    0: "NULL",
    1: "LOAD",
    2: "DYNAMIC",
    3: "INTERP",
    4: "NOTE",
    5: "SHLIB",
    6: "PHDR",
    7: "TLS",
    0x6474E550: "GNU_EH_FRAME",
    0x6474E551: "GNU_STACK",
    0x6474E552: "GNU_RELRO",
    0x6474E553: "GNU_PROPERTY",
}


def describe(path: Path, layout: Callable[[Image], Report] | None = None, *, cache: Path | None = None) -> Report:
    """Everything about the file ``path`` that can be known without starting it, ready for JSON.

    Keys that are always there: file, kind, what, bootable, reason, remedy, verdict, warnings. The others
    (setup_header, zero_page, elf, segments, notes, guest_string, parms, guest, guest_sign, entries, start_of_day) as
    far as the file goes. ``layout`` gives "start_of_day" for an image that can boot. A file that is no guest is a
    report like any other; only one that cannot be read raises ``ImageError``.
    """
    path = Path(path)
    try:
        file = read_file(path)
    except Fault as fault:
        raise fault.named(path) from None
    report: Report = {
        "file": {"path": str(path), "size": len(file.data), "sha256": file.sha256},
        "kind": "unknown",
        "what": what_is(file.data)[0],
        "bootable": False,
        "reason": None,
        "remedy": None,
        "verdict": "not a Xen PV guest",
        "warnings": [],
    }
    try:
        image = _examine(report, path, file, cache)
        report["verdict"] = f"Xen PV {image.bits}-bit" + (" PAE" if image.bits == 32 and image.parms.pae else "")
        check_supported(image)
    except Fault as fault:
        report["reason"], report["remedy"] = fault.fault, fault.remedy
        if report.get("entries", {}).get("pvh") and not report["entries"]["pv"]:
            report["verdict"] = "PVH only, not a Xen PV guest"
        return report
    report["bootable"] = True
    if layout is not None:
        try:
            report["start_of_day"] = layout(image)
        except PvstubError as error:
            report["warnings"].append(f"start of day: {error}")
    return report


def _examine(report: Report, path: Path, file: KernelFile, cache: Path | None) -> Image:
    """Fills ``report`` stage by stage; a ``Fault`` leaves what was found before it."""
    data, outer = strip_outer(file, cache)
    if is_bzimage(data):
        header = parse_setup_header(data)
        report["kind"], report["what"] = "bzImage", "a Linux bzImage"
        report["setup_header"] = describe_setup_header(data, header)
        report["warnings"] += report["setup_header"]["warnings"]
        report["zero_page"] = describe_zero_page()
    inner = unwrap(file, cache)
    report |= {"kind": inner.kind, "compression": inner.compression, "elf_size": len(inner.elf)}
    if outer is not None and not is_bzimage(data):
        report["what"] = f"{what_is(inner.elf)[0]}, {outer}-compressed"
    _warn_of_size(report, inner)
    elf = parse_elf(inner.elf)
    report["elf"] = _elf(elf)
    notes = read_notes(elf)
    report["notes"] = [_note(note) for note in notes]
    text = find_guest_string(elf)
    if text is not None:
        report["guest_string"] = {"text": printable(text, 4096), "pairs": parse_guest_string(text)}
    segments = load_segments(elf)
    report["segments"] = [_segment(segment, None) for segment in segments]
    parms = None
    try:
        parms = find_parms(elf, notes)
    finally:
        report["entries"] = _entries(parms, notes)
    report["parms"] = _parms(parms)
    report["guest"], report["guest_sign"] = fingerprint(parms, segments, elf.data)
    report["segments"] = [_segment(segment, parms) for segment in segments]
    return assemble(path, file, inner)


def _warn_of_size(report: Report, inner: Unwrapped) -> None:
    if inner.declared is not None and inner.compression != "none" and inner.declared != len(inner.elf):
        report["warnings"].append(f"the payload holds {len(inner.elf)} bytes, its last four say {inner.declared}")


def _elf(elf: Elf) -> Report:
    sections = read_sections(elf)
    return {
        "class": f"ELF{elf.bits}",
        "type": FILE_TYPES[elf.type],
        "machine": machine_name(elf.machine),
        "entry": f"{elf.entry:#x}",
        "program_headers": [
            {
                "type": PROGRAM_HEADER_TYPES.get(header.type, f"{header.type:#x}"),
                "flags": _rights(header.flags),
                "offset": f"{header.offset:#x}",
                "vaddr": f"{header.vaddr:#x}",
                "paddr": f"{header.paddr:#x}",
                "filesz": header.filesz,
                "memsz": header.memsz,
                "align": header.align,
                "loaded": loadable(header),
            }
            for header in elf.headers
        ],
        "sections": [printable(section.name, 64) for section in sections[1:]],
        "stripped": not any(section.name == ".symtab" for section in sections),
    }


def _rights(flags: int) -> str:
    return "".join(letter if flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


def _segment(segment: Segment, parms: XenParms | None) -> Report:
    """A segment, and once it is known where PFN 0 is mapped, its frames and where the first instruction sees it."""
    row: Report = {
        "flags": _rights(segment.flags),
        "paddr": f"{segment.paddr:#x}",
        "vaddr": f"{segment.vaddr:#x}",
        "filesz": segment.filesz,
        "memsz": segment.memsz,
    }
    if parms is not None:
        start = segment.paddr - parms.paddr_offset & U64
        mapped = start + parms.virt_base & U64
        row |= {
            "first_pfn": f"{start >> PAGE_SHIFT:#x}",
            "last_pfn": f"{start + segment.memsz - 1 >> PAGE_SHIFT:#x}",
            "mapped_at": f"{mapped:#x}",
            "runs_where_linked": mapped == segment.vaddr,
            "holds_entry": 0 <= parms.entry - mapped < segment.memsz,
        }
        row["says"] = _explained(row)
    return row


def _explained(row: Report) -> str:
    """A segment in words: what there is to know beyond its numbers."""
    words = ["the first instruction is here"] if row["holds_entry"] else []
    if not row["runs_where_linked"]:
        words.append("linked elsewhere: the kernel must map it there before it can use it")
    return "; ".join(words)


def _note(note: Note) -> Report:
    kind = XEN_NOTES.get(note.type) if note.owner == OWNER else None
    return {
        "owner": printable(note.owner, 64),
        "type": note.type,
        "name": _note_name(note) if kind is not None else None,
        "value": NOTE_VALUES[kind.form](note.desc) if kind is not None else _plain_value(note.desc),
        "bytes": len(note.desc),
        "source": note.source,
        "meaning": kind.meaning if kind is not None else NO_MEANING[note.owner == OWNER],
    }


def _note_name(note: Note) -> str:
    return elfnote.ELFNOTES[note.type].removeprefix("XEN_ELFNOTE_")


def _plain_value(desc: bytes) -> str:
    """Text where a descriptor is nothing but text, hex otherwise."""
    text = desc.rstrip(b"\0")
    return printable(text) if text and text.isascii() and text.decode().isprintable() else desc[:64].hex()


NO_MEANING = {True: "unknown to Xen 4.17", False: 'not for Xen: the owner is not "Xen"'}
NOTE_VALUES: dict[str, Callable[[bytes], str]] = {
    "number": lambda desc: f"{number(desc):#x}",
    "string": lambda desc: printable(c_string(desc)),
    "pairs": lambda desc: _pairs(pairs(desc)),
}


def _pairs(found: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"mask {mask:#x} value {value:#x}" for mask, value in found)


def _entries(parms: XenParms | None, notes: tuple[Note, ...]) -> Report:
    """The ways in that the file offers. pvstub takes the PV one."""
    pvh = [number(n.desc) for n in notes if n.owner == OWNER and n.type == elfnote.XEN_ELFNOTE_PHYS32_ENTRY]
    return {
        "pv": f"{parms.entry:#x}" if parms is not None else None,
        "pvh": f"{pvh[-1]:#x}" if pvh else None,
    }


ADDRESSES = ("entry", "virt_base", "paddr_offset", "hypercall_page", "init_p2m", "hv_start_low", "phys32_entry")


def _parms(parms: XenParms) -> Report:
    """What remains after precedence and defaults."""
    values: Report = dict(vars(parms))
    for name in ADDRESSES:
        values[name] = None if values[name] is None else f"{values[name]:#x}"
    for name in ("features_supported", "features_required"):
        values[name] = sorted(values[name])
    for name in ("guest_os", "guest_version", "xen_version", "loader"):
        values[name] = printable(values[name])
    if parms.l1_mfn_valid is not None:
        values["l1_mfn_valid"] = _pairs(parms.l1_mfn_valid)
    bits = values["supported_features"]
    if bits is not None:
        named = [BIT_NAMES.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1]
        values["supported_features"] = f"{bits:#x}: {', '.join(named) or 'none'}"
    return values
