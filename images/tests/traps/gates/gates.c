/* gates: which ways into the kernel mask events.

   Of the trap table's entries those with flag 4 do, of callbacks those registered so, of events every one; the mask
   that was is in the frame (pv/traps.c, pv/callback.c). */
#include "kit.h"

static u8 *mask;
static struct frame seen;
static u8 seen_mask;
static unsigned watched;

static int look(struct frame *frame)
{
    if (frame->vector != watched)
        return 0;
    seen = *frame;
    seen_mask = shared->vcpu[0].mask;
    return frame->vector != FROM_EVENT;
}

static void set_up(unsigned vector)
{
    mask = &shared->vcpu[0].mask;
    watched = vector;
    on_trap = look;
}

static void trap_with(unsigned flags, u8 masked)
{
    set_gate(BP, flags, 0);
    seen_mask = 0x55;
    *mask = masked;
    asm volatile("int3" : : : "memory");
}

VARIATION(traps, "a gate of the trap table masks events if it says so")
{
    set_up(BP);
    trap_with(0, 0);
    check_equal(seen_mask, 0, "a trap gate leaves them");
    check_equal(saved_mask_of(&seen), 0, "the mask saved");
    check_equal(*mask, 0, "after iret");
    trap_with(GATE_MASKS, 0);
    check_equal(seen_mask, 1, "an interrupt gate masks them");
    check_equal(saved_mask_of(&seen), 0, "the mask saved then");
    check_equal(*mask, 0, "after iret then");
    trap_with(0, 1);
    check_equal(seen_mask, 1, "masked before, a trap gate");
    check_equal(saved_mask_of(&seen), 1, "the mask saved so");
    check_equal(*mask, 1, "after iret so");
    trap_with(GATE_MASKS, 1);
    check_equal(saved_mask_of(&seen), 1, "masked before, an interrupt gate");
    trap_with(GATE_MASKS | 3, 0);
    check_equal(seen_mask, 1, "whatever its DPL");
    trap_with(0xf8, 0);
    check_equal(seen_mask, 0, "other flags are nothing");
}

VARIATION(page_faults, "the same for page faults")
{
    set_gate(PF, GATE_MASKS, 0);
    mask = &shared->vcpu[0].mask;
    for (u8 before = 0; before < 2; before++) {
        *mask = before;
        TRY("mov (%0), %%" AX, : : "r"(TEST_AREA(1)) : "rax");
        check(fault.entry_mask == 1 && fault.saved_mask == before, before ? "masked before" : "not masked before",
              "the mask is %x, and was %x", fault.entry_mask, fault.saved_mask);
    }
    set_gate(PF, 0, 0);
    *mask = 0;
    TRY("mov (%0), %%" AX, : : "r"(TEST_AREA(1)) : "rax");
    check_equal(fault.entry_mask, 0, "a trap gate");
    *mask = 1;
}

static void call_from_user(const char *name, u8 wanted)
{
    *mask = 0;
    user(user_return, 0);
    check_equal(fault.entry_mask, wanted, name);
    *mask = 1;
}

#if BITS == 64
VARIATION(system_calls, "system calls as their callback says")
{
    mask = &shared->vcpu[0].mask;
    call_from_user("not masked", 0);
    MUST(set_callback(CALLBACKTYPE_syscall, CALLBACKF_mask_events, (word)syscall_callback));
    call_from_user("masked", 1);
    MUST(set_callback(CALLBACKTYPE_syscall, 2, (word)syscall_callback));
    call_from_user("another flag is nothing", 0);
    MUST(set_callback(CALLBACKTYPE_syscall, CALLBACKF_mask_events, (word)syscall_callback));
    MUST(hypercall(SET_CALLBACKS, event_callback, failsafe_callback, syscall_callback));
    call_from_user("set_callbacks registers one that does not", 0);
}
#else
VARIATION(system_calls, "system calls, by an interrupt, as its gate says")
{
    mask = &shared->vcpu[0].mask;
    set_gate(SYSTEM_CALL, 3, 0);
    call_from_user("not masked", 0);
    set_gate(SYSTEM_CALL, 3 | GATE_MASKS, 0);
    call_from_user("masked", 1);
}
#endif

VARIATION(events, "events always do")
{
    set_up(FROM_EVENT);
    MUST(set_callback(CALLBACKTYPE_event, 0, (word)event_callback));
    *mask = 1;
    shared->vcpu[0].pending = 1;
    seen_mask = 0x55;
    unmask_events();
    check_equal(seen_mask, 1, "the mask");
    check_equal(saved_mask_of(&seen), 0, "the mask saved");
    check_equal(*mask, 0, "after iret");
}

VARIATION(masked, "a masked event waits, and any hypercall after brings it")
{
    set_up(FROM_EVENT);
    *mask = 1;
    shared->vcpu[0].pending = 1;
    hypercall(XEN_VERSION, 0);
    check_equal(events, 0, "masked");
    *mask = 4;
    hypercall(XEN_VERSION, 0);
    check_equal(events, 0, "masked by another bit");
    *mask = 0;
    check_equal(events, 0, "nothing looks at the store itself");
    hypercall(XEN_VERSION, 0);
    check_equal(events, 1, "with the next hypercall");
    check_equal(shared->vcpu[0].pending, 0, "which the handler cleared");
    shared->vcpu[0].pending = 0x80;
    TRY("ud2", :);
    check_equal(events, 2, "or on the way into a trap's handler, or back");
}
