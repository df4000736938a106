"""Job: what all communicators of a process share: who is where, the board, the flight recorder, timeouts.

It is made once, when the ranks have met (`connect.world_over`), and passed on to every group.
"""

from __future__ import annotations

import atexit
import os
import pickle
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import mpi_world
from .arguments import check_seconds
from .board import PAGE, Board, RankState
from .errors import CommunicationError
from .flight import FlightRecorder
from .lookout import SECRET_BYTES, Lookout, addresses_here, ask
from .memory import node_identity
from .shared_blocks import complete, share_blocks
from .transport import Transport
from .work import drain, set_scarce

__all__ = ["DEFAULT_TIMEOUT", "Job", "Settings"]

DEFAULT_TIMEOUT = 1800.0
"""Seconds, as in PyTorch's process groups on CPUs."""


FOR_RECORDS = 0.3
"""Seconds that a rank which others wait for gets to write its flight record."""


@dataclass(frozen=True)
class Settings:
    """What may be set from outside, by arguments or by dlaunch's variables.

    Attributes
    ----------
    timeout : float
        Seconds that an operation may wait for other ranks.
    debug : str or None
        ``"mismatch"``: compare what the ranks call before data moves.
    """

    timeout: float = DEFAULT_TIMEOUT
    debug: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], timeout: float | None = None, debug: str | None = None) -> Settings:
        """Arguments, else DISTTORCH_TIMEOUT and DISTTORCH_DEBUG, else the defaults.

        Raises
        ------
        TypeError
            If the timeout is no number.
        ValueError
            If it is not positive, or there is no such debug mode.
        """
        source = "timeout"
        if timeout is None:
            source = "DISTTORCH_TIMEOUT"
            text = environ.get(source) or str(DEFAULT_TIMEOUT)
            try:
                timeout = float(text)
            except ValueError:
                raise ValueError(f"{source}={text!r} is no number of seconds") from None
        timeout = check_seconds(source, timeout)
        if debug is None:
            debug = environ.get("DISTTORCH_DEBUG") or None
        if debug not in (None, "off", "mismatch"):
            raise ValueError(f"there is no debug mode {debug!r}; it is 'mismatch', or None")
        return cls(timeout, None if debug == "off" else debug)


class Job:
    """The ranks that were started together, as seen by one of them.

    Parameters
    ----------
    base : Transport
        Between all ranks.
    settings : Settings
    environ : mapping
        Where DISTTORCH_FLIGHT_DIR may stand.

    Attributes
    ----------
    rank, size : int
    node_of : list of int
        The number of each rank's node; nodes are numbered in the order of their first ranks.
    hosts : list of str
        Each rank's host name.
    board : Board or None
        None in a world of one, and where the ranks of a node cannot share memory.
    recorder : FlightRecorder
    """

    def __init__(self, base: Transport, settings: Settings, environ: Mapping[str, str]):
        self.rank, self.size = base.rank, base.size
        self.settings = settings
        self.board: Board | None = None
        self.choice = "auto"
        """The transport that was asked for."""
        self.for_gpus = "auto"
        """The one that was asked for arrays of GPUs: ``"nccl"`` for that or an error."""
        self.shares_memory = False
        """Whether on every node the ranks can share memory."""
        self.notes: list[str] = []
        """What the choice of transports had to put up with."""
        self._lookout: Lookout | None = None
        self._ways: list[list[tuple[str, int]]] = []
        self._secret = b""
        directory = environ.get("DISTTORCH_FLIGHT_DIR") or ""
        if self.size == 1:
            self.node_of, self.hosts = [0], [socket.gethostname()]
            self.recorder = FlightRecorder(0, 1, directory or _record_name())
        else:
            self._meet(base, directory)
        if self.recorder.listen() and self.board is not None:
            self.board.listen()

    def _meet(self, base: Transport, directory: str) -> None:
        cores, limit = sorted(os.sched_getaffinity(0)), self.settings.timeout
        told = exchange(base, (node_identity(), socket.gethostname(), directory or _record_name(), cores), limit)
        names = list(dict.fromkeys(identity for identity, *_ in told))
        self.node_of = [names.index(identity) for identity, *_ in told]
        self.hosts = [host for _, host, *_ in told]
        self.recorder = FlightRecorder(self.rank, self.size, directory or told[0][2])
        node = base.split(self.node_of[self.rank], self.rank)
        assert node is not None
        mine = [rank for rank in range(self.size) if self.node_of[rank] == self.node_of[self.rank]]
        set_scarce(len(mine) > len(set().union(*(told[rank][3] for rank in mine))))
        try:
            self.board = Board(self.rank, dict(zip(mine, share_blocks(node, PAGE, limit))))
            self.recorder.noted = self.board.calls
        except CommunicationError as error:
            self.notes.append(str(error))
        node.close()
        self.shares_memory = all(exchange(base, self.board is not None, limit))
        if len(names) > 1:
            self._secret = exchange(base, secrets.token_bytes(SECRET_BYTES), limit)[0]
            way: list[tuple[str, int]] = []
            if self.board is not None:
                self._lookout = Lookout(self.board, self._secret)
                way = [(address, self._lookout.port) for address in addresses_here()]
            self._ways = exchange(base, way, limit)

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return max(self.node_of) + 1

    def states(self, ranks: Sequence[int]) -> dict[int, RankState]:
        """What each of these ranks did last, as far as it can be found out; asks other nodes."""
        found: dict[int, RankState] = {}
        for node in sorted({self.node_of[rank] for rank in ranks}):
            wanted = [rank for rank in ranks if self.node_of[rank] == node]
            if node == self.node_of[self.rank]:
                if self.board is not None:
                    found.update({rank: self.board.read(rank) for rank in wanted})
            elif self._ways:
                members = [rank for rank in range(self.size) if self.node_of[rank] == node and self._ways[rank]]
                found.update(ask([self._ways[rank] for rank in members], members, self._secret))
        return {rank: found.get(rank, RankState(rank)) for rank in ranks}

    def ask_for_records(self, states: Sequence[RankState]) -> None:
        """Have ranks of this node write their flight records, as far as they would not end by it, before this one fails."""
        if self.board is None:
            return
        here = [state.rank for state in states if self.node_of[state.rank] == self.node_of[self.rank]]
        asked = [self.board.ask_for_record(rank) for rank in here]
        if any(asked):
            time.sleep(FOR_RECORDS)

    def describe(self, state: RankState) -> str:
        """A rank's state in a sentence."""
        return state.text(self.hosts[state.rank])

    def fail(self, why: str) -> None:
        """Say on the board that this rank fails, so that those who wait for it need not wait for their timeout."""
        if self.board is not None:
            self.board.fail(why)

    def leave(self) -> None:
        """This rank has closed its world."""
        if self.board is not None:
            self.board.leave()
        if self._lookout is not None:
            self._lookout.close()
            self._lookout = None


def exchange(base: Transport, obj: Any, timeout: float | None = None) -> list[Any]:
    """The objects of all ranks, in their order, by a transport that nobody watches yet."""
    payload = np.frombuffer(pickle.dumps(obj), np.uint8)
    lengths = np.empty((base.size, 1), np.int64)
    complete(base, base.all_gather(lengths, np.array([payload.size], np.int64)), timeout)
    counts = lengths[:, 0].tolist()
    gathered = np.empty(sum(counts), np.uint8)
    complete(base, base.all_gather(gathered, payload, counts), timeout)
    ends = np.cumsum(counts).tolist()
    return [pickle.loads(gathered[end - count : end].tobytes()) for end, count in zip(ends, counts)]


def _record_name() -> str:
    return f"flight-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


# Jobs that are under way -----------------------------------------------------------------------------------------------

_current: list[Job] = []
_failed = False
_process: int | None = None


def remember(job: Job) -> None:
    """Keep a job in mind, so that its other ranks hear of it when this process fails or leaves."""
    global _process
    _current.append(job)
    if _process is None:
        _process = os.getpid()
        atexit.register(_leave_all)
        print_exception, print_thread_exception = sys.excepthook, threading.excepthook

        def in_program(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            announce_failure(error)
            print_exception(kind, error, trace)

        def in_thread(args: Any) -> None:
            fatal = args.exc_type is not SystemExit and os.getpid() == _process and any(job.size > 1 for job in _current)
            if fatal:
                announce_failure(args.exc_value)
            print_thread_exception(args)
            if fatal:
                # Its main thread would go on in a job that has failed. (Where there is MPI, it has ended the job by now.)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)

        sys.excepthook, threading.excepthook = in_program, in_thread


def forget(job: Job) -> None:
    """The job's world was closed."""
    if job in _current:
        _current.remove(job)


def announce_failure(error: BaseException | None) -> None:
    """Tell the ranks of this node that this process fails, so that they need not wait for it."""
    global _failed
    if os.getpid() != _process:  # a process forked from it has no part in the job
        return
    _failed = True
    for job in tuple(_current):
        job.fail(f"{type(error).__name__}: {error}")
        if job.size > 1 and not job.recorder.has_written:
            job.recorder.write("error", error, caught=True)


def _leave_all() -> None:
    """At the end of a program that has not failed: complete what others wait for, and say that this rank has left."""
    if os.getpid() != _process or _failed or os.environ.get("DISTTORCH_FAILED") or mpi_world.exits_badly():
        return
    if _current:
        drain()
    for job in tuple(_current):
        job.leave()
