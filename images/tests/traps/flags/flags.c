/* flags: rflags in a frame, and for the handler.

   The frame has what the code had, but for IF, which is whether events were not masked, and IOPL, which is 0 unless
   the architectural_iopl assist is on. RF is set in the frame of a fault, as the CPU does it. The handler runs with
   TF, NT, RF and AC clear and IF set; the rest it inherits (x86_64/entry.S, create_bounce_frame). */
#include "kit.h"

enum { CF = 1, ONE = 2, PF_ = 4, AF = 0x10, ZF = 0x40, SF = 0x80, TF = 0x100, IF = 0x200, DF_ = 0x400, OF_ = 0x800,
       IOPL = 0x3000, NT = 0x4000, RF = 0x10000, VM = 0x20000, AC_ = 0x40000, ID = 0x200000 };
enum { ARITHMETIC = CF | PF_ | AF | ZF | SF | OF_, PHYSDEV_set_iopl = 6, ASSIST_iopl = 4 };

/* What a handler finds clear whatever it was: a 32-bit guest's keeps AC (x86_64/compat/entry.S). */
enum { LOST = BITS == 64 ? NT | AC_ : NT, KEPT_AC = AC_ & ~LOST };

#define WITH_FLAGS(flags, instruction) \
    TRY("push %0\npopf\n" instruction, : : "r"((word)(flags)) : "memory", "cc", "rax")

static void clear_flags(void)
{
    asm volatile("push $2\npopf" : : : "cc", "memory");
}

static sword set_iopl(u32 level)
{
    return hypercall(PHYSDEV_OP, PHYSDEV_set_iopl, &level);
}

VARIATION(kept, "what a fault's frame keeps, and what the handler loses")
{
    static const word some[] = {0, ARITHMETIC, DF_, NT, AC_, ID, ARITHMETIC | DF_ | NT | AC_ | ID, CF | ZF};
    static const char *const names[] = {"none", "arithmetic", "DF", "NT", "AC", "ID", "all", "CF and ZF"};
    static const char *const live[] = {"none, live", "arithmetic, live", "DF, live", "NT, live", "AC, live", "ID, live",
                                       "all, live", "CF and ZF, live"};
    mask_events();
    for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
        WITH_FLAGS(some[i], "ud2");
        clear_flags();
        check_equal(fault.frame.rflags, some[i] | ONE | RF, names[i]);
        check_equal(fault.frame.live_rflags, (some[i] & ~(word)LOST) | ONE | IF, live[i]);
    }
}

VARIATION(interrupts, "IF in the frame is the event mask, which is a whole byte")
{
    u8 *mask = &shared->vcpu[0].mask;
    *mask = 0;
    TRY("ud2", :);
    check_equal(fault.frame.rflags & IF, IF, "not masked");
    check_equal(fault.saved_mask, 0, "the mask saved");
    *mask = 1;
    TRY("ud2", :);
    check_equal(fault.frame.rflags & IF, 0, "masked");
    check_equal(fault.saved_mask, 1, "the mask saved then");
    *mask = 0x80;
    TRY("ud2", :);
    check_equal(fault.frame.rflags & IF, 0, "masked by another bit");
    check_equal(fault.saved_mask, 0x80, "that bit saved");
    check_equal(fault.entry_mask, 0x80, "the mask is left as it is");
    *mask = 1;
}

VARIATION(pushed, "what pushf shows, and popf cannot change")
{
    word flags = 0;
    mask_events();
    asm volatile("push %1\npopf\npushf\npop %0\npush $2\npopf" : "=r"(flags) : "r"((word)(IOPL | ONE)) : "cc",
              "memory");
    check_equal(flags, ONE | IF, "IF stays, IOPL stays 0");
    MUST(set_iopl(3));
    asm volatile("pushf\npop %0" : "=r"(flags));
    check_equal(flags & IOPL, 0, "IOPL is virtual");
    check_equal(shared->vcpu[0].mask, 1, "the event mask is another thing");
}

VARIATION(iopl, "IOPL is in a frame if the assist says so")
{
    MUST(set_iopl(1));
    TRY("ud2", :);
    check_equal(fault.frame.rflags & IOPL, 0, "without the assist");
    MUST(hypercall(VM_ASSIST, 0, ASSIST_iopl));
    for (word level = 0; level <= 3; level++) {
        static const char *const names[] = {"0", "1", "2", "3"};
        MUST(set_iopl(level));
        TRY("ud2", :);
        check_equal(fault.frame.rflags >> 12 & 3, level, names[level]);
        check_equal(fault.frame.live_rflags & IOPL, 0, (const char *[]){"live 0", "live 1", "live 2", "live 3"}[level]);
    }
    MUST(hypercall(VM_ASSIST, 1, ASSIST_iopl));
    TRY("ud2", :);
    check_equal(fault.frame.rflags & IOPL, 0, "without it again");
}

VARIATION(resume, "RF: set for a fault, clear for a trap")
{
    set_gate(0x30, 1, 0);
    TRY("ud2", :);
    check_equal(fault.frame.rflags & RF, RF, "#UD");
    TRY("mov (%0), %%" AX, : : "r"(TEST_AREA(1)) : "rax");
    check_equal(fault.frame.rflags & RF, RF, "#PF");
    TRY("hlt", :);
    check_equal(fault.frame.rflags & RF, RF, "#GP");
    TRY("xor %%ecx, %%ecx\ndiv %%ecx", : : : "rax", "rcx", "rdx");
    check_equal(fault.frame.rflags & RF, RF, "#DE");
    TRY("in $0x80, %%al", : : : "rax");
    check_equal(fault.frame.rflags & RF, RF, "#GP of a port");
    TRY("int3", :);
    check_equal(fault.frame.rflags & RF, 0, "int3");
    TRY("int $0x80", :);
    check_equal(fault.frame.rflags & RF, 0, "int $0x80");
    TRY(".byte 0xf1", :);
    check_equal(fault.frame.rflags & RF, 0, "int1");
    TRY("int $0x30", :);
    check_equal(fault.frame.rflags & RF, RF, "an interrupt that Xen has from a #GP");
}

USER __attribute__((naked)) static void user_call(void)
{
    asm("push %" DI "\npopf\n" USER_CALL);
}

USER __attribute__((naked)) static void user_ud2(void)
{
    asm("push %" DI "\npopf\nud2");
}

VARIATION(system_call, "a system call clears DF as well, and has no RF")
{
    const word flags = ARITHMETIC | DF_ | NT | AC_ | ID;
    user(user_call, flags);
    check_equal(fault.vector, FROM_SYSCALL, "a system call");
    check_equal(fault.frame.rflags, flags | ONE | IF, "the frame's");
#if BITS == 64
    check_equal(fault.frame.r11, flags | ONE | IF, "r11");
    check_equal(fault.frame.live_rflags, ARITHMETIC | ID | ONE | IF, "the handler's");
#endif
    user(user_ud2, flags);
    check_equal(fault.frame.rflags, flags | ONE | IF | RF, "a fault's frame");
    check_equal(fault.frame.live_rflags, ARITHMETIC | DF_ | ID | ONE | IF | KEPT_AC, "its handler's");
}

static word change;
static int steps;

static int change_flags(struct frame *frame)
{
    if (frame->vector != BP)
        return 0;
    frame->rflags = change;
    steps++;
    return 1;
}

static word after_iret(word flags)
{
    word seen = 0;
    change = flags;
    asm volatile("int3\npushf\npop %0\npush $2\npopf" : "=r"(seen) : : "cc", "memory");
    return seen;
}

VARIATION(returned, "the iret hypercall gives back all but IOPL and VM")
{
    on_trap = change_flags;
    check_equal(after_iret(ARITHMETIC | IF), ARITHMETIC | ONE | IF, "arithmetic");
    check_equal(shared->vcpu[0].mask, 0, "IF clears the event mask");
    check_equal(after_iret(0), ONE | IF, "none");
    check_equal(shared->vcpu[0].mask, 1, "IF clear sets it");
    check_equal(after_iret(DF_ | NT | AC_ | ID), DF_ | NT | AC_ | ID | ONE | IF, "DF, NT, AC, ID");
    check_equal(after_iret(IOPL), ONE | IF, "IOPL");
#if BITS == 64 /* else it is a #GP */
    check_equal(after_iret(VM), ONE | IF, "VM");
#endif
    check_equal(after_iret(RF), ONE | IF, "RF is gone with the next instruction");
    check_equal(after_iret(~(word)(TF | IF | (BITS == 64 ? 0 : VM))), ARITHMETIC | DF_ | NT | AC_ | ID | ONE | IF, "all but TF and IF");
    check_equal(steps, BITS == 64 ? 7 : 6, "so many irets");
}

VARIATION(iret_iopl, "with the assist, iret sets the I/O privilege level")
{
    on_trap = change_flags;
    MUST(hypercall(VM_ASSIST, 0, ASSIST_iopl));
    change = 2 << 12;
    asm volatile("int3");
    TRY("ud2", :);
    check_equal(fault.frame.rflags >> 12 & 3, 2, "as the frame of the next trap has it");
}

static word event_flags;

static int interrupt_it(struct frame *frame)
{
    if (frame->vector == FROM_EVENT) {
        event_flags = frame->rflags;
        frame->rflags &= ~(word)IF;
    }
    if (frame->vector != BP)
        return 0;
    shared->vcpu[0].pending = 1;
    frame->rflags = change;
    return 1;
}

VARIATION(resumed, "RF holds for one instruction: an event right after iret still finds it")
{
    on_trap = interrupt_it;
    change = IF | RF;
    asm volatile("int3");
    check_equal(event_flags, ONE | IF | RF, "with RF");
    change = IF;
    asm volatile("int3");
    check_equal(event_flags, ONE | IF, "without");
}
