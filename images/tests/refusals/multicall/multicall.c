/* multicall: each call has its own result, and a call that fails does not stop the others (xen/common/multicall.c). */
#include "kit.h"

enum { OLD = 0x7777 };

static sword multicall(const struct multicall_entry *list, word count)
{
    return hypercall(MULTICALL, list, count);
}

VARIATION(results, "one result each")
{
    void *shown = page();
    watch(shown);
    struct multicall_entry list[5] = {
        {XEN_VERSION, OLD, {0}},
        {UPDATE_VA_MAPPING, OLD, {(word)shown, VALUE(frame_address(root_mfn()) | DATA), UVMF_INVLPG}},
        {9999, OLD, {0}},
        {MULTICALL, OLD, {(word)list, 1}},
        {XEN_VERSION, OLD, {0}},
    };
    NO_CHANGE("some of five fail", 0, multicall(list, 5));
    check_equal(list[0].result, 4 << 16 | 17, "the first's result");
    check_equal(list[1].result, -EBUSY, "an entry that is refused");
    check_equal(list[2].result, -ENOSYS, "a number that is no call's");
    check_equal(list[3].result, -EINVAL, "a multicall within");
    check_equal(list[4].result, 4 << 16 | 17, "the last's result");
    list[0].result = OLD;
    check_equal(multicall(list, 0), 0, "an empty list");
    check_equal(list[0].result, OLD, "does nothing");
#if BITS == 64
    list[0].op = 1ul << 32 | XEN_VERSION;
    MUST(multicall(list, 1));
    check_equal(list[0].result, -ENOSYS, "all of a number counts");
#endif
}

VARIATION(pointers, "where the list may be")
{
    struct multicall_entry *at = page();
    void *behind = page();
    watch(page());
    at = (void *)((word)at + PAGE - sizeof *at);
    REFUSED("no list", EFAULT, multicall(0, 1));
    REFUSED("a list of Xen's", EFAULT, multicall((void *)XENS, 1));
#if BITS == 64
    REFUSED("a list at an address that is none", EFAULT, multicall((void *)NON_CANONICAL, 1));
#endif
    REFUSED("a list that is not mapped", EFAULT, multicall((void *)TEST_AREA(9), 1));
    *at = (struct multicall_entry){XEN_VERSION, OLD, {0}};
    MUST(unmap(behind));
    REFUSED("a list whose second call is not mapped", EFAULT, multicall(at, 2));
    check_equal(at->result, 4 << 16 | 17, "the first is made");
    at->result = OLD;
    MUST(read_only(at));
    check_equal(multicall(at, 1), -EFAULT, "a list that is read-only");
    check_equal(at->result, OLD, "the result is not there");
    MUST(writable(behind));
}
