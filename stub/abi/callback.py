"""xen/callback.h: callback_op."""

from __future__ import annotations

from stub.abi.layout import Struct, Twin
from stub.abi.names import value_names

# callback_op commands.
CALLBACKOP_register = 0
CALLBACKOP_unregister = 1

CALLBACK_OPS = value_names(globals(), "CALLBACKOP_")

# Which entry point.
CALLBACKTYPE_event = 0
CALLBACKTYPE_failsafe = 1
CALLBACKTYPE_syscall = 2
CALLBACKTYPE_sysenter_deprecated = 3
CALLBACKTYPE_nmi = 4
CALLBACKTYPE_sysenter = 5
CALLBACKTYPE_syscall32 = 7

CALLBACK_TYPES = value_names(globals(), "CALLBACKTYPE_")

# callback_register.flags: entering the callback masks events.
CALLBACKF_mask_events = 1 << 0

CallbackRegister64 = Struct("CallbackRegister64", 16, type=(0, "H"), flags=(2, "H"), address=(8, "Q"))
CallbackRegister32 = Struct(
    "CallbackRegister32",
    12,
    type=(0, "H"),
    flags=(2, "H"),
    address_cs=(4, "I"),
    address_eip=(8, "I"),
)
CallbackRegister = Twin(CallbackRegister64, CallbackRegister32)

CallbackUnregister = Struct("CallbackUnregister", 4, type=(0, "H"))
