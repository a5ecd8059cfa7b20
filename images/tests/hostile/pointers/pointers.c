/* Guest pointers that lead nowhere: -EFAULT, from every hypercall that reads or writes a structure (copy_from_guest,
   copy_to_guest). memory_op's reservations are the exception: there the answer is how many extents were done. */
#include "kit.h"

#define SELF ((u64)DOMID_SELF)
#define POINTER 0xabcdeful /* stands for the pointer among the arguments */
#define SIZE(of_64, of_32) (BITS == 64 ? (of_64) : (of_32))

struct operation {
    const char *name;
    word number, arguments[4];
    unsigned size;  /* of the structure */
    int writes;     /* 1: Xen writes to it, too; 2: Xen only writes; 4: null means something */
    u64 content[3]; /* with which it would succeed */
};

static const struct operation operations[] = {
    {"set_trap_table", SET_TRAP_TABLE, {POINTER}, SIZE(16, 8), 4, {0}},
    {"mmu_update", MMU_UPDATE, {POINTER, 1, 0, DOMID_SELF}, 16, 0, {0}},
    {"set_gdt", SET_GDT, {POINTER, 512}, SIZE(8, 4), 0, {0}},
    {"mmuext_op", MMUEXT_OP, {POINTER, 1, 0, DOMID_SELF}, SIZE(24, 12), 0, {0}},
    {"multicall", MULTICALL, {POINTER, 1}, SIZE(64, 32), 1, {XEN_VERSION}},
    {"platform_op", PLATFORM_OP, {POINTER}, 136, 0, {0}},
    {"sysctl", SYSCTL, {POINTER}, 136, 0, {0}},
    {"domctl", DOMCTL, {POINTER}, 144, 0, {0}},
    {"callback_op register", CALLBACK_OP, {0, POINTER}, SIZE(16, 12), 0, {0}},
    {"callback_op unregister", CALLBACK_OP, {1, POINTER}, 4, 0, {0}},
    {"nmi_op register", NMI_OP, {0, POINTER}, SIZE(16, 8), 0, {0}},

    {"xen_version extraversion", XEN_VERSION, {1, POINTER}, 16, 2, {0}},
    {"xen_version compile_info", XEN_VERSION, {2, POINTER}, 144, 2, {0}},
    {"xen_version capabilities", XEN_VERSION, {3, POINTER}, 1024, 2, {0}},
    {"xen_version changeset", XEN_VERSION, {4, POINTER}, 64, 2, {0}},
    {"xen_version platform_parameters", XEN_VERSION, {5, POINTER}, SIZE(8, 4), 2, {0}},
    {"xen_version get_features", XEN_VERSION, {6, POINTER}, 8, 1, {0}},
    {"xen_version guest_handle", XEN_VERSION, {8, POINTER}, 16, 2, {0}},

    {"sched_op shutdown", SCHED_OP, {SCHED_shutdown, POINTER}, 4, 0, {0}},
    {"sched_op poll", SCHED_OP, {SCHED_poll, POINTER}, SIZE(24, 16), 0, {0}},
    {"sched_op remote_shutdown", SCHED_OP, {SCHED_remote_shutdown, POINTER}, 8, 0, {0}},
    {"sched_op shutdown_code", SCHED_OP, {SCHED_shutdown_code, POINTER}, 4, 0, {0}},
    {"sched_op watchdog", SCHED_OP, {SCHED_watchdog, POINTER}, 8, 0, {0}},

    {"memory_op current_reservation", MEMORY_OP, {XENMEM_current_reservation, POINTER}, 2, 0, {0}},
    {"memory_op maximum_reservation", MEMORY_OP, {XENMEM_maximum_reservation, POINTER}, 2, 0, {0}},
    {"memory_op exchange", MEMORY_OP, {XENMEM_exchange, POINTER}, SIZE(72, 44), 0, {0}},
    {"memory_op machphys_mapping", MEMORY_OP, {XENMEM_machphys_mapping, POINTER}, SIZE(24, 12), 2, {0}},
    {"memory_op machphys_mfn_list", MEMORY_OP, {XENMEM_machphys_mfn_list, POINTER}, SIZE(24, 12), 1, {0}},
    {"memory_op memory_map", MEMORY_OP, {XENMEM_memory_map, POINTER}, SIZE(16, 8), 1, {0}},
    {"memory_op set_memory_map", MEMORY_OP, {XENMEM_set_memory_map, POINTER}, SIZE(24, 12), 0, {0}},
    {"memory_op add_to_physmap", MEMORY_OP, {XENMEM_add_to_physmap, POINTER}, SIZE(24, 16), 0, {0}},
    {"memory_op remove_from_physmap", MEMORY_OP, {XENMEM_remove_from_physmap, POINTER}, SIZE(16, 8), 0, {0}},

    {"grant_table_op map_grant_ref", GRANT_TABLE_OP, {0, POINTER, 1}, 32, 1, {0}},
    {"grant_table_op unmap_grant_ref", GRANT_TABLE_OP, {1, POINTER, 1}, 24, 1, {0}},
    {"grant_table_op setup_table", GRANT_TABLE_OP, {2, POINTER, 1}, SIZE(24, 16), 1, {SELF}},
    {"grant_table_op transfer", GRANT_TABLE_OP, {4, POINTER, 1}, SIZE(24, 16), 1, {0}},
    {"grant_table_op copy", GRANT_TABLE_OP, {5, POINTER, 1}, SIZE(40, 24), 1, {0}},
    {"grant_table_op query_size", GRANT_TABLE_OP, {6, POINTER, 1}, 16, 1, {SELF}},
    {"grant_table_op unmap_and_replace", GRANT_TABLE_OP, {7, POINTER, 1}, 24, 1, {0}},
    {"grant_table_op set_version", GRANT_TABLE_OP, {8, POINTER, 1}, 4, 1, {1}},
    {"grant_table_op get_status_frames", GRANT_TABLE_OP, {9, POINTER, 1}, SIZE(16, 12), 1, {SELF << 32}},
    {"grant_table_op get_version", GRANT_TABLE_OP, {10, POINTER, 1}, 8, 1, {SELF}},
    {"grant_table_op swap_grant_ref", GRANT_TABLE_OP, {11, POINTER, 1}, 12, 1, {0}},
    {"grant_table_op cache_flush", GRANT_TABLE_OP, {12, POINTER, 1}, 16, 0, {0}},

    {"event_channel_op bind_interdomain", EVENT_CHANNEL_OP, {EVTCHN_bind_interdomain, POINTER}, 12, 0, {0}},
    {"event_channel_op bind_virq", EVENT_CHANNEL_OP, {EVTCHN_bind_virq, POINTER}, 12, 1, {VIRQ_DEBUG}},
    {"event_channel_op close", EVENT_CHANNEL_OP, {EVTCHN_close, POINTER}, 4, 0, {0}},
    {"event_channel_op send", EVENT_CHANNEL_OP, {EVTCHN_send, POINTER}, 4, 0, {0}},
    {"event_channel_op status", EVENT_CHANNEL_OP, {EVTCHN_status, POINTER}, 24, 1, {SELF | 1ull << 32}},
    {"event_channel_op alloc_unbound", EVENT_CHANNEL_OP, {EVTCHN_alloc_unbound, POINTER}, 8, 1, {SELF}},
    {"event_channel_op bind_ipi", EVENT_CHANNEL_OP, {EVTCHN_bind_ipi, POINTER}, 8, 1, {0}},
    {"event_channel_op bind_vcpu", EVENT_CHANNEL_OP, {EVTCHN_bind_vcpu, POINTER}, 8, 0, {0}},
    {"event_channel_op unmask", EVENT_CHANNEL_OP, {EVTCHN_unmask, POINTER}, 4, 0, {0}},
    {"event_channel_op reset", EVENT_CHANNEL_OP, {EVTCHN_reset, POINTER}, 2, 0, {0}},
    {"event_channel_op init_control", EVENT_CHANNEL_OP, {EVTCHN_init_control, POINTER}, 24, 0, {0}},
    {"event_channel_op expand_array", EVENT_CHANNEL_OP, {EVTCHN_expand_array, POINTER}, 8, 0, {0}},
    {"event_channel_op set_priority", EVENT_CHANNEL_OP, {EVTCHN_set_priority, POINTER}, 8, 0, {0}},
    {"event_channel_op of old", EVENT_CHANNEL_OP_COMPAT, {POINTER}, 28, 0, {0}},

    {"vcpu_op initialise", VCPU_OP, {0, 0, POINTER}, SIZE(5168, 2800), 0, {0}},
    {"vcpu_op get_runstate_info", VCPU_OP, {4, 0, POINTER}, SIZE(48, 44), 2, {0}},
    {"vcpu_op register_runstate_memory_area", VCPU_OP, {5, 0, POINTER}, SIZE(8, 4), 0, {0}},
    {"vcpu_op set_periodic_timer", VCPU_OP, {6, 0, POINTER}, 8, 0, {0}},
    {"vcpu_op set_singleshot_timer", VCPU_OP, {8, 0, POINTER}, SIZE(16, 12), 0, {0}},
    {"vcpu_op register_vcpu_info", VCPU_OP, {10, 0, POINTER}, 16, 0, {0}},
    {"vcpu_op register_vcpu_time_memory_area", VCPU_OP, {13, 0, POINTER}, SIZE(8, 4), 0, {0}},

    {"physdev_op irq_status_query", PHYSDEV_OP, {5, POINTER}, 8, 1, {0}},
    {"physdev_op set_iopl", PHYSDEV_OP, {6, POINTER}, 4, 0, {0}},
    {"physdev_op set_iobitmap", PHYSDEV_OP, {7, POINTER}, SIZE(16, 8), 0, {0}},
    {"physdev_op eoi", PHYSDEV_OP, {12, POINTER}, 4, 0, {0}},
    {"physdev_op map_pirq", PHYSDEV_OP, {13, POINTER}, SIZE(40, 36), 0, {0}},
    {"physdev_op unmap_pirq", PHYSDEV_OP, {14, POINTER}, 8, 0, {0}},
    {"physdev_op get_free_pirq", PHYSDEV_OP, {23, POINTER}, 8, 1, {0}},
    {"physdev_op pirq_eoi_gmfn", PHYSDEV_OP, {28, POINTER}, SIZE(8, 4), 0, {0}},
    {"physdev_op of old", PHYSDEV_OP_COMPAT, {POINTER}, SIZE(24, 16), 0, {0}},
    {"hvm_op set_param", HVM_OP, {0, POINTER}, 16, 0, {0}},
    {"hvm_op get_param", HVM_OP, {1, POINTER}, 16, 0, {0}},
    {"hvm_op pagetable_dying", HVM_OP, {9, POINTER}, 16, 0, {0}},
    {"hvm_op get_time", HVM_OP, {10, POINTER}, 8, 2, {0}},
};

static u8 *mapped, *hole; /* two pages in a row, the second of which is not mapped */

static void set_up(void)
{
    mapped = page();
    hole = page();
    MUST(unmap(hole));
}

static void try_pointer(const struct operation *operation, word pointer)
{
    word arguments[4];
    for (unsigned i = 0; i < 4; i++)
        arguments[i] = operation->arguments[i] == POINTER ? pointer : operation->arguments[i];
    sword result = hypercall(operation->number, arguments[0], arguments[1], arguments[2], arguments[3]);
    check_equal(result, -EFAULT, operation->name);
}

static void try_all(word pointer)
{
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        if (pointer || operations[i].writes != 4)
            try_pointer(&operations[i], pointer);
}

VARIATION(null, "at address 0")
{
    try_all(0);
}

VARIATION(unmapped, "where nothing is mapped")
{
    set_up();
    try_all((word)hole);
}

#if BITS == 64 /* all addresses of 32 bits are some */
VARIATION(non_canonical, "at an address that is none")
{
    try_all(NON_CANONICAL + PAGE);
}
#endif

VARIATION(xen, "in Xen's part of the address space, behind what the guest may read")
{
    try_all(BEHIND_M2P);
}

VARIATION(end, "at the last byte of the address space")
{
    try_all(~0ul);
}

VARIATION(half, "of which the second half is not mapped")
{
    set_up();
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].size <= PAGE)
            try_pointer(&operations[i], (word)hole - operations[i].size / 2);
}

VARIATION(last_byte, "of which the last byte is not mapped")
{
    set_up();
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].size <= PAGE)
            try_pointer(&operations[i], (word)hole - operations[i].size + 1);
}

VARIATION(read_only, "which Xen may read, and not write")
{
    set_up();
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (!(operations[i].writes & 3))
            continue;
        memset(mapped, 0, PAGE);
        memcpy(mapped, operations[i].content, sizeof operations[i].content);
        MUST(read_only(mapped));
        try_pointer(&operations[i], (word)mapped);
        MUST(writable(mapped));
    }
}

VARIATION(m2p, "in the M2P, which Xen would not let itself write")
{
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].writes == 2)
            try_pointer(&operations[i], HOLE);
}

VARIATION(reservations, "of a reservation: no extent is done")
{
    set_up();
    static const word pointers[] = {0, HOLE - 1, BEHIND_M2P, ~0ul};
    static const char *const names[] = {"null", "the last byte before Xen's", "Xen's", "the last byte"};
    for (unsigned i = 0; i < sizeof pointers / sizeof *pointers; i++)
        check_equal(memory_op(XENMEM_decrease_reservation, (const void *)pointers[i]), 0, names[i]);
    check_equal(memory_op(XENMEM_populate_physmap, hole - 16), 0, "half unmapped");
    static struct memory_reservation list = {.nr_extents = 3, .domid = DOMID_SELF};
    list.extent_start = (const word *)hole;
    check_equal(memory_op(XENMEM_populate_physmap, &list), 0, "a list that is not mapped");
}
