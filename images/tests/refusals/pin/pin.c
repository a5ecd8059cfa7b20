/* Pinning a table makes Xen look through it and all below it, and holds it there until it is unpinned.

   What is wrong in an entry far below is the pin's error, and everything that was taken on the way is given back
   (mm.c: promote_l1_table to promote_l4_table, do_mmuext_op). */
#include "kit.h"

static u64 *l1, *l2, *l3, *shown, *other;
static u64 *top; /* the L4 table; of a 32-bit guest, the L2 table that its root, the L3 table, has to have */

/* A tree of its own: nothing else points into it, and its pages are mapped readable. */
static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    l1 = table(), l2 = table(), l3 = table(), top = table(), other = table();
    shown = page();
    MUST(update(address_of(l1 + 3), address_of(shown) | DATA));
    MUST(update(address_of(l2 + 4), address_of(l1) | TABLE));
    MUST(update(address_of(l3 + 2), address_of(l2) | TABLE));
    if (BITS == 64)
        MUST(update(address_of(top + 6), address_of(l3) | TABLE));
    else
        MUST(update(address_of(l3 + 3), address_of(top) | TABLE));
    watch(l1);
    watch(l2);
    watch(l3);
    watch(top);
    watch(other);
    watch(shown);
}

static sword pin(int level, const void *table)
{
    return mmuext(PIN_L1_TABLE + level - 1, mfn_of(table), 0);
}

static sword unpin(const void *table)
{
    return mmuext(UNPIN_TABLE, mfn_of(table), 0);
}

VARIATION(frames, "which frames can be pinned at all")
{
    set_up();
    static const char *const names[4][4] = {
        {"no RAM as L1", "nobody's frame as L1", "a page mapped writable as L1", "the root as L1"},
        {"no RAM as L2", "nobody's frame as L2", "a page mapped writable as L2", "the root as L2"},
        {"no RAM as L3", "nobody's frame as L3", "a page mapped writable as L3", "the root as L3"},
        {"no RAM as L4", "nobody's frame as L4", "a page mapped writable as L4", 0},
    };
    for (int level = 1; level <= LEVELS; level++) {
        u32 command = PIN_L1_TABLE + level - 1;
        const char *const *name = names[level - 1];
        REFUSED_AT(0, name[0], EINVAL, mmuext(command, NO_RAM, 0));
        REFUSED_AT(0, name[1], EINVAL, mmuext(command, nobody, 0));
        REFUSED_AT(0, name[2], EINVAL, mmuext(command, mfn_of(shown), 0));
        if (name[3])
            REFUSED_AT(0, name[3], EINVAL, mmuext(command, root_mfn(), 0));
    }
    REFUSED("a frame number that is none", EINVAL, mmuext(PIN_L1_TABLE, ~0ul, 0));
    REFUSED("unpinning no RAM", EINVAL, mmuext(UNPIN_TABLE, NO_RAM, 0));
    REFUSED("unpinning nobody's frame", EINVAL, mmuext(UNPIN_TABLE, nobody, 0));
    REFUSED("unpinning a page that is no table", EINVAL, unpin(shown));
    REFUSED("a superpage marked", EOPNOTSUPP, mmuext(MARK_SUPER, mfn_of(shown), 0));
    REFUSED("a superpage unmarked", EOPNOTSUPP, mmuext(UNMARK_SUPER, mfn_of(shown), 0));
    ALLOWED("an empty page as an L1 table", pin(1, other));
    ALLOWED("unpinned", unpin(other));
}

VARIATION(once, "a table is pinned once, at its own level")
{
    set_up();
    void *tables[5] = {0, l1, l2, l3, top};
    static const char *const names[5][4] = {
        {0},
        {"L1 pinned", "L1 pinned again", "L1 mapped writable", "L1 unpinned twice"},
        {"L2 pinned", "L2 pinned again", "L2 mapped writable", "L2 unpinned twice"},
        {"L3 pinned", "L3 pinned again", "L3 mapped writable", "L3 unpinned twice"},
        {"L4 pinned", "L4 pinned again", "L4 mapped writable", "L4 unpinned twice"},
    };
    static const char *const wrong[5][5] = {
        {0},
        {0, 0, "an L1 table pinned as L2", "an L1 table pinned as L3", "an L1 table pinned as L4"},
        {0, "an L2 table pinned as L1", 0, "an L2 table pinned as L3", "an L2 table pinned as L4"},
        {0, "an L3 table pinned as L1", "an L3 table pinned as L2", 0, "an L3 table pinned as L4"},
        {0, "an L4 table pinned as L1", "an L4 table pinned as L2", "an L4 table pinned as L3", 0},
    };
    for (int level = 1; level <= LEVELS; level++) {
        ALLOWED(names[level][0], pin(level, tables[level]));
        REFUSED_AT(0, names[level][1], EINVAL, pin(level, tables[level]));
        REFUSED(names[level][2], EBUSY, map((word)tables[level], address_of(tables[level]) | DATA));
        for (int as = 1; as <= LEVELS; as++)
            if (wrong[level][as])
                REFUSED_AT(0, wrong[level][as], EINVAL, pin(as, tables[level]));
        MUST(unpin(tables[level]));
        REFUSED(names[level][3], EINVAL, unpin(tables[level]));
    }
    MUST(update(address_of(l1 + 3), 0));
    check_untyped(shown, "nothing below is left");
    check_single_reference(shown, "no reference is left");
    check_single_reference(tables[LEVELS], "nor one to the table");
}

VARIATION(in_use, "what is below a pinned table is in use, and cannot be something else")
{
    set_up();
    u64 *root = BITS == 64 ? top : l3, *below = BITS == 64 ? l3 : l2;
    MUST(pin(LEVELS, root));
    REFUSED("a page that it maps writable, as an L1 table", EINVAL, pin(1, shown));
    REFUSED("its L1 table, as L2", EINVAL, pin(2, l1));
    REFUSED("the table below it, as one of its level", EINVAL, pin(LEVELS, below));
    REFUSED("its L1 table, unpinned", EINVAL, unpin(l1));
    REFUSED("its L1 table, mapped writable", EBUSY, map((word)l1, address_of(l1) | DATA));
    ALLOWED("its L1 table, pinned too", pin(1, l1));
    ALLOWED("the table below it, pinned too", pin(LEVELS - 1, below));
    ALLOWED("the top, unpinned", unpin(root));
    REFUSED("the pinned L1 table, mapped writable", EBUSY, map((word)l1, address_of(l1) | DATA));
    ALLOWED("the former top, mapped writable", writable(root));
    REFUSED("and pinned", EINVAL, pin(LEVELS, root));
    ALLOWED("the table below, unpinned", unpin(below));
    ALLOWED("the L1 table, unpinned", unpin(l1));
    ALLOWED("the L1 table, mapped writable", writable(l1));
}

/* The pin's error at each level when an entry of the lowest table is bad; the entries before it are given back. */
static void bad_leaf(u64 bad, int error, const char *const names[4])
{
    MUST(update(address_of(l1 + 400), bad));
    REFUSED_AT(0, names[0], error, pin(1, l1));
    REFUSED_AT(0, names[1], error, pin(2, l2));
    REFUSED_AT(0, names[2], error, pin(3, l3));
    if (BITS == 64)
        REFUSED_AT(0, names[3], error, pin(4, top));
    MUST(update(address_of(l1 + 400), 0));
}

VARIATION(entries, "an entry that is refused anywhere below refuses the pin")
{
    set_up();
    static const char *const flags[] = {"PCD pinned as L1", "PCD two levels below L2", "PCD below L3", "PCD below L4"};
    static const char *const pats[] = {"PAT as L1", "PAT below L2", "PAT below L3", "PAT below L4"};
    static const char *const rams[] = {"no RAM in L1", "no RAM below L2", "no RAM below L3", "no RAM below L4"};
    static const char *const none[] = {
        "the invalid frame in L1", "the invalid frame below L2", "the invalid frame below L3",
        "the invalid frame below L4"};
    static const char *const frees[] = {
        "nobody's frame in L1", "nobody's frame below L2", "nobody's frame below L3", "nobody's frame below L4"};
    static const char *const selfs[] = {
        "itself writable in L1", "the L1 table writable below L2", "the L1 table writable below L3",
        "the L1 table writable below L4"};
    static const char *const roots[] = {
        "the root writable in L1", "the root writable below L2", "the root writable below L3",
        "the root writable below L4"};
    bad_leaf(address_of(shown) | DATA | PCD, EINVAL, flags);
    bad_leaf(address_of(shown) | DATA | PAT, EINVAL, pats);
    bad_leaf(frame_address(NO_RAM) | DATA_RO, EPERM, rams);
    bad_leaf(frame_address(INVALID_FRAME) | DATA_RO, EINVAL, none);
    bad_leaf(frame_address(nobody) | DATA_RO, EBUSY, frees);
    bad_leaf(address_of(l1) | DATA, EBUSY, selfs);
    bad_leaf(frame_address(root_mfn()) | DATA, EBUSY, roots);
    check_single_reference(shown, "no reference is left");
    /* check_single_reference gave the page another frame. */
    MUST(update(address_of(l1 + 3), address_of(shown) | DATA));
    ALLOWED("the same tree without them", pin(LEVELS, BITS == 64 ? top : l3));
}

VARIATION(upper_entries, "entries of the upper levels")
{
    set_up();
    u64 *tables[5] = {0, l1, l2, l3, top};
    static const struct {
        u64 flag;
        const char *names[3];
    } flags[] = {
        {PSE, {"PSE in an L2 table", "PSE in an L3 table", "PSE in an L4 table"}},
        {PWT, {"PWT in an L2 table", "PWT in an L3 table", "PWT in an L4 table"}},
        {PCD, {"PCD in an L2 table", "PCD in an L3 table", "PCD in an L4 table"}},
        {G, {"G in an L2 table", "G in an L3 table", "G in an L4 table"}},
    };
    static const char *const frames[][3] = {
        {"no RAM in an L2 table", "no RAM in an L3 table", "no RAM in an L4 table"},
        {"a page mapped writable in an L2 table", "one in an L3 table", "one in an L4 table"},
        {"the root in an L2 table", "the root in an L3 table", "the root writable in an L4 table"},
    };
    for (int level = 2; level <= LEVELS; level++) {
        u64 where = address_of(tables[level] + (level == LEVELS ? 1 : 300));
        for (unsigned i = 0; i < 4; i++) {
            MUST(update(where, address_of(other) | TABLE | flags[i].flag));
            REFUSED_AT(0, flags[i].names[level - 2], EINVAL, pin(level, tables[level]));
        }
        u64 bad[3] = {frame_address(NO_RAM), address_of(shown), frame_address(root_mfn())};
        for (unsigned i = 0; i < 3; i++) {
            MUST(update(where, bad[i] | TABLE));
            REFUSED_AT(0, frames[i][level - 2], EINVAL, pin(level, tables[level]));
        }
        MUST(update(where, 0));
    }
    u64 *root = BITS == 64 ? top : l3, *xens = top + (BITS == 64 ? 260 : entry_index(HOLE, 2));
    MUST(update(address_of(xens), address_of(shown) | TABLE | PSE));
    ALLOWED("anything in the slots that are Xen's", pin(LEVELS, root));
    check((*xens & ~ENTRY_FLAGS) != address_of(shown), "Xen has put its own there", "it has not");
    MUST(unpin(root));
}

#if BITS == 32
VARIATION(last_slot, "a root has an L2 table of its own in its last slot, and nothing behind its four")
{
    set_up();
    u64 last = address_of(l3 + 3);
    MUST(update(last, 0));
    REFUSED_AT(0, "none", EINVAL, pin(3, l3));
    MUST(update(last, address_of(l2) | TABLE));
    REFUSED_AT(0, "one that is in another slot, too", EINVAL, pin(3, l3));
    MUST(update(last, frame_address((entry(HOLE, 3) & ~ENTRY_FLAGS) / PAGE) | TABLE));
    REFUSED_AT(0, "that of the root in use", EINVAL, pin(3, l3));
    MUST(update(last, address_of(top) | TABLE | NX));
    REFUSED_AT(0, "one that is not executable", EINVAL, pin(3, l3));
    MUST(update(last, address_of(top) | TABLE));
    MUST(update(address_of(l3 + 4), 0x777));
    ALLOWED("its own", pin(3, l3));
    check(!l3[4], "what was behind the four is gone", "%llx", l3[4]);
    REFUSED("the L2 table in another slot", EINVAL, update(address_of(l3), address_of(top) | TABLE));
    ALLOWED("unpinned", unpin(l3));
    ALLOWED("nothing below is left", writable(top));
    ALLOWED("an L4 table, of which there are none, is no error", mmuext(PIN_L4_TABLE, NO_RAM, 0));
}
#endif
