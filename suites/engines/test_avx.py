"""A stock Linux finds AVX where the engine's CPU has it, and does not where its domain is to be without.

What its programs do with it is in suites/userspace (``features``, ``fpu_switch``, ``fpu_signal``), and what Xen does
for a kernel in images/tests/traps/xsave.
"""

from __future__ import annotations

import re

import pytest

from harness.guests import Guest
from stub.domain.config import ENGINE_VARIABLE
from suites.engines.both import COMMON

MAIN = "#!/bin/sh\ngrep -m1 flags /proc/cpuinfo\n"
pytestmark = pytest.mark.guest("debian-cloud", memory=128, extra="pvstub=exec", files={"/pvstub/main": MAIN})

AVX = "x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'"
ALL_ON = "x86/fpu: Enabled xstate features 0x7, context size is 832 bytes, using 'standard' format."
NO_XSAVE = "x86/fpu: x87 FPU will use FXSAVE"
FLAGS = {"xsave", "xsaveopt", "xgetbv1", "avx", "avx2", "fma", "f16c", "vaes", "clwb", "3dnow", "3dnowext"}


@pytest.mark.parametrize(
    ("cpuid", "says", "shows"),
    [
        (None, [AVX, ALL_ON], FLAGS),
        ("host,avx2=0", [AVX, ALL_ON], FLAGS - {"avx2", "vaes"}),
        ("host,avx=0", ["x86/fpu: Enabled xstate features 0x3"], FLAGS - {"avx", "avx2", "fma", "f16c", "vaes"}),
        (COMMON, [NO_XSAVE], set()),
    ],
)
def test_linux_finds_what_is_there(
    cpuid: str | None, says: list[str], shows: set[str], guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "qemu")
    ran = guest(cpuid=cpuid)
    ran.wait("poweroff")
    text = ran.console.text
    assert all(line in text for line in says)
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    assert found is not None
    assert set(found[1].split()) & FLAGS == shows
