"""``pvstub bisect packages``: versions of a Debian package, from a small archive and from the cache."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from archive import Archive
from demonstration import built

from harness import package_versions, packages
from harness.bisect.command import main
from stub.errors import ImageError, UsageError

pytestmark = pytest.mark.usefixtures("pv_engine")

META = "linux-image-amd64"
REFUSAL = "update_va_mapping rc=-EBUSY"
COMMITS = (20, 21, 22, 23, 24, 25)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """With six versions of a kernel, one commit of the demonstration each, behind the package that depends on each."""
    kernels = {commit: built(tmp_path, commit).read_bytes() for commit in COMMITS}
    made = Archive(tmp_path / "archive")
    for commit, kernel in kernels.items():
        package, version = f"linux-image-6.1.0-{commit}-amd64", f"6.1.{commit}-1"
        made.add(package, version, f"./boot/vmlinuz-6.1.0-{commit}-amd64", kernel)
        made.add(META, version, depends=f"{package} (= {version})")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "_new_lists", {})
    return made


def bisect(folder: Path, good: str, bad: str, *more: str) -> tuple[int, dict[str, object]]:
    words = ["packages", META, f"--good={good}", f"--bad={bad}", f"--state={folder}", "--same-seed", *more]
    status = main([*words, "--hypercall", REFUSAL, "--", "--memory=32", "--cmdline=demo"])
    report = folder / "report.json"
    return status, json.loads(report.read_text()) if report.exists() else {}


def test_the_version_is_found_and_only_what_is_booted_is_downloaded(archive: Archive, tmp_path: Path) -> None:
    status, report = bisect(tmp_path / "state", "6.1.20-1", "6.1.25-1", "--spots=0")
    assert (status, report["first_bad"], report["last_good"]) == (0, ["6.1.23-1"], "6.1.22-1")
    assert len(archive.downloads()) == len(set(archive.downloads())) < len(COMMITS)
    for word in archive.downloads():
        assert word.startswith("linux-image-6.1.0-")


def test_what_was_fetched_once_is_in_the_cache_for_good(archive: Archive, tmp_path: Path) -> None:
    assert bisect(tmp_path / "one", "6.1.20-1", "6.1.25-1")[0] == 0
    fetched = archive.downloads()
    for word in fetched:
        archive.forget(META, word.partition("=")[2])
    status, report = bisect(tmp_path / "two", "6.1.20-1", "6.1.25-1")
    assert (status, report["first_bad"]) == (0, ["6.1.23-1"])
    assert archive.downloads() == fetched


def test_a_version_that_the_archive_lost_is_skipped(archive: Archive, tmp_path: Path) -> None:
    (archive.folder / "debs" / "linux-image-6.1.0-22-amd64=6.1.22-1.deb").unlink()
    status, report = bisect(tmp_path / "state", "6.1.20-1", "6.1.25-1")
    assert (status, report["first_bad"], report["last_good"]) == (0, ["6.1.22-1", "6.1.23-1"], "6.1.21-1")
    (reason,) = report["skipped"].values()  # type: ignore[attr-defined]
    assert reason.startswith("trouble 3 times, last: linux-image-amd64 6.1.22-1: ")


@pytest.mark.parametrize(
    ("package", "good", "message"),
    [
        (META, "6.1.19-1", "no version 6.1.19-1 in apt's lists or in the cache; there are 6.1.20-1, 6.1.21-1,"),
        ("linux-image-none", "1", "no version 1 in apt's lists or in the cache; there are none"),
        ("../x", "1", "is no package's name"),
    ],
)
def test_versions_that_are_not_there(archive: Archive, package: str, good: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        package_versions.between(package, good, "6.1.25-1")


def test_a_regression_may_go_down(archive: Archive) -> None:
    assert package_versions.between(META, "6.1.23-1", "6.1.21-1") == ["6.1.23-1", "6.1.22-1", "6.1.21-1"]


def test_a_file_of_another_kind(archive: Archive) -> None:
    """A package that holds its files itself, and one of them by its path."""
    archive.add("grub-xen-host", "2.06-13", "./usr/lib/grub-xen/grub-x86_64-xen.bin", b"grub")
    unit = package_versions.file_of("grub-xen-host", "2.06-13", "usr/lib/grub-xen/.*")
    assert unit.path.read_bytes() == b"grub"
    with pytest.raises(ImageError, match="has no file boot/vmlinuz"):
        package_versions.file_of("grub-xen-host", "2.06-13")


def test_the_order_of_versions_is_debians() -> None:
    """As ``dpkg --compare-versions`` has it."""
    ordered = [
        "", "1.0~rc1", "1.0~rc1+b1", "1.0", "1.0-1~bpo1", "1.0-1", "1.0-1.1", "1.0a", "1.0+b1", "1.0.1", "1.2-1",
        "1.10-1", "6.1.9-1", "6.1.10-1", "6.12~rc1-1", "6.12-1", "1:0.1",
    ]  # fmt: skip
    for low, high in itertools.combinations(ordered, 2):
        assert package_versions.version_order(low) < package_versions.version_order(high), (low, high)
