"""xen/io/console.h: the console's shared page."""

from __future__ import annotations

from stub.abi.layout import Struct

# Indexes run freely; a byte lies at index & (ring size - 1).
XenconsInterface = Struct(
    "XenconsInterface",
    3088,
    in_=(0, "1024s"),
    out=(1024, "2048s"),
    in_cons=(3072, "I"),
    in_prod=(3076, "I"),
    out_cons=(3080, "I"),
    out_prod=(3084, "I"),
)
