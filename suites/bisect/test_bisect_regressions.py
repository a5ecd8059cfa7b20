"""Boot regressions of real PV kernels, in small: a guest that does what the kernel did from some version on.

Each was reported in public; the guest does the one thing that Xen did not take, and the signature is how it showed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.bisect.command import main
from harness.small_guests import with_kit

pytestmark = pytest.mark.usefixtures("pv_engine")

VERSIONS, FIRST_BAD = 5, 3


class Regression(NamedTuple):
    """``did``: the guest's lines from the first bad version on; ``shows``: the words for ``pvstub bisect``."""

    name: str
    did: str
    shows: tuple[str, ...]


REGRESSIONS = (
    # Linux 4.19.5: the page tables' dump at init went into the range that is the hypervisor's.
    Regression(
        "walks-the-hypervisors-range",
        "for (word slot = 256; slot < 272; slot++)\n        (void)*(volatile word *)(0xffff000000000000 | slot << 39);",
        ("--fail", r"unexpected trap 14, .*CR2 (0x)?ffff808000000000"),
    ),
    # Linux 4.3: a clock of old PCs was set up, and its interrupt was waited for.
    Regression(
        "waits-for-the-old-clock",
        "u32 level = 1;\n"
        "    MUST(hypercall(PHYSDEV_OP, 6, &level));\n"
        '    asm volatile("out %%al, $0x70" : : "a"(0x0b));\n'
        '    asm volatile("out %%al, $0x71" : : "a"(0x42));\n'
        "    static volatile word ticks;\n"
        "    unmask_events();\n"
        "    while (!ticks)\n"
        "        ;",
        ("--ends", "virtual-deadline"),
    ),
    # Linux 5.8.5: a driver took the processor's model for its chipset, and read registers that Xen had not let it map.
    Regression(
        "maps-a-device-that-is-not-there",
        "MUST(unmap(at));\n"
        "    (void)map((word)at, frame_address(NO_RAM) | DATA);\n"
        '    check(entry((word)at, 1) == 0, "entry", "something is there");\n'
        "    (void)*(volatile u8 *)at;",
        ("--hypercall", "update_va_mapping rc=-EPERM", "--fail", "unexpected trap 14"),
    ),
    # Linux in 2025, _pgd_alloc(): a table for user space that was not yet what it has to be.
    Regression(
        "loads-a-user-table-too-early",
        "(void)mmuext(NEW_USER_BASEPTR, mfn_of(at), 0);",
        ("--hypercall", "mmuext_op rc=-EINVAL"),
    ),
    # Linux 7.0-rc1: what describes the pages was used before it was there, and before there was anyone to say so.
    Regression(
        "uses-the-memory-map-too-early",
        "MUST(hypercall(SET_TRAP_TABLE, 0));\n    (void)*(volatile word *)0xffffea0000000000;",
        ("--ends", "crash:Unhandled: vec 14, #PF"),
    ),
)


def version(folder: Path, regression: Regression, number: int) -> Path:
    """The guest's kernel of one version."""
    did = regression.did if number >= FIRST_BAD else ""
    source = folder / f"v{number}" / "guest.c"
    source.parent.mkdir()
    source.write_text(
        '#include "kit.h"\n'
        'VARIATION(boot, "as a kernel boots")\n'
        "{\n"
        "    void *at = page();\n"
        f'    check(at != 0, "version {number}", "no page");\n'
        f"    {did}\n"
        "}\n"
    )
    return with_kit(f"regression-v{number}", [source])


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression.name)
def test_a_real_regression_is_found(regression: Regression, tmp_path: Path) -> None:
    images = [str(version(tmp_path, regression, number)) for number in range(VERSIONS)]
    words = ["list", *images, *regression.shows, "--same-seed", "--spots=0", f"--state={tmp_path / 'state'}"]
    assert main([*words, "--", "--memory=32", "--cmdline=boot", "--virtual-limit=0.05"]) == 0
    report = json.loads((tmp_path / "state" / "report.json").read_text())
    assert report["first_bad"] == [images[FIRST_BAD]]
    assert not report["skipped"]
    assert report["divergence"]["divergence"] is not None
