"""xen/domctl.h and xen/sysctl.h: what a domU gets to see of the toolstack's calls, which is a refusal."""

from __future__ import annotations

from stub.abi.layout import Struct

# xen_domctl.interface_version, xen_sysctl.interface_version.
XEN_DOMCTL_INTERFACE_VERSION = 0x15
XEN_SYSCTL_INTERFACE_VERSION = 0x15

# domctl commands that need no domain, or take DOMID_INVALID for none, or DOMID_IO.
XEN_DOMCTL_createdomain = 1
XEN_DOMCTL_getdomaininfo = 5
XEN_DOMCTL_assign_device = 37
XEN_DOMCTL_test_assign_device = 45
XEN_DOMCTL_deassign_device = 47
XEN_DOMCTL_vm_event_op = 56
XEN_DOMCTL_gdbsx_guestmemio = 1000

# u is the command's own structure.
XenDomctl = Struct("XenDomctl", 144, cmd=(0, "I"), interface_version=(4, "I"), domain=(8, "H"), u=(16, "128s"))
XenSysctl = Struct("XenSysctl", 136, cmd=(0, "I"), interface_version=(4, "I"), u=(8, "128s"))
