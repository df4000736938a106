"""Stores: one contract for all of them, what PyTorch's do with the same calls, and a server that nobody can hold up."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from collectives.store import (
    FileStore,
    HashStore,
    PrefixStore,
    QueueEmptyError,
    Store,
    StoreError,
    StoreTimeoutError,
    TCPStore,
)
from collectives.store.protocol import HELLO, LENGTH, LONGEST_FRAME, WELCOME, Operation, Status, frame, parse

pytestmark = pytest.mark.mpi_skip
KINDS = ["hash", "file", "tcp", "prefix"]
LONG = 60.0
"""Seconds that only a test that fails waits."""


@pytest.fixture
def master() -> Iterator[TCPStore]:
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=LONG)
    yield store
    store.close()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, master: TCPStore) -> Store:
    return {
        "hash": lambda: HashStore(LONG),
        "file": lambda: FileStore(tmp_path / "store", timeout=LONG),
        "tcp": lambda: TCPStore("127.0.0.1", master.port, timeout=LONG),
        "prefix": lambda: PrefixStore("a prefix", HashStore(LONG)),
    }[request.param]()


# Each line is called in this order on one store; the results are those that torch.distributed documents for its stores.
CONTRACT: list[tuple[str, tuple[Any, ...], Any]] = [
    ("set", ("a", "one"), None),
    ("get", ("a",), b"one"),
    ("set", ("a", b"\x00\xff"), None),
    ("get", ("a",), b"\x00\xff"),
    ("set", ("empty", ""), None),
    ("get", ("empty",), b""),
    ("set", ("\u00e9\u4e16", "\u00fc"), None),
    ("get", ("\u00e9\u4e16",), "\u00fc".encode()),
    ("add", ("n", 3), 3),
    ("add", ("n", -5), -2),
    ("get", ("n",), b"-2"),
    ("set", ("m", "7"), None),
    ("add", ("m", 1), 8),
    ("compare_set", ("c", "", "x"), b"x"),
    ("compare_set", ("c", "y", "z"), b"x"),
    ("compare_set", ("c", "x", "z"), b"z"),
    ("compare_set", ("q", "no", "z"), b"no"),
    ("check", (["q"],), False),
    ("check", (["a", "c"],), True),
    ("check", (["a", "q"],), False),
    ("check", ([],), True),
    ("append", ("p", "ab"), None),
    ("append", ("p", "cd"), None),
    ("get", ("p",), b"abcd"),
    ("multi_set", (["k1", "k2"], ["1", "2"]), None),
    ("multi_get", (["k2", "k1"],), [b"2", b"1"]),
    ("delete_key", ("k2",), True),
    ("check", (["k2"],), False),
    ("wait", (["a", "k1"],), None),
    ("wait", (["a", "k1"], timedelta(seconds=1)), None),
    ("has_extended_api", (), True),
    ("get", (b"p",), b"abcd"),
    ("add", ("n", True), -1),
    ("queue_len", ("jobs",), 0),
    ("queue_push", ("jobs", "first"), None),
    ("queue_push", ("jobs", b"\xff"), None),
    ("queue_len", ("jobs",), 2),
    ("check", (["jobs", "a"],), True),
    ("wait", (["jobs", "a"],), None),
    ("queue_pop", ("jobs",), b"first"),
    ("queue_pop", ("jobs", False), b"\xff"),
    ("queue_len", ("jobs",), 0),
    ("check", (["jobs"],), False),
    ("queue_push", ("a", "in a queue"), None),
    ("get", ("a",), b"\x00\xff"),
    ("delete_key", ("jobs",), False),
]


def test_contract(store: Store) -> None:
    for number, (name, arguments, expected) in enumerate(CONTRACT):
        assert getattr(store, name)(*arguments) == expected, (number, name, arguments)
    assert not store.delete_key("k2")
    prefix = "a prefix/" if isinstance(store, PrefixStore) else ""
    keys = {prefix + key for key in ("a", "empty", "\u00e9\u4e16", "n", "m", "c", "p", "k1")}
    assert set(store.list_keys()) == keys
    assert store.num_keys() == len(keys)


@pytest.mark.parametrize("kind", ["HashStore", "FileStore", "TCPStore"])
def test_pytorch_does_the_same(kind: str, tmp_path: Path) -> None:
    distributed = pytest.importorskip("torch.distributed")
    theirs = {
        "HashStore": distributed.HashStore,
        "FileStore": lambda: distributed.FileStore(str(tmp_path / "store"), 1),
        "TCPStore": lambda: distributed.TCPStore("127.0.0.1", 0, 1, True),
    }[kind]()
    for name, arguments, expected in CONTRACT:
        if kind == "FileStore" and (name.startswith("queue") or "jobs" in str(arguments)):
            continue  # theirs has no queues
        if name != "has_extended_api":  # their FileStore says no, and has it
            assert getattr(theirs, name)(*arguments) == expected, (name, arguments)


def test_a_worker_counts_as_a_key_as_it_does_in_pytorch() -> None:
    distributed = pytest.importorskip("torch.distributed")
    ours = TCPStore("127.0.0.1", 0, 1, True)
    theirs = distributed.TCPStore("127.0.0.1", 0, 1, True)
    for each in (ours, theirs):
        each.set("first_key", "first_value")
    assert ours.num_keys() == theirs.num_keys() == 2
    ours.close()


def test_clones_share_the_keys(store: Store) -> None:
    other = store.clone()
    store.set("a", "1")
    assert other.get("a") == b"1"


def test_what_does_not_come_is_named(store: Store) -> None:
    store.set("here", "1")
    store.set_timeout(timedelta(milliseconds=50))
    assert store.timeout == timedelta(milliseconds=50)
    absent = "a prefix/absent" if isinstance(store, PrefixStore) else "absent"
    began = time.monotonic()
    for call in (
        lambda: store.get("absent"),
        lambda: store.multi_get(["here", "absent"]),
        lambda: store.wait(["here", "absent"]),
        lambda: store.wait(["absent"], 0.05),
        lambda: store.wait(["absent"], timedelta(milliseconds=50)),
    ):
        with pytest.raises(StoreTimeoutError, match=f"key '{absent}' has not come in 0.05 s") as caught:
            call()
        assert isinstance(caught.value, TimeoutError)
    assert 0.25 <= time.monotonic() - began < LONG  # which the store was made with
    assert store.get("here") == b"1"


def test_wrong_calls(store: Store) -> None:
    store.set("text", "abc")
    for error, message, call in (
        (ValueError, "key '.*text' holds b'abc', which is no integer", lambda: store.add("text", 1)),
        (ValueError, "2 keys, but 1 values", lambda: store.multi_set(["a", "b"], ["1"])),
        (TypeError, "text or bytes, not int", lambda: store.set("a", 1)),  # type: ignore[arg-type]
        (TypeError, "a list of keys, not the text 'abc'", lambda: store.wait("abc")),
        (QueueEmptyError, "the queue 'text' is empty", lambda: store.queue_pop("text", block=False)),
        (ValueError, "0 or more seconds, not -1", lambda: store.set_timeout(-1)),
    ):
        with pytest.raises(error, match=message):
            call()
    assert store.get("text") == b"abc"


MISUSED: list[tuple[str, tuple[Any, ...]]] = [
    ("set", (1, "v")),
    ("set", ("k", 1)),
    ("get", (None,)),
    ("add", (1, 1)),
    ("add", ("k", 1.5)),
    ("add", ("k", "1")),
    ("append", (1, "v")),
    ("append", ("k", 1)),
    ("compare_set", (1, "a", "b")),
    ("compare_set", ("k", "a", 1)),
    ("delete_key", (1,)),
    ("check", ("abc",)),
    ("check", ([1],)),
    ("wait", ([1],)),
    ("multi_get", ("abc",)),
    ("multi_get", ([1],)),
    ("multi_set", ([1], ["v"])),
    ("queue_push", (1, "v")),
    ("queue_push", ("k", 1)),
    ("queue_pop", (1,)),
    ("queue_len", (1,)),
]


@pytest.mark.parametrize(("name", "arguments"), MISUSED, ids=str)
def test_what_is_no_text_is_refused_as_by_pytorch(store: Store, name: str, arguments: tuple[Any, ...]) -> None:
    for each in (store, pytest.importorskip("torch.distributed").HashStore()):
        with pytest.raises(TypeError):
            getattr(each, name)(*arguments)
    assert not store.list_keys()


def test_a_store_has_all_that_one_of_pytorch_has() -> None:
    distributed = pytest.importorskip("torch.distributed")
    for ours in (Store, FileStore, HashStore, PrefixStore):
        theirs = {name for name in dir(getattr(distributed, ours.__name__)) if not name.startswith("_")}
        assert theirs - {"underlying_store"} <= set(dir(ours))


def test_a_queue_gives_each_value_to_one(store: Store) -> None:
    values = [b"%d" % n for n in range(40)]
    with ThreadPoolExecutor(4) as threads:
        taken = [threads.submit(store.queue_pop, "jobs") for _ in values]  # which wait for what comes later
        for value in values:
            store.queue_push("jobs", value)
        assert sorted(each.result() for each in taken) == sorted(values)
    assert store.queue_len("jobs") == 0
    store.set_timeout(0.05)
    with pytest.raises(StoreTimeoutError, match=r"jobs' has not come in 0\.05 s"):
        store.queue_pop("jobs")


def test_who_waits_is_woken_by_every_way_of_setting(store: Store) -> None:
    ways: dict[str, Callable[[str], Any]] = {
        "set": lambda key: store.set(key, "v"),
        "multi_set": lambda key: store.multi_set(["x", key], ["0", "v"]),
        "add": lambda key: store.add(key, 1),
        "append": lambda key: store.append(key, "v"),
        "compare_set": lambda key: store.compare_set(key, "", "v"),
    }
    with ThreadPoolExecutor(len(ways)) as pool:
        waiting = {way: pool.submit(store.get, way) for way in ways}
        time.sleep(0.05)
        assert not any(future.done() for future in waiting.values())
        for way, call in ways.items():
            call(way)
            assert waiting[way].result(timeout=LONG) == (b"1" if way == "add" else b"v")


def test_a_barrier_waits_for_all(store: Store) -> None:
    come: list[int] = []

    def one(number: int) -> int:
        time.sleep(0.05 * number)
        come.append(number)
        store.barrier("together", 3, timedelta(seconds=30))
        return len(come)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == [3] * 3
    store.barrier("alone", 1)
    with pytest.raises(StoreTimeoutError):
        store.barrier("nobody else", 2, timedelta(milliseconds=20))


def test_threads_count_correctly(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(lambda _: store.add("n", 1), range(200)))
        winners = [pool.submit(store.compare_set, "winner", "", str(n)) for n in range(8)]
    assert sorted(totals) == list(range(1, 201))
    winner = store.get("winner")
    assert sum(future.result() == winner == str(n).encode() for n, future in enumerate(winners)) == 1


PROCESS = """
import sys
from collectives.store import FileStore, TCPStore
kind, where, rank = sys.argv[1:]
store = FileStore(where, 5, 60) if kind == "file" else TCPStore("127.0.0.1", int(where), 5, timeout=60)
for _ in range(50):
    store.add("n", 1)
    store.append("log", rank)
    store.queue_push("jobs", rank)
    store.queue_push("kept", store.queue_pop("jobs"))
store.set(f"done/{rank}", rank * 1000)
store.wait([f"done/{other}" for other in range(4)])
store.close()
"""


@pytest.mark.parametrize("kind", ["file", "tcp"])
def test_processes(kind: str, master: TCPStore, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    where = str(tmp_path / "store") if kind == "file" else str(master.port)
    mine: Store = FileStore(where, 5, timeout=LONG) if kind == "file" else master
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, kind, where, str(rank)], env=clean_environment) for rank in range(4)
    ]
    try:
        assert mine.multi_get([f"done/{rank}" for rank in range(4)]) == [str(rank).encode() * 1000 for rank in range(4)]
        assert mine.get("n") == b"200"
        assert sorted(mine.get("log")) == sorted(b"0123" * 50)
        assert mine.queue_len("jobs") == 0
        assert sorted(mine.queue_pop("kept") for _ in range(200)) == sorted([b"0", b"1", b"2", b"3"] * 50)
        assert [process.wait(timeout=60) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if isinstance(mine, FileStore):
        assert os.path.exists(where)
        mine.close()
        assert not os.path.exists(where)


def test_a_forked_process_has_a_store_of_its_own(store: Store) -> None:
    store.set("from", "parent")
    child = os.fork()
    if child == 0:
        try:  # whatever happens, the child must not go on with the tests
            os._exit(0 if store.get("from") == b"parent" and store.add("n", 1) == 1 else 1)
        finally:
            os._exit(2)
    if isinstance(store, FileStore | TCPStore):
        store.wait(["n"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get("from") == b"parent"


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_record_that_a_dying_writer_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "store"
    FileStore(path).set("a", "1")
    whole = path.stat().st_size
    for cut in range(1, whole):
        with path.open("ab") as file:
            file.write(path.read_bytes()[:cut])
        store = FileStore(path)
        assert store.list_keys() == ["a"]
        assert path.stat().st_size == whole
    store.set("b", "2")
    assert FileStore(path).multi_get(["a", "b"]) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"some text of someone", "is no store"), (b"\x01" + b"\xff" * 40, None), (b"\x01" + bytes(40), "is damaged")]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str | None) -> None:
    path = tmp_path / "store"
    path.write_bytes(content)
    if message is None:  # the start of a record of 18 exabytes: one that was not finished
        assert FileStore(path).num_keys() == 0
    else:
        with pytest.raises(StoreError, match=f"{path}.*{message}"):
            FileStore(path)


def test_a_place_without_files(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*absent/store: No such file"):
        FileStore(tmp_path / "absent" / "store")


# TCP -----------------------------------------------------------------------------------------------------------------


def raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LONG)


def ended(connection: socket.socket) -> bytes:
    """What still comes, until the server has closed the connection."""
    received = b""
    try:
        while part := connection.recv(4096):
            received += part
    except ConnectionResetError:
        pass
    return received


STRANGERS = {
    "a browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a shell": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "zeros": bytes(1000),
    "nearly a hello": HELLO[:-1] + b"?",
}


@pytest.mark.parametrize("words", STRANGERS.values(), ids=STRANGERS)
def test_strangers_are_cut_off(master: TCPStore, words: bytes) -> None:
    with raw(master.port) as stranger:
        stranger.sendall(words)
        assert ended(stranger) == b""
    assert master.add("n", 1) == 1


BAD_FRAMES = {
    "too long": (LENGTH.pack(LONGEST_FRAME + 1), f"a frame of {LONGEST_FRAME + 1} bytes"),
    "empty": (LENGTH.pack(0), "a frame of no bytes"),
    "no such operation": (frame(77, [b"a"]), "77 is not a valid Operation"),
    "a field beyond the frame": (LENGTH.pack(6) + b"\x04" + LENGTH.pack(9) + b"x", "a field of 9 bytes in a frame that has 1 left"),
    "half a field's length": (LENGTH.pack(3) + b"\x04\x01\x00", "a field's length is cut off at byte 1 of 3"),
    "a key that is no text": (frame(Operation.DELETE, [b"\xff\xfe"]), "cannot be read"),
    "too few fields": (frame(Operation.ADD, [b"a"]), "ADD has 2 fields, not 1"),
    "a key without a value": (frame(Operation.SET, [b"a"]), "SET has a value for each key"),
    "no time": (frame(Operation.GET, [b"soon", b"a"]), "GET begins with the seconds"),
    "nothing to wait for": (frame(Operation.WAIT, []), "WAIT begins with the seconds"),
}


@pytest.mark.parametrize(("words", "answer"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_bad_frames_are_answered_and_cut_off(master: TCPStore, words: bytes, answer: str) -> None:
    with raw(master.port) as client:
        client.sendall(HELLO + words)
        received = ended(client)
    assert received.startswith(WELCOME)
    kind, (text,) = parse(received[len(WELCOME) + LENGTH.size :])
    assert kind == Status.BAD_REQUEST and answer in text.decode()
    assert master.add("n", 1) == 1


def test_a_request_may_come_in_any_pieces(master: TCPStore) -> None:
    master.set("a", "1")
    with raw(master.port) as client:
        for byte in HELLO + frame(Operation.GET, [b"5", b"a"]):
            client.sendall(bytes((byte,)))
            time.sleep(0.001)
        expected = WELCOME + frame(Status.OK, [b"1"])
        received = b""
        while len(received) < len(expected):
            received += client.recv(1000)
    assert received == expected


def test_clients_that_die_leave_nothing(master: TCPStore) -> None:
    master.set("big", bytes(8 << 20))
    assert master._server is not None
    threads = set(threading.enumerate())
    for words in (
        b"",
        HELLO[:3],
        HELLO,
        HELLO + frame(Operation.SET, [b"a", bytes(100)])[:-1],
        HELLO + LENGTH.pack(1 << 29),
        HELLO + frame(Operation.GET, [b"100", b"never"]),
        HELLO + frame(Operation.GET, [b"100", b"big"]),
    ):
        for reset in (False, True):
            client = raw(master.port)
            client.sendall(words)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            time.sleep(0.02)
            client.close()
    assert master.add("n", 1) == 1
    deadline = time.monotonic() + LONG
    # The listener, what wakes the thread, and our client. One that waits to be let in still comes, and asks, and goes.
    while (left := len(master._server._selector.get_map())) > 3 or master._server._waiting:
        assert time.monotonic() < deadline, f"{left} connections are left, {master._server._waiting}"
        time.sleep(0.01)
    assert set(threading.enumerate()) <= threads  # one of an earlier test may have ended
    master.set("never", "1")
    assert not master.check(["a"])


def test_silent_strangers_do_not_hold_up_the_others(master: TCPStore) -> None:
    silent = [raw(master.port) for _ in range(50)]
    late = TCPStore("127.0.0.1", master.port, timeout=LONG)
    late.set("a", "1")
    assert master.get("a") == b"1"
    for connection in silent:
        connection.close()
    late.close()


FEW_FILES = """
import resource, socket, time
from collectives.store import TCPStore
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
store = TCPStore("127.0.0.1", 0, is_master=True, timeout=60)
print(store.port, flush=True)
store.get("end")
print(store.add("n", 1))
"""


def test_more_connections_than_the_system_allows(clean_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FEW_FILES], env=clean_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        port = int(job.stdout.readline())
        crowd = [raw(port) for _ in range(60)]
        time.sleep(0.3)
        before = resource_seconds(job.pid)
        time.sleep(0.5)
        assert resource_seconds(job.pid) - before < 0.25, "the server spins"
        for connection in crowd:
            connection.close()
        TCPStore("127.0.0.1", port, timeout=LONG).set("end", "1")
        out, errors = job.communicate(timeout=LONG)
    assert (job.returncode, out.strip(), errors) == (0, "1", "")


def resource_seconds(process: int) -> float:
    """The processor's time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port(family: int = socket.AF_INET, host: str = "127.0.0.1") -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def taken_port() -> Iterator[tuple[socket.socket, int]]:
    """A port at which nobody listens, nor can: who connects is refused, and nobody else is given it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder, holder.getsockname()[1]


def test_the_master_may_come_later() -> None:
    with taken_port() as (holder, port), ThreadPoolExecutor(1) as pool:
        worker = pool.submit(TCPStore, "127.0.0.1", port, 2, timeout=LONG)
        time.sleep(0.3)
        assert not worker.done()
        holder.listen()
        master = TCPStore("127.0.0.1", port, 2, True, timeout=LONG, master_listen_fd=holder.detach())
        assert worker.result(timeout=LONG).num_keys() == 1
        worker.result().close()
    master.close()


def test_nobody_answers() -> None:
    with taken_port() as (_, port):
        refused = rf"no store at 127\.0\.0\.1:{port} in \d+\.\d s \(Connection refused\); is rank 0"
        with pytest.raises(StoreTimeoutError, match=refused):
            TCPStore("127.0.0.1", port, timeout=0.2)


def test_who_waits_for_the_master_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectives.store.tcp._SILENT", 0.1)
    with taken_port() as (_, port):
        said = rf"no store at 127\.0\.0\.1:{port} in 0 s \(Connection refused\); this process goes on trying for [01] s"
        with pytest.warns(RuntimeWarning, match=said) as warned, pytest.raises(StoreTimeoutError):
            TCPStore("127.0.0.1", port, timeout=1.0)
    assert len(warned) == 1


def test_somebody_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"220 mail.example ESMTP")
                ended(connection)

        threading.Thread(target=greet, daemon=True).start()
        port = other.getsockname()[1]
        with pytest.raises(StoreError, match=f"127.0.0.1:{port} is no store: it says b'220 mail'"):
            TCPStore("127.0.0.1", port, timeout=LONG)


def test_the_port_is_taken(master: TCPStore) -> None:
    with pytest.raises(StoreError, match=f"cannot listen at port {master.port} for 127.0.0.1: Address already in use"):
        TCPStore("127.0.0.1", master.port, is_master=True)
    for port in (-1, 70000, 0):
        with pytest.raises(ValueError, match=f"{port} is no port"):
            TCPStore("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_addresses(host: str) -> None:
    if host == "::1":
        try:
            free_port(socket.AF_INET6, "::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
    master = TCPStore(host, 0, is_master=True)
    worker = TCPStore(host, master.port, timeout=LONG)
    worker.set("a", "1")
    assert (master.get("a"), worker.local_address()) in ((b"1", "127.0.0.1"), (b"1", "::1"))
    worker.close()
    master.close()
    with pytest.raises(StoreError, match="closed"):
        worker.get("a")


def test_the_master_waits_for_workers() -> None:
    with pytest.raises(StoreTimeoutError, match=r"127.0.0.1:\d+: 1 of 3 ranks have come in 0.2 s"):
        TCPStore("127.0.0.1", 0, 3, True, timeout=0.2)
    master = TCPStore("127.0.0.1", 0, 3, True, timeout=LONG, wait_for_workers=False)
    assert master.get("init/") == b"1"
    master.close()


def test_stores_of_one_process_may_share_a_port() -> None:
    first = TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True)
    second = TCPStore("127.0.0.1", first.port, is_master=True, multi_tenant=True)
    first.set("a", "1")
    first.close()
    assert second.get("a") == b"1"
    second.close()
    with pytest.raises(StoreTimeoutError):
        TCPStore("127.0.0.1", second.port, timeout=0.1)


COLLECTED_FILE = """
import gc, os
from collectives.store import FileStore, file
lost, store = FileStore("meeting", 2), FileStore("meeting", 2)
lost.cycle = lost
del lost
catch_up = file._Log._catch_up

def collecting(log, size):
    gc.collect()
    catch_up(log, size)

file._Log._catch_up = collecting
print(store.add("n", 1), os.path.exists("meeting"))
store.close()
print(os.path.exists("meeting"))
"""


def test_a_store_that_nobody_closed_may_be_collected_while_its_file_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_alone: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_alone(COLLECTED_FILE)
    assert (done.returncode, done.stdout) == (0, "1 True\nFalse\n"), done.stderr


COLLECTED = """
import gc
from collectives.store import TCPStore, tcp
lost = TCPStore("127.0.0.1", 0, is_master=True)
lost.cycle = lost
del lost
listen = tcp.listen

def collecting(host, port):
    gc.collect()
    return listen(host, port)

tcp.listen = collecting
store = TCPStore("127.0.0.1", 0, is_master=True)
print(store.add("n", 1), list(tcp._servers) == [store.port])
store.close()
print(tcp._servers)
"""


def test_a_store_that_nobody_closed_may_be_collected_while_another_one_is_made(run_alone: Any) -> None:
    done = run_alone(COLLECTED)
    assert (done.returncode, done.stdout) == (0, "1 True\n{}\n"), done.stderr


def test_a_socket_that_listens_already() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    master = TCPStore("127.0.0.1", 0, is_master=True, master_listen_fd=listener.detach())
    assert master.port == port
    master.close()


def test_the_master_goes(master: TCPStore) -> None:
    worker = TCPStore("127.0.0.1", master.port, timeout=LONG)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.get, "never")
        time.sleep(0.05)
        master.close()
        with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{master.port}: get: the connection has ended"):
            waiting.result(timeout=LONG)
    worker.set_timeout(0.5)
    with pytest.raises(StoreTimeoutError, match="no store at"):
        worker.set("a", "1")


def test_large_values(store: Store) -> None:
    value = os.urandom(1 << 20) * 20
    store.set("large", value)
    assert store.get("large") == value


def test_open_files_come_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(10):
        master = TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
        TCPStore("127.0.0.1", master.port, 2).close()
        master.close()
    assert len(os.listdir("/proc/self/fd")) <= before
