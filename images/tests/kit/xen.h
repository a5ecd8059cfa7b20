/* Xen's interface (xen/include/public), as far as the tests need it. Names and numbers are Xen's. */
#pragma once
#include "arch.h"

enum {
    SET_TRAP_TABLE = 0, MMU_UPDATE = 1, SET_GDT = 2, STACK_SWITCH = 3, SET_CALLBACKS = 4, FPU_TASKSWITCH = 5,
    SCHED_OP_COMPAT = 6, PLATFORM_OP = 7, SET_DEBUGREG = 8, GET_DEBUGREG = 9, UPDATE_DESCRIPTOR = 10, MEMORY_OP = 12,
    MULTICALL = 13, UPDATE_VA_MAPPING = 14, SET_TIMER_OP = 15, EVENT_CHANNEL_OP_COMPAT = 16, XEN_VERSION = 17,
    CONSOLE_IO = 18, PHYSDEV_OP_COMPAT = 19, GRANT_TABLE_OP = 20, VM_ASSIST = 21, UPDATE_VA_MAPPING_OTHERDOMAIN = 22,
    IRET = 23, VCPU_OP = 24, SET_SEGMENT_BASE = 25, MMUEXT_OP = 26, XSM_OP = 27, NMI_OP = 28, SCHED_OP = 29,
    CALLBACK_OP = 30, XENOPROF_OP = 31, EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33, HVM_OP = 34, SYSCTL = 35, DOMCTL = 36,
    KEXEC_OP = 37, TMEM_OP = 38, ARGO_OP = 39, XENPMU_OP = 40, DM_OP = 41, HYPFS_OP = 42, MCA = 48,
};

enum {
    EPERM = 1, ENOENT = 2, ESRCH = 3, ENXIO = 6, E2BIG = 7, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13,
    EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, EINVAL = 22, ENOSPC = 28, EDOM = 33, ERANGE = 34,
    ENOSYS = 38, ENODATA = 61, EOVERFLOW = 75, EOPNOTSUPP = 95, ENOBUFS = 105,
};

enum {
    DOMID_SELF = 0x7ff0, DOMID_IO = 0x7ff1, DOMID_XEN = 0x7ff2, DOMID_COW = 0x7ff3, DOMID_INVALID = 0x7ff4,
    DOMID_IDLE = 0x7fff, NO_DOMAIN = 0x1234,
};

/* mmu_update */
enum { NORMAL_PT_UPDATE = 0, MACHPHYS_UPDATE = 1, PT_UPDATE_PRESERVE_AD = 2, PT_UPDATE_NO_TRANSLATE = 3 };
struct mmu_update {
    u64 ptr, val;
};

/* mmuext_op */
enum {
    PIN_L1_TABLE = 0, PIN_L2_TABLE, PIN_L3_TABLE, PIN_L4_TABLE, UNPIN_TABLE, NEW_BASEPTR, TLB_FLUSH_LOCAL,
    INVLPG_LOCAL, TLB_FLUSH_MULTI, INVLPG_MULTI, TLB_FLUSH_ALL, INVLPG_ALL, FLUSH_CACHE, SET_LDT,
    NEW_USER_BASEPTR = 15, CLEAR_PAGE, COPY_PAGE, FLUSH_CACHE_GLOBAL, MARK_SUPER, UNMARK_SUPER,
};
struct mmuext_op {
    u32 cmd;
    word arg1, arg2;
};
enum { UVMF_NONE = 0, UVMF_TLB_FLUSH = 1, UVMF_INVLPG = 2, UVMF_ALL = 4 };

struct multicall_entry {
    word op, result, args[6];
};

/* memory_op */
enum {
    XENMEM_increase_reservation = 0, XENMEM_decrease_reservation = 1, XENMEM_maximum_ram_page = 2,
    XENMEM_current_reservation = 3, XENMEM_maximum_reservation = 4, XENMEM_machphys_mfn_list = 5,
    XENMEM_populate_physmap = 6, XENMEM_add_to_physmap = 7, XENMEM_memory_map = 9, XENMEM_machine_memory_map = 10,
    XENMEM_exchange = 11, XENMEM_machphys_mapping = 12, XENMEM_set_memory_map = 13, XENMEM_remove_from_physmap = 15,
    XENMEM_set_pod_target = 16, XENMEM_get_pod_target = 17, XENMEM_get_sharing_freed_pages = 18,
    XENMEM_get_sharing_shared_pages = 19, XENMEM_paging_op = 20, XENMEM_access_op = 21, XENMEM_sharing_op = 22,
    XENMEM_add_to_physmap_batch = 23, XENMEM_claim_pages = 24, XENMEM_machphys_compat_mfn_list = 25,
    XENMEM_get_vnumainfo = 26, XENMEM_reserved_device_memory_map = 27, XENMEM_acquire_resource = 28,
};
struct memory_reservation {
    const word *extent_start;
    word nr_extents;
    u32 extent_order, mem_flags;
    u16 domid;
};
struct memory_exchange {
    struct memory_reservation in, out;
    word nr_exchanged;
};

/* sched_op, event_channel_op */
enum { SCHED_yield = 0, SCHED_block, SCHED_shutdown, SCHED_poll, SCHED_remote_shutdown, SCHED_shutdown_code,
       SCHED_watchdog, SCHED_pin_override };
enum { SHUTDOWN_poweroff = 0, SHUTDOWN_reboot, SHUTDOWN_suspend, SHUTDOWN_crash };
enum { EVTCHN_bind_interdomain = 0, EVTCHN_bind_virq, EVTCHN_bind_pirq, EVTCHN_close, EVTCHN_send, EVTCHN_status,
       EVTCHN_alloc_unbound, EVTCHN_bind_ipi, EVTCHN_bind_vcpu, EVTCHN_unmask, EVTCHN_reset, EVTCHN_init_control,
       EVTCHN_expand_array, EVTCHN_set_priority, EVTCHN_reset_cont };
enum { VIRQ_TIMER = 0, VIRQ_DEBUG = 1, VIRQ_CONSOLE = 2, NR_VIRQS = 24 };

/* callback_op */
enum { CALLBACKTYPE_event = 0, CALLBACKTYPE_failsafe, CALLBACKTYPE_syscall, CALLBACKTYPE_sysenter_deprecated,
       CALLBACKTYPE_nmi, CALLBACKTYPE_sysenter, CALLBACKTYPE_syscall32 = 7, CALLBACKF_mask_events = 1 };

/* set_trap_table: the flags are the DPL, and whether the gate masks events. */
enum { GATE_MASKS = 4 };
struct trap_info {
    u8 vector, flags;
    u16 cs;
    word address;
};

struct start_info {
    char magic[32];
    word nr_pages, shared_info;
    u32 flags;
    word store_mfn;
    u32 store_evtchn;
    word console_mfn;
    u32 console_evtchn;
    word pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
    char cmd_line[1024];
    word first_p2m_pfn, nr_p2m_frames;
};

struct vcpu_info {
    u8 pending, mask;
    word pending_sel;
    ARCH_VCPU_INFO;
    u32 version, pad1;
    u64 tsc, system_time;
    u32 multiplier;
    signed char shift;
    u8 flags, pad2[2];
};

struct shared_info {
    struct vcpu_info vcpu[32];
    word pending[8 * sizeof(word)], mask[8 * sizeof(word)];
    u32 wc_version, wc_sec, wc_nsec;
    SHARED_INFO_TAIL;
};
