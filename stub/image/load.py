"""One way from a kernel file to an ``Image``: read, unwrap, parse, check. ``inspect`` takes the same steps."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from stub.image import cache as payload_cache
from stub.image.bootparam import SUBARCH_LGUEST
from stub.image.bzimage import find_payload, is_bzimage, parse_setup_header
from stub.image.elf import ELF_MAGIC, load_segments, machine_name, parse_elf
from stub.image.faults import Fault
from stub.image.model import Image, SetupHeader
from stub.image.notes import read_notes
from stub.image.parms import check_addresses, check_parms, find_parms, kernel_range
from stub.image.payload import Compression, compression_of, declared_size, decompress
from stub.image.probe import what_is
from stub.units import GIB, MIB

FILE_LIMIT = 4 * GIB
MAP_FROM = 64 * MIB
OUTER = {"gzip": "gz", "xz": "xz", "zstd": "zst", "bzip2": "bz2"}
"""Compressions that a whole file may wear (libxc undoes only gzip), with the suffix that names it."""
LGUEST = re.compile(rb"GenuineLguest")


@dataclass(frozen=True)
class KernelFile:
    """A file's contents, and their SHA-256 in hex."""

    data: memoryview
    sha256: str


@dataclass(frozen=True)
class Unwrapped:
    """The ELF file inside a kernel file, and what it came in. ``declared`` is the size that a bzImage promised."""

    elf: memoryview
    kind: str
    compression: str
    setup_header: SetupHeader | None = None
    declared: int | None = None


def load_image(path: Path, *, cache: Path | None = None) -> Image:
    """The kernel in the file ``path``, checked and ready to be laid out.

    ``cache`` is the folder in which decompressed kernels are kept. Raises ``ImageError`` (one line: file, fault,
    remedy) for everything that pvstub cannot boot.
    """
    try:
        image = read_image(Path(path), cache=cache)
        check_supported(image)
    except Fault as fault:
        raise fault.named(path) from None
    return image


def read_image(path: Path, *, cache: Path | None = None) -> Image:
    """As ``load_image``, but takes every kernel that Xen 4.17 would start as a PV guest; raises ``Fault``."""
    file = read_file(path)
    return assemble(path, file, unwrap(file, cache))


def assemble(path: Path, file: KernelFile, inner: Unwrapped) -> Image:
    """The ``Image`` of an unwrapped kernel. ``Fault`` when it is none that Xen would start."""
    elf = parse_elf(inner.elf)
    segments = load_segments(elf)
    notes = read_notes(elf)
    try:
        parms = find_parms(elf, notes)
    except Fault:
        refuse_lguest(inner)
        raise
    check_parms(parms)
    check_addresses(segments, parms, elf.bits)
    start, end = kernel_range(segments, parms)
    return Image(
        path=path,
        kind=inner.kind,
        compression=inner.compression,
        bits=elf.bits,
        machine=machine_name(elf.machine),
        segments=segments,
        parms=parms,
        notes=notes,
        setup_header=inner.setup_header,
        virt_kstart=start,
        virt_kend=end,
        entry=parms.entry,
        sha256=file.sha256,
        elf=inner.elf,
    )


def check_supported(image: Image) -> None:
    """``Fault`` for a good Xen PV kernel of a kind that no Xen starts any more."""
    if image.bits == 32 and not image.parms.pae:
        raise Fault("a 32-bit non-PAE Xen PV guest, not started by any Xen since 3.4", "use a PAE or a 64-bit kernel")


def refuse_lguest(inner: Unwrapped) -> None:
    """``Fault`` for a kernel made for lguest, which Linux had until 4.14, and not for Xen."""
    header = inner.setup_header
    if (header is not None and header["hardware_subarch"] == SUBARCH_LGUEST) or LGUEST.search(inner.elf):
        raise Fault("a kernel for lguest, not for Xen", "use a kernel built as a Xen PV guest (Linux: CONFIG_XEN_PV)")


def read_file(path: Path) -> KernelFile:
    """A regular file's contents. ``Fault`` for what is none or cannot be read."""
    try:
        # A FIFO without a writer would make a plain open() wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = _contents(handle)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise Fault("no such file", "check the path, or see pvstub images list for kernels by name") from None
    except OSError as error:
        raise Fault(f"cannot be read ({(error.strerror or str(error)).lower()})", "check its permissions") from None
    except ValueError:  # a NUL in the path
        raise Fault("no such file can exist", "check the path") from None
    return KernelFile(data, hashlib.sha256(data).hexdigest())


def _contents(handle: int) -> memoryview:
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        raise Fault("is a folder", "name the kernel file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise Fault("is not a regular file", "name a kernel file")
    if status.st_size > FILE_LIMIT:
        raise Fault(f"is larger than {FILE_LIMIT // GIB} GiB", "no kernel is that large: name a kernel file")
    if status.st_size >= MAP_FROM:
        return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
    with open(handle, "rb", closefd=False) as file:
        return memoryview(file.read())


def unwrap(file: KernelFile, cache: Path | None) -> Unwrapped:
    """The ELF file in ``file``: the file itself, decompressed, or a bzImage's payload."""
    if not len(file.data):
        raise Fault("is empty", "fetch or build the kernel again")
    data, outer = strip_outer(file, cache)
    suffix = "" if outer is None else "." + OUTER[outer]
    if is_bzimage(data):
        header = parse_setup_header(data)
        elf, compression, declared = _bzimage_payload(file, data, header, cache)
        return Unwrapped(elf, "bzImage" + suffix, compression, header, declared)
    if bytes(data[:4]) != ELF_MAGIC:
        what, remedy = what_is(data)
        raise Fault(f"not a kernel but {what}{f' inside {outer} compression' if outer else ''}", remedy)
    return Unwrapped(data, "ELF" + suffix, outer or "none")


def strip_outer(file: KernelFile, cache: Path | None) -> tuple[memoryview, str | None]:
    """The file's contents without a compression of the whole file, and the name of that compression."""
    row = compression_of(file.data)
    if row is None or row.name not in OUTER:
        return file.data, None
    return _decompress_cached(row, file.data, cache, f"{file.sha256}-outer"), row.name


def _bzimage_payload(
    file: KernelFile, data: memoryview, header: SetupHeader, cache: Path | None
) -> tuple[memoryview, str, int]:
    """The ELF file in a bzImage, its compression, and the size that the bzImage says it has."""
    payload = find_payload(data, header)
    row = compression_of(payload)
    if row is None:
        raise Fault(f"bzImage whose payload is {what_is(payload)[0]}", "fetch or build the kernel again")
    elf = _decompress_cached(row, payload, cache, file.sha256)
    declared = declared_size(payload)
    if row.name == "lz4" and len(elf) != declared:  # the one format without a checksum or an end mark
        raise Fault(f"damaged lz4 payload ({len(elf)} bytes instead of {declared})", "fetch the kernel again")
    if bytes(elf[:4]) != ELF_MAGIC:
        raise Fault(f"bzImage whose payload is {what_is(elf)[0]}, not a kernel", "fetch or build the kernel again")
    return elf, row.name, declared


def _decompress_cached(row: Compression, data: memoryview, cache: Path | None, name: str) -> memoryview:
    """What ``data`` holds, from the cache if it is there, kept there if not."""
    if row.name == "none":
        return data
    known = payload_cache.lookup(cache, name) if cache is not None else None
    if known is not None:
        return known
    out = decompress(row, data)
    if cache is not None:
        payload_cache.keep(cache, name, out)
    return memoryview(out)
