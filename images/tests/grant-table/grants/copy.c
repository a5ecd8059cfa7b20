/* Bytes are copied between pages of the domain's own and pages that were granted, within what was granted. */
#include "grant.h"

static u8 *from, *to;

static void set_up(void)
{
    use_table();
    from = page();
    to = page();
    for (int i = 0; i < (int)PAGE; i++)
        from[i] = i * 7;
    watch(from);
    watch(to);
}

static struct copy_end own(const void *page, u16 offset)
{
    return (struct copy_end){.gmfn = mfn_of(page), .domid = DOMID_SELF, .offset = offset};
}

static struct copy_end granted(u32 ref, u16 offset)
{
    return (struct copy_end){.ref = ref, .domid = OWN, .offset = offset};
}

static sword copy(struct copy_end source, struct copy_end dest, u16 len, u16 flags)
{
    struct grant_copy list = {.source = source, .dest = dest, .len = len, .flags = flags, .status = 99};
    MUST(grant_op(COPY, &list, 1));
    return list.status;
}

VARIATION(copy_all, "between frames and grants, either way")
{
    set_up();
    grant(8, mfn_of(from), PERMIT_ACCESS | READONLY);
    grant(9, mfn_of(to), PERMIT_ACCESS);
    check_equal(copy(own(from, 0), own(to, 0), PAGE, 0), OKAY, "a whole page, frame to frame");
    check_equal(memcmp(from, to, PAGE), 0, "it is there");
    memset(to, 0, PAGE);
    check_equal(copy(granted(8, 16), own(to, 32), 100, SOURCE_GREF), OKAY, "from a grant");
    check_equal(memcmp(from + 16, to + 32, 100), 0, "those bytes");
    check(!to[31] && !to[132], "and no more", "%u %u", to[31], to[132]);
    check_equal(copy(own(from, 4000), granted(9, 0), 96, DEST_GREF), OKAY, "to a grant");
    check_equal(memcmp(from + 4000, to, 96), 0, "those bytes, too");
    struct copy_end self = granted(8, 0);
    self.domid = DOMID_SELF;
    check_equal(copy(self, granted(9, 8), 8, SOURCE_GREF | DEST_GREF), OKAY, "from grant to grant, of DOMID_SELF");
    check_equal(memcmp(from, to + 8, 8), 0, "eight bytes");
    check_equal(copy(own(from, 5), own(to, 5), 0, 0), OKAY, "nothing");
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY, "the source's entry is as it was");
    check_equal(grants[9].flags, PERMIT_ACCESS, "the destination's entry is as it was");
    check_single_reference(from, "nothing holds the source");
    check_single_reference(to, "nothing holds the destination");
}

VARIATION(copy_overlap, "a copy within one page")
{
    set_up();
    check_equal(copy(own(from, 0), own(from, 2048), 2048, 0), OKAY, "half of it to the other half");
    check_equal(memcmp(from, from + 2048, 2048), 0, "they are the same");
    check_single_reference(from, "nothing holds it");
}

VARIATION(copy_refused, "whose pages, which entries, how many bytes")
{
    set_up();
    grant(8, mfn_of(from), PERMIT_ACCESS | READONLY);
    grant(9, mfn_of(to), PERMIT_ACCESS);
    struct copy_end other = own(from, 0);
    other.domid = OWN;
    NO_CHANGE("a frame by the domain's own number", PERMISSION_DENIED, copy(other, own(to, 0), 8, 0));
    NO_CHANGE("to such a frame", PERMISSION_DENIED, copy(own(from, 0), other, 8, 0));
    other.domid = NOBODY;
    NO_CHANGE("a frame of another domain", PERMISSION_DENIED, copy(other, own(to, 0), 8, 0));
    NO_CHANGE("a grant of nobody's", BAD_DOMAIN, copy(other, own(to, 0), 8, SOURCE_GREF));
    NO_CHANGE("to a grant of nobody's", BAD_DOMAIN, copy(own(from, 0), other, 8, DEST_GREF));
    NO_CHANGE("beyond the table", BAD_GNTREF, copy(granted(512, 0), own(to, 0), 8, SOURCE_GREF));
    NO_CHANGE("to beyond the table", BAD_GNTREF, copy(own(from, 0), granted(~0u, 0), 8, DEST_GREF));
    NO_CHANGE("an entry that grants nothing", GENERAL_ERROR, copy(granted(10, 0), own(to, 0), 8, SOURCE_GREF));
    NO_CHANGE("to a read-only grant", GENERAL_ERROR, copy(own(from, 0), granted(8, 0), 8, DEST_GREF));
    struct copy_end nowhere = {.gmfn = NO_RAM, .domid = DOMID_SELF}, freed = {.gmfn = freed_frame(), .domid = DOMID_SELF};
    NO_CHANGE("a frame that is not there", BAD_PAGE, copy(nowhere, own(to, 0), 8, 0));
    NO_CHANGE("to a frame that is not there", BAD_PAGE, copy(own(from, 0), nowhere, 8, 0));
    NO_CHANGE("a frame of nobody's", BAD_PAGE, copy(freed, own(to, 0), 8, 0));
    struct copy_end root = {.gmfn = root_mfn(), .domid = DOMID_SELF};
    NO_CHANGE("to a page table", GENERAL_ERROR, copy(own(from, 0), root, 8, 0));
    grant(10, root_mfn(), PERMIT_ACCESS);
    NO_CHANGE("to a page table by grant", GENERAL_ERROR, copy(own(from, 0), granted(10, 0), 8, DEST_GREF));
    NO_CHANGE("past the source's page", BAD_COPY_ARG, copy(own(from, 4090), own(to, 0), 7, 0));
    NO_CHANGE("past the destination's page", BAD_COPY_ARG, copy(own(from, 0), granted(9, 4095), 2, DEST_GREF));
    NO_CHANGE("more than a page", BAD_COPY_ARG, copy(own(from, 0), own(to, 0), 4097, 0));
    NO_CHANGE("most bytes", BAD_COPY_ARG, copy(own(from, 65535), own(to, 65535), 65535, 0));
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY, "the source's entry is as it was");
    check_equal(grants[9].flags, PERMIT_ACCESS, "the destination's entry is as it was");
    check_equal(grants[10].flags, PERMIT_ACCESS, "the table's entry is as it was");
    check_equal(copy(root, own(to, 0), 4096, 0), OKAY, "a page table can be read");
    check_single_reference(from, "nothing holds the source");
    check_single_reference(to, "nothing holds the destination");
}

VARIATION(copy_part, "a grant of a part of a page, in version 2, is for that part")
{
    set_up();
    use_version(2);
    grant(8, mfn_of(from), PERMIT_ACCESS | SUB_PAGE);
    grants_v2[8].start = 100;
    grants_v2[8].length = 50;
    check_equal(copy(granted(8, 100), own(to, 0), 50, SOURCE_GREF), OKAY, "all of the part");
    check_equal(memcmp(from + 100, to, 50), 0, "it is there");
    NO_CHANGE("a byte before", GENERAL_ERROR, copy(granted(8, 99), own(to, 0), 50, SOURCE_GREF));
    NO_CHANGE("a byte behind", GENERAL_ERROR, copy(granted(8, 101), own(to, 0), 50, SOURCE_GREF));
    NO_CHANGE("past the page as well", BAD_COPY_ARG, copy(granted(8, 4095), own(to, 0), 50, SOURCE_GREF));
    NO_CHANGE("mapped", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    check_equal(statuses[8], 0, "its status word is 0");
    grant(9, mfn_of(from), TRANSITIVE);
    grants_v2[9].start = OWN; /* transitive: a domain here, a reference in place of the frame */
    NO_CHANGE("passed on to oneself", GENERAL_ERROR, copy(granted(9, 0), own(to, 0), 8, SOURCE_GREF));
    grants_v2[9].start = NOBODY;
    NO_CHANGE("passed on of nobody's", GENERAL_ERROR, copy(granted(9, 0), own(to, 0), 8, SOURCE_GREF));
    NO_CHANGE("passed on, mapped", GENERAL_ERROR, map_at(WINDOW, 9, HOST_MAP));
    check_equal(statuses[9], 0, "its status word is 0, too");
    check_single_reference(from, "nothing holds the source");
}

VARIATION(copy_list, "a list of copies, each with its own answer")
{
    set_up();
    struct grant_copy list[3] = {
        {.source = own(from, 0), .dest = own(to, 0), .len = 8, .status = 99},
        {.source = own(from, 0), .dest = own(to, 0), .len = 4097, .status = 99},
        {.source = own(from, 8), .dest = own(to, 8), .len = 8, .status = 99},
    };
    check_equal(grant_op(COPY, list, 3), 0, "the call is good");
    check_equal(list[0].status, OKAY, "the first");
    check_equal(list[1].status, BAD_COPY_ARG, "the second");
    check_equal(list[2].status, OKAY, "the third");
    check_equal(memcmp(from, to, 16), 0, "two of them are there");
    check_equal(grant_op(COPY, 0, 1), -EFAULT, "a list at 0");
#if BITS == 64
    check_equal(grant_op(COPY, (void *)NON_CANONICAL, 1), -EFAULT, "a list where no list can be");
#endif
}
