"""What follows when a guest has ended: xl's actions for each kind of end, and restarts that are bounded."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from small_guest import CODE, UD2, call, kernel, shutdown

from stub.abi.sched import SCHEDOP_poll
from stub.abi.xen import Hypercall
from stub.cli import main
from stub.domain.actions import ACTIONS, MAX_QUICK_RESTARTS, SETTINGS
from stub.domain.config import DomainConfig
from stub.machine import Limits, Machine

pytestmark = pytest.mark.usefixtures("pv_engine")

REASONS = {"poweroff": 0, "reboot": 1, "crash": 3, "watchdog": 4, "soft-reset": 5}
STATUS = {"poweroff": 0, "reboot": 0, "crash": 3, "watchdog": 3, "soft-reset": 0, "restart-limit": 4}
RESTARTING = [name for name, action in ACTIONS.items() if action.restart]


NO_LIMITS = Limits()


def ended(folder: Path, code: bytes, limits: Limits = NO_LIMITS, core: Path | None = None, **actions: str) -> Machine:
    """A guest of a few instructions that ran to its verdict, with its run in ``folder``/run."""
    config = replace(DomainConfig(kernel=kernel(folder, code), memory=32), **actions)  # type: ignore[arg-type]
    with Machine(config, folder / "run", limits, core=core) as machine:
        machine.run()
    assert machine.verdict is not None
    return machine


def cores(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run").glob("core*"))


@pytest.mark.parametrize(
    ("kind", "action"), [("crash", name) for name in ACTIONS] + [(kind, "restart") for kind in REASONS]
    + [(kind, "preserve") for kind in REASONS],
)  # fmt: skip
def test_actions(tmp_path: Path, kind: str, action: str) -> None:
    """xl's handle_domain_death: the reason picks the setting, the setting says what follows."""
    machine = ended(tmp_path, shutdown(REASONS[kind]), **{SETTINGS[kind]: action})
    restarts = ACTIONS[action].restart
    assert machine.boots == (1 + MAX_QUICK_RESTARTS if restarts else 1)
    assert machine.verdict is not None
    assert machine.verdict.kind == ("restart-limit" if restarts else kind)
    assert machine.verdict.exit_status == STATUS[machine.verdict.kind]
    if action == "rename-restart":
        assert len(cores(tmp_path)) == machine.boots
    else:
        assert cores(tmp_path) == (["core"] if ACTIONS[action].core else [])


@pytest.mark.parametrize("kind", REASONS)
def test_the_other_settings_have_no_part_in_it(tmp_path: Path, kind: str) -> None:
    others = {name: "coredump-restart" for name in SETTINGS.values() if name != SETTINGS[kind]}
    machine = ended(tmp_path, shutdown(REASONS[kind]), **others)
    assert machine.boots == 1
    assert cores(tmp_path) == []


def test_a_crash_by_xen_is_a_crash(tmp_path: Path) -> None:
    machine = ended(tmp_path, UD2, on_crash="coredump-destroy", on_poweroff="restart")
    assert machine.verdict is not None
    assert machine.verdict.exit_status == 3
    assert cores(tmp_path) == ["core"]


def test_a_guest_that_suspends_is_left_alone(tmp_path: Path) -> None:
    """xl only notes it."""
    machine = ended(tmp_path, shutdown(2), **dict.fromkeys(SETTINGS.values(), "coredump-restart"))
    assert machine.boots == 1
    assert cores(tmp_path) == []


def test_a_guest_that_lives_long_enough_may_always_come_back(tmp_path: Path) -> None:
    """Each boot sleeps 61 virtual seconds and asks for a reboot; only the run's own limit ends it."""
    request = struct.pack("<QIIQ", 0, 0, 0, 61 * 10**9)
    code = call(Hypercall.sched_op, SCHEDOP_poll, CODE + 0x400) + shutdown(1)
    boots = MAX_QUICK_RESTARTS + 3
    limits = Limits(virtual_ns=61 * 10**9 * boots)
    machine = ended(tmp_path, code.ljust(0x400, b"\xcc") + request, limits, on_reboot="restart")
    assert machine.verdict is not None
    assert machine.verdict.kind == "virtual-deadline"
    assert machine.boots == boots


def test_restarts_that_end_say_why(tmp_path: Path) -> None:
    machine = ended(tmp_path, shutdown(3), on_crash="restart")
    assert machine.verdict is not None
    assert machine.verdict.reason.startswith("the guest reported its own crash (SHUTDOWN_crash); restarted 16 times")


def test_core_at_the_end_whatever_that_is(tmp_path: Path) -> None:
    wanted = tmp_path / "my.core"
    for code, limits in ((shutdown(0), Limits()), (b"\xeb\xfe", Limits(instructions=1000)), (UD2, Limits())):
        wanted.unlink(missing_ok=True)
        machine = ended(tmp_path, code, limits, core=wanted)
        assert wanted.is_file()
        assert machine.deaths.cores == [wanted]
    assert cores(tmp_path) == []


def test_a_core_changes_nothing(tmp_path: Path) -> None:
    """The log of a run with a core file is the log of one without."""
    digests = []
    for name, action in (("with", "coredump-restart"), ("without", "restart")):
        (tmp_path / name).mkdir()
        digests.append(ended(tmp_path / name, shutdown(3), on_crash=action).log.digest())
    assert digests[0] == digests[1]


# -- from a file


def boot(folder: Path, settings: str, *options: str) -> int:
    (folder / "g.cfg").write_text(f"kernel = 'small'\nmemory = 32\n{settings}")
    return main(["boot", str(folder / "g.cfg"), "--quiet", "--run", str(folder / "run"), *options])


def test_a_file_has_xls_defaults_and_options_go_before(tmp_path: Path) -> None:
    kernel(tmp_path, shutdown(1))
    assert boot(tmp_path, "") == 4  # a reboot restarts, and this one never does anything else
    assert boot(tmp_path, "", "--on-reboot", "destroy") == 0
    assert boot(tmp_path, "on_reboot = 'destroy'") == 0
    assert boot(tmp_path, "", "--set", "on_reboot=preserve") == 0
    assert cores(tmp_path) == ["core"]


def test_a_files_warnings_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel(tmp_path, shutdown(0))
    assert boot(tmp_path, "vif = ['']") == 0
    assert f"warning: {tmp_path}/g.cfg:3:1: vif has no effect" in capsys.readouterr().err
    assert boot(tmp_path, "memory = lots") == 2
    assert f"pvstub: {tmp_path}/g.cfg:3:10: " in capsys.readouterr().err


def test_core_in_no_folder_is_told_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel(tmp_path, shutdown(1))
    assert boot(tmp_path, "", "--core", str(tmp_path / "gone" / "core")) == 2
    assert "--core: there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_linux_boots_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An image of the catalogue by name in a configuration; its reboot is a second boot in the same run."""
    file = tmp_path / "linux.cfg"
    file.write_text("kernel = 'debian-cloud'\nextra = 'console=hvc0 pvstub=reboot'\non_reboot = 'restart'\n")
    assert main(["boot", str(file), "--run", str(tmp_path / "run"), "--virtual-limit", "4.9"]) == 4
    console = (tmp_path / "run" / "console.log").read_text()
    assert console.count("Linux version") == 2
    assert console.count("pvstub: init reached") >= 1
