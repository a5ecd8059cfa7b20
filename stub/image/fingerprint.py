"""Which system a kernel is: by what it calls itself, else by how it is linked, else by what it will print.

One row a sign; the names are those that pvstub reports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stub.image.model import Segment, XenParms

GUESTS = (
    ("linux", "linux-pv"),
    ("grub", "grub"),
    ("mini-os", "mini-os"),
    ("netbsd", "netbsd"),
    ("gnu mach", "gnumach"),
    ("solaris", "i86xpv"),
    ("illumos", "i86xpv"),
    ("xtf", "xtf"),
    ("freebsd", "freebsd"),
    ("pvstub", "pvstub"),
)
"""How GUEST_OS begins, in lower case, and the name of the system."""
LINKED = ((0x4000_0000, (0xFFFF_FFFF_FB80_0000, 0xFFFF_FFFF_FBC0_0000), "i86xpv"),)
"""VIRT_BASE, where segments are linked, and the name of the system that does so."""
STRINGS = (
    (re.compile(rb"Linux version \d+\.\d+"), "linux-pv"),
    (re.compile(rb"GNU Mach \d+\.\d+"), "gnumach"),
    (re.compile(rb"GNU GRUB  version"), "grub"),
    (re.compile(rb"NetBSD \d+\.\d+"), "netbsd"),
    (re.compile(rb"SunOS Release "), "i86xpv"),
)
"""What a system's kernel prints at its start, and the name of the system. Looked for when there is no other sign."""
UNKNOWN = "unknown"


class Fingerprint(NamedTuple):
    """The system's name, :data:`UNKNOWN` for one that no table has, and the sign by which it was told."""

    system: str
    sign: str


def fingerprint(parms: XenParms, segments: Sequence[Segment] = (), elf: bytes | memoryview = b"") -> Fingerprint:
    """What the kernel is. ``elf`` is searched only if nothing else tells."""
    name = parms.guest_os.lower()
    for prefix, system in GUESTS:
        if name.startswith(prefix):
            return Fingerprint(system, "by its GUEST_OS")
    linked = {segment.vaddr for segment in segments}
    for base, addresses, system in LINKED:
        if parms.virt_base == base and linked.issuperset(addresses):
            return Fingerprint(system, f"as it is linked to {', '.join(f'{address:#x}' for address in addresses)}")
    for pattern, system in STRINGS:
        found = pattern.search(elf)
        if found:
            return Fingerprint(system, f'as it holds "{found[0].decode()}"')
    return Fingerprint(UNKNOWN, "by no sign that is known")
