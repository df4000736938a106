"""The board: what each rank of a node did last, where every other rank of the node can read it, also when it is stuck or dead.

A rank has a page of shared memory, in which it writes its process id and, before each call, what it is about to do. Whoever
waits too long looks there. Ranks of other nodes ask one of the node's ranks (`collectives.lookout`).
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .flight import ASKED
from .memory import Shared

__all__ = ["GROUPS", "Board", "RankState", "group_number"]

# process id, its start in clock ticks, state, calls so far, time of the last (s since the epoch), its number in its group,
# its bytes; what it is, and of a rank that has failed why.
_HEAD = struct.Struct("qqqqdqq")
_CALL = struct.Struct("qdqq128s")
_SAME_CALL = struct.Struct("qdqq")
_CALL_AT = 24
_FAILURE_AT, _FAILURE_BYTES = 256, 512
_GROUPS_AT = 1024 // 8  # from here on 64-bit words: number and sequence number of each group
GROUPS = 128
"""Groups of a rank that the board follows; a job with more of them is told less about the rest."""
RUNNING, LEFT, FAILED = 0, 1, 2
_LISTENS = 30  # the index of a word
PAGE = 4096


@dataclass(frozen=True)
class RankState:
    """What the board says of a rank.

    Attributes
    ----------
    rank : int
        In the world.
    pid : int
    life : str
        ``"runs"``, ``"is stopped"`` (SIGSTOP or a debugger), ``"has ended"``, ``"has left"`` (closed its
        communicator), ``"has failed"``, ``"cannot be reached"``, ``"does not answer"``, ``"is gone"`` (both by
        what its node's ranks do not say), ``"is not known"``.
    calls : int
        How many it has made.
    last : str
        The last one, in words; empty before the first.
    seq : int
        Its number in its group.
    ago : float
        How long ago it was called, in seconds.
    failure : str
        What it failed with.
    groups : dict
        The number of the last operation of each group that its board follows.
    """

    rank: int
    pid: int = -1
    life: str = "is not known"
    calls: int = 0
    last: str = ""
    seq: int = 0
    ago: float = 0.0
    failure: str = ""
    groups: dict[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self, host: str) -> str:
        """The rank in a sentence.

        Examples
        --------
        >>> RankState(2, 42, "runs", 7, "all_reduce sum of float32 in world", 7, 1.25).text("n1")
        'rank 2 (pid 42 on n1): last called all_reduce sum of float32 in world, number 7 of its group, 1.2 s ago'
        >>> RankState(1, 41, "has ended", 0).text("n1")
        'rank 1 (pid 41 on n1): its process has ended; it has called nothing yet'
        """
        who = f"rank {self.rank} (pid {self.pid} on {host}): " if self.pid >= 0 else f"rank {self.rank} (on {host}): "
        parts = []
        if self.life == "is stopped":
            parts.append("is stopped (by SIGSTOP, Ctrl-Z or a debugger)")
        elif self.life == "has ended":
            parts.append("its process has ended")
        elif self.life == "has failed":
            parts.append(f"has failed with {self.failure}" if self.failure else "has failed")
        elif self.life == "has left":
            parts.append("has left the job: its script is done or has closed the group")
        elif self.life != "runs":
            parts.append(self.life + (f" ({self.failure})" if self.failure else ""))
        if self.life not in ("cannot be reached", "does not answer", "is gone", "is not known"):
            number = f", number {self.seq} of its group" if self.seq else ""
            parts.append(
                f"last called {self.last}{number}, {self.ago:.1f} s ago" if self.last else "it has called nothing yet"
            )
        return who + "; ".join(parts)


def group_number(name: str) -> int:
    """A group's name as a number that is the same on all ranks."""
    return zlib.crc32(name.encode()) or 1


class Board:
    """The pages of the ranks of this node.

    Parameters
    ----------
    rank : int
        This process's, in the world.
    blocks : dict of int to Shared
        The pages, by rank in the world.
    """

    def __init__(self, rank: int, blocks: dict[int, Shared]):
        self.rank = rank
        self._pages = {r: block.raw() for r, block in blocks.items()}
        self._mine = self._pages[rank]
        self._words = blocks[rank].words()
        self._all_words = {r: block.words() for r, block in blocks.items()}
        self._slots: dict[str, int] = {}
        self._used = 0
        self._given_back: deque[int] = deque()
        self._calls = 0
        self._text = b""
        _HEAD.pack_into(self._mine, 0, os.getpid(), _ticks(os.getpid()) or 0, RUNNING, 0, 0.0, 0, 0)

    @property
    def ranks(self) -> Sequence[int]:
        """The ranks of this node."""
        return sorted(self._pages)

    def calls(self) -> int:
        """How many calls this rank has made."""
        return self._calls

    def slot(self, group: str) -> int:
        """The place of a group's sequence number on this rank's page, as an index of words; the last one is everybody's."""
        slot = self._slots.get(group)
        if slot is None:
            if self._used < GROUPS:  # what a closed group has come to is read as long as there is place
                slot, self._used = self._used, self._used + 1
            elif self._given_back:
                slot = self._given_back.popleft()
            else:
                return _GROUPS_AT + 2 * GROUPS + 1
            self._slots[group] = slot
            self._words[_GROUPS_AT + 2 * slot + 1] = 0
            self._words[_GROUPS_AT + 2 * slot] = group_number(group)
        return _GROUPS_AT + 2 * slot + 1

    def give_back(self, group: str) -> None:
        """A group was closed: its place may be another one's."""
        slot = self._slots.pop(group, None)
        if slot is not None:
            self._given_back.append(slot)

    def call(self, slot: int, seq: int, nbytes: int, text: bytes, now: float) -> None:
        """Write down what is about to be called. `seq` 0: a message between two ranks."""
        self._calls = calls = self._calls + 1
        if text is self._text:
            _SAME_CALL.pack_into(self._mine, _CALL_AT, calls, now, seq, nbytes)
        else:
            _CALL.pack_into(self._mine, _CALL_AT, calls, now, seq, nbytes, text)
            self._text = text
        if seq:
            self._words[slot] = seq

    def leave(self) -> None:
        """This rank has closed its world."""
        if self._words[2] == RUNNING:
            self._words[2] = LEFT

    def fail(self, why: str) -> None:
        """This rank fails; others that wait for it will say so."""
        # The first line: messages that tell of other ranks' messages would nest.
        text = why.partition("\n")[0].rstrip(":. ").encode(errors="replace")[: _FAILURE_BYTES - 1]
        self._mine[_FAILURE_AT : _FAILURE_AT + len(text) + 1] = text + b"\0"
        self._words[2] = FAILED

    def listen(self) -> None:
        """This rank writes its flight record when it is asked."""
        self._words[_LISTENS] = 1

    def ask_for_record(self, rank: int) -> bool:
        """Have a rank of this node that runs write its flight record; says whether it was asked."""
        words = self._all_words[rank]
        if not words[_LISTENS] or process_life(words[0], words[1]) != "runs" or not _catches(words[0], ASKED):
            return False
        try:
            os.kill(words[0], ASKED)
        except ProcessLookupError:
            return False
        return True

    def read(self, rank: int) -> RankState:
        """What a rank of this node did last."""
        page, words = self._pages[rank], self._all_words[rank]
        pid, ticks, state, *_ = _HEAD.unpack_from(page, 0)
        calls, when, seq, _, text = _CALL.unpack_from(page, _CALL_AT)
        failure = bytes(page[_FAILURE_AT : _FAILURE_AT + _FAILURE_BYTES]).partition(b"\0")[0].decode(errors="replace")
        life = {LEFT: "has left", FAILED: "has failed"}.get(state) or process_life(pid, ticks)
        groups = {}
        for slot in range(GROUPS):
            number = words[_GROUPS_AT + 2 * slot]
            if not number:
                break
            groups[number] = words[_GROUPS_AT + 2 * slot + 1]
        last = text.partition(b"\0")[0].decode(errors="replace")
        return RankState(rank, pid, life, calls, last, seq, max(0.0, time.time() - when), failure, groups)

    def gone(self, ranks: Sequence[int]) -> Iterator[RankState]:
        """Those of these ranks that have failed, left or ended; those of other nodes are not looked at."""
        for rank in ranks:
            if rank == self.rank or rank not in self._pages:
                continue
            words = self._all_words[rank]
            if words[2] != RUNNING or process_life(words[0], words[1]) == "has ended":
                yield self.read(rank)


def process_life(pid: int, ticks: int) -> str:
    """Whether a process of this node runs, is stopped, or has ended; `ticks`: when it started (proc(5), field 22)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "has ended"
    if int(fields[19]) != ticks or fields[0] in "ZX":
        return "has ended"
    return "is stopped" if fields[0] in "Tt" else "runs"


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (proc(5), SigCgt); without one the signal may end it."""
    try:
        with open(f"/proc/{pid}/status") as status:
            caught = next((int(line.split()[1], 16) for line in status if line.startswith("SigCgt")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(caught >> (number - 1) & 1)


def _ticks(pid: int) -> int | None:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])
