/* Every hypercall and its operations: what they take, and how often they are made. */
#pragma once
#include "hostile.h"

/* A call: the letters of `words` are its arguments, those of `fields` the structure that one of them points to. A field
   is a width and a letter. The width is in bytes; w is a word, and _ 4 bytes that only 64-bit guests have.

   f frame         e entry, for the target before it   m machine address of one   a address with an L1 entry
   p pointer       H where a grant may be mapped       l pointer to frames        P pointer to ports
   n count         o order                             O offset in a page         z mostly 0
   d domain (D: most often our own)  t port                              v vCPU                     q VIRQ
   g grant         J h where one is mapped, its handle      w flags of a mapping       G frame or grant
   r a frame that cannot be written                Q a callback that cannot be taken back
   6 DR7           5 address to watch              9 old command
   u time          s seconds                           k small number             x any
   c A B the command and arguments of an mmuext_op     8 descriptor               . padding
   y the kit's handler, with its Y (callback type) or i (vector)

   Of `words`: C the command, S the structure, L a list of some, N how many it has. What could be read from a structure
   that is not where it seems to be, or from a wrong field, may be what the guest lives on: such calls are PLACED or
   EXACT. */
enum { PLACED = 1, EXACT = 2 };
struct shape {
    u8 number, command, weight, rigid;
    const char *words, *fields;
};

#define HANDLER (BITS == 64 ? "2Y2k4.8y" : "2Y2k2j2.4y")
#define RESERVATION "wlwn4o4z2d2._."
static const struct shape shapes[] = {
    {MMU_UPDATE, 0, 160, PLACED, "LNpE", "8m8e"},
    {UPDATE_VA_MAPPING, 0, 100, 0, "aeF", ""},
    {UPDATE_VA_MAPPING_OTHERDOMAIN, 0, 10, 0, "aeFd", ""},
    {MMUEXT_OP, 0, 120, 0, "LNpE", "4c_.wAwB"},
    {SET_TRAP_TABLE, 0, 4, EXACT, "L", "1i1k2j_.wy"},
    {SET_GDT, 0, 16, 0, "lT", ""},
    {STACK_SWITCH, 0, 4, 0, "xx", ""},
    {FPU_TASKSWITCH, 0, 4, 0, "k", ""},
    {PLATFORM_OP, 0, 2, 0, "S", "4V4V8x8x8x8x8x8x8x"},
    {SET_DEBUGREG, 0, 8, 0, "r5", ""},
    {SET_DEBUGREG, 0, 4, 0, "76", ""},
    {GET_DEBUGREG, 0, 4, 0, "r", ""},
    {UPDATE_DESCRIPTOR, 0, 16, 0, "m8", ""},
    {XEN_VERSION, 0, 16, 0, "kp", ""},
    {XEN_VERSION, 6, 4, 0, "CS", "4z4."},
    {CONSOLE_IO, 0, 4, 0, "knp", ""},
    {VM_ASSIST, 0, 6, 0, "kK", ""},
    {SET_TIMER_OP, 0, 4, 0, "u", ""},
    {SET_SEGMENT_BASE, 0, 10, 0, "kp", ""},
    {PHYSDEV_OP_COMPAT, 0, 4, 0, "S", "4k4.8x8x"},
    {EVENT_CHANNEL_OP_COMPAT, 0, 4, 0, "S", "4k4t4t4t4.4."},
    {CALLBACK_OP, 0, 4, EXACT, "CS", HANDLER},
    {CALLBACK_OP, 1, 2, EXACT, "CS", "2Q2."},
    {NMI_OP, 2, 1, 0, "C", ""},
    {MULTICALL, 0, 60, 0, "", ""},
    {SCHED_OP_COMPAT, 0, 2, 0, "9x", ""},
    {SCHED_OP, SCHED_yield, 2, 0, "C", ""},
    {SCHED_OP, SCHED_poll, 6, EXACT, "CS", "wP4n_.8U"},
    {SCHED_OP, SCHED_remote_shutdown, 2, 0, "CS", "2d2.4k"},
    {SCHED_OP, SCHED_watchdog, 2, EXACT, "CS", "4k4s"},
    {SCHED_OP, SCHED_pin_override, 2, 0, "CS", "4x"},

    {MEMORY_OP, XENMEM_increase_reservation, 10, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_decrease_reservation, 10, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_populate_physmap, 16, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_exchange, 20, 0, "CS", RESERVATION RESERVATION "wz"},
    {MEMORY_OP, XENMEM_maximum_ram_page, 1, 0, "Cx", ""},
    {MEMORY_OP, XENMEM_current_reservation, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_maximum_reservation, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_machphys_mfn_list, 4, 0, "CS", "4n_.wp4n_."},
    {MEMORY_OP, XENMEM_add_to_physmap, 3, 0, "CS", "2d2k4kwxwf"},
    {MEMORY_OP, XENMEM_memory_map, 4, 0, "CS", "4n_.wp"},
    {MEMORY_OP, XENMEM_machine_memory_map, 2, 0, "CS", "4n_.wp"},
    {MEMORY_OP, XENMEM_machphys_mapping, 3, 0, "Cp", ""},
    {MEMORY_OP, XENMEM_set_memory_map, 4, 0, "CS", "2d2._.4k_.wp"},
    {MEMORY_OP, 14, 3, 0, "CS", "2d"},
    {MEMORY_OP, XENMEM_remove_from_physmap, 3, 0, "CS", "2d2._.wx"},
    {MEMORY_OP, XENMEM_set_pod_target, 1, 0, "CS", "8x8x8x8x2d2._."},
    {MEMORY_OP, XENMEM_get_pod_target, 1, 0, "CS", "8x8x8x8x2d2._."},
    {MEMORY_OP, XENMEM_access_op, 1, 0, "CS", "1k1k2d4n8x"},
    {MEMORY_OP, XENMEM_sharing_op, 1, 0, "CS", "1k1.2d4.8x8x8x8x"},
    {MEMORY_OP, XENMEM_paging_op, 1, 0, "CS", "1k1.2d4.8x8x8x"},
    {MEMORY_OP, XENMEM_add_to_physmap_batch, 3, 0, "CS", "2d2k2n2.wlwlwp"},
    {MEMORY_OP, XENMEM_claim_pages, 2, 0, "CS", RESERVATION},
    {MEMORY_OP, XENMEM_get_vnumainfo, 2, 0, "CS", "2d2z4n4n4n8p8p8p"},
    {MEMORY_OP, XENMEM_acquire_resource, 2, 0, "CS", "2d2k4x4n4z8xwp"},

    {GRANT_TABLE_OP, 0, 16, 0, "CLN", "8H4w4g2D2.4.8."},
    {GRANT_TABLE_OP, 1, 24, 0, "CLN", "8J8z4h2.2."},
    {GRANT_TABLE_OP, 2, 3, 0, "C1I", "2d2.4k2.2._.wp"},
    {GRANT_TABLE_OP, 3, 1, 0, "C1I", "2d2."},
    {GRANT_TABLE_OP, 4, 6, PLACED, "CLN", "wf2D2.4g2.2._."},
    {GRANT_TABLE_OP, 5, 20, PLACED, "CLN", "wG2D2O_.wG2D2O_.2O2k2.2."},
    {GRANT_TABLE_OP, 6, 2, 0, "C1I", "2d2.4.4.2.2."},
    {GRANT_TABLE_OP, 7, 8, 0, "CLN", "8J8H4h2.2."},
    {GRANT_TABLE_OP, 8, 3, 0, "C1I", "4k"},
    {GRANT_TABLE_OP, 9, 3, 0, "C1I", "4k2d2.wp"},
    {GRANT_TABLE_OP, 10, 2, 0, "C1I", "2d2.4."},
    {GRANT_TABLE_OP, 11, 6, 0, "CLN", "4g4g2.2."},
    {GRANT_TABLE_OP, 12, 4, 0, "CLN", "8m2O2O4k"},

    {EVENT_CHANNEL_OP, EVTCHN_bind_interdomain, 6, 0, "CS", "2d2.4t4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_virq, 4, 0, "CS", "4q4v4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_pirq, 2, 0, "CS", "4k4k4."},
    {EVENT_CHANNEL_OP, EVTCHN_close, 6, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_send, 10, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_status, 6, 0, "CS", "2d2.4t4.4.8."},
    {EVENT_CHANNEL_OP, EVTCHN_alloc_unbound, 6, 0, "CS", "2d2D4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_ipi, 4, 0, "CS", "4v4."},
    {EVENT_CHANNEL_OP, EVTCHN_bind_vcpu, 4, 0, "CS", "4t4v"},
    {EVENT_CHANNEL_OP, EVTCHN_unmask, 6, 0, "CS", "4t"},
    {EVENT_CHANNEL_OP, EVTCHN_reset, 1, 0, "CS", "2d"},
    {EVENT_CHANNEL_OP, EVTCHN_reset_cont, 1, 0, "CS", "2d"},
    {EVENT_CHANNEL_OP, EVTCHN_init_control, 2, PLACED, "CS", "8f4O4v8."},
    {EVENT_CHANNEL_OP, EVTCHN_expand_array, 3, PLACED, "CS", "8f"},
    {EVENT_CHANNEL_OP, EVTCHN_set_priority, 3, 0, "CS", "4t4k"},

    {VCPU_OP, 0, 1, 0, "CvS", "8x8x8x8x8x8x"},
    {VCPU_OP, 1, 1, 0, "Cvp", ""},
    {VCPU_OP, 3, 2, 0, "Cvp", ""},
    {VCPU_OP, 4, 4, 0, "Cvp", ""},
    {VCPU_OP, 5, 4, 0, "CvS", "wp"},
    {VCPU_OP, 6, 2, EXACT, "CvS", "8u"},
    {VCPU_OP, 7, 1, 0, "Cvp", ""},
    {VCPU_OP, 8, 4, 0, "CvS", "8u4k_."},
    {VCPU_OP, 9, 1, 0, "Cvp", ""},
    {VCPU_OP, 10, 2, EXACT, "CvS", "8r4O4."},
    {VCPU_OP, 11, 1, 0, "Cvz", ""},
    {VCPU_OP, 12, 1, 0, "Cvp", ""},
    {VCPU_OP, 13, 4, 0, "CvS", "wp"},
    {VCPU_OP, 14, 1, 0, "Cvp", ""},

    {PHYSDEV_OP, 6, 4, 0, "CS", "4k"},
    {PHYSDEV_OP, 7, 3, 0, "CS", "wp4n_."},
    {PHYSDEV_OP, 13, 2, 0, "CS", "2d2.4k4k4k4k4k4k_.8x"},
    {PHYSDEV_OP, 28, 2, 0, "CS", "wf"},
    {PHYSDEV_OP, 24, 2, 0, "CS", "4k4."},
    {PHYSDEV_OP, 0, 10, 0, "oS", "4x4x4x4x4x4x"},
    {HVM_OP, 0, 4, 0, "kS", "2d2.4k8x"},
    {SYSCTL, 0, 2, 0, "S", "4V4V8x8x8x"},
    {DOMCTL, 0, 2, 0, "S", "4V4V2d6.8x8x8x"},
    {XSM_OP, 0, 1, 0, "xxx", ""},
    {XENOPROF_OP, 0, 1, 0, "xx", ""},
    {KEXEC_OP, 0, 1, 0, "xx", ""},
    {TMEM_OP, 0, 1, 0, "xx", ""},
    {ARGO_OP, 0, 1, 0, "xxxxx", ""},
    {XENPMU_OP, 0, 1, 0, "xx", ""},
    {DM_OP, 0, 1, 0, "xxx", ""},
    {HYPFS_OP, 0, 1, 0, "xxxxx", ""},
    {MCA, 0, 1, 0, "p", ""},
    {11, 0, 1, 0, "xxxxx", ""},
    {63, 0, 1, 0, "xxxxx", ""},
    {200, 0, 1, 0, "xxxxx", ""},
};
