/* mmuext_op but for pins and roots: flushes, the LDT, clearing and copying pages (mm.c: do_mmuext_op). */
#include "kit.h"

#define AREA TEST_AREA(4)

VARIATION(flushes, "flushes of the TLB and of caches")
{
    word all = ~0ul;
    make_path(AREA);
    watch(page());
    ALLOWED("the TLB, here", mmuext(TLB_FLUSH_LOCAL, 0, 0));
    ALLOWED("one translation, here", mmuext(INVLPG_LOCAL, AREA + 7, 0));
    ALLOWED("the TLB, on listed vCPUs, of which most do not exist", mmuext(TLB_FLUSH_MULTI, 0, (word)&all));
    ALLOWED("a translation of Xen's, on all vCPUs", mmuext(INVLPG_ALL, HOLE, 0));
    REFUSED("the TLB, on a list that is not mapped", EINVAL, mmuext(TLB_FLUSH_MULTI, 0, AREA));
    REFUSED("one translation, on such a list", EINVAL, mmuext(INVLPG_MULTI, AREA, AREA));
    REFUSED("one translation, on a list of Xen's", EINVAL, mmuext(INVLPG_MULTI, AREA, XENS));
    REFUSED("the TLB, on no list", EINVAL, mmuext(TLB_FLUSH_MULTI, 0, 0));
    REFUSED("the caches", EACCES, mmuext(FLUSH_CACHE, 0, 0));
    REFUSED("the caches of all CPUs", EINVAL, mmuext(FLUSH_CACHE_GLOBAL, 0, 0));
}

VARIATION(ldt, "where the LDT may be")
{
    make_path(AREA);
    word at = AREA;
    watch(page());
    REFUSED("not aligned", EINVAL, mmuext(SET_LDT, at + 8, 1));
    REFUSED("too many entries", EINVAL, mmuext(SET_LDT, at, 8193));
#if BITS == 64
    REFUSED("at an address that is none", EINVAL, mmuext(SET_LDT, NON_CANONICAL, 1));
    REFUSED("in Xen's area", EINVAL, mmuext(SET_LDT, HOLE, 1));
    REFUSED("at the end of Xen's area", EINVAL, mmuext(SET_LDT, HOLE_END - PAGE, 1));
#else
    ALLOWED("in Xen's area, where it only faults", mmuext(SET_LDT, HOLE, 1));
    ALLOWED("at the end of it", mmuext(SET_LDT, HOLE_END - PAGE, 1));
#endif
    ALLOWED("the most entries", mmuext(SET_LDT, at, 8192));
    ALLOWED("none, at any address", mmuext(SET_LDT, at + 8, 0));
}

VARIATION(pages, "a page to clear or to copy to must be one that can be written to")
{
    u64 *from = page(), *to = page(), *l1 = table();
    word nobody = freed_frame();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    from[3] = 33;
    to[4] = 44;
    watch(from);
    watch(to);
    watch(l1);
    REFUSED("no RAM cleared", EINVAL, mmuext(CLEAR_PAGE, NO_RAM, 0));
    REFUSED("nobody's frame cleared", EINVAL, mmuext(CLEAR_PAGE, nobody, 0));
    REFUSED("an L1 table cleared", EINVAL, mmuext(CLEAR_PAGE, mfn_of(l1), 0));
    REFUSED("the root cleared", EINVAL, mmuext(CLEAR_PAGE, root_mfn(), 0));
    REFUSED("to no RAM", EINVAL, mmuext(COPY_PAGE, NO_RAM, mfn_of(from)));
    REFUSED("from no RAM", EINVAL, mmuext(COPY_PAGE, mfn_of(to), NO_RAM));
    REFUSED("to nobody's frame", EINVAL, mmuext(COPY_PAGE, nobody, mfn_of(from)));
    REFUSED("from nobody's frame", EINVAL, mmuext(COPY_PAGE, mfn_of(to), nobody));
    REFUSED("to an L1 table", EINVAL, mmuext(COPY_PAGE, mfn_of(l1), mfn_of(from)));
    REFUSED("to the root", EINVAL, mmuext(COPY_PAGE, root_mfn(), mfn_of(from)));
    ALLOWED("from the root", mmuext(COPY_PAGE, mfn_of(to), root_mfn()));
    check(to[511] == table_at(root_mfn())[511] && !to[4], "it is copied", "it is not");
    ALLOWED("cleared", mmuext(CLEAR_PAGE, mfn_of(to), 0));
    check_equal(to[511], 0, "it is clear");
    ALLOWED("a page that nothing maps cleared", mmuext(CLEAR_PAGE, mfn_of_pfn(spare_pfn()), 0));
    check_single_reference(from, "no reference to the source is left");
    check_single_reference(to, "no reference to the target is left");
}

VARIATION(lists, "lists of operations")
{
    struct mmuext_op list[4] = {
        {TLB_FLUSH_LOCAL, 0, 0}, {TLB_FLUSH_LOCAL, 0, 0}, {FLUSH_CACHE, 0, 0}, {TLB_FLUSH_LOCAL, 0, 0},
    };
    struct mmuext_op *end = page(), *at = (void *)((word)end + PAGE - sizeof *at);
    void *behind = page();
    watch(end);
    REFUSED_AT(2, "the third of four is refused", EACCES, mmuext_op(list, 4, DOMID_SELF));
    list[2].cmd = 14;
    REFUSED_AT(2, "an operation that is no more", ENOSYS, mmuext_op(list, 4, DOMID_SELF));
    list[2].cmd = 21;
    REFUSED_AT(2, "one that is not yet", ENOSYS, mmuext_op(list, 4, DOMID_SELF));
    list[2].cmd = ~0u;
    REFUSED_AT(2, "the last number", ENOSYS, mmuext_op(list, 4, DOMID_SELF));
    check_equal(mmuext_op(list, 2, DOMID_SELF), 0, "the first two");
    COUNTED(2, "they are counted");
    check_equal(mmuext_op(list, 0, DOMID_SELF), 0, "an empty list");
    COUNTED(0, "it has done nothing");
    check_equal(hypercall(MMUEXT_OP, list, 2, 0, DOMID_SELF), 0, "no place for the count");
    *at = list[0];
    MUST(unmap(behind));
    REFUSED_AT(1, "the second is not mapped", EFAULT, mmuext_op(at, 2, DOMID_SELF));
    REFUSED_AT(0, "no list", EFAULT, mmuext_op(0, 1, DOMID_SELF));
    REFUSED_AT(BITS == 64 ? UNTOUCHED : 0, "a list in Xen's area", EFAULT, mmuext_op((void *)XENS, 1, DOMID_SELF));
#if BITS == 64
    REFUSED_AT(UNTOUCHED, "a list at an address that is none", EFAULT, mmuext_op((void *)NON_CANONICAL, 1, DOMID_SELF));
#endif
    REFUSED_AT(UNTOUCHED, "a domain that is not there", ESRCH, mmuext_op(list, 1, NO_DOMAIN));
    REFUSED_AT(UNTOUCHED, "the invalid domain", ESRCH, mmuext_op(list, 1, DOMID_INVALID));
    REFUSED_AT(UNTOUCHED, "another domain", EPERM, mmuext_op(list, 1, 0));
    REFUSED_AT(UNTOUCHED, "Xen", EPERM, mmuext_op(list, 1, DOMID_XEN));
    REFUSED_AT(UNTOUCHED, "I/O memory", EPERM, mmuext_op(list, 1, DOMID_IO));
    MUST(writable(behind));
}
