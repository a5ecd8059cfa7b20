/* Entries of a level 1 table written by mmu_update, a list of them a call: mapped, unmapped, and mapped again. */
#include "kit.h"

#define A_CALL 500 /* a call */
#define CALLS 2000  /* a million in all */

static struct mmu_update requests[A_CALL];

static void load(unsigned calls)
{
    const word first = TEST_AREA(1);
    make_path(first);
    const u64 data = frame_address(mfn_of(page())) | DATA;
    for (unsigned call = 0; call < calls; call++) {
        for (unsigned i = 0; i < A_CALL; i++)
            requests[i] = (struct mmu_update){entry_address(first, 1) + 8 * i, call % 2 ? 0 : data};
        MUST(mmu_update(requests, A_CALL, DOMID_SELF));
    }
    check(1, "all were written", " ");
}

VARIATION(million, "a million entries") { load(CALLS); }
VARIATION(none, "what comes before and behind") { load(0); }
