/* Debug registers: no breakpoint in Xen, none on ports without CR4.DE, no bits that must be 0 (set_debugreg()). */
#include "kit.h"

#define NO_DR7 0x400
#define AN_ADDRESS 0x1000

static sword set(word number, word value)
{
    return hypercall(SET_DEBUGREG, number, value);
}

static sword get(word number)
{
    return hypercall(GET_DEBUGREG, number);
}

/* The call is refused and the register is what it was. */
static void refused(const char *name, word number, word value, int error)
{
    sword before = get(number);
    sword got = set(number, value);
    sword after = get(number);
    check(got == -error && after == before, name, "%ld instead of %d; the register had 0x%lx and has 0x%lx", got,
          -error, before, after);
}

#if BITS == 64
VARIATION(addresses, "where breakpoints may be")
{
    for (word i = 0; i < 4; i++)
        MUST(set(i, AN_ADDRESS * (i + 1)));
    refused("DR0 at an address that is none", 0, NON_CANONICAL, EPERM);
    refused("DR1 at the M2P", 1, HOLE, EPERM);
    refused("DR2 at the end of Xen's area", 2, HOLE_END - 8, EPERM);
    refused("DR3 between all addresses", 3, HOLE - 1, EPERM);
    ALLOWED("DR0 behind Xen's area", set(0, HOLE_END));
    check_equal(get(0), HOLE_END, "it is there");
    ALLOWED("DR1 at the end of the lower half", set(1, NON_CANONICAL - 1));
}
#endif

VARIATION(control, "DR6 and DR7")
{
    MUST(set(7, 0));
#if BITS == 64
    refused("DR6 with an upper half", 6, 1ul << 32, EINVAL);
    refused("DR7 with an upper half", 7, 1ul << 63, EINVAL);
#endif
    refused("DR7 with GD", 7, 1 << 13, EPERM);
    refused("DR7 with a breakpoint on a port", 7, 2 << 16 | 3, EPERM);
    refused("DR7 with one on a port in the last place", 7, 2u << 28 | 3 << 6, EPERM);
#if BITS == 64
    refused("DR4 with an upper half, as DR6", 6, 1ul << 40, EINVAL);
    check_equal(set(4, 1ul << 32), -EINVAL, "DR4 with an upper half");
    check_equal(set(5, 1ul << 32), -EINVAL, "DR5 with an upper half");
#endif
    check_equal(set(5, 1 << 13), -EPERM, "DR5 with GD");
    ALLOWED("DR6 cleared", set(6, 0));
    check_equal(get(6), 0xffff0ff0, "the bits of DR6 that are 1");
    check_equal(get(4), 0xffff0ff0, "DR4 is DR6");
    ALLOWED("DR7 cleared", set(7, 0));
    check_equal(get(7), NO_DR7, "the bit of DR7 that is 1");
    check_equal(get(5), NO_DR7, "DR5 is DR7");
    word cr4;
    asm volatile("mov %%cr4, %0" : "=r"(cr4));
    asm volatile("mov %0, %%cr4" : : "r"(cr4 | 8));
#if BITS == 64
    refused("DR4 with CR4.DE", 6, 1ul << 33, EINVAL);
#endif
    check_equal(set(4, 0), -ENODEV, "DR4 is none with CR4.DE");
    check_equal(set(5, 0), -ENODEV, "DR5 is none with CR4.DE");
    check_equal(get(4), -ENODEV, "DR4 read with CR4.DE");
    ALLOWED("a breakpoint on a port with CR4.DE", set(7, 2 << 16 | 3));
    ALLOWED("no breakpoint", set(7, 0));
    asm volatile("mov %0, %%cr4" : : "r"(cr4));
}

VARIATION(numbers, "which registers there are")
{
    check_equal(set(8, 0), -ENODEV, "DR8 written");
    check_equal(set(15, 0), -ENODEV, "DR15 written");
    check_equal(set(~0u, 0), -ENODEV, "DR -1 written");
    check_equal(get(8), -ENODEV, "DR8 read");
    check_equal(get(~0u), -ENODEV, "DR -1 read");
}
