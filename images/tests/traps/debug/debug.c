/* debug: #DB, by the trap flag, by int1, by the debug registers; DR6 says by which.

   An instruction that Xen emulates is stepped over as well (pv/emul-priv-op.c; traps.c, do_debug). */
#include "kit.h"

enum { TF = 0x100, RF = 0x10000, BS = 1 << 14, DR6_DEFAULT = 0xffff0ff0 };

/* pushf and the two after it are 1, 7 and 1 bytes. */
enum { PRELUDE = 9 };
#define STEPPED(instruction, ...) \
    (on_trap = end_stepping, TRY("pushf\norl $0x100, (%%" SP ")\npopf\n" instruction "\nnop", __VA_ARGS__))

static word stepped_flags;

static int end_stepping(struct frame *frame)
{
    stepped_flags = frame->rflags;
    frame->rflags &= ~(word)TF;
    return 0;
}

static word get_dr6(void)
{
    return hypercall(GET_DEBUGREG, 6);
}

static void clear_dr6(void)
{
    MUST(hypercall(SET_DEBUGREG, 6, DR6_DEFAULT));
}

/* Whether #DB came behind the instruction, of `length` bytes. */
static void check_step(const char *name, int taken, unsigned length)
{
    word begins = fault.at + PRELUDE;
    check(taken && fault.vector == DB && fault.frame.rip == begins + length && stepped_flags & TF, name,
          "trap %u at %lx instead of %lx, rflags %lx", taken ? fault.vector : 99, fault.frame.rip, begins + length,
          stepped_flags);
    check_equal(fault.frame.live_rflags & TF, 0, "the handler does not step");
}

VARIATION(step, "a single step")
{
    clear_dr6();
    check_step("nop", STEPPED("nop", :), 1);
    check_equal(get_dr6(), DR6_DEFAULT | BS, "DR6");
    check_equal(fault.frame.rflags & RF, 0, "RF is not set");
}

static void check_emulated(const char *name, const char *dr6_name, int taken, unsigned length)
{
    word begins = fault.at + PRELUDE;
    check(taken && fault.vector == DB && fault.frame.rip == begins + length, name, "trap %u at %lx instead of %lx",
          taken ? fault.vector : 99, fault.frame.rip, begins + length);
    check_equal(get_dr6(), DR6_DEFAULT | BS, dr6_name);
    clear_dr6();
}

VARIATION(emulated, "a single step over what Xen emulates")
{
    clear_dr6();
    check_emulated("clts", "clts, DR6", STEPPED("clts", :), 2);
    check_emulated("mov from cr0", "mov from cr0, DR6", STEPPED("mov %%cr0, %%" AX, : : : "rax"), 3);
    check_emulated("mov to cr2", "mov to cr2, DR6", STEPPED("mov %%" AX ", %%cr2", :), 3);
    check_emulated("wbinvd", "wbinvd, DR6", STEPPED("wbinvd", :), 2);
    check_emulated("rdmsr", "rdmsr, DR6", STEPPED("rdmsr", : : "c"(0xc0000080) : "rax", "rdx"), 2);
    check_emulated("the forced cpuid", "the forced cpuid, DR6",
                   STEPPED(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\ncpuid", : : "a"(1), "c"(0) : "rbx", "rdx"), 7);
    check_emulated("cpuid", "cpuid, DR6", STEPPED("cpuid", : : "a"(1), "c"(0) : "rbx", "rdx"), 2);
    u32 level = 1;
    MUST(hypercall(PHYSDEV_OP, 6, &level));
    check_emulated("cli", "cli, DR6", STEPPED("cli", :), 1);
    check_emulated("in", "in, DR6", STEPPED("in $0x80, %%al", : : : "rax"), 2);
    check_emulated("out", "out, DR6", STEPPED("out %%al, $0x80", :), 2);
}

VARIATION(faults, "an instruction that faults is not stepped over")
{
    clear_dr6();
    check(STEPPED("ud2", :) && fault.vector == UD && stepped_flags & TF, "ud2", "trap %u", fault.vector);
    check(STEPPED("hlt", :) && fault.vector == GP && stepped_flags & TF, "hlt", "trap %u", fault.vector);
    check(STEPPED("mov (%0), %%" AX, : : "r"(TEST_AREA(1)) : "rax") && fault.vector == PF && stepped_flags & TF,
              "a load",
          "trap %u", fault.vector);
    check_equal(get_dr6(), DR6_DEFAULT, "DR6");
}

VARIATION(int1, "int1 is a #DB behind it, and nothing is in DR6")
{
    clear_dr6();
    TRAPS_BEHIND("int1", DB, 1, TRY(".byte 0xf1", :));
    check_equal(get_dr6(), DR6_DEFAULT, "DR6");
}

static unsigned steps, faults;
static word first_rip, resume_flags;

static int count(struct frame *frame)
{
    if (frame->vector == DB) {
        steps++;
        first_rip = frame->rip;
        frame->rflags |= resume_flags;
        return 1;
    }
    if (frame->vector == PF && !faults++) {
        resume_flags = 0;
        MUST(map(TEST_AREA(1), address_of(start_info) | DATA));
        return 1;
    }
    return 0;
}

void run_stop(void);
extern char stop_here[];
asm(".text\nrun_stop: xor %eax, %eax\nstop_here: nop\nret");

VARIATION(breakpoint, "a breakpoint is a fault, which RF lets pass")
{
    on_trap = count;
    clear_dr6();
    resume_flags = RF;
    MUST(hypercall(SET_DEBUGREG, 0, stop_here));
    MUST(hypercall(SET_DEBUGREG, 7, 1));
    run_stop();
    check_equal(steps, 1, "once");
    check_equal(first_rip, (word)stop_here, "before the instruction");
    check_equal(get_dr6(), DR6_DEFAULT | 1, "DR6");
    run_stop();
    check_equal(steps, 2, "and once more the next time");
    MUST(hypercall(SET_DEBUGREG, 7, 0));
    run_stop();
    check_equal(steps, 2, "not when it is off");
}

VARIATION(breakpoint_and_fault,
          "an instruction with a breakpoint that faults: RF is in the fault's frame, so that one comes")
{
    extern char load_here[];
    word value = 0;
    make_path(TEST_AREA(1));
    on_trap = count;
    resume_flags = RF;
    MUST(hypercall(SET_DEBUGREG, 0, load_here));
    MUST(hypercall(SET_DEBUGREG, 7, 1));
    asm volatile("load_here: mov (%1), %0" : "=r"(value) : "r"(TEST_AREA(1)));
    MUST(hypercall(SET_DEBUGREG, 7, 0));
    check_equal(faults, 1, "faults");
    check_equal(steps, 1, "breakpoints");
    check_equal(value, *(const word *)start_info, "the load was made");
}

VARIATION(watch_writes, "a data breakpoint is a trap behind the store")
{
    static volatile word cell;
    clear_dr6();
    MUST(hypercall(SET_DEBUGREG, 1, &cell));
    MUST(hypercall(SET_DEBUGREG, 7, 4 | 0xdul << 20 | 0)); /* DR1, writes, 4 bytes */
    TRAPS_BEHIND("a store", DB, 6, TRY("movl $7, (%%" AX ")", : : "a"(&cell) : "memory"));
    check_equal(cell, 7, "was made");
    check_equal(get_dr6() & 15, 2, "DR6");
    NO_TRAP("a load is none", TRY("mov (%0), %%eax", : : "r"(&cell) : "rax"));
    MUST(hypercall(SET_DEBUGREG, 7, 0));
}

VARIATION(registers, "the debug registers can be written and read as such")
{
    word value = 0;
    asm volatile("mov %1, %%dr2\nmov %%dr2, %0" : "=r"(value) : "r"(0x12345678ul));
    check_equal(value, 0x12345678, "DR2");
    check_equal(hypercall(GET_DEBUGREG, 2), 0x12345678, "by the hypercall");
#if BITS == 64
    TRAPS("Xen's area", GP, 0, TRY("mov %0, %%dr3", : : "r"(HOLE)));
    TRAPS("no address", GP, 0, TRY("mov %0, %%dr3", : : "r"(NON_CANONICAL)));
    TRAPS("upper bits", GP, 0, TRY("mov %0, %%dr7", : : "r"(1ul << 32)));
#endif
    TRAPS("GD", GP, 0, TRY("mov %0, %%dr7", : : "r"(1ul << 13)));
    asm volatile("mov %%dr7, %0" : "=r"(value));
    check_equal(value, 0x400, "DR7 is as it was");
    asm volatile("mov %%dr5, %0" : "=r"(value));
    check_equal(value, 0x400, "DR5 is DR7");
}

USER __attribute__((naked)) static void user_step(void)
{
    asm("nop\nnop\n" USER_CALL);
}

VARIATION(user_step, "user code steps by the flags that iret gave it")
{
    clear_dr6();
    user_as(user_step, 0, FLAT_USER_CS, 0x302);
    check_equal(fault.vector, DB, "#DB");
    check_equal(fault.frame.rip, user_address(user_step) + 1, "behind the first instruction");
    check_equal(get_dr6(), DR6_DEFAULT | BS, "DR6");
}

VARIATION(ports, "a breakpoint on ports is a trap behind in and out; it needs CR4.DE")
{
    enum { IO = 2 };
    u32 level = 1, value = 0;
    MUST(hypercall(PHYSDEV_OP, 6, &level));
    MUST(hypercall(SET_DEBUGREG, 2, 0x80));
    check_equal(hypercall(SET_DEBUGREG, 7, 1 << 4 | IO << 24), -EPERM, "without CR4.DE");
    asm volatile("mov %%cr4, %%" AX "\nor $8, %%" AX "\nmov %%" AX ", %%cr4" : : : "rax");
    MUST(hypercall(SET_DEBUGREG, 7, 1 << 4 | IO << 24 | 1 << 26)); /* DR2, two ports */
    clear_dr6();
    TRAPS_BEHIND("in", DB, 2, TRY("in $0x80, %%al", : "+a"(value)));
    check_equal(fault.frame.rax, 0xff, "was made");
    check_equal(get_dr6(), DR6_DEFAULT | 4, "DR6");
    TRAPS_BEHIND("out, to the second", DB, 2, TRY("out %%al, $0x81", : : "a"(0)));
    TRAPS_BEHIND("in, over them", DB, 1, TRY("in %%dx, %%eax", : : "d"(0x7e) : "rax"));
    NO_TRAP("their neighbour", TRY("in $0x82, %%al", : "+a"(value)));
    MUST(hypercall(SET_DEBUGREG, 7, 0));
    NO_TRAP("when it is off", TRY("in $0x80, %%al", : "+a"(value)));
}
