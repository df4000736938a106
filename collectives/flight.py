"""The flight recorder: the last calls of this rank, kept in memory and written out when something goes wrong.

What noting a call costs, `benchmarks/collectives.py` prints. What is written is one JSON file a rank (`rank-3.flight.json`,
beside and renamed), when a call fails or times out, when the ranks' calls differ, when an exception ends the program, on SIGUSR1, and
when a rank of the node asks that has waited in vain for this one. ``dlaunch doctor DIRECTORY`` reads the files of all ranks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

__all__ = ["CAPACITY", "CAPTURED", "ENDED", "FAILED", "OPERATION", "PEER", "Call", "FlightRecorder", "Note", "caller"]

FORMAT = "disttorch flight record 1"
ASKED = signal.SIGRTMIN + 9
"""The signal with which a rank that waits too long asks another of its node for its record: one that programs do not use."""
CAPACITY = 1000
"""Calls that are kept."""


# What is noted of a call: a list, because one is made for every call, and an object with so many attributes takes longer.
GROUP, SEQ, OPERATION, REDUCTION, BEGAN, DTYPE, SHAPE, BYTES, ROOT, PEER, TAG, FRAME, ENDED, FAILED, CAPTURED = range(15)
Note = list[Any]


class Call:
    """What is noted of a call, by name.

    Attributes
    ----------
    group : Communicator
    seq : int
        Its number in the group, from 1; 0 for a message between two ranks.
    operation : str
    reduction : Reduction or None
    began, ended : float
        Seconds since the epoch; `ended` is 0 while it is under way.
    dtype, shape, nbytes
        Of the array; None where there is none.
    root, peer, tag : int or None
        `peer` is -1 for any rank.
    failed : bool
    captured : bool
        Whether it was recorded into a CUDA graph, with which it is carried out again and again.
    """

    def __init__(self, note: Note):
        (
            self.group, self.seq, self.operation, self.reduction, self.began, self.dtype, self.shape, self.nbytes,
            self.root, self.peer, self.tag, self._frame, self.ended, self.failed, self.captured,
        ) = note  # fmt: skip

    @property
    def where(self) -> tuple[str, int]:
        """File and line in the caller's program; an empty text where it is not known."""
        if self._frame is None:
            return "", 0
        code, instruction = self._frame
        # Which line an instruction belongs to is looked up only now (PEP 626).
        line = next((n for start, end, n in code.co_lines() if start <= instruction < end and n), code.co_firstlineno)
        return code.co_filename, line

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "group": self.group.name,
            "seq": self.seq or None,
            "operation": self.operation,
            "reduction": None if self.reduction is None else self.reduction.name,
            "dtype": None if self.dtype is None else str(self.dtype),
            "shape": None if self.shape is None else list(self.shape),
            "root": self.root,
            "peer": self.peer,
            "tag": self.tag,
            "bytes": self.nbytes,
            "started": self.began,
            "ended": self.ended or None,
            "state": "failed" if self.failed else "complete" if self.ended else "under way",
            "where": None if self._frame is None else self.place(),
            **({"captured": True} if self.captured else {}),
        }

    def text(self) -> str:
        """What was called, in words that are the same on two ranks only if they called the same."""
        words = self.operation
        if self.reduction:
            words += f"({self.reduction.name})"
        if self.dtype is not None:
            words += f" of {self.dtype}"
        if self.shape is not None:
            words += f" {list(self.shape)}"
        if self.root is not None:
            words += f", root {self.root}"
        return words

    def place(self) -> str:
        """Where in the program it was called."""
        file, line = self.where
        return f"{_short(file)}:{line}" if file else "?"


class FlightRecorder:
    """The last calls of this process.

    Parameters
    ----------
    rank, world_size : int
    directory : str
        Where files are written; made when it is needed.
    """

    def __init__(self, rank: int, world_size: int, directory: str):
        self.rank = rank
        self.world_size = world_size
        self.directory = Path(directory)
        self.calls: deque[Note] = deque(maxlen=CAPACITY)
        self.groups: dict[str, dict[str, Any]] = {}
        """What is told of the groups that are open, by their names."""
        self.noted: Callable[[], int] = lambda: 0
        """How many calls there have been, where somebody counts them."""
        self.has_written = False
        """Whether an error's record was written, which a later one must not replace."""
        self._writing = threading.Lock()
        # What an earlier job left under this name would be taken for this job's.
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.directory / f"rank-{self.rank}.flight.json"

    def write(self, reason: str, error: BaseException | None = None, *, caught: bool = False) -> Path | None:
        """Write the record; returns its path, or None where it could not be written, which is said on stderr.

        Parameters
        ----------
        reason : {"timeout", "error", "mismatch", "signal"}
        error : BaseException, optional
            What is being raised.
        caught : bool
            Whether it has come all the way up, so that its traceback says where the program was.
        """
        calls = tuple(self.calls)
        record = {
            "format": FORMAT,
            "rank": self.rank,
            "world_size": self.world_size,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "attempt": int(os.environ.get("DISTTORCH_ATTEMPT") or 0),
            "written": time.time(),
            "reason": reason,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "program": sys.argv,
            "groups": {note[GROUP].name: note[GROUP].about() for note in calls} | self.groups,
            "stack": _stack(error if caught else None),
            "dropped": max(0, self.noted() - len(calls)),
            "entries": [Call(note).as_dict() for note in calls],
        }
        path = self._path
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with self._writing:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(record))
                partial.rename(path)
            except OSError as failure:
                # The error that is being raised is the one that matters; this one must not hide it.
                _say(f"rank {self.rank}: no flight record: {path}: {failure.strerror}")
                with contextlib.suppress(OSError):  # there may be nothing to remove
                    partial.unlink()
                return None
        self.has_written = self.has_written or reason != "signal"
        return path

    def listen(self) -> bool:
        """Write the record on `ASKED`, and on SIGUSR1 if the program leaves that signal alone; says whether it does."""
        if threading.current_thread() is not threading.main_thread():
            return False

        def write(number: int, frame: FrameType | None) -> None:
            # A record of an error says more; and a signal may come while this thread is writing one, also one that a signal asked for.
            if self.has_written or self._writing.locked():
                return
            path = self.write("signal")
            if path is not None and number == signal.SIGUSR1:
                _say(f"rank {self.rank}: SIGUSR1: flight record written to {path}")

        for number in (ASKED, signal.SIGUSR1):
            if signal.getsignal(number) is signal.SIG_DFL or getattr(signal.getsignal(number), "ours", False):
                signal.signal(number, write)
        write.ours = True  # type: ignore[attr-defined]
        return signal.getsignal(ASKED) is write


# Files of our packages, whose frames are not where the user's program called.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OURS = tuple(_ROOT + package + os.sep for package in ("collectives", "disttorch", "launcher"))
_is_ours: dict[str, bool] = {}


def caller(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """Code and instruction of the nearest frame that is not of our packages."""
    known = _is_ours
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        ours = known.get(file)
        if ours is None:
            ours = known[file] = file.startswith((*_OURS, "<frozen"))
        if not ours:
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def _stack(error: BaseException | None) -> list[str]:
    """Where an error comes from, or else where the main thread is; outermost first."""
    if error is not None and error.__traceback__ is not None:
        frames = traceback.extract_tb(error.__traceback__)
    else:
        frames = traceback.extract_stack(sys._current_frames().get(threading.main_thread().ident or 0))
    return [f"{_short(f.filename)}:{f.lineno} in {f.name}" for f in frames]


def _say(text: str) -> None:
    """Write a line on stderr, unless a signal has come while the program was writing there itself."""
    with contextlib.suppress(RuntimeError):  # a reentrant call
        print(text, file=sys.stderr)


def _short(path: str) -> str:
    """A path from the current directory or from our packages on, where it lies there."""
    for start in (os.getcwd() + os.sep, _ROOT):
        if path.startswith(start):
            return path[len(start) :]
    return path
