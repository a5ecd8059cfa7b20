/* The kit's own comparison sees what it is there to see: here calls that change something pretend to be refusals, and
   each of the checks has to fail. */
#include "kit.h"

#define AREA TEST_AREA(1)

static u64 *seen, *made;
static word spare;

static void set_up(void)
{
    make_path(AREA);
    seen = page();
    made = table();
    spare = spare_pfn();
    watch(seen);
    watch(made);
}

VARIATION(result, "another result")
{
    set_up();
    REFUSED("another error", EPERM, map(AREA, address_of(seen) | DATA | PCD));
    REFUSED("no error", EINVAL, map(AREA, 0));
}

static sword map_and_fail(u64 flags)
{
    MUST(map(AREA, address_of(seen) | flags));
    return -EINVAL;
}

VARIATION(entry, "an entry of a page table")
{
    set_up();
    REFUSED("a new entry", EINVAL, map_and_fail(DATA_RO));
    REFUSED("a flag", EINVAL, map_and_fail(DATA_RO | NX));
    check_equal(map_and_fail(DATA_RO | NX | D), -EINVAL, "the CPU's flags");
    REFUSED("but for those", EINVAL, map_and_fail(DATA_RO | NX));
}

static sword change_and_fail(int what)
{
    u16 self = DOMID_SELF;
    word mfn = mfn_of_pfn(spare);
    struct memory_reservation list = {.extent_start = &mfn, .nr_extents = 1, .domid = DOMID_SELF};
    switch (what) {
    case 0:
        MUST(update(address_of(seen) | MACHPHYS_UPDATE, 3));
        break;
    case 1:
        seen[9]++;
        break;
    case 2:
        MUST(mmuext(PIN_L1_TABLE, mfn_of(made), 0));
        break;
    case 3:
        memory_op(XENMEM_decrease_reservation, &list);
        break;
    case 4:
        done = 3;
        return memory_op(XENMEM_current_reservation, &self) ? -EINVAL : 0;
    }
    done = UNTOUCHED;
    return -EINVAL;
}

VARIATION(other_changes, "numbers, contents, types, sizes, counts")
{
    set_up();
    REFUSED("a content", EINVAL, change_and_fail(1));
    REFUSED("a type", EINVAL, change_and_fail(2));
    REFUSED("a size", EINVAL, change_and_fail(3));
    REFUSED("a count", EINVAL, change_and_fail(4));
    REFUSED_AT(2, "another count", EINVAL, change_and_fail(4));
    REFUSED("a number", EINVAL, change_and_fail(0));
}

VARIATION(left_over, "references and types that are left over")
{
    set_up();
    MUST(map(AREA, address_of(seen) | DATA));
    check_untyped(seen, "a type");
    check_single_reference(seen, "a reference");
    MUST(map(AREA, 0));
    check_untyped(seen, "no type");
    check_single_reference(seen, "no reference");
}

VARIATION(traps, "traps that are others, or none")
{
    set_up();
    REFUSED_BY_TRAP("none", PF, 2, 0, TRY("nop", : : : ));
    REFUSED_BY_TRAP("another one", PF, 2, 16, TRY("ud2", : : : ));
    REFUSED_BY_TRAP("another address", PF, 2, 16, TRY("movb $0, (%0)", : : "r"(24ul) : "memory"));
    REFUSED_BY_TRAP("another code", PF, 3, 24, TRY("movb $0, (%0)", : : "r"(24ul) : "memory"));
    REFUSED_BY_TRAP("in another place", UD, 0, 0, TRY("nop; ud2", : : : ));
    REFUSED_BY_TRAP("the right one", PF, 2, 24, TRY("movb $0, (%0)", : : "r"(24ul) : "memory"));
}
