"""The packet families, one file each. Importing this fills the registry."""

from stub.gdb.handlers import files, memory, qemu, queries, registers, resume, stop_points, transfers
from stub.gdb.handlers.registry import REGISTRY, BadRequest

__all__ = [
    "REGISTRY",
    "BadRequest",
    "files",
    "memory",
    "qemu",
    "queries",
    "registers",
    "resume",
    "stop_points",
    "transfers",
]
