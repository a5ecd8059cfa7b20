/* grant_table_op: the call has an error of its own, and each of its operations a status (xen/common/grant_table.c). */
#include "kit.h"

enum {
    map_grant_ref, unmap_grant_ref, setup_table, dump_table, transfer, copy, query_size, unmap_and_replace, set_version,
    get_status_frames, get_version, swap_grant_ref, cache_flush,
};
enum {
    OKAY = 0, GENERAL_ERROR = -1, BAD_DOMAIN = -2, BAD_GNTREF = -3, BAD_HANDLE = -4, BAD_VIRT_ADDR = -5,
    PERMISSION_DENIED = -8, BAD_PAGE = -9, BAD_COPY_ARG = -10,
};
#define NO_REF 0x7ffffff

static sword grant_op(word command, void *operations, word count)
{
    return hypercall(GRANT_TABLE_OP, command, operations, count);
}

/* The call succeeds, the operation has this status, and nothing changed. */
#define STATUS(name, wanted, command, operation)                                              \
    do {                                                                                      \
        (operation).status = 0x77;                                                            \
        audit_before();                                                                       \
        sword result_ = grant_op(command, &(operation), 1);                                   \
        audit_after(name, wanted, result_ ? 1000 + result_ : (operation).status, 0, 0);       \
    } while (0)

VARIATION(calls, "errors of the call")
{
    u64 zeros[16] = {0};
    static const struct {
        word command;
        const char *names[2];
    } pointers[] = {
        {map_grant_ref, {"map, no operations", "map, operations of Xen's"}},
        {unmap_grant_ref, {"unmap, no operations", "unmap, operations of Xen's"}},
        {setup_table, {"setup_table, no operation", "setup_table, one of Xen's"}},
        {transfer, {"transfer, no operations", "transfer, operations of Xen's"}},
        {copy, {"copy, no operations", "copy, operations of Xen's"}},
        {query_size, {"query_size, no operation", "query_size, one of Xen's"}},
        {unmap_and_replace, {"unmap_and_replace, no operations", "unmap_and_replace, operations of Xen's"}},
        {set_version, {"set_version, no operation", "set_version, one of Xen's"}},
        {get_status_frames, {"get_status_frames, no operation", "get_status_frames, one of Xen's"}},
        {get_version, {"get_version, no operation", "get_version, one of Xen's"}},
        {swap_grant_ref, {"swap_grant_ref, no operations", "swap_grant_ref, operations of Xen's"}},
    };
    watch(page());
    for (unsigned i = 0; i < sizeof pointers / sizeof *pointers; i++) {
        REFUSED(pointers[i].names[0], EFAULT, grant_op(pointers[i].command, 0, 1));
        REFUSED(pointers[i].names[1], EFAULT, grant_op(pointers[i].command, (void *)XENS, 1));
    }
    REFUSED("a count below 0", EINVAL, grant_op(map_grant_ref, zeros, ~0u));
    REFUSED("a count below 0 for an unknown command", EINVAL, grant_op(99, zeros, 1u << 31));
    REFUSED("an unknown command", ENOSYS, grant_op(99, zeros, 1));
    REFUSED("setup_table for two", EINVAL, grant_op(setup_table, zeros, 2));
    NO_CHANGE("setup_table for none", BITS == 64 ? -EINVAL : 0, grant_op(setup_table, zeros, 0));
    REFUSED("query_size for two", EINVAL, grant_op(query_size, zeros, 2));
    REFUSED("get_status_frames for two", EINVAL, grant_op(get_status_frames, zeros, 2));
    u32 version = 3;
    REFUSED("version 3", EINVAL, grant_op(set_version, &version, 1));
    version = 0;
    REFUSED("version 0", EINVAL, grant_op(set_version, &version, 1));
    struct { u16 domain, pad; u32 version; } asked = {NO_DOMAIN, 0, 0};
    REFUSED("the version of a domain that is not there", ESRCH, grant_op(get_version, &asked, 1));
    asked.domain = 0;
    REFUSED("the version of another domain", EPERM, grant_op(get_version, &asked, 1));
    ALLOWED("no operations at all", grant_op(map_grant_ref, zeros, 0));
}

VARIATION(tables, "the table's size and frames")
{
    struct { u16 domain, pad; u32 frames; short status; word *list; } setup = {DOMID_SELF, 0, 1, 0, 0};
    struct { u16 domain, pad; u32 frames, most; short status; } size = {NO_DOMAIN, 0, 0, 0, 0};
    word list[128];
    watch(page());
    setup.list = list;
    setup.domain = NO_DOMAIN;
    STATUS("the table of a domain that is not there", BAD_DOMAIN, setup_table, setup);
    setup.domain = 0;
    STATUS("the table of another domain", PERMISSION_DENIED, setup_table, setup);
    setup.domain = DOMID_SELF, setup.frames = 65;
    STATUS("more frames than there may be", GENERAL_ERROR, setup_table, setup);
    setup.frames = 1, setup.list = (word *)HOLE;
    REFUSED("a list of Xen's", EFAULT, grant_op(setup_table, &setup, 1));
    STATUS("the size of a domain's that is not there", BAD_DOMAIN, query_size, size);
    size.domain = 0;
    STATUS("the size of another's", PERMISSION_DENIED, query_size, size);
}

VARIATION(maps, "grants that cannot be mapped, and handles that are none")
{
    struct { u64 address; u32 flags, ref; u16 domain; short status; u32 handle; u64 bus; } map = {0};
    struct { u64 address, bus; u32 handle; short status; } unmap = {0};
    word area = TEST_AREA(7);
    make_path(area);
    watch(page());
    map.address = area;
    STATUS("neither for the host nor for a device", BAD_GNTREF, map_grant_ref, map);
    map.flags = 2, map.domain = NO_DOMAIN;
    STATUS("a domain that is not there", BAD_DOMAIN, map_grant_ref, map);
    map.domain = DOMID_INVALID;
    STATUS("the invalid domain", BAD_DOMAIN, map_grant_ref, map);
    unmap.address = area, unmap.handle = 0;
    STATUS("handle 0 before there is one", BAD_HANDLE, unmap_grant_ref, unmap);
    unmap.handle = ~0u;
    STATUS("the last handle", BAD_HANDLE, unmap_grant_ref, unmap);
    struct { u64 address, replacement; u32 handle; short status; } replace = {area, area, 0, 0};
    STATUS("handle 0 replaced", BAD_HANDLE, unmap_and_replace, replace);
    struct { u32 a, b; short status; } swap = {NO_REF, 8, 0};
    STATUS("a reference past all swapped", BAD_GNTREF, swap_grant_ref, swap);
}

struct end {
    word place; /* a frame or a reference */
    u16 domain, offset;
};
struct copy_operation {
    struct end from, to;
    u16 length, flags;
    short status;
};
enum { FROM_REF = 1, TO_REF = 2 };

VARIATION(copies, "what cannot be copied")
{
    u64 *from = page(), *to = page();
    void *typed = table();
    word nobody = freed_frame();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(typed), 0));
    from[0] = 11;
    watch(from);
    watch(to);
    watch(typed);
    struct copy_operation good = {{mfn_of(from), DOMID_SELF, 0}, {mfn_of(to), DOMID_SELF, 0}, 8, 0, 0}, bad;
    bad = good, bad.from.place = NO_RAM;
    STATUS("from no RAM", BAD_PAGE, copy, bad);
    bad = good, bad.to.place = NO_RAM;
    STATUS("to no RAM", BAD_PAGE, copy, bad);
    bad = good, bad.from.place = nobody;
    STATUS("from nobody's frame", BAD_PAGE, copy, bad);
    bad = good, bad.to.place = nobody;
    STATUS("to nobody's frame", BAD_PAGE, copy, bad);
    bad = good, bad.from.domain = 0;
    STATUS("from a frame of another domain", PERMISSION_DENIED, copy, bad);
    bad = good, bad.to.domain = 0;
    STATUS("to a frame of another domain", PERMISSION_DENIED, copy, bad);
    bad = good, bad.flags = FROM_REF, bad.from.domain = NO_DOMAIN;
    STATUS("from a domain that is not there", BAD_DOMAIN, copy, bad);
    bad = good, bad.flags = FROM_REF, bad.from.place = NO_REF;
    STATUS("from a reference past all", BAD_GNTREF, copy, bad);
    bad = good, bad.from.offset = PAGE - 4;
    STATUS("across the source's end", BAD_COPY_ARG, copy, bad);
    bad = good, bad.to.offset = PAGE - 7;
    STATUS("across the target's end", BAD_COPY_ARG, copy, bad);
    bad = good, bad.to.place = mfn_of(typed);
    STATUS("to a page table", GENERAL_ERROR, copy, bad);
    good.status = 0x77;
    MUST(grant_op(copy, &good, 1));
    check_equal(good.status, OKAY, "a good one");
    check_equal(to[0], 11, "it is copied");
    check_single_reference(from, "no reference to the source is left");
    check_single_reference(to, "no reference to the target is left");
}
