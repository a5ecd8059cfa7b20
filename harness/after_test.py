"""What becomes of a test's guests when it is over: splats are judged, a failure is shown, what is left is named."""

from __future__ import annotations

import datetime
import os
import re
import shlex

import pytest

from stub.errors import UsageError

from . import reporting, settings, splats
from .guests import GuestHouse

Property = tuple[str, object]
"""One of a report's user properties."""


def judge_consoles(item: pytest.Item, house: GuestHouse) -> None:
    """Fail a test of whose guests a kernel complained, unless it may or the complaint is known."""
    allowed: set[str] = set()
    for marker in item.iter_markers("pv_splats"):
        unknown = set(marker.args) - set(splats.NAMES)
        if unknown or marker.kwargs:
            raise UsageError(f"{item.nodeid}: pv_splats takes {', '.join(splats.NAMES)}, or nothing for all of them")
        allowed |= set(marker.args or splats.NAMES)
    found = [splat for started in house.started for splat in splats.find(started.machine.console.output)]
    if not found:
        return
    file = settings.KNOWN_SPLATS.get(item.config)
    known = splats.read_known(item.config.rootpath / file) if file else ()
    judged = splats.judge(found, known, allowed, datetime.date.today())
    if judged.let_through:
        item.user_properties.append(("pv known splats", "\n".join(judged.let_through)))
    if judged.bad:
        pytest.fail("kernel splat: " + "\nkernel splat: ".join(judged.bad), pytrace=False)


def sections(item: pytest.Item, house: GuestHouse) -> list[reporting.Section]:
    """What a failure shows."""
    return reporting.failure_sections(house.started, _pytest_command(item))


def artefacts(item: pytest.Item, house: GuestHouse) -> list[Property]:
    """Leave a file of each guest of a failed test, where ``--pv-artefacts`` says so; its place as a property."""
    folder = settings.ARTEFACTS.get(item.config)
    if not folder:
        return []
    base = item.config.invocation_params.dir / folder
    return [("pv artefact", reporting.leave_artefact(started, base, file_name(item))) for started in house.started]


def file_name(item: pytest.Item) -> str:
    """The test's name as part of a file's."""
    return re.sub(r"[^\w.-]+", "-", item.name)[:60]


def facts(house: GuestHouse, keep: bool, failed: bool) -> list[Property]:
    """What the reports say of each guest; its folder where that is kept."""
    found: list[Property] = []
    for started in house.started:
        found.append(("pv verdict", started.verdict.kind if started.verdict else "running"))
        found.append(("pv boot", started.rerun))
        found += reporting.digests(started.run_directory)
        if failed:
            found += reporting.milestone(started.run_directory)
        if keep:
            found.append(("pv run", str(started.run_directory)))
    return found


def _pytest_command(item: pytest.Item) -> str:
    """The command line that runs this test again, from where pytest was called."""
    config = item.config
    path = os.path.relpath(config.rootpath, config.invocation_params.dir)
    nodeid = item.nodeid if path == "." else f"{path}/{item.nodeid}"
    seed = settings.SEED.get(config)
    return shlex.join(["pytest", nodeid, *([f"{settings.SEED.option}={seed}"] if seed else [])])
