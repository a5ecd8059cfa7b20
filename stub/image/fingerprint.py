"""Which system a kernel is, by what it calls itself. One row a system; the names are those that pvstub reports."""

from __future__ import annotations

from stub.image.model import XenParms

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
)
"""How GUEST_OS begins, in lower case, and the name of the system."""
UNKNOWN = "unknown"


def fingerprint(parms: XenParms) -> str:
    """The system's name; "unknown" for one that the table does not have."""
    name = parms.guest_os.lower()
    return next((system for prefix, system in GUESTS if name.startswith(prefix)), UNKNOWN)
