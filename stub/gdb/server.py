"""Where gdb comes in: sockets, and the loop that runs the guest between looks at them. The debugger's only I/O.

One thread does all. While the guest runs, ``Target.advance`` (some milliseconds) and a look at the sockets take turns;
while it stands still, the loop sleeps in ``poll``. A client that does not take its answers is not read from, so that
nothing grows.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import shlex
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from stub.errors import UsageError
from stub.gdb.model import Ended, Stop, Target
from stub.gdb.packet import encode
from stub.gdb.session import ON_DETACH, OnDetach, Session

_LONGEST_PATH = 107  # bytes; sun_path of unix(7), less its final zero
_READ = 1 << 18
_MOST_SILENT = 8
_BEGINNINGS = (b"+", b"-", b"$", b"\x03")  # what a debugger says first; a browser, for one, does not
_BACKLOG = 64
_IN, _OUT = select.POLLIN, select.POLLOUT
_BUSY = encode(b"E.another debugger has this guest: only one at a time", rle=False)

_GRAMMAR = "use PORT, :PORT, 127.0.0.1:PORT, [::1]:PORT, unix:PATH, or public:HOST:PORT to let other machines in"


# -- addresses


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


# -- the server


class _Client:
    """The one debugger: its socket, its conversation, and what it has not taken yet."""

    def __init__(self, connection: socket.socket, session: Session) -> None:
        self.socket = connection
        self.fd = connection.fileno()
        self.session = session
        self.unsent = bytearray()


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class Server:
    """Serves one guest to one debugger after another.

    ``on_detach``: what the guest does when a debugger goes, with or without a word: ``continue``, ``stop``, ``kill``.
    """

    def __init__(self, target: Target, listener: Listener | str = "", *, on_detach: OnDetach = "continue") -> None:
        if on_detach not in ON_DETACH:
            raise UsageError(f"{on_detach}: a guest that is let go can {', '.join(ON_DETACH)}")
        self.target = target
        self.listener = Listener(listener) if isinstance(listener, str) else listener
        self.on_detach: OnDetach = on_detach
        self.clients = 0
        """How many have come, so far."""
        self._client: _Client | None = None
        self._silent: dict[int, socket.socket] = {}  # who came, and is no debugger yet
        self._watched: dict[int, Callable[[], object]] = {}
        self._room = memoryview(bytearray(_READ))  # recv would make, and give back, as much for each packet
        self._stopping = False
        self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._listener_fd = self.listener.socket.fileno()
        self._poll.register(self._listener_fd, _IN)
        self._poll.register(self._wake_read, _IN)

    # -- what the owner calls

    @property
    def attached(self) -> bool:
        """Whether there is a debugger."""
        return self._client is not None

    @property
    def remote(self) -> str:
        """What follows ``target remote`` in gdb."""
        return self.listener.remote

    @property
    def paste_line(self) -> str:
        """A shell command that starts gdb on this guest."""
        return "gdb -ex " + shlex.quote(f"target remote {self.remote}")

    def watch(self, fd: int, on_readable: Callable[[], object]) -> None:
        """Call ``on_readable`` in the loop whenever there is something to read here (a person's console)."""
        self._watched[fd] = on_readable
        self._poll.register(fd, _IN)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def serve_until(self, done: Callable[[], bool] = lambda: False) -> None:
        """Run the loop until ``done()``, until :meth:`stop`, or until the guest has ended and no debugger is left.

        ``done`` is asked after each turn: :meth:`wake` makes one.
        """
        while not (self._stopping or done() or self._over()):
            self.turn()

    def turn(self, *, block: bool = True) -> None:
        """Look at the sockets, then let the guest run for a moment. Blocks only while it stands still."""
        client, target = self._client, self.target
        idle = block and not target.running and not (client is not None and client.session.pending)
        if idle and client is not None and not client.unsent:
            client.session.look_ahead()
        for fd, event in self._poll.poll(None if idle else 0):
            self._ready(fd, event)
        client = self._client
        if client is not None and not client.unsent and client.session.pending:
            self._converse(client, b"")
        if target.running:
            stop = target.advance()
            if stop is not None:
                self._stopped(stop)

    def wake(self) -> None:
        """Have a blocked loop make a turn; from any thread."""
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"!")

    def stop(self) -> None:
        """Have :meth:`serve_until` return soon; from any thread."""
        self._stopping = True
        self.wake()

    def close(self) -> None:
        """Close every socket. The guest is left as it is."""
        if self._closed:
            return
        self._closed = True
        if self._client is not None:
            self._client.session.close()
            self._client.socket.close()
            self._client = None
        while self._silent:
            self._silent.popitem()[1].close()
        self.listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the loop

    def _over(self) -> bool:
        return self._client is None and not self.target.running and isinstance(self.target.last_stop(), Ended)

    def _ready(self, fd: int, event: int) -> None:
        client = self._client
        if client is not None and fd == client.fd:
            self._client_ready(client, event)
        elif fd == self._listener_fd:
            self._accept()
        elif fd == self._wake_read:
            os.read(fd, 4096)
        elif fd in self._silent:
            self._first_words(fd)
        elif fd in self._watched:
            self._watched[fd]()

    def _stopped(self, stop: Stop | Ended) -> None:
        client = self._client
        if client is not None:
            self._send(client, client.session.stopped(stop))
        elif isinstance(stop, Stop) and self.on_detach == "continue" and not stop.note:
            self.target.go()  # the last debugger's step or interrupt, which it did not wait for

    # -- clients

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.socket.accept()
        except OSError:  # gone again, or we are out of descriptors: others may come
            return
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._silent) >= _MOST_SILENT:
            self._drop(next(iter(self._silent)))
        self._silent[connection.fileno()] = connection
        self._poll.register(connection.fileno(), _IN)

    def _first_words(self, fd: int) -> None:
        """Somebody who came speaks: it is the debugger if it speaks like one, and there is none yet."""
        connection = self._silent[fd]
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data[:1] not in _BEGINNINGS:
            self._drop(fd)
        elif self._client is not None:
            self._refuse(connection, data)
            if not data:
                self._drop(fd)
        else:
            del self._silent[fd]
            self._halt()
            self.clients += 1
            self._client = _Client(connection, Session(self.target, on_detach=self.on_detach))
            self._converse(self._client, data)

    def _halt(self) -> None:
        """A debugger that comes expects the guest to stand still."""
        while self.target.running:
            self.target.interrupt()
            if self.target.advance() is not None:
                return

    @staticmethod
    def _refuse(connection: socket.socket, data: bytes) -> None:
        """There is a debugger: answer the first request with that, and hang up once it is read."""
        if b"$" in data:
            with contextlib.suppress(OSError):
                connection.send(b"+" + _BUSY)
                connection.shutdown(socket.SHUT_WR)

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._silent.pop(fd).close()

    def _client_ready(self, client: _Client, event: int) -> None:
        if event & _OUT:
            self._flush(client)
        elif event & _IN:
            if client.session.behind:
                return
            try:
                data = self._room[: client.socket.recv_into(self._room)].tobytes()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if data:
                self._converse(client, data)
            else:
                self._vanished(client)
        else:
            self._vanished(client)

    def _converse(self, client: _Client, data: bytes) -> None:
        self._send(client, client.session.receive(data))

    def _send(self, client: _Client, data: bytes) -> None:
        """Send what the socket takes; keep the rest, and do not read before that is gone."""
        if data and not client.unsent:
            try:
                sent = client.socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._vanished(client)
                return
            if sent == len(data):
                data = b""
            else:
                data = data[sent:]
                self._poll.modify(client.fd, _OUT)
        if data:
            client.unsent += data
        elif client.session.over:
            self._goodbye(client)

    def _flush(self, client: _Client) -> None:
        try:
            sent = client.socket.send(client.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._vanished(client)
            return
        del client.unsent[:sent]
        if not client.unsent:
            if client.session.over:
                self._goodbye(client)
            else:
                self._poll.modify(client.fd, _IN)

    def _vanished(self, client: _Client) -> None:
        """Without a word; or with one, in an extended connection, which ends later."""
        if not client.session.over and not client.session.left:
            client.session.leave()
        self._goodbye(client)

    def _goodbye(self, client: _Client) -> None:
        if self._client is not client:
            return
        self._client = None
        self._poll.unregister(client.fd)
        client.session.close()
        client.socket.close()


__all__ = ["Address", "Listener", "Server"]
