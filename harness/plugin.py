"""The pytest plugin: fixtures ``guest``, ``console`` and what else there is of it; markers; what a failure shows.

Until a test asks for a guest nothing but this file and ``settings`` is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stub.errors import PvstubError, UsageError

from . import settings

if TYPE_CHECKING:
    from .admission import MemoryBudget
    from .console import GuestConsole
    from .debugger import Debugger
    from .debugging import DebugServer
    from .gdb import Gdb
    from .guest_results import Result, Results
    from .guests import Guest, GuestHouse, GuestSpec
    from .hypercalls import Hypercalls
    from .machine import Launch
    from .pagetables import PageTables
    from .xenstore import XenStore

MARKERS = (
    "guest(image, memory=, cmdline=, extra=, ramdisk=, files=, seed=, p2m=, epoch=, on_reboot=, compat=, cpuid=, "
    "audit=, disks=, faults=): the guest that the fixture `guest` boots; a closer marker changes single parameters",
    "pv_limits(virtual=, wall=, instructions=, memory=): stop each guest of the test at a virtual time or after real "
    "seconds; reserve MiB of guest memory for the whole test",
    "pv_needs(*abilities): skip the test with an engine that lacks one of these: avx, branches, identity, segments, "
    "watches",
    "pv_splats(*names): kernel splats that a guest of the test may print (panic, oops, warning…); without names, all",
)
LIMITS = ("virtual", "wall", "instructions", "memory")
_INDEX = "pv-index"  # nodeid → its run folders, for whoever outlives the worker
_BUDGET = "pv-memory"
BOTH = "both"  # of --pv-engine

house_key: pytest.StashKey[GuestHouse] = pytest.StashKey()
failed_key: pytest.StashKey[bool] = pytest.StashKey()
budget_key: pytest.StashKey[MemoryBudget] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    engine = settings.ENGINE.get(config)
    if engine and engine != BOTH:
        os.environ[settings.ENGINE.variable] = engine  # for guests that are made without a fixture, too
    elif engine:
        os.environ.pop(settings.ENGINE.variable, None)
    accel = settings.ACCEL.get(config)
    if config.getoption(settings.ACCEL.name) and engine not in ("qemu", BOTH):
        option = settings.ACCEL.option
        raise pytest.UsageError(f"{option}={accel}: the unicorn engine has none to choose; add --pv-engine qemu")
    if accel:
        os.environ[settings.ACCEL.variable] = accel


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With ``--pv-engine both`` a test that has a guest, or asks for the engine, runs once on each."""
    if settings.ENGINE.get(metafunc.config) == BOTH and "pv_engine" in metafunc.fixturenames:
        metafunc.parametrize("pv_engine", ("unicorn", "qemu"), indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the engine cannot do."""
    needed = [ability for marker in item.iter_markers("pv_needs") for ability in marker.args]
    if needed:
        from stub.domain.config import default_engine
        from stub.engine.choice import lacks

        parameters = getattr(item, "callspec", None)
        engine = parameters.params.get("pv_engine") if parameters is not None else None
        engine = engine or default_engine()
        missing = [ability for ability in needed if ability in lacks(engine)]
        if missing:
            pytest.skip(f"the {engine} engine has no {', '.join(missing)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    budget = config.stash.get(budget_key, None)
    if budget is not None:
        budget.close()


# -- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pv_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the engine that runs the guests of this test, those too that it boots without ``guest``."""
    from stub.domain.config import default_engine

    if hasattr(request, "param"):
        monkeypatch.setenv(settings.ENGINE.variable, request.param)
    return default_engine()


@pytest.fixture
def pv_launch() -> Callable[[GuestSpec], Launch]:
    """How a guest's parameters become a machine. Override it to test without guests, or to boot your own way."""
    from .guests import ImageLaunch

    return ImageLaunch


@pytest.fixture
def guest(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    pv_launch: Callable[[GuestSpec], Launch],
    pv_engine: str,
) -> Iterator[Guest]:
    """The guest of the ``guest`` marker, not yet started; called, it gives further guests: ``guest(memory=64)``."""
    from .guests import Guest, GuestHouse

    config, item = request.config, request.node
    limits, reserve = _limits(item)
    house = GuestHouse(
        who=item.nodeid,
        launch=pv_launch,
        budget=_budget(config, tmp_path_factory),
        new_run_directory=lambda: _new_run_directory(config, item, tmp_path_factory),
        limits=limits,
        timeout=settings.TIMEOUT.seconds(config) or 0.0,
        reserve=reserve,
        announce=lambda started: _announce(started, item.nodeid, _shared_folder(config, tmp_path_factory)),
    )
    item.stash[house_key] = house
    yield Guest(house, _marked_spec(item))
    house.close()


@pytest.fixture
def console(guest: Guest) -> GuestConsole:
    """Expect on the console of ``guest``; a wait runs the guest, and its timeout is virtual time."""
    return guest.console


@pytest.fixture
def hypercalls(guest: Guest) -> Hypercalls:
    """Questions to the hypercall log of ``guest``."""
    return guest.hypercalls


@pytest.fixture
def pagetables(guest: Guest) -> PageTables:
    """The page tables of ``guest``: walks, ranges, snapshots, differences, assertions."""
    return guest.pagetables


@pytest.fixture
def xenstore(guest: Guest) -> XenStore:
    """The XenStore of ``guest``: read, write, watch, and wait for a value."""
    return guest.xenstore


@pytest.fixture
def debug_server(guest: Guest) -> Iterator[DebugServer]:
    """The GDB server of ``guest``, which stands at its first instruction or where the test had run it to."""
    from .debugging import DebugServer, symbols_of

    with DebugServer(guest, symbols_of(guest)) as server:
        yield server


@pytest.fixture
def gdb(debug_server: DebugServer) -> Iterator[Gdb]:
    """A real gdb, attached to ``guest``, with the kernel's symbols where there are any."""
    from .gdb import Gdb

    with Gdb() as client:
        if debug_server.target.executable is not None:
            client.execute(f"file {debug_server.target.executable}")
        client.connect(debug_server.address)
        yield client


@pytest.fixture
def debugger(debug_server: DebugServer) -> Iterator[Debugger]:
    """Our own client, attached to ``guest``: quick, and near the protocol."""
    from .debugger import Debugger

    with Debugger(debug_server.address) as client:
        yield client


@pytest.fixture
def guest_results(guest: Guest, subtests: pytest.Subtests) -> Callable[..., Results]:
    """Runs ``guest`` (or another) to its end, and makes a subtest of each result that it printed: KTAP, Test result."""

    def report(of: Guest | None = None, kind: str = "poweroff", timeout: float | None = None) -> Results:
        from .guest_results import parse

        __tracebackhide__ = True
        running = guest if of is None else of
        running.wait(kind, timeout)
        found = parse(running.machine.console.output)
        for result in found.results:
            with subtests.test(result.name):
                _as_own(result)
        if found.wrong:
            pytest.fail("\n".join(found.wrong), pytrace=False)
        if not found.results:
            pytest.fail("the guest printed no result", pytrace=False)
        return found

    return report


def _as_own(result: Result) -> None:
    """A guest's result as that of the test that runs now; it may hide no frame, as pytest wants one to show."""
    from .guest_results import FAILED, SKIPPED

    if result.outcome == SKIPPED:
        pytest.skip(result.reason)
    if result.outcome == FAILED:
        pytest.fail(f"{result.name}: {result.reason}", pytrace=False)


def _marked_spec(item: pytest.Item) -> GuestSpec:
    from .guests import GuestSpec

    spec = GuestSpec(seed=settings.SEED.integer(item.config))
    for marker in reversed(list(item.iter_markers("guest"))):
        if len(marker.args) > 1:
            raise UsageError(f"{item.nodeid}: the guest marker takes one unnamed argument, the image")
        spec = spec.changed(**dict(zip(("image",), marker.args, strict=False)), **marker.kwargs)
    return spec


def _limits(item: pytest.Item) -> tuple[Any, int]:
    from .machine import RunLimits

    given: dict[str, Any] = {
        "virtual": settings.VIRTUAL_LIMIT.seconds(item.config),
        "wall": settings.WALL_LIMIT.seconds(item.config),
    }
    for marker in reversed(list(item.iter_markers("pv_limits"))):
        unknown = set(marker.kwargs) - set(LIMITS)
        if unknown or marker.args:
            raise UsageError(f"{item.nodeid}: pv_limits takes {', '.join(name + '=' for name in LIMITS)} only")
        given |= marker.kwargs
    reserve = given.pop("memory", 0)
    return RunLimits(**given), reserve


# -- folders and memory that the workers share ---------------------------------------------------------------------


def _shared_folder(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the run see, and their controller too: its base folder."""
    base = factory.getbasetemp()
    return base.parent if hasattr(config, "workerinput") else base


def _budget(config: pytest.Config, factory: pytest.TempPathFactory) -> MemoryBudget:
    from .admission import MemoryBudget, capacity

    if budget_key not in config.stash:
        size = capacity(settings.MEMORY_BUDGET.get(config))
        config.stash[budget_key] = MemoryBudget(_shared_folder(config, factory) / _BUDGET, size)
    return config.stash[budget_key]


def _new_run_directory(config: pytest.Config, item: pytest.Item, factory: pytest.TempPathFactory) -> Path:
    """A fresh folder: a short path, as gdb's sockets will live in it; a telling one where runs are kept."""
    kept = settings.RUNS.get(config)
    if not kept:
        return factory.mktemp("pv")
    from .after_test import file_name

    folder = config.invocation_params.dir / kept
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{file_name(item)}-", dir=folder))


def _index_file(shared: Path, nodeid: str) -> Path:
    return shared / _INDEX / hashlib.sha256(nodeid.encode()).hexdigest()


def _announce(guest: Guest, nodeid: str, shared: Path) -> None:
    """Leave word of a run where the controller finds it should this process die."""
    index = _index_file(shared, nodeid)
    index.parent.mkdir(exist_ok=True)
    with index.open("a") as file:
        file.write(json.dumps({"run": str(guest.run_directory), "boot": guest.rerun, "pid": os.getpid()}) + "\n")


# -- kernel splats -------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A test that passed fails all the same if a guest's kernel complained."""
    yield
    house = item.stash.get(house_key, None)
    if house is not None and house.started:
        from .after_test import judge_consoles

        judge_consoles(item, house)


# -- reports -------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    house = item.stash.get(house_key, None)
    if house is None or not house.started:
        return _in_one_line(item, call, (yield))
    from . import after_test

    sections: list[tuple[str, str]] = []
    if _is_failure(call) and failed_key not in item.stash:  # at a further one there is nothing new to tell
        item.stash[failed_key] = True
        sections = after_test.sections(item, house)
    item.user_properties += [(f"pv {title}", text) for title, text in sections]
    failed = failed_key in item.stash
    keep = bool(failed or settings.RUNS.get(item.config))
    if call.when == "teardown":
        item.user_properties += after_test.facts(house, keep, failed)
        if failed:
            item.user_properties += after_test.artefacts(item, house)
    report = _in_one_line(item, call, (yield))
    report.sections += sections
    if call.when == "teardown":
        del item.stash[house_key]
        if not keep:
            for started in house.started:
                shutil.rmtree(started.run_directory)
    return report


def _is_failure(call: pytest.CallInfo[None]) -> bool:
    return call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception)


def _in_one_line(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> pytest.TestReport:
    """An error that is the caller's needs no look into our code: the test's own line and the message."""
    if call.excinfo is not None and isinstance(call.excinfo.value, PvstubError):
        error, place = call.excinfo.value, f"{item.location[0]}:{(item.location[1] or 0) + 1}"
        own = [entry for entry in call.excinfo.traceback if entry.path == item.path]
        if own:
            place = f"{item.location[0]}:{own[-1].lineno + 1}"
        report.longrepr = f"{place}: {type(error).__name__}: {error}"
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the run's results in the forms that were asked for."""
    forms = ((settings.KTAP, "ktap", "w"), (settings.SUMMARY, "markdown", "a"))
    wanted = [(setting.get(config), form, mode) for setting, form, mode in forms]
    for file, form, mode in wanted:
        if file and not hasattr(config, "workerinput"):
            from . import run_reports

            path = config.invocation_params.dir / file
            try:
                run_reports.write(path, form, mode, terminalreporter.stats)
            except OSError as error:
                terminalreporter.write_line(f"pvstub: {path}: cannot write the results: {error.strerror}")


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """In xdist's controller, when a worker died: what its guests had written is still there."""
    # The controller has no fixtures; xdist finds the workers' base folders in the same way.
    factory: pytest.TempPathFactory = report.node.config._tmp_path_factory
    index = _index_file(factory.getbasetemp(), crashitem)
    if index.exists():
        from . import reporting

        report.longrepr = f"{report.longrepr}\n{reporting.crash_text(index.read_text().splitlines())}"
