"""``cpuid=`` of a configuration and ``--cpuid`` of the command line, in libxl's form (xl.cfg.5).

``host,NAME=0,…`` hides features that the guest would be shown otherwise. What a PV guest of Xen 4.17 is not offered
it does not get by asking either, so that every other value is the same as none.
"""

from __future__ import annotations

from collections.abc import Callable

from stub.abi.cpufeatureset import FEATURES
from stub.errors import ConfigError

SYNTAX = "host[,NAME=0]…"
_VALUES = ("0", "1", "x", "k", "s")


def parse_cpuid(text: str, warn: Callable[[str], None] | None = None) -> tuple[str, ...]:
    """The names of the features that the guest is to be without, in order. ConfigError for what is no such text.

    ``warn`` is told of features that are not known here; without it they are an error, too.
    """
    first, *words = [word.strip() for word in text.split(",")]
    if first != "host":
        raise ConfigError(f"cpuid {text[:40]!r}: it begins with host; use {SYNTAX}")
    hidden = set()
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise ConfigError(f"cpuid: {word[:40]!r} is no NAME=VALUE; use {SYNTAX}")
        if name not in FEATURES:
            known = f"cpuid: {name[:40]!r} cannot be chosen; there are {', '.join(FEATURES)}"
            if warn is None:
                raise ConfigError(known)
            warn(known)
        elif value not in _VALUES:
            raise ConfigError(f"cpuid: {name} is one of {', '.join(_VALUES)}, not {value[:40]!r}")
        elif value == "0":
            hidden.add(name)
    return tuple(name for name in FEATURES if name in hidden)
