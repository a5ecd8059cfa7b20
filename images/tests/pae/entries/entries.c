/* entries: the ways into a 32-bit kernel that are no exceptions: syscall and the event callback, and the instructions
   that are none (x86_64/compat/entry.S, cstar_enter; pv/callback.c, compat_register_guest_callback). */
#include "kit.h"

USER __attribute__((naked)) static void user_syscall(void)
{
    asm("mov $0x5ff000, %esp\nsyscall\nud2");
}

USER __attribute__((naked)) static void user_sysenter(void)
{
    asm("sysenter\nud2");
}

static void kernel_syscall(word unused)
{
    (void)unused;
    asm volatile("syscall" : : : "ecx", "memory");
}

VARIATION(syscall32, "a syscall instruction of user code's")
{
    user(user_syscall, 0);
    check(fault.vector == GP && !fault.code, "without a callback", "trap %u, code %lx", fault.vector, fault.code);
    check_equal(fault.frame.rip, user_address(user_syscall) + 5, "at itself");
    MUST(set_callback(CALLBACKTYPE_syscall32, 0, (word)syscall32_callback));
    user(user_syscall, 0);
    check_equal(fault.vector, FROM_SYSCALL32, "the callback");
    check_equal(fault.frame.rip, user_address(user_syscall) + 7, "eip is behind it");
    check_equal(fault.cs, FLAT_USER_CS, "cs");
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss");
    check_equal(fault.frame.rsp, 0x5ff000, "esp");
    check_equal(fault.entry_mask, fault.saved_mask, "events are not masked by it");
    MUST(set_callback(CALLBACKTYPE_syscall32, 1, (word)syscall32_callback));
    shared->vcpu[0].mask = 0;
    user(user_syscall, 0);
    check_equal(fault.entry_mask, 1, "unless that was asked for");
}

VARIATION(by_the_kernel, "one of the kernel's own counts as user code's")
{
    MUST(set_callback(CALLBACKTYPE_syscall32, 0, (word)syscall32_callback));
    check(caught(kernel_syscall, 0), "the callback", "nothing");
    check_equal(fault.vector, FROM_SYSCALL32, "which");
    check_equal(fault.cs, FLAT_USER_CS, "cs says ring 3");
}

VARIATION(sysenter, "sysenter is undefined in long mode on an AMD processor")
{
    MUST(set_callback(CALLBACKTYPE_sysenter, 0, (word)sysenter_callback));
    user(user_sysenter, 0);
    check_equal(fault.vector, UD, "#UD");
}

VARIATION(selector, "a callback's selector gets the kernel's ring")
{
    struct callback_register callback = {CALLBACKTYPE_event, 0, FLAT_KERNEL_CS & ~3, (word)event_callback};
    MUST(hypercall(CALLBACK_OP, 0, &callback));
    bind_virq(0);
    unmask_events();
    set_timer(now());
    check(events > 0, "an event came", "none");
}

VARIATION(set_callbacks, "the old form has a selector with each address")
{
    MUST(hypercall(SET_CALLBACKS, FLAT_KERNEL_CS, event_callback, FLAT_KERNEL_CS, failsafe_callback));
    bind_virq(0);
    unmask_events();
    set_timer(now());
    check(events > 0, "an event came", "none");
}

CRASHING_VARIATION(null_event, "the guest has no event callback", "a callback in the null segment is none")
{
    struct callback_register callback = {CALLBACKTYPE_event, 0, 0, (word)event_callback};
    MUST(hypercall(CALLBACK_OP, 0, &callback));
    bind_virq(0);
    unmask_events();
    set_timer(now());
}

USER __attribute__((naked)) static void user_hypercall(void)
{
    asm("mov $17, %eax\nxor %ebx, %ebx\nint $0x82\nud2");
}

VARIATION(user_hypercall, "user code cannot make hypercalls: the gate is not for its ring")
{
    user(user_hypercall, 0);
    check_equal(fault.vector, GP, "#GP");
    check_equal(fault.code, 0x82 << 3 | 2, "it names the vector");
    check_equal(fault.frame.rip, user_address(user_hypercall) + 7, "at the instruction");
}

VARIATION(segment_base, "a hypercall of 64-bit guests only")
{
    check_equal(hypercall(SET_SEGMENT_BASE, 0, 0), -ENOSYS, "set_segment_base");
}
