/* Where Xen may call the guest: canonical addresses, and only what it calls (pv/callback.c). */
#include "kit.h"

enum { REGISTER = 0, UNREGISTER = 1 };

static sword callback_op(word command, const void *argument)
{
    return hypercall(CALLBACK_OP, command, argument);
}

static sword unregister(u16 type)
{
    u16 argument[2] = {type, 0};
    return callback_op(UNREGISTER, argument);
}

/* An event still reaches the kit's own callback. */
static void check_events(const char *name)
{
    static u32 port;
    if (!port)
        port = bind_virq(VIRQ_DEBUG);
    word before = events;
    __atomic_or_fetch(&shared->pending[0], (word)1 << port, __ATOMIC_SEQ_CST);
    shared->vcpu[0].pending_sel = 1;
    shared->vcpu[0].pending = 1;
    unmask_events();
    mask_events();
    check(events == before + 1, name, "%lu events", events - before);
}

#if BITS == 64
VARIATION(callback_op, "callbacks registered and dropped")
{
    watch(page());
    static const struct {
        unsigned type;
        const char *names[2];
    } types[] = {
        {CALLBACKTYPE_event, {"event at an address that is none", "event dropped"}},
        {CALLBACKTYPE_failsafe, {"failsafe at an address that is none", "failsafe dropped"}},
        {CALLBACKTYPE_syscall, {"syscall at an address that is none", "syscall dropped"}},
        {CALLBACKTYPE_sysenter, {"sysenter at an address that is none", "sysenter dropped"}},
        {CALLBACKTYPE_syscall32, {"syscall32 at an address that is none", "syscall32 dropped"}},
    };
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
        REFUSED(types[i].names[0], EINVAL, set_callback(types[i].type, 0, NON_CANONICAL));
        REFUSED(types[i].names[1], EINVAL, unregister(types[i].type));
    }
    REFUSED("NMI at an address that is none", EINVAL, set_callback(CALLBACKTYPE_nmi, 0, NON_CANONICAL));
    ALLOWED("NMI dropped", unregister(CALLBACKTYPE_nmi));
    REFUSED("the old sysenter", ENOSYS, set_callback(CALLBACKTYPE_sysenter_deprecated, 0, (word)event_callback));
    REFUSED("the old sysenter dropped", ENOSYS, unregister(CALLBACKTYPE_sysenter_deprecated));
    REFUSED("type 6", ENOSYS, set_callback(6, 0, (word)event_callback));
    REFUSED("type 8", ENOSYS, set_callback(8, 0, (word)event_callback));
    REFUSED("the last type", ENOSYS, set_callback(0xffff, 0, (word)event_callback));
    REFUSED("an unknown type at an address that is none", EINVAL, set_callback(8, 0, NON_CANONICAL));
    REFUSED("an unknown type dropped", ENOSYS, unregister(8));
    REFUSED("an unknown command", ENOSYS, callback_op(2, 0));
    REFUSED("no argument", EFAULT, callback_op(REGISTER, 0));
    REFUSED("nothing to drop", EFAULT, callback_op(UNREGISTER, 0));
    REFUSED("an argument of Xen's", EFAULT, callback_op(REGISTER, (void *)XENS));
    ALLOWED("an address of Xen's, which only faults", set_callback(CALLBACKTYPE_syscall, 0, HOLE));
    MUST(set_callback(CALLBACKTYPE_syscall, 0, (word)syscall_callback));
    check_events("the event callback is what it was");
}

VARIATION(set_callbacks, "the old form has no errors; an address that is none is passed over")
{
    ALLOWED("three that are none", hypercall(SET_CALLBACKS, NON_CANONICAL, NON_CANONICAL, NON_CANONICAL));
    check_events("the event callback is what it was");
    check_equal(user(user_return, 5), 5, "the system call's too");
    ALLOWED("one that is none among good ones",
            hypercall(SET_CALLBACKS, event_callback, NON_CANONICAL, syscall_callback));
}
#else
/* A 32-bit guest's entry points have a selector, too, and any address will do; `syscall` is none of them. */
VARIATION(callback_op, "callbacks registered and dropped")
{
    watch(page());
    static const struct {
        unsigned type;
        const char *names[2];
    } types[] = {
        {CALLBACKTYPE_event, {"event", "event dropped"}},
        {CALLBACKTYPE_failsafe, {"failsafe", "failsafe dropped"}},
        {CALLBACKTYPE_sysenter, {"sysenter", "sysenter dropped"}},
        {CALLBACKTYPE_syscall32, {"syscall32", "syscall32 dropped"}},
    };
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
        ALLOWED(types[i].names[0], set_callback(types[i].type, 0, (word)event_callback));
        REFUSED(types[i].names[1], EINVAL, unregister(types[i].type));
    }
    ALLOWED("the NMI", set_callback(CALLBACKTYPE_nmi, 0, gate_address(NMI)));
    ALLOWED("NMI dropped", unregister(CALLBACKTYPE_nmi));
    REFUSED("syscall", ENOSYS, set_callback(CALLBACKTYPE_syscall, 0, (word)event_callback));
    REFUSED("syscall dropped", ENOSYS, unregister(CALLBACKTYPE_syscall));
    REFUSED("the old sysenter", ENOSYS, set_callback(CALLBACKTYPE_sysenter_deprecated, 0, (word)event_callback));
    REFUSED("the old sysenter dropped", ENOSYS, unregister(CALLBACKTYPE_sysenter_deprecated));
    REFUSED("type 6", ENOSYS, set_callback(6, 0, (word)event_callback));
    REFUSED("type 8", ENOSYS, set_callback(8, 0, (word)event_callback));
    REFUSED("the last type", ENOSYS, set_callback(0xffff, 0, (word)event_callback));
    REFUSED("an unknown type dropped", ENOSYS, unregister(8));
    REFUSED("an unknown command", EINVAL, callback_op(2, 0));
    REFUSED("no argument", EFAULT, callback_op(REGISTER, 0));
    REFUSED("nothing to drop", EFAULT, callback_op(UNREGISTER, 0));
    REFUSED("an argument of Xen's", EFAULT, callback_op(REGISTER, (void *)XENS));
    struct callback_register ring0 = {CALLBACKTYPE_event, 0, FLAT_KERNEL_CS & ~3, (word)event_callback};
    ALLOWED("a selector of ring 0", callback_op(REGISTER, &ring0));
    check_events("becomes one of ring 1");
}

VARIATION(set_callbacks, "the old form has no errors")
{
    ALLOWED("two entry points", hypercall(SET_CALLBACKS, FLAT_KERNEL_CS, event_callback, FLAT_KERNEL_CS, 0));
    check_events("the event callback is in place");
    ALLOWED("with selectors of ring 0", hypercall(SET_CALLBACKS, FLAT_KERNEL_CS & ~3, event_callback,
                                                  FLAT_KERNEL_CS & ~3, failsafe_callback));
    check_events("the event callback is in place as well");
}
#endif

VARIATION(set_trap_table, "a list of gates ends at the first that is refused")
{
    static struct trap_info gates[3] = {
        {UD, 0, FLAT_KERNEL_CS, 0},
#if BITS == 64
        {GP, 0, FLAT_KERNEL_CS, NON_CANONICAL},
#endif
    };
    struct trap_info *at = page();
    void *behind = page();
    watch(page());
    gates[0].address = gate_address(BP);
#if BITS == 64
    REFUSED("an address that is none", EINVAL, hypercall(SET_TRAP_TABLE, gates));
    TRY("ud2", : : : );
    check(fault.vector == BP, "those before it are set", "#UD went to the gate of %u", fault.vector);
    take_all_traps();
#endif
    REFUSED("a list of Xen's", EFAULT, hypercall(SET_TRAP_TABLE, XENS));
    at = (void *)((word)at + PAGE - sizeof *at);
    *at = gates[0];
    MUST(unmap(behind));
    REFUSED("a list without an end", EFAULT, hypercall(SET_TRAP_TABLE, at));
    TRY("ud2", : : : );
    check(fault.vector == BP, "what was there of it is set", "#UD went to the gate of %u", fault.vector);
    take_all_traps();
    MUST(writable(behind));
}

VARIATION(nmi_op, "the NMI's old form")
{
    word handler[2] = {gate_address(NMI), 0};
    watch(page());
#if BITS == 64
    handler[0] = NON_CANONICAL;
    REFUSED("an address that is none", EINVAL, hypercall(NMI_OP, 0, handler));
#endif
    REFUSED("no argument", EFAULT, hypercall(NMI_OP, 0, 0));
    REFUSED("an unknown command", ENOSYS, hypercall(NMI_OP, 2, handler));
    ALLOWED("dropped", hypercall(NMI_OP, 1, 0));
}

#if BITS == 64
VARIATION(segment_bases, "set_segment_base takes canonical addresses")
{
    watch(page());
    REFUSED("FS", EINVAL, hypercall(SET_SEGMENT_BASE, 0, NON_CANONICAL));
    REFUSED("the user's GS", EINVAL, hypercall(SET_SEGMENT_BASE, 1, NON_CANONICAL));
    REFUSED("the kernel's GS", EINVAL, hypercall(SET_SEGMENT_BASE, 2, NON_CANONICAL));
    REFUSED("an unknown one", EINVAL, hypercall(SET_SEGMENT_BASE, 4, 0));
    ALLOWED("FS in Xen's area, where it only faults", hypercall(SET_SEGMENT_BASE, 0, HOLE));
    ALLOWED("FS at 0", hypercall(SET_SEGMENT_BASE, 0, 0));
}
#else
VARIATION(segment_bases, "set_segment_base is for 64-bit guests")
{
    watch(page());
    REFUSED("FS", ENOSYS, hypercall(SET_SEGMENT_BASE, 0, 0));
    REFUSED("an unknown one", ENOSYS, hypercall(SET_SEGMENT_BASE, 4, 0));
}
#endif
