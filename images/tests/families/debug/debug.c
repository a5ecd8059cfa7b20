/* Breakpoints on ports: allowed with CR4.DE only, and never one on memory (xen/arch/x86/pv/misc-hypercalls.c). */
#include "kit.h"

static sword set(word number, word value)
{
    return hypercall(SET_DEBUGREG, number, value);
}

VARIATION(ports, "a breakpoint on a port counts if any is enabled, itself or another")
{
    enum { PORT_0 = 2 << 16, ENABLE_0 = 1, ENABLE_1 = 1 << 2 };
    word *memory = page(), cr4;
    MUST(set(0, (word)memory));
    check_equal(set(7, PORT_0), 0, "none enabled");
    check_equal(hypercall(GET_DEBUGREG, 7), PORT_0 | 0x400, "it is kept");
    check_equal(set(7, PORT_0 | ENABLE_0), -EPERM, "enabled itself");
    check_equal(set(7, PORT_0 | ENABLE_1), -EPERM, "another enabled");
    check_equal(hypercall(GET_DEBUGREG, 7), PORT_0 | 0x400, "what was there stays");
    asm volatile("mov %%cr4, %0" : "=r"(cr4));
    asm volatile("mov %0, %%cr4" : : "r"(cr4 | 8));
    check_equal(set(7, PORT_0 | ENABLE_0), 0, "enabled with CR4.DE");
    check_equal(TRY("mov" W " $1, (%0)", : : "r"(memory) : "memory"), 0, "memory at that address is not watched");
    MUST(set(7, 1 << 16 | ENABLE_0));
    check(TRY("mov" W " $1, (%0)", : : "r"(memory) : "memory") && fault.vector == DB, "as it is otherwise", "%u", fault.vector);
    MUST(set(7, 0));
    asm volatile("mov %0, %%cr4" : : "r"(cr4));
}
