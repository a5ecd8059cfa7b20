/* Lists of 2^31 and 2^32 items: Xen does them in parts, and takes events in between (hypercall_create_continuation).

   All of a list is one page, mapped over and over. A timer fires while the call is made; the event finds the registers
   as the call's next part needs them, and the guest goes on behind the call instead. */
#include "kit.h"

#define WINDOW ROOT_AREA(0)
/* The instruction of a hypercall, and its first two arguments; the third is in RDX. */
#if BITS == 64
enum { SYSCALL = 0x050f };
#define FIRST rdi
#define SECOND rsi
#else
enum { SYSCALL = 0x82cd };
#define FIRST rbx
#define SECOND rcx
#endif

static u64 *item; /* the page that the list consists of */
static struct frame *stopped_at, stopped;

static int stop(struct frame *frame)
{
    if (frame->vector == FROM_EVENT && *(const u16 *)frame->rip == SYSCALL) {
        stopped = *frame;
        stopped_at = &stopped;
        frame->rip += 2;
    }
    return 0;
}

static void set_up(void)
{
    item = page();
    u64 below = address_of(item) | DATA;
    for (int level = 1; level < LEVELS; level++) {
        u64 *table = page();
        for (int i = 0; i < ENTRIES; i++)
            table[i] = below;
        MUST(read_only(table));
        below = address_of(table) | TABLE;
    }
    MUST(update(entry_address(WINDOW, LEVELS), below));
    bind_virq(VIRQ_TIMER);
    MUST(hypercall(VCPU_OP, 7, 0, 0)); /* stop_periodic_timer */
    on_trap = stop;
    unmask_events();
}

static void fill_with(const void *content, unsigned size)
{
    for (unsigned at = 0; at < PAGE; at += size)
        memcpy((u8 *)item + at, content, size);
}
#define FILL(content) fill_with(&(content), sizeof(content))

/* Make the call until the timer stops it; the number of items that were done by then has to be between none and all. */
#define ENDLESS(name, all, left, number, ...)                                            \
    ({                                                                                  \
        stopped_at = 0;                                                                 \
        set_timer(now() + 100);                                                         \
        sword result = hypercall(number, __VA_ARGS__);                                  \
        check(stopped_at != 0, name, "the call ended with %ld", result);                \
        if (stopped_at)                                                                 \
            check((left) > 0 && (left) < (all), name " in parts", "%lu items are left", (word)(left)); \
    })
enum { PREEMPTED = 1 << 31 };
#define LEFT(argument) (stopped.argument & 0x7fffffff)

VARIATION(page_tables, "lists of updates")
{
    set_up();
    u64 again[2] = {address_of(page()) | MACHPHYS_UPDATE, 0};
    FILL(again);
    ENDLESS("mmu_update", 0x7fffffff, LEFT(SECOND), MMU_UPDATE, WINDOW, 0x7fffffff, 0, DOMID_SELF);
    check(stopped.SECOND >> 31 == 1, "mmu_update says that it was preempted", "a count of %lx", stopped.SECOND);
    word flush = TLB_FLUSH_LOCAL; /* whatever part of an item it becomes */
    FILL(flush);
    ENDLESS("mmuext_op", 0x7fffffff, LEFT(SECOND), MMUEXT_OP, WINDOW, 0x7fffffff, 0, DOMID_SELF);
}

VARIATION(multicalls, "calls without end, and a call without end among them")
{
    set_up();
    struct multicall_entry version = {.op = XEN_VERSION};
    FILL(version);
    ENDLESS("multicall", 0xffffffff, stopped.SECOND, MULTICALL, WINDOW, 0xffffffff);
    static struct multicall_entry inside = {.op = MMUEXT_OP, .args = {WINDOW, 0x7fffffff, 0, DOMID_SELF}};
    word flush = TLB_FLUSH_LOCAL; /* whatever part of an item it becomes */
    FILL(flush);
    ENDLESS("mmuext_op in a multicall", 0x7fffffff, inside.args[1] & 0x7fffffff, MULTICALL, &inside, 1);
    check_equal(stopped.SECOND, 1, "the multicall is still to be made");
}

VARIATION(grants, "lists of grant operations")
{
    set_up();
    static const u64 nothing;
    FILL(nothing);
    ENDLESS("map_grant_ref", 0x7fffffff, stopped.rdx, GRANT_TABLE_OP, 0, WINDOW, 0x7fffffff);
    FILL(nothing); /* the statuses were written into it */
    ENDLESS("unmap_grant_ref", 0x7fffffff, stopped.rdx, GRANT_TABLE_OP, 1, WINDOW, 0x7fffffff);
    FILL(nothing);
    ENDLESS("copy", 0x7fffffff, stopped.rdx, GRANT_TABLE_OP, 5, WINDOW, 0x7fffffff);
    FILL(nothing);
    ENDLESS("cache_flush", 0x7fffffff, stopped.rdx, GRANT_TABLE_OP, 12, WINDOW, 0x7fffffff);
}

VARIATION(reservation, "frames given back, the same one again and again")
{
    set_up();
    word frame = mfn_of(page()); /* mapped: it goes when its mapping does */
    FILL(frame);
    static struct memory_reservation list = {(const word *)WINDOW, 1 << 25, 0, 0, DOMID_SELF};
    ENDLESS("decrease_reservation", list.nr_extents, list.nr_extents - (stopped.FIRST >> 6), MEMORY_OP,
            XENMEM_decrease_reservation, &list);
}

VARIATION(traps, "a trap table that does not end")
{
    set_up();
    struct trap_info gate = {200, 0, FLAT_KERNEL_CS, gate_address(200)};
    FILL(gate);
    ENDLESS("set_trap_table", ~0ul, stopped.FIRST - WINDOW, SET_TRAP_TABLE, WINDOW);
}
