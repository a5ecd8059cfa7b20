/* halves: direct stores to a PAE table, whose entries a 32-bit kernel can write only in two halves or with cmpxchg8b
   (pv/ro-page-fault.c, ptwr_emulated_update). */
#include "kit.h"

static volatile u64 *target; /* in a table that is mapped read-only */
static u64 good;

static void begin(void)
{
    void *other = page();
    word address = (word)page();
    MUST(hypercall(VM_ASSIST, 0, 2));
    target = (volatile u64 *)((char *)table_at(entry_address(address, 1) / PAGE) + entry_address(address, 1) % PAGE);
    good = address_of(other) | DATA;
    watch(other);
}

static volatile u32 *half(int upper)
{
    return (volatile u32 *)target + upper;
}

#define STORE(upper, value) TRY("movl %0, %1", : : "r"((u32)(value)), "m"(*half(upper)) : "memory")

static void check_target(u64 wanted, const char *name)
{
    check_entry(*target & ~(u64)(A | D), wanted & ~(u64)(A | D), name);
}

VARIATION(in_order, "the way it is meant: clear, upper half, lower half")
{
    begin();
    NO_TRAP("clearing the lower half", STORE(0, 0));
    check_target(*target & ~(u64)0xffffffff, "it is not present");
    NO_TRAP("the upper half", STORE(1, NX >> 32));
    NO_TRAP("the lower half", STORE(0, good));
    check_target(good | NX, "the entry");
}

VARIATION(wrong_way_round, "the upper half of a present entry first: what it would map cannot be, so P is taken away")
{
    begin();
    u64 old = *target;
    NO_TRAP("an upper half that names no frame", STORE(1, 0xff));
    check_target((old & 0xfffffffe) | 0xffull << 32, "P is gone");
    NO_TRAP("the upper half as it should be", STORE(1, 0));
    NO_TRAP("the lower half", STORE(0, good));
    check_target(good, "the entry");
}

VARIATION(refused, "what stays a page fault")
{
    begin();
    word there = (word)target;
    u64 old = *target;
    REFUSED_BY_TRAP("a lower half that maps a table writable", PF, 3, there,
                    STORE(0, frame_address(root_mfn()) | DATA));
    REFUSED_BY_TRAP("an exchange of the upper half", PF, 3, there + 4,
                    TRY("xchgl %0, %1", : : "r"(0xff), "m"(*half(1)) : "memory"));
    REFUSED_BY_TRAP("a store across two halves", PF, 3, there + 2,
                    TRY("movl %0, %1", : : "r"(0), "m"(*(volatile u32 *)(there + 2)) : "memory"));
    check_target(old, "the entry is as it was");
    MUST(hypercall(VM_ASSIST, 1, 2));
    REFUSED_BY_TRAP("any, without the assist", PF, 3, there, STORE(0, good));
}

VARIATION(at_once, "cmpxchg8b writes an entry whole")
{
    begin();
    u64 old = *target, seen = old;
    u8 equal;
    check(!TRY("lock cmpxchg8b %1\nsete %0", : "=q"(equal), "+m"(*target), "+A"(seen)
               : "b"((u32)good), "c"((u32)(good >> 32)) : "memory", "cc"), "no trap", "trap %u", fault.vector);
    check_equal(equal, 1, "it was equal");
    check_target(good, "the entry");
    seen = old ^ 0x1000;
    check(!TRY("lock cmpxchg8b %1\nsete %0", : "=q"(equal), "+m"(*target), "+A"(seen) : "b"(0), "c"(0)
               : "memory", "cc"), "none with another value", "trap %u", fault.vector);
    check_equal(equal, 0, "it was not equal");
    check(seen == *target, "what is there is told", "%llx", seen);
    check_target(good, "the entry stays");
}
