"""One face for both debuggers: our own client, and a real gdb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from harness.debugger import Debugger, StopReply
from harness.gdb import Gdb

WATCHES = {"watch": "watch", "rwatch": "rwatch", "awatch": "awatch"}
_HITS = {
    "breakpoint-hit": "break",
    "watchpoint-trigger": "watch",
    "read-watchpoint-trigger": "rwatch",
    "access-watchpoint-trigger": "awatch",
    "end-stepping-range": "step",
    "function-finished": "step",
    "location-reached": "step",
    "exited": "ended",
    "exited-normally": "ended",
    "exited-signalled": "ended",
}


@dataclass(frozen=True)
class Seen:
    """A stop as a debugger sees it.

    ``kind``: ``break``, a watch's name, ``step``, ``interrupt``, ``ended`` or ``other``. ``address``: of the access, as
    far as the debugger tells. ``old`` and ``new``: the values that gdb shows. ``text``: what was printed.
    """

    kind: str
    address: int = 0
    old: str = ""
    new: str = ""
    text: str = ""
    status: int | None = None


class Client(Protocol):
    """What both can do. Addresses are numbers."""

    def break_at(self, address: int, *, hardware: bool = False) -> None: ...
    def watch(self, kind: str, address: int, size: int) -> None: ...
    def clear(self) -> None: ...
    def resume(self) -> None: ...
    def wait(self, timeout: float | None = None) -> Seen: ...
    def interrupt(self) -> Seen: ...
    def step(self) -> Seen: ...
    def register(self, name: str) -> int: ...
    def set_register(self, name: str, value: int) -> None: ...
    def read(self, address: int, size: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def monitor(self, text: str) -> str: ...
    def detach(self) -> None: ...
    def kill(self) -> None: ...


def go(client: Client, timeout: float | None = None) -> Seen:
    """Continue to the next stop."""
    client.resume()
    return client.wait(timeout)


def go_to(client: Client, address: int) -> None:
    """Continue to an address, with no other stop on the way."""
    client.break_at(address)
    seen = go(client)
    assert seen.kind == "break", seen
    assert client.register("rip") == address
    client.clear()


class RawClient:
    """Our own client."""

    def __init__(self, debugger: Debugger) -> None:
        self.debugger = debugger

    def break_at(self, address: int, *, hardware: bool = False) -> None:
        self.debugger.break_at(address, hardware=hardware)

    def watch(self, kind: str, address: int, size: int) -> None:
        getattr(self.debugger, kind)(address, size)

    def clear(self) -> None:
        self.debugger.clear()

    def resume(self) -> None:
        self.debugger.resume()

    def wait(self, timeout: float | None = None) -> Seen:
        return self._seen(self.debugger.wait_stop(timeout))

    def interrupt(self) -> Seen:
        return self._seen(self.debugger.interrupt())

    def step(self) -> Seen:
        return self._seen(self.debugger.step())

    def register(self, name: str) -> int:
        return self.debugger.register(name)

    def set_register(self, name: str, value: int) -> None:
        self.debugger.write_register(name, value)

    def read(self, address: int, size: int) -> bytes:
        return self.debugger.read_memory(address, size)

    def write(self, address: int, data: bytes) -> None:
        self.debugger.write_memory(address, data)

    def monitor(self, text: str) -> str:
        return self.debugger.monitor(text)

    def detach(self) -> None:
        self.debugger.detach()

    def kill(self) -> None:
        self.debugger.kill()

    @staticmethod
    def _seen(stop: StopReply) -> Seen:
        text = "\n".join(stop.notes)
        if stop.ended:
            return Seen("ended", text=text, status=stop.exited)
        if stop.kind:
            return Seen("break" if stop.kind in ("swbreak", "hwbreak") else stop.kind, stop.address, text=text)
        kind = {2: "interrupt", 5: "step"}.get(stop.signal, "other")
        return Seen(kind, text=text)


class GdbClient:
    """A real gdb."""

    def __init__(self, gdb: Gdb) -> None:
        self.gdb = gdb

    def break_at(self, address: int, *, hardware: bool = False) -> None:
        self.gdb.command(f"-break-insert {'-h ' if hardware else ''}*{address:#x}")

    def watch(self, kind: str, address: int, size: int) -> None:
        option = {"watch": "", "rwatch": "-r ", "awatch": "-a "}[kind]
        self.gdb.command(f'-break-watch {option}"*(unsigned char (*)[{size}]){address:#x}"')

    def clear(self) -> None:
        self.gdb.execute("delete")

    def resume(self) -> None:
        self.gdb.command("-exec-continue")

    def wait(self, timeout: float | None = None) -> Seen:
        return self.seen(self.gdb.wait_stop(timeout))

    def interrupt(self) -> Seen:
        return self.seen(self.gdb.interrupt())

    def step(self) -> Seen:
        self.gdb.command("-exec-step-instruction")
        return self.wait()

    def register(self, name: str) -> int:
        return self.number(f"${name}")

    def set_register(self, name: str, value: int) -> None:
        self.gdb.execute(f"set ${name} = {value:#x}")

    def number(self, expression: str) -> int:
        """An expression's value as an unsigned number."""
        return int(self.gdb.execute(f"print/x {expression}").rpartition("= ")[2], 16)

    def read(self, address: int, size: int) -> bytes:
        answer = self.gdb.command(f"-data-read-memory-bytes {address:#x} {size}")
        return bytes.fromhex(answer["memory"][0]["contents"])

    def write(self, address: int, data: bytes) -> None:
        self.gdb.command(f"-data-write-memory-bytes {address:#x} {data.hex()}")

    def monitor(self, text: str) -> str:
        return self.gdb.execute(f"monitor {text}")

    def detach(self) -> None:
        self.gdb.execute("detach")

    def kill(self) -> None:
        self.gdb.execute("kill")

    def seen(self, stop: dict[str, Any]) -> Seen:
        """What ``*stopped`` says."""
        kind = _HITS.get(stop.get("reason", ""), "other")
        if stop.get("reason") == "signal-received":
            kind = {"SIGINT": "interrupt", "SIGTRAP": "step"}.get(stop["signal-name"], "other")
        watched = next((stop[name] for name in ("wpt", "hw-rwpt", "hw-awpt") if name in stop), None)
        address = 0
        if watched is not None:
            found = re.search(r"0x[0-9a-f]+$", watched["exp"])
            address = int(found[0], 16) if found else 0
        value = stop.get("value", {})
        status = int(stop.get("exit-code", "0"), 8) if kind == "ended" else None
        return Seen(
            kind, address, value.get("old", ""), value.get("new", value.get("value", "")), self.gdb.text, status
        )
