/* Which tables can be loaded as a root: frames of the guest's own that are, or can become, tables of the top level
   (new_guest_cr3, do_mmuext_op). `mov %cr3` is the same in the old form; where that is refused it is #GP (pv/emul-priv-op.c). */
#include "kit.h"

static u64 *l1, *below, *data, *bad;

static word nobody; /* a frame without an owner */

static void set_up(void)
{
    nobody = freed_frame();
    l1 = table(), below = table(), bad = table();
    data = page();
    MUST(mmuext(PIN_L1_TABLE, mfn_of(l1), 0));
    MUST(mmuext(PIN_ROOT - 1, mfn_of(below), 0));
    MUST(update(address_of(bad + 1), address_of(l1) | TABLE));
    watch(l1);
    watch(below);
    watch(data);
    watch(bad);
}

static void refused_roots(u32 command, const char *const names[6])
{
    REFUSED_AT(0, names[0], EINVAL, mmuext(command, NO_RAM, 0));
    REFUSED_AT(0, names[1], EINVAL, mmuext(command, nobody, 0));
    REFUSED_AT(0, names[2], EINVAL, mmuext(command, mfn_of(l1), 0));
    REFUSED_AT(0, names[3], EINVAL, mmuext(command, mfn_of(below), 0));
    REFUSED_AT(0, names[4], EINVAL, mmuext(command, mfn_of(data), 0));
    REFUSED_AT(0, names[5], EINVAL, mmuext(command, mfn_of(bad), 0));
}

VARIATION(kernel, "NEW_BASEPTR")
{
    static const char *const names[] = {
        "no RAM", "nobody's frame", "an L1 table", "a table of the level below", "a page mapped writable",
        "a root with an L1 table in it",
    };
    set_up();
    word root = root_mfn();
    refused_roots(NEW_BASEPTR, names);
    REFUSED("frame 0, if it is not ours", EINVAL, mmuext(NEW_BASEPTR, own_frame(0) ? NO_RAM : 0, 0));
    ALLOWED("the one that is loaded", mmuext(NEW_BASEPTR, root, 0));
    check_equal(root_mfn(), root, "it is still loaded");
    check_single_reference(data, "no reference is left");
}

#if BITS == 64
VARIATION(user, "NEW_USER_BASEPTR")
{
    static const char *const first[] = {
        "no RAM at first", "nobody's frame at first", "an L1 table at first", "a table of the level below at first",
        "a page mapped writable at first", "a root with an L1 table in it at first",
    };
    static const char *const later[] = {
        "no RAM later", "nobody's frame later", "an L1 table later", "a table of the level below later",
        "a page mapped writable later", "a root with an L1 table in it later",
    };
    set_up();
    refused_roots(NEW_USER_BASEPTR, first);
    make_user();
    refused_roots(NEW_USER_BASEPTR, later);
    check_equal(user(user_return, 77), 77, "the user root that there was is still used");
    ALLOWED("the same once more", mmuext(NEW_USER_BASEPTR, mfn_of(user_root), 0));
    REFUSED("it cannot be mapped writable", EBUSY, map((word)user_root, address_of(user_root) | DATA));
    ALLOWED("none", mmuext(NEW_USER_BASEPTR, 0, 0));
    ALLOWED("and again", mmuext(NEW_USER_BASEPTR, mfn_of(user_root), 0));
    check_equal(user(user_return, 78), 78, "it is used");
}
#else
VARIATION(user, "NEW_USER_BASEPTR is for 64-bit guests")
{
    set_up();
    REFUSED_AT(0, "the root", EINVAL, mmuext(NEW_USER_BASEPTR, root_mfn(), 0));
    REFUSED_AT(0, "none", EINVAL, mmuext(NEW_USER_BASEPTR, 0, 0));
    REFUSED_AT(0, "no RAM", EINVAL, mmuext(NEW_USER_BASEPTR, NO_RAM, 0));
}
#endif

VARIATION(others, "nobody loads a root for another domain")
{
    set_up();
    struct mmuext_op operation = {NEW_BASEPTR, root_mfn(), 0}, for_user = {NEW_USER_BASEPTR, 0, 0};
    REFUSED_AT(UNTOUCHED, "a domain that is not there", ESRCH, mmuext_op(&operation, 1, NO_DOMAIN));
    REFUSED_AT(UNTOUCHED, "another's", EPERM, mmuext_op(&operation, 1, 0));
    REFUSED_AT(UNTOUCHED, "Xen's", EPERM, mmuext_op(&operation, 1, DOMID_XEN));
    REFUSED_AT(UNTOUCHED, "I/O memory's", EPERM, mmuext_op(&operation, 1, DOMID_IO));
    REFUSED_AT(UNTOUCHED, "a user root of Xen's", EPERM, mmuext_op(&for_user, 1, DOMID_XEN));
}

#define LOAD(mfn) TRY("mov %0, %%cr3", : : "r"((word)frame_address(mfn)) : "memory")

VARIATION(mov_cr3, "mov to CR3")
{
    set_up();
    word root = root_mfn();
    REFUSED_BY_TRAP("mov of no RAM", GP, 0, 0, LOAD(NO_RAM));
    REFUSED_BY_TRAP("mov of nobody's frame", GP, 0, 0, LOAD(nobody));
    REFUSED_BY_TRAP("mov of an L1 table", GP, 0, 0, LOAD(mfn_of(l1)));
    REFUSED_BY_TRAP("mov of a table of the level below", GP, 0, 0, LOAD(mfn_of(below)));
    REFUSED_BY_TRAP("mov of a page mapped writable", GP, 0, 0, LOAD(mfn_of(data)));
    REFUSED_BY_TRAP("mov of a root with an L1 table in it", GP, 0, 0, LOAD(mfn_of(bad)));
    check(!LOAD(root), "mov of the one that is loaded", "trap %u, code %lx", fault.vector, fault.code);
    check_equal(root_mfn(), root, "it is still loaded");
}

VARIATION(second_root, "another root that maps the kernel too, and back; then it is free")
{
    u64 *old = table_at(root_mfn()), *second = page();
    word root = root_mfn();
    watch(page());
#if BITS == 64
    for (int i = 0; i < ENTRIES; i++)
        if (i < 256 || i > 271)
            second[i] = old[i];
#else
    u64 *last = page(), *old_last = table_at((old[3] & ~ENTRY_FLAGS) / PAGE); /* each root has one of its own */
    for (int i = 0; i < entry_index(HOLE, 2); i++)
        last[i] = old_last[i];
    MUST(read_only(last));
    for (int i = 0; i < 3; i++)
        second[i] = old[i];
    second[3] = address_of(last) | P;
#endif
    REFUSED("as long as it is mapped writable", EINVAL, mmuext(NEW_BASEPTR, mfn_of(second), 0));
    MUST(read_only(second));
    ALLOWED("the second root", mmuext(NEW_BASEPTR, mfn_of(second), 0));
    check_equal(root_mfn(), mfn_of(second), "it is loaded");
    REFUSED("it cannot be mapped writable", EBUSY, map((word)second, address_of(second) | DATA));
    ALLOWED("back to the first", mmuext(NEW_BASEPTR, root, 0));
    ALLOWED("the second can be mapped writable", writable(second));
    check_single_reference(second, "no reference to it is left");
}
