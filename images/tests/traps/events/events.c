/* events: pending bits, selectors, masks, and time going on, as far as a guest hangs or storms when they are wrong. */
#include "kit.h"

static u32 timer;

static struct vcpu_info *vcpu(void)
{
    return &shared->vcpu[0];
}

static void fire(void)
{
    set_timer(1);
    hypercall(XEN_VERSION, 0);
}

VARIATION(bits, "a pending port has its bit, its word's selector, and the pending byte")
{
    mask_events();
    timer = bind_virq(VIRQ_TIMER);
    vcpu()->pending = 0;
    vcpu()->pending_sel = 0;
    shared->pending[0] = 0;
    fire();
    check_equal(shared->pending[0] >> timer & 1, 1, "the bit");
    check_equal(vcpu()->pending_sel & 1, 1, "the selector");
    check_equal(vcpu()->pending, 1, "the byte");
    vcpu()->pending = 0;
    vcpu()->pending_sel = 0;
    fire();
    check_equal(vcpu()->pending, 0, "what is pending already is not told again");
    shared->pending[0] = 0;
    fire();
    check_equal(vcpu()->pending, 1, "what was taken is");
}

VARIATION(masked_port, "a masked port becomes pending, and tells nobody before it is unmasked")
{
    mask_events();
    timer = bind_virq(VIRQ_TIMER);
    shared->mask[0] |= 1ul << timer;
    shared->pending[0] = vcpu()->pending = vcpu()->pending_sel = 0;
    fire();
    check_equal(shared->pending[0] >> timer & 1, 1, "the bit");
    check_equal(vcpu()->pending_sel & 1, 0, "no selector");
    check_equal(vcpu()->pending, 0, "no byte");
    MUST(event_channel_op(EVTCHN_unmask, &timer));
    check_equal(vcpu()->pending_sel & 1, 1, "the selector when unmasked");
    check_equal(vcpu()->pending, 1, "the byte when unmasked");
    check_equal(shared->mask[0] >> timer & 1, 0, "the mask");
}

VARIATION(once, "one event, one upcall")
{
    timer = bind_virq(VIRQ_TIMER);
    hypercall(VCPU_OP, 7, 0, 0); /* stop_periodic_timer */
    set_timer(0);
    unmask_events();
    word before = port_events[timer], upcalls = events;
    fire();
    check_equal(port_events[timer] - before, 1, "of the port");
    check_equal(events - upcalls, 1, "of the callback");
    for (int i = 0; i < 50; i++)
        hypercall(XEN_VERSION, 0);
    check_equal(events - upcalls, 1, "no storm");
}

VARIATION(spinning, "an event comes while the guest makes no hypercall")
{
    timer = bind_virq(VIRQ_TIMER);
    unmask_events();
    word before = events;
    set_timer(now() + 20000);
    for (volatile word i = 0; i < 1000000 && events == before; i++)
        ;
    check(events > before, "an upcall", "none");
}

VARIATION(asleep, "time jumps when all sleep")
{
    timer = bind_virq(VIRQ_TIMER);
    hypercall(VCPU_OP, 7, 0, 0);
    u64 before = now();
    set_timer(before + 5000000000ull);
    hypercall(SCHED_OP, SCHED_block, 0);
    u64 after = now();
    check(after >= before + 5000000000ull, "not before its time", "%llu", after - before);
    check(after < before + 5010000000ull, "and not long after", "%llu", after - before);
}

VARIATION(version, "the time's version changes within a second or so, and is even")
{
    u32 before = *(volatile u32 *)&vcpu()->version;
    check_equal(before & 1, 0, "even");
    u64 start = now();
    timer = bind_virq(VIRQ_TIMER);
    while (*(volatile u32 *)&vcpu()->version == before && now() < start + 3000000000ull) {
        set_timer(now() + 100000000);
        hypercall(SCHED_OP, SCHED_block, 0);
    }
    check(vcpu()->version != before, "changed", "after %llu ns it is still %u", now() - start, before);
    check_equal(vcpu()->version & 1, 0, "and is even again");
}

VARIATION(steady, "time does not go backwards over an update")
{
    timer = bind_virq(VIRQ_TIMER);
    u64 last = now();
    unsigned backwards = 0;
    for (int i = 0; i < 40; i++) {
        set_timer(now() + 77777777);
        hypercall(SCHED_OP, SCHED_block, 0);
        for (int j = 0; j < 10; j++) {
            u64 at = now();
            backwards += at < last;
            last = at;
        }
    }
    check_equal(backwards, 0, "times");
}

VARIATION(late_gate, "a trap gate for page faults lets an event in before its handler has begun")
{
    timer = bind_virq(VIRQ_TIMER);
    u8 *mask = &vcpu()->mask;
    *mask = 0;
    set_gate(PF, 0, 0);
    vcpu()->pending = 1;
    word before = events;
    TRY("mov (%0), %%" AX, : : "r"(TEST_AREA(1)) : "rax");
    check_equal(events - before, 1, "the event came");
    *mask = 1;
}

static struct frame event;

USER __attribute__((naked)) static void user_spin(void)
{
    asm("mov $0x99, %ecx\n1: jmp 1b\nuser_spun: " USER_CALL);
}
extern char user_spun[];

static int end_spinning(struct frame *frame)
{
    if (frame->vector != FROM_EVENT || (frame->cs & 3) != 3)
        return 0;
    event = *frame;
    frame->rip = user_address(user_spun);
    return 0;
}

VARIATION(in_user, "an event while user code runs, on the kernel's stack, and back")
{
    on_trap = end_spinning;
    timer = bind_virq(VIRQ_TIMER);
    make_user();
    set_timer(now() + 100000);
    user(user_spin, 0x1234);
    check_equal(fault.vector, FROM_SYSCALL, "user code went on");
    check_equal(fault.frame.rdi, 0x1234, "with its registers");
    check_equal(event.cs, FLAT_USER_CS, "cs and the mask");
    check_equal(event.rip, user_address(user_spin) + 5, "rip");
    check_equal(event.rcx, 0x99, "rcx");
    check_equal(event.rsp, USER_STACK_TOP, "rsp");
    check_equal(event.rflags, 0x202, "rflags");
    check_equal(event.live_cs, FLAT_KERNEL_CS, "the handler's cs");
}
