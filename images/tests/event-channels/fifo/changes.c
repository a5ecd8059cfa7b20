/* changes: from the two-level ABI to the FIFO and back, ports that are closed, the array as it grows
   (xen/common/event_fifo.c, evtchn_fifo_init_control, add_page_to_event_array; event_channel.c, evtchn_reset). */
#include "fifo.h"

VARIATION(switched, "what was pending in the two-level ABI comes when the array reaches it, by number")
{
    u32 port[5];
    for (int i = 0; i < 5; i++)
        port[i] = ipi();
    hush();
    mask_port(port[3]);
    send_to(port[3]);
    send_to(port[1]);
    send_to(port[0]);
    control_block();
    check_equal(control->ready, 0, "nothing is ready before there is an array");
    send_to(port[4]);
    check_upcall(0, 0, "nor is what is raised meanwhile");
    check_equal(port_op(EVTCHN_unmask, port[1]), 0, "unmasked without a word");
    u32 none = port[4];
    u64 until = now() + 100000;
    MUST(poll_ports(&none, 1, until));
    check(now() >= until, "a poll does not find it", "it does");
    first_array();
    check_upcall(1, 0, "with the array there is an upcall");
    take_all();
    TAKEN("all of them come, the FIFO has masks of its own", port[0], port[1], port[3], port[4]);
    check(is_pending(port[0]) && is_masked(port[3]), "the old bits are left as they are", "they are not");
}

VARIATION(busy, "a port closed while it is linked is not handed out before it is taken out")
{
    u32 a = ipi(), b = ipi();
    fifo();
    send_to(a);
    send_to(b);
    MUST(port_op(EVTCHN_close, a));
    check_equal(event_word[a], LINKED | b, "it stays linked, and is not pending");
    check_equal(kind_of(a), CLOSED, "it is closed");
    check_equal(ipi(), b + 1, "another port is handed out");
    take_all();
    TAKEN("it is passed over", b);
    check_equal(ipi(), a, "then it is handed out");
    MUST(port_op(EVTCHN_close, a));
    event_word[a] = PENDING;
    ALLOWED("a free port unmasked", port_op(EVTCHN_unmask, a));
    check_equal(event_word[a], PENDING, "stays as it is");
    for (u32 i = 1; i <= LAST_PORT; i++)
        event_word[i] |= LINKED;
    u32 port;
    check_equal(bind_ipi(&port), -ENOSPC, "with all of them linked there is none");
}

VARIATION(reset, "a reset gives the pages back, and the two-level ABI is in use again")
{
    void *pages[2];
    for (int round = 0; round < 2; round++) {
        u32 port = ipi();
        if (round)
            MUST(reset_channels());
        fifo();
        pages[0] = (void *)control;
        pages[1] = (void *)event_word;
        if (!round)
            send_to(port);
        check_equal(reset_channels(), 0, round ? "again" : "a reset");
        check_single_reference(pages[0], round ? "the second block" : "the block is the guest's alone");
        check_single_reference(pages[1], round ? "the second array" : "so is the array");
    }
    check_equal(set_priority(1, 3), -ENOSYS, "there are no priorities");
    check_equal(expand_array(mfn_of(page())), -EOPNOTSUPP, "nor an array");
    on_trap = 0;
    u32 port = ipi();
    check_equal(port, 1, "the first port");
    clear_pending(port);
    hush();
    shared->mask[0] = 0;
    send_to(port);
    check(is_pending(port), "its bit is that of the two-level ABI", "it is not set");
    check_upcall(1, 1, "and its upcall");
}

VARIATION(twice, "what was raised without a word is raised again by each new array, as in Xen")
{
    control_block();
    u32 port = ipi();
    send_to(port);
    MUST(reset_channels());
    fifo();
    check_equal(event_word[port], PENDING | LINKED, "though the port is closed");
    take_all();
    check_equal(ipi(), 1, "it is nobody's");
}

VARIATION(array, "the array has 128 pages at most, one page as often as the guest likes")
{
    control_block();
    void *once = page();
    int right = 1;
    for (int i = 0; i < 128; i++)
        right &= !expand_array(mfn_of(once));
    check(right, "128 pages", "fewer");
    check_equal(expand_array(mfn_of(once)), -ENOSPC, "one more");
    check_equal(expand_array(NO_RAM), -ENOSPC, "no page needs to be there for that");
    MUST(read_only(once));
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(once), 0), -EINVAL, "it is no page table");
    MUST(writable(once));
    MUST(reset_channels());
    check_single_reference(once, "all is given back");
}

VARIATION(offsets, "a control block lies anywhere in its page, on 8 bytes, and not across its end")
{
    char *block = page();
    check_equal(init_control(mfn_of(block), PAGE - sizeof(struct control) + 8), -EINVAL, "across its end");
    check_equal(init_control(mfn_of(block), 12), -EINVAL, "on 4 bytes");
    check_equal(init_control(mfn_of(block), PAGE - sizeof(struct control)), 0, "at its end");
    check_equal(init_control(mfn_of(block), 0), -EINVAL, "there is one");
    first_array();
    control = (void *)(block + PAGE - sizeof(struct control));
    u32 port = ipi();
    send_to(port);
    check(control->head[USUAL] == port && control->ready == 1 << USUAL, "it is written to there", "ready %x",
          control->ready);
}
