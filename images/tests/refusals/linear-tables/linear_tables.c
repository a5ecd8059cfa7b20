/* Linear tables: an entry of a table may name a table of the same level, so that the tables appear in memory.

   It must not be writable. It may name the table that it stands in, or another one that is validated; that one must
   have no such entries itself, and the one that it stands in must not be named so (mm.c: get_l2_linear_pagetable and
   its like; the rule against chains is XSA-240's). */
#include "kit.h"

#define HIGHEST (BITS == 64 ? 4 : 2) /* level that can be linear; the root of a 32-bit guest is not */

/* Two tables of each level, the first of which holds the second one's like below it. */
struct level {
    u64 *one, *two, *three;
};
static struct level levels[5];

static sword pin(int level, const void *table)
{
    return mmuext(PIN_L1_TABLE + level - 1, mfn_of(table), 0);
}

static sword unpin(const void *table)
{
    return mmuext(UNPIN_TABLE, mfn_of(table), 0);
}

static void set_up(void)
{
    for (int level = 2; level <= HIGHEST; level++) {
        levels[level] = (struct level){table(), table(), table()};
        watch(levels[level].one);
        watch(levels[level].two);
        watch(levels[level].three);
    }
}

static const char *const of_level[5][20] = {
    {0},
    {0},
    {"L2 names itself, writable", "L2 names itself", "the entry is dropped", "L2 names itself when it is pinned",
     "L2 names itself writable when it is pinned", "L2 names another, writable", "L2 names another",
     "L2 names a table that names another", "an L2 table that is named names another",
     "the two unpinned, the one that is named is still in use", "L2 names a page mapped writable",
     "L2 names another with a bad flag", "no longer in use when the entry is dropped", "L2 names one in two entries"},
    {"L3 names itself, writable", "L3 names itself", "the entry is dropped (L3)", "L3 names itself when it is pinned",
     "L3 names itself writable when it is pinned", "L3 names another, writable", "L3 names another",
     "L3 names a table that names another", "an L3 table that is named names another",
     "the two L3 tables unpinned, the one that is named is still in use", "L3 names a page mapped writable",
     "L3 names another with a bad flag", "L3 is no longer in use when the entry is dropped",
     "L3 names one in two entries"},
    {"L4 names itself, writable", "L4 names itself", "the entry is dropped (L4)", "L4 names itself when it is pinned",
     "L4 names itself writable when it is pinned", "L4 names another, writable", "L4 names another",
     "L4 names a table that names another", "an L4 table that is named names another",
     "the two L4 tables unpinned, the one that is named is still in use", "L4 names a page mapped writable",
     "L4 names another with a bad flag", "L4 is no longer in use when the entry is dropped",
     "L4 names one in two entries"},
};

static void itself(int level)
{
    const char *const *name = of_level[level];
    u64 *one = levels[level].one, where = address_of(one + 20);
    MUST(pin(level, one));
    REFUSED(name[0], EINVAL, update(where, address_of(one) | TABLE));
    ALLOWED(name[1], update(where, address_of(one) | TABLE_RO));
    ALLOWED(name[2], update(where, 0));
    MUST(unpin(one));
    MUST(update(where, address_of(one) | TABLE_RO));
    if (ALLOWED(name[3], pin(level, one)))
        MUST(unpin(one));
    MUST(update(where, address_of(one) | TABLE));
    REFUSED(name[4], EINVAL, pin(level, one));
    MUST(update(where, 0));
}

static void another(int level)
{
    const char *const *name = of_level[level];
    u64 *one = levels[level].one, *two = levels[level].two, *three = levels[level].three;
    void *data = page();
    u64 where = address_of(one + 21);
    MUST(pin(level, one));
    MUST(pin(level, two));
    MUST(pin(level, three));
    REFUSED(name[5], EINVAL, update(where, address_of(two) | TABLE));
    REFUSED(name[10], EINVAL, update(where, address_of(data) | TABLE_RO));
    REFUSED(name[11], EINVAL, update(where, address_of(two) | TABLE_RO | PCD));
    ALLOWED(name[6], update(where, address_of(two) | TABLE_RO));
    ALLOWED(name[13], update(where + 8, address_of(two) | TABLE_RO));
    REFUSED(name[7], EINVAL, update(address_of(three + 22), address_of(one) | TABLE_RO));
    REFUSED(name[8], EINVAL, update(address_of(two + 23), address_of(three) | TABLE_RO));
    MUST(update(where + 8, 0));
    MUST(unpin(two));
    REFUSED(name[9], EBUSY, map((word)two, address_of(two) | DATA));
    MUST(update(where, 0));
    ALLOWED(name[12], writable(two));
    MUST(unpin(one));
    MUST(unpin(three));
}

VARIATION(itself, "a table that names itself")
{
    set_up();
    for (int level = 2; level <= HIGHEST; level++)
        itself(level);
    check_single_reference(levels[2].one, "no reference to the L2 table is left");
    if (HIGHEST >= 3)
        check_single_reference(levels[3].one, "no reference to the L3 table is left");
    if (HIGHEST >= 4)
        check_single_reference(levels[4].one, "no reference to the L4 table is left");
}

VARIATION(another, "a table that names another of its level")
{
    set_up();
    for (int level = 2; level <= HIGHEST; level++)
        another(level);
    check_single_reference(levels[2].two, "no reference to the L2 table is left");
    if (HIGHEST >= 3)
        check_single_reference(levels[3].two, "no reference to the L3 table is left");
    if (HIGHEST >= 4)
        check_single_reference(levels[4].two, "no reference to the L4 table is left");
}

static const char *const when_pinned[5][5] = {
    {0},
    {0},
    {"L2 names another pinned one", "L2 names another writable", "L2 names one that names another",
     "L2 names an empty page", "the empty page as an L2 table"},
    {"L3 names another pinned one", "L3 names another writable", "L3 names one that names another",
     "L3 names an empty page", "the empty page as an L3 table"},
    {"L4 names another pinned one", "L4 names another writable", "L4 names one that names another",
     "L4 names an empty page", "the empty page as an L4 table"},
};

/* The same rules where the entry is there before the table is one. */
static void before_it_is_pinned(int level)
{
    const char *const *name = when_pinned[level];
    u64 *one = levels[level].one, *two = levels[level].two, *three = levels[level].three;
    u64 where = address_of(one + 21);
    MUST(pin(level, two));
    MUST(update(where, address_of(two) | TABLE));
    REFUSED(name[1], EINVAL, pin(level, one));
    MUST(update(where, address_of(two) | TABLE_RO));
    if (ALLOWED(name[0], pin(level, one))) {
        MUST(update(address_of(three + 21), address_of(one) | TABLE_RO));
        REFUSED(name[2], EINVAL, pin(level, three));
        MUST(update(address_of(three + 21), 0));
        MUST(unpin(one));
    }
    MUST(unpin(two));
    /* What is no table yet is made one of the level below, and so is no linear one. */
    MUST(update(where, address_of(three) | TABLE_RO));
    if (ALLOWED(name[3], pin(level, one))) {
        REFUSED(name[4], EINVAL, pin(level, three));
        MUST(unpin(one));
    }
    MUST(update(where, 0));
}

VARIATION(before, "a table that names another before it is one")
{
    set_up();
    for (int level = 2; level <= HIGHEST; level++)
        before_it_is_pinned(level);
    check_single_reference(levels[2].two, "no reference to the L2 table is left");
    if (HIGHEST >= 3)
        check_single_reference(levels[3].two, "no reference to the L3 table is left");
    if (HIGHEST >= 4)
        check_single_reference(levels[4].two, "no reference to the L4 table is left");
}

#if BITS == 64
VARIATION(root, "the root that is in use names itself, and the tables appear")
{
    u64 *root = table_at(root_mfn());
    word address = TEST_AREA(20);
    int slot = entry_index(address, 4);
    watch(page());
    REFUSED("writable", EINVAL, update(frame_address(root_mfn()) + 8 * slot, frame_address(root_mfn()) | TABLE));
    ALLOWED("read-only", update(frame_address(root_mfn()) + 8 * slot, frame_address(root_mfn()) | TABLE_RO));
    word here = address | (word)slot << 30 | (word)slot << 21 | (word)slot << 12;
    u64 last = 0;
    TRY("mov (%1), %0", : "=r"(last) : "r"((u64 *)here + 511));
    check_equal(last, root[511], "its last entry read through itself");
    REFUSED_BY_TRAP("a store through it", PF, 3, here, TRY("movq $0, (%0)", : : "r"(here) : "memory"));
    ALLOWED("dropped", update(frame_address(root_mfn()) + 8 * slot, 0));
}
#else
VARIATION(root, "the root cannot name itself, nor another")
{
    u64 slot = frame_address(root_mfn()) + 8 * 2;
    void *other = table();
    watch(page());
    watch(other);
    REFUSED("itself, writable", EINVAL, update(slot, frame_address(root_mfn()) | TABLE));
    REFUSED("itself, read-only", EINVAL, update(slot, frame_address(root_mfn()) | TABLE_RO));
    ALLOWED("an empty page, as the L2 table that it becomes", update(slot, address_of(other) | TABLE_RO));
    ALLOWED("dropped", update(slot, 0));
}
#endif
