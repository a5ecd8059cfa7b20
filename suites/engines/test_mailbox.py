"""Each word of the mailbox is one thing's; so are its pages, and the numbers that the two sides tell each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stub.engine.qemu
from stub.engine.base import N_WORDS

HEADER = Path(stub.engine.qemu.__file__).with_name("mailbox.h")
LINKING = HEADER.with_name("shim") / "shim.ld"
WORD = 8  # bytes
LONGER = {
    "MAIL_CODE": 2, "MAIL_DR": 4, "MAIL_LDT": 2, "MAIL_GDT": 2, "MAIL_SCRATCH": 2,
    "PAGE_ROOT": 3, "PAGE_CODE": 4,
}  # fmt: skip


def taken(kind: str) -> list[int]:
    """The numbers that the header's names that begin so take, each for as long as it is."""
    found = re.findall(rf"^#define ({kind}_\w+) (\w+)", HEADER.read_text(), re.MULTILINE)
    return [int(number, 0) + n for name, number in found for n in range(LONGER.get(name, 1))]


@pytest.mark.parametrize("kind", ["MAIL", "PAGE", "COMMAND", "VECTOR", "PORT"])
def test_no_number_is_given_twice(kind: str) -> None:
    found = taken(kind)
    assert found
    assert sorted(set(found)) == sorted(found)


def test_the_words_lie_between_the_register_file_and_the_shims_data() -> None:
    room = re.search(r"words = \.;\s+\. \+= (0x\w+);", LINKING.read_text())
    assert room is not None
    words = taken("MAIL")
    assert min(words) >= N_WORDS
    assert max(words) < int(room[1], 0) // WORD == 128
    assert sorted(words) == list(range(min(words), min(words) + len(words)))  # one after the other
