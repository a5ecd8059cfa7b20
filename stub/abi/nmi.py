"""xen/nmi.h: nmi_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# nmi_op commands.
XENNMI_register_callback = 0
XENNMI_unregister_callback = 1

NMI_OPS = value_names(globals(), "XENNMI_")

# arch_shared_info.nmi_reason.
XEN_NMIREASON_io_error = 1 << 0
XEN_NMIREASON_pci_serr = 1 << 1
XEN_NMIREASON_unknown = 1 << 2

XennmiCallback64 = Struct("XennmiCallback64", 16, handler_address=(0, "Q"))
XennmiCallback32 = Struct("XennmiCallback32", 8, handler_address=(0, "I"))
XennmiCallback = Twin(XennmiCallback64, XennmiCallback32)
