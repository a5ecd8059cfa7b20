"""The table of hypercalls: number → handler, filled by the family files, duplicates refused.

A handler takes the hypervisor and five argument words and returns the result as a signed number, or None where it
has set the registers itself (iret). What it read from the guest it leaves in ``xen.payload`` for the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec

from stub.abi.xen import Hypercall
from stub.hypervisor.refusals import bad_pointer
from stub.memory.guest import GuestFault

if TYPE_CHECKING:
    from stub.hypervisor.xen import Hypervisor

Handler = Callable[["Hypervisor", int, int, int, int, int], "int | None"]
Words = ParamSpec("Words")
SubHandler = Callable[Concatenate["Hypervisor", Words], int]

HYPERCALLS: dict[int, Handler] = {}


def hypercall(number: Hypercall) -> Callable[[Handler], Handler]:
    """Register the decorated function as the handler of ``number``."""

    def register(handler: Handler) -> Handler:
        if number in HYPERCALLS:
            raise ValueError(f"hypercall {number.name} has two handlers")
        HYPERCALLS[int(number)] = handler
        return handler

    return register


class SubOps(Generic[Words]):
    """The sub-operations of one hypercall: command → handler(xen, argument words)."""

    def __init__(self, number: Hypercall) -> None:
        self.number = number
        self.handlers: dict[int, SubHandler[Words]] = {}

    def __call__(self, *commands: int) -> Callable[[SubHandler[Words]], SubHandler[Words]]:
        """Register the decorated function as the handler of ``commands``."""

        def register(handler: SubHandler[Words]) -> SubHandler[Words]:
            for command in commands:
                if command in self.handlers:
                    raise ValueError(f"{self.number.name} {command} has two handlers")
                self.handlers[command] = handler
            return handler

        return register

    def dispatch(self, xen: Hypervisor, command: int, *words: Words.args, **none: Words.kwargs) -> int:
        """Do a sub-operation: its result, -ENOSYS (counted) where there is none, -EFAULT for a bad pointer."""
        handler = self.handlers.get(command)
        if handler is None:
            return xen.not_there(self.number, command)
        try:
            return handler(xen, *words, **none)
        except GuestFault as fault:
            return bad_pointer(xen, fault)
