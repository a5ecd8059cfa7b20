/* The table itself: how large it is, where its frames are, and entries that change places. */
#include "grant.h"

static sword set_up(u16 dom, u32 frames, void *list)
{
    struct setup_table setup = {.dom = dom, .nr_frames = frames, .frame_list = (word)list, .status = 99};
    sword rc = grant_op(SETUP_TABLE, &setup, 1);
    return rc ? rc : setup.status;
}

static struct query_size query(u16 dom)
{
    struct query_size size = {.dom = dom, .nr_frames = 77, .max_nr_frames = 88, .status = 99};
    MUST(grant_op(QUERY_SIZE, &size, 1));
    return size;
}

VARIATION(table, "it grows when more is asked for, up to its most")
{
    static word frames[64];
    check_equal(query(DOMID_SELF).nr_frames, 1, "one frame to begin with");
    check_equal(query(OWN).max_nr_frames, 64, "64 at most");
    check_equal(query(NOBODY).status, BAD_DOMAIN, "the size of nobody's table");
    check_equal(query(NOBODY).nr_frames, 77, "the refusal leaves the number");
    check_equal(query(BACK_ENDS).status, PERMISSION_DENIED, "the size of domain 0's table");
    check_equal(set_up(DOMID_SELF, 0, 0), OKAY, "no frames");
    check_equal(set_up(DOMID_SELF, 3, frames), OKAY, "three frames");
    check(frames[0] && frames[1] && frames[2] && !frames[3], "their numbers", "%lx %lx", frames[0], frames[3]);
    check_equal(query(DOMID_SELF).nr_frames, 3, "there are three now");
    word first = frames[0];
    check_equal(set_up(OWN, 1, frames), OKAY, "one frame");
    check_equal(frames[0], first, "the same as before");
    check_equal(query(DOMID_SELF).nr_frames, 3, "there are still three");
    check_equal(set_up(DOMID_SELF, 65, frames), GENERAL_ERROR, "65 frames");
    check_equal(query(DOMID_SELF).nr_frames, 3, "there are three as before");
    check_equal(set_up(DOMID_SELF, 64, frames), OKAY, "all 64");
    int wrong = 0;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < i; j++)
            wrong += frames[i] == frames[j];
    check_equal(wrong, 0, "64 frames");
    use_table();
    make_path(WINDOW);
    void *granted = page();
    MUST(map(WINDOW + PAGE, frame_address(frames[63]) | DATA));
    volatile struct grant_v1 *last = (void *)(WINDOW + PAGE);
    last[511] = (struct grant_v1){.flags = PERMIT_ACCESS, .domid = OWN, .frame = mfn_of(granted)};
    check_equal(map_at(WINDOW, 64 * 512 - 1, HOST_MAP), OKAY, "the last entry can be used");
    check_equal(map_at(WINDOW, 64 * 512, HOST_MAP), BAD_GNTREF, "none behind it");
    check_equal(unmap_at(WINDOW, 0), OKAY, "unmapped");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(table_refused, "for whom, where to, and how many at once")
{
    word frame;
    check_equal(set_up(NOBODY, 1, &frame), BAD_DOMAIN, "of nobody");
    check_equal(set_up(BACK_ENDS, 1, &frame), PERMISSION_DENIED, "of domain 0");
    check_equal(set_up(DOMID_SELF, 1, (void *)HOLE), -EFAULT, "to Xen's part");
    check_equal(set_up(DOMID_SELF, 1, (void *)TEST_AREA(9)), BAD_VIRT_ADDR, "to where nothing is");
    struct setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = (word)&frame};
    struct query_size size = {.dom = DOMID_SELF};
    struct get_status_frames status = {.dom = DOMID_SELF};
    check_equal(grant_op(SETUP_TABLE, &setup, 2), -EINVAL, "two set-ups");
    check_equal(grant_op(SETUP_TABLE, &setup, 0), BITS == 64 ? -EINVAL : 0, "no set-up");
    check_equal(grant_op(QUERY_SIZE, &size, 2), -EINVAL, "two sizes");
    check_equal(grant_op(GET_STATUS_FRAMES, &status, 2), -EINVAL, "two lists of status frames");
    check_equal(grant_op(SETUP_TABLE, 0, 1), -EFAULT, "a set-up at 0");
    check_equal(grant_op(DUMP_TABLE, &setup, 1), -ENOSYS, "dump_table is no more");
    check_equal(grant_op(13, &setup, 1), -ENOSYS, "nor was there a thirteenth");
    check_equal(grant_op(0xfff, &setup, 1), -ENOSYS, "nor a 4095th");
}

VARIATION(status_frames, "version 2 has status frames, as many as its entries need")
{
    use_table();
    static u64 frames[8];
    struct get_status_frames status = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = (word)frames, .status = 99};
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, GENERAL_ERROR, "none in version 1");
    status.nr_frames = 0;
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, OKAY, "which is as many as asked for");
    use_version(2);
    status.nr_frames = 2;
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, GENERAL_ERROR, "a table of one frame has one");
    static word table[64];
    check_equal(set_up(DOMID_SELF, 9, table), OKAY, "a table of nine frames");
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, OKAY, "has two");
    check(frames[0] && frames[1] && frames[0] != frames[1], "their numbers", "%llx %llx", frames[0], frames[1]);
    status.frame_list = TEST_AREA(9);
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, BAD_VIRT_ADDR, "to where nothing is");
    status.dom = NOBODY;
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, BAD_DOMAIN, "of nobody");
    status.dom = BACK_ENDS;
    MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
    check_equal(status.status, PERMISSION_DENIED, "of domain 0");
}

static sword swap(u32 a, u32 b)
{
    struct swap_grant_ref list = {.a = a, .b = b, .status = 99};
    MUST(grant_op(SWAP_GRANT_REF, &list, 1));
    return list.status;
}

VARIATION(swap, "two entries change places, unless one is in use")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    grant(9, 0x55, ACCEPT_TRANSFER);
    check_equal(swap(8, 9), OKAY, "swapped");
    check_equal(grants[8].frame, 0x55, "one is there");
    check_equal(grants[8].flags, ACCEPT_TRANSFER, "whole");
    check_equal(grants[9].frame, mfn_of(granted), "the other here");
    check_equal(swap(9, 9), OKAY, "with itself");
    check_equal(swap(9, 512), BAD_GNTREF, "with one beyond the table");
    check_equal(swap(~0u, 9), BAD_GNTREF, "one beyond the table with it");
    MUST(map_at(WINDOW, 9, HOST_MAP));
    check_equal(swap(8, 9), BUSY, "while the second is in use");
    check_equal(swap(9, 8), BUSY, "while the first is in use");
    check_equal(swap(9, 9), OKAY, "with itself, even then");
    check_equal(grants[9].frame, mfn_of(granted), "nothing has changed");
    MUST(unmap_at(WINDOW, mapped.handle));
    use_version(2);
    grant(300 % 256, mfn_of(granted), PERMIT_ACCESS);
    statuses[300 % 256] = READING;
    check_equal(swap(300 % 256, 8), OKAY, "swapped in version 2");
    check_equal(grants_v2[8].frame, mfn_of(granted), "the entry");
    check_equal(statuses[8], READING, "and its status word");
    check_single_reference(granted, "nothing holds the page");
}

static sword flush(u64 address, u16 offset, u16 length, u32 op)
{
    struct cache_flush list = {address, offset, length, op};
    return grant_op(CACHE_FLUSH, &list, 1);
}

VARIATION(cache_flush, "a domain may write back what its own pages have in the cache, and not throw it away")
{
    enum { CLEAN = 1, INVALIDATE = 2 };
    void *own = page();
    watch(own);
    REFUSED("an offset past the page", EINVAL, flush(address_of(own), 4096, 1, CLEAN));
    REFUSED("a length past the page", EINVAL, flush(address_of(own), 1, 4096, CLEAN));
    REFUSED("an operation that is not there", EINVAL, flush(address_of(own), 0, 8, 4));
    REFUSED("a grant reference", EINVAL, flush(8, 0, 8, CLEAN | 1u << 31));
    REFUSED("a frame that is not there", EINVAL, flush(frame_address(NO_RAM), 0, 8, CLEAN));
    REFUSED("thrown away", EOPNOTSUPP, flush(address_of(own), 0, 8, INVALIDATE));
    word nobody = freed_frame();
    REFUSED("a frame of nobody's", EPERM, flush(frame_address(nobody), 0, 8, CLEAN));
    REFUSED("a list at 0", EFAULT, grant_op(CACHE_FLUSH, 0, 1));
    struct cache_flush none = {address_of(own), 0, 0, 0};
    REFUSED("a flush of nothing that goes on", ILLEGAL_SEQUENCE, grant_op(CACHE_FLUSH | 1 << 12, &none, 1));
    ALLOWED("of nothing", flush(0, 0, 0, CLEAN));
    ALLOWED("no operation", flush(0, 0, 8, 0));
    ALLOWED("written back", flush(address_of(own), 0, 4096, CLEAN));
    ALLOWED("both", flush(address_of(own), 4095, 1, CLEAN | INVALIDATE));
    check_single_reference(own, "nothing holds the page");
}
