"""Questions to a run's hypercall log, and assertions on it.

What to look for is said in the language of ``pvstub trace --filter`` (stub.trace.filters): ``mmu_update``,
``event_channel_op:send``, ``mmuext_op:MMUEXT_PIN_* rc<0``, ``exception:#PF time>1s``. A name that Xen does not have is
refused, so a misspelt ``assert_never`` cannot pass. Asking runs nothing: it reads what the guest has done so far.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stub.errors import UsageError
from stub.trace.filters import ALL_HYPERCALLS, Predicate, compile_filter
from stub.trace.reader import FILE_NAME, LogReader
from stub.trace.records import ConsoleRecord, HypercallRecord, Record
from stub.trace.text import line

if TYPE_CHECKING:
    from .guests import Guest

_SHOWN = 5


class Hypercalls:
    """The records of a log, in the order in which they began; the entries of a multicall follow it.

    ``folder`` gives the run's folder and is called at the first question. Times are virtual nanoseconds.
    """

    def __init__(self, folder: Callable[[], Path], whole: Hypercalls | None = None, first: int = 0) -> None:
        self._folder = folder
        self._reader: LogReader | None = None
        self._records: list[Record] = []
        self._whole = whole  # the log that this is a view of, from its record number ``first`` on
        self._first = first

    @classmethod
    def of(cls, guest: Guest) -> Hypercalls:
        """The log of a guest, which is started by the first question if it has not been before."""

        def folder() -> Path:
            _ = guest.machine
            return guest.run_directory

        return cls(folder)

    # -- questions ---------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """All records so far, of all kinds."""
        if self._whole is not None:
            return self._whole.records()[self._first :]
        if self._reader is None:
            self._reader = LogReader(self._folder() / FILE_NAME)
        self._records.extend(self._reader.records())
        return self._records

    def select(
        self,
        what: str = ALL_HYPERCALLS,
        *,
        subop: str | None = None,
        rc: int | str | None = None,
        where: Callable[[Record], bool] | None = None,
    ) -> list[Record]:
        """The records that ``what`` means, all hypercalls without it.

        ``subop``: with this sub-operation; of mmu_update and mmuext_op, with an entry of it. ``rc``: with this result,
        a number or an error's name. ``where``: for which this is true.
        """
        wanted = _predicate(what, subop, rc)
        return [record for record in self.records() if wanted(record) and (where is None or where(record))]

    def count(
        self,
        what: str = ALL_HYPERCALLS,
        *,
        subop: str | None = None,
        rc: int | str | None = None,
        where: Callable[[Record], bool] | None = None,
    ) -> int:
        """How many there are: of calls, so an mmu_update of 100 entries counts once."""
        return len(self.select(what, subop=subop, rc=rc, where=where))

    def errors(self) -> list[Record]:
        """The hypercalls that were answered with an error number."""
        return self.select("error")

    def by_name(self) -> Counter[str]:
        """How often each hypercall was made."""
        return Counter(record.name for record in self.records() if isinstance(record, HypercallRecord))

    def mark(self) -> int:
        """This place in the log, for :meth:`since`."""
        return self._first + len(self.records())

    def since(self, mark: int) -> Hypercalls:
        """The log from a mark on. It grows with the guest, like the whole."""
        return Hypercalls(self._folder, self._whole or self, mark)

    def close(self) -> None:
        """Let go of the log's file; nothing can be asked any more."""
        if self._reader is not None:
            self._reader.close()

    # -- assertions --------------------------------------------------------------------------------------------

    def assert_never(
        self,
        what: str = ALL_HYPERCALLS,
        *,
        subop: str | None = None,
        rc: int | str | None = None,
        where: Callable[[Record], bool] | None = None,
    ) -> None:
        """Fail, and show the first ones, if there is any."""
        __tracebackhide__ = True
        found = self.select(what, subop=subop, rc=rc, where=where)
        if found:
            more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            shown = [line(record) for record in found[:_SHOWN]] + more
            raise AssertionError("\n    ".join([f"{len(found)} of what should never be ({what}):", *shown]))

    def assert_order(self, steps: Sequence[str]) -> list[Record]:
        """Fail unless there is one record for each step, each after the last one's; others may lie between.

        The records: for each step the first that fits.
        """
        __tracebackhide__ = True
        records = self.records()
        found: list[Record] = []
        at = 0
        for number, step in enumerate(steps, start=1):
            wanted = _predicate(step)
            here = next((index for index in range(at, len(records)) if wanted(records[index])), None)
            if here is None:
                raise AssertionError("\n    ".join(_missing_step(number, step, found, filter(wanted, records))))
            found.append(records[here])
            at = here + 1
        return found


def tail(folder: Path, last: int) -> list[str]:
    """The last lines of a run's log as ``pvstub trace`` shows them, the console's records left out."""
    with LogReader(folder / FILE_NAME) as reader:
        records = deque((record for record in reader.records() if not isinstance(record, ConsoleRecord)), last)
    return [line(record) for record in records]


def _predicate(what: str, subop: str | None = None, rc: int | str | None = None) -> Predicate:
    name, *terms = what.split() or [ALL_HYPERCALLS]
    expression = " ".join([f"{name}:{subop}" if subop else name, *terms, *([] if rc is None else [f"rc={rc}"])])
    try:
        return compile_filter(expression)
    except UsageError as error:
        raise UsageError(f"hypercalls: {str(error).removeprefix('--filter: ')}") from None


def _missing_step(number: int, step: str, found: Sequence[Record], anywhere: Iterable[Record]) -> list[str]:
    place = f"after {line(found[-1])}" if found else "in the log"
    lines = [f"step {number} ({step}) is not {place}"]
    earlier = next(iter(anywhere), None)
    if earlier is not None:
        lines.append(f"it is before that: {line(earlier)}")
    return lines
