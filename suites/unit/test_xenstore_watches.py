"""XenStore's watches: who is told of what, how it is shown, in which order; and domain 0's plain calls."""

from __future__ import annotations

import pytest

from stub.abi import xs_wire as abi
from stub.devices.xenstore import Dom0, Facts, Store, StoreError, limits, populate
from stub.devices.xenstore.toolstack import add_device
from suites.unit.xenstore_talk import FACTS, HOME, Talk, message, messages

OK = b"OK\0"


@pytest.fixture
def talk() -> Talk:
    return Talk()


# -- over the wire


def test_the_first_event_comes_at_once_and_behind_the_answer(talk: Talk) -> None:
    heard = talk.say(message(abi.XS_WATCH, b"data/none\0tok\0"))
    assert [found[0] for found in heard] == [abi.XS_WATCH, abi.XS_WATCH_EVENT]
    assert heard[1][3] == b"data/none\0tok\0"


def test_events_come_before_the_answer_to_what_caused_them(talk: Talk) -> None:
    talk.watch("data", "t")
    heard = talk.say(message(abi.XS_WRITE, b"data/a\0"))
    assert [found[0] for found in heard] == [abi.XS_WATCH_EVENT, abi.XS_WRITE]


def test_paths_are_shown_as_they_were_asked_for(talk: Talk) -> None:
    for path, token in (("data", "1"), (f"{HOME}/data", "2"), ("data/a/b", "3"), ("/", "4")):
        assert talk.watch(path, token) == OK
    assert talk.told() == [("data", "1"), (f"{HOME}/data", "2"), ("data/a/b", "3"), ("/", "4")]
    talk.write("data/a/b", "x")
    full = f"{HOME}/data/a/b"
    assert talk.told() == [("data/a/b", "1"), (full, "2"), ("data/a/b", "3"), (full, "4")]
    talk.write("data/ab", "x")
    assert talk.told() == [("data/ab", "1"), (f"{HOME}/data/ab", "2"), (f"{HOME}/data/ab", "4")]


def test_removing_tells_each_node_once(talk: Talk) -> None:
    """Whoever watches from above is told of the node that was removed; below it, those who watch the very node."""
    talk.write("data/a/b/c", "x")
    for path, token in (("data", "top"), ("data/a/b", "b"), ("data/a/b/c", "c"), ("data/a/none", "none")):
        talk.watch(path, token)
    talk.told()
    talk.rm("data/a")
    assert talk.told() == [("data/a/b/c", "c"), ("data/a/b", "b"), ("data/a", "top")]
    talk.rm("data/a")
    assert talk.told() == [], "nothing was removed"


def test_what_makes_no_difference_is_not_told(talk: Talk) -> None:
    talk.mkdir("data/a")
    talk.watch("data", "t")
    talk.told()
    talk.mkdir("data/a")
    talk.read("data/a")
    assert talk.told() == []
    talk.write("data/a", "")
    talk.allow("data/a", "n1", "r0")
    assert talk.told() == [("data/a", "t"), ("data/a", "t")], "the same value, the permissions: told"


def test_an_event_that_waits_is_not_doubled(talk: Talk) -> None:
    talk.watch("memory/target", "t")
    talk.told()
    for value in (1, 2, 3):
        talk.dom0.write(f"{HOME}/memory/target", value)
    assert talk.told() == [("memory/target", "t")]


def test_only_who_may_know_is_told(talk: Talk) -> None:
    """It may read the node, or could before the change, or may read the node's directory."""
    talk.watch("/local/domain/0", "t")
    talk.told()
    dom0, top = talk.dom0, "/local/domain/0/shared"
    dom0.write(top, "1", "n0")
    dom0.write(top, "2")
    assert talk.told() == []
    dom0.set_permissions(top, "r0")
    assert talk.told() == [(top, "t")]
    dom0.write(f"{top}/below", "1", "n0")
    assert talk.told() == [(f"{top}/below", "t")], "its directory is open"
    dom0.set_permissions(top, "n0")
    assert talk.told() == [(top, "t")], "it loses it, and is told so"
    dom0.write(top, "3")
    dom0.rm(top)
    assert talk.told() == []


def test_one_of_a_path_and_token(talk: Talk) -> None:
    assert talk.watch("data", "t") == OK
    assert talk.watch("data", "t") == "EEXIST"
    assert talk.watch(f"{HOME}/data", "t") == "EEXIST", "it is the same path"
    assert talk.watch("data", "u") == OK
    assert talk.unwatch(f"{HOME}/data", "t") == OK
    assert talk.unwatch("data", "t") == "ENOENT"
    assert talk.unwatch("no path//", "t") == "ENOENT"
    talk.told()
    talk.write("data/a", "")
    assert talk.told() == [("data/a", "u")]


@pytest.mark.parametrize("path", ["", "data/", "a//b", "a b", "x" * 2049, "@" + "x" * 2048])
def test_what_cannot_be_watched(talk: Talk, path: str) -> None:
    assert talk.watch(path, "t") == "EINVAL"


def test_what_a_watch_request_holds(talk: Talk) -> None:
    for payload in (b"", b"data", b"data\0", b"data\0t", b"data\0t\0u\0"):
        assert talk.ask(abi.XS_WATCH, payload) == "EINVAL"
        assert talk.ask(abi.XS_UNWATCH, payload) == "EINVAL"
    assert talk.ask(abi.XS_WATCH, b"data\0\0and more") == OK


def test_domains_coming_and_going(talk: Talk) -> None:
    """Anybody may ask; only who has been let is told."""
    assert talk.watch("@releaseDomain", "t") == OK
    assert talk.told() == [("@releaseDomain", "t")]
    talk.store.released()
    assert talk.told() == []
    talk.dom0.set_permissions("@releaseDomain", "n0,r1")
    talk.store.released()
    talk.store.released()
    assert talk.told() == [("@releaseDomain", "t")] * 2, "these are not taken together"


def test_a_long_event_is_not_told(talk: Talk) -> None:
    token = "t" * 4000
    assert talk.watch("data", token) == OK
    assert talk.told() == [("data", token)]
    talk.mkdir("data/" + "x" * 100)
    assert talk.told() == []


def test_events_stop_at_the_end_of_its_memory(talk: Talk) -> None:
    """A commit that would tell of a thousand nodes to a hundred watches, each of two kilobytes."""
    for number in range(100):
        assert talk.watch("data", f"{number:02000}") == OK
    t = talk.begin()
    for number in range(300):
        talk.mkdir(f"data/{number}", t)
    talk.wire.receive(message(abi.XS_TRANSACTION_END, b"T\0", 1, t))
    assert talk.store.memory_of(1) < limits.MEMORY + 300 * 100, "but for the new nodes"
    heard = messages(talk.wire.take(1 << 24))
    assert heard[-1] == (abi.XS_TRANSACTION_END, 1, t, OK)
    assert 500 < len(heard) < 2000


# -- domain 0


def test_plain_calls(talk: Talk) -> None:
    dom0 = talk.dom0
    assert dom0.read("/none") is None
    assert dom0.list("/none") == []
    assert dom0.permissions("/none") is None
    dom0.rm("/none/of/this")
    dom0.write("backend/a", 5)
    assert dom0.read("/local/domain/0/backend/a") == b"5"
    dom0.write("backend/b", b"\xff\0", "n1,r0")
    assert (dom0.read("backend/b"), dom0.permissions("backend/b")) == (b"\xff\0", "n1,r0")
    assert dom0.list("backend") == ["console", "a", "b"]
    assert dom0.exists("backend")
    dom0.rm("backend")
    assert not dom0.exists("backend")


def test_what_is_wrong_is_said(talk: Talk) -> None:
    for call in (talk.dom0.read, talk.dom0.mkdir, talk.dom0.rm, talk.dom0.list):
        with pytest.raises(StoreError, match="no path: EINVAL") as caught:
            call("/no path")
        assert caught.value.word == "EINVAL"
    with pytest.raises(StoreError, match="EINVAL"):
        talk.dom0.watch("a//b", print)
    with pytest.raises(StoreError, match="ENOENT"):
        talk.dom0.set_permissions("/none", "n0")
    with pytest.raises(StoreError, match="EINVAL"):
        talk.dom0.write("/a", "", "me first")


def test_callbacks(talk: Talk) -> None:
    called: list[str] = []
    watch = talk.dom0.watch(f"{HOME}/data", called.append)
    assert called == [f"{HOME}/data"]
    talk.write("data/a", "1")
    talk.dom0.write(f"{HOME}/data/b", "1")
    assert called[1:] == [f"{HOME}/data/a", f"{HOME}/data/b"]
    talk.dom0.unwatch(watch)
    talk.dom0.unwatch(watch)
    talk.write("data/a", "2")
    assert len(called) == 3
    relative: list[str] = []
    talk.dom0.watch("backend", relative.append)
    talk.dom0.write("backend/x", "1")
    assert relative == ["backend", "backend/x"]


def test_a_callback_may_write(talk: Talk) -> None:
    """A back end that answers a front end's state: its callback runs when the request is over."""
    front, back = f"{HOME}/device/vbd/1/state", "backend/vbd/1/1/state"
    talk.dom0.write(front, 1, "n1,r0")
    order: list[tuple[str, bytes | None]] = []

    def answer(_: str) -> None:
        state = talk.dom0.read(front)
        order.append(("front", state))
        if state == b"3":
            talk.dom0.write(back, 4)
            order.append(("written", None))

    talk.dom0.watch(front, answer)
    talk.dom0.watch(back, lambda _: order.append(("back", talk.dom0.read(back))))
    order.clear()
    assert talk.write(front, "3") == OK
    assert order == [("front", b"3"), ("written", None), ("back", b"4")], "one callback after the other"


def test_a_callback_that_fails_leaves_the_store_in_order(talk: Talk) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("a back end's fault")

    with pytest.raises(RuntimeError, match="a back end's fault"):
        talk.dom0.watch("/tool", fail)
    with pytest.raises(RuntimeError, match="a back end's fault"):
        talk.dom0.write("/tool/x", 1)
    assert talk.dom0.read("/tool/x") == b"1"


def test_a_domain_is_introduced_to_who_watches() -> None:
    store = Store()
    called: list[str] = []
    store.dom0.watch("@introduceDomain", called.append)
    populate(store, FACTS)
    assert called == ["@introduceDomain"]
    store.introduce(Dom0(store))
    assert called == ["@introduceDomain"] * 2


def test_the_tree_of_a_new_domain() -> None:
    """As ``xenstore-ls`` shows it on a host with libxl 4.17, for a domain of 64 MiB with two vCPUs."""
    store = Store()
    populate(store, FACTS)
    dom0 = store.dom0
    assert dom0.list(HOME) == [
        *("vm", "name", "cpu", "memory", "device", "control", "data", "drivers", "feature", "attr", "error"),
        *("domid", "store", "console"),
    ]
    values = {
        "vm": b"/vm/12345678-0000-0000-0000-000000000000",
        "cpu/1/availability": b"online",
        "memory/static-max": b"65536",
        "memory/target": b"65537",
        "memory/videoram": b"-1",
        "control/platform-feature-multiprocessor-suspend": b"1",
        "store/port": b"1",
        "store/ring-ref": b"77",
        "console/type": b"xenconsoled",
        "console/backend": b"/local/domain/0/backend/console/1/0",
    }
    assert {name: dom0.read(f"{HOME}/{name}") for name in values} == values
    assert dom0.list("/vm/12345678-0000-0000-0000-000000000000/image") == ["ostype", "kernel", "ramdisk", "cmdline"]
    assert dom0.permissions("/libxl/1/device/console/0/protocol") == "n0"
    plain = Store()
    populate(plain, Facts(**{**vars(FACTS), "ramdisk": None, "cmdline": ""}))
    assert plain.dom0.list("/vm/12345678-0000-0000-0000-000000000000/image") == ["ostype", "kernel"]


def test_a_device_has_two_halves(talk: Talk) -> None:
    front, back = add_device(talk.dom0, "vbd", 1, 51712, {"backend-id": "0", "state": "1"}, {"state": "1"})
    assert talk.read(f"{front}/backend") == back.encode()
    assert talk.read(f"{back}/frontend") == front.encode()
    assert talk.write(f"{front}/state", "3") == OK
    assert talk.write(f"{back}/state", "3") == "EACCES"
    assert talk.directory("device") == b"suspend\0vbd\0"
    assert talk.mkdir("device/vbd/other") == "EACCES"
    assert talk.dom0.read("/libxl/1/device/vbd/51712/backend") == back.encode()
