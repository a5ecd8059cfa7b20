/* two-level: pending and mask bits, the selector, the upcall byte (xen/common/event_2l.c). */
#include "channels.h"

/* As many as stand in several words. */
enum { MANY = 100 };
static u32 many[MANY];

static void bind_many(void)
{
    for (int i = 0; i < MANY; i++)
        many[i] = ipi();
}

VARIATION(raise, "a port that becomes pending sets its word's selector bit, and that the upcall byte")
{
    bind_many();
    hush();
    u32 low = many[0], high = many[MANY - 1];
    send_to(low);
    check(is_pending(low), "the port is pending", "it is not");
    check_upcall(1, 1, "one in the first word");
    send_to(low);
    check_upcall(0, 0, "once more while it is pending");
    send_to(high);
    check_upcall(1, (word)1 << high / WORD_BITS, "one in another word");
    shared->vcpu[0].pending_sel = 2;
    clear_pending(low);
    send_to(low);
    check_upcall(1, 3, "the selector's other bits stay");
    clear_pending(low);
    shared->vcpu[0].pending_sel = 1;
    send_to(low);
    check_upcall(0, 1, "where the selector says so already, no upcall");
    check(is_pending(low), "though the port is pending", "it is not");
    check(!is_pending(many[1]), "no other port is pending", "%u is", many[1]);
}

VARIATION(masked, "a masked port becomes pending and nobody is told, until it is unmasked by a call")
{
    u32 port = ipi();
    hush();
    mask_port(port);
    send_to(port);
    check(is_pending(port), "it is pending", "it is not");
    check_upcall(0, 0, "there is no upcall");
    ALLOWED("unmasked", port_op(EVTCHN_unmask, port));
    check(!is_masked(port), "its mask is clear", "it is not");
    check_upcall(1, 1, "then there is one");
    ALLOWED("unmasked again", port_op(EVTCHN_unmask, port));
    check_upcall(0, 0, "what was not masked is not raised again");
    mask_port(port);
    clear_pending(port);
    ALLOWED("unmasked when nothing waits", port_op(EVTCHN_unmask, port));
    check(!is_masked(port), "its mask is clear again", "it is not");
    check_upcall(0, 0, "no upcall for nothing");
}

VARIATION(hundred, "a hundred ports pending at once are one upcall")
{
    bind_many();
    hush();
    events = 0;
    for (int i = MANY; i--;)
        send_to(many[i]);
    int all = 1;
    for (int i = 0; i < MANY; i++)
        all &= is_pending(many[i]);
    check(all, "all are pending", "not all");
    unmask_events();
    mask_events();
    check_equal(events, 1, "upcalls");
    int none = 1;
    for (int i = 0; i < MANY; i++)
        none &= !is_pending(many[i]);
    check(none, "all were found by the selector", "not all");
    send_to(many[50]);
    unmask_events();
    mask_events();
    check_equal(events, 2, "another upcall for what comes later");
}

VARIATION(poll, "a poll ends when a port is pending, masked or not, and looks at no other")
{
    u32 ports[3] = {ipi(), ipi(), bind_virq(VIRQ_TIMER)}, none[2] = {ports[0], 64};
    hush();
    mask_port(ports[0]);
    send_to(ports[0]);
    u64 start = now();
    ALLOWED("a port that is pending", poll_ports(ports, 1, 0));
    ALLOWED("the second of two", poll_ports((u32[]){ports[1], ports[0]}, 2, 0));
    check(now() - start < 100000, "both end at once", "%ld ns", (long)(now() - start));
    none[0] = ports[1];
    check_equal(poll_ports(none, 2, 0), -EINVAL, "one that is no port");
    none[0] = ports[0];
    ALLOWED("one that is no port, behind one that is pending", poll_ports(none, 2, 0));
    clear_pending(ports[0]);
    mask_port(ports[2]);
    start = now();
    set_timer(start + 500000);
    ALLOWED("until the timer", poll_ports(&ports[2], 1, start + 5000000));
    check(is_pending(ports[2]) && now() - start < 1000000, "a masked port ends it too", "%ld ns", (long)(now() - start));
    start = now();
    set_timer(start + 500000);
    clear_pending(ports[2]);
    ALLOWED("for another port", poll_ports(&ports[1], 1, start + 2000000));
    check(now() - start >= 2000000, "the timer's does not end that", "%ld ns", (long)(now() - start));
    u32 two[2] = {ports[1], ipi()};
    clear_pending(ports[2]);
    start = now();
    set_timer(start + 500000);
    ALLOWED("for one of two others", poll_ports(two, 2, start + 2000000));
    check(now() - start < 1000000, "the timer's ends that, as any port's would", "%ld ns", (long)(now() - start));
    start = now();
    set_timer(start + 500000);
    ALLOWED("for one of two others again", poll_ports(two, 2, start + 2000000));
    check(now() - start >= 2000000, "not when it was pending before", "%ld ns", (long)(now() - start));
}

VARIATION(closed, "closing takes the pending bit; what comes next to that port is new")
{
    hush();
    u32 port = ipi();
    send_to(port);
    MUST(port_op(EVTCHN_close, port));
    check(!is_pending(port), "not pending", "it is");
    forget_upcall();
    check_equal(port_op(EVTCHN_send, port), -EINVAL, "a send to it");
    check(!is_pending(port), "does not make it pending", "it does");
    check_upcall(0, 0, "nor is there an upcall");
    mask_port(port);
    check_equal(ipi(), port, "in use again");
    check_equal(is_masked(port), 1, "its mask is as the guest left it");
}

