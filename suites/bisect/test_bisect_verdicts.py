"""What a boot says of its point: bad by the failure that is looked for only, and never for what the machine did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bisect.processes import Ended
from harness.bisect.verdicts import Signature, by_pytest, by_status
from stub.errors import UsageError

PANIC, HANG = Signature(fail="^Kernel panic"), Signature(ends="deadlock:idle")


def judged(
    folder: Path, signature: Signature, kind: str, reason: str = "", console: str = "", status: int = 0
) -> tuple[str, str]:
    (folder / "summary.json").write_text(json.dumps({"verdict": {"kind": kind, "reason": reason}}))
    (folder / "console.log").write_text(console)
    return signature.judge(folder, Ended(status, "the last it said"))


@pytest.mark.parametrize(
    ("signature", "kind", "reason", "console", "status", "word"),
    [
        (PANIC, "crash", "it crashed", "Linux\r\nKernel panic - not syncing\r\n", 3, "bad"),
        (PANIC, "poweroff", "", "Linux\r\nKernel panic - not syncing\r\n", 0, "bad"),
        (PANIC, "poweroff", "", "no Kernel panic\r\n", 0, "good"),
        (PANIC, "crash", "it crashed", "BUG: elsewhere\r\n", 3, "skip"),
        (HANG, "deadlock", "all are idle", "", 5, "bad"),
        (HANG, "deadlock", "all are dead", "", 5, "skip"),
        (Signature(fail="BUG", ends="crash"), "crash", "", "BUG", 3, "bad"),
        (Signature(fail="BUG", ends="crash"), "poweroff", "", "BUG", 0, "good"),
        (Signature(passes="login:"), "deadlock", "", "login: ", 5, "good"),
        (Signature(passes="login:"), "deadlock", "", "lo", 5, "bad"),
        (Signature(passes="login:", fail="BUG"), "deadlock", "", "lo", 5, "skip"),
        (Signature(passes="login:"), "wall-limit", "too slow a machine", "lo", 4, "trouble"),
        (Signature(passes="login:"), "interrupted", "", "lo", 130, "trouble"),
        (Signature(passes="login:"), "audit", "a fault of pvstub's", "lo", 1, "trouble"),
    ],
)
def test_signatures(
    signature: Signature, kind: str, reason: str, console: str, status: int, word: str, tmp_path: Path
) -> None:
    found, why = judged(tmp_path, signature, kind, reason, console, status)
    assert found == word, why
    assert why


def test_a_boot_that_left_nothing_is_trouble_and_an_image_that_cannot_be_booted_a_skip(tmp_path: Path) -> None:
    signature = Signature(passes="login:")
    said = "pvstub: the last it said"
    assert signature.judge(tmp_path, Ended(-9, said)) == (
        "trouble",
        f"the boot left no summary (exit status -9): {said}",
    )
    assert signature.judge(tmp_path, Ended(2, said)) == ("skip", f"cannot be booted: {said}")
    (tmp_path / "summary.json").write_text('{"verdict": ')
    assert signature.judge(tmp_path, Ended(1, said))[0] == "trouble"


@pytest.mark.parametrize(
    ("status", "script", "build"),
    [(0, "good", "good"), (1, "bad", "skip"), (124, "bad", "skip"), (125, "skip", "skip"), (126, "trouble", "trouble"),
     (127, "trouble", "trouble"), (137, "trouble", "trouble"), (-9, "trouble", "trouble")],
)  # fmt: skip
def test_exit_statuses(status: int, script: str, build: str) -> None:
    assert by_status(Ended(status, "why"))[0] == script
    assert by_status(Ended(status, "why"), "does not build: exit status", "skip")[0] == build


@pytest.mark.parametrize(
    ("status", "said", "word"),
    [(0, "1 passed in 1s", "good"), (1, "1 failed in 1s", "bad"), (0, "1 skipped in 1s", "skip"), (5, "", "skip"),
     (2, "interrupted", "trouble"), (3, "internal error", "trouble"), (4, "no such node", "trouble")],
)  # fmt: skip
def test_pytests_exit_statuses(status: int, said: str, word: str) -> None:
    assert by_pytest(Ended(status, said))[0] == word


@pytest.mark.parametrize("given", [{"fail": "("}, {"passes": "["}, {"ends": "crash:("}, {"ends": "krash"}])
def test_signatures_that_make_no_sense(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Signature(**given)
