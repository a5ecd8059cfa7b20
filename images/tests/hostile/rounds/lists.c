/* Long lists. */
#include "hostile.h"

/* Lists that are longer than Xen does in one go, in the window: it does them in parts. */
void round_of_long_lists(word round)
{
    static const struct {
        word number, command, words[8];
    } lists[] = {
        {MMU_UPDATE, 0, {0, 0}},
        {MMUEXT_OP, 0, {6, 6, 6, 6, 6, 6, 6, 6}}, /* TLB_FLUSH_LOCAL */
        {MULTICALL, 0, {XEN_VERSION, 0, 0, 0, 0, 0, 0, 0}},
        {GRANT_TABLE_OP, 1, {0}},
        {GRANT_TABLE_OP, 5, {0}},
        {GRANT_TABLE_OP, 12, {0}},
    };
    word which = below(sizeof lists / sizeof *lists), count = 1000 + below(9000), number = lists[which].number;
    memcpy(window_page, lists[which].words, sizeof lists[which].words);
    if (number == MMU_UPDATE) {
        word mfn = pool_mfn[below(POOL)];
        struct mmu_update *updates = (struct mmu_update *)window_page;
        for (unsigned i = 0; i < 8 * sizeof(word) / sizeof *updates; i++)
            updates[i] = (struct mmu_update){frame_address(mfn) | MACHPHYS_UPDATE, any()};
    }
    for (unsigned i = 8; i < PAGE / sizeof(word); i++)
        window_page[i] = window_page[i - 8];
    struct multicall_entry inside = {.op = number, .args = {window, count, 0, DOMID_SELF}};
    if (number == GRANT_TABLE_OP)
        inside.args[0] = lists[which].command, inside.args[1] = window, inside.args[2] = count;
    totals.calls++;
    if (number != MULTICALL && below(2))
        hypercall(MULTICALL, &inside, 1);
    else
        hypercall(number, inside.args[0], inside.args[1], inside.args[2], inside.args[3]);
    (void)round;
}
