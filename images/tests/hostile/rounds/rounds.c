/* A guest that means harm: rounds of calls, stores, instructions and user code, most of them half-valid.

   All comes from a seed, the second word of the command line; the third says how many rounds. The guest knows what it
   owns, and draws its arguments from that (pool.c), so that many calls go deep before they fail, and many succeed. It
   keeps away from what it lives on itself: whatever a round meets, the next one follows, until it has told what it did
   and ends in one of the ways that Xen has (last_act). A domain that ends before is a fault of the hypervisor's. */
#include "hostile.h"

struct totals totals;

static struct vcpu_info *moved; /* where Xen keeps it, when it is no longer in the shared page */

static int take(struct frame *frame)
{
    if (frame->vector == FROM_EVENT) {
        totals.events++;
        if (moved)
            moved->pending_sel = moved->pending = 0;
        return 0;
    }
    totals.traps++;
    if (frame->vector == DB)
        hypercall(SET_DEBUGREG, 7, 0);
    return frame->vector == NMI;
}

void round_of_roots(word round)
{
    mmuext(NEW_BASEPTR, root_clone, 0);
    for (unsigned i = 0; i < 8; i++)
        caught(round_of_calls, round);
    MUST(mmuext(NEW_BASEPTR, root_home, 0));
}

static void move_vcpu_info(void)
{
    struct { u64 frame; u32 offset, pad; } where = {info_mfn, below(PAGE / 64) * 64, 0};
    moved = (struct vcpu_info *)(info_page + where.offset);
    MUST(hypercall(VCPU_OP, 10, 0, &where));
}

static void tidy_up(word round)
{
    tidy();
    (void)round;
}

static void one_round(word round)
{
    static void (*const kinds[])(word) = {
        round_of_stores, round_of_stores,    round_of_stores, round_of_code,
        round_of_code,   round_of_user_code, round_of_irets,  round_of_descriptors,
    };
    caught(below(5) ? round_of_calls : PICK(kinds), round);
    if (one_in(500))
        round_of_roots(round);
    if (one_in(500))
        caught(round_of_long_lists, round);
}

static word number(const char *digits)
{
    word value = 0;
    while (*digits)
        value = value * 10 + *digits++ - '0';
    return value;
}

VARIATION(all, "whatever the seed says")
{
    word seed = number(word_of_command_line(1)), rounds = number(word_of_command_line(2));
    seed_chance(seed);
    make_pool();
    bind_virq(VIRQ_TIMER);
    on_trap = take;
    unmask_events();
    set_timer(now() + 1000);
    MUST(hypercall(SCHED_OP, SCHED_block));
    for (word round = 0; round < rounds; round++) {
        if (round % 256 == 0)
            caught(tidy_up, round);
        if (seed % 2 && round == rounds / 2)
            move_vcpu_info();
        one_round(round);
    }
    hypercall(SET_DEBUGREG, 7, 0);
    say("calls %lu refused %lu stores %lu pieces %lu excursions %lu irets %lu traps %lu events %lu\n", totals.calls,
        totals.refused, totals.stores, totals.pieces, totals.excursions, totals.irets, totals.traps, totals.events);
    last_act(seed);
}
