/* What differs between a 32-bit (PAE) unix and a 64-bit one; arch64.h is its twin. */
#pragma once

typedef unsigned long word; /* as wide as a register */

#define LEVELS 3
#define ENTRIES 512ul
#define LEVEL_SHIFT(level) (12 + 9 * ((level) - 1))
#define ROOT_SLOTS 4 /* all of which lead to a table, always */
#define NOT_EXECUTABLE (1ull << 63)
#define M2P_ENTRY unsigned

#define SHARED_INFO_VA 0xf4800000ul /* the kernel's window on shared_info, a table's reach behind its data */
#define WALLCLOCK 2304              /* of shared_info: version, seconds, nanoseconds */
#define BITS 32

static inline long hypercall(word number, word a, word b, word c, word d)
{
    long result;
    asm volatile("int $0x82" : "=a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d) : "0"(number) : "memory");
    return result;
}

static inline long update_va_mapping(word address, unsigned long long entry)
{
    return hypercall(14, address, (word)entry, entry >> 32, 2 /* UVMF_INVLPG */);
}
