"""The flight recorder, the board and the lookout: what can be found out of a rank by others, and after the fact."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectives import Communicator
from collectives.board import Board, RankState, group_number, process_life
from collectives.connect import world_over
from collectives.flight import CAPACITY, Call, FlightRecorder
from collectives.job import Settings
from collectives.local import LocalTransport
from collectives.lookout import SECRET_BYTES, Lookout, addresses_here, ask
from collectives.memory import create_shared


def alone(directory: Path) -> Communicator:
    return world_over(LocalTransport(), "local", Settings(), {"DISTTORCH_FLIGHT_DIR": str(directory)})


def record_of(world: Communicator, reason: str = "signal", error: Exception | None = None) -> dict[str, Any]:
    path = world.job.recorder.write(reason, error)
    assert path is not None
    return json.loads(path.read_text())


def test_a_record_has_what_the_doctor_reads(tmp_path: Path) -> None:
    world = alone(tmp_path / "deep" / "down")
    world.all_reduce(np.ones((2, 3), np.float32), "avg")
    world.broadcast(np.ones(4, np.int64), root=0)
    here = sys._getframe().f_lineno - 1
    world.recv(np.ones(2), 0, tag=3, async_op=True)
    record = record_of(world, "error", ValueError("lost"))
    assert record["format"] == "disttorch flight record 1"
    assert (record["rank"], record["world_size"], record["pid"]) == (0, 1, os.getpid())
    assert (record["reason"], record["error"]) == ("error", "ValueError: lost")
    assert record["groups"]["world"] == {"ranks": [0], "transport": "local"}
    assert any("test_flight.py" in line for line in record["stack"])
    first, second, third = record["entries"]
    assert (first["seq"], first["operation"], first["reduction"], first["dtype"], first["shape"], first["bytes"]) == (
        1, "all_reduce", "avg", "float32", [2, 3], 24,
    )  # fmt: skip
    assert first["state"] == "complete" and 0 <= first["ended"] - first["started"] < 5
    assert second["root"] == 0 and re.fullmatch(rf".*test_flight\.py:{here}", second["where"])
    assert (third["seq"], third["peer"], third["tag"], third["state"], third["ended"]) == (None, 0, 3, "under way", None)
    world.close()


def test_the_last_calls_are_kept(tmp_path: Path) -> None:
    world, value = alone(tmp_path), np.ones(1)
    for _ in range(CAPACITY + 5):
        world.all_reduce(value)
    entries = record_of(world)["entries"]
    assert len(entries) == CAPACITY and entries[0]["seq"] == 6 and entries[-1]["seq"] == CAPACITY + 5


def test_a_record_of_an_earlier_job_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    (tmp_path / "rank-0.flight.json").write_text("{}")
    alone(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    recorder = FlightRecorder(0, 1, str(tmp_path))
    recorder.directory = tmp_path / "file"
    assert recorder.write("error", ValueError("lost")) is None
    assert "rank 0: no flight record" in capsys.readouterr().err


USR1 = """
import collectives, numpy as np, os, signal, sys
before = int(sys.argv[1])
if before:
    signal.signal(signal.SIGUSR1, lambda number, frame: print("the program's own"))
world = collectives.connect("local")
world.all_reduce(np.ones(3))
os.kill(os.getpid(), signal.SIGUSR1)
print(os.path.exists("records/rank-0.flight.json"))
"""


TWICE = """
import collectives, os
from collectives import flight
world = collectives.connect("local")
written = flight.json.dumps

def dumps(record):
    os.kill(os.getpid(), flight.ASKED)  # in the middle of writing
    return written(record)

flight.json.dumps = dumps
os.kill(os.getpid(), flight.ASKED)
world.job.recorder.write("timeout", TimeoutError("late"))
print(os.path.exists("records/rank-0.flight.json"), world.job.recorder.has_written)
"""


def test_two_ranks_may_ask_for_the_record_at_once_and_while_it_is_written(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root), "DISTTORCH_FLIGHT_DIR": "records"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "True True\n"
    assert json.loads((tmp_path / "records" / "rank-0.flight.json").read_text())["reason"] == "timeout"


@pytest.mark.parametrize(("own", "told"), [(0, ["True"]), (1, ["the program's own", "False"])], ids=["free", "the program's"])
def test_sigusr1_writes_the_record_unless_the_program_uses_it(tmp_path: Path, own: int, told: list[str]) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", USR1, str(own)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root), "DISTTORCH_FLIGHT_DIR": "records"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:-1] == told


WRITING = """
import collectives, sys
world = collectives.connect("local")
sys.stderr.write("x" * 1_000_000)
sys.stderr.flush()
print("well")
"""


def test_sigusr1_may_come_while_the_program_writes_to_stderr(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    record = tmp_path / "rank-0.flight.json"
    with subprocess.Popen(
        [sys.executable, "-c", WRITING],
        env={**os.environ, "PYTHONPATH": str(root), "DISTTORCH_FLIGHT_DIR": str(tmp_path), "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stderr is not None
        unread = array.array("i", [0])

        def is_full() -> bool:
            fcntl.ioctl(program.stderr, termios.FIONREAD, unread)
            return unread[0] == fcntl.fcntl(program.stderr, fcntl.F_GETPIPE_SZ)

        until(is_full)
        program.send_signal(signal.SIGUSR1)
        until(record.exists)
        out, errors = program.communicate(timeout=60)
    assert (program.returncode, out) == (0, "well\n"), errors[-1000:]


# The board ---------------------------------------------------------------------------------------------------------------


def board_of(*ranks: int) -> Board:
    return Board(ranks[0], {rank: create_shared(4096) for rank in ranks})


def test_the_board_shows_the_last_call() -> None:
    board = board_of(3)
    assert board.read(3).text("n1") == f"rank 3 (pid {os.getpid()} on n1): it has called nothing yet"
    slot, other = board.slot("world"), board.slot("world/1")
    board.call(slot, 1, 4, b"all_reduce sum of float32 in world", time.time() - 2)
    called = time.time() - 1
    board.call(other, 7, 8, b"barrier in world/1", called)
    state = board.read(3)
    assert 1 <= state.ago <= time.time() - called
    assert (state.life, state.calls, state.last, state.seq) == ("runs", 2, "barrier in world/1", 7)
    assert sorted(state.groups.values()) == [1, 7]  # type: ignore[union-attr]
    board.call(other, 8, 8, b"all_reduce max of float32 in world/1", time.time())
    assert board.read(3).last == "all_reduce max of float32 in world/1"


def test_the_board_shows_why_a_rank_failed_in_one_line() -> None:
    board = board_of(0)
    board.fail("ValueError: no data:\nand a table that goes on")
    state = board.read(0)
    assert (state.life, state.failure) == ("has failed", "ValueError: no data")
    board.leave()
    assert board.read(0).life == "has failed"


def test_all_that_are_gone_are_told() -> None:
    """Not only the first, who may have left in good order."""
    blocks = {rank: create_shared(4096) for rank in range(4)}
    boards = [Board(rank, blocks) for rank in range(4)]
    assert list(boards[0].gone(range(4))) == []
    boards[1].leave()
    boards[3].fail("ValueError: no data")
    assert [(state.rank, state.life) for state in boards[0].gone(range(4))] == [(1, "has left"), (3, "has failed")]


def test_more_groups_than_the_board_follows() -> None:
    board = board_of(0)
    for number in range(200):
        board.call(board.slot(f"world/{number}"), 1, 0, b"barrier", time.time())
    assert len(board.read(0).groups) == 128  # type: ignore[arg-type]


def test_places_of_closed_groups_are_given_to_others() -> None:
    board = board_of(0)
    kept = board.slot("world")
    board.call(kept, 5, 0, b"barrier", time.time())
    for number in range(500):
        name = f"world/{number}"
        board.call(board.slot(name), number + 1, 0, b"barrier", time.time())
        assert board.read(0).groups[group_number(name)] == number + 1  # type: ignore[index]
        board.give_back(name)
    # The last ones closed are told of as long as there is place.
    groups = board.read(0).groups
    assert groups is not None and len(groups) == 128
    assert groups[group_number("world")] == 5 and groups[group_number("world/400")] == 401
    board.slot("world/new")
    assert board.read(0).groups[group_number("world/new")] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("followed", "said"),
    [
        ({}, "All other ranks may have come"),
        ({group_number("world"): 1}, "All other ranks may have come"),
        ({group_number("world"): 0}, "Rank 1 of this group has not come"),
    ],
    ids=["not followed", "has come", "has not come"],
)
def test_a_rank_is_missing_only_if_the_board_follows_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed: dict[int, int], said: str
) -> None:
    world = alone(tmp_path)
    world.barrier()
    world.ranks = [0, 1]
    world.job.hosts.append("n1")
    monkeypatch.setattr(world.job, "states", lambda ranks: {1: RankState(1, 42, "runs", groups=followed)})
    assert said in str(world._timed_out(Call(world.job.recorder.calls[-1]), 2.0, world.timeout))


def test_a_record_tells_of_groups_that_are_open_or_among_the_last_calls(tmp_path: Path) -> None:
    world = alone(tmp_path)
    for _ in range(5):
        silent, called = world.split(0), world.split(0)
        assert silent is not None and called is not None
        called.barrier()
        silent.close()
        called.close()
    world.split(0)
    assert list(record_of(world)["groups"]) == ["world", *(f"world/{n}" for n in (2, 4, 6, 8, 10, 11))]
    assert len(world.job.recorder.groups) == 2


def test_whether_a_process_runs_is_stopped_or_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(f"/proc/{child.pid}/stat") as stat:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    try:
        assert process_life(child.pid, ticks) == "runs"
        assert process_life(child.pid, ticks + 1) == "has ended", "its number was given to another process"
        os.kill(child.pid, signal.SIGSTOP)
        until(lambda: process_life(child.pid, ticks) == "is stopped")
    finally:
        child.kill()
        until(lambda: process_life(child.pid, ticks) == "has ended")  # also before its parent has taken notice
        child.wait()


def until(condition: Any) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


# The lookout -------------------------------------------------------------------------------------------------------------


def test_the_lookout_tells_those_who_know_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectives.lookout.PATIENCE", 60)  # this process may be slow itself
    board, secret = board_of(5, 6), secrets.token_bytes(SECRET_BYTES)
    board.call(board.slot("world"), 9, 4, b"all_reduce sum of float32 in world", time.time())
    lookout = Lookout(board, secret)
    ways = [[("127.0.0.1", lookout.port)], [("127.0.0.1", 1)]]  # the second rank does not answer, the first one tells of both
    states = ask(ways, [5, 6], secret)
    assert states[5].last == "all_reduce sum of float32 in world" and list(states[5].groups.values()) == [9]  # type: ignore[union-attr]
    assert states[6].rank == 6
    stranger = ask(ways, [5, 6], secrets.token_bytes(SECRET_BYTES))
    assert {(state.life, state.last) for state in stranger.values()} == {("is gone", "")}
    lookout.close()
    gone = ask(ways, [5, 6], secret)
    assert gone[5].text("n2") == "rank 5 (on n2): is gone (nobody listens any more at 127.0.0.1)"


NO_DESCRIPTOR = """
import resource, socket, time
from collectives.board import Board
from collectives.lookout import SECRET_BYTES, Lookout
from collectives.memory import create_shared
secret = bytes(SECRET_BYTES)
lookout = Lookout(Board(0, {0: create_shared(4096)}), secret)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
with socket.socket() as asker:
    asker.settimeout(60)
    resource.setrlimit(resource.RLIMIT_NOFILE, (asker.fileno() + 1, limits[1]))
    asker.connect(("127.0.0.1", lookout.port))
    time.sleep(0.3)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    asker.sendall(secret)
    print(asker.recv(1000).decode().count('"life": "runs"'))
lookout.close()
"""


def test_the_lookout_goes_on_when_a_question_cannot_be_accepted() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", NO_DESCRIPTOR], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_addresses_are_those_of_this_network_namespace() -> None:
    for address in addresses_here():
        assert re.fullmatch(r"[\d.]+|[\da-f:]+", address)
