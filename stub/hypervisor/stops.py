"""Where the engine stops: for the breakpoints of the guest's debug registers, and for an onlooker's.

An onlooker (a debugger) sees a stop first. The engine is told only what is new, since each change costs it the code
that it has translated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from stub.engine.base import Engine, Watch
from stub.errors import UsageError

_MOST_IDLE = 64  # addresses that are no longer wanted, before they are taken away


class Onlooker(Protocol):
    """Whoever stops the guest without its knowledge."""

    def at_stop_point(self) -> bool:
        """The instruction at RIP is next, and somebody has a stop point there: whether to stop."""

    def accessed(self, address: int, size: int, write: bool) -> bool:
        """The instruction that just ended made this access: whether to stop."""


class Stops:
    """The stop points and watched ranges of both."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.onlooker: Onlooker | None = None
        self._guest_code: set[int] = set()
        self._guest_data: tuple[Watch, ...] = ()
        self._code: frozenset[int] = frozenset()
        self._data: tuple[Watch, ...] = ()
        self._told_code: set[int] | frozenset[int] = frozenset()
        self._told_data: tuple[Watch, ...] = ()

    def for_guest(self, code: Iterable[int], data: Iterable[Watch]) -> None:
        """What the guest's debug registers enable.

        A stop point that is no longer wanted stays for a while where that is free, as guests take them away and set
        them again at each switch of tasks; a hit counts only while DR7 has it enabled.
        """
        wanted = set(code)
        if not self._engine.stops_are_free or len(self._guest_code | wanted) > _MOST_IDLE:
            self._guest_code.clear()
        self._guest_code |= wanted
        self._guest_data = tuple(data)
        self._tell()

    def for_onlooker(self, code: Iterable[int], data: Iterable[Watch]) -> None:
        """What the onlooker wants to see; replaces the former. UsageError if the engine cannot watch that."""
        watches = tuple(data)
        self._engine.check_watches(watches)
        self._code, self._data = frozenset(code), watches
        self._tell()

    def check_onlookers(self, data: Iterable[Watch]) -> None:
        """UsageError if the engine cannot watch that for the onlooker, beside what it watches for the guest."""
        self._engine.check_watches((*data, *self._guest_data))

    @property
    def guest_code(self) -> frozenset[int]:
        """The stop points that the engine keeps for the guest."""
        return frozenset(self._guest_code)

    def _tell(self) -> None:
        code = self._code | self._guest_code if self._guest_code else self._code
        if code != self._told_code:
            self._told_code = code
            self._engine.stop_at(code)
        data = self._watchable()
        if data != self._told_data:
            self._engine.watch(data)
            self._told_data = data

    def _watchable(self) -> tuple[Watch, ...]:
        """What both want; while the engine has no room for both the guest's alone: it is not to notice the onlooker."""
        both = self._data + self._guest_data
        if self._data and self._guest_data:
            try:
                self._engine.check_watches(both)
            except UsageError:
                return self._guest_data
        return both
