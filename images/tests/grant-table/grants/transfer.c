/* A page is given away to whoever said by a grant that it takes one; given away it is, whether it is taken or not. */
#include "grant.h"

static sword transfer(word mfn, u16 domid, u32 ref)
{
    struct transfer list = {.mfn = mfn, .domid = domid, .ref = ref, .status = 99};
    MUST(grant_op(TRANSFER, &list, 1));
    return list.status;
}

static sword size(void)
{
    u16 self = DOMID_SELF;
    return memory_op(XENMEM_current_reservation, &self);
}

VARIATION(transfer, "to oneself: the frame comes back under the number that the entry asked for")
{
    use_table();
    word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
    sword before = size();
    grant(8, 0x123, ACCEPT_TRANSFER);
    check_equal(transfer(mfn, OWN, 8), OKAY, "taken");
    check_equal(grants[8].flags, ACCEPT_TRANSFER | TRANSFER_COMMITTED | TRANSFER_COMPLETED, "the entry says so");
    check_equal(grants[8].frame, mfn, "and which frame it is");
    check_equal(M2P[mfn], 0x123, "its number is the one asked for");
    check_equal(size(), before, "the domain has as many pages");
    struct mmu_update number = {frame_address(mfn) | MACHPHYS_UPDATE, pfn};
    check_equal(mmu_update(&number, 1, DOMID_SELF), 0, "it is the domain's");
    check_equal(transfer(mfn, OWN, 8), GENERAL_ERROR, "an entry takes one page");
    check_equal(size(), before - 1, "the page is gone");
    check_equal(mmu_update(&number, 1, DOMID_SELF), -EINVAL, "it is no more the domain's");
    set_mfn(pfn, ~0ul);
}

VARIATION(transfer_version_2, "the same with entries of version 2")
{
    use_table();
    use_version(2);
    word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
    grant(8, pfn, ACCEPT_TRANSFER);
    check_equal(transfer(mfn, OWN, 8), OKAY, "taken");
    check_equal(grants_v2[8].flags, ACCEPT_TRANSFER | TRANSFER_COMMITTED | TRANSFER_COMPLETED, "the entry says so");
    check_equal(grants_v2[8].frame, mfn, "and which frame it is");
    check_equal(M2P[mfn], pfn, "its number is the one asked for");
    u32 one = 1;
    check_equal(grant_op(SET_VERSION, &one, 1), -EBUSY, "a mapped status frame holds version 2");
}

VARIATION(transfer_kept, "a page that is in use stays")
{
    use_table();
    void *mapped_page = page();
    watch(mapped_page);
    grant(8, 0, ACCEPT_TRANSFER);
    NO_CHANGE("a mapped page", BAD_PAGE, transfer(mfn_of(mapped_page), OWN, 8));
    NO_CHANGE("a page table", BAD_PAGE, transfer(root_mfn(), OWN, 8));
    NO_CHANGE("a page of Xen's own", BAD_PAGE, transfer(start_info->shared_info / PAGE, OWN, 8));
    NO_CHANGE("a frame that is not there", BAD_PAGE, transfer(NO_RAM, OWN, 8));
    NO_CHANGE("no frame at all", BAD_PAGE, transfer(~0ul, OWN, 8));
    word nobody = freed_frame();
    NO_CHANGE("a frame of nobody's", BAD_PAGE, transfer(nobody, OWN, 8));
    check_equal(grants[8].flags, ACCEPT_TRANSFER, "the entry waits");
    check_single_reference(mapped_page, "nothing holds the page");
}

VARIATION(transfer_lost, "a page that is not taken is lost")
{
    use_table();
    sword before = size();
    unsigned lost = 0;
    grant(8, 0, ACCEPT_TRANSFER);
    grant(9, 0, PERMIT_ACCESS);
    static const struct {
        u16 domid;
        u32 ref;
        short status;
        const char *name;
    } refused[] = {
        {NOBODY, 8, BAD_DOMAIN, "to nobody"},
        {DOMID_SELF, 8, BAD_DOMAIN, "to DOMID_SELF"},
        {OWN, 512, GENERAL_ERROR, "beyond the table"},
        {OWN, 9, GENERAL_ERROR, "to an entry that grants access"},
        {OWN, 10, GENERAL_ERROR, "to an empty entry"},
    };
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        word pfn = spare_pfn(), mfn = mfn_of_pfn(pfn);
        check_equal(transfer(mfn, refused[i].domid, refused[i].ref), refused[i].status, refused[i].name);
        before--;
        lost += size() == before && M2P[mfn] != pfn;
        set_mfn(pfn, ~0ul);
    }
    check_equal(lost, sizeof refused / sizeof *refused, "each time the page is gone");
    check_equal(grants[8].flags, ACCEPT_TRANSFER, "the entry waits");
    grants[8].domid = NOBODY;
    word pfn = spare_pfn();
    check_equal(transfer(mfn_of_pfn(pfn), OWN, 8), GENERAL_ERROR, "from a domain that was not asked");
    check_equal(size(), before - 1, "that one is gone as well");
    set_mfn(pfn, ~0ul);
}
