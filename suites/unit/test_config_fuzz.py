"""Any text is a configuration or a ConfigError with its place; never another exception, and never long."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stub.domain.guestfile.disks import parse
from stub.domain.guestfile.place import Place, Source, Value
from stub.domain.guestfile.reader import GuestFile, read_text
from stub.errors import ConfigError

PLACE = re.compile(r"(g\.cfg|--set):\d+:\d+: |there is no kernel|give key=value")
KEYS = ["kernel", "memory", "disk", "vif", "name", "extra", "root", "on_crash", "uuid", "vcpus", "restart"]
PYTHON = "if for in range str True None and not else import def = += + - * % / ( ) [ ] { } , : ; #"
QUOTED = ["\\", "\n", "\n ", "\t", "'", '"', "'a'", '"b"', "'file:/x,0,w'", "'kernel'", "ä", "\0"]
WORDS = [*KEYS, *PYTHON.split(), *QUOTED, "1", "64", "0x10", "010"]
any_text = st.text(max_size=300)
likely_text = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
statement = st.tuples(st.sampled_from(KEYS), st.sampled_from(["=", "+="]), st.lists(st.sampled_from(WORDS), max_size=6))
file_text = st.lists(statement.map(lambda s: f"{s[0]} {s[1]} {' '.join(s[2])}"), max_size=6).map("\n".join)


def check(text: str, *changes: str) -> None:
    fault = ""
    try:
        found = read_text(text, Path("g.cfg"), changes)
    except ConfigError as error:
        fault = str(error)
    if fault:
        assert PLACE.search(fault), fault
    else:
        assert isinstance(found, GuestFile)
        assert len(found.config.cmdline.encode(errors="surrogateescape")) < 1024


@settings(max_examples=300, deadline=None)
@given(any_text | likely_text | file_text)
def test_any_text(text: str) -> None:
    check(text)
    check(f"kernel = 'k'\n{text}")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200).map(lambda data: data.decode(errors="surrogateescape")))
def test_any_bytes(text: str) -> None:
    check(text)


@settings(max_examples=200, deadline=None)
@given(any_text | likely_text)
def test_any_change(text: str) -> None:
    check("kernel = 'k'", text)
    check("kernel = 'k'", f"memory={text}")


PARTS = "file: phy: raw: x: /a hda 0 6:cdrom xvda1 r w , , , = target= vdev= format= raw cdrom devtype= access= empty :"
SPEC = st.lists(st.sampled_from([*PARTS.split(), " ", "script="]), max_size=14).map("".join)


@settings(max_examples=300, deadline=None)
@given(SPEC | any_text)
def test_any_disk(spec: str) -> None:
    fault = ""
    try:
        disk = parse(Source("g.cfg", spec), Value(spec, Place(1, 1), text=True), Path(), lambda *_: None)
    except ConfigError as error:
        fault = str(error)
    if fault:
        assert PLACE.search(fault), fault
    else:
        assert 0 <= disk.number < 1 << 31
        assert disk.readonly or not disk.cdrom
