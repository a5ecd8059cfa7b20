"""Virtual time: what the guest reads, when its timers fire, and the jump when it sleeps.

One instruction takes one nanosecond and the TSC runs at 1 GHz, so that time is ``RETIRED + TIME_SKEW`` and rdtsc
reads it. While every vCPU is blocked the skew jumps to the next timer, and where the guest only waits for the time
to pass it goes in steps. A timer is (time, name); each name has one.
"""

from __future__ import annotations

import struct

from stub.abi.xen import SharedInfo
from stub.engine.base import DEADLINE, NEVER, RETIRED, TIME_SKEW
from stub.memory.ram import Ram

_TIME_INFO = struct.Struct("<I4xQQIbBxx")  # struct pvclock_vcpu_time_info
_MUL, _SHIFT = 0x8000_0000, 1  # 1 GHz: ns = (ticks << 1) * 2^31 >> 32
SECOND = 1_000_000_000


class Clock:
    """Timers and time pages of one domain; all times in ns since its start."""

    def __init__(self, words: memoryview, ram: Ram) -> None:
        self._words = words
        self._ram = ram
        self.timers: dict[str, int] = {}
        self._next = NEVER
        self._limit = NEVER
        self._slice = NEVER
        self._version = 0

    @property
    def now(self) -> int:
        """Virtual time."""
        return self._words[RETIRED] + self._words[TIME_SKEW]

    def arm(self, name: str, when: int | None) -> None:
        """Set a timer, or cancel it with None."""
        if when is None:
            if self.timers.pop(name, None) is None:
                return
        else:
            self.timers[name] = when
        following = min(self.timers.values(), default=NEVER)
        if following != self._next:
            self._next = following
            self.set_deadline()

    def limit(self, when: int) -> None:
        """Stop the engine at ``when`` whatever else is due (the caller's own deadline)."""
        self._limit = when
        self.set_deadline()

    def slice(self, retired: int) -> None:
        """Stop the engine at a count of retired instructions, so that signals and wall limits are looked at."""
        self._slice = retired
        self.set_deadline()

    def set_deadline(self) -> None:
        """Tell the engine when to stop. (Without min and max: this is done at each event of an idle guest.)"""
        when = self._next if self._next < self._limit else self._limit
        if when != NEVER:
            when -= self._words[TIME_SKEW]
        if when < 0:
            when = 0
        self._words[DEADLINE] = when if when < self._slice else self._slice

    @property
    def next_event(self) -> int:
        """When the next timer is due; NEVER without one."""
        return self._next

    @property
    def horizon(self) -> int:
        """How far time may be let pass without asking the caller."""
        return self._limit

    def due(self) -> list[str]:
        """The timers that are due, earliest first; they are disarmed."""
        now = self.now
        if self._next > now:
            return []
        names = sorted((name for name, when in self.timers.items() if when <= now), key=lambda n: (self.timers[n], n))
        for name in names:
            del self.timers[name]
        self._next = min(self.timers.values(), default=NEVER)
        self.set_deadline()
        return names

    def jump_to(self, when: int) -> None:
        """Let virtual time pass without instructions."""
        now = self.now
        if when > now:
            self._words[TIME_SKEW] += when - now
            self.set_deadline()

    def skip(self, ns: int) -> None:
        """Let so much time pass without instructions, but no timer: whose deadline it is does not count, so that a
        guest runs the same whoever looks on."""
        self.jump_to(min(self.now + ns, self._next))

    def write_time_info(self, at: int) -> None:
        """Refresh a vcpu_time_info at byte ``at`` of machine memory; the version is even when it is whole."""
        self._version += 2
        now = self.now
        _TIME_INFO.pack_into(self._ram.map, at, self._version, now, now, _MUL, _SHIFT, 0)

    def write_wallclock(self, shared_info: int, bits: int, epoch_ns: int) -> None:
        """Set the time of day at system time 0, in the shared_info at byte ``shared_info`` of a guest of ``bits``."""
        seconds, nanoseconds = divmod(epoch_ns, SECOND)
        layout = SharedInfo.of(bits)
        version = layout.unpack_from(self._ram.bytes, shared_info).wc_version + 2 & 0xFFFFFFFE
        low, high = seconds & 0xFFFFFFFF, seconds >> 32
        layout.pack_into(
            self._ram.bytes, shared_info, wc_version=version, wc_sec=low, wc_nsec=nanoseconds, wc_sec_hi=high
        )
