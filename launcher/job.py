"""Runs a job once: starts `mpiexec` or what stands for it, passes signals on to the ranks, ends them all when one fails,
and leaves none behind.

`mpiexec` runs in a session of its own, so that a terminal's Ctrl-C reaches `dlaunch` alone and each rank gets it once.
When a rank fails its supervisor says so in the run directory and holds still; the other ranks get SIGTERM, then
SIGKILL; then `mpiexec` is ended. So the process manager neither kills ranks that are saving their work nor prints
banners, and is still there to end the job if `dlaunch` itself is killed.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from launcher import output, process
from launcher.contract import RUN_DIRECTORY
from launcher.output import Merged
from launcher.record import ENDING_SIGNALS, PASSED_ON, End, RunDirectory
from launcher.report import Outcome
from launcher.supervisors import arrived

TICK = 0.1  # seconds between looks at the run directory
AFTER_FAILURE = 4.0  # seconds that the other ranks get to end after one has failed
AFTER_KILL = 1.5  # seconds in which the supervisors record that their scripts got SIGKILL
AFTER_MPIEXEC = 4.0  # seconds in which the supervisors end their scripts after mpiexec has ended by itself
LINGER = 3.0  # seconds that mpiexec may stay after all ranks have ended, if nobody who reads slowly holds it up
SPEAKING = 2.0  # seconds in which it passes on what they wrote last, before it is ended
GOING = 6.0  # seconds that it gets to end after it was told to: longer than the plain engine gives other hosts
COPYING = 5.0  # seconds that the lines of --tag may take to their end, likewise
KILLING = 2.0  # seconds in which processes that got SIGKILL are gone


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
        What rank 0 reads (`launcher.meeting.stdin_of_rank_0`); None if mpiexec passes on this process's stdin.
    manager : str
        What to call the program that `command` starts.
    say : callable
        Takes lines for the user.
    pass_fds : sequence of int
        Descriptors that mpiexec inherits.
    lets_go : bool
        Whether mpiexec is ended by letting the ranks go (`launcher.engines.Engine.lets_go`).
    elsewhere : bool
        Whether ranks may run on other hosts than this one.
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
        manager: str,
        say: Callable[[str], None],
        pass_fds: Sequence[int] = (),
        lets_go: bool = False,
        elsewhere: bool = False,
    ):
        self.command = command
        self.environ = environ
        self.directory = RunDirectory(directory)
        self.ranks = ranks
        self.end = end
        self.grace = grace
        self.tag = tag
        self.stdin = stdin
        self.manager = manager
        self.say = say
        self.pass_fds = pass_fds
        self.lets_go = lets_go
        self.elsewhere = elsewhere
        self.interrupted = False
        self.orphaned = False
        self.noticed = False
        self.homeless = False  # whether the run directory was removed for good
        self.kernel = process.kernel()
        self.stopped_by: signal.Signals | None = None
        self.ending: int | None = None  # the signal that ends the ranks, once they are being ended
        self.deadline = float("inf")
        self.forced: list[int] = []
        self.segments: set[str] = set()
        self.told: set[int] = set()  # ranks that have got the ending signal
        self.sooner: set[int] = set()  # ranks whose scripts had ended when they were to get it

    def run(self, wakeup: int) -> Outcome:
        """Starts the ranks and returns when nothing of the job is left.

        Parameters
        ----------
        wakeup : int
            The descriptor on which signals to this process arrive (`launcher.supervisors.signals`).
        """
        begun = time.monotonic()
        self.wakeup = wakeup
        merged = Merged(self.directory.path) if self.tag else None
        blocking = _blocking()
        dies_with_us = process.dying_with_parent(self.end, os.getpid())
        self.mpiexec = subprocess.Popen(
            self.command,
            env=dict(self.environ),
            stdin=None if self.stdin is None else subprocess.DEVNULL,
            stdout=merged.stdout if merged else None,
            stderr=merged.stderr if merged else None,
            start_new_session=True,
            pass_fds=self.pass_fds,
            preexec_fn=dies_with_us,  # noqa: PLW1509  no other thread runs yet
        )
        if merged:
            merged.start()
        try:
            self._watch()
        finally:
            self._end_all()
            # An mpiexec of MPICH that ends by force leaves these not blocking, and the user's shell has them, too.
            for fd in blocking:
                os.set_blocking(fd, True)
        if merged:
            merged.close(COPYING, self._is_interrupted)
        self._say_notices()
        starts, ends = self.directory.read()
        # A supervisor that was slow to see its script's end takes it for one that dlaunch had asked for.
        ends = {rank: end._replace(asked=end.asked and rank not in self.sooner) for rank, end in ends.items()}
        return Outcome(
            self.ranks, starts, ends, self.stopped_by, self.forced, self.status, self.command,
            time.monotonic() - begun, self.manager, self.elsewhere or self.homeless, self.orphaned, self.interrupted,
        )  # fmt: skip

    def _watch(self) -> None:
        """Returns when the ranks have ended, or can be waited for no longer."""
        self.status: int | None = None
        while True:
            select.select([self.wakeup], [], [], TICK)
            for number in arrived(self.wakeup):
                self._signalled(number)
            self._say_notices()
            starts, ends = self.directory.read()
            now = time.monotonic()
            # After the look: what mpiexec's end has led to was written later than it ended. What it was told before, earlier.
            ended_before = self.status is not None
            self.status = self.mpiexec.poll()
            if self.status is not None:
                starts, ends = self.directory.read()
            failures = [end for end in ends.values() if end.failed]
            if self.status is not None and not ended_before and self.ending is None:
                self.orphaned = self._is_orphaned(ends)
            if self.ending is None and not all(end.told for end in failures):
                self._end_ranks(signal.SIGTERM, AFTER_FAILURE)
            elif self.ending is None and failures:  # MPI is ending the job itself
                self._note_segments()
                self.deadline = min(self.deadline, now + AFTER_FAILURE)
            if self.ending is not None:
                self._tell_ranks(self.ending)
            if self.status is not None:
                # With 0 all have ended well, also those which could not write it down: the disk may be full, or the
                # run directory one that their host does not see.
                if self.status == 0:
                    return
                # Those that mpiexec has killed are outlived by their supervisors, which are ending the scripts.
                if len(starts.keys() | ends.keys()) == len(ends):
                    return
                self.deadline = min(self.deadline, now + AFTER_MPIEXEC)
            elif len(ends) == self.ranks:
                # Where MPI itself is ending the job, its exit code is the only one that says why.
                if self.ending is not None:
                    return
                self.deadline = now + LINGER if output.held_up() else min(self.deadline, now + LINGER)
            if now > self.deadline:
                self._kill_ranks()
                return

    def _is_orphaned(self, ends: Mapping[int, End]) -> bool:
        """Whether it is mpiexec that a signal has ended, and no rank that failed by itself."""
        if self.status is None or self.status >= 0:
            return False
        failures = [end for end in ends.values() if end.failed]
        if len(ends) == self.ranks and not failures:
            return False
        # Without it ranks are told to end, and others may see that before they are told.
        return all(end.told or end.follows for end in failures)

    def _signalled(self, number: int) -> None:
        if number not in PASSED_ON:
            return
        self.interrupted |= number in ENDING_SIGNALS
        if number not in ENDING_SIGNALS:
            self._pass_on(number)
        elif self.ending is None:
            self.stopped_by = signal.Signals(number)
            self._end_ranks(number, self.grace)
        elif number == signal.SIGINT and self.ending == signal.SIGINT:
            self.deadline = 0.0  # a second Ctrl-C: the user does not want to wait
        elif number != self.ending:
            self._pass_on(number)

    def _say_notices(self) -> None:
        """Says what the ranks want to be heard, once: a full disk is full for all of them."""
        try:
            if self.directory.make_again():
                self.say(f"somebody has removed the job's run directory {self.directory.path}; it is there again, and the job goes on")
        except OSError as error:
            if not self.homeless:
                said = f"somebody has removed the job's run directory {self.directory.path}, and it cannot be made again: {error.strerror}"
                self.say(f"{said}; the job goes on, and only the exit code of {self.manager} will say how it ended")
            self.homeless = True
        for notice in self.directory.notices():
            if not self.noticed:
                self.say(f"{notice}; output goes to the terminal only")
            self.noticed = True

    def _end_ranks(self, number: int, seconds: float) -> None:
        self._note_segments()
        self.ending = number
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self._note(lambda: self.directory.pass_on(number))

    def _tell_ranks(self, number: int) -> None:
        """Sends the ending signal to those ranks that have not got it, also to those which have only just started."""
        starts, _ = self.directory.read()
        for rank, start in starts.items():
            if rank not in self.told and start.kernel == self.kernel:
                if process.has_ended(start.pid, start.ticks):
                    self.sooner.add(rank)
                else:
                    process.signal_process(start.pid, start.ticks, number)
            self.told.add(rank)

    def _pass_on(self, number: int) -> None:
        """Sends a signal to every script: here by its process id, elsewhere through the run directory."""
        self._note(lambda: self.directory.pass_on(number))
        starts, ends = self.directory.read()
        for rank, start in starts.items():
            if rank not in ends and start.kernel == self.kernel:
                process.signal_process(start.pid, start.ticks, number)

    def _note(self, write: Callable[[], None]) -> None:
        """Writes into the run directory, if there is room left; ranks on this host can do without."""
        try:
            write()
        except OSError as error:
            if self.elsewhere:
                self.say(f"cannot write into {self.directory.path}: {error.strerror}; ranks on other hosts get no signals")

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
        if self.lets_go and self.mpiexec.poll() is None and len(self.directory.read()[1]) == self.ranks:
            self._note(self.directory.let_go)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.mpiexec.wait(GOING)
        self._let_it_speak()
        sessions: dict[int, str] = {}
        if self.mpiexec.poll() is None:
            self.mpiexec.send_signal(self.end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.mpiexec.wait(GOING)
            if self.mpiexec.poll() is None:
                sessions[self.mpiexec.pid] = process.session_of(self.mpiexec.pid)
                self.mpiexec.kill()
                self.mpiexec.wait()
        if self.ending is None and self.status == 0:
            return  # what a script that ended well has left running, it left on purpose
        mark = f"{RUN_DIRECTORY}={self.directory.path}"
        limit = time.monotonic() + KILLING
        while (left := process.carrying(mark)) and time.monotonic() < limit:
            for pid in left:
                if pid not in sessions:
                    sessions[pid] = process.session_of(pid)
                process.signal_process(pid, process.start_ticks(pid), signal.SIGKILL)
            time.sleep(TICK / 5)
        for pid, session in sessions.items():
            process.remove_session(session, pid)
        process.unlink_segments(self.segments)

    def _let_it_speak(self) -> None:
        """Waits until mpiexec has passed on what the ranks wrote last, which would be lost with it.

        The supervisors have seen their part of the way empty. Whatever is further down lets the process run that has to take it,
        so the way is looked at in its direction: from what mpiexec has started on this host to mpiexec.
        """
        limit = time.monotonic() + SPEAKING
        while self.mpiexec.poll() is None and time.monotonic() < limit:
            way = [*process.children(self.mpiexec.pid), self.mpiexec.pid]
            if output.held_up():
                if not self._is_interrupted():
                    limit = time.monotonic() + SPEAKING
            elif all(map(process.at_rest, way)):
                return
            time.sleep(TICK / 10)

    def _is_interrupted(self) -> bool:
        """Whether `dlaunch` has got an ending signal by now: then no reader is waited for."""
        for number in arrived(self.wakeup):
            self.interrupted |= number in ENDING_SIGNALS
        return self.interrupted


def _blocking() -> list[int]:
    """Which of stdin, stdout and stderr block; those that are closed do not."""
    found = []
    for fd in range(3):
        with contextlib.suppress(OSError):
            if os.get_blocking(fd):
                found.append(fd)
    return found
