"""xen/grant_table.h: grant entries and grant_table_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# Entries that the domain builder fills.
GNTTAB_NR_RESERVED_ENTRIES = 8
GNTTAB_RESERVED_CONSOLE = 0
GNTTAB_RESERVED_XENSTORE = 1

# Grant entry flags: type in the low two bits.
GTF_invalid = 0
GTF_permit_access = 1
GTF_accept_transfer = 2
GTF_transitive = 3
GTF_type_mask = 3

# Of a GTF_permit_access entry.
GTF_readonly = 1 << 2
GTF_reading = 1 << 3
GTF_writing = 1 << 4
GTF_PWT = 1 << 5
GTF_PCD = 1 << 6
GTF_PAT = 1 << 7
GTF_sub_page = 1 << 8

# Of a GTF_accept_transfer entry.
GTF_transfer_committed = 1 << 2
GTF_transfer_completed = 1 << 3

# grant_table_op commands.
GNTTABOP_map_grant_ref = 0
GNTTABOP_unmap_grant_ref = 1
GNTTABOP_setup_table = 2
GNTTABOP_dump_table = 3
GNTTABOP_transfer = 4
GNTTABOP_copy = 5
GNTTABOP_query_size = 6
GNTTABOP_unmap_and_replace = 7
GNTTABOP_set_version = 8
GNTTABOP_get_status_frames = 9
GNTTABOP_get_version = 10
GNTTABOP_swap_grant_ref = 11
GNTTABOP_cache_flush = 12

GNTTAB_OPS = value_names(globals(), "GNTTABOP_")

# gnttab_map_grant_ref.flags.
GNTMAP_device_map = 1 << 0
GNTMAP_host_map = 1 << 1
GNTMAP_readonly = 1 << 2
GNTMAP_application_map = 1 << 3
GNTMAP_contains_pte = 1 << 4

GNTMAP_guest_avail_mask = 0xFFFF_0000

# gnttab_copy.flags.
GNTCOPY_source_gref = 1 << 0
GNTCOPY_dest_gref = 1 << 1

# gnttab_cache_flush.op.
GNTTAB_CACHE_CLEAN = 1 << 0
GNTTAB_CACHE_INVAL = 1 << 1
GNTTAB_CACHE_SOURCE_GREF = 1 << 31

# Status of one grant operation.
GNTST_okay = 0
GNTST_general_error = -1
GNTST_bad_domain = -2
GNTST_bad_gntref = -3
GNTST_bad_handle = -4
GNTST_bad_virt_addr = -5
GNTST_bad_dev_addr = -6
GNTST_no_device_space = -7
GNTST_permission_denied = -8
GNTST_bad_page = -9
GNTST_bad_copy_arg = -10
GNTST_address_too_big = -11
GNTST_eagain = -12
GNTST_no_space = -13

GNTST_NAMES = value_names(globals(), "GNTST_")

GrantEntryV1 = Struct("GrantEntryV1", 8, flags=(0, "H"), domid=(2, "H"), frame=(4, "I"))

GrantEntryHeader = Struct("GrantEntryHeader", 4, flags=(0, "H"), domid=(2, "H"))

# A union of full_page, sub_page and transitive.
GrantEntryV2 = Struct(
    "GrantEntryV2",
    16,
    flags=(0, "H"),
    domid=(2, "H"),
    full_page_frame=(8, "Q"),
    sub_page_page_off=(4, "H"),
    sub_page_length=(6, "H"),
    sub_page_frame=(8, "Q"),
    transitive_trans_domid=(4, "H"),
    transitive_gref=(8, "I"),
)

GnttabMapGrantRef = Struct(
    "GnttabMapGrantRef",
    32,
    host_addr=(0, "Q"),
    flags=(8, "I"),
    ref=(12, "I"),
    dom=(16, "H"),
    status=(18, "h"),
    handle=(20, "I"),
    dev_bus_addr=(24, "Q"),
)

GnttabUnmapGrantRef = Struct(
    "GnttabUnmapGrantRef",
    24,
    host_addr=(0, "Q"),
    dev_bus_addr=(8, "Q"),
    handle=(16, "I"),
    status=(20, "h"),
)

# frame_list is a guest pointer to xen_pfn_t.
GnttabSetupTable64 = Struct(
    "GnttabSetupTable64",
    24,
    dom=(0, "H"),
    nr_frames=(4, "I"),
    status=(8, "h"),
    frame_list=(16, "Q"),
)
GnttabSetupTable32 = Struct(
    "GnttabSetupTable32",
    16,
    dom=(0, "H"),
    nr_frames=(4, "I"),
    status=(8, "h"),
    frame_list=(12, "I"),
)
GnttabSetupTable = Twin(GnttabSetupTable64, GnttabSetupTable32)

GnttabDumpTable = Struct("GnttabDumpTable", 4, dom=(0, "H"), status=(2, "h"))

GnttabTransfer64 = Struct(
    "GnttabTransfer64",
    24,
    mfn=(0, "Q"),
    domid=(8, "H"),
    ref=(12, "I"),
    status=(16, "h"),
)
GnttabTransfer32 = Struct(
    "GnttabTransfer32",
    16,
    mfn=(0, "I"),
    domid=(4, "H"),
    ref=(8, "I"),
    status=(12, "h"),
)
GnttabTransfer = Twin(GnttabTransfer64, GnttabTransfer32)

# ref and gmfn are a union; GNTCOPY_source_gref and GNTCOPY_dest_gref say which holds.
GnttabCopy64 = Struct(
    "GnttabCopy64",
    40,
    source_ref=(0, "I"),
    source_gmfn=(0, "Q"),
    source_domid=(8, "H"),
    source_offset=(10, "H"),
    dest_ref=(16, "I"),
    dest_gmfn=(16, "Q"),
    dest_domid=(24, "H"),
    dest_offset=(26, "H"),
    len=(32, "H"),
    flags=(34, "H"),
    status=(36, "h"),
)
GnttabCopy32 = Struct(
    "GnttabCopy32",
    24,
    source_ref=(0, "I"),
    source_gmfn=(0, "I"),
    source_domid=(4, "H"),
    source_offset=(6, "H"),
    dest_ref=(8, "I"),
    dest_gmfn=(8, "I"),
    dest_domid=(12, "H"),
    dest_offset=(14, "H"),
    len=(16, "H"),
    flags=(18, "H"),
    status=(20, "h"),
)
GnttabCopy = Twin(GnttabCopy64, GnttabCopy32)

GnttabQuerySize = Struct(
    "GnttabQuerySize",
    16,
    dom=(0, "H"),
    nr_frames=(4, "I"),
    max_nr_frames=(8, "I"),
    status=(12, "h"),
)

GnttabUnmapAndReplace = Struct(
    "GnttabUnmapAndReplace",
    24,
    host_addr=(0, "Q"),
    new_addr=(8, "Q"),
    handle=(16, "I"),
    status=(20, "h"),
)

GnttabSetVersion = Struct("GnttabSetVersion", 4, version=(0, "I"))

GnttabGetStatusFrames64 = Struct(
    "GnttabGetStatusFrames64",
    16,
    nr_frames=(0, "I"),
    dom=(4, "H"),
    status=(6, "h"),
    frame_list=(8, "Q"),
)
GnttabGetStatusFrames32 = Struct(
    "GnttabGetStatusFrames32",
    12,
    nr_frames=(0, "I"),
    dom=(4, "H"),
    status=(6, "h"),
    frame_list=(8, "I"),
)
GnttabGetStatusFrames = Twin(GnttabGetStatusFrames64, GnttabGetStatusFrames32)

GnttabGetVersion = Struct("GnttabGetVersion", 8, dom=(0, "H"), version=(4, "I"))

GnttabSwapGrantRef = Struct("GnttabSwapGrantRef", 12, ref_a=(0, "I"), ref_b=(4, "I"), status=(8, "h"))

GnttabCacheFlush = Struct(
    "GnttabCacheFlush",
    16,
    dev_bus_addr=(0, "Q"),
    ref=(0, "I"),
    offset=(8, "H"),
    length=(10, "H"),
    op=(12, "I"),
)
