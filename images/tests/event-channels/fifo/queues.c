/* queues: what a raise does to the event words, the heads, the ready word and the upcall byte
   (xen/common/event_fifo.c, evtchn_fifo_set_pending). */
#include "fifo.h"

#define WORD(port, value, name) check_equal(event_word[port], value, name)

VARIATION(raise, "a port is pending and linked; the first of a queue is its head, the others follow their tail")
{
    u32 a = ipi(), b = ipi(), c = ipi();
    fifo();
    send_to(b);
    WORD(b, PENDING | LINKED, "the first one's word");
    check_equal(control->head[USUAL], b, "the queue's head");
    check_equal(control->ready, 1 << USUAL, "the ready word");
    check_upcall(1, 0, "an upcall, and no selector");
    check_equal(is_pending(b), 0, "no bit of the two-level ABI");
    send_to(a);
    WORD(b, PENDING | LINKED | a, "the first leads to the second");
    WORD(a, PENDING | LINKED, "the second one's word");
    check_equal(control->head[USUAL], b, "the head stays");
    check_upcall(0, 0, "no upcall for the second");
    send_to(b);
    WORD(b, PENDING | LINKED | a, "raised again, nothing changes");
    send_to(c);
    WORD(a, PENDING | LINKED | c, "a third");
    take_all();
    TAKEN("they come in the order in which they were raised", b, a, c);
    WORD(a, 0, "nothing is left in a word");
    send_to(c);
    check_equal(control->head[USUAL], c, "the next is a head again, though it was the tail");
    WORD(c, PENDING | LINKED, "and leads nowhere");
    check_upcall(1, 0, "with an upcall");
    take_all();
    TAKEN("it comes", c);
}

VARIATION(drained, "what comes after the guest has taken the tail out is a head, whatever the tail's word says")
{
    u32 a = ipi(), b = ipi();
    fifo();
    send_to(a);
    event_word[a] = 0;
    control->ready = 0;
    forget_upcall();
    send_to(b);
    WORD(a, 0, "the old tail is left alone");
    check_equal(control->head[USUAL], b, "the new one is the head");
    check_upcall(1, 0, "with an upcall");
    event_word[b] = PENDING | MASKED | LINKED | BUSY | 99;
    send_to(a);
    WORD(b, PENDING | MASKED | LINKED | a, "a tail's BUSY and link are replaced, its other bits stay");
    check_equal(control->head[USUAL], b, "the head stays");
}

VARIATION(priorities, "a queue for each priority; the ready word has a bit for each, the highest is the lowest number")
{
    static const u32 wanted[] = {12, 0, 7, 15, 3, 0, 12};
    u32 port[7], by[PRIORITIES] = {0};
    for (int i = 0; i < 7; i++)
        port[i] = ipi();
    fifo();
    u32 ready = 0;
    for (int i = 0; i < 7; i++) {
        check_equal(set_priority(port[i], wanted[i]), 0, (const char *[]){"12", "0", "7", "15", "3", "0 too", "12 too"}[i]);
        send_to(port[i]);
        ready |= 1 << wanted[i];
        if (!by[wanted[i]])
            by[wanted[i]] = port[i];
    }
    check_equal(control->ready, ready, "the ready word");
    int heads = 1;
    for (int i = 0; i < PRIORITIES; i++)
        heads &= control->head[i] == by[i];
    check(heads, "the heads", "other ports");
    deliver();
    TAKEN("by priority, and in order within one", port[1], port[5], port[4], port[2], port[0], port[6], port[3]);
    check_equal(events, 1, "upcalls");
    check_equal(set_priority(port[0], PRIORITIES), -EINVAL, "a priority too far");
    check_equal(set_priority(port[6] + 1, 3), -EACCES, "a free port's");
    check_equal(set_priority(LOT, 3), -EINVAL, "no port's");
    MUST(port_op(EVTCHN_close, port[1]));
    check_equal(ipi(), port[1], "a port closed and handed out again");
    send_to(port[1]);
    check_equal(control->ready, 1 << USUAL, "has the usual priority");
}

VARIATION(moved, "a new priority counts from the next raise on; its old queue forgets the port")
{
    u32 a = ipi(), b = ipi(), c = ipi();
    fifo();
    send_to(a);
    MUST(set_priority(a, 2));
    send_to(a);
    check_equal(control->ready, 1 << USUAL, "while it is linked it stays where it is");
    send_to(b);
    WORD(a, PENDING | LINKED | b, "and is its queue's tail yet");
    take_all();
    TAKEN("in the old order", a, b);
    MUST(set_priority(b, 2));
    send_to(b);
    check_equal(control->ready, 1 << 2, "the next time it is on the new queue");
    send_to(c);
    check_equal(control->head[USUAL], c, "the old queue, whose tail it was, begins anew");
    WORD(b, PENDING | LINKED, "and is not led to from the new one");
    send_to(a);
    WORD(b, PENDING | LINKED | a, "the other that was moved follows there");
    take_all();
    TAKEN("the higher priority first", b, a, c);
}

VARIATION(masked, "a masked port is pending and not linked, until a call unmasks it")
{
    u32 a = ipi(), b = ipi();
    fifo();
    event_word[a] = MASKED;
    send_to(a);
    WORD(a, PENDING | MASKED, "its word");
    check_equal(control->ready, 0, "nothing is ready");
    check_upcall(0, 0, "there is no upcall");
    ALLOWED("unmasked", port_op(EVTCHN_unmask, a));
    WORD(a, PENDING | LINKED, "then it is linked");
    check_upcall(1, 0, "and there is one");
    ALLOWED("unmasked again", port_op(EVTCHN_unmask, a));
    WORD(a, PENDING | LINKED, "nothing changes");
    check_upcall(0, 0, "nor is there another");
    event_word[a] |= MASKED;
    send_to(b);
    take_all();
    TAKEN("one masked while linked is passed over", b);
    WORD(a, PENDING | MASKED, "and stays pending");
    ALLOWED("unmasked once more", port_op(EVTCHN_unmask, a));
    take_all();
    TAKEN("it comes at last", a);
    event_word[a] = MASKED;
    ALLOWED("unmasked when nothing waits", port_op(EVTCHN_unmask, a));
    WORD(a, 0, "its word is clear");
    event_word[a] = PENDING;
    ALLOWED("unmasked where the guest forgot to", port_op(EVTCHN_unmask, a));
    WORD(a, PENDING | LINKED, "what is pending is linked all the same");
}

VARIATION(hundred, "a hundred ports pending at once are one upcall, and come in order")
{
    u32 ports[100];
    for (int i = 0; i < 100; i++)
        ports[i] = ipi();
    fifo();
    for (int i = 99; i >= 0; i--)
        send_to(ports[i]);
    for (int i = 0; i < 50; i++) {
        u32 other = ports[i];
        ports[i] = ports[99 - i];
        ports[99 - i] = other;
    }
    deliver();
    check_equal(events, 1, "upcalls");
    check_taken("all, in order", ports, 100);
    deliver();
    check_equal(events, 1, "and no more");
}

VARIATION(others, "a channel's ends, a timer and a poll in the FIFO ABI")
{
    u32 near = loose(DOMID_SELF), far, timer = bind_virq(VIRQ_TIMER);
    fifo();
    check_equal(bind_interdomain(DOMID_SELF, near, &far), 0, "a channel");
    take_all();
    TAKEN("the end that binds is raised", far);
    send_to(far);
    send_to(near);
    deliver();
    TAKEN("each end raises the other", near, far);
    MUST(port_op(EVTCHN_close, far));
    check_equal(port_op(EVTCHN_send, near), 0, "a send to nobody");
    check_equal(port_op(EVTCHN_send, far), -EINVAL, "a send to a closed one");
    check_equal(control->ready, 0, "nothing comes of either");
    set_timer(now() + 100000);
    u64 until = now() + 10000000;
    ALLOWED("a poll for the timer", poll_ports(&timer, 1, until));
    check(now() < until && event_word[timer] == (PENDING | LINKED), "ends with it", "word %x", event_word[timer]);
    ALLOWED("another", poll_ports(&timer, 1, until));
    check(now() < until, "ends at once", "it does not");
    deliver();
    TAKEN("the timer's comes", timer);
    event_word[timer] = MASKED;
    set_timer(now() + 100000);
    ALLOWED("a poll for a masked port", poll_ports(&timer, 1, until));
    check(now() < until && event_word[timer] == (PENDING | MASKED), "ends too", "word %x", event_word[timer]);
    u32 two[2] = {near, ipi()};
    set_timer(now() + 100000);
    until = now() + 1000000;
    ALLOWED("a poll for two others", poll_ports(two, 2, until));
    check(now() >= until, "is not ended by a port that was pending before", "it is");
    event_word[timer] = MASKED;
    set_timer(now() + 100000);
    until = now() + 1000000;
    ALLOWED("a poll for two others again", poll_ports(two, 2, until));
    check(now() < until, "is ended by one that becomes pending", "it is not");
    set_timer(0);
    u32 answered = start_info->console_evtchn;
    event_word[answered] = 0;
    until = now() + 1000000;
    while (!(event_word[answered] & PENDING) && now() < until)
        poll_ports(&answered, 1, until);
    check(event_word[answered] == (PENDING | LINKED), "the console's answers come", "word %x", event_word[answered]);
}
