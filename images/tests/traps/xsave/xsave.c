/* xsave: XCR0, XSAVE and AVX, where the CPU has them (emul-priv-op.c; xstate.c, handle_xsetbv; cpuid.c, guest_cpuid).

   XCR0 is the guest's own, by xsetbv, which Xen does for it; all else the CPU does. Xen touches none of the
   registers. */
#include "cpuid.h"
#include "kit.h"

enum { OSXSAVE = 1 << 18, FIXED = 0x660 /* PAE MCE OSFXSR OSXMMEXCPT */ };
enum { X87 = 1, SSE = 2, YMM = 4, ALL = 7 };
enum { CPUID_XSAVE = 26, CPUID_OSXSAVE = 27, CPUID_AVX = 28, LANES = 8, REGISTERS = 8, XSTATE_BV = 512, UPPER = 576 };

static word cr4(void)
{
    word value;
    asm volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

static void set_cr4(word value)
{
    asm volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

static u64 xcr0(void)
{
    u32 low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (u64)high << 32;
}

static int xsetbv(u32 index, u64 value)
{
    return TRY("xsetbv", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)));
}

static void turn_on(u64 states)
{
    set_cr4(FIXED | OSXSAVE);
    MUST(xsetbv(0, states));
}

#define PLAIN USER __attribute__((naked)) static void

PLAIN user_leaf_1(void)
{
    asm("mov $1, %eax\nxor %ecx, %ecx\ncpuid\nmov %ecx, %edi\nmov $9, %eax\n" USER_CALL "\nud2");
}

PLAIN user_leaf_1_of_xen(void)
{
    asm("mov $1, %eax\nxor %ecx, %ecx\n.byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\ncpuid\n"
        "mov %ecx, %edi\nmov $9, %eax\n" USER_CALL "\nud2");
}

PLAIN user_xsetbv(void)
{
    asm("mov $7, %eax\nxor %ecx, %ecx\nxor %edx, %edx\nxsetbv\nud2");
}

VARIATION(cpuid, "CPUID follows CR4 and XCR0")
{
    struct leaf one = ask(1, 0), states = ask(0xd, 0), upper = ask(0xd, 2);
    check_equal(one.c >> CPUID_XSAVE & 1, 1, "XSAVE");
    check_equal(one.c >> CPUID_AVX & 1, 1, "AVX");
    check_equal(one.c >> CPUID_OSXSAVE & 1, 0, "OSXSAVE, which the guest has not set");
    check_equal(ask_xen(1, 0).c >> CPUID_OSXSAVE & 1, 1, "by the prefix it is Xen's own");
    check_equal(cr4(), FIXED, "CR4");
    check_equal(xcr0(), X87 | SSE, "XCR0, which can be read");
    check_equal(states.a, ALL, "the states that there are");
    check_equal(states.b, UPPER, "bytes for those that are on");
    check_equal(states.c, UPPER + 256, "bytes for all");
    check_equal(upper.a, 256, "bytes of the upper halves");
    check_equal(upper.b, UPPER, "where they are");
    check_equal(ask(0xd, 1).a & ~5u, 0, "no compacted form");
    check_equal(ask(0xd, 3).a, 0, "no more of them");
    set_cr4(FIXED | OSXSAVE);
    check_equal(cr4(), FIXED | OSXSAVE, "CR4 with OSXSAVE");
    check_equal(ask(1, 0).c >> CPUID_OSXSAVE & 1, 1, "OSXSAVE");
    check_equal(user(user_leaf_1, 0) >> CPUID_OSXSAVE & 1, 1, "for user code");
    MUST(xsetbv(0, ALL));
    check_equal(ask(0xd, 0).b, UPPER + 256, "bytes with the upper halves on");
    set_cr4(FIXED);
    check_equal(ask(1, 0).c >> CPUID_OSXSAVE & 1, 0, "OSXSAVE, taken back");
    check_equal(user(user_leaf_1_of_xen, 0) >> CPUID_OSXSAVE & 1, 0, "user code by the prefix");
    check_equal(xcr0(), ALL, "XCR0 stays");
}

VARIATION(values, "what XCR0 can be")
{
    TRAPS("without CR4.OSXSAVE", UD, 0, xsetbv(0, ALL));
    user(user_xsetbv, 0);
    check(fault.vector == UD && fault.from_user, "the same of user code", "trap %u", fault.vector);
    set_cr4(FIXED | OSXSAVE);
    user(user_xsetbv, 0);
    check(fault.vector == GP && fault.code == 0 && fault.from_user, "not for user code", "trap %u", fault.vector);
    TRAPS("another register", GP, 0, xsetbv(1, ALL));
    TRAPS("none", GP, 0, xsetbv(0, 0));
    TRAPS("without x87", GP, 0, xsetbv(0, SSE));
    TRAPS("AVX without SSE", GP, 0, xsetbv(0, X87 | YMM));
    TRAPS("one that there is not", GP, 0, xsetbv(0, ALL | 8));
    TRAPS("in the upper half", GP, 0, xsetbv(0, ALL | 1ull << 32));
    TRAPS("the highest", GP, 0, xsetbv(0, ALL | 1ull << 63));
    check_equal(xcr0(), X87 | SSE, "XCR0 is as it was");
    NO_TRAP("all", xsetbv(0, ALL));
    check_equal(xcr0(), ALL, "they are on");
    NO_TRAP("x87 alone", xsetbv(0, X87));
    check_equal(xcr0(), X87, "it is");
    NO_TRAP("both", xsetbv(0, X87 | SSE));
    TRAPS("no third register to read", GP, 0, TRY("xgetbv", : : "c"(2) : "eax", "edx"));
    TRAPS("a lock", UD, 0, TRY("lock; .byte 0x0f, 0x01, 0xd1", : : "c"(0), "a"(ALL), "d"(0)));
#if BITS == 64
    NO_TRAP("with a REX", TRY("rex.W; .byte 0x0f, 0x01, 0xd1", : : "c"(0), "a"(ALL), "d"(0)));
    check_equal(xcr0(), ALL, "that does the same");
#endif
}

static u32 put[REGISTERS][LANES] __attribute__((aligned(64))), got[REGISTERS][LANES] __attribute__((aligned(64)));

#define EACH(row) row(0) row(1) row(2) row(3) row(4) row(5) row(6) row(7)
#define LOAD(n) "vmovdqu 32*" #n "(%0), %%ymm" #n "\n"
#define STORE(n) "vmovdqu %%ymm" #n ", 32*" #n "(%0)\n"

static void fill(void)
{
    for (u32 i = 0; i < REGISTERS * LANES; i++)
        put[i / LANES][i % LANES] = 0x01010101 * (i + 1);
    asm volatile(EACH(LOAD) : : "r"(put) : "memory");
}

static void check_kept(const char *name)
{
    asm volatile(EACH(STORE) : : "r"(got) : "memory");
    check(!memcmp(put, got, sizeof put), name, "%x instead of %x", got[0][LANES - 1], put[0][LANES - 1]);
}

PLAIN user_sum(void)
{
    asm("vpxor %xmm0, %xmm0, %xmm0\nvpcmpeqd %ymm1, %ymm1, %ymm1\nmov $100, %ebx\n"
        "1: vpsubd %ymm1, %ymm0, %ymm0\nmov $1, %eax\n" USER_CALL "\ndec %ebx\njnz 1b\n"
        "vextracti128 $1, %ymm0, %xmm2\nvpaddd %xmm2, %xmm0, %xmm0\nvphaddd %xmm0, %xmm0, %xmm0\n"
        "vphaddd %xmm0, %xmm0, %xmm0\nvmovd %xmm0, %edi\nmov $9, %eax\n" USER_CALL "\nud2");
}

static int go_on(struct frame *frame)
{
    return frame->vector == FROM_SYSCALL && (u32)frame->rax != 9;
}

VARIATION(avx, "the AVX registers keep what they have, whatever leaves the guest")
{
    TRAPS("an instruction without XCR0's bit", UD, 0, TRY("vaddps %%ymm0, %%ymm0, %%ymm0", :));
    turn_on(ALL);
    fill();
    check_kept("nothing");
    for (int i = 0; i < 100; i++)
        hypercall(XEN_VERSION, 0);
    check_kept("hypercalls");
    for (int i = 0; i < 100; i++)
        (void)TRY("ud2", :);
    check_kept("exceptions");
    for (int i = 0; i < 100; i++)
        (void)ask(1, 0), ask_xen(1, 0);
    check_kept("cpuid");
    u32 timer = bind_virq(VIRQ_TIMER);
    word before = port_events[timer];
    unmask_events();
    for (int i = 0; i < 20; i++) {
        word seen = port_events[timer];
        set_timer(now() + 20000);
        while (*(volatile word *)&port_events[timer] == seen)
            ;
    }
    check(port_events[timer] - before >= 20, "events came", "%ld", port_events[timer] - before);
    check_kept("events");
    hypercall(SCHED_OP, SCHED_yield, 0);
    check_kept("a yield");
    NO_TRAP("fewer states", xsetbv(0, X87 | SSE));
    TRAPS("an instruction then", UD, 0, TRY("vaddps %%ymm0, %%ymm0, %%ymm0", :));
    NO_TRAP("all again", xsetbv(0, ALL));
    check_kept("XCR0 there and back");
    on_trap = go_on;
    check_equal(user(user_sum, 0), 800, "user code's sum over a hundred system calls");
    hypercall(FPU_TASKSWITCH, 1);
    TRAPS("an instruction with CR0.TS", NM, 0, TRY("vaddps %%ymm0, %%ymm0, %%ymm0", :));
}

static u8 area[1024] __attribute__((aligned(64)));

static int xsave(void *to, u32 states)
{
    return TRY("xsave (%0)", : : "r"(to), "a"(states), "d"(0) : "memory");
}

static int xrstor(void *from, u32 states)
{
    return TRY("xrstor (%0)", : : "r"(from), "a"(states), "d"(0) : "memory");
}

VARIATION(area, "XSAVE and XRSTOR")
{
    turn_on(ALL);
    fill();
    NO_TRAP("xsave", xsave(area, ALL));
    check_equal(area[XSTATE_BV] & YMM, YMM, "the upper halves are among what it says it stored");
    check(!memcmp(area + 160, put[0], 16), "the lower half of ymm0", "%x", *(u32 *)(area + 160));
    check(!memcmp(area + UPPER + 16, put[1] + 4, 16), "the upper half of ymm1", "%x", *(u32 *)(area + UPPER + 16));
    asm volatile("vzeroall");
    hypercall(XEN_VERSION, 0);
    NO_TRAP("xrstor", xrstor(area, ALL));
    check_kept("all is back");
    area[XSTATE_BV] &= ~YMM;
    NO_TRAP("xrstor without the upper halves", xrstor(area, YMM));
    asm volatile("vmovdqu %%ymm1, (%0)" : : "r"(got[1]) : "memory");
    check_equal(got[1][4] | got[1][5] | got[1][6] | got[1][7], 0, "they are 0");
    check_equal(got[1][0], put[1][0], "the lower ones stay");
    TRAPS("an area that is not aligned", GP, 0, xsave(area + 8, ALL));
    area[XSTATE_BV] = 8;
    TRAPS("a state that there is not", GP, 0, xrstor(area, ALL));
    area[XSTATE_BV] = ALL, area[XSTATE_BV + 8] = 1;
    TRAPS("what is reserved in the header", GP, 0, xrstor(area, ALL));
}
