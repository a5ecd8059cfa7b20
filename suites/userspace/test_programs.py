"""User space is right, not just reached.

Static programs (``programs/``) put the kernel's promises to the test from inside the guest: context switches keep
every register, faults name the right address, mappings hold what was written, clocks never run back. One boot runs
several of them; each is a subtest of its own. All pass on real hardware.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import guest_programs
import numpy as np
import pytest

from harness.guests import Guest

pytestmark = pytest.mark.guest("debian-cloud")

MIB = 1 << 20
# Boot → what runs in it. Cut so that each takes about as long as the others.
BOOTS: dict[str, tuple[str, ...]] = {
    "switches": ("forks", "fpu_switch", "fpu_signal", "fpu_fork", "segment_bases", "ldt", "threads", "tls"),
    "faults": (
        *("faults_memory", "faults_arithmetic", "faults_opcode", "faults_resume", "faults_icebp", "faults_simd"),
        *(
            "faults_x87_invalid",
            "faults_alignment",
            "privileged",
            "features",
            "syscalls",
            "compat",
            "signals",
            "altstack",
            "interrupted",
        ),
        *("step", "step_far", "hardware_breakpoint", "watchpoint"),
    ),
    "memory": ("churn", "cow", "filedata"),
    "time": ("clocks", "sleeps", "timers", "pty"),
}

# What no TCG does, that of QEMU 5.0 (the Unicorn engine) or later.
_TCG_LACKS = {
    "faults_simd": "TCG raises no SIMD floating-point exceptions",
    "faults_x87_invalid": "TCG reports no invalid x87 operation, and does not look at register tags",
    "faults_alignment": "TCG makes no alignment checks",
}
# By engine. One that begins to work must be taken off.
ENGINE_LACKS = {"unicorn": _TCG_LACKS, "qemu": _TCG_LACKS}


def expect_right(name: str, verdict: guest_programs.Verdict | None, engine: str) -> None:
    """The program ran and found nothing wrong, or what the engine is known to lack."""
    assert verdict is not None, f"{name}: the guest ended before it had a verdict"
    why = ENGINE_LACKS[engine].get(name)
    if why is not None:
        assert verdict.reason is not None, f"{name} works now: take it off the list of what the {engine} engine lacks"
        pytest.xfail(f"{why}: {verdict.reason}")
    assert verdict.reason is None, f"{name}: {verdict.reason}"


@pytest.mark.parametrize("boot", sorted(BOOTS))
def test_programs(boot: str, guest: Guest, subtests: pytest.Subtests, pv_engine: str) -> None:
    """Each program of one boot; the guest powers off by itself at the end."""
    programs = BOOTS[boot]
    extra = f"pvstub=exec loglevel=4 programs={','.join(programs)}"
    running = guest(extra=extra, files=guest_programs.guest_files())
    running.wait("poweroff", timeout=600)
    verdicts = guest_programs.verdicts(running.console.text)
    for name in programs:
        with subtests.test(name):
            expect_right(name, verdicts.get(name), pv_engine)
        if name == "filedata":
            with subtests.test("the host's hash of the same data"):
                expect_same_hash(verdicts[name].notes)


def expect_same_hash(notes: tuple[str, ...]) -> None:
    """The file's hash in the guest is the one of the same pseudo-random numbers made here."""
    match = re.search(r"blake2b=(?P<hash>\w+) size=(?P<size>\d+) seed=(?P<seed>\d+)", " ".join(notes))
    assert match, f"the guest reports no hash: {notes}"
    assert int(match["size"]) == 64 * MIB
    assert match["hash"] == hash_of_numbers(int(match["seed"]), int(match["size"]))


def hash_of_numbers(seed: int, size: int) -> str:
    """BLAKE2b of the first ``size`` bytes of splitmix64's sequence (random_at() in programs/check.c)."""
    digest = hashlib.blake2b()
    for begin in range(0, size // 8, MIB):
        index = np.arange(begin, min(begin + MIB, size // 8), dtype=np.uint64)
        z = np.uint64(seed) + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        digest.update((z ^ (z >> np.uint64(31))).astype("<u8").tobytes())
    return digest.hexdigest()


def test_every_program_has_a_boot(tmp_path: Path) -> None:
    """No program is built and then forgotten."""
    assert sorted(name for names in BOOTS.values() for name in names) == sorted(guest_programs.names(tmp_path))


@pytest.mark.parametrize(
    ("console", "verdict"),
    [
        ("ok forks\r\n", guest_programs.Verdict(None, ())),
        ("# forks: a=1\r\n# forks: b\r\nok forks\r\n", guest_programs.Verdict(None, ("a=1", "b"))),
        ("not ok forks: byte 3 is wrong (forks.c:9)\r\n", guest_programs.Verdict("byte 3 is wrong (forks.c:9)", ())),
        ("not ok forks\n", guest_programs.Verdict("no reason given", ())),
        ("[    1.0] ok forks of memory\n", None),
    ],
)
def test_verdicts_are_read(console: str, verdict: guest_programs.Verdict | None) -> None:
    """The lines that main.c prints, and what only looks like one."""
    assert guest_programs.verdicts(console).get("forks") == verdict
