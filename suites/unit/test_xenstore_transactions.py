"""XenStore's transactions: what they see, when they conflict, and what their end does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stub.abi import xs_wire as abi
from stub.devices.xenstore import limits
from suites.unit.xenstore_talk import HOME, Talk

OK = b"OK\0"
DATA = f"{HOME}/data"


@pytest.fixture
def talk() -> Talk:
    """A domain with a few values of its own."""
    made = Talk()
    for name in ("a", "b", "dir/x"):
        made.write(f"data/{name}", "old")
    return made


def test_nobody_else_sees_it_before_its_end(talk: Talk) -> None:
    t = talk.begin()
    assert talk.write("data/a", "new", t) == OK
    assert talk.write("data/n/m", "new", t) == OK
    assert talk.rm("data/dir", t) == OK
    assert (talk.read("data/a", t), talk.read("data/a")) == (b"new", b"old")
    assert (talk.read("data/n/m", t), talk.read("data/n/m")) == (b"new", "ENOENT")
    assert (talk.directory("data", t), talk.directory("data")) == (b"a\0b\0n\0", b"a\0b\0dir\0")
    assert talk.end(t) == OK
    assert (talk.read("data/a"), talk.read("data/n/m"), talk.read("data/dir/x")) == (b"new", b"new", "ENOENT")
    assert talk.directory("data") == b"a\0b\0n\0"


def test_given_up(talk: Talk) -> None:
    t = talk.begin()
    talk.write("data/a", "new", t)
    talk.rm("data/dir", t)
    assert talk.end(t, "F") == OK
    assert talk.read("data/a") == b"old"
    assert talk.read("data/dir/x") == b"old"
    assert talk.read("data/a", t) == "ENOENT", "there is no such transaction any more"


def test_what_cannot_be(talk: Talk) -> None:
    assert talk.end(0) == "ENOENT"
    assert talk.end(7) == "ENOENT"
    assert talk.read("data/a", 7) == "ENOENT"
    assert talk.ask(abi.XS_UNWATCH, "data\0t\0", 7) == "ENOENT", "which is the watch: its transaction is not looked at"
    assert talk.ask(abi.XS_WATCH, "data\0t\0", 7) == OK
    t = talk.begin()
    assert talk.ask(abi.XS_TRANSACTION_START, "\0", t) == "EBUSY"
    for wrong in ("T", "X\0", "\0", "", "T\0T\0", "TF\0"):
        assert talk.ask(abi.XS_TRANSACTION_END, wrong, t) == "EINVAL"
    assert talk.end(t) == OK


def conflict(talk: Talk, *change: str) -> None:
    """What domain 0 does in between."""
    what, path, *rest = change
    getattr(talk.dom0, what)(f"{DATA}/{path}" if path else DATA, *rest)


@pytest.mark.parametrize(
    ("looked", "change"),
    [
        (("read", "data/a"), ("write", "a", "x")),
        (("read", "data/a"), ("write", "a", "old")),
        (("read", "data/a"), ("rm", "a")),
        (("read", "data/a"), ("set_permissions", "a", "n1,r0")),
        (("read", "data/none"), ("write", "none", "x")),
        (("directory", "data"), ("write", "none", "x")),
        (("directory", "data"), ("rm", "b")),
        (("write", "data/a", "mine"), ("write", "a", "x")),
        (("write", "data/new", "mine"), ("write", "other", "x")),
        (("rm", "data/dir"), ("write", "dir/x", "x")),
        (("rm", "data/dir"), ("write", "dir/y", "x")),
        (("read", "data/dir/none"), ("rm", "dir")),
    ],
)
def test_conflicts(talk: Talk, looked: tuple[str, ...], change: tuple[str, ...]) -> None:
    """A node that it looked at is not what it was: EAGAIN, nothing is changed, and the next try goes through."""
    what, *arguments = looked
    for attempt in range(2):
        t = talk.begin()
        getattr(talk, what)(*arguments, transaction=t)
        talk.write("data/mark", "set", t)
        if not attempt:
            conflict(talk, *change)
            assert talk.end(t) == "EAGAIN"
            assert talk.read("data/mark") == "ENOENT"
            assert talk.read("data/a", t) == "ENOENT", "a refused transaction is over"
        else:
            assert talk.end(t) == OK
            assert talk.read("data/mark") == b"set"


@pytest.mark.parametrize(
    ("looked", "change"),
    [
        (("read", "data/a"), ("write", "b", "x")),
        (("directory", "data"), ("write", "a", "x")),
        (("read", "data/dir/x"), ("write", "dir/y", "x")),
        (("write", "data/a", "mine"), ("write", "none", "x")),
    ],
)
def test_no_conflicts(talk: Talk, looked: tuple[str, ...], change: tuple[str, ...]) -> None:
    """Another value, or another child of a directory of which only a child was read."""
    what, *arguments = looked
    t = talk.begin()
    getattr(talk, what)(*arguments, transaction=t)
    talk.write("data/b", "mine", t) if change[1] != "b" else None
    conflict(talk, *change)
    assert talk.end(t) == OK


def test_a_mixture_of_before_and_after(talk: Talk) -> None:
    """What was made behind a transaction's back may be there without its directory, or without being listed there."""
    t = talk.begin()
    assert talk.read("data/new", t) == "ENOENT"
    assert talk.directory("data", t) == b"a\0b\0dir\0"
    talk.write("data/new/x", "1")
    talk.write("data/late", "1")
    assert talk.rm("data/new/x", t) == "EINVAL"
    assert talk.rm("data/late", t) == OK
    assert talk.end(t) == "EAGAIN"
    assert (talk.read("data/new/x"), talk.read("data/late")) == (b"1", b"1")


def test_two_transactions(talk: Talk) -> None:
    """Each reads what the other writes: the first to end wins."""
    one, two = talk.begin(), talk.begin()
    talk.read("data/a", one)
    talk.read("data/b", two)
    talk.write("data/b", "one", one)
    talk.write("data/a", "two", two)
    assert talk.end(one) == OK
    assert talk.end(two) == "EAGAIN"
    assert (talk.read("data/a"), talk.read("data/b")) == (b"old", b"one")


def test_watches_are_told_at_its_end_in_the_order_of_its_first_look(talk: Talk) -> None:
    talk.watch("data", "t")
    talk.told()
    t = talk.begin()
    talk.read("data/b", t)
    talk.write("data/a", "1", t)
    talk.write("data/b", "1", t)
    talk.write("data/a", "2", t)
    assert talk.told() == []
    assert talk.end(t) == OK
    assert talk.told() == [("data/b", "t"), ("data/a", "t")]
    t = talk.begin()
    talk.write("data/a", "3", t)
    assert talk.end(t, "F") == OK
    assert talk.told() == []


def test_what_was_made_and_removed_in_it_never_was(talk: Talk) -> None:
    talk.watch("data", "t")
    talk.told()
    owned = talk.store.tree.owned[1]
    t = talk.begin()
    talk.write("data/short/life", "1", t)
    talk.rm("data/short", t)
    assert talk.end(t) == OK
    assert talk.directory("data") == b"a\0b\0dir\0"
    assert talk.store.tree.owned[1] == owned


def one_by_one(count: int) -> Iterator[str]:
    """Paths of which each is one node more, without a directory that has too many."""
    for number in range(count):
        directory = f"data/{number // 50}"
        yield directory if number % 50 == 0 else f"{directory}/{number}"


def test_nodes_count_at_its_end(talk: Talk) -> None:
    owned = talk.store.tree.owned
    room = limits.NODES - owned[1]
    t = talk.begin()
    for path in one_by_one(room):
        assert talk.mkdir(path, t) == OK
    assert talk.end(t) == "ENOSPC", "at its end it must stay below the quota"
    t = talk.begin()
    for path in one_by_one(room - 1):
        talk.mkdir(path, t)
    assert talk.end(t) == OK
    assert owned[1] == limits.NODES - 1


def test_how_many_nodes_it_may_look_at(talk: Talk) -> None:
    """1024, whether they are there or not; one more and it cannot be committed."""
    t = talk.begin()
    for number in range(limits.TRANSACTION_NODES - 1):  # and ``data``, of which it is asked who may know
        assert talk.read(f"data/none-{number}", t) == "ENOENT"
    assert talk.read("data/a", t) == "ENOSPC"
    assert talk.read("data/none-1", t) == "ENOENT"
    assert talk.end(t) == "ENOMEM"


def test_reset_ends_transactions_too(talk: Talk) -> None:
    t = talk.begin()
    talk.watch("data", "t")
    assert talk.ask(abi.XS_RESET_WATCHES, "\0") == OK
    assert talk.end(t) == "ENOENT"
    assert talk.unwatch("data", "t") == "ENOENT"
