"""Who looks on while the hypervisor acts on exits: audits, snapshots by number, a debugger's catches.

There are two places: one *in front* of an exit's action, whose holder calls that itself, or not yet (a debugger); and
any number *after* each hypercall that the hypervisor decides. Where nobody stands the hypervisor's own table of exits
is as it was. Hypercalls that the engine's reflex answers are seen by nobody, unless somebody asks to see all.
"""

from __future__ import annotations

from collections.abc import Callable

from stub.engine.base import Exit

Act = Callable[[], None]


class Onlookers:
    """The onlookers of one hypervisor."""

    def __init__(self, exits: dict[int, Act], set_reflex: Callable[[bool], None]) -> None:
        """``exits`` is the table that the run loop reads; ``set_reflex`` turns the engine's own answers on and off."""
        self._exits = exits
        self._set_reflex = set_reflex
        self._own = dict(exits)
        self._fronts: dict[int, Act] = {}
        self._after: list[Act] = []
        self._see_all: set[object] = set()

    def act(self, kind: int) -> None:
        """What an exit leads to, but for who stands in front of it."""
        self._own[kind]()
        if kind == Exit.SYSCALL:
            for look in tuple(self._after):
                look()

    def stand_in_front(self, kind: int, act: Act | None) -> None:
        """Have ``act`` called for an exit in place of its action; None: nobody."""
        if act is None:
            self._fronts.pop(kind, None)
        else:
            self._fronts[kind] = act
        self._tell(kind)

    def after_calls(self, look: Act) -> None:
        """Have ``look`` called after each hypercall, in the order of asking."""
        if look not in self._after:
            self._after.append(look)
            self._tell(Exit.SYSCALL)

    def no_longer(self, look: Act) -> None:
        """The end of that."""
        if look in self._after:
            self._after.remove(look)
            self._tell(Exit.SYSCALL)

    def see_all(self, who: object, wanted: bool) -> None:
        """Whether ``who`` needs every hypercall decided here, those of the reflex, too."""
        (self._see_all.add if wanted else self._see_all.discard)(who)
        self.set_reflex()

    def set_reflex(self) -> None:
        """Let the engine answer what it can, where nobody has to see that."""
        self._set_reflex(not self._see_all)

    def _tell(self, kind: int) -> None:
        own = self._watched_call if kind == Exit.SYSCALL and self._after else self._own[kind]
        self._exits[kind] = self._fronts.get(kind, own)

    def _watched_call(self) -> None:
        self.act(Exit.SYSCALL)

    def close(self) -> None:
        """Let go of everybody."""
        self._exits, self._own, self._fronts = {}, {}, {}
        self._after.clear()
        self._see_all.clear()
