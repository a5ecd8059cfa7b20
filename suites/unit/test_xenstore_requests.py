"""XenStore's requests over the wire: what each answers, who may make it, and where it ends."""

from __future__ import annotations

import pytest

from stub.abi import xs_wire as abi
from stub.devices.xenstore import limits, requests
from suites.unit.xenstore_talk import DOMID, HOME, Talk, message, messages

OK = b"OK\0"


@pytest.fixture
def talk() -> Talk:
    """A domain as libxl leaves it; ``data`` is a directory of its own."""
    return Talk()


# -- nodes


def test_reading_and_writing(talk: Talk) -> None:
    assert talk.read("domid") == b"1"
    assert talk.read(f"{HOME}/domid") == b"1"
    assert talk.write("data/a", "x\0y") == OK
    assert talk.read("data/a") == b"x\0y", "a value may hold any byte"
    assert talk.write("data/a", "") == OK
    assert talk.read("data/a") == b""
    assert talk.read("data/b") == "ENOENT"


def test_directories_are_made_on_the_way(talk: Talk) -> None:
    assert talk.write("data/b/c/d", "1") == OK
    assert talk.read("data/b") == b""
    assert talk.mkdir("data/a") == OK
    assert talk.mkdir("data/a") == OK, "it is there"
    assert talk.directory("data") == b"b\0a\0", "in the order in which they came"
    assert talk.directory("data/b/c/d") == b""


def test_removing(talk: Talk) -> None:
    talk.write("data/b/c", "1")
    assert talk.rm("data/b") == OK
    assert talk.read("data/b/c") == "ENOENT"
    assert talk.directory("data") == b""
    assert talk.rm("data/b") == OK, "its parent is there"
    assert talk.rm("data/b/c") == "ENOENT", "its parent is not"
    assert talk.rm("name") == "EACCES"
    assert talk.dom0.read(f"{HOME}/name") == b"guest"
    assert Talk().rm("data") == OK


def test_the_root_cannot_be_removed(talk: Talk) -> None:
    talk.dom0.set_permissions("/", f"n{DOMID}")
    assert talk.rm("/") == "EINVAL"
    assert talk.write("/mine", "1") == OK
    assert talk.dom0.permissions("/mine") == f"n{DOMID}"


@pytest.mark.parametrize(
    "path",
    [
        *("data/", "data//a", "/", "//", "", "data/a b", "data/a.b", "data/é", "data/a:", "@releaseDomain", "data\n"),
        *("x" * 2049, f"{HOME}/{'x' * 2049}", "/" + "x" * 2048),
    ],
)
def test_what_is_no_path(talk: Talk, path: str) -> None:
    """Letters, digits and -/_@; no empty part; 2048 characters, counted from a domain's home if it is below one."""
    expected = "EACCES" if path == "/" else "EINVAL"
    assert talk.write(path, "1") == expected
    assert talk.read(path) == expected
    assert talk.mkdir(path) == expected
    assert talk.directory(path) == expected


@pytest.mark.parametrize("path", ["data/@-_/A9", "data/" + "x" * 1000, "data" + "/x" * 900, f"{HOME}/data/y"])
def test_what_is_a_path(talk: Talk, path: str) -> None:
    assert talk.mkdir(path) == OK
    assert talk.rm(path) == OK


@pytest.mark.parametrize("payload", [b"", b"data", b"data\0more", b"data\0more\0"])
@pytest.mark.parametrize("kind", [abi.XS_READ, abi.XS_DIRECTORY, abi.XS_GET_PERMS, abi.XS_MKDIR, abi.XS_RM])
def test_one_string_and_its_nul(talk: Talk, kind: int, payload: bytes) -> None:
    assert talk.ask(kind, payload) == "EINVAL"


def test_a_long_directory_comes_in_parts(talk: Talk) -> None:
    names = [f"node-{number:04}" for number in range(600)]
    top = "/local/domain/1/attr"
    for name in names:
        talk.dom0.write(f"{top}/{name}", "")
    assert talk.directory("attr") == "E2BIG"
    found, rounds = b"", 0
    while not found.endswith(b"\0\0"):
        part = talk.ask(abi.XS_DIRECTORY_PART, f"attr\0{len(found)}\0")
        assert isinstance(part, bytes)
        assert len(part) <= abi.XENSTORE_PAYLOAD_MAX
        generation, _, rest = part.partition(b"\0")
        assert int(generation) > 0
        assert rest[-1:] == b"\0"
        found += rest
        rounds += 1
    assert found[:-2].decode().split("\0") == names
    assert rounds == 2
    behind = talk.ask(abi.XS_DIRECTORY_PART, "attr\0" + "99999\0")
    assert behind == generation + b"\0\0"
    assert talk.ask(abi.XS_DIRECTORY_PART, "attr\0-1\0") == behind
    assert talk.ask(abi.XS_DIRECTORY_PART, "attr\0") == "EINVAL"
    assert talk.ask(abi.XS_DIRECTORY_PART, "nothing\0" + "0\0") == "ENOENT"
    talk.dom0.write(f"{top}/one-more", "")
    again = talk.ask(abi.XS_DIRECTORY_PART, "attr\0" + "0\0")
    assert isinstance(again, bytes)
    assert again.partition(b"\0")[0] != generation, "so that a reader sees that it has to begin anew"


# -- permissions


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("", b"n0\0r1\0"),
        ("name", b"n0\0r1\0"),
        ("control", b"n0\0r1\0"),
        ("control/shutdown", b"n1\0"),
        ("device/suspend", b"n0\0r1\0"),
        ("device/suspend/event-channel", b"n1\0"),
        ("memory/target", b"n0\0r1\0"),
        ("console", b"n0\0r1\0"),
        ("console/limit", b"n1\0r0\0"),
        ("console/ring-ref", b"n0\0r1\0"),
        ("cpu/1/availability", b"n0\0r1\0"),
        ("data", b"n1\0"),
    ],
)
def test_permissions_as_libxl_gives_them(talk: Talk, path: str, entries: bytes) -> None:
    full = f"{HOME}/{path}".rstrip("/")
    assert talk.permissions(full) == entries
    assert talk.write(full, "1") == (OK if entries.startswith(b"n1") else "EACCES")


def test_what_others_have_is_not_even_known_to_be_there(talk: Talk) -> None:
    talk.dom0.write("/local/domain/0/secret", "1")
    for path in ("/local/domain/0/secret", "/local/domain/0/nothing", "/libxl/1/type", "/"):
        assert talk.read(path) == "EACCES"
        assert talk.permissions(path) == "EACCES"
    assert talk.write("nothing", "1") == "EACCES", "the directory is not its own"
    assert talk.read("nothing") == "ENOENT", "but it may read it"
    assert talk.read("/local/domain/0/backend/console/1/0/frontend") == f"{HOME}/console".encode()
    assert talk.read("/vm/12345678-0000-0000-0000-000000000000/name") == b"guest"


def test_giving_permissions(talk: Talk) -> None:
    talk.write("data/a", "1")
    assert talk.permissions("data/a") == b"n1\0", "as its parent has them"
    assert talk.allow("data/a", "n1", "r0", "b0") == OK
    assert talk.permissions("data/a") == b"n1\0r0\0b0\0"
    assert talk.allow("data/a", "n0") == "EPERM", "it is not to be given away"
    assert talk.allow("data/a", "n77") == "ENOENT", "there is no such domain"
    assert talk.allow("data/a", "n1", "r77") == OK
    assert talk.permissions("data/a") == b"n1\0r77\0"
    assert talk.allow("name", "n1") == "EACCES"
    assert talk.allow("data/none", "n1") == "ENOENT"
    assert talk.allow("data/a", *["n1"] * 6) == "ENOSPC"
    assert talk.allow("data/a") == "EINVAL"
    assert talk.allow("@releaseDomain", "n1") == "EACCES"
    assert talk.allow("@nothing", "n1") == "EINVAL"
    for wrong in ("x1", "n", "n1x", "", "1", "n0x", "n 08"):
        assert talk.allow("data/a", wrong) == "EINVAL", wrong
    for right in ("n0x1", "n01", "n 1", "n+1"):
        assert talk.allow("data/a", right) == OK, right
        assert talk.permissions("data/a") == b"n1\0"


def test_whose_rights_are_which(talk: Talk) -> None:
    """The first entry's letter is for everybody else; a domain's own entry counts instead of it."""
    top = "/local/domain/0/shared"
    talk.dom0.write(top, "1", "n0")
    for entries, may_read, may_write in (
        (("n0",), False, False),
        (("r0",), True, False),
        (("w0",), False, True),
        (("b0",), True, True),
        (("n0", "r1"), True, False),
        (("b0", "n1"), False, False),
        (("n0", "b1"), True, True),
    ):
        talk.dom0.set_permissions(top, ",".join(entries))
        assert talk.read(top) == (b"1" if may_read else "EACCES"), entries
        assert talk.write(top, "1") == (OK if may_write else "EACCES"), entries
        assert talk.allow(top, "n1") == "EACCES", "only the owner says who may"


def test_a_new_node_is_its_makers(talk: Talk) -> None:
    top = "/local/domain/0/shared"
    talk.dom0.mkdir(top, "n0,b1")
    assert talk.write(f"{top}/a/b", "1") == OK
    assert talk.dom0.permissions(f"{top}/a") == "n1,b1"
    assert talk.dom0.permissions(f"{top}/a/b") == "n1,b1"
    talk.dom0.write(f"{HOME}/data/of-dom0", "1")
    assert talk.dom0.permissions(f"{HOME}/data/of-dom0") == "n1", "domain 0 makes it as its parent is"


# -- what a domain may not ask


@pytest.mark.parametrize(
    "kind",
    [
        *(abi.XS_CONTROL, abi.XS_INTRODUCE, abi.XS_RELEASE, abi.XS_RESUME, abi.XS_SET_TARGET),
        abi.XS_IS_DOMAIN_INTRODUCED,
    ],
)
def test_for_domain_0_alone(talk: Talk, kind: int) -> None:
    assert talk.ask(kind, "1\0") == "EACCES"


@pytest.mark.parametrize("kind", [abi.XS_WATCH_EVENT, abi.XS_ERROR, 20, 23, 128, abi.XS_INVALID, 0xFFFFFFFF])
def test_what_is_no_request(talk: Talk, kind: int) -> None:
    assert talk.ask(kind, "data\0") == "ENOSYS"


def test_every_type_has_a_row() -> None:
    asked = set(abi.XS_TYPES) - {abi.XS_WATCH_EVENT, abi.XS_ERROR}
    assert set(requests.ROWS) == asked


def test_domain_paths(talk: Talk) -> None:
    assert talk.ask(abi.XS_GET_DOMAIN_PATH, "7\0") == b"/local/domain/7\0"
    assert talk.ask(abi.XS_GET_DOMAIN_PATH, "x\0") == b"/local/domain/0\0"
    assert talk.ask(abi.XS_GET_DOMAIN_PATH, "-1\0") == b"/local/domain/4294967295\0"
    assert talk.ask(abi.XS_GET_DOMAIN_PATH, "1") == "EINVAL"


# -- quotas


def test_as_many_nodes_as_xenstored_lets_a_domain_have(talk: Talk) -> None:
    """1000, those that libxl made for it among them; each level that is missing counts."""
    owned = talk.store.tree.owned
    made = 0
    while talk.mkdir(f"data/{made // 100}/{made % 100}") == OK:
        made += 1
    assert owned[DOMID] == limits.NODES
    assert talk.mkdir("data/more") == "ENOSPC"
    assert talk.write("data/0/0", "but what is there can be changed") == OK
    assert talk.rm("data/0/1") == OK
    assert talk.write("data/x/y", "1") == "ENOSPC", "there is room for one, not for two"
    assert talk.read("data/x") == "ENOENT", "the first was taken back"
    assert talk.mkdir("data/x") == OK
    talk.dom0.write(f"{HOME}/data/y/z", "1")
    assert owned[DOMID] == limits.NODES + 2, "no quota holds for domain 0"


def test_how_large_a_node_may_be(talk: Talk) -> None:
    """Less than 2048 bytes with its header (24), its permissions (8 each) and its children's names."""
    most = 2047 - 24 - 8
    assert talk.write("data/a", "x" * most) == OK
    assert talk.write("data/a", "x" * (most + 1)) == "ENOSPC"
    assert talk.allow("data/a", "n1", "r0") == "ENOSPC"
    assert talk.write("data/a", "x" * (most - 2)) == OK
    assert talk.mkdir("data/a/b") == OK
    assert talk.mkdir("data/a/c") == "ENOSPC"
    assert talk.directory("data/a") == b"b\0"
    talk.dom0.write(f"{HOME}/data/large", "x" * 4000)
    assert talk.read("data/large") == b"x" * 4000


def test_how_many_watches(talk: Talk) -> None:
    """xenstored compares with "more than" its quota of 128: there may be one more."""
    for number in range(limits.WATCHES + 1):
        assert talk.watch("data", str(number)) == OK
    assert talk.watch("data", "more") == "E2BIG"
    assert talk.unwatch("data", "0") == OK
    assert talk.watch("data", "more") == OK


def test_how_many_transactions(talk: Talk) -> None:
    """As with watches."""
    numbers = [talk.begin() for _ in range(limits.TRANSACTIONS + 1)]
    assert numbers == list(range(1, 12))
    assert talk.ask(abi.XS_TRANSACTION_START, "\0") == "ENOSPC"
    assert talk.end(5, "F") == OK
    assert talk.begin() == 12, "numbers are not used again"


def test_how_much_memory(talk: Talk) -> None:
    """Nodes, watches, transactions and what waits, together 2.5 MiB: what would pass that is refused."""
    value = "x" * 1900
    words = set()
    for round_ in range(limits.TRANSACTIONS):
        transaction = talk.begin()
        for number in range(200):
            words.add(talk.write(f"data/{round_}-{number}", value, transaction))
        if words > {OK}:
            break
    assert words == {OK, "EIO"}
    assert talk.store.memory_of(DOMID) < limits.MEMORY
    assert talk.end(transaction) == "ENOMEM", "the transaction has failed"
    assert talk.write("data/a", "1") == OK


# -- messages


def test_a_payload_may_be_4096_bytes_long(talk: Talk) -> None:
    assert talk.write("data/a", "x" * (4096 - 7)) == "ENOSPC"
    assert not talk.wire.error


def test_a_longer_one_ends_the_conversation(talk: Talk) -> None:
    """Nobody knows where the next message would begin: no more is read, and all that was kept is forgotten."""
    talk.watch("data", "t")
    talk.begin()
    said = message(abi.XS_READ, b"name\0")
    assert talk.wire.receive(message(abi.XS_WRITE, bytes(4097))) == 16
    assert talk.wire.error == abi.XENSTORE_ERROR_PROTO
    assert talk.wire.receive(said) == 0
    assert not talk.wire.watches
    assert not talk.wire.transactions
    assert talk.wire.take(100) == b""
    talk.wire.restart()
    assert talk.read("name") == b"guest"


@pytest.mark.parametrize("size", [1, 3, 16, 17, 50])
def test_messages_come_in_pieces(talk: Talk, size: int) -> None:
    said = b"".join(
        (
            message(abi.XS_WRITE, b"data/a\0value", 1),
            message(abi.XS_READ, b"data/a\0", 2),
            message(abi.XS_READ, b"", 3),
            message(abi.XS_WATCH, b"data\0token\0", 4),
        )
    )
    heard = b""
    for at in range(0, len(said), size):
        talk.wire.receive(said[at : at + size])
        heard += talk.wire.take(size)
    while talk.wire.pending:
        heard += talk.wire.take(size)
    assert messages(heard) == [
        (abi.XS_WRITE, 1, 0, OK),
        (abi.XS_READ, 2, 0, b"value"),
        (abi.XS_ERROR, 3, 0, b"EINVAL\0"),
        (abi.XS_WATCH, 4, 0, OK),
        (abi.XS_WATCH_EVENT, 0, 0, b"data\0token\0"),
    ]


def test_who_does_not_take_answers_may_not_ask_more(talk: Talk) -> None:
    """20 requests may be outstanding; one is until all that it led to is taken."""
    asked = message(abi.XS_READ, b"name\0")
    assert talk.wire.receive(asked * 100) == limits.OUTSTANDING * len(asked)
    assert not talk.wire.listens
    talk.wire.take(16 + 4)
    assert talk.wire.receive(asked) == 0, "a byte of the first answer is still there"
    talk.wire.take(1)
    assert talk.wire.receive(asked * 2) == len(asked)


def test_an_event_keeps_its_request_outstanding(talk: Talk) -> None:
    talk.watch("data", "t")
    wrote = message(abi.XS_WRITE, b"data/a\0x")
    assert talk.wire.receive(wrote * 3) == 3 * len(wrote)
    heard = messages(talk.wire.take(1 << 16))
    assert [found[0] for found in heard] == [abi.XS_WATCH_EVENT, abi.XS_WRITE, abi.XS_WRITE, abi.XS_WRITE]
    assert talk.wire._outstanding == 0
