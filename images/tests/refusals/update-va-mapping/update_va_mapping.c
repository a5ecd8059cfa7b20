/* update_va_mapping changes the L1 entry of an address, where there is one in the current tables.

   That there is none is an answer too: kernels ask in this way which tables are missing. The flush that the flags ask
   for comes after the change, so what is wrong with it is found too late (mm.c: __do_update_va_mapping). */
#include "kit.h"

#define AREA TEST_AREA(2)

static void *target;

static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    make_path(AREA);
    target = page();
    watch(target);
}

VARIATION(addresses, "addresses without an L1 entry")
{
    set_up();
    u64 data = address_of(target) | DATA_RO;
    REFUSED("no entry at the top", EINVAL, map(TEST_AREA(100), data));
    REFUSED("no L3 entry", EINVAL, map(AREA + (1ul << LEVEL_SHIFT(3)), data));
    REFUSED("no L2 entry", EINVAL, map(AREA + (1ul << LEVEL_SHIFT(2)), data));
    REFUSED("no L2 entry, and nothing to map", EINVAL, map(AREA + (1ul << LEVEL_SHIFT(2)), 0));
#if BITS == 64
    REFUSED("the address is none", EINVAL, map(NON_CANONICAL, data));
    REFUSED("an address behind Xen's area, without tables", EINVAL, map(HOLE_END, data));
#endif
    REFUSED("an address below Xen's area", EINVAL, map(HOLE - PAGE, data));
    REFUSED("the M2P", EINVAL, map(HOLE, data));
    REFUSED("the end of Xen's area", EINVAL, map(HOLE_END - PAGE, data));
    ALLOWED("an address that is not aligned", map(AREA + 123, data));
    check_equal(entry(AREA, 1) & ~(u64)(A | D), data & ~(u64)(A | D), "its page is mapped");
}

VARIATION(entries, "what an entry may be")
{
    set_up();
    u64 data = address_of(target) | DATA_RO;
    REFUSED("PAT", EINVAL, map(AREA, data | PAT));
    REFUSED("PWT", EINVAL, map(AREA, data | PWT));
    REFUSED("PCD", EINVAL, map(AREA, data | PCD));
    REFUSED("no RAM", EPERM, map(AREA, frame_address(NO_RAM) | DATA));
    REFUSED("the invalid frame", EINVAL, map(AREA, frame_address(INVALID_FRAME) | DATA));
    REFUSED("nobody's frame", EBUSY, map(AREA, frame_address(nobody) | DATA));
    REFUSED("the root, writable", EBUSY, map(AREA, frame_address(root_mfn()) | DATA));
    REFUSED("its own L1 table, writable", EBUSY, map(AREA, (entry(AREA, 2) & ~ENTRY_FLAGS) | DATA));
    ALLOWED("its own L1 table, readable", map(AREA, (entry(AREA, 2) & ~ENTRY_FLAGS) | DATA_RO));
    REFUSED("another frame in its place, with a bad flag", EINVAL, map(AREA, data | PCD));
    ALLOWED("cleared", map(AREA, 0));
    check_single_reference(target, "the target has one reference");
}

VARIATION(flushes, "which flush")
{
    set_up();
    u64 data = address_of(target) | DATA_RO;
    word one = 1;
    ALLOWED("none", update_va_mapping(AREA, data, UVMF_NONE));
    ALLOWED("all translations", update_va_mapping(AREA, data, UVMF_TLB_FLUSH));
    ALLOWED("one, on all vCPUs", update_va_mapping(AREA, data, UVMF_INVLPG | UVMF_ALL));
    ALLOWED("all, on a list of vCPUs", update_va_mapping(AREA, data, UVMF_TLB_FLUSH | (word)&one));
    ALLOWED("a kind that is not known", update_va_mapping(AREA, data, 3));
    REFUSED("one, on a list that is not mapped", EFAULT, update_va_mapping(AREA, data, UVMF_INVLPG | (AREA + PAGE)));
    REFUSED("all, on a list that is Xen's", EFAULT, update_va_mapping(AREA, data, UVMF_TLB_FLUSH | XENS));
    check_equal(update_va_mapping(AREA, 0, UVMF_INVLPG | (AREA + PAGE)), -EFAULT, "a change with such a list");
    check_equal(entry(AREA, 1), 0, "is made nevertheless");
    REFUSED("a refused entry with such a list", EINVAL,
            update_va_mapping(AREA, data | PCD, UVMF_INVLPG | (AREA + PAGE)));
}

static sword otherdomain(word address, u64 value, word domain)
{
    return hypercall(UPDATE_VA_MAPPING_OTHERDOMAIN, address, VALUE(value), UVMF_INVLPG, domain);
}

VARIATION(domains, "update_va_mapping_otherdomain: whose page it is")
{
    set_up();
    u64 data = address_of(target) | DATA_RO;
    REFUSED("a domain that is not there", ESRCH, otherdomain(AREA, data, NO_DOMAIN));
    REFUSED("the invalid domain", ESRCH, otherdomain(AREA, data, DOMID_INVALID));
    REFUSED("another domain", EPERM, otherdomain(AREA, data, 0));
    REFUSED("Xen", EPERM, otherdomain(AREA, data, DOMID_XEN));
    REFUSED("RAM as I/O memory", EBUSY, otherdomain(AREA, data, DOMID_IO));
    REFUSED("I/O memory without the right", EPERM, otherdomain(AREA, frame_address(NO_RAM) | DATA, DOMID_IO));
    REFUSED("no L1 entry", EINVAL, otherdomain(TEST_AREA(100), data, DOMID_SELF));
    ALLOWED("itself", otherdomain(AREA, data, DOMID_SELF));
}

static void check_stored(const char *name, u64 written, u64 wanted)
{
    u64 frame = address_of(target);
    MUST(map(AREA, frame | written));
    check_entry(entry(AREA, 1), frame | wanted, name);
}

/* The kernel of a 64-bit guest runs in ring 3: what it maps for itself needs US for the CPU, and bit 52 tells it from
   what it maps for user code, which is global; a 32-bit guest's is in ring 1 (mm.c, adjust_guest_l1e). */
VARIATION(stored, "the guest reads back what Xen stored")
{
    set_up();
    const u64 user = BITS == 64 ? G : 0;
    check_stored("a page of the kernel's", P | RW | A, P | RW | A | KERNEL_BITS);
    check_stored("the same written again", P | RW | A | KERNEL_BITS, P | RW | A | KERNEL_BITS);
    check_stored("one for user code", P | RW | US | A, P | RW | US | A | user);
    check_stored("read-only, never to be run", P | A | NX, P | A | NX | KERNEL_BITS);
    check_stored("the guest's own bits", P | A | 0xe00 | 1ull << 62, P | A | 0xe00 | 1ull << 62 | KERNEL_BITS);
    check_stored("G of the guest's own", P | A | G, P | A | G | KERNEL_BITS);
    MUST(map(AREA, 0x123456789abcdeull << 8 & ~(u64)P));
    check_entry(entry(AREA, 1), 0x123456789abcdeull << 8 & ~(u64)P, "what is not present is the guest's own business");
    u64 *l1 = table(), above = address_of(l1);
    MUST(update(entry_address(AREA, 2), above | P | RW | A));
    check_entry(entry(AREA, 2), above | P | RW | A | (BITS == 64 ? US : 0), "a table");
}
