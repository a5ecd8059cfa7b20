/* mmu_update takes no entry that would let the guest out of its own memory, or write to a page table.

   Each request is one entry of a table, by its machine address. Xen looks at the flags first, then at the frame that
   the entry names, then at the type that the frame would take (mm.c: mod_l1_entry to mod_l4_entry,
   get_page_from_l1e). It stops at the first request that it refuses and counts those before it. */
#include "kit.h"

#define AREA TEST_AREA(1)

static u64 entry1, entry2, entry3; /* machine addresses of the entries of AREA */
#if BITS == 64
static u64 entry4;
#endif
static void *target;                       /* a page that AREA can map */

static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    make_path(AREA);
    entry1 = entry_address(AREA, 1);
    entry2 = entry_address(AREA, 2);
    entry3 = entry_address(AREA, 3);
#if BITS == 64
    entry4 = entry_address(AREA, 4);
#endif
    target = page();
    watch(target);
}

VARIATION(flags, "which flags an entry of each level may have")
{
    set_up();
    u64 data = address_of(target) | DATA_RO;
    REFUSED("PWT in an L1 entry", EINVAL, update(entry1, data | PWT));
    REFUSED("PCD in an L1 entry", EINVAL, update(entry1, data | PCD));
    REFUSED("PAT in an L1 entry", EINVAL, update(entry1, data | PAT));
    REFUSED("PCD and PWT in an L1 entry with A and D kept", EINVAL,
            update(entry1 | PT_UPDATE_PRESERVE_AD, data | PCD | PWT));
    REFUSED("PCD in an L1 entry without translation", EINVAL, update(entry1 | PT_UPDATE_NO_TRANSLATE, data | PCD));
    ALLOWED("G in an L1 entry", update(entry1, data | G));
    ALLOWED("NX in an L1 entry", update(entry1, data | NX));
    ALLOWED("software bits in an L1 entry", update(entry1, data | 0xe00 | 1ull << 58));
    ALLOWED("bad flags in an L1 entry that is not present", update(entry1, PSE | PCD | PWT));
    static const struct {
        u64 flag;
        const char *names[3];
    } bad[] = {
        {PSE, {"PSE in an L2 entry", "PSE in an L3 entry", "PSE in an L4 entry"}},
        {PWT, {"PWT in an L2 entry", "PWT in an L3 entry", "PWT in an L4 entry"}},
        {PCD, {"PCD in an L2 entry", "PCD in an L3 entry", "PCD in an L4 entry"}},
        {G, {"G in an L2 entry", "G in an L3 entry", "G in an L4 entry"}},
    };
    for (unsigned i = 0; i < 4; i++)
        for (int level = 2; level <= LEVELS; level++)
            REFUSED(bad[i].names[level - 2], EINVAL,
                    update(entry_address(AREA, level), entry(AREA, level) | bad[i].flag));
    for (int level = 2; level <= LEVELS; level++)
        ALLOWED(level == 2 ? "A and D cleared in an L2 entry" : level == 3 ? "the same in L3" : "the same in L4",
                update(entry_address(AREA, level), entry(AREA, level) & ~(u64)(A | D)));
    check_single_reference(target, "the target has one reference");
}

/* A frame that is Xen's: one of the M2P's tables. */
static word xens_frame(void)
{
    return (entry(HOLE, BITS == 64 ? LEVELS : 2) & ~ENTRY_FLAGS) / PAGE;
}

VARIATION(frames, "which frames an entry may name")
{
    set_up();
    word xen = xens_frame();
    REFUSED("L1 entry for no RAM", EPERM, update(entry1, frame_address(NO_RAM) | DATA_RO));
    REFUSED("writable L1 entry for no RAM", EPERM, update(entry1, frame_address(NO_RAM) | DATA));
    REFUSED("L1 entry for the invalid frame", EINVAL, update(entry1, frame_address(INVALID_FRAME) | DATA_RO));
    REFUSED("L1 entry for nobody's frame", EBUSY, update(entry1, frame_address(nobody) | DATA_RO));
    REFUSED("writable L1 entry for nobody's frame", EBUSY, update(entry1, frame_address(nobody) | DATA));
    REFUSED("L1 entry for a frame of Xen's", EBUSY, update(entry1, frame_address(xen) | DATA_RO));
    static const char *const names[][3] = {
        {"L2 entry for no RAM", "L2 entry for the invalid frame", "L2 entry for nobody's frame"},
        {"L3 entry for no RAM", "L3 entry for the invalid frame", "L3 entry for nobody's frame"},
        {"L4 entry for no RAM", "L4 entry for the invalid frame", "L4 entry for nobody's frame"},
    };
    for (int level = 2; level <= LEVELS; level++) {
        u64 where = entry_address(AREA, level) + 8;
        REFUSED(names[level - 2][0], EINVAL, update(where, frame_address(NO_RAM) | TABLE));
        REFUSED(names[level - 2][1], EINVAL, update(where, frame_address(INVALID_FRAME) | TABLE));
        REFUSED(names[level - 2][2], EINVAL, update(where, frame_address(nobody) | TABLE));
    }
    ALLOWED("a frame number in an L1 entry that is not present", update(entry1, frame_address(NO_RAM)));
}

VARIATION(types, "a frame has one use at a time: page table of one level, or writable")
{
    set_up();
    word tables[5];
    for (int level = 1; level < LEVELS; level++)
        tables[level] = (entry(AREA, level + 1) & ~ENTRY_FLAGS) / PAGE;
    tables[LEVELS] = root_mfn();
    static const char *const writable_names[] = {
        0, "an L1 table mapped writable", "an L2 table mapped writable", "an L3 table mapped writable",
        "the root mapped writable",
    };
    static const char *const readable_names[] = {
        0, "an L1 table mapped readable", "an L2 table mapped readable", "an L3 table mapped readable",
        "the root mapped readable",
    };
    static const char *const added_names[] = {
        0, "write access added to the L1 table", "write access added to the L2 table",
        "write access added to the L3 table", "write access added to the root",
    };
    for (int level = 1; level <= LEVELS; level++) {
        REFUSED(writable_names[level], EBUSY, update(entry1, frame_address(tables[level]) | DATA));
        ALLOWED(readable_names[level], update(entry1, frame_address(tables[level]) | DATA_RO));
        REFUSED(added_names[level], EBUSY, update(entry1, frame_address(tables[level]) | DATA));
    }
    MUST(update(entry1, 0));
    u64 next2 = entry2 + 8, next3 = entry3 + 8;
    REFUSED("a page mapped writable as an L1 table", EINVAL, update(next2, address_of(target) | TABLE));
    REFUSED("a page mapped writable as an L2 table", EINVAL, update(next3, address_of(target) | TABLE));
    REFUSED("an L2 table as an L1 table, writable", EINVAL, update(next2, frame_address(tables[2]) | TABLE));
    REFUSED("an L3 table as an L1 table", EINVAL, update(next2, frame_address(tables[3]) | TABLE_RO));
    REFUSED("an L1 table as an L2 table", EINVAL, update(next3, frame_address(tables[1]) | TABLE_RO));
#if BITS == 64
    u64 next4 = entry4 + 8;
    REFUSED("the root as an L1 table", EINVAL, update(next2, frame_address(tables[4]) | TABLE_RO));
    REFUSED("a page mapped writable as an L3 table", EINVAL, update(next4, address_of(target) | TABLE));
    REFUSED("the root as an L2 table", EINVAL, update(next3, frame_address(tables[4]) | TABLE_RO));
    REFUSED("an L1 table as an L3 table", EINVAL, update(next4, frame_address(tables[1]) | TABLE_RO));
    REFUSED("an L2 table as an L3 table", EINVAL, update(next4, frame_address(tables[2]) | TABLE_RO));
    ALLOWED("one L3 table twice in the root", update(next4, frame_address(tables[3]) | TABLE));
#endif
    ALLOWED("one L1 table twice in an L2 table", update(next2, frame_address(tables[1]) | TABLE));
    ALLOWED("one L2 table twice in an L3 table", update(next3, frame_address(tables[2]) | TABLE));
}

VARIATION(new_tables, "a table is looked through when it is first used; what it was before a refusal it is after it")
{
    set_up();
    u64 *first = table(), *second = table(), *third = table();
    void *shown = page();
    watch(first);
    watch(second);
    watch(third);
    watch(shown);
    u64 next2 = entry2 + 8, next3 = entry3 + 8;
    static const struct {
        u64 flags;
        u64 frame;
        int error;
        const char *names[3];
    } bad[] = {
        {DATA | PCD, 0, EINVAL,
         {"an L1 table with a bad flag", "an L2 table above such", "an L3 table above such"}},
        {DATA_RO, INVALID_FRAME, EINVAL,
         {"an L1 table with the invalid frame", "an L2 table above such a one", "an L3 table above such a one"}},
        {DATA, 1, EBUSY,
         {"an L1 table with a table mapped writable", "an L2 table above it", "an L3 table above it"}},
        {DATA, 2, EPERM,
         {"an L1 table with no RAM", "an L2 table above this", "an L3 table above this"}},
        {DATA, 3, EBUSY,
         {"an L1 table that maps itself writable", "an L2 table above that", "an L3 table above that"}},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        u64 frame = bad[i].frame == 0   ? mfn_of(shown)
                     : bad[i].frame == 1 ? root_mfn()
                     : bad[i].frame == 2 ? NO_RAM
                     : bad[i].frame == 3 ? mfn_of(first)
                                         : bad[i].frame;
        MUST(update(address_of(first + 5), address_of(shown) | DATA));
        MUST(update(address_of(first + 500), frame_address(frame) | bad[i].flags));
        MUST(update(address_of(second + 7), address_of(first) | TABLE));
        MUST(update(address_of(third + 9), address_of(second) | TABLE));
        REFUSED(bad[i].names[0], bad[i].error, update(next2, address_of(first) | TABLE));
        REFUSED(bad[i].names[1], bad[i].error, update(next3, address_of(second) | TABLE));
#if BITS == 64
        REFUSED(bad[i].names[2], bad[i].error, update(entry4 + 8, address_of(third) | TABLE));
#endif
    }
    check_untyped(shown, "what such a table maps is writable nowhere else");
    check_single_reference(shown, "what such a table maps has one reference");
    MUST(update(address_of(first + 5), 0));
    MUST(update(address_of(first + 500), 0));
    ALLOWED("the mended tables", update(next3, address_of(second) | TABLE));
}

#if BITS == 64
VARIATION(reserved_slots, "the root's entries 256 to 271 are Xen's")
{
    set_up();
    u64 root = frame_address(root_mfn()), table3 = entry(AREA, 4);
    REFUSED("the M2P's slot replaced", EINVAL, update(root + 8 * 256, table3));
    REFUSED("the M2P's slot cleared", EINVAL, update(root + 8 * 256, 0));
    REFUSED("the M2P's slot with A and D kept", EINVAL,
            update((root + 8 * 256) | PT_UPDATE_PRESERVE_AD, table_at(root_mfn())[256]));
    REFUSED("slot 257", EINVAL, update(root + 8 * 257, table3));
    REFUSED("slot 258, cleared", EINVAL, update(root + 8 * 258, 0));
    REFUSED("slot 271", EINVAL, update(root + 8 * 271, table3));
    ALLOWED("slot 255", update(root + 8 * 255, table3));
    ALLOWED("slot 272", update(root + 8 * 272, table3));
}
#else
VARIATION(reserved_slots, "the L2 table of the top has entries of Xen's, and the root keeps that table")
{
    set_up();
    u64 root = frame_address(root_mfn()), table1 = entry(AREA, 2), table2 = entry(AREA, 3);
    REFUSED("the M2P's entry replaced", EPERM, update(entry_address(HOLE, 2), table1));
    REFUSED("the M2P's entry cleared", EPERM, update(entry_address(HOLE, 2), 0));
    REFUSED("the last entry", EPERM, update(entry_address(HOLE_END - PAGE, 2), table1));
    ALLOWED("the one below Xen's", update(entry_address(HOLE - PAGE, 2), table1));
    ALLOWED("it cleared", update(entry_address(HOLE - PAGE, 2), 0));
    REFUSED("the root's last entry replaced", EINVAL, update(root + 8 * 3, table2));
    REFUSED("the root's last entry cleared", EINVAL, update(root + 8 * 3, 0));
    REFUSED("what a root does not have", EINVAL, update(root + 8 * 4, table2));
}
#endif

VARIATION(places, "where an entry may be written, and with which command")
{
    set_up();
    u64 *plain = page(), *segments = page();
    watch(plain);
    REFUSED("an entry of no RAM", EINVAL, update(frame_address(NO_RAM), 0));
    REFUSED("an entry of nobody's frame", EINVAL, update(frame_address(nobody), 0));
    REFUSED("an entry of a frame of Xen's", EINVAL,
            update(frame_address(xens_frame()), 0));
    static const char *const commands[] = {"command 4", "command 5", "command 6", "command 7"};
    for (int command = 4; command < 8; command++)
        REFUSED(commands[command - 4], ENOSYS, update(entry1 | command, 0));
    REFUSED("M2P of no RAM", EINVAL, update(frame_address(NO_RAM) | MACHPHYS_UPDATE, 5));
    REFUSED("M2P of nobody's frame", EINVAL, update(frame_address(nobody) | MACHPHYS_UPDATE, 5));
    word mfn = mfn_of(plain);
    ALLOWED("M2P with a PFN that cannot be", update(frame_address(mfn) | MACHPHYS_UPDATE, 1ul << 5 * BITS / 8));
    check_equal(M2P[mfn], 1l << 5 * BITS / 8, "the M2P has it");
    MUST(update(frame_address(mfn) | MACHPHYS_UPDATE, pfn_of(plain)));
    ALLOWED("a word of a page that is no table", update(address_of(plain + 3), 0x1234567890abcdef));
    check(plain[3] == 0x1234567890abcdef, "it is there as it was given", "%llx", plain[3]);
    MUST(read_only(segments));
    word list[1] = {mfn_of(segments)};
    MUST(hypercall(SET_GDT, list, 8));
    REFUSED("a word of the GDT", EINVAL, update(address_of(segments), 0));
    REFUSED("the GDT mapped writable", EBUSY, map((word)segments, address_of(segments) | DATA));
    MUST(hypercall(SET_GDT, list, 0));
    ALLOWED("a word of the former GDT", update(address_of(segments), 0));
}

VARIATION(counts, "it stops at the first request that is refused, and counts those before it")
{
    set_up();
    u64 good = address_of(target) | DATA_RO;
    struct mmu_update requests[4] = {
        {entry1, good}, {entry1 + 8, good}, {entry1 + 16, good | PCD}, {entry1 + 24, good},
    };
    check_equal(mmu_update(requests, 4, DOMID_SELF), -EINVAL, "the third of four is bad");
    COUNTED(2, "two were done");
    check(entry(AREA, 1) & P && entry(AREA + PAGE, 1) & P, "the two are there", "they are not");
    check(!entry(AREA + 2 * PAGE, 1) && !entry(AREA + 3 * PAGE, 1), "the two others are not", "they are");
    /* From here on the first two only repeat what is there. */
    REFUSED_AT(2, "the same again", EINVAL, mmu_update(requests, 4, DOMID_SELF));
    REFUSED_AT(0, "the first is bad", EINVAL, mmu_update(requests + 2, 2, DOMID_SELF));
    requests[2].ptr = entry1 | 5;
    REFUSED_AT(2, "an unknown command after two", ENOSYS, mmu_update(requests, 4, DOMID_SELF));
    check_equal(mmu_update(requests, 0, DOMID_SELF), 0, "an empty list");
    COUNTED(0, "an empty list has done nothing");
    check_equal(hypercall(MMU_UPDATE, requests, 3, 0, DOMID_SELF), -ENOSYS, "no place for the count");
    check_equal(hypercall(MMU_UPDATE, requests, 2, HOLE, DOMID_SELF), 0, "a place for the count that is Xen's");
#if BITS == 64
    check_equal(hypercall(MMU_UPDATE, requests, 1ul << 32 | 2, &done, DOMID_SELF), 0, "the upper half of a count");
    COUNTED(2, "which does not count");
#endif
}

VARIATION(continued, "bit 31 of a count is Xen's own mark of a call that it goes on with; a guest can set it too")
{
    set_up();
    u64 good = address_of(target) | DATA_RO;
    struct mmu_update requests[3] = {{entry1, good}, {entry1 + 8, good}, {entry1 + 16, good | PCD}};
    struct mmuext_op flushes[2] = {{TLB_FLUSH_LOCAL, 0, 0}, {TLB_FLUSH_LOCAL, 0, 0}};
    word more = 1ul << 31;
    MUST(mmu_update(requests, 2, DOMID_SELF));
    done = 5;
    check_equal(hypercall(MMU_UPDATE, requests, more | 2, &done, DOMID_SELF), 0, "two more requests");
    COUNTED(7, "are added to the count");
    done = 5;
    check_equal(hypercall(MMU_UPDATE, requests, more | 3, &done, DOMID_SELF), -EINVAL, "the third is bad");
    COUNTED(7, "two are added");
    done = 3;
    check_equal(hypercall(MMUEXT_OP, flushes, more | 2, &done, DOMID_SELF), 0, "two more operations");
    COUNTED(5, "are added to their count");
    REFUSED("the end of a continuation, whose result is given", EBUSY, hypercall(MMU_UPDATE, 0, more, 0, -EBUSY));
    REFUSED("the same of mmuext_op", EBUSY, hypercall(MMUEXT_OP, 0, more, 0, -EBUSY));
}

VARIATION(pointers, "the list must be the guest's to read")
{
    set_up();
    u64 good = address_of(target) | DATA_RO;
    struct mmu_update *list = page(), *at = list + PAGE / sizeof *list - 1;
    void *behind = page();
    *at = (struct mmu_update){entry1, good};
    MUST(update(entry1, good));
    MUST(unmap(behind));
    REFUSED_AT(0, "no list", EFAULT, mmu_update(0, 1, DOMID_SELF));
    REFUSED_AT(1, "a list whose second request is not mapped", EFAULT, mmu_update(at, 2, DOMID_SELF));
    REFUSED_AT(0, "a list that is not mapped", EFAULT, mmu_update((void *)AREA + 5 * PAGE, 1, DOMID_SELF));
    REFUSED_AT(BITS == 64 ? UNTOUCHED : 0, "a list in Xen's area", EFAULT, mmu_update((void *)XENS, 1, DOMID_SELF));
#if BITS == 64
    REFUSED_AT(UNTOUCHED, "a list at an address that is none", EFAULT,
               mmu_update((void *)NON_CANONICAL, 1, DOMID_SELF));
#endif
    MUST(writable(behind));
}

VARIATION(domains, "whose tables, and whose pages")
{
    set_up();
    struct mmu_update request = {entry1, address_of(target) | DATA_RO};
    struct mmu_update upper = {entry2 + 8, entry(AREA, 2)};
    struct mmu_update no_ram = {entry1, frame_address(NO_RAM) | DATA_RO};
    struct mmu_update number = {address_of(target) | MACHPHYS_UPDATE, 5};
    REFUSED_AT(0, "pages of a domain that is not there", ESRCH, mmu_update(&request, 1, NO_DOMAIN));
    REFUSED_AT(0, "pages of the invalid domain", ESRCH, mmu_update(&request, 1, DOMID_INVALID));
    REFUSED_AT(UNTOUCHED, "tables of a domain that is not there", ESRCH,
               mmu_update(&request, 1, DOMID_SELF | (NO_DOMAIN + 1) << 16));
    REFUSED_AT(UNTOUCHED, "tables of DOMID_SELF by number", ESRCH,
               mmu_update(&request, 1, DOMID_SELF | (word)(DOMID_SELF + 1) << 16));
    REFUSED_AT(0, "another domain's pages", EPERM, mmu_update(&request, 1, 0));
    REFUSED_AT(0, "another domain's tables", EPERM, mmu_update(&request, 1, DOMID_SELF | 1ul << 16));
    REFUSED_AT(0, "Xen's pages", EPERM, mmu_update(&request, 1, DOMID_XEN));
    REFUSED_AT(0, "RAM as I/O memory", EBUSY, mmu_update(&request, 1, DOMID_IO));
    REFUSED_AT(0, "I/O memory without the right", EPERM, mmu_update(&no_ram, 1, DOMID_IO));
    REFUSED_AT(0, "an upper entry with I/O memory", EINVAL, mmu_update(&upper, 1, DOMID_IO));
    REFUSED_AT(0, "the M2P of I/O memory", EINVAL, mmu_update(&number, 1, DOMID_IO));
}
