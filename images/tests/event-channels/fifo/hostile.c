/* hostile: what the guest does to its own words harms nobody but itself; the pages stay writable data
   (xen/common/event_fifo.c). */
#include "fifo.h"

VARIATION(loops, "links that lead in a circle, to themselves, to no port: Xen follows none")
{
    u32 port[4];
    for (int i = 0; i < 4; i++)
        port[i] = ipi();
    fifo();
    send_to(port[0]);
    send_to(port[1]);
    event_word[port[1]] |= port[0];
    send_to(port[2]);
    check_equal(event_word[port[1]], PENDING | LINKED | port[2], "the tail's link is replaced");
    event_word[port[2]] |= port[2];
    send_to(port[3]);
    check_equal(event_word[port[2]], PENDING | LINKED | port[3], "also one to itself");
    event_word[port[0]] = PENDING | LINKED | LINK;
    control->head[USUAL] = LINK;
    for (int i = 0; i < 4; i++)
        send_to(port[i]);
    check_equal(control->head[USUAL], LINK, "a head that is none is left");
    for (u32 i = 1; i < WORDS; i++)
        event_word[i] = ~0u;
    for (int i = 0; i < 4; i++)
        send_to(port[i]);
    check_equal(event_word[port[3]], -1u, "all bits set: nothing to do");
    MUST(port_op(EVTCHN_unmask, port[3]));
    check_equal(event_word[port[3]], ~(u32)MASKED, "unmasked, that bit goes");
    MUST(port_op(EVTCHN_close, port[3]));
    check_equal(event_word[port[3]], ~(u32)(MASKED | PENDING), "closed, the other one");
}

VARIATION(flips, "LINKED taken away and set under Xen's eyes: events are lost, or come twice, and nothing else")
{
    u32 a = ipi(), b = ipi();
    fifo();
    event_word[a] = LINKED;
    send_to(a);
    check_equal(event_word[a], PENDING | LINKED, "linked by the guest, it is on no queue");
    check_equal(control->ready, 0, "and nobody is told");
    event_word[a] = 0;
    send_to(a);
    event_word[a] = 0;
    send_to(a);
    check_equal(event_word[a], PENDING | LINKED, "taken out and raised again, it leads nowhere");
    check_equal(control->head[USUAL], a, "it is the head");
    event_word[a] &= ~(u32)PENDING;
    send_to(b);
    control->head[USUAL] = 0;
    control->ready = 0;
    event_word[b] = 0;
    send_to(b);
    check_equal(event_word[a], LINKED | b, "a tail that was dropped by the guest leads where it led");
    check_equal(control->head[USUAL], b, "and the port is the head");
    control->ready = ~0u;
    forget_upcall();
    event_word[b] = 0;
    send_to(b);
    check_upcall(0, 0, "where the ready word says so already, no upcall");
}

VARIATION(busy_forever, "a BUSY that the guest sets and never clears holds nothing up")
{
    u32 a = ipi(), b = ipi();
    fifo();
    event_word[a] = event_word[b] = BUSY;
    send_to(a);
    check_equal(event_word[a], PENDING | LINKED | BUSY, "the first one's");
    send_to(b);
    check_equal(event_word[a], PENDING | LINKED | b, "goes when it leads to the next");
    check_equal(event_word[b], PENDING | LINKED | BUSY, "the next one's stays");
    MUST(port_op(EVTCHN_unmask, b));
    MUST(port_op(EVTCHN_close, b));
    check_equal(event_word[b], LINKED | BUSY, "through all that may come");
}

VARIATION(frames, "the block and the array are no page tables, nor are they anybody's but the guest's")
{
    u32 port = ipi();
    fifo();
    void *pages[] = {(void *)control, (void *)event_word};
    static const char *const names[][2] = {
        {"the block as a page table", "the block as a descriptor table"},
        {"the array as a page table", "the array as a descriptor table"},
    };
    for (int i = 0; i < 2; i++) {
        word frame = mfn_of(pages[i]);
        memset(pages[i], 0, PAGE);
        MUST(read_only(pages[i]));
        check_equal(mmuext(PIN_L1_TABLE, frame, 0), -EINVAL, names[i][0]);
        check(hypercall(SET_GDT, &frame, 512) < 0, names[i][1], "it is");
        MUST(writable(pages[i]));
    }
    send_to(port);
    check(event_word[port] == (PENDING | LINKED) && control->head[USUAL] == port, "Xen writes to them yet", "not so");
}

VARIATION(given_back, "pages that the guest gives back stay Xen's to write to, and are handed to nobody, until a reset")
{
    u32 port = ipi();
    fifo();
    word frames[2] = {mfn_of((void *)control), mfn_of((void *)event_word)};
    word pfns[2] = {pfn_of((void *)control), pfn_of((void *)event_word)};
    MUST(unmap((void *)control));
    MUST(unmap((void *)event_word));
    struct memory_reservation list = {.extent_start = frames, .nr_extents = 2, .domid = DOMID_SELF};
    check_equal(memory_op(XENMEM_decrease_reservation, &list), 2, "given back");
    send_to(port);
    MUST(port_op(EVTCHN_unmask, port));
    word new[2] = {pfns[0], pfns[1]};
    list.extent_start = new;
    sword got = memory_op(XENMEM_populate_physmap, &list);
    for (sword i = 0; i < got; i++)
        check(new[i] != frames[0] && new[i] != frames[1], i ? "the second new page" : "a new page", "it is the block's");
    MUST(reset_channels());
    check_equal(got, 0, "nothing is free before the reset");
    new[0] = pfns[0], new[1] = pfns[1];
    check_equal(memory_op(XENMEM_populate_physmap, &list), 2, "then both are");
}

VARIATION(one_page, "one page for the block, the array, and what Xen shares with the guest")
{
    u32 port = ipi();
    word frame = start_info->shared_info / PAGE;
    check_equal(init_control(frame, PAGE - sizeof(struct control)), 0, "a block in the shared page");
    check_equal(expand_array(frame), 0, "the array there too");
    mask_events();
    memset((char *)shared + 64, 0, PAGE - 64);
    event_word = (u32 *)shared;
    control = (void *)((char *)shared + PAGE - sizeof(struct control));
    int all = 1;
    for (int i = 0; i < 1000; i++)
        all &= !port_op(EVTCHN_send, port) & !port_op(EVTCHN_unmask, port);
    check(all, "raised there, over and over", "it is not");
    check_equal(reset_channels(), 0, "a reset");
    check_equal(init_control(frame, 0), 0, "a block where vcpu_info is");
    check_equal(expand_array(frame), 0, "and the array");
    MUST(bind_ipi(&port));
    send_to(port);
    check(event_word[port] & PENDING, "raised there", "it is not");
    check_equal(reset_channels(), 0, "another reset");
    memset((void *)shared, 0, PAGE);
    mask_events();
}
