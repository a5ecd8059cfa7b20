/* A grant is mapped into an L1 entry, which holds the page as any mapping does, and the granting side is told. */
#include "grant.h"

VARIATION(map_write, "a page granted for writing: the entry, the flags, the contents, and all of it undone")
{
    use_table();
    u64 *granted = page();
    granted[0] = 0x1122334455667788;
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    check_equal(map_at(WINDOW, 8, HOST_MAP), OKAY, "mapped");
    check_equal(mapped.handle, 0, "the first handle");
    check_equal(mapped.dev_bus_addr, address_of(granted), "the machine address");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "the entry says read and written");
    check_entry(entry(WINDOW, 1), address_of(granted) | P | RW | A | D | NX | KERNEL_BITS, "the l1e");
    check(*(volatile u64 *)WINDOW == granted[0], "the contents are there", "%llx", *(volatile u64 *)WINDOW);
    *(volatile u64 *)(WINDOW + 8) = 42;
    check_equal(granted[1], 42, "what is written there is written here");
    check_equal(unmap_at(WINDOW, 0), OKAY, "unmapped");
    check_equal(grants[8].flags, PERMIT_ACCESS, "the entry says nothing any more");
    check_entry(entry(WINDOW, 1), 0, "the l1e is empty");
    check(TRY("mov (%0), %%" AX, : : "r"(WINDOW) : "rax") && fault.vector == PF, "a load faults", "%u", fault.vector);
    check_equal(unmap_at(WINDOW, 0), BAD_HANDLE, "a handle is good once");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(map_readonly, "a page granted for reading, or mapped so, is not written through the mapping")
{
    use_table();
    u64 *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS | READONLY);
    check_equal(map_at(WINDOW, 8, HOST_MAP), GENERAL_ERROR, "writing is refused");
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY, "the refusal leaves the entry");
    check_equal(mapped.handle, 0xdead, "the refusal leaves the handle");
    check_equal(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY), OKAY, "reading is not");
    check_equal(mapped.handle, 1, "a handle that failed goes to the end of the list");
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY | READING, "the entry says read");
    check_entry(entry(WINDOW, 1) & RW, 0, "the l1e is read-only");
    check(TRY("mov" W " $1, (%0)", : : "r"(WINDOW) : "memory") && fault.vector == PF, "a store faults", "%u", fault.vector);
    check_equal(unmap_at(WINDOW, 1), OKAY, "unmapped");
    check_equal(grants[8].flags, PERMIT_ACCESS | READONLY, "the entry is as it was");
    grants[8].flags = PERMIT_ACCESS;
    check_equal(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY), OKAY, "read-only although it might be written");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING, "which the entry says");
    check_equal(map_at(WINDOW + PAGE, 8, HOST_MAP), OKAY, "a second mapping writes");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "which the entry says, too");
    check_equal(unmap_at(WINDOW + PAGE, mapped.handle), OKAY, "the writer goes");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING, "the reader stays");
    check_equal(unmap_at(WINDOW, mapped.handle - 1), OKAY, "the reader goes");
    check_equal(grants[8].flags, PERMIT_ACCESS, "nobody is left");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(map_flags, "what the guest asks for in the entry: user pages, software bits, an entry by its machine address")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    check_equal(map_at(WINDOW, 8, HOST_MAP | APPLICATION_MAP | 5 * AVAIL0), OKAY, "a user page");
    check_entry(entry(WINDOW, 1), address_of(granted) | P | RW | US | A | D | (BITS == 64 ? G : 0) | 5 << 9 | NX, "its l1e");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "unmapped");
    u64 place = entry_address(WINDOW, 1);
    check_equal(map_at(place, 8, HOST_MAP | CONTAINS_PTE), OKAY, "by the entry's machine address");
    check_entry(entry(WINDOW, 1), address_of(granted) | P | RW | A | D | NX | KERNEL_BITS, "that l1e");
    check_equal(unmap_at(place, mapped.handle), OKAY, "unmapped the same way");
    check_entry(entry(WINDOW, 1), 0, "the l1e is empty");
    check_equal(map_at(place + 4, 8, HOST_MAP | CONTAINS_PTE), GENERAL_ERROR, "in the middle of an entry");
    check_equal(map_at(entry_address(WINDOW, 2), 8, HOST_MAP | CONTAINS_PTE), GENERAL_ERROR, "an l2 entry");
    check_equal(map_at(address_of(granted), 8, HOST_MAP | CONTAINS_PTE), GENERAL_ERROR, "a page that is no table");
    check_equal(map_at(frame_address(NO_RAM), 8, HOST_MAP | CONTAINS_PTE), GENERAL_ERROR, "an entry that is nowhere");
    check_equal(map_at(~7ull, 8, HOST_MAP | CONTAINS_PTE), GENERAL_ERROR, "an entry at the end of all addresses");
    check_equal(map_at(TEST_AREA(9), 8, HOST_MAP), GENERAL_ERROR, "an address without an l1 table");
    check_equal(map_at(HOLE, 8, HOST_MAP), GENERAL_ERROR, "an address of Xen's");
#if BITS == 64
    check_equal(map_at(NON_CANONICAL, 8, HOST_MAP), GENERAL_ERROR, "an address that is not canonical");
#endif
    check_equal(grants[8].flags, PERMIT_ACCESS, "no refusal left a flag");
    check_single_reference(granted, "no refusal left a reference");
}

VARIATION(map_over, "an entry that mapped something else lets go of it")
{
    use_table();
    void *granted = page(), *other = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map(WINDOW, address_of(other) | DATA));
    check_equal(map_at(WINDOW, 8, HOST_MAP), OKAY, "mapped over another page");
    check_single_reference(other, "the other page is free of it");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "unmapped");
    check_entry(entry(WINDOW, 1), 0, "the other page does not come back");
    check_single_reference(granted, "nor is the granted one held");
}

VARIATION(map_refused, "who grants what to whom, and what is no grant at all")
{
    use_table();
    void *granted = page(), *table_page = table();
    watch(granted);
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    NO_CHANGE("for nobody", BAD_GNTREF, map_at(WINDOW, 8, MAP_READONLY));
    static const u16 others[] = {NOBODY, DOMID_SELF, DOMID_IO, DOMID_XEN, DOMID_INVALID};
    for (unsigned i = 0; i < 5; i++) {
        static const char *const names[] = {"of nobody's", "of DOMID_SELF's", "of DOMID_IO's", "of DOMID_XEN's",
                                            "of DOMID_INVALID's"};
        mapped = (struct map_grant_ref){.host_addr = WINDOW, .flags = HOST_MAP, .ref = 8, .dom = others[i]};
        NO_CHANGE(names[i], BAD_DOMAIN, (grant_op(MAP_GRANT_REF, &mapped, 1), mapped.status));
    }
    NO_CHANGE("beyond the table", BAD_GNTREF, map_at(WINDOW, 512, HOST_MAP));
    NO_CHANGE("far beyond the table", BAD_GNTREF, map_at(WINDOW, ~0u, HOST_MAP));
    NO_CHANGE("an entry that grants nothing", GENERAL_ERROR, map_at(WINDOW, 9, HOST_MAP));
    NO_CHANGE("one that another domain uses", GENERAL_ERROR, map_at(WINDOW, 0, HOST_MAP));
    grants[8].domid = NOBODY;
    NO_CHANGE("granted to another", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    grants[8].domid = DOMID_SELF;
    NO_CHANGE("granted to DOMID_SELF", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    grant(8, mfn_of(granted), ACCEPT_TRANSFER);
    NO_CHANGE("an entry for a transfer", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    grant(8, mfn_of(granted), PERMIT_ACCESS | SUB_PAGE);
    NO_CHANGE("a part of a page", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    grant(8, NO_RAM, PERMIT_ACCESS);
    NO_CHANGE("a frame that is not there", BAD_PAGE, map_at(WINDOW, 8, HOST_MAP));
    grant(8, freed_frame(), PERMIT_ACCESS);
    NO_CHANGE("a frame of nobody's", BAD_PAGE, map_at(WINDOW, 8, HOST_MAP));
    check_equal(grants[8].flags, PERMIT_ACCESS, "its entry is as it was");
    MUST(mmuext(PIN_L1_TABLE, mfn_of(table_page), 0));
    grant(8, mfn_of(table_page), PERMIT_ACCESS);
    NO_CHANGE("a page table, for writing", GENERAL_ERROR, map_at(WINDOW, 8, HOST_MAP));
    check_equal(grants[8].flags, PERMIT_ACCESS, "the page table's entry is as it was");
    check_equal(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY), OKAY, "a page table, for reading");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "unmapped");
    MUST(mmuext(UNPIN_TABLE, mfn_of(table_page), 0));
}

VARIATION(map_types, "a page that a grant maps for writing is no page table until it is unmapped")
{
    use_table();
    void *granted = table();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    check_equal(map_at(WINDOW, 8, HOST_MAP), OKAY, "mapped");
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(granted), 0), -EINVAL, "it cannot be pinned");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "unmapped");
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(granted), 0), 0, "now it can");
    MUST(mmuext(UNPIN_TABLE, mfn_of(granted), 0));
    check_equal(map_at(WINDOW, 8, HOST_MAP | MAP_READONLY), OKAY, "mapped for reading");
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(granted), 0), 0, "it can be pinned all the same");
    check_equal(map_at(WINDOW + PAGE, 8, HOST_MAP), GENERAL_ERROR, "then it is not mapped for writing");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING, "the reader alone is told of");
    MUST(mmuext(UNPIN_TABLE, mfn_of(granted), 0));
    check_equal(unmap_at(WINDOW, mapped.handle), BAD_HANDLE, "no handle for the refused one");
    check_equal(unmap_at(WINDOW, 1), OKAY, "the reader goes");
    MUST(writable(granted));
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(map_device, "without an IOMMU a device's mapping only holds the page")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    check_equal(map_at(0, 8, DEVICE_MAP), OKAY, "for a device");
    check_equal(mapped.dev_bus_addr, address_of(granted), "its address is the machine's");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "the entry says so");
    MUST(read_only(granted));
    check_equal(mmuext(PIN_L1_TABLE, mfn_of(granted), 0), -EINVAL, "the page is no page table meanwhile");
    MUST(writable(granted));
    struct unmap_grant_ref wrong = {.dev_bus_addr = address_of(granted) + PAGE, .handle = mapped.handle};
    MUST(grant_op(UNMAP_GRANT_REF, &wrong, 1));
    check_equal(wrong.status, GENERAL_ERROR, "unmapped by another address");
    struct unmap_grant_ref none = {.handle = mapped.handle, .status = 99};
    MUST(grant_op(UNMAP_GRANT_REF, &none, 1));
    check_equal(none.status, OKAY, "unmapped by no address is nothing unmapped");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "which leaves it");
    struct unmap_grant_ref right = {.dev_bus_addr = address_of(granted), .handle = mapped.handle};
    MUST(grant_op(UNMAP_GRANT_REF, &right, 1));
    check_equal(right.status, OKAY, "unmapped");
    check_equal(grants[8].flags, PERMIT_ACCESS, "the entry is as it was");
    check_equal(map_at(WINDOW, 8, DEVICE_MAP | HOST_MAP), OKAY, "for both");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "one of them goes");
    check_equal(grants[8].flags, PERMIT_ACCESS | READING | WRITING, "the other stays");
    right = (struct unmap_grant_ref){.dev_bus_addr = address_of(granted), .handle = mapped.handle};
    MUST(grant_op(UNMAP_GRANT_REF, &right, 1));
    check_equal(right.status, OKAY, "and goes");
    check_equal(map_at(TEST_AREA(9), 8, DEVICE_MAP | HOST_MAP), GENERAL_ERROR, "neither, where one is refused");
    check_equal(grants[8].flags, PERMIT_ACCESS, "the entry is as it was again");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(map_many, "handles and counts: as many as Xen has, each once, the freed ones last")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    int wrong = 0;
    for (unsigned i = 0; i < 128; i++)
        wrong += map_at(WINDOW + i * PAGE, 8, HOST_MAP) != OKAY || mapped.handle != i;
    check_equal(wrong, 0, "128 mappings of one grant");
    check_equal(map_at(WINDOW + 128 * PAGE, 8, HOST_MAP), GENERAL_ERROR, "no more of one sort");
    check_equal(map_at(WINDOW + 128 * PAGE, 8, HOST_MAP | MAP_READONLY), GENERAL_ERROR, "nor of another");
    for (unsigned i = 0; i < 128; i++)
        wrong += unmap_at(WINDOW + i * PAGE, i) != OKAY;
    check_equal(wrong, 0, "all unmapped");
    check_equal(map_at(WINDOW, 8, HOST_MAP), OKAY, "mapped again");
    check_equal(mapped.handle, 130, "by a handle that was never used");
    check_equal(unmap_at(WINDOW, 130), OKAY, "unmapped again");
    for (unsigned i = 131; i < 255; i++) {
        wrong += map_at(WINDOW, 8, HOST_MAP) != OKAY || mapped.handle != i;
        wrong += unmap_at(WINDOW, i) != OKAY;
    }
    check_equal(wrong, 0, "all handles of the first page");
    map_at(WINDOW, 8, HOST_MAP);
    check_equal(mapped.handle, 255, "the last of them");
    check_equal(unmap_at(WINDOW, 255), OKAY, "given back");
    map_at(WINDOW, 8, HOST_MAP);
    check_equal(mapped.handle, 128, "then those that were freed first");
    check_equal(unmap_at(WINDOW, 128), OKAY, "given back, too");
    check_equal(unmap_at(WINDOW, 256), BAD_HANDLE, "a handle that is not there");
    check_equal(unmap_at(WINDOW, ~0u), BAD_HANDLE, "a handle far away");
    check_single_reference(granted, "nothing holds the page");
}

VARIATION(map_list, "a list of mappings: each element with its own answer, those before a bad pointer done")
{
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    struct map_grant_ref list[3] = {
        {.host_addr = WINDOW, .flags = HOST_MAP, .ref = 8, .dom = OWN, .status = 99},
        {.host_addr = WINDOW + PAGE, .flags = HOST_MAP, .ref = 9, .dom = OWN, .status = 99},
        {.host_addr = WINDOW + 2 * PAGE, .flags = HOST_MAP, .ref = 8, .dom = OWN, .status = 99},
    };
    check_equal(grant_op(MAP_GRANT_REF, list, 3), 0, "the call is good");
    check_equal(list[0].status, OKAY, "the first");
    check_equal(list[1].status, GENERAL_ERROR, "the second");
    check_equal(list[2].status, OKAY, "the third");
    struct unmap_grant_ref back[3] = {
        {.host_addr = WINDOW, .handle = list[0].handle, .status = 99},
        {.host_addr = WINDOW, .handle = list[2].handle, .status = 99},
        {.host_addr = WINDOW + 2 * PAGE, .handle = list[2].handle, .status = 99},
    };
    check_equal(grant_op(UNMAP_GRANT_REF, back, 3), 0, "the unmapping is good");
    check_equal(back[0].status, OKAY, "the first goes");
    check_equal(back[1].status, GENERAL_ERROR, "the second is not where it is said to be");
    check_equal(back[2].status, OKAY, "the third goes");
    u8 *two = page(), *behind = page();
    struct map_grant_ref *last = (void *)(two + PAGE - sizeof *last);
    *last = list[0];
    MUST(unmap(behind));
    check_equal(grant_op(MAP_GRANT_REF, last, 2), -EFAULT, "a list that ends in nothing");
    check_equal(last->status, OKAY, "what came before is mapped");
    check_equal(unmap_at(WINDOW, last->handle), OKAY, "and can be unmapped");
    MUST(read_only(two));
    check_equal(grant_op(MAP_GRANT_REF, last, 1), -EFAULT, "an answer that cannot be written");
    check(entry(WINDOW, 1) & P, "it is mapped all the same", "%llx", entry(WINDOW, 1));
    check_equal(grant_op(MAP_GRANT_REF, (void *)XENS, 1), -EFAULT, "a list in Xen's part");
    check_equal(grant_op(MAP_GRANT_REF, (void *)HOLE, 0), BITS == 64 ? -EFAULT : 0, "an empty one there");
    check_equal(grant_op(MAP_GRANT_REF, 0, 0), 0, "an empty one anywhere else");
    check_equal(grant_op(MAP_GRANT_REF, list, 1u << 31), -EINVAL, "a negative count");
    check_equal(grant_op(MAP_GRANT_REF | 1 << 12, list, 1), -EINVAL, "a command with more bits");
}

VARIATION(map_long_list, "a list too long for one go is made in several, directly and in a multicall")
{
    enum { COUNT = 1200 };
    use_table();
    void *granted = page();
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    static struct unmap_grant_ref list[COUNT];
    for (int round = 0; round < 2; round++) {
        int wrong = 0;
        MUST(map_at(WINDOW, 8, HOST_MAP));
        for (int i = 0; i < COUNT; i++)
            list[i] = (struct unmap_grant_ref){.handle = i == COUNT - 1 ? mapped.handle : 0xffff, .host_addr = WINDOW};
        struct multicall_entry call = {.op = GRANT_TABLE_OP, .args = {UNMAP_GRANT_REF, (word)list, COUNT}};
        sword rc = round ? hypercall(MULTICALL, &call, 1) : grant_op(UNMAP_GRANT_REF, list, COUNT);
        check_equal(rc, 0, round ? "a multicall" : "a call");
        for (int i = 0; i < COUNT - 1; i++)
            wrong += list[i].status != BAD_HANDLE;
        check_equal(wrong, 0, round ? "all but the last in the multicall" : "all but the last in the call");
        check_equal(list[COUNT - 1].status, OKAY, round ? "the last in the multicall" : "the last in the call");
    }
    check_single_reference(granted, "nothing holds the page");
}
