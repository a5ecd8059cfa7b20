"""The GDB server against QEMU's own, on the same kernel with the same gdb; and what an idle debugger costs a boot."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.commands import CHILDREN, Setting, child, pvstub, qemu
from benchmarks.process import LIMIT_S, Unexpected, clean_environment, printed_by
from benchmarks.samples import Sample, Series, orders
from benchmarks.table import Row, Section
from harness.catalogue import load
from harness.symbols import symbols_for

IMAGE = "debian-cloud"
MEASURES: dict[str, tuple[str, float]] = {
    "dump": ("64 MiB of guest memory dumped, 4 MiB out of every 16", 1 / 5),
    "dense": ("64 MiB dumped from the kernel's start, half of it text", 1 / 5),
    "stepi": ("10,000 stepi", 1.0),
    "condition": ("a conditional breakpoint, hit 10,000 times and true once", 1 / 20),
}
IDLE_TARGET = 1.03
_LINE = re.compile(rb"benchmark: (\w+) ([0-9.]+)")


def run(setting: Setting) -> Section:
    """What gdb's own clock says of each, by turns."""
    image = load(IMAGE)
    symbols = symbols_for(image.kernel)
    sockets = [setting.scratch / "ours.gdb", setting.scratch / "peers.gdb"]
    ours = pvstub(setting, IMAGE, "--gdb", f"unix:{sockets[0]}", "--wait", "--quiet")
    peer = [*qemu(image)[:-1], "console=ttyS0 nokaslr", "-gdb", f"unix:{sockets[1]},server=on,wait=off", "-S"]
    taken: list[list[dict[str, float]]] = [[], []]
    for order in orders(2, setting.rounds):
        for which in order:
            taken[which].append(_session((ours, peer)[which], sockets[which], symbols, setting.scratch))
    rows = [
        Row(what, _series(taken[0], name), _series(taken[1], name), target=target)
        for name, (what, target) in MEASURES.items()
    ]
    rows.append(_idle(setting))
    return Section(
        "Debugger",
        "Debian's gdb on the same kernel: by gdb's own clock, the peer is QEMU's gdb stub. The last row is a boot to "
        "the initramfs's first line with gdb attached and idle, beside one with no server; from the first instruction.",
        rows,
    )


def _series(taken: Sequence[dict[str, float]], name: str) -> Series:
    return Series(tuple(Sample(found[name], found[name]) for found in taken))


def _session(command: Sequence[str], socket: Path, symbols: Path, scratch: Path) -> dict[str, float]:
    """One gdb against one stub: seconds by measure."""
    socket.unlink(missing_ok=True)
    words = ["gdb", "-nx", "-batch", "-iex", "set auto-load off", "-ex", f"file {symbols}"]
    words += ["-ex", f'set $peer = "{socket}"', "-ex", f'set $scratch = "{scratch / "dump"}"']
    words += ["-x", str(CHILDREN / "in_gdb.py")]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        _appears(socket, server)
        gdb = subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False)
    finally:
        server.kill()
        server.wait()
    found = {name.decode(): float(seconds) for name, seconds in _LINE.findall(gdb.stdout)}
    if set(found) != set(MEASURES):
        raise Unexpected(f"gdb measured {sorted(found)} only; it said:\n{(gdb.stdout + gdb.stderr)[-2000:].decode()}")
    return found


def _appears(socket: Path, server: subprocess.Popen[bytes]) -> None:
    """Wait for a socket, or say that its server ended."""
    script = f"import pathlib, time\nwhile not pathlib.Path({str(socket)!r}).exists(): time.sleep(0.05)"
    try:
        subprocess.run(["timeout", "60", "python3", "-c", script], check=True)
    except subprocess.CalledProcessError:
        server.kill()
        raise Unexpected(f"{server.args!r}: no socket came") from None


def _idle(setting: Setting) -> Row:
    measure: list[Callable[[], Sample]] = [
        lambda first=first: _timed(child(setting, "idle_gdb", IMAGE, first=first))  # type: ignore[misc]
        for first in ("attached", "alone")
    ]
    taken: list[list[Sample]] = [[], []]
    for order in orders(2, setting.rounds):
        for which in order:
            taken[which].append(measure[which]())
    return Row(
        "a boot with an idle gdb attached, against one without",
        Series(tuple(taken[0])),
        Series(tuple(taken[1])),
        target=IDLE_TARGET,
    )


def _timed(command: Sequence[str]) -> Sample:
    found = dict(_LINE.findall(printed_by(command)))
    return Sample(float(found[b"wall"]), float(found[b"cpu"]))
