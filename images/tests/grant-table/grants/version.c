/* Two versions of entries: the table can be changed over, the first eight entries come along. */
#include "grant.h"

static sword set_version(u32 wanted, u32 *now)
{
    *now = wanted;
    return grant_op(SET_VERSION, now, 1);
}

VARIATION(version, "there and back: what comes along, what is cleared, what is told")
{
    use_table();
    u32 now;
    struct get_version asked = {.dom = DOMID_SELF, .version = 99};
    check_equal(grant_op(GET_VERSION, &asked, 1), 0, "the version is told");
    check_equal(asked.version, 1, "version 1 to begin with");
    struct grant_v1 console = grants[0], store = grants[1];
    check_equal(console.flags, PERMIT_ACCESS | READING | WRITING, "the console's ring is granted and in use");
    check_equal(console.frame, start_info->console_mfn, "its frame");
    check_equal(store.frame, start_info->store_mfn, "the store's frame");
    grant(2, 0x1234, PERMIT_ACCESS | READONLY);
    grant(3, 0x777, ACCEPT_TRANSFER);
    grant(8, 0x4321, PERMIT_ACCESS);
    check_equal(set_version(1, &now), 0, "the same version");
    check_equal(grants[8].frame, 0x4321, "changes nothing");
    check_equal(set_version(0, &now), -EINVAL, "version 0");
    check_equal(now, 1, "the version in use is told");
    check_equal(set_version(3, &now), -EINVAL, "version 3");
    use_version(2);
    check_equal(grants_v2[0].flags, PERMIT_ACCESS, "the console's entry, the flags");
    check_equal(grants_v2[0].frame, console.frame, "the console's entry, the frame");
    check_equal(grants_v2[0].domid, console.domid, "the console's entry, the domain");
    check_equal(statuses[0], READING | WRITING, "the console's entry, its use is in the status word");
    check_equal(grants_v2[2].flags, PERMIT_ACCESS | READONLY, "the third's flags");
    check_equal(grants_v2[2].frame, 0x1234, "the third's frame");
    check_equal(grants_v2[3].flags, ACCEPT_TRANSFER, "the fourth's flags");
    check_equal(grants_v2[8].flags, 0, "the ninth is cleared");
    check_equal(grants_v2[8].frame, 0, "all of it");
    check_equal(grants[511].flags, 0, "to the end of the page");
    check_equal(set_version(1, &now), -EBUSY, "back, while a status frame is mapped");
    check_equal(now, 2, "the version stays");
    check_equal(grants_v2[2].frame, 0x1234, "and the entries");
    MUST(map((word)statuses, 0));
    grant(8, 0x4321, PERMIT_ACCESS);
    check_equal(set_version(1, &now), 0, "back");
    check_equal(grants[0].flags, PERMIT_ACCESS | READING | WRITING, "the console's flags");
    check_equal(grants[0].frame, console.frame, "the console's frame");
    check_equal(grants[2].flags, PERMIT_ACCESS | READONLY, "the third's flags again");
    check_equal(grants[2].frame, 0x1234, "the third's frame again");
    check_equal(grants[3].flags, 0, "what grants no access does not come back");
    check_equal(grants[8].flags, 0, "the ninth is cleared again");
    asked.version = 99;
    MUST(grant_op(GET_VERSION, &asked, 1));
    check_equal(asked.version, 1, "version 1 is told");
}

VARIATION(version_refused, "what cannot be said in version 1 keeps version 2")
{
    use_table();
    u32 now;
    use_version(2);
    MUST(map((word)statuses, 0));
    grant(4, 1ull << 32, PERMIT_ACCESS);
    check_equal(set_version(1, &now), -ERANGE, "a frame of more than 32 bits");
    check_equal(now, 2, "the version stays");
    grant(4, 0, TRANSITIVE);
    check_equal(set_version(1, &now), -ERANGE, "a grant that is passed on");
    check_equal(grants_v2[4].flags, TRANSITIVE, "the entry stays");
    grant(4, 1ull << 32, ACCEPT_TRANSFER);
    check_equal(set_version(1, &now), 0, "what grants no access does not matter");
    check_equal(grants[4].flags, 0, "it is cleared");
    static const struct {
        u16 dom;
        sword rc;
        const char *name;
    } asked[] = {
        {OWN, 0, "of the domain's own number"},
        {NOBODY, -ESRCH, "of nobody"},
        {BACK_ENDS, -EPERM, "of domain 0"},
        {DOMID_IO, -ESRCH, "of DOMID_IO"},
    };
    for (unsigned i = 0; i < 4; i++) {
        struct get_version version = {.dom = asked[i].dom, .version = 99};
        check_equal(grant_op(GET_VERSION, &version, 1), asked[i].rc, asked[i].name);
    }
    check_equal(grant_op(GET_VERSION, (void *)XENS, 1), -EFAULT, "the version, to Xen's part");
    check_equal(grant_op(SET_VERSION, 0, 1), -EFAULT, "a version at 0");
}

VARIATION(version_in_use, "entries in use hold the version, but for the first eight")
{
    use_table();
    u32 now;
    void *granted = page();
    grant(5, mfn_of(granted), PERMIT_ACCESS);
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    check_equal(set_version(2, &now), -EBUSY, "the ninth is in use");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "it is unmapped");
    MUST(map_at(WINDOW, 5, HOST_MAP | MAP_READONLY));
    use_version(2);
    check_equal(statuses[5], READING, "the sixth in use comes along");
    check_equal(grants_v2[5].flags, PERMIT_ACCESS, "its flags do not say so in version 2");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "it is unmapped there");
    check_equal(statuses[5], 0, "its status word says so");
    grant(8, mfn_of(granted), PERMIT_ACCESS);
    MUST(map_at(WINDOW, 8, HOST_MAP));
    check_equal(statuses[8], READING | WRITING, "a mapping in version 2");
    check_equal(grants_v2[8].flags, PERMIT_ACCESS, "leaves the flags");
    check_equal(unmap_at(WINDOW, mapped.handle), OKAY, "unmapped");
    check_equal(statuses[8], 0, "the status word is 0");
    grant(9, mfn_of(granted), PERMIT_ACCESS | READONLY);
    check_equal(map_at(WINDOW, 9, HOST_MAP), GENERAL_ERROR, "a read-only grant, for writing");
    check_equal(statuses[9], 0, "the refusal leaves the status word");
    check_equal(map_at(WINDOW, 256, HOST_MAP), BAD_GNTREF, "a page has 256 entries of version 2");
    check_single_reference(granted, "nothing holds the page");
}
