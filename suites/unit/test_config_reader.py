"""From a configuration file to the domain that it describes, and what `pvstub config check` says of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from stub import asked
from stub.cli import main
from stub.domain import hostmemory
from stub.domain.actions import ACTIONS, SETTINGS
from stub.domain.disk import Disk
from stub.domain.guestfile import keys
from stub.domain.guestfile.reader import READ, GuestFile, is_one, read, read_text
from stub.errors import ConfigError

HERE = Path("/guests/g.cfg")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

# The two files of a domU's life as they were written for xm in 2007: to install from the CD, and to run.
INSTALL = """
name = "nevada"
vcpus = 1
memory = "1024"
kernel = "/boot/platform/i86xpv/kernel/unix"
ramdisk = "/boot/x86.miniroot"
extra = "/platform/i86xpv/kernel/unix - nowin -B install_media=cdrom"
disk = ['file:/export/nv75.iso,6:cdrom,r', 'file:/export/nevada.img,0,w']
vif = ['']
on_shutdown = 'destroy'
on_reboot = 'destroy'
on_crash = 'destroy'
"""
RUN = """
name = "nevada"
vcpus = 1
memory = "1024"
kernel = "/boot/platform/i86xpv/kernel/unix"
ramdisk = "/platform/i86pc/boot_archive"
root = "/dev/dsk/c0d0s0"
disk = ['file:/export/nevada.img,0,w']
vif = ['']
on_shutdown = 'destroy'
on_reboot = 'restart'
on_crash = 'destroy'
"""
IMG = Disk(Path("/export/nevada.img"), "0", 0)


def guest(text: str, *changes: str) -> GuestFile:
    return read_text(f"kernel = 'k'\n{text}", HERE, changes)


def said(text: str) -> list[str]:
    return [str(each) for each in guest(text).warnings]


def test_the_file_to_install_with() -> None:
    found = read_text(INSTALL, HERE)
    config = found.config
    assert (found.language, config.name, config.memory, config.vcpus) == ("xl", "nevada", 1024, 1)
    assert config.disks == (Disk(Path("/export/nv75.iso"), "6", 6, readonly=True, device_type="cdrom"), IMG)
    assert config.cmdline == "/platform/i86xpv/kernel/unix - nowin -B install_media=cdrom"
    assert (config.on_poweroff, config.on_reboot, config.on_crash) == ("destroy", "destroy", "destroy")
    assert [each.at for each in found.warnings] == ["/guests/g.cfg:9:1"]  # vif


def test_the_file_to_run_with() -> None:
    config = read_text(RUN, HERE).config
    assert config.disks == (IMG,)
    assert config.cmdline == "root=/dev/dsk/c0d0s0"
    assert config.ramdisk == Path("/platform/i86pc/boot_archive")
    assert config.on_reboot == "restart"


def test_a_file_that_computes_is_read_as_python() -> None:
    text = "base = '/img'\nname = 'vm' + str(2)\nkernel = '%s/vmlinuz' % base\nmemory = 128 * 2\n"
    text += "disk = ['file:%s/%s.img,xvda,w' % (base, name)]\n_own = 1\nunused = 2\n"
    found = read_text(text, HERE)
    assert found.language == "xm"
    assert found.config.kernel == Path("/img/vmlinuz")
    assert found.config.disks == (Disk(Path("/img/vm2.img"), "xvda", 51712),)
    assert [str(each) for each in found.warnings] == ["/guests/g.cfg:7:1: unused is no key that is known; ignored"]


CMDLINES = {
    "cmdline = 'a b'": "a b",
    "root = '/dev/xvda1'": "root=/dev/xvda1",
    "extra = 'quiet'": "quiet",
    "root = '/dev/xvda1 ro'\nextra = 'quiet'": "root=/dev/xvda1 ro quiet",
    "cmdline = 'a'\nextra = 'b'": "a",
    "root = ''\nextra = 'b'": "b",
    "root = '/dev/ram0' + ''\nip = '10.0.0.2'\ngateway = '10.0.0.1'": (
        "ip=10.0.0.2:127.0.255.255:10.0.0.1:::eth0:off root=/dev/ram0"
    ),
    "dhcp = 'dh' + 'cp'": "ip=:127.0.255.255::::eth0:dhcp",
    "nfs_server = '10.0.0.1' + ''\nnfs_root = '/r'\nroot = '/dev/nfs'": "nfsroot=10.0.0.1:/r root=/dev/nfs",
}


@pytest.mark.parametrize("text", CMDLINES, ids=range(len(CMDLINES)))
def test_command_line(text: str) -> None:
    """xl's parse_cmdline, and what xm's create.py made of its own keys."""
    assert guest(text).config.cmdline == CMDLINES[text]


def test_cmdline_over_root_and_extra_is_a_warning() -> None:
    assert said("root = 'r'\nextra = 'e'\ncmdline = 'c'") == [
        "/guests/g.cfg:2:1: root and extra have no effect: cmdline is set"
    ]


@pytest.mark.parametrize("memory", ["512", "'512'", "0x200", "01000", "'0x200'", "256 * 2"])
def test_memory(memory: str) -> None:
    """A number, or a string with one in it, as xl and xm take it."""
    assert guest(f"memory = {memory}").config.memory == 512


def test_defaults() -> None:
    """xl's: a reboot restarts, all else ends; the name is the file's."""
    config = guest("").config
    assert (config.name, config.memory, config.vcpus, config.cmdline, config.disks) == ("g", 256, 1, "", ())
    assert [getattr(config, name) for name in SETTINGS.values()] == [
        "destroy", "restart", "destroy", "destroy", "soft-reset"
    ]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS.values())
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_of_every_end(name: str, action: str) -> None:
    assert getattr(guest(f"{name} = '{action}'").config, name) == action


@pytest.mark.parametrize(
    ("word", "actions"),
    [
        ("always", ("restart", "restart", "restart")),
        ("onreboot", ("destroy", "restart", "destroy")),
        ("never", ("destroy", "destroy", "destroy")),
    ],
)
def test_xms_restart(word: str, actions: tuple[str, str, str]) -> None:
    config = guest(f"restart = '{word}'").config
    assert (config.on_poweroff, config.on_reboot, config.on_crash) == actions


def test_files_are_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or where the command runs, as xl has it, if they are only there."""
    (tmp_path / "guests").mkdir()
    (tmp_path / "here").mkdir()
    for name in ("guests/kernel", "here/kernel", "here/ramdisk"):
        (tmp_path / name).touch()
    file = tmp_path / "guests" / "g.cfg"
    file.write_text("kernel = 'kernel'\nramdisk = 'ramdisk'\ndisk = ['d.img,,xvda']\n")
    monkeypatch.chdir(tmp_path / "here")
    config = read(file).config
    assert config.kernel == tmp_path / "guests" / "kernel"
    assert config.ramdisk == Path("ramdisk")
    assert config.disks[0].target == tmp_path / "guests" / "d.img"


WRONG = {
    "memory = 'lots'": (2, 10, "memory is a number"),
    "memory = 99999999999999999999": (2, 10, "in MiB"),
    "memory = 16": (2, 10, "in MiB"),
    "maxmem = 8": (2, 10, "maxmem is in MiB"),
    "memory = 64\nmaxmem = 32": (3, 10, "less than memory"),
    "memory = [64]": (2, 10, "not a list"),
    "vcpus = 4": (2, 9, "--set vcpus=1"),
    "vcpus = 1\nmaxvcpus = 0": (3, 12, "less than vcpus"),
    "max_event_channels = 1": (2, 22, "use 2 or more"),
    "name = ['a']": (2, 8, "name is a string"),
    "name = 'a/b'": (2, 8, "no /"),
    "uuid = '1234'": (2, 8, "a UUID looks like"),
    "type = 'hvm'": (2, 8, "boots PV guests"),
    "builder = 'hvm'": (2, 11, "boots PV guests"),
    "bootloader = 'pygrub'": (2, 14, "in dom0"),
    "firmware = 'uefi'": (2, 12, "one of pvgrub32, pvgrub64"),
    "on_crash = 'explode'": (2, 12, "one of destroy, restart"),
    "restart = 'maybe'": (2, 11, "always, onreboot, never"),
    "disk = 'a,,xvda'": (2, 8, "disk is a list"),
    "disk = [1]": (2, 9, "no vdev"),
    "disk = [['a']]": (2, 9, "a disk is a string"),
    "disk = ['a,,xvda', 'b,,d0p0']": (2, 20, "two disks are the guest's 51712"),
    "disk = ['phy:/dev/sda,xvda,w']": (2, 9, "--allow-devices"),
    "cmdline = '" + "a" * 1024 + "'": (2, 11, "1023 bytes"),
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_error_has_its_place(text: str) -> None:
    line, column, message = WRONG[text]
    with pytest.raises(ConfigError) as caught:
        guest(text)
    first, _, caret = str(caught.value).split("\n")
    assert first.startswith(f"/guests/g.cfg:{line}:{column}: ")
    assert message in first
    assert caret.endswith("^")


def test_without_a_kernel() -> None:
    with pytest.raises(ConfigError, match="--set kernel=FILE"):
        read_text("name = 'a'", HERE)


def test_the_error_that_comes_further_is_told() -> None:
    """A file that neither grammar takes: of its kind, most likely, is the one that goes further."""
    with pytest.raises(ConfigError, match=r"g\.cfg:3:5: "):
        read_text("a = 'x'\nb = 'y'\nc = nonsense here", HERE)
    with pytest.raises(ConfigError, match=r"g\.cfg:4:"):
        read_text("a = 'x' + 'y'\nb = 1\nc = 2\nd = )", HERE)


def test_every_key_that_is_not_read_is_one_warning_with_its_line() -> None:
    names = sorted({*keys.WITHOUT_EFFECT, *keys.HVM_ONLY, "no_such_key"} - {"pvh"})
    text = "\n".join(f"{name} = 1" for name in names)
    found = said(text)
    assert [each.split(": ")[0] for each in found] == [f"/guests/g.cfg:{i}:1" for i in range(2, len(names) + 2)]
    assert all(name in each for name, each in zip(names, found, strict=True))


def test_no_key_is_in_two_tables() -> None:
    assert not keys.HVM_ONLY & set(keys.WITHOUT_EFFECT)
    assert not READ & (keys.HVM_ONLY | set(keys.WITHOUT_EFFECT))


def test_the_page_has_every_key() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert not [name for name in READ | set(keys.WITHOUT_EFFECT) if f"`{name}`" not in page]


@pytest.mark.parametrize(
    ("text", "most"), [("", 1023), ("max_event_channels = 0", 1023), ("max_event_channels = 9", 9)]
)
def test_how_many_event_channels(text: str, most: int) -> None:
    assert read_text(f"kernel = 'k'\n{text}", HERE).config.event_channels == most


def test_maxmem_and_maxvcpus_warn() -> None:
    found = said("memory = 64\nmaxmem = 128\nvcpus = 1\nmaxvcpus = 4")
    assert len(found) == 2
    assert "maxmem has no effect" in found[0]
    assert "maxvcpus has no effect" in found[1]


def test_changes_come_after_the_file() -> None:
    config = guest("memory = 64\nvcpus = 4", "vcpus=1", "memory='128'", "name=a b", "disk=['d,,xvda']").config
    assert (config.memory, config.name, len(config.disks)) == (128, "a b", 1)
    with pytest.raises(ConfigError, match="--set:1:8: memory is a number"):
        guest("", "memory=lots")
    with pytest.raises(ConfigError, match="give key=value"):
        guest("", "memory")


def test_a_device_when_it_is_allowed() -> None:
    found = read_text("kernel='k'\ndisk=['phy:/dev/zvol/a,0,r']", HERE, devices=True)
    assert found.config.disks == (Disk(Path("/dev/zvol/a"), "0", 0, readonly=True),)


def test_what_looks_like_a_configuration(tmp_path: Path) -> None:
    for name, data, expected in (
        ("a.cfg", b"", True),
        ("guest", b"# xl\n\nname = 'a'\n", True),
        ("vmlinuz", b"\x7fELF\0\0a = 1\n", False),
        ("script", b"#!/bin/sh\necho\n", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_one(tmp_path / name) is expected
    assert not is_one(tmp_path)
    assert not is_one(tmp_path / "nowhere")


# -- pvstub config check


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "g.cfg"
    path.write_text("kernel = 'kernel'\nmemory = 64\nvnc = 1\ndisk = [',,hdc:cdrom']\n")
    (tmp_path / "kernel").touch()
    return path


def test_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(file)]) == 0
    out = capsys.readouterr().out
    assert "memory        64 MiB" in out
    assert "disk          hdc (5632): empty read-only cdrom, empty" in out
    assert f"warning: {file}:3:1: vnc has no effect: it is an HVM guest's" in out


def test_check_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = file.with_name("bad.cfg")
    bad.write_text("kernel = \n")
    assert main(["config", "check", "--json", "--set", "name=other", str(file), str(bad)]) == 2
    good, wrong = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["guest"]["name"], good["guest"]["memory"], good["errors"]) == ("other", 64, [])
    assert len(good["warnings"]) == 1
    assert wrong["guest"] is None
    assert wrong["errors"][0].startswith(f"{bad}:1:10: ")


def test_check_names_the_files_that_are_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--set", "ramdisk=gone", str(file)]) == 2
    assert f"ramdisk: there is no file {file.parent / 'gone'}" in capsys.readouterr().out


def test_check_of_what_a_terminal_would_obey(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"kernel = 'kernel'\ncmdline = '\x1b[2J \xff'\n")
    assert main(["config", "check", str(file)]) == 0
    assert "cmdline       \\x1b[2J \\udcff" in capsys.readouterr().out


def test_kernel_of_the_catalogue(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is no file: the image's files, and its size and command line where the file says nothing."""
    image = SimpleNamespace(name="cloud", kernel=file.with_name("kernel"), ramdisk=file, cmdline="quiet", memory=192)
    monkeypatch.setattr(asked, "resolve", {"cloud": image}.get)
    file.write_text("kernel = 'cloud'\nmemory = 64\n")
    assert main(["config", "check", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)["guest"]
    assert (found["kernel"], found["ramdisk"]) == (str(image.kernel), str(file))
    assert (found["memory"], found["cmdline"]) == (64, "quiet")
    monkeypatch.setattr(asked, "resolve", {"grub-xen64": image}.get)
    file.write_text("firmware = 'pvgrub64'\n")
    assert main(["config", "check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["guest"]["kernel"] == str(image.kernel)
    file.write_text("kernel = 'no-such-image'\n")
    assert main(["config", "check", str(file)]) == 2


def test_too_much_memory_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All guests together under 55 % of the machine's memory; the warning has the figures."""
    monkeypatch.setattr(hostmemory, "host_memory", lambda: 200)
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["config", "check", str(file), str(file)]) == 0
    said = capsys.readouterr().err
    assert "128 MiB is 64% of this machine's 200 MiB" in said
    assert "under 55%, 110 MiB" in said


def test_a_kernel_file_takes_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kernel").write_bytes(b"\x7fELF")
    assert main(["boot", str(tmp_path / "kernel"), "--set", "memory=64"]) == 2
    assert "no configuration file" in capsys.readouterr().err
