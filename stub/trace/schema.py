"""The registry of hypercalls: what each argument is and what its pointer points to, a row a hypercall.

Numbers, commands and structures are stub.abi's; the order of arguments is that of the public headers (xen/xen.h and
the header of each family), which give it in comments and prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stub.abi import arch_x86 as arch
from stub.abi import callback, event_channel, grant_table, memory, nmi, physdev, platform, sched, vcpu, version, xen
from stub.abi.layout import Layout, Struct, Twin
from stub.abi.xen import Hypercall
from stub.trace.rows import PAYLOAD_CAP, Arg, Call, Flow, Pointed, Span, registry
from stub.trace.styles import decimal, domid, foreign_domain, hexadecimal, named, packed, pointer, signed, uvm_flags

IN, OUT, BOTH = Flow.IN, Flow.OUT, Flow.BOTH

BYTE: Final = Struct("Byte", 1, value=(0, "B"))
WORD: Final = Twin(Struct("Word64", 8, value=(0, "Q")), Struct("Word32", 4, value=(0, "I")))


def _text(name: str, size: int) -> Struct:
    return Struct(name, size, text=(0, f"{size}s"))


def _one(arg: int, rows: Mapping[int, tuple[Layout, Flow]], count: int | None = None) -> dict[int | None, Pointed]:
    """Commands whose pointer is in argument ``arg``: what it points to, and the flow."""
    return {command: Pointed(arg, structure, flow, count) for command, (structure, flow) in rows.items()}


_DONE = Arg("done", pointer, label=True)
_MEMORY = _one(1, {
    memory.XENMEM_increase_reservation: (memory.XenMemoryReservation, IN),
    memory.XENMEM_decrease_reservation: (memory.XenMemoryReservation, IN),
    memory.XENMEM_populate_physmap: (memory.XenMemoryReservation, IN),
    memory.XENMEM_exchange: (memory.XenMemoryExchange, BOTH),
    memory.XENMEM_current_reservation: (memory.XenMemoryDomain, IN),
    memory.XENMEM_maximum_reservation: (memory.XenMemoryDomain, IN),
    memory.XENMEM_maximum_gpfn: (memory.XenMemoryDomain, IN),
    memory.XENMEM_machphys_mfn_list: (memory.XenMachphysMfnList, BOTH),
    memory.XENMEM_machphys_compat_mfn_list: (memory.XenMachphysMfnList, BOTH),
    memory.XENMEM_machphys_mapping: (memory.XenMachphysMapping, OUT),
    memory.XENMEM_add_to_physmap: (memory.XenAddToPhysmap, BOTH),
    memory.XENMEM_add_to_physmap_batch: (memory.XenAddToPhysmapBatch, IN),
    memory.XENMEM_remove_from_physmap: (memory.XenRemoveFromPhysmap, IN),
    memory.XENMEM_memory_map: (memory.XenMemoryMap, BOTH),
    memory.XENMEM_machine_memory_map: (memory.XenMemoryMap, BOTH),
    memory.XENMEM_set_memory_map: (memory.XenForeignMemoryMap, IN),
    memory.XENMEM_set_pod_target: (memory.XenPodTarget, BOTH),
    memory.XENMEM_get_pod_target: (memory.XenPodTarget, BOTH),
    memory.XENMEM_acquire_resource: (memory.XenMemAcquireResource, BOTH),
    memory.XENMEM_get_vnumainfo: (memory.XenVnumaTopologyInfo, BOTH),
})  # fmt: skip

_EVTCHN = _one(1, {
    event_channel.EVTCHNOP_bind_interdomain: (event_channel.EvtchnBindInterdomain, BOTH),
    event_channel.EVTCHNOP_bind_virq: (event_channel.EvtchnBindVirq, BOTH),
    event_channel.EVTCHNOP_bind_pirq: (event_channel.EvtchnBindPirq, BOTH),
    event_channel.EVTCHNOP_close: (event_channel.EvtchnClose, IN),
    event_channel.EVTCHNOP_send: (event_channel.EvtchnSend, IN),
    event_channel.EVTCHNOP_status: (event_channel.EvtchnStatus, BOTH),
    event_channel.EVTCHNOP_alloc_unbound: (event_channel.EvtchnAllocUnbound, BOTH),
    event_channel.EVTCHNOP_bind_ipi: (event_channel.EvtchnBindIpi, BOTH),
    event_channel.EVTCHNOP_bind_vcpu: (event_channel.EvtchnBindVcpu, IN),
    event_channel.EVTCHNOP_unmask: (event_channel.EvtchnUnmask, IN),
    event_channel.EVTCHNOP_reset: (event_channel.EvtchnReset, IN),
    event_channel.EVTCHNOP_init_control: (event_channel.EvtchnInitControl, BOTH),
    event_channel.EVTCHNOP_expand_array: (event_channel.EvtchnExpandArray, IN),
    event_channel.EVTCHNOP_set_priority: (event_channel.EvtchnSetPriority, IN),
})  # fmt: skip

_VERSION = _one(1, {
    version.XENVER_extraversion: (_text("XenExtraversion", version.XEN_EXTRAVERSION_LEN), OUT),
    version.XENVER_compile_info: (version.XenCompileInfo, OUT),
    version.XENVER_capabilities: (_text("XenCapabilitiesInfo", version.XEN_CAPABILITIES_INFO_LEN), OUT),
    version.XENVER_changeset: (_text("XenChangesetInfo", version.XEN_CHANGESET_INFO_LEN), OUT),
    version.XENVER_platform_parameters: (version.XenPlatformParameters, OUT),
    version.XENVER_get_features: (version.XenFeatureInfo, BOTH),
    version.XENVER_commandline: (_text("XenCommandline", version.XEN_COMMANDLINE_LEN), OUT),
    version.XENVER_build_id: (version.XenBuildId, BOTH),
})  # fmt: skip

_GNTTAB = _one(1, {
    grant_table.GNTTABOP_map_grant_ref: (grant_table.GnttabMapGrantRef, BOTH),
    grant_table.GNTTABOP_unmap_grant_ref: (grant_table.GnttabUnmapGrantRef, BOTH),
    grant_table.GNTTABOP_setup_table: (grant_table.GnttabSetupTable, BOTH),
    grant_table.GNTTABOP_dump_table: (grant_table.GnttabDumpTable, BOTH),
    grant_table.GNTTABOP_transfer: (grant_table.GnttabTransfer, BOTH),
    grant_table.GNTTABOP_copy: (grant_table.GnttabCopy, BOTH),
    grant_table.GNTTABOP_query_size: (grant_table.GnttabQuerySize, BOTH),
    grant_table.GNTTABOP_unmap_and_replace: (grant_table.GnttabUnmapAndReplace, BOTH),
    grant_table.GNTTABOP_set_version: (grant_table.GnttabSetVersion, BOTH),
    grant_table.GNTTABOP_get_status_frames: (grant_table.GnttabGetStatusFrames, BOTH),
    grant_table.GNTTABOP_get_version: (grant_table.GnttabGetVersion, BOTH),
    grant_table.GNTTABOP_swap_grant_ref: (grant_table.GnttabSwapGrantRef, BOTH),
    grant_table.GNTTABOP_cache_flush: (grant_table.GnttabCacheFlush, IN),
}, count=2)  # fmt: skip

_VCPU = _one(2, {
    vcpu.VCPUOP_get_runstate_info: (vcpu.VcpuRunstateInfo, OUT),
    vcpu.VCPUOP_register_runstate_memory_area: (vcpu.VcpuRegisterRunstateMemoryArea, IN),
    vcpu.VCPUOP_set_periodic_timer: (vcpu.VcpuSetPeriodicTimer, IN),
    vcpu.VCPUOP_set_singleshot_timer: (vcpu.VcpuSetSingleshotTimer, IN),
    vcpu.VCPUOP_register_vcpu_info: (vcpu.VcpuRegisterVcpuInfo, IN),
    vcpu.VCPUOP_get_physid: (vcpu.VcpuGetPhysid, OUT),
    vcpu.VCPUOP_register_vcpu_time_memory_area: (vcpu.VcpuRegisterTimeMemoryArea, IN),
    vcpu.VCPUOP_initialise: (arch.VcpuGuestContext, IN),
})  # fmt: skip

_SCHED = _one(1, {
    sched.SCHEDOP_shutdown: (sched.SchedShutdown, IN),
    sched.SCHEDOP_poll: (sched.SchedPoll, IN),
    sched.SCHEDOP_remote_shutdown: (sched.SchedRemoteShutdown, IN),
    sched.SCHEDOP_shutdown_code: (sched.SchedShutdown, IN),
    sched.SCHEDOP_watchdog: (sched.SchedWatchdog, IN),
    sched.SCHEDOP_pin_override: (sched.SchedPinOverride, IN),
})  # fmt: skip

_PHYSDEV = _one(1, {
    physdev.PHYSDEVOP_eoi: (physdev.PhysdevEoi, IN),
    physdev.PHYSDEVOP_pirq_eoi_gmfn_v1: (physdev.PhysdevPirqEoiGmfn, IN),
    physdev.PHYSDEVOP_pirq_eoi_gmfn_v2: (physdev.PhysdevPirqEoiGmfn, IN),
    physdev.PHYSDEVOP_irq_status_query: (physdev.PhysdevIrqStatusQuery, BOTH),
    physdev.PHYSDEVOP_set_iopl: (physdev.PhysdevSetIopl, IN),
    physdev.PHYSDEVOP_set_iobitmap: (physdev.PhysdevSetIobitmap, IN),
    physdev.PHYSDEVOP_apic_read: (physdev.PhysdevApic, BOTH),
    physdev.PHYSDEVOP_apic_write: (physdev.PhysdevApic, IN),
    physdev.PHYSDEVOP_alloc_irq_vector: (physdev.PhysdevIrq, BOTH),
    physdev.PHYSDEVOP_free_irq_vector: (physdev.PhysdevIrq, IN),
    physdev.PHYSDEVOP_map_pirq: (physdev.PhysdevMapPirq, BOTH),
    physdev.PHYSDEVOP_unmap_pirq: (physdev.PhysdevUnmapPirq, IN),
    physdev.PHYSDEVOP_manage_pci_add: (physdev.PhysdevManagePci, IN),
    physdev.PHYSDEVOP_manage_pci_remove: (physdev.PhysdevManagePci, IN),
    physdev.PHYSDEVOP_restore_msi: (physdev.PhysdevRestoreMsi, IN),
    physdev.PHYSDEVOP_manage_pci_add_ext: (physdev.PhysdevManagePciExt, IN),
    physdev.PHYSDEVOP_setup_gsi: (physdev.PhysdevSetupGsi, IN),
    physdev.PHYSDEVOP_get_free_pirq: (physdev.PhysdevGetFreePirq, BOTH),
    physdev.PHYSDEVOP_pci_mmcfg_reserved: (physdev.PhysdevPciMmcfgReserved, IN),
    physdev.PHYSDEVOP_pci_device_add: (physdev.PhysdevPciDeviceAdd, IN),
    physdev.PHYSDEVOP_pci_device_remove: (physdev.PhysdevPciDevice, IN),
    physdev.PHYSDEVOP_restore_msi_ext: (physdev.PhysdevPciDevice, IN),
    physdev.PHYSDEVOP_prepare_msix: (physdev.PhysdevPciDevice, IN),
    physdev.PHYSDEVOP_release_msix: (physdev.PhysdevPciDevice, IN),
    physdev.PHYSDEVOP_dbgp_op: (physdev.PhysdevDbgpOp, IN),
})  # fmt: skip

_CALLBACK = _one(1, {
    callback.CALLBACKOP_register: (callback.CallbackRegister, IN),
    callback.CALLBACKOP_unregister: (callback.CallbackUnregister, IN),
})  # fmt: skip

_UPDATE_VA = (Arg("va"), Arg("pte", label=True), Arg("flags", uvm_flags))
_UPDATE_VA32 = (Arg("va"), Arg("pte_lo", label=True), Arg("pte_hi", label=True), Arg("flags", uvm_flags))
_OTHER_DOMAIN = Arg("domid", domid)
_COMPAT = Arg("op", pointer)


def _command(table: Mapping[int, str]) -> Arg:
    return Arg("cmd", named(table))


_ROWS: Final = (
    Call(Hypercall.set_trap_table, (Arg("traps", pointer),),
         pointed={None: Pointed(0, arch.TrapInfo, terminated=True)}),
    Call(Hypercall.mmu_update,
         (Arg("req", pointer), Arg("count", decimal), _DONE, Arg("foreigndom", foreign_domain)),
         pointed={None: Pointed(0, xen.MmuUpdate, count=1)}),
    Call(Hypercall.set_gdt, (Arg("frames", pointer), Arg("entries", decimal)),
         pointed={None: Pointed(0, WORD, count=1, per=512)}),
    Call(Hypercall.stack_switch, (Arg("ss"), Arg("sp"))),
    Call(Hypercall.set_callbacks,
         (Arg("event", label=True), Arg("failsafe", label=True), Arg("syscall", label=True)),
         args32=(Arg("event_cs"), Arg("event_eip"), Arg("failsafe_cs"), Arg("failsafe_eip"))),
    Call(Hypercall.fpu_taskswitch, (Arg("set", decimal),)),
    Call(Hypercall.sched_op_compat, (_command(sched.SCHED_OPS), Arg("arg")), 0, commands=sched.SCHED_OPS),
    Call(Hypercall.platform_op, (_COMPAT,),
         pointed={None: Pointed(0, platform.XenPlatformOp, BOTH)}),
    Call(Hypercall.set_debugreg, (Arg("reg", decimal), Arg("value"))),
    Call(Hypercall.get_debugreg, (Arg("reg", decimal),), result=hexadecimal),
    Call(Hypercall.update_descriptor, (Arg("maddr"), Arg("desc")),
         args32=(Arg("maddr_lo"), Arg("maddr_hi"), Arg("desc_lo"), Arg("desc_hi"))),
    Call(Hypercall.memory_op, (_command(memory.MEMORY_OPS), Arg("arg", pointer)), 0, memory.MEMOP_CMD_MASK,
         commands=memory.MEMORY_OPS, pointed=_MEMORY),
    # The entries are records of their own.
    Call(Hypercall.multicall, (Arg("call_list", pointer), Arg("nr_calls", decimal))),
    Call(Hypercall.update_va_mapping, _UPDATE_VA, args32=_UPDATE_VA32),
    Call(Hypercall.set_timer_op, (Arg("timeout", signed),), args32=(Arg("timeout_lo"), Arg("timeout_hi"))),
    Call(Hypercall.event_channel_op_compat, (_COMPAT,),
         pointed={None: Pointed(0, event_channel.EvtchnOp, BOTH)}),
    Call(Hypercall.xen_version, (_command(version.VERSION_OPS), Arg("arg", pointer)), 0,
         commands=version.VERSION_OPS, pointed=_VERSION, result=packed),
    Call(Hypercall.console_io, (_command(xen.CONSOLEIO_OPS), Arg("count", signed), Arg("buffer", pointer)), 0,
         commands=xen.CONSOLEIO_OPS, pointed={
             xen.CONSOLEIO_write: Pointed(2, BYTE, count=1, text=True),
             xen.CONSOLEIO_read: Pointed(2, BYTE, OUT, count=1, text=True)}),
    Call(Hypercall.physdev_op_compat, (_COMPAT,),
         pointed={None: Pointed(0, physdev.PhysdevOp, BOTH)}),
    Call(Hypercall.grant_table_op,
         (_command(grant_table.GNTTAB_OPS), Arg("uop", pointer), Arg("count", decimal)), 0,
         commands=grant_table.GNTTAB_OPS, pointed=_GNTTAB),
    Call(Hypercall.vm_assist, (_command(xen.VMASST_CMDS), Arg("type", named(xen.VM_ASSISTS))), 0,
         commands=xen.VMASST_CMDS),
    Call(Hypercall.update_va_mapping_otherdomain, (*_UPDATE_VA, _OTHER_DOMAIN),
         args32=(*_UPDATE_VA32, _OTHER_DOMAIN)),
    # What it takes off the stack; its pointer is the stack pointer, no argument.
    Call(Hypercall.iret, ()),
    Call(Hypercall.vcpu_op, (_command(vcpu.VCPU_OPS), Arg("vcpu", decimal, label=True), Arg("extra_args", pointer)), 0,
         commands=vcpu.VCPU_OPS, pointed=_VCPU),
    Call(Hypercall.set_segment_base, (Arg("which", named(arch.SEGBASES)), Arg("base")), 0, commands=arch.SEGBASES),
    Call(Hypercall.mmuext_op, (Arg("op", pointer), Arg("count", decimal), _DONE, Arg("foreigndom", foreign_domain)),
         pointed={None: Pointed(0, xen.MmuextOp, count=1)}),
    Call(Hypercall.nmi_op, (_command(nmi.NMI_OPS), Arg("arg", pointer)), 0, commands=nmi.NMI_OPS,
         pointed=_one(1, {nmi.XENNMI_register_callback: (nmi.XennmiCallback, IN)})),
    Call(Hypercall.sched_op, (_command(sched.SCHED_OPS), Arg("arg", pointer)), 0, commands=sched.SCHED_OPS,
         pointed=_SCHED),
    Call(Hypercall.callback_op, (_command(callback.CALLBACK_OPS), Arg("arg", pointer)), 0,
         commands=callback.CALLBACK_OPS, pointed=_CALLBACK),
    Call(Hypercall.event_channel_op, (_command(event_channel.EVTCHN_OPS), Arg("arg", pointer)), 0,
         commands=event_channel.EVTCHN_OPS, pointed=_EVTCHN),
    Call(Hypercall.physdev_op, (_command(physdev.PHYSDEV_OPS), Arg("arg", pointer)), 0,
         commands=physdev.PHYSDEV_OPS, pointed=_PHYSDEV),
)  # fmt: skip

CALLS: Final = registry(_ROWS)
"""The rows by hypercall number; a number without one takes five registers in hexadecimal."""


def payload_span(nr: int, args: Sequence[int], bits: int = 64) -> Span | None:
    """The guest bytes to capture before hypercall ``nr`` runs: (pointer, length), at most `PAYLOAD_CAP` bytes."""
    return _span(nr, args, Flow.IN, bits)


def output_span(nr: int, args: Sequence[int], payload: bytes = b"", bits: int = 64) -> Span | None:
    """The guest bytes to capture after it. ``payload``: what was captured before, for a call that has both."""
    span = _span(nr, args, Flow.OUT, bits)
    return (span[0], min(span[1], len(payload))) if span and payload else span


def trim(nr: int, args: Sequence[int], payload: bytes, bits: int = 64) -> bytes:
    """A captured payload without what follows its terminator."""
    row = CALLS.get(nr)
    pointed = row.points_to(args) if row else None
    if pointed is None or not pointed.terminated:
        return payload
    layout = pointed.layout(bits)
    count = len(payload) // layout.size
    ends = (i for i, entry in enumerate(layout.unpack_array(payload, count)) if entry.address == 0)
    return payload[: (next(ends, count)) * layout.size]


def _span(nr: int, args: Sequence[int], flow: Flow, bits: int) -> Span | None:
    row = CALLS.get(nr)
    pointed = row.points_to(args) if row else None
    if pointed is None or not flow & pointed.flow or not args[pointed.arg]:
        return None
    length = min(pointed.size(args, bits), PAYLOAD_CAP)
    return (args[pointed.arg], length) if length else None
