"""What back ends in domain 0 may do with a guest: its grants, of both versions, and its ports, checked as Xen does."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.guests import Guest
from stub.abi import grant_table as abi
from stub.hypervisor.audit import audit
from stub.hypervisor.backends import Domain0
from stub.hypervisor.event_ports import UNBOUND
from stub.hypervisor.grants import LAYOUTS
from stub.hypervisor.xen import Hypervisor
from stub.units import PAGE_SIZE

pytestmark = pytest.mark.guest("debian-cloud", memory=96)

REF = 20
TREE = "/local/domain"
USED = abi.GTF_reading | abi.GTF_writing


@pytest.fixture
def xen(guest: Guest) -> Hypervisor:
    """A guest before its first instruction."""
    return guest.machine.xen


def entry(xen: Hypervisor, frame: int, flags: int = abi.GTF_permit_access, domid: int = 0) -> None:
    """The guest grants a frame."""
    frames = {"frame": frame} if xen.grants.version == 1 else {"full_page_frame": frame}
    layout = LAYOUTS[xen.grants.version]
    layout.pack_into(
        xen.ram_bytes, xen.grants.frames[0] * PAGE_SIZE + REF * layout.size, flags=flags, domid=domid, **frames
    )


def told(xen: Hypervisor) -> int:
    """What the guest can see of the grant's use: in the entry, or in the status words of version 2."""
    grants = xen.grants
    at = grants.frames[0] * PAGE_SIZE + REF * LAYOUTS[1].size
    if grants.version == 2:
        at = grants.status_frames[0] * PAGE_SIZE + 2 * REF
    return int.from_bytes(xen.ram_bytes[at : at + 2], "little") & USED


def plain_frame(xen: Hypervisor) -> int:
    """A frame of the guest's that nothing uses."""
    return int(xen.domain.p2m[-1])


@pytest.mark.parametrize("version", [1, 2])
def test_a_grant_is_pinned_while_it_is_mapped(xen: Hypervisor, version: int) -> None:
    assert version == 1 or xen.grants.set_version(2) == 0
    dom0, frame = Domain0(xen), plain_frame(xen)
    entry(xen, frame)
    page = dom0.map(REF, readonly=False)
    assert page is not None
    page[:4] = b"data"
    assert xen.ram_bytes[frame * PAGE_SIZE : frame * PAGE_SIZE + 4] == b"data"
    assert told(xen) == USED
    assert dom0.map(REF, readonly=True) is not None
    assert audit(xen) == []
    entry(xen, 0, flags=0) if version == 2 else None  # the guest changes its mind: what is mapped stays
    dom0.unmap(REF, readonly=False)
    assert told(xen) == abi.GTF_reading
    dom0.unmap(REF, readonly=True)
    assert (told(xen), REF in xen.grants.active) == (0, False)
    assert audit(xen) == []


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_granted_is_refused_with_the_reason(xen: Hypervisor, version: int) -> None:
    assert version == 1 or xen.grants.set_version(2) == 0
    dom0, frame, table = Domain0(xen), plain_frame(xen), xen.domain.root
    before = list(xen.domain.frames.refs)
    for made, ref, readonly, why in (
        ((frame, 0, 0), REF, True, "flags 0x0"),
        ((frame, abi.GTF_permit_access, 7), REF, True, "for domain 7"),
        ((frame, abi.GTF_permit_access | abi.GTF_readonly, 0), REF, False, "read-only"),
        ((xen.domain.area.shared_info + 1, abi.GTF_permit_access, 0), REF, True, "not the domain's"),
        ((1 << 31, abi.GTF_permit_access, 0), REF, True, "not the domain's"),
        ((table, abi.GTF_permit_access, 0), REF, False, "in use as a table"),
        ((frame, abi.GTF_permit_access, 0), frame, True, "does it stand where a grant reference belongs?"),
        ((frame, abi.GTF_permit_access, 0), 0xFFFFFFFF, True, "beyond the table"),
    ):
        entry(xen, *made)
        assert dom0.map(ref, readonly=readonly) is None
        assert why in dom0.refusal
        assert told(xen) == 0
    assert list(xen.domain.frames.refs) == before
    assert dom0.map(0, readonly=False) is not None  # the console's page, a second time
    dom0.unmap(0, readonly=False)


def test_a_port_is_bound_once_and_only_if_it_waits_for_domain_0(xen: Hypervisor) -> None:
    dom0, rung = Domain0(xen), []
    port = xen.events.free_port()
    assert port is not None
    assert dom0.connect(port.number, lambda: rung.append(1)) is None
    assert f"port {port.number:#x}" in dom0.refusal
    xen.events.open(port, UNBOUND, remote_domain=xen.domain.domid)
    assert dom0.connect(port.number, lambda: rung.append(1)) is None
    xen.events.close(port)
    xen.events.open(port, UNBOUND)
    end = dom0.connect(port.number, lambda: rung.append(1))
    assert end is not None
    assert dom0.connect(port.number, lambda: rung.append(2)) is None
    xen.events.send(port)
    assert rung == [1]
    end.signal()
    assert xen.events.is_pending(port)
    end.close()
    assert port.state == UNBOUND
    assert dom0.connect(port.number, lambda: rung.append(3)) is not None


def test_xenstore_shows_disks_as_libxl_writes_them(guest: Guest, tmp_path: Path) -> None:
    """Solaris's numbers as they are, kinds and sizes that it insists on."""
    disk, cd = tmp_path / "disk.img", tmp_path / "cd.iso"
    with disk.open("wb") as file:
        file.truncate((8 << 30) + 512)
    cd.write_bytes(bytes(1 << 20))
    xen = guest(disks=[f"file:{disk},0,w", f"file:{cd},6:cdrom,r"]).machine.xen
    dom0 = xen.xenstore.store.dom0
    assert dom0.list(f"{TREE}/1/device/vbd") == ["0", "6"]
    for number, front, back in (
        (0, {"device-type": "disk", "virtual-device": "0"}, {"mode": "w", "removable": "0", "discard-enable": "1"}),
        (6, {"device-type": "cdrom", "virtual-device": "6"}, {"mode": "r", "removable": "1", "params": "cd.iso"}),
    ):
        ends = f"{TREE}/1/device/vbd/{number}", f"{TREE}/0/backend/vbd/1/{number}"
        front |= {"backend": ends[1], "backend-id": "0", "state": "1", "protocol": "x86_64-abi"}
        back |= {"frontend": ends[0], "frontend-id": "1", "online": "1", "state": "2", "hotplug-status": "connected"}
        for top, nodes in zip(ends, (front, back), strict=True):
            assert {name: (dom0.read(f"{top}/{name}") or b"").decode() for name in nodes} == nodes
        assert [dom0.permissions(top) for top in ends] == ["n1,r0", "n0,r1"]
    assert [vbd.image.size for vbd in xen.vbds] == [(8 << 30) + 512, 1 << 20]
    assert disk.stat().st_blocks == 0
