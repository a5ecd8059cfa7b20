"""Files out of Debian's packages, by package name: apt finds, downloads and authenticates, dpkg-deb unpacks.

Nothing is installed, no root is needed and no setting of the machine is touched. Where apt's package lists are
missing or older than the archive, a private copy of the lists is fetched for this one use.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from harness.progress import Meter
from stub.errors import ImageError

# Of what pvstub's guests are, unless they say otherwise; whatever the host is.
ARCHITECTURE = "amd64"
TOOLS: Mapping[str, str] = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}
# The user that apt downloads as when root calls it.
SANDBOX_USER = "_apt"
POLL_S = 0.1

CONFIGURATION = """
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Acquire::Languages "none";
Acquire::Retries "2";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""

PRIVATE_LISTS = """
Dir::State::Lists "{lists}";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""

NO_SUCH_PACKAGE = re.compile(
    r"No packages found|Unable to locate package|Can't find a source to download|"
    r"no installation candidate|Version '.*' for '.*' was not found"
)
GONE_FROM_ARCHIVE = re.compile(r"\b(404|403) |Hash Sum mismatch|File has unexpected size")
FIELD = re.compile(r"^(\w[\w-]*): (.*)$", re.MULTILINE)


_T = TypeVar("_T")


class Wanted(NamedTuple):
    """Files in a package: one, ``member``, or several, ``members``.

    These and ``depends`` are patterns that must match a whole path or package name. ``architecture`` is Debian's name
    for the processor that the package is for. ``version``: of the package that is named; None for apt's choice.
    """

    package: str
    member: str = ""
    depends: str | None = None
    members: Sequence[str] = ()
    architecture: str = ARCHITECTURE
    version: str | None = None


class Unpacked(NamedTuple):
    """A file out of a package: its name without folders, its bytes, and which package it was."""

    name: str
    data: bytes
    package: str
    version: str
    package_sha256: str


class _Candidate(NamedTuple):
    package: str
    version: str
    size: int
    sha256: str
    depends: str


class _ListsTooOld(Exception):
    """apt's package lists do not have a package, or have one that the archive no longer has."""


def unpack(wanted: Wanted, what: str) -> Unpacked:
    """As :func:`unpack_all`, for the one file that is wanted."""
    return unpack_all(wanted, what)[0]


def unpack_all(wanted: Wanted, what: str) -> list[Unpacked]:
    """Download the package and take the files out of it, in the order in which they are asked for.

    ``what`` is what the user calls it, for errors and progress. Raises ImageError: a tool is missing, no network, no
    such package, no such file in it.
    """
    return _asked(wanted.architecture, what, lambda apt: apt.unpack(wanted))


def versions(package: str, what: str, architecture: str = ARCHITECTURE) -> list[str]:
    """The versions of a package that apt's lists have, in no order. Raises ImageError as :func:`unpack_all`."""
    return _asked(architecture, what, lambda apt: apt.versions(package))


def _asked(architecture: str, what: str, ask: Callable[[_Apt], _T]) -> _T:
    """What apt answers by the machine's lists, or, where these are too old, by new ones."""
    _require_tools(what)
    with _workplace() as folder:
        try:
            return ask(_Apt(folder, what, CONFIGURATION.format(architecture=architecture)))
        except _ListsTooOld:
            configuration, missing = _configuration_with_new_lists(architecture, what)
    with _workplace() as folder:
        apt = _Apt(folder, what, configuration)
        try:
            return ask(apt)
        except _ListsTooOld as error:
            if missing:
                fault = f"this machine's package lists are missing or too old, and no new ones can be had: {missing}"
                raise apt.failure(fault, "check the network, or run `apt-get update` as root and try again") from None
            remedy = "is this machine's apt set up for a Debian that has it? See /etc/apt/sources.list"
            raise apt.failure(str(error), remedy) from None


class _Apt:
    """apt in a folder of our own, with a configuration of our own on top of the machine's."""

    def __init__(self, folder: Path, what: str, configuration: str) -> None:
        self._what = what
        self._downloads = _apt_can_write(folder / "downloads")
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(configuration)

    def unpack(self, wanted: Wanted) -> list[Unpacked]:
        candidate = self._candidate(wanted.package, wanted.version)
        if wanted.depends is not None:
            candidate = self._candidate(*_dependency(candidate, wanted.depends, self._what))
        package = self._download(candidate)
        found = _members(package, wanted.members or [wanted.member], self._what)
        return [Unpacked(*file, candidate.package, candidate.version, candidate.sha256) for file in found]

    def versions(self, package: str) -> list[str]:
        done = self._run("apt-cache", "show", "--all-versions", package)
        found = [value for name, value in FIELD.findall(done.output) if name == "Version"]
        if done.returncode or not found:
            raise _ListsTooOld(f"apt knows no package {package}")
        return list(dict.fromkeys(found))

    def update(self) -> str:
        """Fetch the package lists into the folder that the configuration names; why not all of them could be had."""
        done = self._run("apt-get", "update", "--error-on=any", meter=Meter("package lists", None))
        return done.why if done.returncode else ""

    def failure(self, fault: str, remedy: str) -> ImageError:
        return ImageError(f"{self._what}: {fault}; {remedy}")

    def _candidate(self, package: str, version: str | None = None) -> _Candidate:
        name = f"{package}={version}" if version else package
        done = self._run("apt-cache", "show", "--no-all-versions", name)
        fields = dict(FIELD.findall(done.output))
        if done.returncode or not {"Version", "Size", "SHA256"} <= fields.keys():
            raise _ListsTooOld(f"apt knows no package {name}")
        return _Candidate(package, fields["Version"], int(fields["Size"]), fields["SHA256"], fields.get("Depends", ""))

    def _download(self, candidate: _Candidate) -> Path:
        meter = Meter(f"{candidate.package} {candidate.version}", candidate.size)
        done = self._run("apt-get", "download", f"{candidate.package}={candidate.version}", meter=meter)
        if done.returncode == 0:
            return next(self._downloads.glob("*.deb"))
        if NO_SUCH_PACKAGE.search(done.errors) or GONE_FROM_ARCHIVE.search(done.errors):
            raise _ListsTooOld(f"{candidate.package} {candidate.version} cannot be had: {done.why}")
        fault = f"not in the cache, and {candidate.package} cannot be downloaded: {done.why}"
        raise self.failure(fault, "fetch it once with a network (`pvstub images fetch`), after that it works without")

    def _run(self, *command: str, meter: Meter | None = None) -> _Done:
        tool, *arguments = command
        return _run([tool, "-q", "-c", str(self._configuration), *arguments], self._downloads, meter)


def _configuration_with_new_lists(architecture: str, what: str) -> tuple[str, str]:
    """apt's configuration with package lists of our own, fetched once in the life of this process; and why some of
    them could not be had. One list of several may do."""
    if architecture not in _new_lists:
        with contextlib.ExitStack() as undo:
            folder = undo.enter_context(_workplace())
            lists = _apt_can_write(folder / "lists")
            _apt_can_write(lists / "partial")
            configuration = CONFIGURATION.format(architecture=architecture) + PRIVATE_LISTS.format(lists=lists)
            missing = _Apt(folder, what, configuration).update()
            atexit.register(undo.pop_all().close)
        _new_lists[architecture] = configuration, missing
    return _new_lists[architecture]


_new_lists: dict[str, tuple[str, str]] = {}


class _Done(NamedTuple):
    returncode: int
    output: str
    errors: str

    @property
    def why(self) -> str:
        """The tool's first error, on one line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        worst = [line for line in lines if line.startswith(("E:", "W: Failed", "Err"))] or lines
        return re.sub(r"^[EW]: ", "", worst[0]) if worst else f"exit status {self.returncode}"


def _run(command: Sequence[str], folder: Path, meter: Meter | None) -> _Done:
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            with meter or contextlib.nullcontext():
                while True:
                    try:
                        output, errors = process.communicate(timeout=POLL_S)
                        break
                    except subprocess.TimeoutExpired:
                        if meter:
                            meter.at(sum(entry.stat().st_size for entry in os.scandir(folder)))
        except BaseException:
            process.kill()
            raise
    return _Done(process.returncode, output, errors)


def _dependency(meta: _Candidate, pattern: str, what: str) -> tuple[str, str | None]:
    for clause in meta.depends.split(","):
        if found := re.fullmatch(rf"\s*({pattern})(?:\s*\(=\s*(\S+)\))?\s*", clause):
            return found[1], found[2]
    raise ImageError(
        f"{what}: {meta.package} {meta.version} depends on nothing like {pattern!r} but on {meta.depends!r}; "
        f"mend the pattern in catalogue.toml"
    )


def _members(package: Path, patterns: Sequence[str], what: str) -> list[tuple[str, bytes]]:
    """The first file in a .deb whose path matches each pattern: its name without folders, its bytes.

    Reading stops when all are there (a kernel comes long before its modules).
    """
    left = {pattern: re.compile(pattern).fullmatch for pattern in patterns}
    found: dict[str, tuple[str, bytes]] = {}
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                for entry in files:
                    path = entry.name.removeprefix("./")
                    pattern = next((p for p, matches in left.items() if entry.isfile() and matches(path)), None)
                    if pattern is not None and (file := files.extractfile(entry)):
                        found[pattern] = path.rpartition("/")[2], file.read()
                        del left[pattern]
                        if not left:
                            return [found[pattern] for pattern in patterns]
        except (tarfile.TarError, EOFError) as error:
            raise ImageError(f"{what}: {package.name} cannot be unpacked ({error}); try again") from None
        finally:
            process.kill()
    raise ImageError(f"{what}: {package.name} has no file {next(iter(left))}; mend the pattern in catalogue.toml")


def _require_tools(what: str) -> None:
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            remedy = f"pvstub takes kernels from Debian's packages; run it on Debian, or install {package}"
            raise ImageError(f"{what}: not in the cache, and there is no {tool} to fetch it; {remedy}")


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for downloads, gone afterwards; anyone may pass through it, so that apt's own user can."""
    with tempfile.TemporaryDirectory(prefix="pvstub-fetch-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _apt_can_write(folder: Path) -> Path:
    """Make a folder that belongs to apt's own user when root is at work (to us otherwise)."""
    folder.mkdir()
    if os.geteuid() == 0:
        # Without that user apt downloads as root.
        with contextlib.suppress(LookupError):
            shutil.chown(folder, SANDBOX_USER)
    return folder
