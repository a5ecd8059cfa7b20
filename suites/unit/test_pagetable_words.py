"""Page tables in words and pictures: walks, ranges in every style, who maps a frame, counts, maps."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
import zlib

import pytest
from table_builder import DATA, FRAMES, HEAP, KERNEL, MEM, TEXT, USER, Machine, guest, space_of

from stub.errors import UsageError
from stub.memory import entries as e
from stub.memory.formats import LEGACY, LONG, PAE, RAW
from stub.memory.frames import FREE
from stub.trace.pagetables import census, picture, png, ranges, reverse, svg, walks

# -- in words


def test_a_walk_shows_both_entries_and_both_frames() -> None:
    text = "\n".join(walks.lines(space_of(guest().snapshot(7)), TEXT + 0x123))
    lines = text.splitlines()
    assert lines[0] == "snapshot 7 at 0.000000000 s, after 0 hypercalls: virtual 0xffffffff81000123 under " \
        "root 0x40000 (long, mfn 0x40; in use, kernel)"  # fmt: skip
    assert lines[1] == " L4 mfn 0x40 pfn 0x40: type l4 count 1, refs 1, allocated"
    assert lines[2] == "    [0x1ff] at 0x40ff8 = 0000000000041027 -> mfn 0x41 pfn 0x45  P RW US A"
    assert "    [0x000] at 0x43000 = 001000000000a025 -> mfn 0xa pfn 0x32  P US A KERNEL" in lines
    assert "    the guest meant 000000000000a021  P A" in lines
    assert lines[-1] == "machine 0xa123  pseudo-physical 0x32123  kernel r-x"
    ends = list(walks.lines(space_of(guest().snapshot()), 0x1000))
    assert ends[-1] == " ends here: the L2 entry is not present"


def test_a_walk_for_machines() -> None:
    found = walks.as_object(space_of(guest().snapshot()), HEAP)
    assert [level["level"] for level in found["levels"]] == [4, 3, 2, 1]
    assert found["levels"][3]["flags"] == ["P", "RW", "US", "A", "D", "G", "NX"]
    assert found["frame"] == {"mfn": "0x3", "pfn": "0xf", "owner": "local", "type": "none"}
    assert (found["access"], found["mapped"], found["why"]) == ("user rw-", True, None)
    nowhere = walks.as_object(space_of(guest().snapshot()), 0x1000)
    assert (nowhere["mapped"], nowhere["frame"], nowhere["page_size"]) == (False, None, None)


def test_whose_a_frame_is_is_xens_count_and_not_the_guests_tags() -> None:
    machine = guest()
    machine.map(machine.roots[0].maddr, HEAP + 0x2000, FRAMES + 5, USER | e.AVAIL)
    machine.map(machine.roots[0].maddr, HEAP + 0x3000, 5, USER)
    machine.frames.owner[5] = FREE
    snapshot = machine.snapshot()
    assert [walks.whose(snapshot, mfn) for mfn in (3, 5, 121, FRAMES + 5)] == [
        "local",
        "free",
        "Xen",
        "device or nothing",
    ]
    assert list(walks.lines(space_of(snapshot), HEAP + 0x3000))[-1] == " the frame is not the domain's: free"


PTDUMP = """\
0x0000000000400000-0x0000000000401000       4K USR RW                 NX pte  pfn 0xf  \
stored P RW US G NX; meant P RW US NX
0x0000000000401000-0x0000000000402000       4K USR ro                 x  pte  pfn 0x2d  stored P US G; meant P US
0xffffffff81000000-0xffffffff81003000      12K     ro                 x  pte  pfn scattered  stored P US KERNEL; meant P
0xffffffff82000000-0xffffffff8202a000     168K     RW                 NX pte  pfn scattered  \
stored P RW US KERNEL NX; meant P RW NX
"""
MDB = """\
Virtual address 0x400000 maps pfn 0xf (mfn 0x3) noexec mod ref user write
Virtual address 0x401000 maps pfn 0x2d (mfn 0x9) user
Virtual address 0xffffffff81000000 maps pfn 0x32 (mfn 0xa) ref kernel
"""


def test_ranges_in_every_style() -> None:
    space = space_of(guest().snapshot())
    assert "\n".join(list(ranges.lines(space, "ptdump"))[1:]) + "\n" == PTDUMP
    assert "\n".join(ranges.lines(space, "mem")) + "\n" == MEM
    tlb = list(ranges.lines(space, "tlb"))
    assert tlb[0] == "0000000000400000: 0000000000003000 XG-DA--UW"
    assert len(tlb) == 47
    assert "\n".join(list(ranges.lines(space, "mdb"))[1:4]) + "\n" == MDB
    with_xen = list(ranges.lines(space, "mem", xen=True))
    assert "ffff820000000000-ffff820000001000 0000000000001000 Xrwx" in with_xen
    objects = list(ranges.as_objects(space))
    assert objects[1] == {
        "start": "0x401000", "end": "0x402000", "page_size": 4096, "access": "user r-x", "stored": "0x9105",
        "meant": "0x9005", "pfns": ["0x2d", "0x2d"], "mfns": ["0x9", "0x9"],
    }  # fmt: skip


def test_ranges_of_other_formats() -> None:
    """32-bit tables and large pages, as only the guest's own, unseen by Xen, can have them."""
    machine = Machine()
    for fmt, large in ((LEGACY, 1 << 22), (PAE, 1 << 21), (RAW, 1 << 30)):
        root = machine.root(fmt)
        machine.map(root, 0x1000, 5, e.P | e.RW, fmt=fmt)
        machine.map(root, 0x40000000, 0, e.P | e.RW | e.US, fmt=fmt, page=large)
        space = space_of(machine.snapshot(), f"{fmt.name}:{root:#x}")
        assert [(each.start, each.size, each.page, each.access) for each in space.ranges()] == [
            (0x1000, 4096, 4096, "kernel rwx"),
            (0x40000000, large, large, "user rwx"),
        ]
        assert dict(space.page_sizes()) == {4096: 1, large: 1}
        assert "PSE" in list(ranges.lines(space, "ptdump"))[-1]
        assert list(ranges.lines(space, "tlb"))[-1].endswith("--P----UW")
        width = 8 if fmt.width == 32 else 16
        assert next(ranges.lines(space, "mem")) == f"{0x1000:0{width}x}-{0x2000:0{width}x} {0x1000:0{width}x} -rwx"


def test_who_maps_a_frame() -> None:
    machine = guest()
    root = machine.roots[0].maddr
    machine.map(root, HEAP + 0x5000, 20, KERNEL)
    snapshot = machine.snapshot()
    found = {each.vaddrs: each.writable for each in reverse.mappings_of(snapshot, 20)}
    assert found == {((HEAP + 0x5000, root >> 12),): False, ((DATA, root >> 12),): True}
    text = list(reverse.lines(snapshot, 20))
    assert "mfn 0x14 pfn 0x64: type writable count 1" in text[0]
    assert any(
        line.startswith(f" mapped at {DATA:#x}: L1 mfn ") and "L4 0x40 (in use, kernel)" in line for line in text
    )
    assert list(reverse.lines(snapshot, 41 + 64))[-1] == " no page table of the domain maps it"
    table = space_of(snapshot).walk(DATA).steps[-1].table
    assert [each.row.level for each in reverse.mappings_of(snapshot, table)] == [2]
    assert reverse.as_object(snapshot, 20)["pfn"] == "0x64"
    assert reverse.frame_of(snapshot, 0x64) == 20
    for wrong in (FRAMES, -1):
        with pytest.raises(UsageError):
            reverse.mappings_of(snapshot, wrong)
    with pytest.raises(UsageError):
        reverse.frame_of(snapshot, 1 << 40)


def test_tables_pages_and_frames_counted() -> None:
    space = space_of(guest().snapshot())
    assert dict(space.census()) == {4: 1, 3: 2, 2: 2, 1: 3}
    assert dict(space.page_sizes()) == {4096: 47}
    found = census.as_object(space)
    assert found["access"] == {"kernel r-x": 3, "kernel rw-": 42, "user r-x": 1, "user rw-": 1}
    frames = found["frames"]
    assert (frames["writable"], frames["l4"], frames["Xen's"], frames["free"]) == (42, 1, 8, 0)
    assert " pages:  47 of 4K" in list(census.lines(space))


# -- pictures


def test_the_picture_as_svg() -> None:
    drawn = picture.draw(space_of(guest().snapshot(3)))
    tree = ElementTree.fromstring(svg.render(drawn))
    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text or "" for element in tree.iter(f"{name}text")]
    assert any(text.startswith("snapshot 3 at") for text in texts)
    assert "0x400000  8K, a cell is 4K" in texts
    cells = [
        (path.find(f"{name}title").text, path.get("d"))  # type: ignore[union-attr]
        for path in tree.iter(f"{name}path")
    ]
    data = [path for title, path in cells if title == "kernel rw-"]
    assert any(f"h{42 * picture.CELL}v" in (path or "") for path in data), "42 pages of data are one rectangle"
    assert int(tree.get("height") or 0) == drawn.height


def _read_png(data: bytes) -> tuple[int, int, list[tuple[int, ...]], bytes]:
    """A plain reader: size, palette, pixels without the filter bytes."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 3)
    palette = [tuple(chunks[b"PLTE"][i : i + 3]) for i in range(0, len(chunks[b"PLTE"]), 3)]
    lines = zlib.decompress(chunks[b"IDAT"])
    rows = [lines[y * (width + 1) : (y + 1) * (width + 1)] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, palette, b"".join(row[1:] for row in rows)


def test_the_picture_as_png_has_the_same_cells() -> None:
    drawn = picture.draw(space_of(guest().snapshot()))
    width, height, palette, pixels = _read_png(png.render(drawn))
    assert (width, height) == (drawn.width, drawn.height)
    for cells in drawn.cells:
        for y, row in enumerate(cells.kinds):
            for x, kind in enumerate(row.tolist()):
                if kind != 255:
                    place = (cells.y + y * picture.CELL + 1) * width + cells.x + x * picture.CELL + 1
                    assert palette[pixels[place]] == cells.palette[kind][1]
    assert pixels.count(1) > 500, "there is text"


def test_machine_memory_by_type() -> None:
    frames = guest().snapshot().frames
    cells, each = picture.memory_cells(frames)
    flat = cells.reshape(-1)
    names = [picture.TYPES[kind][0] for kind in flat[:FRAMES].tolist()]
    assert each == 1
    assert (names[20], names[64], names[65], names[121], names[0]) == ("writable", "l4", "l3", "Xen's", "none")
    assert (flat[FRAMES:] == 255).all()


def test_an_empty_address_space_is_drawn_too() -> None:
    machine = Machine()
    machine.root(LONG, "in use")
    assert png.render(picture.draw(space_of(machine.snapshot())))
    assert "machine memory" in svg.render(picture.draw(space_of(machine.snapshot())))
