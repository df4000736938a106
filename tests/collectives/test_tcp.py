"""Jobs over TCP on this machine's loopback: every operation on 1 to 8 ranks, and what happens when a rank dies or a stranger comes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from collectives.errors import CommunicationError, LaunchError
from collectives.reductions import REDUCTIONS
from collectives.store import HashStore, TCPStore
from collectives.tcp import TCPTransport, rendezvous

sys.path.insert(0, str(Path(__file__).parent))
from tcp_job import CHECKS

pytestmark = pytest.mark.mpi_skip
JOB = Path(__file__).with_name("tcp_job.py")
HOST = socket.gethostname()


class Job:
    """Some ranks that run a program."""

    def __init__(self, size: int, arguments: list[str], environ: dict[str, str]) -> None:
        # Held until the job has ended: rank 0 may listen there, since this socket does not, and nobody else is given the port.
        self.holder = socket.socket()
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(("127.0.0.1", 0))
        port = self.holder.getsockname()[1]
        common = environ | {
            "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        self.port = port
        self.ranks = [
            subprocess.Popen(
                [sys.executable, *arguments], env=common | {"RANK": str(rank)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip

    def line(self, rank: int) -> str:
        """The next line that a rank prints."""
        out = self.ranks[rank].stdout
        assert out is not None
        return out.readline().strip()

    def end(self, timeout: float = 120) -> list[tuple[int, str, str]]:
        """Each rank's exit code and output."""
        deadline = time.monotonic() + timeout
        try:
            ended = [rank.communicate(timeout=max(0.1, deadline - time.monotonic())) for rank in self.ranks]
        finally:
            self.kill()
        return [(rank.returncode, out, errors) for rank, (out, errors) in zip(self.ranks, ended)]

    def kill(self) -> None:
        self.holder.close()
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            for pipe in (rank.stdin, rank.stdout, rank.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def start(clean_environment: dict[str, str]) -> Iterator[object]:
    jobs = []

    def start_job(size: int, program: str) -> Job:
        jobs.append(Job(size, ["-c", PREPARE + program], clean_environment))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.kill()


PREPARE = """
import os, signal, sys, time
import numpy as np
from collectives.errors import CommunicationError
from collectives.reductions import REDUCTIONS
from collectives.tcp import TCPTransport, rendezvous
SUM = REDUCTIONS["sum"]
store, rank, size = rendezvous(timeout=60)
world = TCPTransport.world(store, rank, size, 60)
world.barrier().wait(60)

def failing(start):
    began = time.monotonic()
    try:
        start().wait(20)
    except CommunicationError as error:
        print(f"{time.monotonic() - began:.3f} {error}", flush=True)
    else:
        print("0 no error", flush=True)

"""
AT_ONCE = 15
"""Seconds: less than the 20 that `failing` waits, and what a slow machine may take."""


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_every_operation(size: int, clean_environment: dict[str, str]) -> None:
    for rank, (code, out, errors) in enumerate(Job(size, [str(JOB), *CHECKS], clean_environment).end(300)):
        assert code == 0, f"rank {rank} of {size}:\n{out}\n{errors}"
        assert out.split("\n")[:-1] == [f"{name}: passed" for name in CHECKS]
        assert errors == ""


# A rank that ends ----------------------------------------------------------------------------------------------------

# What the ranks call when rank 1 of 3 dies. Rank 2 may wait for rank 0, which waits for rank 1: it is told.
CALLS = {
    "short all_reduce": "world.all_reduce(np.zeros(3), SUM)",
    "long all_reduce": "world.all_reduce(np.zeros(3_000_000), SUM)",
    "half all_reduce": "world.all_reduce(np.zeros(300_000, np.float16), SUM)",
    "reduce_scatter": "world.reduce_scatter(np.zeros(100_000), np.zeros((size, 100_000)), SUM)",
    "all_gather": "world.all_gather(np.zeros((size, 3)), np.zeros(3))",
    "long all_gather": "world.all_gather(np.zeros((size, 100_000)), np.zeros(100_000))",
    "all_to_all": "world.all_to_all(np.zeros((size, 100_000)), np.zeros((size, 100_000)))",
    "broadcast": "world.broadcast(np.zeros(100_000), 1)",
    "barrier": "world.barrier()",
    "recv": "world.recv(np.zeros(3), 1, 0)",
    "recv from anybody": "world.recv(np.zeros(3), None, 0)",
}
DEATHS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "closed its connection"),
    "ends": ("sys.exit(0)", "closed its connection"),
    "an error": ("raise ValueError('broken')", "closed its connection"),
    "closes": ("world.close(); time.sleep(1)", "has closed its transport"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_rank_that_is_killed_is_named_at_once(start: object, call: str) -> None:
    program = f"""
if rank == 1:
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)
failing(lambda: {call})
sys.stdin.read()  # one that left here could be the first whose end another one sees
"""
    operation = call.split("(")[0].partition(".")[2]
    job = start(3, program)  # type: ignore[operator]
    for rank in (0, 2):
        seconds, _, text = job.line(rank).partition(" ")
        assert f"rank 1 ({HOST}) closed its connection while rank " in text, text or job.end()
        assert f" waits in {operation}" in text
        assert float(seconds) < AT_ONCE
    assert [code for code, _, _ in job.end(60)] == [0, -signal.SIGKILL, 0]


@pytest.mark.parametrize(("death", "reason"), DEATHS.values(), ids=DEATHS)
def test_ways_of_ending(start: object, death: str, reason: str) -> None:
    job = start(2, f"if rank == 1:\n    {death}\nfailing(lambda: world.all_reduce(np.zeros(3), SUM))\n")  # type: ignore[operator]
    text = job.line(0)
    assert f"rank 1 ({HOST}) {reason} while rank 0 waits in all_reduce" in text
    job.end(30)


def test_a_rank_that_is_done_may_leave(start: object) -> None:
    program = """
array = np.full(200_000, 1.0)
world.all_reduce(array, SUM).wait(30)
if rank == 1:
    world.send(np.arange(10.0), 0, 1).wait(30)
    world.send(np.arange(100.0), 0, 2).wait(30)
    os._exit(0)
time.sleep(0.3)
if rank == 0:
    # What it sent before is still there.
    for tag, count in ((2, 100), (1, 10)):
        array = np.zeros(count)
        world.recv(array, 1, tag).wait(30)
        assert array[-1] == count - 1
if rank in (0, 2):
    other = 2 - rank
    sent = world.send(np.ones(3), other, 5)
    world.recv(np.zeros(3), other, 5).wait(30)
    sent.wait(30)
    print("fine", flush=True)
"""
    ended = start(3, program).end(60)  # type: ignore[operator]
    assert [(code, errors) for code, _, errors in ended] == [(0, "")] * 3
    assert ended[0][1] == ended[2][1] == "fine\n"


def test_a_child_process_does_not_keep_a_dead_rank_alive(start: object) -> None:
    program = """
if rank == 1:
    child = os.fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
failing(world.barrier)
"""
    job = start(2, program)  # type: ignore[operator]
    child = int(job.line(1))
    try:
        seconds, _, text = job.line(0).partition(" ")
        assert f"rank 1 ({HOST}) closed its connection" in text and float(seconds) < AT_ONCE
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_process_has_no_part_in_the_job(start: object) -> None:
    program = """
child = os.fork()
if child == 0:
    failing(world.barrier)
    os._exit(0)
os.waitpid(child, 0)
world.barrier().wait(30)
world.close()
"""
    for code, out, errors in start(2, program).end(60):  # type: ignore[operator]
        assert (code, errors) == (0, "")
        assert "rank" in out and "has closed its transport" in out


def test_abort_ends_all_ranks(start: object) -> None:
    program = """
if rank == 2:
    time.sleep(0.2)
    print("last words")
    world.abort(7)
world.recv(np.zeros(1), 0 if rank else 1, 0).wait(20)
"""
    ended = start(3, program).end(60)  # type: ignore[operator]
    assert [code for code, _, _ in ended] == [7, 7, 7]
    assert ended[2][1] == "last words\n"
    for _, _, errors in ended[:2]:
        assert f"rank 2 ({HOST}) ends the job with exit code 7" in errors


def test_a_stopped_rank_is_late(start: object) -> None:
    program = """
if rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
work = world.all_reduce(np.zeros(3), SUM)
if rank == 1:
    work.wait(60)
    sys.exit(0)
late, until = None, time.monotonic() + 60
while late != [1] and time.monotonic() < until and not work.test():
    late = world.late()  # at first there may be others who are still on their way
print(late, flush=True)
work.wait(60)
print("done", flush=True)
"""
    job = start(4, program)  # type: ignore[operator]
    stopped = job.ranks[1].pid
    os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    try:
        assert [job.line(rank) for rank in (0, 2, 3)] == ["[1]"] * 3
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert [job.line(rank) for rank in (0, 2, 3)] == ["done"] * 3
    job.end(30)


# How ranks meet ------------------------------------------------------------------------------------------------------

_GREETING = struct.Struct("<8s16sI")
STRANGERS = {
    "a scanner": b"",
    "a browser": b"GET / HTTP/1.1\r\n\r\n",
    "half a greeting": b"dttcp-01" + bytes(5),
    "a wrong token": _GREETING.pack(b"dttcp-01", bytes(16), 1),
    "a long text": bytes(100_000),
}


def test_strangers_are_sent_away_while_ranks_meet(start: object, clean_environment: dict[str, str]) -> None:
    program = """
import sys
from collectives.store import TCPStore
from collectives.tcp import TCPTransport
rank = int(sys.argv[1])
store = TCPStore("127.0.0.1", int(sys.argv[2]), timeout=60)
world = TCPTransport.world(store, rank, 2, 60)
world.barrier().wait(30)
world.close()
"""
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=60)

    def rank(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", program, str(number), str(store.port)], env=clean_environment, stderr=subprocess.PIPE
        )

    first = rank(0)
    port = int(store.get("tcp/1/rank 0").decode().split("\n")[2])
    strangers = []
    for words in STRANGERS.values():
        strangers.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        strangers[-1].sendall(words)
    # One who knows the token, but is no rank that is missing.
    strangers.append(socket.create_connection(("127.0.0.1", port), timeout=60))
    strangers[-1].sendall(_GREETING.pack(b"dttcp-01", store.get("tcp/1/token")[:16], 5))
    time.sleep(0.2)
    second = rank(1)
    assert [(each.communicate(timeout=60)[1], each.returncode) for each in (first, second)] == [(b"", 0)] * 2
    for stranger in strangers:
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
        stranger.close()
    store.close()


def test_ranks_that_do_not_come_are_named() -> None:
    store = HashStore()
    with pytest.raises(CommunicationError, match=r"ranks 1, 2 of 3 did not come within 0\.2 s"):
        TCPTransport.world(store, 0, 3, 0.2, address="127.0.0.1")


def test_a_rank_that_came_and_went_is_named() -> None:
    store = HashStore()
    with socket.socket() as gone:  # it does not listen, and its port is not given to anybody else meanwhile
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
        store.set("tcp/1/rank 0", f"n7\n127.0.0.1\n{port}")
        store.set("tcp/1/token", bytes(32))
        with pytest.raises(CommunicationError, match=rf"rank 1 cannot reach rank 0 \(n7\) at 127\.0\.0\.1 port {port} .*refused"):
            TCPTransport.world(store, 1, 2, 2, address="127.0.0.1")
    store.set("tcp/1/rank 1", f"n8\n127.0.0.1\n{port}")
    with pytest.raises(CommunicationError, match=r"rank 0 waited 0\.3 s for the connection of rank 1 \(n8\)"):
        TCPTransport.world(store, 0, 2, 0.3, address="127.0.0.1")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MASTER_PORT": "1234"}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not set"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "MASTER_PORT='x' is not an integer"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "70000"}, "MASTER_PORT=70000 is no port"),
    ],
)
def test_rendezvous_without_sense(variables: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        rendezvous({"RANK": "0", "WORLD_SIZE": "2"} | variables)


def test_who_leaves_right_after_a_long_message_has_sent_all_of_it() -> None:
    """Also where something has come that it has not read: the system would reset the connection, and throw away the rest."""
    store = HashStore(60)
    sent, come, closed = threading.Event(), threading.Event(), threading.Event()

    def sender() -> None:
        world = TCPTransport.world(store, 0, 2, 60, address="127.0.0.1")
        world.send(np.ones(300_000, np.uint8), 1, 3).wait(60)
        sent.set()
        assert come.wait(60)
        world.close()
        closed.set()

    def receiver() -> None:
        world = TCPTransport.world(store, 1, 2, 60, address="127.0.0.1")
        array = np.zeros(300_000, np.uint8)
        work = world.recv(array, 0, 3)
        while not (world._engine.peers[0].transfers or work.test()):
            pass
        assert sent.wait(60)  # into what the system keeps of it for a reader
        world.send(np.ones(1), 0, 4)
        come.set()
        assert closed.wait(60)
        work.wait(60)
        assert array.all()
        world.close()

    with ThreadPoolExecutor(2) as pool:
        for rank in (pool.submit(sender), pool.submit(receiver)):
            rank.result()


def test_threads_and_addresses_without_a_master() -> None:
    """Ranks may be threads of one process, and meet by a store that has no address."""
    store = HashStore(60)

    def rank(number: int) -> float:
        world = TCPTransport.world(store, number, 3, 60, address="127.0.0.1")
        array = np.full(1000, float(number))
        world.all_reduce(array, REDUCTIONS["sum"]).wait(60)
        world.barrier().wait(60)
        world.close()
        return float(array[0])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(rank, range(3))) == [3.0] * 3


def test_no_room_for_the_connections_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a job of more ranks than a rank may have open files: it is said at once, not when the others give up."""
    store = HashStore(60)

    def full(listener: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "accept", full)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(TCPTransport.world, store, rank, 2, 60, address="127.0.0.1") for rank in range(2))
        with pytest.raises(CommunicationError, match=r"rank 0 cannot take .* all 2 ranks: Too many open files \(ulimit -n is \d+\)"):
            first.result(30)
        with pytest.raises(CommunicationError, match=r"rank 0"):
            second.result(30)


def test_open_files_come_back() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        TCPTransport.world(HashStore(), 0, 1, 5, address="127.0.0.1").close()
    assert len(os.listdir("/proc/self/fd")) <= len(before)  # what earlier tests have left may be collected meanwhile


@pytest.mark.skipif(
    not os.environ.get("DISTTORCH_LARGE_TESTS"), reason="takes 9 GB of memory; set DISTTORCH_LARGE_TESTS=1 to run it"
)
def test_more_bytes_than_32_bits_count(start: object) -> None:
    program = """
count = 2**31 + 12345
array = np.full(count, rank + 1, np.uint8)
array[-1] = 10 * (rank + 1)
world.all_reduce(array, SUM).wait(300)
assert (array[0], array[count // 2], array[-2], array[-1]) == (3, 3, 3, 30) and int(array[:10**6].sum()) == 3 * 10**6
array[-1] = 7 * rank
world.broadcast(array, 1).wait(300)
assert array[-1] == 7
array[5] = 40 + rank
work = world.send(array, 1, 0) if rank == 0 else world.recv(array, 0, 0)
work.wait(300)
assert array[5] == 40
print("fine", flush=True)
world.barrier().wait(60)
world.close()
"""
    for code, out, errors in start(2, program).end(500):  # type: ignore[operator]
        assert (code, out, errors) == (0, "fine\n", "")
