/* nmi: raised by vcpu_op, taken by trap 2, masked until iret.

   The NMI callback is the trap table's entry 2, with events masked; without one, an NMI is lost (x86_64/entry.S,
   process_nmi; pv/iret.c, async_exception_cleanup). */
#include "kit.h"

enum { VCPUOP_send_nmi = 11 };

static unsigned nmis, deepest, depth;
static struct frame seen;
static u8 seen_mask;
static void (*within)(void);

static sword send(void)
{
    return hypercall(VCPU_OP, VCPUOP_send_nmi, 0, 0);
}

static int take(struct frame *frame)
{
    if (frame->vector != NMI)
        return 0;
    nmis++;
    if (++depth > deepest)
        deepest = depth;
    seen = *frame;
    seen_mask = shared->vcpu[0].mask;
    if (within && nmis == 1)
        within();
    depth--;
    return 1;
}

VARIATION(frame, "its frame is that of a trap")
{
    on_trap = take;
    shared->vcpu[0].mask = 0;
    check_equal(send(), 0, "the hypercall");
    check_equal(nmis, 1, "one came");
    check_equal(seen.rax, 0, "behind the hypercall");
#if BITS == 64
    check_equal(seen.rcx, seen.rip, "whose rcx it has");
#endif
    check_equal(seen.cs, KERNEL_CS_IN_FRAME, "cs and the mask");
    check_equal(seen.rflags & 0x10200, 0x200, "IF, and no RF");
    check_equal(seen_mask, 0, "a trap gate leaves events");
    set_gate(NMI, GATE_MASKS, 0);
    send();
    check_equal(seen_mask, 1, "an interrupt gate masks them");
    MUST(set_callback(CALLBACKTYPE_nmi, 0, gate_address(NMI)));
    send();
    check_equal(seen_mask, 1, "the callback does always");
    check_equal(nmis, 3, "three came");
    mask_events();
    send();
    check_equal(nmis, 4, "whether events are masked or not");
}

static void send_again(void)
{
    send();
    send();
    check_equal(nmis, 1, "within its handler none comes");
}

VARIATION(masked, "another waits for iret, and two are one")
{
    on_trap = take;
    within = send_again;
    send();
    check_equal(nmis, 2, "one comes after it");
    check_equal(deepest, 1, "not within it");
}

static void send_and_trap(void)
{
    send();
    TRY("ud2", :); /* its handler's iret unmasks them */
}

VARIATION(unmasked_early, "any iret unmasks it, be it of a trap within its handler")
{
    on_trap = take;
    within = send_and_trap;
    send();
    check_equal(nmis, 2, "both came");
    check_equal(deepest, 2, "one within the other");
}

static unsigned order[4], taken;

static int note_order(struct frame *frame)
{
    if (frame->vector != NMI && frame->vector != FROM_EVENT)
        return 0;
    if (taken < 4)
        order[taken++] = frame->vector;
    return frame->vector == NMI;
}

VARIATION(first, "an NMI comes before an event")
{
    on_trap = note_order;
    MUST(set_callback(CALLBACKTYPE_nmi, 0, gate_address(NMI)));
    mask_events();
    shared->vcpu[0].pending = 1;
    shared->vcpu[0].mask = 0;
    send();
    check_equal(taken, 2, "both came");
    check_equal(order[0], NMI, "the NMI first");
    check_equal(order[1], FROM_EVENT, "then the event");
}

VARIATION(lost, "without a handler it is lost")
{
    struct trap_info gates[] = {{UD, 0, FLAT_KERNEL_CS, gate_address(UD)}, {0}};
    MUST(hypercall(SET_TRAP_TABLE, 0));
    MUST(hypercall(SET_TRAP_TABLE, gates));
    check_equal(send(), 0, "the hypercall");
    on_trap = take;
    set_gate(NMI, 0, 0);
    hypercall(XEN_VERSION, 0);
    check_equal(nmis, 0, "none came");
    send();
    check_equal(nmis, 1, "the next one comes");
}
