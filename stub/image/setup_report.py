"""A bzImage's set-up header and zero page, explained field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stub.image.bootparam import (
    BOOT_FLAG,
    LOADFLAGS,
    PROTOCOL_PAYLOAD,
    PROTOCOL_SUBARCH,
    SECTOR,
    SETUP_HEADER,
    SUBARCHES,
    XLOADFLAGS,
)
from stub.image.faults import printable
from stub.image.model import SetupHeader
from stub.image.zeropage import XEN_PV_FILLS, ZERO_PAGE

KERNEL_INFO_MAGIC = b"LToP"


def protocol_name(version: int) -> str:
    """0x020f → "2.15"; 0, which stands for any, → "any"."""
    return f"{version >> 8}.{version & 0xFF:02d}" if version else "any"


def bit_names(value: int, table: Mapping[int, tuple[str, str]]) -> str:
    """The names of the bits set in ``value``; unnamed ones by number."""
    set_bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    return ", ".join(table[bit][0] if bit in table else f"bit {bit}" for bit in set_bits) or "none"


DECODERS: dict[str, Callable[[int, SetupHeader], str]] = {
    "setup_sects": lambda v, h: f"{(v + 1) * SECTOR} bytes before the protected-mode part",
    "syssize": lambda v, h: f"{v * 16} bytes",
    "boot_flag": lambda v, h: "right" if v == BOOT_FLAG else "wrong",
    "jump": lambda v, h: f"header ends at {0x202 + (v >> 8):#x}",
    "header": lambda v, h: printable(v.to_bytes(4, "little")),
    "version": lambda v, h: protocol_name(v),
    "kernel_version": lambda v, h: f"at {v + SECTOR:#x}: {printable(h.kernel_version or 'no string there')}",
    "loadflags": lambda v, h: bit_names(v, LOADFLAGS),
    "xloadflags": lambda v, h: bit_names(v, XLOADFLAGS),
    "relocatable_kernel": lambda v, h: "yes" if v else "no",
    "min_alignment": lambda v, h: f"{1 << v} bytes" if v < 64 else "absurd",
    "hardware_subarch": lambda v, h: SUBARCHES.get(v, "unknown"),
    "payload_offset": lambda v, h: f"at {h.setup_size + v:#x} in the file",
    "init_size": lambda v, h: f"{v >> 20} MiB",
}


def describe_setup_header(data: memoryview, header: SetupHeader) -> dict[str, Any]:
    """The header for ``inspect``: every field of every protocol, whether this file has it, and what it says."""
    version = header["version"]
    brought: dict[int, list[str]] = {}
    for row in SETUP_HEADER:
        brought.setdefault(row.protocol, []).append(row.name)
    return {
        "protocol": protocol_name(version),
        "kernel_version": header.kernel_version,
        "relocatable": bool(header["relocatable_kernel"]),
        "fields": [_field(row, header) for row in SETUP_HEADER],
        "protocols": [
            {"protocol": protocol_name(at), "brought": names, "present": at <= version}
            for at, names in sorted(brought.items())
            if at
        ],
        "loadflags": _flags(header["loadflags"], LOADFLAGS),
        "xloadflags": _flags(header["xloadflags"], XLOADFLAGS),
        "payload": {
            "offset": f"{header.setup_size + header['payload_offset']:#x}",
            "length": header["payload_length"],
        },
        "kernel_info": _kernel_info(data, header),
        "warnings": _warnings(header),
    }


def describe_zero_page() -> list[dict[str, Any]]:
    """The zero page's fields, the header's own among them, with what Linux writes there under Xen PV."""
    rows: list[dict[str, Any]] = []
    for place in ZERO_PAGE:
        rows.append(_row(place.offset, place.size, place.name, place.meaning))
        if place.name == "hdr":
            rows += [_row(f.offset, f.size, f"hdr.{f.name}", f.meaning) for f in SETUP_HEADER if f.name in XEN_PV_FILLS]
    return rows


def _row(offset: int, size: int, name: str, meaning: str) -> dict[str, Any]:
    filled = XEN_PV_FILLS.get(name.removeprefix("hdr."))
    return {"offset": f"{offset:#05x}", "size": size, "name": name, "meaning": meaning, "xen_pv": filled}


def _field(row: Any, header: SetupHeader) -> dict[str, Any]:
    value = header.values.get(row.name)
    return {
        "offset": f"{row.offset:#x}",
        "size": row.size,
        "since": protocol_name(row.protocol),
        "name": row.name,
        "value": None if value is None else f"{value:#x}",
        "says": DECODERS[row.name](value, header) if value is not None and row.name in DECODERS else None,
        "meaning": row.meaning,
    }


def _flags(value: int, table: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"bit": bit, "name": name, "set": bool(value >> bit & 1), "meaning": meaning}
        for bit, (name, meaning) in table.items()
    ]


def _kernel_info(data: memoryview, header: SetupHeader) -> dict[str, Any] | None:
    """The structure that continues the header since protocol 2.15, in the protected-mode part; None without one."""
    start = header.setup_size + header["kernel_info_offset"]
    raw = bytes(data[start : start + 16])
    if not header["kernel_info_offset"] or len(raw) < 16 or not raw.startswith(KERNEL_INFO_MAGIC):
        return None
    size, total, highest = (int.from_bytes(raw[at : at + 4], "little") for at in (4, 8, 12))
    return {"offset": f"{start:#x}", "size": size, "size_total": total, "setup_type_max": f"{highest:#x}"}


def _warnings(header: SetupHeader) -> list[str]:
    """What a Xen PV loader misses in an old protocol, and oddities."""
    version, found = header["version"], []
    if version < PROTOCOL_PAYLOAD:
        found.append(f"protocol {protocol_name(version)} < 2.08: no payload fields, so no PV kernel can be taken out")
    if version < PROTOCOL_SUBARCH:
        found.append(f"protocol {protocol_name(version)} < 2.07: no hardware_subarch")
    if header["boot_flag"] != BOOT_FLAG:
        found.append(f"boot_flag is {header['boot_flag']:#06x}, not {BOOT_FLAG:#06x}")
    if not header["setup_sects"]:
        found.append("setup_sects is 0: boot loaders read it as 4, Xen's loader and pvstub as 0")
    return found
