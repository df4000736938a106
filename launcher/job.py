"""Runs a job: starts `mpiexec`, passes signals on to the ranks, ends them all when one fails, and leaves none behind.

`mpiexec` runs in a session of its own, so that a terminal's Ctrl-C reaches `dlaunch` alone and each rank gets it once.
When a rank fails its supervisor says so in the run directory and holds still; the other ranks get SIGTERM, then
SIGKILL; then `mpiexec` is ended. So the process manager neither kills ranks that are saving their work nor prints
banners, and is still there to end the job if `dlaunch` itself is killed.
"""

import contextlib
import os
import re
import select
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from launcher import process
from launcher.contract import RUN_DIRECTORY
from launcher.output import Merged
from launcher.record import ENDING_SIGNALS, PASSED_ON, RunDirectory
from launcher.report import Outcome

TICK = 0.1  # seconds between looks at the run directory
AFTER_FAILURE = 4.0  # seconds that the other ranks get to end after one has failed
AFTER_KILL = 1.5  # seconds in which the supervisors record that their scripts got SIGKILL
AFTER_MPIEXEC = 4.0  # seconds in which the supervisors end their scripts after mpiexec has ended by itself
LINGER = 3.0  # seconds that mpiexec may stay after all ranks have ended
GOING = 2.0  # seconds that mpiexec gets to end after it was told to


class Job:
    """One run of a script on all ranks.

    Parameters
    ----------
    command : sequence of str
        The command line of mpiexec.
    environ : mapping
        Its environment.
    directory : str
        The private run directory, which exists and is empty.
    ranks : int
        How many ranks it starts.
    end : signal.Signals
        The signal that ends this mpiexec (`launcher.mpi.Engine.end`).
    grace : float
        Seconds that the ranks may take to end after a signal to `dlaunch`.
    tag : bool
        Whether the ranks write their output into the run directory's pipes.
    stdin : str or None
        What rank 0 reads (`stdin_of_rank_0`); None if mpiexec passes on this process's stdin.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        directory: str,
        ranks: int,
        end: signal.Signals,
        grace: float,
        tag: bool,
        stdin: str | None,
    ):
        self.command = command
        self.environ = environ
        self.directory = RunDirectory(directory)
        self.ranks = ranks
        self.end = end
        self.grace = grace
        self.tag = tag
        self.stdin = stdin
        self.kernel = process.kernel()
        self.stopped_by: signal.Signals | None = None
        self.ending: int | None = None  # the signal that ends the ranks, once they are being ended
        self.deadline = float("inf")
        self.forced: list[int] = []
        self.segments: set[str] = set()
        self.told: set[int] = set()  # ranks that have got the ending signal

    def run(self) -> Outcome:
        """Starts the ranks and returns when nothing of the job is left."""
        begun = time.monotonic()
        merged = Merged(self.directory.path) if self.tag else None
        with _signals() as wakeup:
            dies_with_us = process.dying_with_parent(self.end, os.getpid())
            self.mpiexec = subprocess.Popen(
                self.command,
                env=dict(self.environ),
                stdin=None if self.stdin is None else subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=dies_with_us,  # noqa: PLW1509  no other thread runs yet
            )
            if merged:
                merged.start()
            try:
                self._watch(wakeup)
            finally:
                self._end_all()
            if merged:
                merged.close(timeout=5.0)
        starts, ends = self.directory.read()
        return Outcome(
            self.ranks, starts, ends, self.stopped_by, self.forced, self.status, self.command, time.monotonic() - begun
        )

    def _watch(self, wakeup: int) -> None:
        """Returns when the ranks have ended, or can be waited for no longer."""
        self.status: int | None = None
        while True:
            select.select([wakeup], [], [], TICK)
            for number in _read(wakeup):
                self._signalled(number)
            starts, ends = self.directory.read()
            now = time.monotonic()
            failures = [end for end in ends.values() if end.failed]
            if self.ending is None and not all(end.told for end in failures):
                self._end_ranks(signal.SIGTERM, AFTER_FAILURE)
            elif self.ending is None and failures:  # MPI is ending the job itself
                self._note_segments()
                self.deadline = min(self.deadline, now + AFTER_FAILURE)
            if self.ending is not None:
                self._tell_ranks(self.ending)
            self.status = self.mpiexec.poll()
            if self.status is not None:
                # Those that mpiexec has killed are outlived by their supervisors, which are ending the scripts.
                if len(starts.keys() | ends.keys()) == len(ends):
                    return
                self.deadline = min(self.deadline, now + AFTER_MPIEXEC)
            elif len(ends) == self.ranks:
                # Where MPI itself is ending the job, its exit code is the only one that says why.
                if self.ending is not None:
                    return
                self.deadline = min(self.deadline, now + LINGER)
            if now > self.deadline:
                self._kill_ranks()
                return

    def _signalled(self, number: int) -> None:
        if number not in PASSED_ON:
            return
        if number not in ENDING_SIGNALS:
            self._pass_on(number)
        elif self.ending is None:
            self.stopped_by = signal.Signals(number)
            self._end_ranks(number, self.grace)
        elif number == signal.SIGINT and self.ending == signal.SIGINT:
            self.deadline = 0.0  # a second Ctrl-C: the user does not want to wait
        elif number != self.ending:
            self._pass_on(number)

    def _end_ranks(self, number: int, seconds: float) -> None:
        self._note_segments()
        self.ending = number
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self.directory.pass_on(number)

    def _tell_ranks(self, number: int) -> None:
        """Sends the ending signal to those ranks that have not got it, also to those which have only just started."""
        starts, ends = self.directory.read()
        for rank, start in starts.items():
            if rank not in self.told and rank not in ends and start.kernel == self.kernel:
                process.signal_process(start.pid, start.ticks, number)
            self.told.add(rank)

    def _pass_on(self, number: int) -> None:
        """Sends a signal to every script: here by its process id, elsewhere through the run directory."""
        self.directory.pass_on(number)
        starts, ends = self.directory.read()
        for rank, start in starts.items():
            if rank not in ends and start.kernel == self.kernel:
                process.signal_process(start.pid, start.ticks, number)

    def _note_segments(self) -> None:
        """Remembers which shared memory of MPI the ranks here have mapped, while they are there to ask."""
        starts, _ = self.directory.read()
        for start in starts.values():
            if start.kernel == self.kernel and process.start_ticks(start.pid) == start.ticks:
                self.segments |= process.shared_segments(start.pid)

    def _kill_ranks(self) -> None:
        """SIGKILL to every script that is left, and a moment for the supervisors to record it."""
        starts, ends = self.directory.read()
        left = sorted(set(range(self.ranks)) - ends.keys())
        if self.ending is not None:
            self.forced = left
        self._pass_on(signal.SIGKILL)
        limit = time.monotonic() + AFTER_KILL
        while time.monotonic() < limit and any(rank in starts and rank not in ends for rank in left):
            time.sleep(TICK / 5)
            starts, ends = self.directory.read()

    def _end_all(self) -> None:
        """Ends mpiexec and every process that carries the mark of this job."""
        if self.mpiexec.poll() is None:
            self.mpiexec.send_signal(self.end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.mpiexec.wait(GOING)
            if self.mpiexec.poll() is None:
                self.mpiexec.kill()
                self.mpiexec.wait()
        if self.ending is None and self.status == 0:
            return  # what a script that ended well has left running, it left on purpose
        mark = f"{RUN_DIRECTORY}={self.directory.path}"
        limit = time.monotonic() + GOING
        while (left := process.carrying(mark)) and time.monotonic() < limit:
            for pid in left:
                process.signal_process(pid, process.start_ticks(pid), signal.SIGKILL)
            time.sleep(TICK / 5)
        process.unlink_segments(self.segments)


def run_directory_parent(environ: Mapping[str, str]) -> str | None:
    """Where the run directory is made: None for the system's temporary directory.

    Ranks on several hosts need one that all of them see. The current directory is: the script is found there, too.
    """
    nodes = environ.get("SLURM_JOB_NUM_NODES", "1")
    return os.getcwd() if nodes.isdigit() and int(nodes) > 1 else None


def master_address(environ: Mapping[str, str]) -> str:
    """The host of rank 0: the first of a Slurm allocation, else this one.

    Examples
    --------
    >>> master_address({"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "gpu[07-08,11]"})
    'gpu07'
    >>> master_address({})
    '127.0.0.1'
    """
    if run_directory_parent(environ) is None:
        return "127.0.0.1"
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    # "a[07-08,11]b[1-2],c" begins with a07b1.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes))
    return first[0] if first and first[0] else socket.gethostname()


def master_port() -> int:
    """A TCP port that is free on this host now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stdin_of_rank_0() -> str | None:
    """The file that rank 0 reads as its stdin, or None if it has to come through mpiexec.

    Rank 0 reads what `dlaunch` would read. It opens that itself, because Open MPI 5.0 never passes on its end.
    """
    try:
        if stat.S_ISSOCK(os.fstat(0).st_mode):  # these cannot be opened a second time
            return None
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return os.devnull  # in the background of a shell, whose input is not ours
    except OSError:  # closed
        return os.devnull
    return f"/proc/{os.getpid()}/fd/0"


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Lets the signals of interest arrive as bytes on a descriptor, and puts everything back afterwards."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = {}
    for number in (signal.SIGCHLD, *PASSED_ON):
        if signal.getsignal(number) == signal.SIG_IGN and number == signal.SIGHUP:
            continue  # nohup
        before[number] = signal.signal(number, lambda number, frame: None)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""
