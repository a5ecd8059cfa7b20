/* What differs between a 64-bit unix and a 32-bit one: words, tables, addresses, the hypercall. Nothing else does. */
#pragma once

typedef unsigned long word; /* as wide as a register */

#define LEVELS 4
#define ENTRIES 512ul
#define LEVEL_SHIFT(level) (12 + 9 * ((level) - 1))
#define ROOT_SLOTS 0 /* that must lead to a table, used or not */
#define NOT_EXECUTABLE (1ull << 63)
#define M2P_ENTRY word

#define SHARED_INFO_VA 0xfffffffffc000000ul /* the kernel's window on shared_info, a table's reach behind its data */
#define WALLCLOCK 3072                      /* of shared_info: version, seconds, nanoseconds */
#define BITS 64

static inline long hypercall(word number, word a, word b, word c, word d)
{
    long result;
    register word fourth asm("r10") = d;
    asm volatile("syscall"
                 : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
                 : "0"(number)
                 : "rcx", "r11", "r8", "r9", "memory");
    return result;
}

static inline long update_va_mapping(word address, unsigned long long entry)
{
    return hypercall(14, address, entry, 2 /* UVMF_INVLPG */, 0);
}
