"""The plugin's settings: each is an option, an environment variable and an ini value, in this order of precedence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from stub.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """``name`` as in the ini file; ``--pv-name`` and ``PVSTUB_NAME`` follow from it."""

    name: str
    metavar: str
    default: str
    help: str

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "PVSTUB_" + self.name.removeprefix("pv_").upper()

    def get(self, config: pytest.Config, environment: Mapping[str, str] = os.environ) -> str:
        """The value in force."""
        given = config.getoption(self.name)
        if given is None:
            given = environment.get(self.variable) or config.getini(self.name)
        return str(given)

    def seconds(self, config: pytest.Config) -> float | None:
        """The value as a time; None for an empty one. UsageError when it is no number above zero."""
        text = self.get(config)
        try:
            value = float(text) if text else None
        except ValueError:
            value = 0.0
        if value is not None and not value > 0:
            raise UsageError(f"{self.option}={text}: give seconds above zero, or nothing for no limit")
        return value

    def integer(self, config: pytest.Config) -> int | None:
        """The value as a number; None for an empty one. UsageError when it is none."""
        text = self.get(config)
        try:
            return int(text, 0) if text else None
        except ValueError:
            raise UsageError(f"{self.option}={text}: give a whole number") from None


RUNS = Setting("pv_runs", "DIR", "", "keep the folder of every run below DIR (default: of failed tests only)")
SEED = Setting("pv_seed", "N", "", "seed of all guests that name none: frame numbers, random numbers")
TIMEOUT = Setting("pv_timeout", "SECONDS", "60", "how long a console waits for a match, in virtual seconds")
VIRTUAL_LIMIT = Setting("pv_virtual_limit", "SECONDS", "", "stop a guest at this virtual time")
WALL_LIMIT = Setting("pv_wall_limit", "SECONDS", "300", "stop a guest after this many real seconds of running")
MEMORY_BUDGET = Setting(
    "pv_memory_budget", "MIB", "", "memory of all guests that run at once: MiB, or 40%% of RAM (default: 55%%)"
)
KNOWN_SPLATS = Setting(
    "pv_known_splats", "FILE", "", "known kernel splats: a TOML file of patterns, reasons and dates of expiry"
)
ARTEFACTS = Setting("pv_artefacts", "DIR", "", "leave a file for pvstub replay of each guest of a failed test in DIR")
ENGINE = Setting(
    "pv_engine", "NAME", "", "what runs the guests: unicorn (the default) or qemu; both: each test with guests twice"
)
ACCEL = Setting("pv_accel", "NAME", "", "what the qemu engine runs with: tcg (the default) or kvm")
KTAP = Setting("pv_ktap", "FILE", "", "write the results of the run as KTAP")
SUMMARY = Setting("pv_summary", "FILE", "", "add a Markdown summary of the run to FILE")
SETTINGS = (
    RUNS,
    SEED,
    TIMEOUT,
    VIRTUAL_LIMIT,
    WALL_LIMIT,
    MEMORY_BUDGET,
    KNOWN_SPLATS,
    ARTEFACTS,
    ENGINE,
    ACCEL,
    KTAP,
    SUMMARY,
)


def register(parser: pytest.Parser) -> None:
    """Add the option group and the ini values."""
    group = parser.getgroup("pvstub", "Xen PV guests (pvstub)")
    for setting in SETTINGS:
        group.addoption(setting.option, dest=setting.name, metavar=setting.metavar, default=None, help=setting.help)
        parser.addini(setting.name, setting.help.replace("%%", "%"), default=setting.default)
