/* event_channel_op: which ports, vCPUs and domains (xen/common/event_channel.c, event_fifo.c). */
#include "kit.h"

#define NO_PORT 1000000u /* past all that can be */

static sword port_op(word command, u32 port)
{
    return event_channel_op(command, &port);
}

static sword bind(u32 virq, u32 vcpu)
{
    struct { u32 virq, vcpu, port; } argument = {virq, vcpu, 0};
    return event_channel_op(EVTCHN_bind_virq, &argument);
}

static sword bind_vcpu(u32 port, u32 vcpu)
{
    u32 argument[2] = {port, vcpu};
    return event_channel_op(EVTCHN_bind_vcpu, argument);
}

static sword alloc_unbound(u16 domain, u32 *port)
{
    struct { u16 domain, remote; u32 port; } argument = {domain, 0, 0};
    sword result = event_channel_op(EVTCHN_alloc_unbound, &argument);
    *port = argument.port;
    return result;
}

static sword bind_interdomain(u16 domain, u32 port)
{
    struct { u16 domain; u32 remote, local; } argument = {domain, port, 0};
    return event_channel_op(EVTCHN_bind_interdomain, &argument);
}

static sword status(u16 domain, u32 port)
{
    struct { u16 domain; u32 port, status, vcpu; u64 rest; } argument = {domain, port, 99, 0, 0};
    sword result = event_channel_op(EVTCHN_status, &argument);
    return result ? result : (sword)argument.status;
}

VARIATION(ports, "ports that are free, or none")
{
    u32 unbound;
    watch(page());
    MUST(alloc_unbound(DOMID_SELF, &unbound));
    static const struct {
        word command;
        const char *names[2];
    } calls[] = {
        {EVTCHN_close, {"close a free port", "close no port"}},
        {EVTCHN_send, {"send to a free port", "send to no port"}},
    };
    for (unsigned i = 0; i < 2; i++) {
        REFUSED(calls[i].names[0], EINVAL, port_op(calls[i].command, unbound + 5));
        REFUSED(calls[i].names[1], EINVAL, port_op(calls[i].command, NO_PORT));
    }
    REFUSED("close port 0", EINVAL, port_op(EVTCHN_close, 0));
    REFUSED("send to port 0", EINVAL, port_op(EVTCHN_send, 0));
    REFUSED("unmask no port", EINVAL, port_op(EVTCHN_unmask, NO_PORT));
    REFUSED("unmask the last number", EINVAL, port_op(EVTCHN_unmask, ~0u));
    REFUSED("status of no port", EINVAL, status(DOMID_SELF, NO_PORT));
    check_equal(status(DOMID_SELF, 0), 0, "port 0 is closed");
    check_equal(status(DOMID_SELF, unbound), 1, "an unbound port is unbound");
    ALLOWED("send to an unbound port", port_op(EVTCHN_send, unbound));
    ALLOWED("close it", port_op(EVTCHN_close, unbound));
    REFUSED("close it again", EINVAL, port_op(EVTCHN_close, unbound));
    u32 again;
    MUST(alloc_unbound(DOMID_SELF, &again));
    check_equal(again, unbound, "it is the next one to be handed out");
}

VARIATION(virqs, "virtual interrupts are bound once, those of a vCPU to that vCPU")
{
    watch(page());
    REFUSED("VIRQ 24", EINVAL, bind(NR_VIRQS, 0));
    REFUSED("the last VIRQ", EINVAL, bind(~0u, 0));
    REFUSED("a global VIRQ on vCPU 1", EINVAL, bind(VIRQ_CONSOLE, 1));
    REFUSED("a timer for a vCPU that is not there", ENOENT, bind(VIRQ_TIMER, 1));
    REFUSED("a timer for the last vCPU", ENOENT, bind(VIRQ_TIMER, ~0u));
    u32 port = bind_virq(VIRQ_TIMER);
    REFUSED("the timer a second time", EEXIST, bind(VIRQ_TIMER, 0));
    REFUSED("a send to it", EINVAL, port_op(EVTCHN_send, port));
    REFUSED("its vCPU changed", EINVAL, bind_vcpu(port, 0));
    REFUSED("its vCPU changed to one that is not there", ENOENT, bind_vcpu(port, 1));
    check_equal(status(DOMID_SELF, port), 4, "its status");
    ALLOWED("closed", port_op(EVTCHN_close, port));
    check_equal(bind(VIRQ_TIMER, 0), 0, "bound again");
}

VARIATION(vcpus, "interrupts between vCPUs, and which vCPU is told")
{
    u32 unbound, ipi[2] = {0, 0};
    watch(page());
    MUST(alloc_unbound(DOMID_SELF, &unbound));
    MUST(event_channel_op(EVTCHN_bind_ipi, ipi));
    u32 nobody[2] = {1, 0}, last[2] = {~0u, 0};
    REFUSED("an IPI to a vCPU that is not there", ENOENT, event_channel_op(EVTCHN_bind_ipi, nobody));
    REFUSED("an IPI to the last vCPU", ENOENT, event_channel_op(EVTCHN_bind_ipi, last));
    REFUSED("an IPI's vCPU changed", EINVAL, bind_vcpu(ipi[1], 0));
    REFUSED("a free port's vCPU", EINVAL, bind_vcpu(ipi[1] + 5, 0));
    REFUSED("port 0's vCPU", EINVAL, bind_vcpu(0, 0));
    REFUSED("no port's vCPU", EINVAL, bind_vcpu(NO_PORT, 0));
    REFUSED("no port's vCPU changed to one that is not there", ENOENT, bind_vcpu(NO_PORT, 1));
    ALLOWED("an unbound port's vCPU", bind_vcpu(unbound, 0));
    check_equal(status(DOMID_SELF, ipi[1]), 5, "an IPI's status");
}

VARIATION(domains, "other domains' ports")
{
    u32 port;
    watch(page());
    REFUSED("a port of a domain that is not there", ESRCH, alloc_unbound(NO_DOMAIN, &port));
    REFUSED("a port of the invalid domain", ESRCH, alloc_unbound(DOMID_INVALID, &port));
    REFUSED("a port of another domain", EPERM, alloc_unbound(0, &port));
    REFUSED("bound to a domain that is not there", ESRCH, bind_interdomain(NO_DOMAIN, 1));
    REFUSED("bound to no port of another domain", EINVAL, bind_interdomain(0, NO_PORT));
    REFUSED("bound to its own port 0", EINVAL, bind_interdomain(DOMID_SELF, 0));
    REFUSED("bound to its own timer", EINVAL, bind_interdomain(DOMID_SELF, bind_virq(VIRQ_TIMER)));
    REFUSED("the status of a domain's that is not there", ESRCH, status(NO_DOMAIN, 0));
    REFUSED("the status of another's", EPERM, status(0, 0));
    REFUSED("the status of no port of another's", EINVAL, status(0, NO_PORT));
    u16 gone = NO_DOMAIN, other = 0;
    REFUSED("all ports of a domain that is not there closed", ESRCH, event_channel_op(EVTCHN_reset, &gone));
    REFUSED("all of another's closed", EPERM, event_channel_op(EVTCHN_reset, &other));
    u32 pirq[3] = {1, 0, 0}, past[3] = {1 << 20, 0, 0};
    REFUSED("a physical interrupt", EPERM, event_channel_op(EVTCHN_bind_pirq, pirq));
    REFUSED("one past all", EINVAL, event_channel_op(EVTCHN_bind_pirq, past));
}

VARIATION(fifo, "the FIFO's control block and array")
{
    struct { u64 gfn; u32 offset, vcpu; u8 bits; } control = {0};
    struct { u64 gfn; } array = {0};
    u32 priority[2] = {bind_virq(VIRQ_TIMER), 3}, past[2] = {NO_PORT, 3};
    void *good = page(), *typed = table();
    word nobody = freed_frame();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(typed), 0));
    watch(good);
    watch(typed);
    array.gfn = mfn_of(good);
    REFUSED("an array without a control block", EOPNOTSUPP, event_channel_op(EVTCHN_expand_array, &array));
    REFUSED("a priority without the FIFO", ENOSYS, event_channel_op(EVTCHN_set_priority, priority));
    REFUSED("a priority of no port", EINVAL, event_channel_op(EVTCHN_set_priority, past));
    control.gfn = mfn_of(good);
    control.vcpu = 1;
    REFUSED("the block of a vCPU that is not there", ENOENT, event_channel_op(EVTCHN_init_control, &control));
    control.vcpu = 0;
    control.offset = PAGE - 64;
    REFUSED("a block across its page's end", EINVAL, event_channel_op(EVTCHN_init_control, &control));
    control.offset = 4;
    REFUSED("a block that is not aligned", EINVAL, event_channel_op(EVTCHN_init_control, &control));
    control.offset = 0;
    static const char *const blocks[] = {"a block in no RAM", "a block in nobody's frame", "a block in a page table"};
    static const char *const arrays[] = {
        "an array in no RAM", "an array in nobody's frame", "an array in a page table",
    };
    word frames[] = {NO_RAM, nobody, mfn_of(typed)};
    for (unsigned i = 0; i < 3; i++) {
        control.gfn = frames[i];
        REFUSED(blocks[i], EINVAL, event_channel_op(EVTCHN_init_control, &control));
    }
    control.gfn = mfn_of(page());
    ALLOWED("a good block", event_channel_op(EVTCHN_init_control, &control));
    check_equal(control.bits, 17, "its link's bits");
    REFUSED("a block for the vCPU once more", EINVAL, event_channel_op(EVTCHN_init_control, &control));
    for (unsigned i = 0; i < 3; i++) {
        array.gfn = frames[i];
        REFUSED(arrays[i], EINVAL, event_channel_op(EVTCHN_expand_array, &array));
    }
    priority[1] = 16;
    REFUSED("priority 16", EINVAL, event_channel_op(EVTCHN_set_priority, priority));
    priority[0] += 5;
    REFUSED("a priority of a free port", EACCES, event_channel_op(EVTCHN_set_priority, priority));
}

VARIATION(commands, "commands and arguments")
{
    static const char *const names[][2] = {
        {"bind_interdomain, no argument", "bind_interdomain, an argument of Xen's"},
        {"bind_virq, no argument", "bind_virq, an argument of Xen's"},
        {"bind_pirq, no argument", "bind_pirq, an argument of Xen's"},
        {"close, no argument", "close, an argument of Xen's"},
        {"send, no argument", "send, an argument of Xen's"},
        {"status, no argument", "status, an argument of Xen's"},
        {"alloc_unbound, no argument", "alloc_unbound, an argument of Xen's"},
        {"bind_ipi, no argument", "bind_ipi, an argument of Xen's"},
        {"bind_vcpu, no argument", "bind_vcpu, an argument of Xen's"},
        {"unmask, no argument", "unmask, an argument of Xen's"},
        {"reset, no argument", "reset, an argument of Xen's"},
        {"init_control, no argument", "init_control, an argument of Xen's"},
        {"expand_array, no argument", "expand_array, an argument of Xen's"},
        {"set_priority, no argument", "set_priority, an argument of Xen's"},
        {"reset_cont, no argument", "reset_cont, an argument of Xen's"},
    };
    watch(page());
    for (unsigned command = 0; command < sizeof names / sizeof *names; command++) {
        REFUSED(names[command][0], EFAULT, event_channel_op(command, 0));
        REFUSED(names[command][1], EFAULT, event_channel_op(command, (void *)XENS));
    }
    u16 self = DOMID_SELF, other = 0, gone = NO_DOMAIN;
    REFUSED("a reset gone on with that was not interrupted", EBUSY, event_channel_op(EVTCHN_reset_cont, &self));
    REFUSED("another domain's", EPERM, event_channel_op(EVTCHN_reset_cont, &other));
    REFUSED("one's that is not there", ESRCH, event_channel_op(EVTCHN_reset_cont, &gone));
    REFUSED("command 15", ENOSYS, event_channel_op(15, 0));
    REFUSED("the last command", ENOSYS, event_channel_op(~0u, 0));
    u32 old[7] = {EVTCHN_close, NO_PORT};
    REFUSED("the old form, no port closed", EINVAL, hypercall(EVENT_CHANNEL_OP_COMPAT, old));
    REFUSED("the old form, no argument", EFAULT, hypercall(EVENT_CHANNEL_OP_COMPAT, 0));
    old[0] = 77;
    REFUSED("the old form, an unknown command", ENOSYS, hypercall(EVENT_CHANNEL_OP_COMPAT, old));
}
