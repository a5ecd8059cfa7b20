/* A mapping is undone by its handle and its address, and only where the entry is still the grant's. */
#include "grant.h"

VARIATION(unmap_mismatch, "an entry that was changed by hand is not the grant's any more")
{
    use_table();
    void *granted = page(), *other = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    u32 handle = mapped.handle;
    check_equal(unmap_at(WINDOW + PAGE, handle), GENERAL_ERROR, "an empty entry");
    MUST(map(WINDOW + PAGE, address_of(other) | DATA));
    check_equal(unmap_at(WINDOW + PAGE, handle), GENERAL_ERROR, "another page's entry");
    check_equal(unmap_at(TEST_AREA(9), handle), GENERAL_ERROR, "an address without a table");
    check_equal(unmap_at(0, handle), OKAY, "no address is nothing unmapped");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "the grant is in use all the time");
    MUST(map(WINDOW, address_of(granted) | DATA_RO));
    check_equal(unmap_at(WINDOW, handle), GENERAL_ERROR, "an entry with other rights");
    MUST(map(WINDOW, address_of(granted) | DATA));
    check_equal(unmap_at(WINDOW, handle), OKAY, "an entry made by hand, with the same page and rights");
    check_equal(grants[8].flags, PERMIT_ACCESS, "the grant is free");
    MUST(map(WINDOW + PAGE, 0));
    check_single_reference(granted, "nothing holds the page");
    check_single_reference(other, "nor the other");
}

VARIATION(unmap_by_hand, "an entry that is simply overwritten lets go of the page, but the grant stays in use")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    MUST(map(WINDOW, 0));
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "the entry still says so");
    check_equal(unmap_at(WINDOW, mapped.handle), GENERAL_ERROR, "there is nothing to unmap");
    u32 two = 2;
    check_equal(grant_op(SET_VERSION, &two, 1), -EBUSY, "the version cannot be changed");
    check_equal(two, 1, "and is told");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(unmap_after_change, "what the guest writes to an entry in use changes nothing for those who use it")
{
    use_table();
    void *granted = page(), *other = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY));
    u32 first = mapped.handle;
    grants[8].frame = mfn_of(other);
    grants[8].domid = NOBODY;
    check_equal(map_at(WINDOW + PAGE, 8, HOST_MAP | MAP_READONLY), OKAY, "a second reader");
    check_equal(mapped.dev_bus_addr, address_of(granted), "gets the page that was granted");
    grants[8].flags |= READONLY;
    check_equal(map_at(WINDOW + 2 * PAGE, 8, HOST_MAP), GENERAL_ERROR, "a first writer sees that it is read-only now");
    check_equal(unmap_at(WINDOW + PAGE, mapped.handle), BAD_HANDLE, "it got no handle");
    check_equal(unmap_at(WINDOW + PAGE, first + 1), OKAY, "the second reader goes");
    check_equal(unmap_at(WINDOW, first), OKAY, "the first reader goes");
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY, "nobody is left");
    check_equal(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY), GENERAL_ERROR, "now the domain it names counts");
    check_single_reference(granted, "nothing holds the page");
    check_single_reference(other, "nor the other");
}

static sword replace(u64 address, word with, u32 handle)
{
    struct unmap_and_replace list = {.host_addr = address, .new_addr = with, .handle = handle, .status = 99};
    MUST(grant_op(UNMAP_AND_REPLACE, &list, 1));
    return list.status;
}

VARIATION(replace, "another mapping takes the place of the grant's")
{
    use_table();
    void *granted = page(), *other = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    MUST(map(WINDOW + PAGE, address_of(other) | DATA));
    u64 moved = entry(WINDOW + PAGE, 1);
    check_equal(replace(WINDOW, WINDOW + PAGE, mapped.handle), OKAY, "replaced");
    check_entry(entry(WINDOW, 1), moved, "the other page is here");
    check_entry(entry(WINDOW + PAGE, 1), 0, "and no more there");
    check_equal(grants[8].flags, PERMIT_ACCESS, "the grant is free");
    check_single_reference(granted, "nothing holds its page");
    MUST(map(WINDOW, 0));
    check_single_reference(other, "the other was mapped once");
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    check_equal(replace(WINDOW, WINDOW + 2 * PAGE, mapped.handle), OKAY, "replaced by an empty entry");
    check_entry(entry(WINDOW, 1), 0, "which is empty");
    MUST(map_at(WINDOW, 8, HOST_MAP));
    check_equal(replace(WINDOW, 0, mapped.handle), OKAY, "replaced by nothing");
    check_entry(entry(WINDOW, 1), 0, "which is nothing");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(replace_refused, "what is taken for a replacement is gone, even if it is not used")
{
    use_table();
    void *granted = page(), *other = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    u32 handle = mapped.handle;
    check_equal(replace(WINDOW, TEST_AREA(9), handle), GENERAL_ERROR, "by an address without a table");
    check_equal(replace(WINDOW, HOLE, handle), GENERAL_ERROR, "by an address of Xen's");
    check_equal(replace(WINDOW, WINDOW + PAGE, handle + 1), BAD_HANDLE, "a handle that is not there");
    MUST(map(WINDOW + PAGE, address_of(other) | DATA));
    check_equal(replace(WINDOW + 2 * PAGE, WINDOW + PAGE, handle), GENERAL_ERROR, "of an entry that is not the grant's");
    check_entry(entry(WINDOW + PAGE, 1), 0, "the replacement is gone");
    check_single_reference(other, "and nothing holds its page");
    check_equal(replace(WINDOW, WINDOW, handle), GENERAL_ERROR, "by itself");
    check_entry(entry(WINDOW, 1), 0, "it is gone, too");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "but the grant stays in use");
    check_single_reference(granted, "nothing holds its page");
    grant(9, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(entry_address(WINDOW, 1), 9, HOST_MAP | CONTAINS_PTE));
    MUST(map(WINDOW + PAGE, address_of(other) | DATA));
    check_equal(replace(entry_address(WINDOW, 1), WINDOW + PAGE, mapped.handle), GENERAL_ERROR, "of one named by its entry");
    check(entry(WINDOW + PAGE, 1) & P, "then nothing is taken", "%llx", entry(WINDOW + PAGE, 1));
    check_equal(unmap_at(entry_address(WINDOW, 1), mapped.handle), OKAY, "it is unmapped the plain way");
    MUST(map(WINDOW + PAGE, 0));
    check_single_reference(other, "nothing holds the other page");
}
