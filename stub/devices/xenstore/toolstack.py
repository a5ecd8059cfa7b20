"""What a toolstack writes for a new domain, in its order and with its permissions (libxl of Xen 4.17).

libxl__domain_make and libxl__build_post (libxl_create.c, libxl_dom.c), libxl__device_generic_add and
libxl__device_console_add (libxl_device.c, libxl_console.c).
"""

from __future__ import annotations

from dataclasses import dataclass

from stub.devices.xenstore import paths
from stub.devices.xenstore.dom0 import Dom0
from stub.devices.xenstore.store import Store

_OWN = ("control/shutdown", "control/feature-poweroff", "control/feature-reboot", "control/feature-suspend",
        "control/sysrq", "device/suspend/event-channel", "data", "drivers", "feature", "attr", "error")  # fmt: skip
_NO_VIDEORAM = -1  # LIBXL_MEMKB_DEFAULT; it is taken off the target all the same
_CONSOLE_LIMIT = 1 << 20  # bytes that xenconsoled keeps


@dataclass(frozen=True)
class Facts:
    """A domain as the toolstack knows it. ``memory`` is in KiB, ``epoch`` in seconds since 1970; frames are MFNs."""

    domid: int
    name: str
    uuid: str
    memory: int
    vcpus: int
    epoch: int
    kernel: str
    ramdisk: str | None
    cmdline: str
    store_mfn: int
    store_port: int
    console_mfn: int
    console_port: int


def populate(store: Store, facts: Facts) -> None:
    """A new domain: write all that it finds in the store before it has devices."""
    store.domains.add(facts.domid)
    dom0 = store.dom0
    _make(dom0, facts)
    _built(dom0, facts)
    _console(dom0, facts)


def add_device(
    dom0: Dom0,
    kind: str,
    domid: int,
    device: int,
    front: dict[str, str],
    back: dict[str, str],
) -> tuple[str, str]:
    """Write a device's two halves, which point at each other; their directories, front end's first.

    The front end's half is the domain's own, the back end's half domain 0's, and each may read the other's.
    """
    frontend = f"{paths.home_of(domid)}/device/{kind}/{device}"
    backend = f"{paths.home_of(0)}/backend/{kind}/{domid}/{device}"
    _half(dom0, frontend, f"n{domid},r0", {"backend": backend, **front})
    _half(dom0, backend, f"n0,r{domid}", {"frontend": frontend, **back})
    _library(dom0, kind, domid, device, frontend, backend, back)
    return frontend, backend


def _half(dom0: Dom0, top: str, permissions: str, values: dict[str, str]) -> None:
    dom0.rm(top)
    dom0.mkdir(top, permissions)
    for name, value in values.items():
        dom0.write(f"{top}/{name}", value)


def _library(dom0: Dom0, kind: str, domid: int, device: int, frontend: str, backend: str, back: dict[str, str]) -> None:
    """libxl's own copy, which no back end can change."""
    top = f"/libxl/{domid}/device/{kind}/{device}"
    for name, value in {"frontend": frontend, "backend": backend, **back}.items():
        dom0.write(f"{top}/{name}", value)


def _make(dom0: Dom0, facts: Facts) -> None:
    """libxl__domain_make"""
    home, vm, library = paths.home_of(facts.domid), f"/vm/{facts.uuid}", f"/libxl/{facts.domid}"
    readable, own = f"n0,r{facts.domid}", f"n{facts.domid}"
    dom0.mkdir(home, readable)
    dom0.mkdir(vm, readable)
    dom0.mkdir(library, "n0")
    dom0.mkdir(f"{library}/device", "n0")
    dom0.write(f"{home}/vm", vm)
    dom0.write(f"{home}/name", facts.name)
    for name in ("cpu", "memory", "device", "control"):
        dom0.mkdir(f"{home}/{name}", readable)
    for name in _OWN:
        dom0.mkdir(f"{home}/{name}", own)
    dom0.write(f"{vm}/uuid", facts.uuid)
    dom0.write(f"{vm}/name", facts.name)
    dom0.write(f"{home}/control/platform-feature-multiprocessor-suspend", 1)
    dom0.write(f"{home}/control/platform-feature-xs_reset_watches", 1)
    dom0.write(f"{library}/type", "pv")


def _built(dom0: Dom0, facts: Facts) -> None:
    """libxl__build_post"""
    home, vm = paths.home_of(facts.domid), f"/vm/{facts.uuid}"
    values: dict[str, str | int] = {
        "memory/static-max": facts.memory,
        "memory/target": facts.memory - _NO_VIDEORAM,
        "memory/videoram": _NO_VIDEORAM,
        "domid": facts.domid,
        "store/port": facts.store_port,
        "store/ring-ref": facts.store_mfn,
    }
    values |= {f"cpu/{vcpu}/availability": "online" for vcpu in range(facts.vcpus)}
    for name, value in values.items():
        dom0.write(f"{home}/{name}", value)
    image = {"image/ostype": "linux", "image/kernel": facts.kernel, "start_time": f"{facts.epoch}.00"}
    if facts.ramdisk is not None:
        image["image/ramdisk"] = facts.ramdisk
    if facts.cmdline:
        image["image/cmdline"] = facts.cmdline
    for name, text in image.items():
        dom0.write(f"{vm}/{name}", text)


def _console(dom0: Dom0, facts: Facts) -> None:
    """The first console, whose front end's half is the toolstack's."""
    domid = facts.domid
    frontend, backend = f"{paths.home_of(domid)}/console", f"{paths.home_of(0)}/backend/console/{domid}/0"
    readable = f"n0,r{domid}"
    dom0.mkdir(frontend, readable)
    dom0.write(f"{frontend}/backend", backend)
    own = {"backend-id": "0", "limit": str(_CONSOLE_LIMIT)}
    fixed = {
        "type": "xenconsoled",
        "output": "pty",
        "tty": "",
        "port": str(facts.console_port),
        "ring-ref": str(facts.console_mfn),
    }
    for name, value in own.items():
        dom0.write(f"{frontend}/{name}", value, f"n{domid},r0")
    for name, value in fixed.items():
        dom0.write(f"{frontend}/{name}", value, readable)
    back = {"frontend-id": str(domid), "online": "1", "state": "1", "protocol": "vt100"}
    _half(dom0, backend, readable, {"frontend": frontend, **back})
    _library(dom0, "console", domid, 0, frontend, backend, back)
