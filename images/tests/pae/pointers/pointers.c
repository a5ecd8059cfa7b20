/* pointers: a 32-bit guest's pointer into the M2P is followed as any other (asm-x86/x86_64/uaccess.h): access_ok knows
   64-bit addresses only, so that what is mapped there is read, and, being mapped read-only, not written. Lists that
   Xen translates are the exception: compat_handle_okay has them end where Xen's part begins. */
#include "kit.h"

static volatile const word *at; /* an entry of the M2P that is ours to set */

/* Has the M2P say `value` there, and forgets what it said before: the frame is of no use otherwise. */
static word *entry_with(u32 value)
{
    static word mfn;
    if (!mfn)
        mfn = mfn_of(page());
    struct mmu_update request = {(u64)mfn << 12 | MACHPHYS_UPDATE, value};
    MUST(mmu_update(&request, 1, DOMID_SELF));
    at = &M2P[mfn];
    return (word *)at;
}

static sword version(void *answer)
{
    return hypercall(XEN_VERSION, 6, answer);
}

VARIATION(read, "what a call reads may be there")
{
    word *entry = entry_with(DOMID_SELF);
    check_equal(*entry, DOMID_SELF, "the entry");
    check_equal(memory_op(XENMEM_current_reservation, entry), start_info->nr_pages, "a domain's number");
    check_equal(memory_op(XENMEM_current_reservation, (u8 *)entry + 1), -ESRCH, "not aligned");
    u32 port = bind_virq(VIRQ_DEBUG);
    check_equal(hypercall(EVENT_CHANNEL_OP, EVTCHN_unmask, entry_with(port)), 0, "a port");
    check_equal(hypercall(EVENT_CHANNEL_OP, EVTCHN_close, entry_with(port)), 0, "the port again");
    check_equal(hypercall(EVENT_CHANNEL_OP, EVTCHN_close, entry), -EINVAL, "and it is closed");
}

VARIATION(listed, "so may a list that is used where it stands")
{
    struct { const word *ports; u32 count; u64 timeout; } poll = {entry_with(9999), 1, 1};
    check_equal(hypercall(SCHED_OP, SCHED_poll, &poll), -EINVAL, "a port to poll that there is not");
    entry_with(start_info->console_evtchn);
    check_equal(hypercall(SCHED_OP, SCHED_poll, &poll), 0, "one that there is");
    check_equal(hypercall(MULTICALL, entry_with(XEN_VERSION), 1), -EFAULT, "a call's result cannot go there");
}

VARIATION(written, "nothing is written there")
{
    word *entry = entry_with(0);
    check_equal(version(entry), -EFAULT, "an answer");
    check_equal(*entry, 0, "the entry is as it was");
    check_equal(hypercall(EVENT_CHANNEL_OP, EVTCHN_bind_ipi, entry), -EFAULT, "a port's number");
    check_equal(*entry, 0, "the entry still");
    check_equal(memory_op(XENMEM_machphys_mapping, entry), -EFAULT, "a structure");
}

VARIATION(translated, "not even read is a list that Xen translates")
{
    word free = spare_pfn();
    struct memory_reservation list = {.nr_extents = 1, .domid = DOMID_SELF};
    list.extent_start = entry_with(mfn_of_pfn(free));
    check_equal(memory_op(XENMEM_decrease_reservation, &list), 0, "no extent of a reservation");
    check_equal(M2P[mfn_of_pfn(free)], free, "the frame is still ours");
    struct memory_exchange exchange = {list, list, 0};
    exchange.out.extent_start = &free;
    check_equal(memory_op(XENMEM_exchange, &exchange), -EFAULT, "an exchange");
    word *area = entry_with(0);
    check_equal(hypercall(VCPU_OP, 5, 0, &area), -EFAULT, "the place of the runstate");
    check_equal(hypercall(VCPU_OP, 13, 0, &area), -EFAULT, "the place of the time");
}

VARIATION(beyond, "nothing is behind it, nor behind the last address")
{
    check_equal(memory_op(XENMEM_current_reservation, (void *)BEHIND_M2P), -EFAULT, "behind it");
    check_equal(memory_op(XENMEM_current_reservation, (void *)(HOLE - 1)), -EFAULT, "half before it");
    check_equal(memory_op(XENMEM_current_reservation, (void *)~0ul), -EFAULT, "the last byte");
    check_equal(hypercall(SET_GDT, (void *)~3ul, 1024), -EFAULT, "a list over the end");
}

VARIATION(tables, "the M2P is mapped by no table that the guest could name, and holds no LDT")
{
    check_equal(map(HOLE, 0), -EINVAL, "its entry");
    MUST(mmuext(SET_LDT, HOLE, 8));
    check(TRY("mov %0, %%fs", : : "r"(7) : "memory"), "a selector of it cannot be loaded", "it was");
    check_equal(fault.vector, PF, "its page is missing");
    check_equal(fault.cr2, HOLE, "CR2");
}
