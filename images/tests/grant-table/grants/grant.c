/* What the tests of grant_table_op share. */
#include "grant.h"

#define TABLE_AT TEST_AREA(3)
#define STATUS_AT (TABLE_AT + 0x10000)

volatile struct grant_v1 *grants = (void *)TABLE_AT;
volatile u16 *statuses = (void *)STATUS_AT;
struct map_grant_ref mapped;
static u32 version = 1;

sword grant_op(word command, void *list, word count)
{
    return hypercall(GRANT_TABLE_OP, command, list, count);
}

void use_table(void)
{
    word frame = 0;
    struct setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = (word)&frame};
    MUST(grant_op(SETUP_TABLE, &setup, 1));
    MUST(setup.status);
    make_path(TABLE_AT);
    make_path(WINDOW);
    MUST(map(TABLE_AT, frame_address(frame) | DATA));
}

void use_version(u32 wanted)
{
    u64 frame = 0;
    struct get_status_frames status = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = (word)&frame};
    u32 asked = wanted;
    MUST(grant_op(SET_VERSION, &asked, 1));
    version = wanted;
    if (version == 2) {
        MUST(grant_op(GET_STATUS_FRAMES, &status, 1));
        MUST(status.status);
        MUST(map(STATUS_AT, frame_address(frame) | DATA));
    }
}

void grant(u32 ref, u64 mfn, u16 flags)
{
    if (version == 1) {
        grants[ref].frame = mfn;
        grants[ref].domid = OWN;
        grants[ref].flags = flags;
    } else {
        grants_v2[ref].frame = mfn;
        grants_v2[ref].domid = OWN;
        grants_v2[ref].flags = flags;
    }
}

sword map_at(u64 address, u32 ref, u32 flags)
{
    mapped = (struct map_grant_ref){.host_addr = address, .flags = flags, .ref = ref, .dom = OWN, .handle = 0xdead};
    MUST(grant_op(MAP_GRANT_REF, &mapped, 1));
    return mapped.status;
}

sword unmap_at(u64 address, u32 handle)
{
    struct unmap_grant_ref unmap = {.host_addr = address, .handle = handle, .status = 99};
    MUST(grant_op(UNMAP_GRANT_REF, &unmap, 1));
    return unmap.status;
}
