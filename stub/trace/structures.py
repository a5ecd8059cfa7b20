"""Captured bytes as structures: members by name, lists, and the few structures whose members depend on a command."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from stub.abi import arch_x86, grant_table, memory, xen
from stub.abi.event_channel import (
    EvtchnOp,
    EVTCHNSTAT_interdomain,
    EVTCHNSTAT_pirq,
    EVTCHNSTAT_unbound,
    EVTCHNSTAT_virq,
    EvtchnStatus,
)
from stub.abi.layout import Struct
from stub.abi.physdev import PhysdevOp32, PhysdevOp64
from stub.abi.xen import Hypercall
from stub.trace.fields import TAILS, listed, member, raw, tail_item
from stub.trace.rows import Pointed
from stub.trace.schema import CALLS
from stub.trace.styles import Shown, decimal, hexadecimal, named, pointer, text

Members = dict[str, Shown]
"""A structure's members in the order in which they are shown; one with an empty text is in JSON only."""

Special = Callable[[Any, int], Members]
"""Shows a structure's record in a guest of so many bits."""

_update = named(xen.MMU_UPDATES)
_mmuext = named(xen.MMUEXT_OPS)


def members(layout: Struct, data: bytes, at: int, bits: int) -> Members:
    """The members of the structure at offset ``at`` of ``data``, which reaches to its end."""
    record = layout.unpack_from(data, at)
    special = _SPECIAL.get(layout.name)
    if special is not None:
        return special(record, bits)
    return {name: member(layout, name, value) for name, value in zip(layout.fields, record, strict=True)}


def elements(pointed: Pointed, data: bytes, bits: int) -> list[Members] | None:
    """Captured bytes as a list of structures; None where they are not even one."""
    layout = pointed.layout(bits)
    if pointed.text or len(data) < layout.size:
        return None
    single = pointed.count is None and not pointed.terminated
    count = 1 if single else len(data) // layout.size
    found = [members(layout, data, index * layout.size, bits) for index in range(count)]
    if single or layout.name in TAILS:
        found[-1] |= _tail(layout, data[layout.size :] if single or count == 1 else b"")
    return found


def combined(pointed: Pointed, before: list[Members] | None, after: list[Members] | None) -> Shown | None:
    """A structure or array as it was and, member by member, as it became: ``{port=0 => 4}``."""
    base = before or after
    if base is None:
        return None
    shown = [
        _braced(element, after[index] if after and before and index < len(after) else {})
        for index, element in enumerate(base)
    ]
    return listed(shown) if pointed.count is not None or pointed.terminated else shown[0]


def plain(pointed: Pointed, found: list[Members]) -> Any:
    """The JSON form of `elements`: an object, or a list for an array."""
    objects = [_object(element) for element in found]
    return objects if pointed.count is not None or pointed.terminated else objects[0]


def unstructured(pointed: Pointed, data: bytes) -> Shown:
    """Captured bytes that are text, or too few for their structure."""
    return text(data) if pointed.text else raw(data)


def _braced(element: Members, after: Mapping[str, Shown]) -> Shown:
    if list(element) == ["value"]:
        return element["value"]
    parts = []
    for name, shown in element.items():
        if not shown.text:
            continue
        change = after.get(name, shown)
        parts.append(f"{name}={shown.text}" + (f" => {change.text}" if change.text != shown.text else ""))
    parts += [f"{name}={shown.text}" for name, shown in after.items() if name not in element]
    return Shown("{" + ", ".join(parts) + "}", _object(element))


def _object(element: Members) -> Any:
    return (
        element["value"].data if list(element) == ["value"] else {name: shown.data for name, shown in element.items()}
    )


def _tail(layout: Struct, data: bytes) -> Members:
    """The list captured behind a structure, if any."""
    if layout.name not in TAILS or not data:
        return {}
    name, code = TAILS[layout.name]
    count = len(data) // struct.calcsize("<" + code)
    items = struct.unpack_from(f"<{count}{code}", data)
    return {name: listed([tail_item(name, item) for item in items])}


def _mmu_update(record: Any, bits: int) -> Members:
    ptr, name = record.ptr & ~7, _update(record.ptr & 7)
    return {
        "ptr": Shown(f"{ptr:#x}|{name.text}", hex(ptr)),
        "val": hexadecimal(record.val),
        "cmd": Shown("", name.data),
    }


_LINEAR: Final = frozenset(
    {xen.MMUEXT_INVLPG_LOCAL, xen.MMUEXT_INVLPG_MULTI, xen.MMUEXT_INVLPG_ALL, xen.MMUEXT_SET_LDT}
)
_NO_ADDRESS: Final = frozenset({
    xen.MMUEXT_TLB_FLUSH_LOCAL, xen.MMUEXT_TLB_FLUSH_MULTI, xen.MMUEXT_TLB_FLUSH_ALL,
    xen.MMUEXT_FLUSH_CACHE, xen.MMUEXT_FLUSH_CACHE_GLOBAL,
})  # fmt: skip
_SECOND: Final[dict[int, tuple[str, Callable[[int], Shown]]]] = {
    xen.MMUEXT_SET_LDT: ("nr_ents", lambda value: decimal(value & 0xFFFF_FFFF)),
    xen.MMUEXT_TLB_FLUSH_MULTI: ("vcpumask", pointer),
    xen.MMUEXT_INVLPG_MULTI: ("vcpumask", pointer),
    xen.MMUEXT_COPY_PAGE: ("src_mfn", hexadecimal),
}


def _mmuext_op(record: Any, bits: int) -> Members:
    shown = {"cmd": _mmuext(record.cmd)}
    if record.cmd not in _NO_ADDRESS:
        shown["linear_addr" if record.cmd in _LINEAR else "mfn"] = hexadecimal(record.arg1)
    if record.cmd in _SECOND:
        name, style = _SECOND[record.cmd]
        shown[name] = style(record.arg2)
    return shown


_STATUS_MEMBERS: Final = {
    EVTCHNSTAT_unbound: ("unbound_dom",),
    EVTCHNSTAT_interdomain: ("interdomain_dom", "interdomain_port"),
    EVTCHNSTAT_pirq: ("pirq",),
    EVTCHNSTAT_virq: ("virq",),
}


def _chosen(layout: Struct, record: Any, names: Sequence[str]) -> Members:
    return {name: member(layout, name, getattr(record, name)) for name in names}


def _evtchn_status(layout: Struct) -> Special:
    return lambda record, bits: _chosen(
        layout, record, ("dom", "port", "status", "vcpu", *_STATUS_MEMBERS.get(record.status, ()))
    )


def _gnttab_copy(layout: Struct) -> Special:
    def show(record: Any, bits: int) -> Members:
        source = "source_ref" if record.flags & grant_table.GNTCOPY_source_gref else "source_gmfn"
        dest = "dest_ref" if record.flags & grant_table.GNTCOPY_dest_gref else "dest_gmfn"
        names = (source, "source_domid", "source_offset", dest, "dest_domid", "dest_offset", "len", "flags", "status")
        return _chosen(layout, record, names)

    return show


def _exchange(reservation: Struct) -> Special:
    def show(record: Any, bits: int) -> Members:
        halves = {
            name: _braced(members(reservation, data, 0, bits), {})
            for name, data in (("in", record.in_), ("out", record.out))
        }
        return {**halves, "nr_exchanged": decimal(record.nr_exchanged)}

    return show


def _compat(layout: Struct, family: Hypercall) -> Special:
    """The old forms of an operation: a command and, beside it, the structure that the new form points to."""

    def show(record: Any, bits: int) -> Members:
        pointed = CALLS[family].pointed.get(record.cmd)
        command = named(CALLS[family].commands)(record.cmd)
        if pointed is None or pointed.layout(bits).size > len(record.u):
            return {"cmd": command, "u": raw(record.u)}
        return {"cmd": command, **members(pointed.layout(bits), record.u, 0, bits)}

    return show


def _guest_context(registers: Struct, ip: str, sp: str) -> Special:
    """Of a vCPU's whole initial state, what tells where it starts."""

    def show(record: Any, bits: int) -> Members:
        regs = registers.unpack_from(record.user_regs)
        return {
            "flags": hexadecimal(record.flags),
            ip: hexadecimal(getattr(regs, ip)),
            sp: hexadecimal(getattr(regs, sp)),
            "kernel_sp": hexadecimal(record.kernel_sp),
            "cr3": hexadecimal(record.ctrlreg[3]),
            "gdt_ents": decimal(record.gdt_ents),
        }

    return show


def _specials() -> dict[str, Special]:
    table: dict[str, Special] = {"MmuUpdate": _mmu_update, "MmuextOp64": _mmuext_op, "MmuextOp32": _mmuext_op}
    table[EvtchnStatus.name] = _evtchn_status(EvtchnStatus)
    table |= {copy.name: _gnttab_copy(copy) for copy in (grant_table.GnttabCopy64, grant_table.GnttabCopy32)}
    table[memory.XenMemoryExchange64.name] = _exchange(memory.XenMemoryReservation64)
    table[memory.XenMemoryExchange32.name] = _exchange(memory.XenMemoryReservation32)
    table[EvtchnOp.name] = _compat(EvtchnOp, Hypercall.event_channel_op)
    table |= {op.name: _compat(op, Hypercall.physdev_op) for op in (PhysdevOp64, PhysdevOp32)}
    table[arch_x86.VcpuGuestContext64.name] = _guest_context(arch_x86.CpuUserRegs64, "rip", "rsp")
    table[arch_x86.VcpuGuestContext32.name] = _guest_context(arch_x86.CpuUserRegs32, "eip", "esp")
    return table


_SPECIAL: Final = _specials()
