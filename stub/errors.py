"""What can go wrong, by whose fault. Each message names the thing, the place and the remedy, in one line.

A guest's fault is never an exception that reaches the user as one: it is an error number, a trap or a verdict.
"""

from __future__ import annotations


class PvstubError(Exception):
    """Base of every error that is shown to the user as one line (exit status ``status``)."""

    status = 1


class UsageError(PvstubError):
    """The caller asked for something that cannot be: a bad option, name, path or combination."""

    status = 2


class ImageError(PvstubError):
    """A kernel or ramdisk file that cannot be booted: names the file, the fault and the remedy."""

    status = 2


class ConfigError(PvstubError):
    """A domain configuration that cannot be honoured."""

    status = 2


class EngineError(PvstubError):
    """The CPU engine is missing, of an unknown build, or failed; never the guest's fault."""

    status = 1
