"""The catalogue and `pvstub images`, with apt and dpkg-deb played by small scripts: no network, no real package."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from importlib import metadata
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from harness import cache, catalogue, commands, packages, progress
from stub.errors import ImageError, UsageError

SPAWN = multiprocessing.get_context("spawn")

# What apt knows is in show/, what the archive has in debs/; each call that would use the network is a line in the log.
APT_CACHE = """#!/bin/sh
for name; do :; done
cat "$ARCHIVE/show/${name%%=*}" 2>/dev/null || { echo 'E: No packages found' >&2; exit 100; }
"""
APT_GET = """#!/bin/sh
for name; do last=$action; action=$name; done
case "$*" in
*' update '*)
    echo update >>"$ARCHIVE/log"
    [ -e "$ARCHIVE/new" ] || { echo 'E: Failed to fetch InRelease  Could not resolve the host' >&2; exit 100; }
    cp "$ARCHIVE"/new/* "$ARCHIVE/show/" ;;
*)
    echo "download $action" >>"$ARCHIVE/log"
    [ ! -e "$ARCHIVE/die" ] || { echo half >half.deb; kill -9 $PPID; exit 1; }
    [ ! -e "$ARCHIVE/refuse" ] || { cat "$ARCHIVE/refuse" >&2; exit 100; }
    [ -e "$ARCHIVE/debs/$action.deb" ] || { echo "E: Failed to fetch $action  404  Not Found" >&2; exit 100; }
    cp "$ARCHIVE/debs/$action.deb" . ;;
esac
"""
DPKG_DEB = '#!/bin/sh\nexec cat "$2"\n'


class Archive:
    """A Debian archive in a folder, and on PATH the tools that know no other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "show", "debs"):
            (folder / name).mkdir()
        for name, script in {"apt-cache": APT_CACHE, "apt-get": APT_GET, "dpkg-deb": DPKG_DEB}.items():
            tool = folder / "bin" / name
            tool.write_text(script)
            tool.chmod(0o755)
        self.add("busybox-static", "1:1.35.0-4", {"./bin/busybox": b"\x7fELF busybox"})
        self.add_kernel("6.1.0-1", "6.1.10-1")

    def add_kernel(self, release: str, version: str, lists: str = "show") -> None:
        package = f"linux-image-{release}-cloud-amd64"
        files = {f"./boot/System.map-{release}": b"map", f"./boot/vmlinuz-{release}-cloud-amd64": release.encode()}
        self.add("linux-image-cloud-amd64", version, {}, f"{package} (= {version})", lists)
        self.add(package, version, files, "kmod, linux-base (>= 4.3~)", lists)

    def add(
        self, package: str, version: str, files: Mapping[str, bytes], depends: str = "", lists: str = "show"
    ) -> None:
        show = f"Package: {package}\nVersion: {version}\nSize: 10240\nSHA256: {'0' * 64}\n"
        (self.folder / lists).mkdir(exist_ok=True)
        (self.folder / lists / package).write_text(show + (f"Depends: {depends}\n" if depends else ""))
        with tarfile.open(self.folder / "debs" / f"{package}={version}.deb", "w") as package_file:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                package_file.addfile(member, io.BytesIO(content))

    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    (tmp_path / "archive").mkdir()
    monkeypatch.setenv("ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'archive' / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "cache"))
    # A process that is killed leaves its downloads there.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(packages, "_new_lists", {})
    return Archive(tmp_path / "archive")


FETCHED_ONCE = ["download linux-image-6.1.0-1-cloud-amd64=6.1.10-1", "download busybox-static=1:1.35.0-4"]


def test_the_catalogue_is_sound() -> None:
    assert {"debian-cloud", "debian-amd64"} <= set(catalogue.names())
    for name in catalogue.names():
        row = catalogue.entry(name)
        assert row.summary
        assert row.memory >= 64
        assert ("console=hvc0" in row.cmdline.split()) == name.startswith("debian-"), "Linux alone is told its console"


@pytest.mark.parametrize("name", ["init", "init-disk"])
def test_the_init_scripts_are_such_as_a_shell_can_read(name: str) -> None:
    script = Path(catalogue.__file__).parents[1] / "images" / name
    assert script.read_text().startswith("#!/bin/busybox sh\n")
    assert subprocess.run(["sh", "-n", str(script)], capture_output=True, check=False).stderr == b""


def test_init_says_first_that_it_was_reached() -> None:
    script = Path(catalogue.__file__).parents[1] / "images" / "init"
    commands_in_it = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands_in_it[0] == "echo 'pvstub: init reached'"


def test_no_image_has_this_name(archive: Archive) -> None:
    assert catalogue.resolve("debian-clod") is None
    assert catalogue.suggest("debian-clod") == "debian-cloud"
    assert catalogue.suggest("vmlinuz") is None
    with pytest.raises(UsageError, match="debian-clod: no image has this name; did you mean debian-cloud"):
        catalogue.entry("debian-clod")
    assert archive.log() == []


def test_an_image_is_fetched_through_its_meta_package(archive: Archive) -> None:
    image = catalogue.resolve("debian-cloud")
    assert image is not None
    assert image.kernel.name == "vmlinuz-6.1.0-1-cloud-amd64"
    assert image.kernel.read_bytes() == b"6.1.0-1"
    assert image.version == "6.1.10-1"
    assert image.packages == {"linux-image-6.1.0-1-cloud-amd64": "6.1.10-1", "busybox-static": "1:1.35.0-4"}
    assert image.ramdisk is not None
    assert image.ramdisk.read_bytes().count(b"\x7fELF busybox") == 1
    assert image.sha256["kernel"] == cache.sha256_of(image.kernel)
    assert image.sha256["ramdisk"] == cache.sha256_of(image.ramdisk)
    assert archive.log() == FETCHED_ONCE


def test_an_image_may_be_a_kernel_alone(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    """From any folder of its package; verify and path know that there is no ramdisk."""
    archive.add("grub-xen-host", "2.06-13", {"./usr/lib/grub-xen/grub-x86_64-xen.bin": b"\x7fELF grub"})
    image = catalogue.load("grub-xen64")
    assert (image.kernel.read_bytes(), image.ramdisk, image.version) == (b"\x7fELF grub", None, "2.06-13")
    assert set(image.sha256) == {"kernel"}
    assert image.packages == {"grub-xen-host": "2.06-13"}
    assert catalogue.cached("grub-xen64") == image
    assert commands.images(["path", "grub-xen64"]) == 0
    assert commands.images(["verify"]) == 0
    assert capsys.readouterr().out == f"{image.kernel}\ngrub-xen64: whole\n"
    assert catalogue.load("grub-xen64", refresh=True) == image
    assert archive.log() == ["download grub-xen-host=2.06-13"] * 2


def test_an_image_of_our_own_is_compiled(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """From sources, without a package; other sources, another image."""
    image = catalogue.load("unix32")
    assert image.kernel.read_bytes()[:5] == b"\x7fELF\x01"
    assert (image.ramdisk, dict(image.packages), image.version) == (None, {}, metadata.version("pvstub"))
    assert catalogue.cached("unix32") == image
    monkeypatch.setattr("harness.own_guests.sources", lambda: "changed")
    assert catalogue.cached("unix32") is None
    assert archive.log() == []


MODULES = (
    "lib/crc16",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "crypto/crc32c_generic",
    "fs/ext4/ext4",
    "drivers/block/xen-blkfront",
)


def add_kernel_with_modules(archive: Archive, release: str, version: str) -> None:
    package = f"linux-image-{release}-amd64"
    files = {f"./boot/vmlinuz-{release}-amd64": release.encode()}
    files |= {
        f"./lib/modules/{release}-amd64/kernel/{name}.ko": f"{name} {release}".encode() for name in reversed(MODULES)
    }
    archive.add("linux-image-amd64", version, {}, f"{package} (= {version})")
    archive.add(package, version, files)


def test_a_ramdisk_has_the_modules_of_its_kernel(archive: Archive) -> None:
    """In the order in which they are loaded; once a newer kernel is there, for another image, both are fetched anew."""
    add_kernel_with_modules(archive, "6.1.0-1", "6.1.10-1")
    image = catalogue.load("debian-disk")
    assert image.ramdisk is not None
    data = image.ramdisk.read_bytes()
    places = [data.index(f"{name} 6.1.0-1".encode()) for name in MODULES]
    assert places == sorted(places)
    assert data.index(b"lib/modules/00-crc16.ko\0") < data.index(b"lib/modules/05-xen-blkfront.ko\0")
    assert data.count(b"init-plain\0") == 1
    add_kernel_with_modules(archive, "6.1.0-2", "6.1.20-1")
    catalogue.load("debian-amd64", refresh=True)
    later = catalogue.load("debian-disk")
    assert (later.version, later.kernel.read_bytes()) == ("6.1.20-1", b"6.1.0-2")
    assert later.ramdisk is not None
    assert b"fs/ext4/ext4 6.1.0-2" in later.ramdisk.read_bytes()


def test_a_package_without_a_module_is_no_use(archive: Archive) -> None:
    archive.add("linux-image-amd64", "6.1.10-1", {}, "linux-image-6.1.0-1-amd64 (= 6.1.10-1)")
    archive.add("linux-image-6.1.0-1-amd64", "6.1.10-1", {"./boot/vmlinuz-6.1.0-1-amd64": b"kernel"})
    with pytest.raises(ImageError, match=r"has no file lib/modules/.*crc16"):
        catalogue.load("debian-disk")


def test_a_part_may_be_for_another_processor(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt is told so; lists of its own are fetched for each architecture."""
    told = []
    begin = packages._Apt.__init__

    def noted(self: packages._Apt, folder: Path, what: str, configuration: str) -> None:
        told.append("i386" if 'Architecture "i386"' in configuration else "amd64")
        begin(self, folder, what, configuration)

    monkeypatch.setattr(packages._Apt, "__init__", noted)
    package = "gnumach-image-1.8-xen-486"
    archive.add(package, "2:1.8", {"./boot/gnumach-1.8-xen-486.gz": b"mach"}, lists="new")
    assert catalogue.load("gnumach32").kernel.read_bytes() == b"mach"
    assert catalogue.load("debian-cloud").version == "6.1.10-1"
    assert told == ["i386", "i386", "i386", "amd64", "amd64"], "asked, lists fetched, asked again; then the others"
    assert archive.log()[:2] == ["update", f"download {package}=2:1.8"]


def test_the_ramdisk_is_the_same_wherever_it_is_built(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = catalogue.load("debian-cloud")
    monkeypatch.setenv("PVSTUB_CACHE", str(tmp_path / "elsewhere"))
    there = catalogue.load("debian-cloud")
    assert here.ramdisk != there.ramdisk
    assert here.sha256 == there.sha256
    assert len(archive.log()) == 4


def test_once_fetched_no_tool_and_no_slow_module_is_needed(archive: Archive) -> None:
    image = catalogue.load("debian-cloud")
    program = (
        "import sys; from harness.catalogue import resolve; print(resolve('debian-cloud').kernel)\n"
        "print(sorted({'subprocess', 'rich', 'argparse', 'harness.packages', 'harness.cpio'} & set(sys.modules)))"
    )
    environment = os.environ | {"PATH": "", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [str(image.kernel), "[]"]


def test_files_are_added_to_a_ramdisk_by_a_second_archive(archive: Archive) -> None:
    base = catalogue.load("debian-cloud").ramdisk
    assert base is not None
    more = catalogue.ramdisk_with(base, {"/pvstub/main": b"#!/bin/sh\n"})
    assert more.startswith(base.read_bytes())
    assert b"pvstub/main\0" in more[base.stat().st_size :]


def test_a_newer_version_comes_with_refresh_only(archive: Archive) -> None:
    catalogue.load("debian-cloud")
    archive.add_kernel("6.1.0-2", "6.1.20-1")
    assert catalogue.load("debian-cloud").version == "6.1.10-1"
    assert archive.log() == FETCHED_ONCE
    image = catalogue.load("debian-cloud", refresh=True)
    assert image.version == "6.1.20-1"
    assert sorted(path.name for path in image.kernel.parent.iterdir()) == [
        "lock",
        "record.json",
        "vmlinuz-6.1.0-2-cloud-amd64",
    ]


def test_lists_that_are_too_old_are_fetched_privately(archive: Archive) -> None:
    archive.add_kernel("6.1.0-2", "6.1.20-1", lists="new")
    (archive.folder / "debs" / "linux-image-6.1.0-1-cloud-amd64=6.1.10-1.deb").unlink()
    assert catalogue.load("debian-cloud").version == "6.1.20-1"
    assert archive.log()[1:3] == ["update", "download linux-image-6.1.0-2-cloud-amd64=6.1.20-1"]


def test_missing_lists_are_fetched_once_for_all_that_needs_them(archive: Archive) -> None:
    (archive.folder / "show").rename(archive.folder / "new")
    (archive.folder / "show").mkdir()
    catalogue.load("debian-cloud")
    assert archive.log() == ["update", *FETCHED_ONCE]


def test_offline_and_not_in_the_cache_is_one_line(archive: Archive) -> None:
    why = "E: Failed to fetch http://debian.example/x.deb  Could not resolve the host"
    (archive.folder / "refuse").write_text(why)
    with pytest.raises(ImageError) as error:
        catalogue.resolve("debian-cloud")
    told = str(error.value)
    assert told.startswith("debian-cloud: not in the cache, and linux-image-6.1.0-1-cloud-amd64 cannot be downloaded")
    assert "Could not resolve the host" in told
    assert "pvstub images fetch" in told
    assert "\n" not in told
    assert archive.log() == FETCHED_ONCE[:1]


def test_no_lists_and_offline_names_apt_get_update(archive: Archive) -> None:
    (archive.folder / "show" / "linux-image-cloud-amd64").unlink()
    with pytest.raises(ImageError, match=r"package lists are missing or too old.*run `apt-get update` as root"):
        catalogue.resolve("debian-cloud")


def test_a_package_that_no_list_has_is_one_line(archive: Archive) -> None:
    (archive.folder / "show").rename(archive.folder / "new")
    (archive.folder / "show").mkdir()
    (archive.folder / "new" / "linux-image-cloud-amd64").unlink()
    with pytest.raises(ImageError, match=r"debian-cloud: apt knows no package .*; is this machine's apt set up"):
        catalogue.resolve("debian-cloud")


@pytest.mark.parametrize("tool", ["apt-get", "apt-cache", "dpkg-deb"])
def test_a_missing_tool_is_named(archive: Archive, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (archive.folder / "bin" / tool).unlink()
    monkeypatch.setenv("PATH", str(archive.folder / "bin"))
    with pytest.raises(ImageError, match=f"there is no {tool} to fetch it; .* install {packages.TOOLS[tool]}"):
        catalogue.resolve("debian-cloud")


@pytest.mark.parametrize("content", [b"", b"no archive at all", bytes(700)])
def test_a_package_that_cannot_be_unpacked_is_one_line(archive: Archive, content: bytes) -> None:
    (archive.folder / "debs" / "linux-image-6.1.0-1-cloud-amd64=6.1.10-1.deb").write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot be unpacked|has no file"):
        catalogue.resolve("debian-cloud")


def _fetch() -> None:
    catalogue.load("debian-cloud")


def test_a_fetch_that_is_killed_leaves_a_cache_that_works(archive: Archive) -> None:
    (archive.folder / "die").touch()
    process = SPAWN.Process(target=_fetch)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert catalogue.cached("debian-cloud") is None
    (archive.folder / "die").unlink()
    assert catalogue.load("debian-cloud").kernel.read_bytes() == b"6.1.0-1"


def _fetch_with_others(together: Barrier) -> None:
    together.wait(30)
    assert catalogue.load("debian-cloud").kernel.read_bytes() == b"6.1.0-1"


def test_two_processes_fetch_at_once_and_one_downloads(archive: Archive) -> None:
    together = SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=_fetch_with_others, args=(together,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert archive.log() == FETCHED_ONCE


def test_the_command_lists_fetches_and_says_where(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.images(["list"]) == 0
    listed = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(catalogue.names())
    assert archive.log() == []
    assert commands.images(["fetch", "debian-cloud"]) == 0
    assert commands.images(["fetch", "debian-cloud"]) == 0
    out = capsys.readouterr()
    assert out.out.splitlines() == ["debian-cloud: 6.1.10-1, fetched", "debian-cloud: 6.1.10-1, already here"]
    assert out.err == ""
    assert commands.images(["path", "debian-cloud"]) == 0
    image = catalogue.load("debian-cloud")
    assert capsys.readouterr().out == f"{image.kernel}\n{image.ramdisk}\n"
    assert commands.images(["list"]) == 0
    assert "debian-cloud       6.1.10-1     Debian's cloud kernel" in capsys.readouterr().out


def test_verify_finds_damage_and_mends_it(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.images(["verify"]) == 0
    assert capsys.readouterr().out == ""
    image = catalogue.load("debian-cloud")
    assert commands.images(["verify"]) == 0
    assert capsys.readouterr().out == "debian-cloud: whole\n"
    image.kernel.write_bytes(b"6.1.0-X")
    assert commands.images(["verify", "debian-cloud"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"debian-cloud: {image.kernel}: SHA-256 ")
    assert told[1] == "debian-cloud: fetched again"
    assert image.kernel.read_bytes() == b"6.1.0-1"
    assert archive.log() == [*FETCHED_ONCE, FETCHED_ONCE[0]]


def test_a_damaged_ramdisk_needs_no_network(archive: Archive) -> None:
    image = catalogue.load("debian-cloud")
    assert image.ramdisk is not None
    image.ramdisk.write_bytes(b"short")
    assert catalogue.load("debian-cloud").sha256 == image.sha256
    assert archive.log() == FETCHED_ONCE


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "images: the following arguments are required: ACTION"),
        (["fetch"], "the following arguments are required: NAME"),
        (["fetch", "debian-cluod"], "did you mean debian-cloud?"),
        (["path", "nothing"], "no image has this name; there are debian-cloud"),
        (["verify", "debian-cloud"], "not in the cache; run `pvstub images fetch debian-cloud`"),
        (["burn"], "invalid choice: 'burn'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    archive: Archive, capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    assert commands.images(argv) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert told in out.err
    assert len(out.err.splitlines()) == 1
    assert archive.log() == []


@pytest.mark.parametrize(("terminal", "patience", "shown"), [(True, 0.0, True), (False, 0.0, False), (True, 60, False)])
def test_progress_is_shown_on_a_terminal_when_it_lasts(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, patience: float, shown: bool
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "PATIENCE_S", patience)
    monkeypatch.setenv("TERM", "xterm")
    with progress.Meter("a package", 2_000_000) as meter:
        meter.at(1_000_000)
    assert ("a package" in screen.getvalue()) is shown


def test_apts_own_user_can_write_where_root_downloads(tmp_path: Path) -> None:
    folder = packages._apt_can_write(tmp_path / "downloads")
    mode = folder.stat()
    assert stat.S_ISDIR(mode.st_mode)
    if os.geteuid() != 0:
        assert mode.st_uid == os.geteuid()
    else:
        import pwd

        assert pwd.getpwuid(mode.st_uid).pw_name in (packages.SANDBOX_USER, "root")
