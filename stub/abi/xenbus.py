"""xen/io/xenbus.h: the states of a device's two ends; xen/io/protocols.h: whose layout a ring has."""

from __future__ import annotations

from stub.abi.names import value_names

XenbusStateUnknown = 0
XenbusStateInitialising = 1
XenbusStateInitWait = 2
XenbusStateInitialised = 3
XenbusStateConnected = 4
XenbusStateClosing = 5
XenbusStateClosed = 6
XenbusStateReconfiguring = 7
XenbusStateReconfigured = 8

XENBUS_STATES = value_names(globals(), "XenbusState")

XEN_IO_PROTO_ABI_X86_32 = b"x86_32-abi"
XEN_IO_PROTO_ABI_X86_64 = b"x86_64-abi"
