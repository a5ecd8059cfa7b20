"""Which engine runs a guest: by name, with what each needs of the domain, and what each cannot do."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from stub.engine.base import Engine

_LACKS = {"qemu": frozenset({"branches", "identity", "segments", "watches"}), "unicorn": frozenset({"avx"})}


def lacks(name: str) -> frozenset[str]:
    """What an engine cannot do that another can (docs/engines.md)."""
    return _LACKS[name]


def hidden_frames(name: str) -> int:
    """How many frames behind the guest's the engine needs for itself; EngineError if it is not there."""
    if name != "qemu":
        return 0
    from stub.engine.qemu import QemuEngine

    return QemuEngine.hidden


def make(
    name: str,
    accel: str,
    features: tuple[str, ...],
    ram: mmap.mmap,
    file: int,
    entries: int,
    fetch: Callable[[int, int], bytes],
    is_64bit: Callable[[], bool],
) -> Engine:
    """The engine of that name on memory ``ram``; ``accel`` is what QEMU is to run with: tcg or kvm.

    ``features`` are names of what its CPU may have beyond what every engine's has (stub/abi/cpufeatureset.py).

    ``file`` and ``entries`` are of memory with hidden frames: the file that it is, and the machine address of the
    page-table entries that map them. ``fetch(vaddr, size)`` reads guest code, and ``is_64bit`` says of which width.
    """
    if name == "qemu":
        from stub.engine.qemu import QemuEngine

        return QemuEngine(ram, file, entries, accel, features)
    from stub.engine.unicorn import UnicornEngine

    return UnicornEngine(ram, fetch, is_64bit)
