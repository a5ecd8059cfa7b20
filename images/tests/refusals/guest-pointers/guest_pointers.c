/* Every pointer that a guest hands over is followed with the guest's own rights and no others: to nothing, to no
   address, into Xen's area, or half out of what is mapped, it is -EFAULT in each family of calls. */
#include "kit.h"

/* How a call is made with a pointer; `size` is that of what it points to. */
struct family {
    const char *name;
    word number, first;
    int place; /* which argument the pointer is */
    unsigned size;
    word behind; /* the argument behind it */
};

static const struct family families[] = {
    {"mmu_update", MMU_UPDATE, 0, 0, sizeof(struct mmu_update), 1},
    {"mmuext_op", MMUEXT_OP, 0, 0, sizeof(struct mmuext_op), 1},
    {"multicall", MULTICALL, 0, 0, sizeof(struct multicall_entry), 1},
    {"set_gdt", SET_GDT, 0, 0, sizeof(word), 8},
    {"platform_op", PLATFORM_OP, 0, 0, 136, 0},
    {"sysctl", SYSCTL, 0, 0, 136, 0},
    {"domctl", DOMCTL, 0, 0, 144, 0},
    {"exchange", MEMORY_OP, XENMEM_exchange, 1, sizeof(struct memory_exchange), 0},
    {"current_reservation", MEMORY_OP, XENMEM_current_reservation, 1, 2, 0},
    {"machphys_mapping", MEMORY_OP, XENMEM_machphys_mapping, 1, 3 * sizeof(word), 0},
    {"add_to_physmap", MEMORY_OP, XENMEM_add_to_physmap, 1, 8 + 2 * sizeof(word), 0},
    {"xen_version", XEN_VERSION, 3, 1, 1024, 0},
    {"grant_table_op", GRANT_TABLE_OP, 6, 1, 16, 1},
    {"vcpu_op", VCPU_OP, 6, 2, 8, 0},
    {"runstate", VCPU_OP, 4, 2, BITS == 64 ? 48 : 44, 0},
    {"sched_op", SCHED_OP, SCHED_poll, 1, BITS == 64 ? 24 : 16, 0},
    {"callback_op", CALLBACK_OP, 0, 1, sizeof(struct callback_register), 0},
    {"event_channel_op", EVENT_CHANNEL_OP, EVTCHN_status, 1, 24, 0},
    {"physdev_op", PHYSDEV_OP, 6, 1, 4, 0},
    {"nmi_op", NMI_OP, 0, 1, 2 * sizeof(word), 0},
};
#define FAMILIES (sizeof families / sizeof *families)

static sword call(const struct family *family, word pointer)
{
    word arguments[4] = {family->first, 0, 0, 0};
    arguments[family->place] = pointer;
    arguments[family->place + 1] = family->behind;
    if (family->number == MMU_UPDATE || family->number == MMUEXT_OP)
        arguments[3] = DOMID_SELF;
    return hypercall(family->number, arguments[0], arguments[1], arguments[2], arguments[3]);
}

static const char *named(const struct family *family, const char *what)
{
    static char name[80];
    unsigned size = 0;
    for (const char *part = family->name; *part; part++)
        name[size++] = *part;
    name[size++] = ' ';
    for (; *what; what++)
        name[size++] = *what;
    name[size] = 0;
    return name;
}

static void each(word pointer, const char *what)
{
    for (unsigned i = 0; i < FAMILIES; i++)
        REFUSED(named(&families[i], what), EFAULT, call(&families[i], pointer));
}

VARIATION(nothing, "the null pointer, where nothing is mapped at 0")
{
    watch(page());
    each(0, "at 0");
}

#if BITS == 64
VARIATION(no_address, "an address that the CPU does not have")
{
    watch(page());
    each(NON_CANONICAL, "at no address");
    each(HOLE - 8, "below Xen's area");
}
#endif

VARIATION(xen, "Xen's area (but for the M2P, which Xen reads for a 32-bit guest: pae/pointers)")
{
    watch(page());
    each(XENS, "of Xen's");
    each(HOLE_END - PAGE, "at the end of Xen's area");
}

VARIATION(unmapped, "an address that nothing is mapped at, and one half of which is")
{
    char *last = page();
    void *behind = page();
    watch(page());
    MUST(unmap(behind));
    each((word)behind, "unmapped");
    for (unsigned i = 0; i < FAMILIES; i++)
        REFUSED(named(&families[i], "half mapped"), EFAULT,
                call(&families[i], (word)last + PAGE - families[i].size / 2));
    MUST(writable(behind));
}

#if BITS == 64 /* what user code can reach, a 32-bit kernel can */
VARIATION(user_only, "a page of the user's root only")
{
    make_user();
    watch(page());
    word area = TEST_AREA(8);
    check(!(entry(area, 4) & P), "the kernel's root has nothing there", "it has");
    u64 *l3 = table(), *l2 = table(), *l1 = table();
    MUST(update(address_of(l1), address_of(page()) | USER_DATA_FLAGS));
    MUST(update(address_of(l2), address_of(l1) | TABLE));
    MUST(update(address_of(l3), address_of(l2) | TABLE));
    MUST(update(address_of(user_root + entry_index(area, 4)), address_of(l3) | TABLE));
    each(area, "mapped for user code only");
}
#endif

/* Calls that write what they were asked for to where they were asked from. */
static const struct family answers[] = {
    {"machphys_mapping", MEMORY_OP, XENMEM_machphys_mapping, 1, 3 * sizeof(word), 0},
    {"xen_version", XEN_VERSION, 3, 1, 1024, 0},
    {"get_features", XEN_VERSION, 6, 1, 8, 0},
    {"query_size", GRANT_TABLE_OP, 6, 1, 16, 1},
    {"runstate", VCPU_OP, 4, 2, BITS == 64 ? 48 : 44, 0},
    {"evtchn_status", EVENT_CHANNEL_OP, EVTCHN_status, 1, 24, 0},
};

VARIATION(read_only, "answers to a page that is read-only")
{
    u64 *target = table();
    watch(target);
    for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++) {
        MUST(writable(target));
        memset(target, 0, PAGE);
        if (answers[i].number == GRANT_TABLE_OP || answers[i].number == EVENT_CHANNEL_OP)
            *(u16 *)target = DOMID_SELF;
        if (answers[i].number == EVENT_CHANNEL_OP)
            ((u32 *)target)[1] = 1;
        MUST(read_only(target));
        REFUSED(named(&answers[i], "to a read-only page"), EFAULT, call(&answers[i], (word)target));
    }
}
