"""vFile: the guest's executable as a file that gdb reads from us; nothing else of this host can be read.

GDB manual, E.8 "Host I/O Packets" and E.13.7 "File-I/O" for flags, error numbers and ``struct stat``, which are the
protocol's own whatever the systems.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from stub.gdb.handlers.registry import BadRequest, number, packet, pair, unhex

if TYPE_CHECKING:
    from stub.gdb.session import Session

_ENOENT, _EBADF, _EACCES, _EINVAL, _EMFILE, _EUNKNOWN = 2, 9, 13, 22, 24, 9999
_O_RDONLY = 0
_MOST_OPEN = 16

# dev, ino, mode, nlink, uid, gid, rdev; size, blksize, blocks; atime, mtime, ctime
_STAT = struct.Struct(">7I3Q3I")
_REGULAR = 0o100444


def _error(errno: int) -> bytes:
    return b"F-1,%x" % errno


@packet("vFile:setfs")
def choose_file_system(_: Session, args: bytes) -> bytes:
    """0 is ours; other processes' we do not have."""
    return b"F0" if number(args) == 0 else _error(_EINVAL)


@packet("vFile:open")
def open_(session: Session, args: bytes) -> bytes:
    """Path, flags, mode: the executable by the name that qXfer:exec-file gave, to read."""
    path, _, how = args.partition(b",")
    flags, _ = pair(how)
    executable = session.target.executable
    if executable is None or unhex(path) != str(executable).encode():
        return _error(_ENOENT)
    if flags != _O_RDONLY:
        return _error(_EACCES)
    number_ = next((n for n in range(_MOST_OPEN) if n not in session.files), None)
    if number_ is None:
        return _error(_EMFILE)
    try:
        session.files[number_] = os.open(executable, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _error(_ENOENT)
    return b"F%x" % number_


@packet("vFile:close")
def close(session: Session, args: bytes) -> bytes:
    """By the number that open gave."""
    file = session.files.pop(number(args), None)
    if file is None:
        return _error(_EBADF)
    os.close(file)
    return b"F0"


@packet("vFile:pread")
def read(session: Session, args: bytes) -> bytes:
    """File, count, offset."""
    parts = args.split(b",")
    if len(parts) != 3:
        raise BadRequest("a file, a count and an offset are needed")
    which, count, offset = map(number, parts)
    file = session.files.get(which)
    if file is None:
        return _error(_EBADF)
    if offset >> 63:
        return _error(_EINVAL)
    try:
        data = os.pread(file, min(count, session.packet_size // 2 - 16), offset)
    except OSError:
        return _error(_EUNKNOWN)
    return b"F%x;%b" % (len(data), data)


@packet("vFile:fstat")
def status(session: Session, args: bytes) -> bytes:
    """Only what gdb uses, and nothing of who owns the file here."""
    file = session.files.get(number(args))
    if file is None:
        return _error(_EBADF)
    found = os.fstat(file)
    now = int(found.st_mtime) & 0xFFFFFFFF
    data = _STAT.pack(0, 0, _REGULAR, 1, 0, 0, 0, found.st_size, 512, (found.st_size + 511) // 512, now, now, now)
    return b"F%x;%b" % (len(data), data)


@packet("vFile:readlink")
def read_link(session: Session, args: bytes) -> bytes:
    """The executable is no link; there is nothing else."""
    executable = session.target.executable
    return _error(_EINVAL if executable is not None and unhex(args) == str(executable).encode() else _ENOENT)
