/* The ends that a test can come to, and what the kit does for a test. */
#include "kit.h"

VARIATION(skipped, "a test that does not apply")
{
    check(1, "one check", "none");
    skip("there is nothing to test, for %d reasons", 2);
}

VARIATION(nothing, "a test that checks nothing")
{
}

VARIATION(set_up, "a set-up that fails")
{
    MUST(map(HOLE, 0));
}

VARIATION(trap, "a trap that nobody waits for")
{
    *(volatile int *)64 = 1;
}

VARIATION(user_trap, "user code that traps, and then the kernel")
{
    user(user_section_end, 0);
    check(fault.vector == PF && fault.from_user, "user code's trap", "%u", fault.vector);
    asm volatile("int3");
}

CRASHING_VARIATION(crash, "Unhandled: vec 6", "a trap without a handler")
{
    check(1, "before it", "none");
    MUST(hypercall(SET_TRAP_TABLE, 0));
    asm volatile("ud2");
}

VARIATION(prints, "every format")
{
    say("%d %ld %lld %u %x %lx %llx %5u %08x %p %s %c %%\n", -1, -2l, -3ll, 4u, 0xabcu, 0xdefl, 1ull << 40, 17u, 0x12u,
        (void *)0x1000, "text", 'c');
    for (int i = 0; i < 200; i++)
        say("line %d of a long console, longer than the ring is\n", i);
    check(1, "printed", "none");
}

static int hooked(struct frame *frame)
{
    frame->rip += frame->vector == BP ? 0 : 2;
    return frame->vector == BP || frame->vector == UD;
}

static void breaks(word vector)
{
    if (vector == DE)
        asm volatile("div %0" : : "r"(0) : "rax", "rdx");
    asm volatile("ud2");
}

VARIATION(traps, "traps caught, skipped and counted")
{
    check(caught(breaks, DE) && fault.vector == DE, "a trap in a function", "%u", fault.vector);
    check(caught(breaks, 1) && fault.vector == UD, "another", "%u", fault.vector);
    check(TRY("ud2", : : : ) && fault.frame.rip == fault.at && fault.frame.code == 0, "a trap of an instruction", "%u",
          fault.vector);
    check(!TRY("nop", : : : ), "none", "%u", fault.vector);
    on_trap = hooked;
    asm volatile("int3; ud2; nop");
    on_trap = 0;
    check(user(user_return, 42) == 42 && fault.vector == FROM_SYSCALL && fault.from_user, "user code", "%u",
          fault.vector);
    check(user_as(user_return, 43, FLAT_USER_CS, 0x202) == 43, "again", "%u", fault.vector);
}

VARIATION(time, "the timer, and events masked and not")
{
    u32 port = bind_virq(VIRQ_TIMER);
    u64 start = now();
    set_timer(start + 1000000);
    unmask_events();
    while (!port_events[port])
        hypercall(SCHED_OP, SCHED_block);
    mask_events();
    check(now() - start >= 1000000, "the time has passed", "%lld", now() - start);
    check(events >= 1, "an upcall", "%lu", events);
    set_timer(now() + 1000);
    while (now() - start < 1100000)
        ;
    check_equal(port_events[port], 1, "a masked event waits");
    unmask_events();
    check_equal(port_events[port], 2, "and comes");
    check(!strcmp(word_of_command_line(0), "time") && !*word_of_command_line(1), "the command line", "%s",
          start_info->cmd_line);
}

VARIATION(entries, "what is known of a trap: the frame, the masks, the stack")
{
    unmask_events();
    check(TRY("ud2", : : : ) && fault.entry_mask == 0 && fault.saved_mask == 0, "a trap gate leaves events alone",
          "masked %u, saved %u", fault.entry_mask, fault.saved_mask);
    set_gate(UD, GATE_MASKS, 0);
    check(TRY("ud2", : : : ) && fault.entry_mask == 1 && fault.saved_mask == 0, "an interrupt gate masks them",
          "masked %u, saved %u", fault.entry_mask, fault.saved_mask);
    check(shared->vcpu[0].mask == 0, "going on unmasks them", "they are masked");
    mask_events();
    check(TRY("ud2", : : : ) && fault.saved_mask == 1, "and keeps the mask that there was", "%u", fault.saved_mask);
    word sp;
    asm volatile("mov %%" SP ", %0" : "=r"(sp));
    TRY("ud2", : : : );
    sp = (sp & -FRAME_ALIGN) - FRAME_WORDS * sizeof(word);
    check_equal(fault.entry_rsp, sp, "the stack at the entry, without a code");
    TRY("mov (%0), %%" AX, : : "r"(24ul) : "rax");
    check_equal(fault.entry_rsp, sp - sizeof(word), "and with one");
    user_as(user_return, 0, 0x1233, 0x202);
    check(fault.vector == GP && fault.code == 0x1230 && fault.from_user, "user code in a segment that is none",
          "trap %u, code %lx", fault.vector, fault.code);
    check(user_as(user_return, 0, FLAT_USER_CS, 0x202) == 0 && fault.entry_rsp == (word)entry_stack_top - USER_FRAME_WORDS * sizeof(word),
          "a system call's stack", "%p", (void *)fault.entry_rsp);
}
