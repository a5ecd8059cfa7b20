"""xen/io/blkif.h: a disk's shared ring, its requests and responses; xen/io/ring.h for the ring's head."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

BLKIF_OP_READ = 0
BLKIF_OP_WRITE = 1
BLKIF_OP_WRITE_BARRIER = 2
BLKIF_OP_FLUSH_DISKCACHE = 3
BLKIF_OP_RESERVED_1 = 4
BLKIF_OP_DISCARD = 5
BLKIF_OP_INDIRECT = 6

BLKIF_OPS = value_names(globals(), "BLKIF_OP_")

BLKIF_DISCARD_SECURE = 1 << 0

BLKIF_MAX_SEGMENTS_PER_REQUEST = 11
BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8

BLKIF_RSP_OKAY = 0
BLKIF_RSP_ERROR = -1
BLKIF_RSP_EOPNOTSUPP = -2

# The bits of the back end's ``info`` node.
VDISK_CDROM = 1 << 0
VDISK_REMOVABLE = 1 << 1
VDISK_READONLY = 1 << 2

# The ring's head; the slots follow, each as large as a request. Its size here is that of one with a single slot.
BlkifSring64 = Struct(
    "BlkifSring64", 176, req_prod=(0, "I"), req_event=(4, "I"), rsp_prod=(8, "I"), rsp_event=(12, "I")
)
BlkifSring32 = Struct(
    "BlkifSring32", 172, req_prod=(0, "I"), req_event=(4, "I"), rsp_prod=(8, "I"), rsp_event=(12, "I")
)
BlkifSring = Twin(BlkifSring64, BlkifSring32)

BlkifRequestSegment = Struct("BlkifRequestSegment", 8, gref=(0, "I"), first_sect=(4, "B"), last_sect=(5, "B"))

# ``seg`` are the bytes of eleven BlkifRequestSegment.
BlkifRequest64 = Struct(
    "BlkifRequest64",
    112,
    operation=(0, "B"),
    nr_segments=(1, "B"),
    handle=(2, "H"),
    id=(8, "Q"),
    sector_number=(16, "Q"),
    seg=(24, "88s"),
)
BlkifRequest32 = Struct(
    "BlkifRequest32",
    108,
    operation=(0, "B"),
    nr_segments=(1, "B"),
    handle=(2, "H"),
    id=(4, "Q"),
    sector_number=(12, "Q"),
    seg=(20, "88s"),
)
BlkifRequest = Twin(BlkifRequest64, BlkifRequest32)

BlkifRequestDiscard64 = Struct(
    "BlkifRequestDiscard64",
    32,
    operation=(0, "B"),
    flag=(1, "B"),
    handle=(2, "H"),
    id=(8, "Q"),
    sector_number=(16, "Q"),
    nr_sectors=(24, "Q"),
)
BlkifRequestDiscard32 = Struct(
    "BlkifRequestDiscard32",
    28,
    operation=(0, "B"),
    flag=(1, "B"),
    handle=(2, "H"),
    id=(4, "Q"),
    sector_number=(12, "Q"),
    nr_sectors=(20, "Q"),
)
BlkifRequestDiscard = Twin(BlkifRequestDiscard64, BlkifRequestDiscard32)

BlkifRequestIndirect64 = Struct(
    "BlkifRequestIndirect64",
    64,
    operation=(0, "B"),
    indirect_op=(1, "B"),
    nr_segments=(2, "H"),
    id=(8, "Q"),
    sector_number=(16, "Q"),
    handle=(24, "H"),
    indirect_grefs=(28, "8I"),
)
BlkifRequestIndirect32 = Struct(
    "BlkifRequestIndirect32",
    64,
    operation=(0, "B"),
    indirect_op=(1, "B"),
    nr_segments=(2, "H"),
    id=(4, "Q"),
    sector_number=(12, "Q"),
    handle=(20, "H"),
    indirect_grefs=(24, "8I"),
)
BlkifRequestIndirect = Twin(BlkifRequestIndirect64, BlkifRequestIndirect32)

BlkifResponse64 = Struct("BlkifResponse64", 16, id=(0, "Q"), operation=(8, "B"), status=(10, "h"))
BlkifResponse32 = Struct("BlkifResponse32", 12, id=(0, "Q"), operation=(8, "B"), status=(10, "h"))
BlkifResponse = Twin(BlkifResponse64, BlkifResponse32)
