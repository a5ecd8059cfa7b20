"""What may be wrong with a monitor command."""

from __future__ import annotations


class MonitorError(Exception):
    """What is wrong with a command, or why the guest as it is has no answer; a line for the person."""
