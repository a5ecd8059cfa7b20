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


def numbers(kind: str) -> dict[str, int]:
    """The header's names that begin so, each with its number."""
    found = re.findall(rf"^#define ({kind}_\w+) (\w+)", HEADER.read_text(), re.MULTILINE)
    return {name: int(number, 0) for name, number in found}


@pytest.mark.parametrize("kind", ["MAIL", "PAGE", "COMMAND", "VECTOR", "PORT"])
def test_no_number_is_given_twice(kind: str) -> None:
    named = numbers(kind)
    taken = [number + n for name, number in named.items() for n in range(LONGER.get(name, 1))]
    assert named
    assert sorted(set(taken)) == sorted(taken)


def test_the_words_lie_between_the_register_file_and_the_shims_data() -> None:
    room = re.search(r"words = \.;\s+\. \+= (0x\w+);", LINKING.read_text())
    assert room is not None
    words = numbers("MAIL").values()
    assert min(words) >= N_WORDS
    assert max(words) < int(room[1], 0) // WORD
