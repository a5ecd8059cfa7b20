"""Where a debugger may come in: an address that a person wrote, and the socket that listens there."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from stub.errors import UsageError

_LONGEST_PATH = 107  # bytes; sun_path of unix(7), less its final zero
_BACKLOG = 64

_GRAMMAR = "use PORT, :PORT, 127.0.0.1:PORT, [::1]:PORT, unix:PATH, or public:HOST:PORT to let other machines in"


@dataclass(frozen=True)
class Address:
    """Where to listen: a host and a port (0: any that is free), or the path of a unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read what the person wrote; UsageError where it is no address, or one beyond loopback not so named."""
        if text.startswith("unix:") or ("/" in text and not text.startswith("public:")):
            return cls(path=_path(text.removeprefix("unix:")))
        public = text.startswith("public:")
        host, port = _split(text.removeprefix("public:"), text)
        if public:
            if not host:
                raise UsageError(f"{text}: no host; write public:HOST:PORT (0.0.0.0 for every interface)")
            return cls(host, port)
        host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
        if not _is_loopback(host):
            raise UsageError(
                f"{text}: other machines could reach this, and whoever can debug a guest owns it; "
                f"write public:{text} if you mean that, or use a loopback address"
            )
        return cls(host, port)


def _path(text: str) -> Path:
    if not text:
        raise UsageError("unix: has no path; write unix:PATH")
    if len(os.fsencode(text)) > _LONGEST_PATH:
        raise UsageError(f"{text}: a unix socket's path has {_LONGEST_PATH} bytes at most; choose a shorter one")
    return Path(text)


def _split(text: str, shown: str) -> tuple[str, int]:
    """Host and port; a bracketed host is an IPv6 address."""
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise UsageError(f"{shown}: not an address with a port; {_GRAMMAR}")
    if not text:
        return "", 0
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        raise UsageError(f"{shown}: {port or 'nothing'} is no port (0 to 65535); {_GRAMMAR}")
    return host.strip("[]") if colon else "", int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Listener:
    """A listening socket on an address; ``address`` has the port that was chosen."""

    def __init__(self, address: Address | str = "") -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self._inode: tuple[int, int] | None = None
        path = self.address.path
        try:
            self.socket = self._listen_path(path) if path is not None else self._listen_port()
        except OSError as error:
            raise UsageError(self._complaint(error)) from error
        self.socket.setblocking(False)

    def _listen_port(self) -> socket.socket:
        host, port = self.address.host, self.address.port
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self.address = Address(host, listener.getsockname()[1])
        return listener

    def _listen_path(self, path: Path) -> socket.socket:
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(str(path))
            path.chmod(0o600)  # before listen: until then nobody gets in
            listener.listen(_BACKLOG)
            found = path.stat()
        except OSError:
            listener.close()
            raise
        self._inode = (found.st_dev, found.st_ino)
        return listener

    def _complaint(self, error: OSError) -> str:
        where = str(self.address.path or self.host_and_port)
        if error.errno == errno.EADDRINUSE:
            return f"{where}: something listens there already; choose another address"
        reason = error.strerror or str(error)
        return f"{where}: cannot listen there: {reason}; choose another address"

    @property
    def host_and_port(self) -> str:
        """As gdb and people write it."""
        host = self.address.host
        return f"[{host}]:{self.address.port}" if ":" in host else f"{host}:{self.address.port}"

    @property
    def remote(self) -> str:
        """What follows ``target remote``. Who listens on every interface is reached on loopback, too."""
        path = self.address.path
        if path is not None:
            return str(path if path.is_absolute() else path.absolute())
        every = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
        return f"{every[self.address.host]}:{self.address.port}" if self.address.host in every else self.host_and_port

    def close(self) -> None:
        """Stop listening; a unix socket's file goes, if it is still ours."""
        self.socket.close()
        path = self.address.path
        if path is not None and self._inode is not None:
            with contextlib.suppress(OSError):
                found = path.stat()
                if (found.st_dev, found.st_ino) == self._inode:
                    path.unlink()
            self._inode = None


def _remove_stale(path: Path) -> None:
    """A socket's file that nobody listens on is left over from somebody who died; any other file is none of ours."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path}: there is a file, and no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full must not hold us up; it lives
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
