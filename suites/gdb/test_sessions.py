"""Debuggers come and go: detach, attach again, kill, run again, vanish in the middle of a word, one too many."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clients import GdbClient, RawClient, go, go_to
from own_guest import build

from harness.debugger import Debugger
from harness.debugger_wire import DebuggerError
from harness.debugging import DebugServer
from harness.gdb import Gdb, GdbError
from harness.guests import Guest


def dial(server: DebugServer) -> socket.socket:
    """A connection that says nothing by itself."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    peer.connect(server.address)
    return peer


@pytest.mark.guest(cmdline="chain loop")
def test_detach_and_attach_again(guest: Guest, debug_server: DebugServer, at: Mapping[str, int]) -> None:
    """Stop points go with their debugger; the guest is the test's in between."""
    with Gdb(symbols=build()) as gdb:
        for _ in range(2):
            gdb.connect(debug_server.address)
            gdb.execute("tbreak middle")
            gdb.execute("break factorial")
            gdb.execute("detach")
        gdb.connect(debug_server.address)
        gdb.execute("delete")
        gdb.execute("tbreak inner")
        assert gdb.cont()["frame"]["func"] == "inner"
        gdb.execute("detach")
    with Debugger(debug_server.address) as debugger:
        retired = debugger.register("retired")
        assert debugger.register("rip") == at["inner"]
        debugger.break_at(at["factorial"])
        debugger.cont()
        assert debugger.register("retired") > retired
        debugger.break_at(at["on_event"])
        debugger.detach()
    assert guest.machine.verdict is None
    guest.wait("poweroff")


@pytest.mark.guest(cmdline="spin")
def test_a_client_that_vanishes_while_the_guest_runs(guest: Guest, debug_server: DebugServer) -> None:
    for _ in range(5):
        debugger = Debugger(debug_server.address)
        debugger.resume()
        debugger.close()
        guest.run(0.001)
    with Debugger(debug_server.address) as debugger:
        debugger.resume()
        assert debugger.interrupt().signal == 2


@pytest.mark.parametrize(
    "said",
    [b"", b"$", b"$m1000", b"$g#", b"$g#6", b"+", b"$qSupp", b"$vCont;c#a8", b"\x03", b"$X1000,4:a}", b"$c#63$g"],
)
@pytest.mark.guest(cmdline="spin")
def test_a_client_that_vanishes_in_the_middle_of_a_packet(guest: Guest, debug_server: DebugServer, said: bytes) -> None:
    """The next one is served as if nobody had been, and the guest is whole."""
    for reset in (False, True):
        peer = dial(debug_server)
        peer.sendall(said)
        if reset:
            peer.shutdown(socket.SHUT_RDWR)
        peer.close()
        with Debugger(debug_server.address) as debugger:
            assert debugger.step().signal == 5
            debugger.detach()
    guest.run(0.001)
    assert "spinning" in guest.console.text


@pytest.mark.guest(cmdline="chain")
def test_a_second_client_is_refused_politely(debug_server: DebugServer, debugger: Debugger) -> None:
    """It is told why; the first does not notice."""
    for _ in range(3):
        with pytest.raises(DebuggerError, match="another debugger has this guest"):
            Debugger(debug_server.address)
    with Gdb() as second, pytest.raises(GdbError):
        second.connect(debug_server.address, timeout=20)
    silent = [dial(debug_server) for _ in range(20)]
    peer = dial(debug_server)
    peer.sendall(b"$qSupported:swbreak+#" + b"%02x" % (sum(b"qSupported:swbreak+") & 255))
    assert b"another debugger has this guest" in peer.recv(4096)
    peer.close()
    debugger.step()
    for connection in silent:
        connection.close()
    assert debugger.cont().exited == 0


@pytest.mark.parametrize("which", ["raw", "gdb"])
@pytest.mark.guest(cmdline="spin")
def test_kill(guest: Guest, debug_server: DebugServer, which: str) -> None:
    if which == "raw":
        with Debugger(debug_server.address) as debugger:
            debugger.resume()
            debugger.interrupt()
            debugger.kill()
    else:
        with Gdb() as gdb:
            gdb.connect(debug_server.address)
            gdb.execute("kill")
    verdict = guest.machine.verdict
    assert verdict is not None
    assert verdict.kind == "interrupted"
    assert "debugger" in verdict.reason


@pytest.mark.guest(cmdline="chain")
def test_the_guest_is_booted_again_by_gdb(guest: Guest, debug_server: DebugServer, at: Mapping[str, int]) -> None:
    """`run` in extended mode: from the middle, and after the end. Breakpoints stay."""
    with Gdb(symbols=build()) as gdb:
        gdb.connect(debug_server.address, extended=True)
        gdb.execute("break factorial if n == 1")
        assert gdb.cont()["frame"]["func"] == "factorial"
        for _ in range(2):
            gdb.execute("run")
            stop = gdb.wait_stop()
            assert stop["frame"]["func"] == "factorial", "run continues from the first instruction on"
            assert gdb.evaluate("n") == "1"
        gdb.execute("delete")
        assert gdb.cont()["reason"] == "exited-normally"
        gdb.execute("tbreak inner")
        gdb.execute("run")
        assert gdb.wait_stop()["frame"]["func"] == "inner"
        gdb.execute("starti")
        gdb.wait_stop()
        assert gdb.execute("print/x $pc").rpartition("0x")[2].strip() == f"{at['_start']:x}"
        gdb.execute("disconnect")
    guest.wait("poweroff")
    assert guest.console.text.count("guest: chain") >= 3


@pytest.mark.guest(cmdline="chain")
def test_the_guest_is_booted_again_by_packets(guest: Guest, debugger: Debugger, at: Mapping[str, int]) -> None:
    """vRun answers with the stop; R has none. The new boot is the same as the first."""
    debugger.break_at(at["inner"])
    first = []
    for _ in range(3):
        assert debugger.cont().kind == "swbreak"
        values = debugger.read_registers()
        first.append({name: value for name, value in values.items() if name not in ("virtual_time", "retired")})
        assert debugger.restart().signal == 5
        assert debugger.register("rip") == at["_start"]
    assert first[0] == first[1] == first[2]
    debugger.clear()
    assert debugger.cont().exited == 0
    debugger.connection.send(b"R00")
    assert debugger.command(b"?").startswith(b"T05")
    assert debugger.register("rip") == at["_start"]
    assert debugger.cont().exited == 0
    assert guest.console.text.count("bye") == 2


@pytest.mark.guest(cmdline="reboot", on_reboot="restart")
def test_a_guest_that_boots_again_by_itself(debugger: Debugger, at: Mapping[str, int]) -> None:
    """The debugger stays with it, its breakpoints too."""
    debugger.break_at(at["start"])
    for _ in range(3):
        assert debugger.cont().kind == "swbreak"
        assert debugger.register("rip") == at["start"]


@pytest.mark.guest(cmdline="loop")
def test_both_clients_one_after_the_other(guest: Guest, debug_server: DebugServer, at: Mapping[str, int]) -> None:
    with Debugger(debug_server.address) as debugger:
        go_to(RawClient(debugger), at["counted"])
        debugger.detach()
    with Gdb(symbols=build()) as gdb:
        gdb.connect(debug_server.address)
        client = GdbClient(gdb)
        assert client.register("rip") == at["counted"]
        assert go(client).status == 0
    assert guest.machine.verdict is not None


@pytest.mark.guest(cmdline="loop")
def test_a_test_that_runs_a_guest_under_a_debugger_is_told_so(guest: Guest, debugger: Debugger) -> None:
    with pytest.raises(Exception, match="a debugger runs this guest"):
        guest.wait()
    assert debugger.cont().exited == 0


def test_many_servers_at_once(guest: Guest) -> None:
    """Each has its own socket, in a folder that goes with it."""

    def to_its_end(server: DebugServer) -> int | None:
        with Debugger(server.address) as debugger:
            return debugger.cont().exited

    servers = [DebugServer(guest(cmdline="chain"), build()) for _ in range(6)]
    try:
        assert len({server.address for server in servers}) == 6
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(to_its_end, servers)) == [0] * 6
    finally:
        for server in servers:
            server.close()
    assert not any(os.path.exists(Path(server.address).parent) for server in servers)
