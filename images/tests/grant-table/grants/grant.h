/* grant_table_op, as these tests use it: a domain grants pages to itself, by its own number. */
#pragma once
#include "kit.h"

enum { OWN = 1, NOBODY = 77, BACK_ENDS = 0 }; /* domain numbers: pvstub's guest is domain 1 */
enum {
    MAP_GRANT_REF = 0, UNMAP_GRANT_REF, SETUP_TABLE, DUMP_TABLE, TRANSFER, COPY, QUERY_SIZE, UNMAP_AND_REPLACE,
    SET_VERSION, GET_STATUS_FRAMES, GET_VERSION, SWAP_GRANT_REF, CACHE_FLUSH,
};
enum {
    PERMIT_ACCESS = 1, ACCEPT_TRANSFER = 2, TRANSITIVE = 3, READONLY = 4, READING = 8, WRITING = 16, SUB_PAGE = 256,
    TRANSFER_COMMITTED = 4, TRANSFER_COMPLETED = 8,
};
enum { DEVICE_MAP = 1, HOST_MAP = 2, MAP_READONLY = 4, APPLICATION_MAP = 8, CONTAINS_PTE = 16, AVAIL0 = 1 << 16 };
enum { SOURCE_GREF = 1, DEST_GREF = 2 };
enum { ILLEGAL_SEQUENCE = 84 }; /* EILSEQ */
enum {
    OKAY = 0, GENERAL_ERROR = -1, BAD_DOMAIN = -2, BAD_GNTREF = -3, BAD_HANDLE = -4, BAD_VIRT_ADDR = -5,
    PERMISSION_DENIED = -8, BAD_PAGE = -9, BAD_COPY_ARG = -10, BUSY = -12,
};

struct grant_v1 {
    u16 flags, domid;
    u32 frame;
};
struct grant_v2 {
    u16 flags, domid, start, length;
    u64 frame;
};
struct map_grant_ref {
    u64 host_addr;
    u32 flags, ref;
    u16 dom;
    short status;
    u32 handle;
    u64 dev_bus_addr;
};
struct unmap_grant_ref {
    u64 host_addr, dev_bus_addr;
    u32 handle;
    short status;
};
struct unmap_and_replace {
    u64 host_addr, new_addr;
    u32 handle;
    short status;
};
struct setup_table {
    u16 dom;
    u32 nr_frames;
    short status;
    word frame_list;
};
struct query_size {
    u16 dom;
    u32 nr_frames, max_nr_frames;
    short status;
};
struct get_status_frames {
    u32 nr_frames;
    u16 dom;
    short status;
    u64 frame_list;
};
struct get_version {
    u16 dom;
    u32 version;
};
struct swap_grant_ref {
    u32 a, b;
    short status;
};
struct copy_end {
    union {
        u32 ref;
        word gmfn;
    };
    u16 domid, offset;
};
struct grant_copy {
    struct copy_end source, dest;
    u16 len, flags;
    short status;
};
struct transfer {
    word mfn;
    u16 domid;
    u32 ref;
    short status;
};
struct cache_flush {
    u64 address;
    u16 offset, length;
    u32 op;
};

/* The table's first frame as the guest sees it, after use_table(); entries 8 and up are the test's. */
extern volatile struct grant_v1 *grants;
#define grants_v2 ((volatile struct grant_v2 *)grants)
extern volatile u16 *statuses; /* after use_version(2) */
void use_table(void);
void use_version(u32 version);
void grant(u32 ref, u64 mfn, u16 flags); /* for the domain itself, in the version in use */
sword grant_op(word command, void *list, word count);

#define WINDOW TEST_AREA(2) /* where grants are mapped, after use_table() */
sword map_at(u64 address, u32 ref, u32 flags); /* its status; the answer is in `mapped` */
extern struct map_grant_ref mapped;
sword unmap_at(u64 address, u32 handle);
