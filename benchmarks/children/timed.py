"""``pvstub`` that keeps how long it was starting and how long inside the engine: a JSON file, the first argument."""

import time

began = time.perf_counter()

import atexit  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from stub.cli import main  # noqa: E402
from stub.engine.unicorn import UnicornEngine  # noqa: E402

report = Path(sys.argv.pop(1))
seconds = {"startup": 0.0, "engine": 0.0, "total": 0.0}
prepare = UnicornEngine.__init__


def prepare_to_time(self: UnicornEngine, *arguments: Any) -> None:
    """The engine as it is, with a ``run`` whose time is added up."""
    prepare(self, *arguments)
    run = self.run

    def timed_run() -> int:
        start = time.perf_counter()
        seconds["startup"] = seconds["startup"] or start - began
        kind = run()
        seconds["engine"] += time.perf_counter() - start
        return kind

    setattr(self, "run", timed_run)  # noqa: B010 - a method or an attribute: no matter here


def keep() -> None:
    """Write what was measured."""
    seconds["total"] = time.perf_counter() - began
    report.write_text(json.dumps(seconds))


setattr(UnicornEngine, "__init__", prepare_to_time)  # noqa: B010 - mypy forbids the plain form
atexit.register(keep)
sys.exit(main())
