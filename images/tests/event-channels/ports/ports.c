/* ports: which are handed out, what they are bound to, and what becomes of the other end (xen/common/event_channel.c). */
#include "channels.h"

VARIATION(numbers, "the lowest free port is handed out, up to the domain's limit")
{
    check_equal(loose(0), FIRST_FREE_PORT, "the first");
    check_equal(ipi(), FIRST_FREE_PORT + 1, "the next, for another use");
    MUST(port_op(EVTCHN_close, FIRST_FREE_PORT));
    u32 port;
    MUST(try_bind_virq(VIRQ_DEBUG, &port));
    check_equal(port, FIRST_FREE_PORT, "one that was closed comes first");
    int in_order = 1;
    for (u32 i = FIRST_FREE_PORT + 2; i <= LAST_PORT; i++)
        in_order &= ipi() == i;
    check(in_order, "each after the other", "out of order");
    check_equal(bind_ipi(&port), -ENOSPC, "no more for an IPI");
    check_equal(alloc_unbound(0, &port), -ENOSPC, "nor to wait for another domain");
    check_equal(try_bind_virq(VIRQ_CONSOLE, &port), -ENOSPC, "nor for a VIRQ");
    check_equal(try_bind_virq(VIRQ_DEBUG, &port), -EEXIST, "a VIRQ that is bound is told first");
    check_equal(bind_interdomain(DOMID_SELF, 5, &port), -ENOSPC, "nor for a channel, be its other end as it may");
    check_equal(bind_interdomain(NO_DOMAIN, 5, &port), -ESRCH, "but for a domain that is not there");
    MUST(port_op(EVTCHN_close, 700));
    check_equal(ipi(), 700, "the one that was closed is the one there is");
    MUST(reset_channels());
    check_equal(ipi(), 1, "a reset closes all, the builder's as well");
    check_equal(kind_of(LAST_PORT), CLOSED, "records of ports are never given back");
}

VARIATION(records, "there are records of ports by the lot, in use or not; what has none is no port")
{
    check_equal(kind_of(0), CLOSED, "port 0");
    check_equal(kind_of(LOT - 1), CLOSED, "the last of the first lot");
    check_equal(kind_of(LOT), -EINVAL, "the one behind");
    check_equal(port_op(EVTCHN_unmask, 0), 0, "port 0 unmasked");
    check_equal(port_op(EVTCHN_unmask, LOT - 1), 0, "a free one unmasked");
    check_equal(port_op(EVTCHN_unmask, LOT), -EINVAL, "no port unmasked");
    for (u32 i = FIRST_FREE_PORT; i <= LOT; i++)
        ipi();
    check_equal(kind_of(LOT), IPI, "the second lot's first");
    check_equal(kind_of(2 * LOT - 1), CLOSED, "its last");
    check_equal(kind_of(2 * LOT), -EINVAL, "behind it");
    u32 port = 10;
    MUST(port_op(EVTCHN_close, port));
    set_pending(port);
    u64 until = now() + 1000000;
    hush();
    MUST(poll_ports(&port, 1, until));
    check(now() >= until, "a free port is never pending, whatever its bit says", "%ld ns early", (long)(until - now()));
    check_equal(is_pending(port), 1, "its bit is left alone");
    mask_port(port);
    MUST(port_op(EVTCHN_unmask, port));
    check_equal(is_masked(port), 1, "so is its mask");
}

VARIATION(loopback, "a channel within the domain: each end raises the other")
{
    hush();
    u32 near = loose(DOMID_SELF), far, third;
    check_equal(bind_interdomain(DOMID_SELF, near, &far), 0, "bound");
    check_equal(far, near + 1, "its other end is a port as any");
    check(is_pending(far) && !is_pending(near), "the end that binds is pending at once", "the wrong one");
    check_equal(kind_of(near), INTERDOMAIN, "the end that waited");
    struct port_status status;
    MUST(status_of(far, &status));
    check(status.status == INTERDOMAIN && status.u.interdomain.port == near, "the end that bound", "%u", status.status);
    check(status.u.interdomain.domain == 1, "of whose channel", "domain %u", status.u.interdomain.domain);
    check_equal(bind_interdomain(DOMID_SELF, near, &third), -EINVAL, "an end is bound once");
    clear_pending(far);
    forget_upcall();
    send_to(near);
    check(is_pending(far) && !is_pending(near), "a send to one raises the other", "it does not");
    send_to(far);
    check(is_pending(near), "and the other way round", "it does not");
    check_upcall(1, 1, "the upcall says so");
    MUST(port_op(EVTCHN_close, far));
    check_equal(is_pending(far), 0, "closing takes its pending bit");
    MUST(status_of(near, &status));
    check(status.status == UNBOUND && status.u.unbound == 1, "the other end waits again, for us", "domain %u",
          status.u.unbound);
    check_equal(port_op(EVTCHN_send, near), 0, "what is sent to it is lost");
    check_equal(port_op(EVTCHN_send, far), -EINVAL, "what is sent to the closed one is refused");
    check_equal(bind_interdomain(DOMID_SELF, near, &far), 0, "it can be bound again");
    MUST(port_op(EVTCHN_close, near));
    check_equal(kind_of(far), UNBOUND, "whichever end was closed");
    check_equal(bind_interdomain(DOMID_SELF, loose(0), &third), -EINVAL, "a port that waits for domain 0 is not for us");
    check_equal(bind_interdomain(DOMID_SELF, third, &third), -EINVAL, "nor one that is free");
}

VARIATION(back_end, "a back end's end waits when ours is closed, and can be bound again")
{
    struct port_status status;
    const u32 port = start_info->console_evtchn;
    u32 again;
    MUST(status_of(port, &status));
    check_equal(status.status, INTERDOMAIN, "the console's port");
    check_equal(status.u.interdomain.domain, 0, "its back end's domain");
    const u32 far = status.u.interdomain.port;
    check_equal(bind_interdomain(0, far, &again), -EINVAL, "bound as it is, it is not for us");
    check_equal(bind_interdomain(0, far + 20, &again), -EINVAL, "nor are ports that others have");
    MUST(port_op(EVTCHN_close, port));
    check_equal(port_op(EVTCHN_send, port), -EINVAL, "a closed one rings nobody");
    check_equal(bind_interdomain(0, far, &again), 0, "bound again");
    check_equal(again, port, "at the lowest free port");
    check(is_pending(again), "pending at once, as any", "it is not");
    clear_pending(again);
    check_equal(port_op(EVTCHN_send, again), 0, "it rings");
    hush();
    u64 until = now() + 1000000;
    while (!is_pending(again) && now() < until)
        poll_ports(&again, 1, until);
    check(is_pending(again), "and the back end answers", "it does not");
}

VARIATION(virqs, "VIRQs: one port each; who is told of a global one can be changed")
{
    struct port_status status;
    u32 global = bind_virq(VIRQ_CONSOLE), timer = bind_virq(VIRQ_TIMER), more;
    MUST(status_of(global, &status));
    check(status.status == VIRQ && status.u.virq == VIRQ_CONSOLE && !status.vcpu, "its status", "%u", status.u.virq);
    check_equal(bind_vcpu(global, 0), 0, "a global one's vCPU");
    check_equal(bind_vcpu(timer, 0), -EINVAL, "the timer's is its own");
    check_equal(try_bind_virq(VIRQ_CONSOLE, &more), -EEXIST, "a second port");
    MUST(port_op(EVTCHN_close, global));
    check_equal(try_bind_virq(VIRQ_CONSOLE, &more), 0, "a second port when the first is closed");
    hush();
    set_timer(now() + 100000);
    MUST(poll_ports(&timer, 1, now() + 10000000));
    check(is_pending(timer), "the timer's comes", "it does not");
    MUST(port_op(EVTCHN_close, timer));
    set_timer(now() + 100000);
    MUST(poll_ports(&more, 1, now() + 1000000));
    check(!is_pending(timer), "not when it is closed", "it does");
}

VARIATION(status, "what a status says, and leaves as it was")
{
    struct port_status status;
    MUST(status_of(loose(77), &status));
    check(status.status == UNBOUND && status.u.unbound == 77, "whom a port waits for", "%u", status.u.unbound);
    check(status.u.words[0] >> 16 == 0xffff && status.u.words[1] == ~0u, "nothing else is written", "%x",
          status.u.words[0]);
    MUST(status_of(loose(DOMID_SELF), &status));
    check_equal(status.u.unbound, 1, "waiting for ourselves is waiting for our number");
    MUST(status_of(ipi(), &status));
    check(status.status == IPI && !status.vcpu && status.u.words[0] == ~0u, "an IPI's", "%u", status.status);
    MUST(status_of(60, &status));
    check(status.status == CLOSED && !status.vcpu && status.u.words[0] == ~0u, "a free port's", "%u", status.status);
}

VARIATION(answers, "an answer that cannot be written is an error, and what was done stays")
{
    u32 *words = page();
    u32 next = loose(0) + 1;
    words[0] = DOMID_SELF;
    MUST(read_only(words));
    check_equal(event_channel_op(EVTCHN_alloc_unbound, words), -EFAULT, "a port to wait with");
    check_equal(kind_of(next), UNBOUND, "it is there");
    check_equal(event_channel_op(EVTCHN_status, words), -EFAULT, "a status");
    MUST(writable(words));
    words[0] = words[1] = 0;
    MUST(read_only(words));
    check_equal(event_channel_op(EVTCHN_bind_ipi, words), -EFAULT, "an IPI");
    check_equal(kind_of(next + 1), IPI, "so is that");
    check_equal(event_channel_op(EVTCHN_bind_virq, words), -EFAULT, "a VIRQ");
    check_equal(event_channel_op(EVTCHN_bind_virq, words), -EEXIST, "it is bound");
}
