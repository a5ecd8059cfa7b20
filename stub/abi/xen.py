"""xen/xen.h: hypercall numbers, memory-management and assist commands, shared_info and start_info."""

from __future__ import annotations

from enum import IntEnum

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names


class Hypercall(IntEnum):
    """Hypercall numbers, ``__HYPERVISOR_name``: the value in rax/eax and the slot in the hypercall page."""

    set_trap_table = 0
    mmu_update = 1
    set_gdt = 2
    stack_switch = 3
    set_callbacks = 4
    fpu_taskswitch = 5
    sched_op_compat = 6
    platform_op = 7
    set_debugreg = 8
    get_debugreg = 9
    update_descriptor = 10
    memory_op = 12
    multicall = 13
    update_va_mapping = 14
    set_timer_op = 15
    event_channel_op_compat = 16
    xen_version = 17
    console_io = 18
    physdev_op_compat = 19
    grant_table_op = 20
    vm_assist = 21
    update_va_mapping_otherdomain = 22
    iret = 23
    vcpu_op = 24
    set_segment_base = 25
    mmuext_op = 26
    xsm_op = 27
    nmi_op = 28
    sched_op = 29
    callback_op = 30
    xenoprof_op = 31
    event_channel_op = 32
    physdev_op = 33
    hvm_op = 34
    sysctl = 35
    domctl = 36
    kexec_op = 37
    tmem_op = 38
    argo_op = 39
    xenpmu_op = 40
    dm_op = 41
    hypfs_op = 42
    arch_0 = 48
    arch_1 = 49
    arch_2 = 50
    arch_3 = 51
    arch_4 = 52
    arch_5 = 53
    arch_6 = 54
    arch_7 = 55


# Virtual interrupts (EVTCHNOP_bind_virq).
VIRQ_TIMER = 0
VIRQ_DEBUG = 1
VIRQ_CONSOLE = 2
VIRQ_DOM_EXC = 3
VIRQ_TBUF = 4
VIRQ_DEBUGGER = 6
VIRQ_XENOPROF = 7
VIRQ_CON_RING = 8
VIRQ_PCPU_STATE = 9
VIRQ_MEM_EVENT = 10
VIRQ_ARGO = 11
VIRQ_ENOMEM = 12
VIRQ_XENPMU = 13
VIRQ_ARCH_0 = 16
VIRQ_ARCH_1 = 17
VIRQ_ARCH_2 = 18
VIRQ_ARCH_3 = 19
VIRQ_ARCH_4 = 20
VIRQ_ARCH_5 = 21
VIRQ_ARCH_6 = 22
VIRQ_ARCH_7 = 23

VIRQS = value_names(globals(), "VIRQ_")

# How many there are.
NR_VIRQS = 24

# mmu_update: the command in the low bits of mmu_update.ptr.
MMU_NORMAL_PT_UPDATE = 0
MMU_MACHPHYS_UPDATE = 1
MMU_PT_UPDATE_PRESERVE_AD = 2
MMU_PT_UPDATE_NO_TRANSLATE = 3

MMU_UPDATES = value_names(globals(), "MMU_")

# mmuext_op: mmuext_op.cmd.
MMUEXT_PIN_L1_TABLE = 0
MMUEXT_PIN_L2_TABLE = 1
MMUEXT_PIN_L3_TABLE = 2
MMUEXT_PIN_L4_TABLE = 3
MMUEXT_UNPIN_TABLE = 4
MMUEXT_NEW_BASEPTR = 5
MMUEXT_TLB_FLUSH_LOCAL = 6
MMUEXT_INVLPG_LOCAL = 7
MMUEXT_TLB_FLUSH_MULTI = 8
MMUEXT_INVLPG_MULTI = 9
MMUEXT_TLB_FLUSH_ALL = 10
MMUEXT_INVLPG_ALL = 11
MMUEXT_FLUSH_CACHE = 12
MMUEXT_SET_LDT = 13
MMUEXT_NEW_USER_BASEPTR = 15
MMUEXT_CLEAR_PAGE = 16
MMUEXT_COPY_PAGE = 17
MMUEXT_FLUSH_CACHE_GLOBAL = 18
MMUEXT_MARK_SUPER = 19
MMUEXT_UNMARK_SUPER = 20

MMUEXT_OPS = value_names(globals(), "MMUEXT_")

# update_va_mapping: flush type in bits 1:0, set of vCPUs above (zero: local, UVMF_ALL, or a pointer to a bitmap).
UVMF_NONE = 0
UVMF_TLB_FLUSH = 1
UVMF_INVLPG = 2
UVMF_FLUSHTYPE_MASK = 3
UVMF_MULTI = 0
UVMF_LOCAL = 0
UVMF_ALL = 4

# console_io commands.
CONSOLEIO_write = 0
CONSOLEIO_read = 1

CONSOLEIO_OPS = value_names(globals(), "CONSOLEIO_")

# vm_assist: command, then type.
VMASST_CMD_enable = 0
VMASST_CMD_disable = 1
VMASST_TYPE_4gb_segments = 0
VMASST_TYPE_4gb_segments_notify = 1
VMASST_TYPE_writable_pagetables = 2
VMASST_TYPE_pae_extended_cr3 = 3
VMASST_TYPE_architectural_iopl = 4
VMASST_TYPE_runstate_update_flag = 5
VMASST_TYPE_m2p_strict = 32

VMASST_CMDS = value_names(globals(), "VMASST_CMD_")
VM_ASSISTS = value_names(globals(), "VMASST_TYPE_")

# Domain ids with a meaning of their own.
DOMID_SELF = 0x7FF0
DOMID_IO = 0x7FF1
DOMID_XEN = 0x7FF2
DOMID_COW = 0x7FF3
DOMID_INVALID = 0x7FF4
DOMID_IDLE = 0x7FFF

DOMIDS = value_names(globals(), "DOMID_")

# The first of them, and the bits that a domain id may have.
DOMID_FIRST_RESERVED = 0x7FF0
DOMID_MASK = 0x7FFF

# start_info.flags.
SIF_PRIVILEGED = 1 << 0
SIF_INITDOMAIN = 1 << 1
SIF_MULTIBOOT_MOD = 1 << 2
SIF_MOD_START_PFN = 1 << 3
SIF_VIRT_P2M_4TOOLS = 1 << 4
SIF_PM_MASK = 0xFF << 8

# vcpu_time_info.flags.
XEN_PVCLOCK_TSC_STABLE_BIT = 1 << 0
XEN_PVCLOCK_GUEST_STOPPED = 1 << 1

# Bytes of start_info.cmd_line, its NUL included.
MAX_GUEST_CMDLINE = 1024

MmuUpdate = Struct("MmuUpdate", 16, ptr=(0, "Q"), val=(8, "Q"))

# arg1: mfn or linear_addr. arg2: nr_ents (its low 32 bits), vcpumask (a pointer) or src_mfn.
MmuextOp64 = Struct("MmuextOp64", 24, cmd=(0, "I"), arg1=(8, "Q"), arg2=(16, "Q"))
MmuextOp32 = Struct("MmuextOp32", 12, cmd=(0, "I"), arg1=(4, "I"), arg2=(8, "I"))
MmuextOp = Twin(MmuextOp64, MmuextOp32)

MulticallEntry64 = Struct("MulticallEntry64", 64, op=(0, "Q"), result=(8, "Q"), args=(16, "6Q"))
MulticallEntry32 = Struct("MulticallEntry32", 32, op=(0, "I"), result=(4, "I"), args=(8, "6I"))
MulticallEntry = Twin(MulticallEntry64, MulticallEntry32)

# version is odd while Xen writes; ns = ((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32, + system_time.
VcpuTimeInfo = Struct(
    "VcpuTimeInfo",
    32,
    version=(0, "I"),
    tsc_timestamp=(8, "Q"),
    system_time=(16, "Q"),
    tsc_to_system_mul=(24, "I"),
    tsc_shift=(28, "b"),
    flags=(29, "B"),
)

# time holds a VcpuTimeInfo.
VcpuInfo64 = Struct(
    "VcpuInfo64",
    64,
    evtchn_upcall_pending=(0, "B"),
    evtchn_upcall_mask=(1, "B"),
    evtchn_pending_sel=(8, "Q"),
    arch_cr2=(16, "Q"),
    time=(32, "32s"),
)
VcpuInfo32 = Struct(
    "VcpuInfo32",
    64,
    evtchn_upcall_pending=(0, "B"),
    evtchn_upcall_mask=(1, "B"),
    evtchn_pending_sel=(4, "I"),
    arch_cr2=(8, "I"),
    time=(32, "32s"),
)
VcpuInfo = Twin(VcpuInfo64, VcpuInfo32)

# vcpu_info: XEN_LEGACY_MAX_VCPUS VcpuInfos. evtchn_pending, evtchn_mask: a bit a port. arch: an ArchSharedInfo.
SharedInfo64 = Struct(
    "SharedInfo64",
    3136,
    vcpu_info=(0, "2048s"),
    evtchn_pending=(2048, "512s"),
    evtchn_mask=(2560, "512s"),
    wc_version=(3072, "I"),
    wc_sec=(3076, "I"),
    wc_nsec=(3080, "I"),
    wc_sec_hi=(3084, "I"),
    arch=(3088, "48s"),
)
SharedInfo32 = Struct(
    "SharedInfo32",
    2344,
    vcpu_info=(0, "2048s"),
    evtchn_pending=(2048, "128s"),
    evtchn_mask=(2176, "128s"),
    wc_version=(2304, "I"),
    wc_sec=(2308, "I"),
    wc_nsec=(2312, "I"),
    arch=(2316, "28s"),
    wc_sec_hi=(2340, "I"),
)
SharedInfo = Twin(SharedInfo64, SharedInfo32)

# shared_info is a machine address; pt_base, mfn_list and mod_start are virtual addresses.
# console_* are the domU members of the union console.
StartInfo64 = Struct(
    "StartInfo64",
    1168,
    magic=(0, "32s"),
    nr_pages=(32, "Q"),
    shared_info=(40, "Q"),
    flags=(48, "I"),
    store_mfn=(56, "Q"),
    store_evtchn=(64, "I"),
    console_mfn=(72, "Q"),
    console_evtchn=(80, "I"),
    pt_base=(88, "Q"),
    nr_pt_frames=(96, "Q"),
    mfn_list=(104, "Q"),
    mod_start=(112, "Q"),
    mod_len=(120, "Q"),
    cmd_line=(128, "1024s"),
    first_p2m_pfn=(1152, "Q"),
    nr_p2m_frames=(1160, "Q"),
)
StartInfo32 = Struct(
    "StartInfo32",
    1112,
    magic=(0, "32s"),
    nr_pages=(32, "I"),
    shared_info=(36, "I"),
    flags=(40, "I"),
    store_mfn=(44, "I"),
    store_evtchn=(48, "I"),
    console_mfn=(52, "I"),
    console_evtchn=(56, "I"),
    pt_base=(60, "I"),
    nr_pt_frames=(64, "I"),
    mfn_list=(68, "I"),
    mod_start=(72, "I"),
    mod_len=(76, "I"),
    cmd_line=(80, "1024s"),
    first_p2m_pfn=(1104, "I"),
    nr_p2m_frames=(1108, "I"),
)
StartInfo = Twin(StartInfo64, StartInfo32)
