"""Guest images by name: `images/catalogue.toml` says what they are, the cache has their files.

An image is a kernel and, for most, a ramdisk. Kernels and the ramdisk's program are *parts*, files out of Debian
packages, or compiled from sources of our own; the ramdisk is built from its part. Each part and each ramdisk is a unit
of the cache, made when it is first asked for.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import cache
from harness.images_folder import images_folder
from stub.errors import UsageError

if TYPE_CHECKING:
    from harness import packages

# Goes into each ramdisk's recipe; count it up when the code that builds ramdisks writes other bytes than before.
RAMDISK_FORMAT = 1


class CatalogueImage(NamedTuple):
    """An image whose files are there.

    ``memory`` in MiB; ``version`` is the kernel package's, or pvstub's for a kernel of our own; ``sha256`` has "kernel"
    and, with a ramdisk, "ramdisk" in hexadecimal; ``packages`` are the Debian packages the files come from, name →
    version.
    """

    name: str
    kernel: Path
    ramdisk: Path | None
    cmdline: str
    memory: int
    version: str
    sha256: Mapping[str, str]
    packages: Mapping[str, str]


class Entry(NamedTuple):
    """A row of the catalogue. ``kernel`` is a part's name, ``ramdisk`` a ramdisk's or empty. ``memory`` in MiB."""

    summary: str
    kernel: str
    memory: int
    ramdisk: str = ""
    cmdline: str = ""
    optional: bool = False


def names() -> tuple[str, ...]:
    """The names of all images, in the catalogue's order."""
    return tuple(_catalogue()["images"])


def entry(name: str) -> Entry:
    """The catalogue's row for ``name``. Raises UsageError if there is none."""
    rows = _catalogue()["images"]
    if name not in rows:
        near = suggest(name)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(rows)}"
        raise UsageError(f"{name}: no image has this name; {hint}")
    return Entry(**rows[name])


def suggest(name: str) -> str | None:
    """The image whose name is most like ``name``; None if none is."""
    import difflib

    near = difflib.get_close_matches(name, names(), n=1)
    return near[0] if near else None


def resolve(name: str) -> CatalogueImage | None:
    """The image ``name``, its files fetched or made if they are not there; None if no image has this name.

    Raises ImageError when a file is not there and cannot be had (it says why, and what to do).
    """
    return load(name) if name in _catalogue()["images"] else None


def load(name: str, waiting: Callable[[], None] = lambda: None, *, refresh: bool = False) -> CatalogueImage:
    """Like resolve, for a name that must exist (UsageError). ``waiting`` is called when another process is fetching.

    With ``refresh`` the packages are fetched again even if they are there, so that newer ones replace them.
    """
    row = entry(name)
    units = _units(name, waiting)
    if not refresh:
        found = [cache.ensure(*unit, waiting) for unit in units.used()]
        if _fit(*found):
            return _image(name, row, *found)
    for unit in units.made_in_order():
        cache.remake(unit.folder, unit.recipe, unit.make)
    return _image(name, row, *(cache.ensure(*unit, waiting) for unit in units.used()))


def cached(name: str) -> CatalogueImage | None:
    """The image ``name`` if all its files are in the cache, without fetching any. Raises UsageError for no image."""
    row = entry(name)
    found = [cache.find(unit.folder, unit.recipe) for unit in _units(name).used()]
    there = [unit for unit in found if unit]
    return _image(name, row, *there) if len(there) == len(found) else None


def recorded(name: str) -> bool:
    """Whether the image was fetched once; its files may be damaged or gone. Raises UsageError for no image."""
    return all(cache.read_record(unit.folder) for unit in _units(name).used())


def mend(name: str, waiting: Callable[[], None] = lambda: None) -> list[str]:
    """Hash the image's cached files, and fetch or make the damaged ones again. What was wrong, a line for each."""
    units = _units(name, waiting).made_in_order()
    found = [damage for damage in (cache.discard_damaged(unit.folder) for unit in units) if damage]
    for unit in units:
        cache.ensure(*unit, waiting)
    return found


def ramdisk_with(base: Path, files: Mapping[str, bytes | Path], *, mode: int = 0o755) -> bytes:
    """The ramdisk ``base`` with files added: path in the guest → content, or the host's file that has it.

    All get ``mode``; missing folders are made; a path that ``base`` has too is replaced. UsageError for bad paths.
    """
    from harness import cpio

    return cpio.concatenate((base.read_bytes(), cpio.overlay(files, mode).bytes()))


def part(name: str) -> Path:
    """The file of a part by its name, fetched if it is not there. KeyError for no part."""
    return cache.ensure(*_part(name, name)).path


def _fit(kernel: cache.Unit, ramdisk: cache.Unit | None = None) -> bool:
    """Whether the ramdisk's modules, if it has some, are the kernel's: either may have been fetched long before."""
    return ramdisk is None or ramdisk.record.facts.get("modules") in (None, kernel.record.facts["version"])


def _image(name: str, row: Entry, kernel: cache.Unit, ramdisk: cache.Unit | None = None) -> CatalogueImage:
    files = {"kernel": kernel} | ({"ramdisk": ramdisk} if ramdisk else {})
    return CatalogueImage(
        name,
        kernel.path,
        ramdisk.path if ramdisk else None,
        row.cmdline,
        row.memory,
        kernel.record.facts["version"],
        {which: unit.record.sha256 for which, unit in files.items()},
        {
            unit.record.facts["package"]: unit.record.facts["version"]
            for unit in files.values()
            if "package" in unit.record.facts
        },
    )


class _Unit(NamedTuple):
    """A unit of the cache: the arguments of cache.ensure."""

    folder: Path
    recipe: str
    make: Callable[[], cache.Made]


class _Units(NamedTuple):
    """``sources`` is what the ramdisk is built from; none for an image without one."""

    kernel: _Unit
    sources: tuple[_Unit, ...] = ()
    ramdisk: _Unit | None = None

    def used(self) -> list[_Unit]:
        """Those that a guest is started from: the kernel, then the ramdisk."""
        return [unit for unit in (self.kernel, self.ramdisk) if unit]

    def made_in_order(self) -> list[_Unit]:
        """All, each behind what it is made from."""
        return [unit for unit in (self.kernel, *self.sources, self.ramdisk) if unit]


def _units(name: str, waiting: Callable[[], None] = lambda: None) -> _Units:
    """The units that the image ``name`` needs. Raises UsageError for no image."""
    row = entry(name)
    kernel = _part(row.kernel, name)
    if not row.ramdisk:
        return _Units(kernel)
    ramdisk = _ramdisk(row.ramdisk, name, waiting)
    return _Units(kernel, ramdisk[:-1], ramdisk[-1])


def _part(part: str, image: str) -> _Unit:
    return _Unit(_folder(part), _part_recipe(part), lambda: _make_part(part, image))


def _ramdisk(ramdisk: str, image: str, waiting: Callable[[], None]) -> tuple[_Unit, ...]:
    """What a ramdisk is built from, and it itself last."""
    row = _catalogue()["ramdisks"][ramdisk]
    below = _ramdisk(row["base"], image, waiting) if "base" in row else ()
    part = _part(row["modules" if below else "part"], image)
    used = (*below[-1:], part)
    make: Callable[..., cache.Made] = _make_ramdisk_on_base if below else _make_ramdisk
    folder, recipe = _folder(f"ramdisk-{ramdisk}"), _ramdisk_recipe(ramdisk)
    unit = _Unit(folder, recipe, lambda: make(ramdisk, *(cache.ensure(*source, waiting) for source in used)))
    return (*below, part, unit)


def _make_part(part: str, image: str) -> cache.Made:
    row = _catalogue()["parts"][part]
    if "bits" in row:
        return _compile_part(part, row["bits"])
    from harness import packages

    wanted = packages.Wanted(**row)
    files = packages.unpack_all(wanted, image)
    found = files[0]
    facts = {"package": found.package, "version": found.version, "package_sha256": found.package_sha256}
    if wanted.members:
        return cache.Made(f"{part}.cpio", _modules(files), facts)
    return cache.Made(found.name, found.data, facts)


def _compile_part(part: str, bits: int) -> cache.Made:
    from importlib import metadata

    from harness import own_guests

    return cache.Made(part, own_guests.unix(bits).read_bytes(), {"version": metadata.version("pvstub")})


def _modules(files: Sequence[packages.Unpacked]) -> bytes:
    """Kernel modules as an archive, under names that say in which order they are loaded."""
    from harness import cpio

    return cpio.overlay({f"/lib/modules/{i:02}-{file.name}": file.data for i, file in enumerate(files)}, 0o644).bytes()


def _make_ramdisk(name: str, program: cache.Unit) -> cache.Made:
    from harness import initramfs

    row = _catalogue()["ramdisks"][name]
    layout = initramfs.Layout(row["program"], row["directories"], row["links"], row["devices"])
    data = initramfs.build(layout, program.path.read_bytes(), (images_folder() / row["init"]).read_bytes())
    return cache.Made(f"{name}.cpio", data, {**program.record.facts, "program_sha256": program.record.sha256})


def _make_ramdisk_on_base(name: str, base: cache.Unit, modules: cache.Unit) -> cache.Made:
    """A ramdisk that is another with modules and an init of its own, which finds the other's as /init-plain."""
    from harness import cpio

    rows = _catalogue()["ramdisks"]
    inits = {"/init": rows[name]["init"], "/init-plain": rows[rows[name]["base"]]["init"]}
    own = cpio.overlay({path: images_folder() / init for path, init in inits.items()}).bytes()
    data = cpio.concatenate((base.path.read_bytes(), modules.path.read_bytes(), own))
    return cache.Made(f"{name}.cpio", data, {**base.record.facts, "modules": modules.record.facts["version"]})


def _part_recipe(name: str) -> str:
    row = _catalogue()["parts"][name]
    if "bits" in row:
        from harness import own_guests

        return _digest([row, own_guests.sources()])
    return _digest(row)


def _ramdisk_recipe(name: str) -> str:
    row = _catalogue()["ramdisks"][name]
    init = (images_folder() / row["init"]).read_text()
    if "base" in row:
        return _digest([RAMDISK_FORMAT, row, init, _ramdisk_recipe(row["base"]), _part_recipe(row["modules"])])
    return _digest([RAMDISK_FORMAT, row, init, _part_recipe(row["part"])])


def _digest(recipe: Any) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _folder(unit: str) -> Path:
    return cache.cache_folder() / "images" / unit


@functools.cache
def _catalogue() -> dict[str, Any]:
    import tomllib

    return tomllib.loads((images_folder() / "catalogue.toml").read_text())
