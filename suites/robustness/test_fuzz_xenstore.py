"""XenStore's core under a fuzzer, and under random requests that a model follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage_guided import fuzz, needs_atheris
from fuzz_xenstore import DEAF, FRAMED, RING, converse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stub.abi import xs_wire as abi
from stub.devices.xenstore import requests
from suites.unit.xenstore_talk import HOME, Talk, sound

FUZZER = Path(__file__).with_name("fuzz_xenstore.py")
CORPUS = Path(__file__).parent / "corpus" / "xenstore"
OK = b"OK\0"


@pytest.mark.parametrize("seed", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus(seed: Path) -> None:
    """What was interesting once holds, with every choice that the first byte may make."""
    data = seed.read_bytes()
    for flags in range(16):
        if flags & FRAMED == data[0] & FRAMED:
            converse(bytes([flags]) + data[1:])


@pytest.mark.parametrize("failure", [ValueError, KeyError, AssertionError])
def test_the_fuzzer_would_notice(failure: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> bytes:
        raise failure

    monkeypatch.setitem(requests.ROWS, abi.XS_READ, requests.ROWS[abi.XS_READ]._replace(handler=broken))
    with pytest.raises(failure):
        converse(bytes([FRAMED]) + b"\x02\x00name|")


@needs_atheris
def test_coverage_guided(tmp_path: Path) -> None:
    fuzz(FUZZER, CORPUS, tmp_path, longest=4096)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 15), st.binary(max_size=400))
def test_any_bytes(flags: int, data: bytes) -> None:
    converse(bytes([flags]) + data)


kinds = st.sampled_from(sorted(requests.ROWS))
some_paths = st.sampled_from(["data", "data/a", "data/a/b", "/", HOME, "name", "@releaseDomain", "data//", "", "attr"])
words = some_paths | st.sampled_from(["n1", "r0", "b1", "T", "F", "0", "1", "token", "x" * 300])
lines = st.tuples(kinds, st.integers(0, 3), st.lists(words, max_size=4).map("|".join), st.sampled_from(["", "|"]))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([FRAMED, FRAMED | RING, FRAMED | DEAF, FRAMED | RING | DEAF]), st.lists(lines, max_size=40))
def test_any_arguments(flags: int, asked: list[tuple[int, int, str, str]]) -> None:
    converse(bytes([flags]) + b"\n".join(bytes([kind, tx]) + (text + end).encode() for kind, tx, text, end in asked))


# -- a model

Nodes = dict[str, str]
names = st.sampled_from(["a", "b", "c", "a/x", "a/y", "a/x/z", "b/x"])
values = st.sampled_from(["", "1", "two", "x" * 500])


def below(nodes: Nodes, path: str) -> list[str]:
    return [node for node in nodes if node == path or node.startswith(path + "/")]


class RandomRequests(RuleBasedStateMachine):
    """A guest that works in its own directory, alone and in transactions, while domain 0 changes things as well.

    The model is a dictionary for each view. A transaction's end must be EAGAIN exactly if a node that it looked at is
    another now: the model keeps, for each, a stamp of its last change, of its value or of its list of children.
    """

    @initialize()
    def begin(self) -> None:
        self.talk = Talk()
        self.nodes: Nodes = {}
        self.stamps: dict[str, int] = {"": 0}  # by path, of what there is
        self.clock = 0
        self.number = 0  # of the open transaction
        self.seen: dict[str, int | None] = {}
        self.own: Nodes = {}
        self.changed: list[tuple[str, str, str]] = []

    def look(self, *paths: str) -> None:
        """The transaction looked at these; the first time counts."""
        for path in paths:
            self.seen.setdefault(path, self.stamps.get(path))

    def change(self, what: str, path: str, value: str, nodes: Nodes, stamps: dict[str, int] | None) -> None:
        """Do it in the model, with stamps where it is for all."""
        self.clock += 1
        parts = path.split("/")
        above = ["/".join(parts[:i]) for i in range(len(parts))]
        if what == "rm":
            gone = below(nodes, path)
            for node in gone:
                del nodes[node]
            touched = [above[-1]] if gone else []
        else:
            new = [node for node in above[1:] if node not in nodes]
            touched = [path, *new]
            if path not in nodes:
                touched += [above[above.index(new[0]) - 1] if new else above[-1]]
            elif what == "mkdir":
                touched = []
            nodes.update(dict.fromkeys(new, ""))
            nodes[path] = value if what == "write" else nodes.get(path, "")
        if stamps is not None:
            stamps.update(dict.fromkeys(touched, self.clock))
            for node in set(stamps) - set(nodes) - {""}:
                del stamps[node]

    def looked_for(self, what: str, path: str, nodes: Nodes) -> None:
        """Which nodes a request of the transaction's looks at."""
        parts = path.split("/")
        above = ["/".join(parts[:i]) for i in range(len(parts))]
        self.look(path)
        if path in nodes:
            if what == "rm":
                self.look(*below(nodes, path), above[-1])
            return
        for node in reversed(above):  # up to the first that there is
            self.look(node)
            if node == "" or node in nodes:
                break

    @rule(what=st.sampled_from(["write", "write", "mkdir", "rm"]), path=names, value=values)
    def alone(self, what: str, path: str, value: str) -> None:
        expected: bytes | str = OK
        parent = path.rpartition("/")[0]
        if what == "rm" and parent and parent not in self.nodes:
            expected = "ENOENT"
        assert self.ask(what, path, value, 0) == expected
        self.change(what, path, value, self.nodes, self.stamps)

    @rule(what=st.sampled_from(["write", "rm"]), path=names, value=values)
    def domain_0(self, what: str, path: str, value: str) -> None:
        full = f"{HOME}/data/{path}"
        if what == "write":
            self.talk.dom0.write(full, value)
        else:
            self.talk.dom0.rm(full)
        self.change(what, path, value, self.nodes, self.stamps)

    @precondition(lambda self: not self.number)
    @rule()
    def start(self) -> None:
        self.number = self.talk.begin()
        self.seen, self.own, self.changed = {}, {}, []
        self.first = dict(self.nodes)

    @precondition(lambda self: self.number)
    @rule(path=names)
    def read_inside(self, path: str) -> None:
        view = self.view()
        got = self.talk.read(f"data/{path}", self.number)
        self.looked_for("read", path, view)
        if self.doubtful():
            return
        assert got == (view[path].encode() if path in view else "ENOENT")

    @precondition(lambda self: self.number)
    @rule(what=st.sampled_from(["write", "mkdir", "rm"]), path=names, value=values)
    def inside(self, what: str, path: str, value: str) -> None:
        view = self.view()
        self.looked_for(what, path, view)
        self.ask(what, path, value, self.number)
        self.changed.append((what, path, value))

    @precondition(lambda self: self.number)
    @rule(how=st.sampled_from("TTTF"))
    def end(self, how: str) -> None:
        fresh = all(self.stamps.get(path) == stamp for path, stamp in self.seen.items())
        answer = self.talk.end(self.number, how)
        self.number = 0
        if how == "F":
            assert answer == OK
        elif not fresh:
            assert answer == "EAGAIN"
        else:
            assert answer == OK
            for what, path, value in self.changed:
                self.change(what, path, value, self.nodes, self.stamps)

    def view(self) -> Nodes:
        """What the transaction should see, if nobody else changed what it looked at."""
        view = dict(self.nodes)
        clock = self.clock
        for what, path, value in self.changed:
            self.change(what, path, value, view, None)
        self.clock = clock
        return view

    def doubtful(self) -> bool:
        """Whether it cannot be committed any more: what it sees then is a mixture that the model does not follow."""
        return any(self.stamps.get(path) != stamp for path, stamp in self.seen.items())

    def ask(self, what: str, path: str, value: str, transaction: int) -> bytes | str:
        full = f"data/{path}"
        if what == "write":
            return self.talk.write(full, value, transaction)
        return (self.talk.mkdir if what == "mkdir" else self.talk.rm)(full, transaction)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "talk"):
            return
        sound(self.talk)
        for path in {*self.nodes, "a", "a/x/z"}:
            wanted = self.nodes.get(path)
            assert self.talk.dom0.read(f"{HOME}/data/{path}") == (None if wanted is None else wanted.encode())
        assert set(self.talk.dom0.list(f"{HOME}/data")) == {path for path in self.nodes if "/" not in path}


TestRandomRequests = RandomRequests.TestCase
TestRandomRequests.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
