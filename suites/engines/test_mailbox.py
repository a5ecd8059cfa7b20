"""What the QEMU engine and its shim share: each word, page and command has a number of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[2] / "stub" / "engine" / "qemu" / "mailbox.h"
LEAST = {"MAIL": 20, "PAGE": 8, "COMMAND": 6}


@pytest.mark.parametrize("kind", LEAST)
def test_each_has_a_number_of_its_own(kind: str) -> None:
    numbers = re.findall(rf"^#define {kind}_\w+ (\d+)", HEADER.read_text(), re.MULTILINE)
    assert len(numbers) > LEAST[kind]
    assert len(set(numbers)) == len(numbers)
