/* Where the guest is entered: the NMI callback is the trap table's entry 2, and long lists are taken whole. */
#include "kit.h"

enum { REGISTER = 0, UNREGISTER = 1, SEND_NMI = 11, GS_USER_SEL = 3 };
static int nmis, mask_at_entry;

static int took_nmi(struct frame *frame)
{
    if (frame->vector != NMI)
        return 0;
    nmis++;
    mask_at_entry = shared->vcpu[0].mask;
    return 1;
}

static void send_nmi(void)
{
    MUST(hypercall(VCPU_OP, SEND_NMI, 0, 0));
    asm volatile("nop");
}

VARIATION(nmi, "the NMI's callback masks events, a gate of the trap table as it says, and whichever came last counts")
{
    on_trap = took_nmi;
    unmask_events();
    check_equal(set_callback(CALLBACKTYPE_nmi, 0, gate_address(NMI)), 0, "a callback");
    send_nmi();
    check_equal(nmis, 1, "an NMI comes");
    check_equal(mask_at_entry, 1, "events are masked in it");
    check_equal(shared->vcpu[0].mask, 0, "and not after it");
    set_gate(NMI, 0, 0);
    send_nmi();
    check_equal(nmis, 2, "another, by the trap table");
    check_equal(mask_at_entry, 0, "events are as the gate says");
    struct { word address, pad; } old = {gate_address(NMI), 0};
    check_equal(hypercall(NMI_OP, REGISTER, &old), 0, "the older form");
    send_nmi();
    check_equal(nmis, 3, "an NMI by it");
    check_equal(mask_at_entry, 1, "masks events, too");
    u16 type[2] = {CALLBACKTYPE_nmi, 0};
    check_equal(hypercall(CALLBACK_OP, UNREGISTER, type), 0, "dropped");
    send_nmi();
    check_equal(nmis, 3, "then none comes");
    set_gate(NMI, 0, 0);
    asm volatile("nop");
    check_equal(nmis, 3, "nor later: that one is lost");
    check_equal(hypercall(NMI_OP, UNREGISTER, 0), 0, "dropped in the older form");
    send_nmi();
    check_equal(nmis, 3, "none comes either");
}

static int breakpoints;

static int took_breakpoint(struct frame *frame)
{
    breakpoints += frame->vector == BP;
    return frame->vector == BP;
}

VARIATION(long_table, "a trap table of any length is taken whole")
{
    enum { COUNT = 3000 };
    static struct trap_info gates[COUNT + 1];
    for (int i = 0; i < COUNT; i++)
        gates[i] = (struct trap_info){0x90, 0, FLAT_KERNEL_CS, gate_address(0x90)};
    gates[COUNT - 1] = (struct trap_info){BP, 3 | GATE_MASKS, FLAT_KERNEL_CS & ~3, gate_address(BP)};
    on_trap = took_breakpoint;
    check_equal(hypercall(SET_TRAP_TABLE, gates), 0, "3000 gates");
    asm volatile("int3");
    check_equal(breakpoints, 1, "the last one is in place");
#if BITS == 64
    gates[COUNT - 1].address = NON_CANONICAL;
    check_equal(hypercall(SET_TRAP_TABLE, gates), -EINVAL, "the last one refused");
    gates[COUNT - 1].address = gate_address(BP);
#endif
    struct multicall_entry call = {SET_TRAP_TABLE, 99, {(word)gates}};
    check_equal(hypercall(MULTICALL, &call, 1), 0, "3000 gates in a multicall");
    check_equal(call.result, 0, "its result");
    asm volatile("int3");
    check_equal(breakpoints, 2, "the last one is in place still");
}

CRASHING_VARIATION(no_table, "Unhandled: vec 3", "no table at all clears every gate")
{
    on_trap = took_breakpoint;
    asm volatile("int3");
    check_equal(breakpoints, 1, "a breakpoint");
    check_equal(hypercall(SET_TRAP_TABLE, 0), 0, "no table");
    asm volatile("int3");
    check(0, "still here", "%d", breakpoints);
}

#if BITS == 64
static u16 gs(void)
{
    u16 selector;
    asm volatile("mov %%gs, %0" : "=r"(selector));
    return selector;
}

VARIATION(user_gs, "the user's GS selector gets its ring, and one that cannot be loaded becomes 0")
{
    check_equal(hypercall(SET_SEGMENT_BASE, GS_USER_SEL, FLAT_USER_SS & ~3), 0, "a selector of ring 0");
    check_equal(gs(), FLAT_USER_SS, "becomes one of ring 3");
    check_equal(hypercall(SET_SEGMENT_BASE, GS_USER_SEL, 0x1000), 0, "a selector of an empty entry");
    check_equal(gs(), 0, "becomes 0");
    check_equal(hypercall(SET_SEGMENT_BASE, GS_USER_SEL, 2), 0, "the null selector");
    check_equal(gs(), 2, "stays as it is");
}
#endif
