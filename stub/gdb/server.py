"""Where gdb comes in: sockets, and the loop that runs the guest between looks at them. The debugger's only I/O.

One thread does all. While the guest runs, ``Target.advance`` (some milliseconds) and a look at the sockets take turns;
while it stands still, the loop sleeps in ``poll``. A client that does not take its answers is not read from, so that
nothing grows.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import socket
import time
from collections.abc import Callable
from types import TracebackType

from stub.errors import UsageError
from stub.gdb.listener import Listener
from stub.gdb.model import Ended, Stop, Target
from stub.gdb.packet import encode
from stub.gdb.session import ON_DETACH, OnDetach, Session

_READ = 1 << 18
_MOST_SILENT = 8
_AT_ONCE = 0.0002  # seconds
_BEGINNINGS = (b"+", b"-", b"$", b"\x03")  # what a debugger says first; a browser, for one, does not
_IN, _OUT = select.POLLIN, select.POLLOUT
_BUSY = encode(b"E.another debugger has this guest: only one at a time", rle=False)


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
        for fd, event in self._wait() if idle else self._poll.poll(0):
            self._ready(fd, event)
        client = self._client
        if client is not None and not client.unsent and client.session.pending:
            self._converse(client, b"")
        if target.running:
            stop = target.advance()
            if stop is not None:
                self._stopped(stop)

    def _wait(self) -> list[tuple[int, int]]:
        """What is ready, once something is. A debugger mostly asks again at once: to sleep would cost more."""
        if self._client is not None:
            until = time.perf_counter() + _AT_ONCE
            while time.perf_counter() < until:
                ready = self._poll.poll(0)
                if ready:
                    return ready
                os.sched_yield()
        return self._poll.poll()

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
