"""summary.json: what is written validates and comes back; what does not is refused with the place of the fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stub.errors import PvstubError, UsageError
from stub.trace import summary
from stub.trace.writer import HypercallLog
from suites.unit.test_trace_writer import IDENTITY, write_all

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def made() -> dict[str, Any]:
    with HypercallLog(None, identity=IDENTITY) as log:
        write_all(log)
    return summary.build(
        pvstub="0.1.0",
        engine="unicorn 2.1.4",
        image={"name": "debian-cloud", "kernel": {"file": "vmlinuz", "sha256": DIGEST}, "ramdisk": None},
        config={
            "memory": 256, "vcpus": 1, "cmdline": "console=hvc0 \udcff é", "seed": 1, "p2m": "shuffle", "epoch": 0,
            "realtime": False,
        },
        verdict={"kind": "poweroff", "reason": "the guest powered off", "exit_status": 0, "details": ("a", "b")},
        virtual_ns=10**10,
        retired=10**9,
        wall_s=3.25,
        counts=log.counts(),
        unimplemented={"xenpmu_op": 1},
        digests={"console": DIGEST, "hypercalls": log.digest()},
        rerun="pvstub boot debian-cloud",
    )  # fmt: skip


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(summary.schema())


def test_a_summary_comes_back_from_its_file_and_its_folder(tmp_path: Path, made: dict[str, Any]) -> None:
    summary.write(tmp_path / "summary.json", made)
    assert summary.load(tmp_path / "summary.json") == made == summary.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert made["verdict"]["details"] == ["a", "b"]
    assert made["counts"]["hypercalls"]["xen_version"] == 1


def test_a_summary_replaces_the_last_one(tmp_path: Path, made: dict[str, Any]) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    summary.write(path, made)
    assert summary.load(path)["wall_s"] == 3.25


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("verdict", "kind"), "bored", "verdict.kind: 'bored' is not one of"),
        (("retired",), -1, "retired: -1 is less than the minimum"),
        (("digests", "console"), "short", "digests.console: 'short' does not match"),
        (("image", "kernel"), {}, "image.kernel: 'file' is a required property"),
        (("surprise",), 1, "top level: Additional properties are not allowed"),
        (("schema",), 2, "schema: 1 was expected"),
    ],
)
def test_a_wrong_member_is_named(
    tmp_path: Path, made: dict[str, Any], place: tuple[str, ...], value: Any, says: str
) -> None:
    target = made
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    summary.write(tmp_path / "summary.json", made)
    with pytest.raises(UsageError) as caught:
        summary.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/summary.json: not a summary of this version: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[]"])
def test_what_is_no_summary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"summary\.json: (damaged|not a) summary"):
        summary.load(path)


def test_a_missing_summary_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"summary\.json: cannot read the summary: No such file"):
        summary.load(tmp_path)
    with pytest.raises(PvstubError, match=r"cannot write the summary: No such file"):
        summary.write(tmp_path / "nowhere" / "summary.json", {})


def test_an_unwritable_summary_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(PvstubError, match="cannot write the summary"):
        summary.write(tmp_path / "summary.json", {})
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["summary.json"]'
