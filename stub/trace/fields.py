"""How the members of Xen's structures are shown: the exceptions by name, the rest by their width.

A member without an entry is decimal when it has 32 bits or fewer (ports, vCPUs, counts) and hexadecimal when it has 64
(addresses, frames, entries).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stub.abi import callback, event_channel, grant_table, memory, platform, sched, vcpu, xen
from stub.abi.layout import Struct
from stub.trace.styles import (
    Shown,
    Style,
    decimal,
    domid,
    flags,
    grant_status,
    hexadecimal,
    named,
    pointer,
    text,
)

_HEXADECIMAL: Final = (
    "address address_cs address_eip control_gfn cs dest_gmfn flags gmfn gpfn handler_address idx interface_version"
    " max_mfn mem_flags mfn offset source_gmfn ss submap v_end v_start vector virt_start"
)
_DECIMAL: Final = (
    "nr_exchanged nr_extents period_ns pod_cache_pages pod_entries state_entry_time target_pages time timeout"
    " timeout_abs_ns tot_pages"
)
_DOMAINS: Final = "dest_domid dom domain_id domid foreign_domid interdomain_dom remote_dom source_domid unbound_dom"
_POINTERS: Final = "addr bitmap buffer errs extent_start frame_list gpfns idxs ports"

_ANYWHERE: Final[dict[str, Style]] = {
    **dict.fromkeys(_HEXADECIMAL.split(), hexadecimal),
    **dict.fromkeys(_DECIMAL.split(), decimal),
    **dict.fromkeys(_DOMAINS.split(), domid),
    **dict.fromkeys(_POINTERS.split(), pointer),
    "status": grant_status,
    "virq": named(xen.VIRQS),
}

_IN: Final[dict[tuple[str, str], Style]] = {
    ("EvtchnStatus", "status"): named(event_channel.EVTCHN_STATUSES),
    ("SchedShutdown", "reason"): named(sched.SHUTDOWN_REASONS),
    ("SchedRemoteShutdown", "reason"): named(sched.SHUTDOWN_REASONS),
    ("CallbackRegister64", "type"): named(callback.CALLBACK_TYPES),
    ("CallbackRegister32", "type"): named(callback.CALLBACK_TYPES),
    ("CallbackUnregister", "type"): named(callback.CALLBACK_TYPES),
    ("CallbackRegister64", "flags"): flags({callback.CALLBACKF_mask_events: "CALLBACKF_mask_events"}),
    ("CallbackRegister32", "flags"): flags({callback.CALLBACKF_mask_events: "CALLBACKF_mask_events"}),
    ("VcpuSetSingleshotTimer64", "flags"): flags({vcpu.VCPU_SSHOTTMR_future: "VCPU_SSHOTTMR_future"}),
    ("VcpuSetSingleshotTimer32", "flags"): flags({vcpu.VCPU_SSHOTTMR_future: "VCPU_SSHOTTMR_future"}),
    ("VcpuRunstateInfo64", "state"): named(vcpu.RUNSTATES),
    ("VcpuRunstateInfo32", "state"): named(vcpu.RUNSTATES),
    ("XenAddToPhysmap64", "space"): named(memory.XENMAPSPACES),
    ("XenAddToPhysmap32", "space"): named(memory.XENMAPSPACES),
    ("GnttabMapGrantRef", "flags"): flags({
        grant_table.GNTMAP_device_map: "GNTMAP_device_map",
        grant_table.GNTMAP_host_map: "GNTMAP_host_map",
        grant_table.GNTMAP_readonly: "GNTMAP_readonly",
        grant_table.GNTMAP_application_map: "GNTMAP_application_map",
        grant_table.GNTMAP_contains_pte: "GNTMAP_contains_pte",
    }),
    ("XenPlatformOp", "cmd"): named(platform.PLATFORM_OPS),
    ("EvtchnOp", "cmd"): named(event_channel.EVTCHN_OPS),
    ("Word64", "value"): hexadecimal,
    ("Word32", "value"): hexadecimal,
}  # fmt: skip

TAILS: Final[Mapping[str, tuple[str, str]]] = {
    "XenMemoryReservation64": ("extents", "Q"),
    "XenMemoryReservation32": ("extents", "I"),
    "GnttabSetupTable64": ("frames", "Q"),
    "GnttabSetupTable32": ("frames", "I"),
    "SchedPoll64": ("polled", "I"),
    "SchedPoll32": ("polled", "I"),
}
"""What may be captured behind a structure because a pointer in it leads there: the list's name, an element's format."""

_TEXTS: Final = frozenset(
    {"XenExtraversion", "XenCompileInfo", "XenCapabilitiesInfo", "XenChangesetInfo", "XenCommandline"}
)
_FRAME_LISTS: Final = frozenset({"extents", "frames"})


def member(layout: Struct, name: str, value: Any) -> Shown:
    """One member of a structure, shown."""
    if isinstance(value, bytes):
        return text(value) if layout.name in _TEXTS else raw(value)
    if isinstance(value, tuple):
        return listed([_number(layout, name, item) for item in value])
    return _number(layout, name, value)


def tail_item(name: str, value: int) -> Shown:
    """One element of a list captured behind a structure."""
    return hexadecimal(value) if name in _FRAME_LISTS else decimal(value)


def listed(items: Sequence[Shown]) -> Shown:
    """An array of shown values."""
    return Shown("[" + ", ".join(item.text for item in items) + "]", [item.data for item in items])


def raw(value: bytes) -> Shown:
    """Bytes without a meaning of ours, in hexadecimal; the text stops after 32."""
    digits = value.hex()
    return Shown(digits if len(value) <= 32 else f"{digits[:64]}...({len(value)} bytes)", digits)


def _number(layout: Struct, name: str, value: int) -> Shown:
    style = _IN.get((layout.name, name)) or _ANYWHERE.get(name)
    if style is None:
        style = hexadecimal if layout.fields[name].format[-1] in "Qq" else decimal
    return style(value)
