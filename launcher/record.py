"""What the ranks of a job write down, and what they are told: the files of the job's private run directory.

    rank-3.start.json    the rank has a script running: where, which process
    rank-3.failed        when its script failed (seconds since the epoch), its exit code, whether because of another rank
    rank-3.end.json      how it ended
    rank-3.seen.end.json the same by who saw its supervisor, or its host, go
    rank-3.notice        what the user should hear of it meanwhile: a log that cannot be written
    over                 ranks that have failed need not wait for their end any more
    signals              one number a line: the signals that `dlaunch` has passed on, for supervisors on other hosts
    stdout, stderr, lock the pipes of ``--tag`` (`launcher.output`)
    alive                tells that the directory is used (`launcher.run_directories`)
"""

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON = (*ENDING_SIGNALS, signal.SIGUSR1, signal.SIGUSR2)
ABORTED = re.compile(r"application called MPI_Abort\(.*, (-?\d+)\)")  # by MPICH and its kin


class Start(NamedTuple):
    """A rank's script has started."""

    rank: int
    host: str
    kernel: str  # `launcher.process.kernel` there
    pid: int  # of the script
    ticks: int | None  # `launcher.process.start_ticks` of it
    time: float  # seconds since the epoch


class End(NamedTuple):
    """A rank's script has ended: with an exit code or by a signal, one of which is None."""

    rank: int
    host: str
    pid: int
    code: int | None
    signal: int | None
    time: float  # seconds since the epoch: when it failed, or ended
    elapsed: float  # seconds from its start to then
    told: bool  # MPI's process manager had asked for its end before
    supervisor: bool  # it is the supervisor that ended, and took the script with it
    words: list[str]  # the last lines of its stderr
    lost: str | None = None  # its host has gone with it, and this is all that is known
    follows: bool = False  # it says that it failed because of another rank
    asked: bool = False  # `dlaunch` was ending the job already
    guard: int | None = None  # the process id of its guard, where that had ended before

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than with exit code 0."""
        return self.code != 0

    @property
    def aborted(self) -> int | None:
        """The exit code with which it called MPI_Abort, where MPI says so on stderr.

        MPICH's process manager kills what it has started, which is not the script; that goes on to its exit functions, of which
        MPI_Finalize fails then, with a code of its own, as it does in ranks that MPI_Finalize frees from waiting for this one.
        """
        for line in self.words:
            if match := ABORTED.search(line):
                return int(match[1]) & 0xFF
        return None

    @property
    def status(self) -> int:
        """Its exit code as a shell gives it: 128 + number for a signal."""
        return self.aborted or (self.code if self.code is not None else 128 + (self.signal or 0))


class RunDirectory:
    """The run directory of a job, as `dlaunch` and as its ranks see it."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._seen: set[str] = set()
        self._starts: dict[int, Start] = {}
        self._ends: dict[int, End] = {}

    def write(self, entry: Start | End) -> None:
        """Writes a rank's entry so that a reader sees all of it or nothing."""
        kind = "start" if isinstance(entry, Start) else "end"
        self.put(f"rank-{entry.rank}.{kind}.json", json.dumps(entry._asdict()))

    def write_seen(self, end: End) -> None:
        """Writes the end of a rank as who started it saw it: its supervisor, or its host, is gone.

        It stands beside what that supervisor may yet write, which ends its script when it is left alone.
        """
        self.put(f"rank-{end.rank}.seen.end.json", json.dumps(end._asdict()))

    def put(self, name: str, text: str) -> None:
        """Writes a file so that a reader sees all of it or nothing."""
        partial = self.path / f"{name}.{os.getpid()}.partial"
        partial.write_text(text)
        partial.rename(self.path / name)

    def has_end(self, rank: int) -> bool:
        """Whether a rank's end is recorded."""
        return (self.path / f"rank-{rank}.end.json").exists()

    def knows_why(self, rank: int) -> bool:
        """Whether a rank's end is recorded, and it is not one that the rank was only told to come to."""
        end = self.read()[1].get(rank)
        return end is not None and not end.told

    def notices(self) -> list[str]:
        """What ranks want the user to hear that has not been returned yet."""
        return [text for _, text in self._unseen(".notice")]

    def read(self) -> tuple[dict[int, Start], dict[int, End]]:
        """All entries so far, by rank. Each is read from the disk once."""
        for name, text in self._unseen(".start.json", ".end.json"):
            fields = json.loads(text)
            if name.endswith(".start.json"):
                self._starts[fields["rank"]] = Start(**fields)
            else:
                end = End(**fields)
                known = self._ends.get(end.rank)
                # A rank that was told to end may have written that before the cause was seen, or after it.
                if known is None or (known.told and not end.told):
                    self._ends[end.rank] = end
        return self._starts, self._ends

    def make_again(self) -> bool:
        """Makes the directory again if somebody has removed it, such as who clears away old temporary files; says whether.

        What was read is known, and what is yet to come needs a place.

        Raises
        ------
        OSError
            It cannot be made.
        """
        if self.path.is_dir():
            return False
        self.path.mkdir(0o700)
        return True

    def _unseen(self, *kinds: str) -> Iterator[tuple[str, str]]:
        """The files of these kinds that have not been read yet, with their text; none where the directory is gone."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.path)):
                if name.endswith(kinds) and name not in self._seen:
                    text = (self.path / name).read_text()
                    self._seen.add(name)
                    yield name, text

    def failure(self, rank: int) -> tuple[float, int, bool] | None:
        """When a rank's script failed, its exit code, and whether because of another rank, if it could say so itself."""
        try:
            time, code, follows = (self.path / f"rank-{rank}.failed").read_text().split()
            return float(time), int(code), follows == "1"
        except FileNotFoundError:
            return None

    def pass_on(self, number: int) -> None:
        """Notes a signal that all ranks are to get."""
        with open(self.path / "signals", "a") as file:
            file.write(f"{int(number)}\n")

    def passed_on(self) -> list[int]:
        """The signals that all ranks were to get, in order."""
        try:
            return [int(line) for line in (self.path / "signals").read_text().split()]
        except FileNotFoundError:
            return []

    def let_go(self) -> None:
        """Notes that ranks need not wait for their end any more, and may end as if all were well: it is known how it is."""
        (self.path / "over").touch()

    def lets_go(self) -> bool:
        """Whether that has been noted."""
        return (self.path / "over").exists()

    def ending_since(self) -> float | None:
        """When `dlaunch` began to end the job (seconds since the epoch); None as long as it does not."""
        if not any(number in (*ENDING_SIGNALS, signal.SIGKILL) for number in self.passed_on()):
            return None
        try:
            return (self.path / "signals").stat().st_mtime
        except FileNotFoundError:
            return None

    def ending(self) -> bool:
        """Whether `dlaunch` is ending the job."""
        return any(number in (*ENDING_SIGNALS, signal.SIGKILL) for number in self.passed_on())
