"""Processes that compare operations and modules and run the suites of other folders while the tests of this one go on.

A GPU's kernels are compiled when they are first used, some tenths of a second each and on one core; thousands are used here. So
the work is cut into pieces of which as many are done at once as there are cores. What is not begun when the time is over is
reported as not reached, never as passed.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.compare import LOST

ROOT = Path(__file__).resolve().parents[2]
#: Operations or modules that one process compares.
PIECE = 64


@dataclass
class Outcome:
    """What is known of one operation in one dtype, one module or one suite."""

    reached: bool = False
    compared: int = 0
    same_dtype: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class Piece:
    """Names that one process goes through; or one file of tests."""

    kind: str  # operations, modules, suite
    dtype: str
    names: list[str]


class Pool:
    """The processes.

    Parameters
    ----------
    device : str
        ``cuda`` or ``stand-in``.
    until : float
        The time since the epoch after which nothing is begun, and what runs is ended.
    pieces : iterable of Piece
        In the order in which time is spent on them.
    slots : int
        Processes at once.
    """

    def __init__(self, device: str, until: float, pieces: Iterable[Piece], slots: int):
        self.device, self.until = device, until
        self.outcomes: dict[tuple[str, str, str], Outcome] = {}
        self._waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._changed = threading.Condition()
        for piece in pieces:
            self.outcomes.update({(piece.kind, piece.dtype, name): Outcome() for name in piece.names})
            self._waiting.put(piece)
        self._left = set(self.outcomes)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(slots)]
        for thread in self._threads:
            thread.start()

    def outcome(self, kind: str, dtype: str, name: str) -> Outcome:
        """Wait for one, and return what is known of it."""
        key = (kind, dtype, name)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._left, timeout=max(0.0, self.until + 30 - time.time()))
            return self.outcomes[key]

    def end(self) -> None:
        """Let nothing be begun any more, and wait for what runs."""
        self.until = 0.0
        for thread in self._threads:
            thread.join(60)

    def _work(self) -> None:
        while True:
            try:
                piece = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                if time.time() < self.until:
                    (self._suite if piece.kind == "suite" else self._compare)(piece)
            except Exception as error:  # a thread's exceptions reach nobody: they are reported as a failure of the piece
                self._note(piece, piece.names[0], Outcome(True, failures=[f"{type(error).__name__}: {error}"]))
            finally:
                self._done(piece, piece.names)

    def _done(self, piece: Piece, names: Iterable[str]) -> None:
        with self._changed:
            self._left -= {(piece.kind, piece.dtype, name) for name in names}
            self._changed.notify_all()

    def _note(self, piece: Piece, name: str, outcome: Outcome) -> None:
        self.outcomes[piece.kind, piece.dtype, name] = outcome
        self._done(piece, [name])

    def _compare(self, piece: Piece) -> None:
        """A process for all names, and another one behind each name at which one was lost."""
        names = list(piece.names)
        while names and time.time() < self.until:
            command = [sys.executable, "-m", "tests.gpu.compare", piece.kind, piece.dtype, *names]
            command += ["--device", self.device, "--until", str(self.until)]
            with (
                tempfile.TemporaryFile("w+") as errors,
                subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True) as process,
            ):
                watch = threading.Timer(max(0.0, self.until + 20 - time.time()), process.kill)
                watch.start()
                begun = ""
                for line in process.stdout or ():
                    record = read(line)
                    if "begun" in record:
                        begun = record["begun"]
                    elif "name" in record:
                        begun = ""
                        names.remove(record["name"])
                        fields = {k: record[k] for k in ("compared", "same_dtype", "seconds", "failures")}
                        self._note(piece, record["name"], Outcome(True, **fields))
                code = process.wait()
                watch.cancel()
                if code in (0, LOST) or time.time() >= self.until:
                    if code == 0:
                        return
                    continue
                errors.seek(0)
                text = errors.read()[-2000:]
            if not begun:  # it did not come to the first name
                for name in names:
                    self._note(piece, name, Outcome(True, failures=[f"the process ended with {code} before this\n{text}"]))
                return
            self._note(piece, begun, Outcome(True, failures=[f"the process ended with {code} in this\n{text}"]))
            names.remove(begun)

    def _suite(self, piece: Piece) -> None:
        """One file of tests of another folder, on the device."""
        (name,) = piece.names
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.stand_in.plugin", f"--device={self.device}"]
        command += ["-p", "no:cacheprovider", "--tb=short", "--maxfail=40", name]
        begun = time.perf_counter()
        over = threading.Event()
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            watch = threading.Timer(max(0.0, self.until - time.time()), lambda: (over.set(), process.kill()))
            watch.start()
            text = process.communicate()[0]
            watch.cancel()
        if over.is_set():
            return
        failures = [] if process.returncode == 0 else [f"pytest ended with {process.returncode}\n{text[-6000:]}"]
        self._note(piece, name, Outcome(True, passed(text), 0, time.perf_counter() - begun, failures))


def read(line: str) -> dict[str, Any]:
    """A line of JSON; empty for what a library printed."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def passed(text: str) -> int:
    """How many tests pytest's last line counts as passed."""
    words = text.strip().rpartition("\n")[2].replace(",", "").split()
    return next((int(n) for n, word in itertools.pairwise(words) if word == "passed" and n.isdigit()), 0)


def environment() -> dict[str, str]:
    """One thread for each process: they share the cores."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"), "PYTHONUNBUFFERED": "1"}


def pieces(kind: str, dtypes: Iterable[str], names: list[str]) -> list[Piece]:
    """All names in all dtypes, cut; names that stand together, and use the same kernels, go to different processes."""
    count = max(1, -(-len(names) // PIECE))
    return [Piece(kind, dtype, names[i::count]) for dtype in dtypes for i in range(count) if names[i::count]]
