"""The line under our own client of the gdb remote protocol: packets over a socket, and nothing of their meaning.

GDB manual, appendix E.1: ``$data#sum``; ``}`` announces a byte XORed with 0x20; ``c*n`` is c and n - 29 more of it.
"""

from __future__ import annotations

import re
import socket
import time

import numpy as np

RECEIVE_SIZE = 1 << 18
RETRIES = 3  # how often a packet is sent again when it did not arrive whole


class DebuggerError(Exception):
    """The stub refused, or said what a stub may not say; the text has both sides' last words."""


class DebuggerTimeout(DebuggerError):
    """What was waited for did not come in time."""


def shown(data: bytes) -> str:
    """Bytes for an error message: the start of them, if they are many."""
    return repr(data) if len(data) <= 80 else f"{data[:80]!r} and {len(data) - 80} more bytes"


def checksum(data: bytes) -> int:
    """The sum of the bytes modulo 256."""
    return int(np.frombuffer(data, np.uint8).sum(dtype=np.uint8)) if len(data) > 200 else sum(data) % 256


def escaped(data: bytes) -> bytes:
    """Binary data as it may stand in a packet."""
    return re.sub(rb"[#$*}]", lambda match: b"}" + bytes([match[0][0] ^ 0x20]), data)


def framed(data: bytes) -> bytes:
    """A packet around data that is escaped already."""
    return b"$%b#%02x" % (data, checksum(data))


def unpacked(data: bytes) -> bytes:
    """What a packet holds: runs written out (``0*!`` is five zeros), then escapes undone."""
    if b"*" in data:
        data = re.sub(rb"(?s)(.)\*([ -~])", lambda match: match[1] * (match[2][0] - 28), data)
    return _unescaped(data) if b"}" in data else data


def _unescaped(data: bytes) -> bytes:
    array = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(array == ord("}"))
    if len(data) < 200 or marks[-1] == len(data) - 1 or (np.diff(marks) == 1).any():
        return re.sub(rb"(?s)}(.)", lambda match: bytes([match[1][0] ^ 0x20]), data)
    array = array.copy()
    array[marks + 1] ^= 0x20
    return np.delete(array, marks).tobytes()


class Connection:
    """Packets over a socket: sums checked, acknowledged until both sides agree not to."""

    def __init__(self, peer: socket.socket, timeout: float) -> None:
        self.socket = peer
        self.timeout = timeout
        self.acknowledged = True
        self.sent = b""
        self._buffer = bytearray()
        if peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send a packet, escaped already; with acknowledgements, wait until it arrived."""
        self.sent = data
        deadline = self._deadline(timeout)
        packet = framed(data)
        for _ in range(RETRIES + 1):
            self.raw(packet)
            if not self.acknowledged or self._answer(deadline):
                return
        raise DebuggerError(f"the stub refused {shown(packet)} {RETRIES + 1} times as damaged")

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
        except TimeoutError:
            raise DebuggerTimeout(f"waited {self.timeout:g} s for the stub to take {shown(data)}") from None
        except OSError as error:
            raise DebuggerError(f"the connection broke while {shown(data)} was sent: {error}") from error

    def receive(self, what: str, timeout: float | None = None) -> bytes:
        """The next packet; ``what`` is waited for, in the words of an error message."""
        deadline = self._deadline(timeout)
        for _ in range(RETRIES + 1):
            raw, claimed = self._packet(what, deadline)
            good = claimed == checksum(raw)
            if self.acknowledged:
                self.raw(b"+" if good else b"-")
            if good:
                return unpacked(raw)
            if not self.acknowledged:
                break
        raise DebuggerError(f"a packet with a wrong sum instead of {what}: {shown(raw)}")

    def _answer(self, deadline: float) -> bool:
        """Wait for ``+`` (True) or ``-``. Packets that are on their way meanwhile stay in the buffer."""
        what = f"an acknowledgement of {shown(self.sent)}"
        at = 0
        while True:
            while at < len(self._buffer):
                if self._buffer[at] in b"+-":
                    return self._buffer.pop(at) == ord("+")
                if self._buffer[at] == ord("$"):
                    end = self._buffer.find(b"#", at)
                    if end < 0 or end + 3 > len(self._buffer):
                        break
                    at = end + 3
                else:
                    at += 1
            self._more(what, deadline)

    def _packet(self, what: str, deadline: float) -> tuple[bytes, int]:
        buffer = self._buffer
        searched = 0
        while True:
            start = buffer.find(b"$")
            end = buffer.find(b"#", max(start, searched)) if start >= 0 else -1
            if end >= 0 and end + 3 <= len(buffer):
                break
            searched = len(buffer) if end < 0 else end
            self._more(what, deadline)
        data, claimed = bytes(buffer[start + 1 : end]), bytes(buffer[end + 1 : end + 3])
        del buffer[: end + 3]
        return data, int(claimed, 16) if re.fullmatch(rb"[0-9a-f]{2}", claimed) else -1

    def _more(self, what: str, deadline: float) -> None:
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            data = self.socket.recv(RECEIVE_SIZE)
        except TimeoutError:
            rest = f"; so far there is {shown(bytes(self._buffer))}" if self._buffer else ""
            raise DebuggerTimeout(f"waited in vain for {what}{rest}") from None
        except OSError as error:
            raise DebuggerError(f"the connection broke while waiting for {what}: {error}") from error
        if not data:
            raise DebuggerError(f"the stub closed the connection while {what} was waited for")
        self._buffer += data

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)


def _dial_unix(path: str, timeout: float) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(timeout)
        peer.connect(path)
    except OSError:
        peer.close()
        raise
    return peer


def dial(address: str, timeout: float) -> socket.socket:
    """Connect to ``HOST:PORT``, ``:PORT`` or the path of a unix socket."""
    try:
        if "/" in address or not re.search(r":\d+$", address):
            return _dial_unix(address, timeout)
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout)
    except OSError as error:
        raise DebuggerError(f"cannot connect to {address}: {error}") from error
