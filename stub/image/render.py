"""The text of an ``inspect`` report, for people: sections of aligned columns, no colours, no wrapping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stub.image.faults import printable

Report = dict[str, Any]
INDENT = "  "


def render(report: Report) -> str:
    """The report that ``describe`` made, as text without a final newline."""
    parts = [section(report[key]) for key, section in SECTIONS if report.get(key)]
    return "\n\n".join(["\n".join(_summary(report)), *parts])


def _summary(report: Report) -> list[str]:
    file = report["file"]
    lines = [f"{printable(file['path'], 4096)}: {report['verdict']}"]
    if report["reason"]:
        lines.append(f"{INDENT}cannot boot: {report['reason']}; {report['remedy']}")
    rows = [
        ("file", f"{report['what']}, {file['size']} bytes"),
        ("sha256", file["sha256"]),
        ("kind", report["kind"]),
        ("payload", report.get("compression")),
        ("kernel", f"ELF file of {report['elf_size']} bytes" if report.get("elf_size") else None),
        ("guest", _guest(report)),
        ("entries", _entries(report.get("entries"))),
    ]
    lines += table([row for row in rows if row[1]])
    return lines + [f"{INDENT}warning: {warning}" for warning in report["warnings"]]


def _guest(report: Report) -> str | None:
    parms = report.get("parms")
    return (
        f'{report["guest"]}, {report["guest_sign"]} ("{parms["guest_os"]}" {parms["guest_version"]}'.rstrip() + ")"
        if parms
        else None
    )


def _entries(entries: Report | None) -> str | None:
    if entries is None:
        return None
    found = [f"{name.upper()} at {address}" for name, address in entries.items() if address is not None]
    return ", ".join(found) or "none for Xen"


def table(rows: Iterable[Sequence[Any]], heads: Sequence[str] = ()) -> list[str]:
    """``rows`` as lines with aligned columns; None is shown as "-"."""
    cells = [["-" if cell is None else _cell(cell) for cell in row] for row in ([heads, *rows] if heads else rows)]
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    return [
        INDENT + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return printable(str(value), 4096)


def _columns(title: str, *names: str) -> Callable[[list[Report]], str]:
    """A section that shows the named keys of each row."""

    def section(rows: list[Report]) -> str:
        shown = [[row.get(name) for name in names] for row in rows]
        return "\n".join([title, *table(shown, [name.replace("_", " ") for name in names])])

    return section


def _setup_header(header: Report) -> str:
    lines = [f"Set-up header: boot protocol {header['protocol']}"]
    if header["kernel_version"] is not None:
        lines.append(f"{INDENT}{printable(header['kernel_version'])}")
    rows = [
        (f["offset"], f["size"], f["since"], f["name"], f["value"], f["says"] or f["meaning"]) for f in header["fields"]
    ]
    lines += table(rows, ("offset", "size", "since", "field", "value", ""))
    for name in ("loadflags", "xloadflags"):
        lines += ["", f"{name}: {', '.join(f['name'] for f in header[name] if f['set']) or 'none set'}"]
        lines += table((f["bit"], f["set"], f["name"], f["meaning"]) for f in header[name])
    lines += ["", "What each protocol brought"]
    lines += table((p["protocol"], "here" if p["present"] else "missing", p["brought"]) for p in header["protocols"])
    if header["kernel_info"]:
        lines += ["", f"kernel_info: {_cell(header['kernel_info'])}"]
    return "\n".join(lines)


def _elf(elf: Report) -> str:
    title = f"ELF header: {elf['class']} {elf['type']} for {elf['machine']}, e_entry {elf['entry']}"
    names = ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align", "loaded")
    rows = [[header[name] for name in names] for header in elf["program_headers"]]
    return "\n".join([title + (", stripped" if elf["stripped"] else ""), *table(rows, names)])


def _guest_string(guest: Report) -> str:
    return "\n".join([f"__xen_guest: {guest['text']}", *table(guest["pairs"])])


def _mapping(title: str) -> Callable[[Any], str]:
    """A section of any shape: scalars as lines, lists of mappings as tables with their keys as heads."""

    def section(value: Any) -> str:
        return "\n".join([title, *_any(value)])

    return section


def _any(value: Any) -> list[str]:
    if isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
        names = list(dict.fromkeys(name for item in value for name in item))
        return table([[item.get(name) for name in names] for item in value], [str(n).replace("_", " ") for n in names])
    if not isinstance(value, dict):
        return table([(value,)])
    nested = {k: v for k, v in value.items() if isinstance(v, dict) or _is_table(v)}
    lines = table([(str(k).replace("_", " "), v) for k, v in value.items() if k not in nested])
    for key, item in nested.items():
        lines += [f"{INDENT}{str(key).replace('_', ' ')}", *(INDENT + line for line in _any(item))]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, dict) for item in value)


SECTIONS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    (
        "segments",
        _columns(
            "Segments",
            *("flags", "paddr", "vaddr", "filesz", "memsz", "first_pfn", "last_pfn", "mapped_at"),
            *("runs_where_linked", "says"),
        ),
    ),
    ("notes", _columns("ELF notes", "owner", "type", "name", "value", "source", "meaning")),
    ("guest_string", _guest_string),
    ("parms", _mapping("What Xen makes of it")),
    ("start_of_day", _mapping("Start of day")),
    ("elf", _elf),
    ("setup_header", _setup_header),
    ("zero_page", _columns("Zero page", "offset", "size", "name", "meaning", "xen_pv")),
)
