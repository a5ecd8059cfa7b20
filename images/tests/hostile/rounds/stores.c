/* Plain stores: to page tables that are mapped read-only (Xen emulates some), to what is mapped or not, to grants. */
#include "hostile.h"

#if BITS == 64
#define WIDEST "cmpxchg16b"
#else
#define WIDEST "cmpxchg8b"
#endif

/* A store of so many bytes, in one of the ways that the CPU has. */
static void store(word address, word value, unsigned way)
{
    switch (way) {
    case 0:
        asm volatile("movb %b0, (%1)" : : "q"(value), "r"(address) : "memory");
        break;
    case 1:
        asm volatile("movw %w0, (%1)" : : "r"(value), "r"(address) : "memory");
        break;
    case 2:
        asm volatile("movl %k0, (%1)" : : "r"(value), "r"(address) : "memory");
        break;
    case 3:
        asm volatile("lock or %0, (%1)" : : "r"(value), "r"(address) : "memory", "cc");
        break;
    case 4:
        asm volatile("lock btr" W " $1, (%0)" : : "r"(address) : "memory", "cc");
        break;
    case 5:
        asm volatile("lock xadd %0, (%1)" : "+r"(value) : "r"(address) : "memory", "cc");
        break;
    case 6:
        asm volatile("stosl" : "+D"(address) : "a"(value) : "memory");
        break;
    case 7:
        asm volatile("movl %k0, 4(%1)" : : "r"(value), "r"(address) : "memory");
        break;
    case 8:
        asm volatile("lock " WIDEST " (%0)" : : "r"(address), "a"(value), "d"(0), "b"(value), "c"(0) : "memory", "cc");
        break;
    case 9:
        asm volatile("rep movs" W : "+D"(address), "+S"((word){(word)scratch}), "+c"((word){2}) : : "memory");
        break;
    case 10:
        asm volatile("not" W " (%0)" : : "r"(address) : "memory");
        break;
    case 11:
        asm volatile("lock andl %k0, (%1)" : : "r"(value), "r"(address) : "memory", "cc");
        break;
    case 12:
        asm volatile("bts" W " $5, (%0)" : : "r"(address) : "memory", "cc");
        break;
    case 13:
        asm volatile("lock cmpxchg8b (%0)" : : "r"(address), "a"(0), "d"(0), "b"(value), "c"(0) : "memory", "cc");
        break;
    default:
        asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" : : "r"(scratch), "r"(address) : "memory");
    }
}

/* The ways to write eight bytes that replace all that was there. */
#if BITS == 64
static void store_whole(u64 *address, u64 value)
{
    switch (below(4)) {
    case 0:
        asm volatile("xchgq %0, (%1)" : "+r"(value) : "r"(address) : "memory");
        break;
    case 1:
        asm volatile("mov (%1), %%rax; lock cmpxchgq %0, (%1)" : : "r"(value), "r"(address) : "rax", "memory", "cc");
        break;
    case 2:
        asm volatile("stosq" : "+D"(address) : "a"(value) : "memory");
        break;
    default:
        asm volatile("movq %0, (%1)" : : "r"(value), "r"(address) : "memory");
    }
}
#else /* in one instruction; images/tests/pae writes halves */
static void store_whole(u64 *address, u64 value)
{
    u64 old = *address;
    asm volatile("lock cmpxchg8b (%1)" : "+A"(old) : "r"(address), "b"((u32)value), "c"((u32)(value >> 32)) : "memory", "cc");
}
#endif

void round_of_stores(word round)
{
    word chance = below(16), i = below(POOL);
    totals.stores++;
    if (chance < 9) {
        u64 *at = table_target();
        if (target.vital || below(3))
            store_whole(at, entry_value());
        else
            store((word)at, entry_value(), below(15));
    } else if (chance < 13) {
        store(pool_address(), any(), below(15));
    } else if (chance < 14) {
        write_grant(8 + i, below(4) ? 1 | below(512) : any(), below(4) ? OWN_DOMAIN : any(), pool_mfn[below(POOL)]);
    } else if (chance < 15) {
        store(unreadable(), any(), below(8));
    } else {
        store(HOLE + 8 * below(max_mfn), any(), below(8));
    }
    (void)round;
}
