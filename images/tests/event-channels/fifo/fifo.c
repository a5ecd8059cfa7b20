/* The guest's side of the FIFO ABI (xen/include/public/event_channel.h), in the fewest lines. */
#include "fifo.h"

volatile struct control *control;
volatile u32 *event_word;
u32 taken[MOST_TAKEN], n_taken;

static u32 next[PRIORITIES]; /* where each queue goes on; 0: its head is in the control block */

sword init_control(word mfn, u32 offset)
{
    struct { u64 frame; u32 offset, vcpu; u8 bits, pad[7]; } argument = {mfn, offset, 0, 0, {0}};
    return event_channel_op(EVTCHN_init_control, &argument);
}

sword expand_array(word mfn)
{
    u64 frame = mfn;
    return event_channel_op(EVTCHN_expand_array, &frame);
}

sword set_priority(u32 port, u32 priority)
{
    u32 argument[2] = {port, priority};
    return event_channel_op(EVTCHN_set_priority, argument);
}

static void take_one(unsigned priority, u32 *ready)
{
    u32 port = next[priority] ? next[priority] : control->head[priority];
    u32 word = __atomic_fetch_and(&event_word[port], ~(u32)(LINKED | LINK), __ATOMIC_SEQ_CST);
    next[priority] = word & LINK;
    if (!next[priority])
        *ready &= ~(1u << priority);
    if (!(word & PENDING) || word & MASKED)
        return;
    __atomic_fetch_and(&event_word[port], ~(u32)PENDING, __ATOMIC_SEQ_CST);
    if (n_taken < MOST_TAKEN)
        taken[n_taken++] = port;
}

void take_all(void)
{
    shared->vcpu[0].pending = 0;
    u32 ready = __atomic_exchange_n(&control->ready, 0, __ATOMIC_SEQ_CST);
    while (ready) {
        take_one(__builtin_ctz(ready), &ready);
        ready |= __atomic_exchange_n(&control->ready, 0, __ATOMIC_SEQ_CST);
    }
}

static int at_upcall(struct frame *frame)
{
    if (frame->vector != FROM_EVENT)
        return 0;
    events++;
    take_all();
    return 1;
}

void deliver(void)
{
    unmask_events();
    mask_events();
}

void control_block(void)
{
    control = page();
    memset(next, 0, sizeof next);
    MUST(init_control(mfn_of((void *)control), 0));
    on_trap = at_upcall;
    hush();
}

void first_array(void)
{
    event_word = page();
    event_word[start_info->console_evtchn] = event_word[start_info->store_evtchn] = MASKED;
    MUST(expand_array(mfn_of((void *)event_word)));
}

void fifo(void)
{
    control_block();
    first_array();
}

void check_taken(const char *name, const u32 *ports, u32 count)
{
    u32 right = 0;
    while (right < count && right < n_taken && taken[right] == ports[right])
        right++;
    check(right == count && n_taken == count, name, "%u ports instead of %u; from place %u on port %u instead of %u",
          n_taken, count, right, right < n_taken ? taken[right] : 0, right < count ? ports[right] : 0);
    n_taken = 0;
}
