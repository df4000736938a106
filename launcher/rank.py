"""The supervisor of one rank: `mpiexec` starts it, it starts the script and says how the script ended.

Two processes stand between `mpiexec` and the script. The outer one, the guard, is the process that MPI's process
manager knows and may kill at any time; the inner one, the supervisor, outlives it for as long as it takes to record
the script's last words. When either dies by itself the other ends the script. The script is the process that
initialises MPI: the process manager's connection passes on to it by inheritance.
"""

import argparse
import errno
import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

# Run by its path, since `-m launcher.rank` would find a `launcher` of the user's in the current directory.
if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from launcher import binding, contract, control_groups, gpus, logs, output, process, processor, record, run_directories

WORDS = 300  # lines of stderr that are kept; a deep program's traceback has many
WORDS_BYTES = 16384
HOLD = 30.0  # seconds that a failed rank waits for `dlaunch` to end the job; then MPI's process manager does
PATIENCE = 0.3  # seconds in which a script may end by itself after MPI's process manager has ended its guard
GRACE = 2.0  # seconds from the SIGTERM to the SIGKILL then
LOOKS = (0.5, 60.0)  # seconds until the first look at the script's shared memory, and until each later one at most
TICK = 0.5  # seconds between looks at the run directory, on hosts that `dlaunch` cannot signal
FLOW = 1.0  # seconds in which the process manager takes what was written to it
QUIET = 0.2  # seconds without output after which a dead script's pipe counts as empty, if others still hold it


def main() -> int:
    """Runs one rank; returns the script's exit code, or 128 + number for a signal."""
    parent = os.getppid()  # first of all: who started this process may be killed at any time
    parser = argparse.ArgumentParser(prog="launcher.rank", description=__doc__)
    parser.add_argument("--run-dir", required=True, help="the job's run directory")
    parser.add_argument("--kernel", required=True, help="launcher.process.kernel() of dlaunch")
    parser.add_argument("--threads", type=int, help="threads of this rank")
    parser.add_argument("--tag", action="store_true", help="prefix each line of output with the rank")
    parser.add_argument("--bind", choices=binding.KINDS, default="none", help="which processors this rank gets")
    parser.add_argument("--gpus", type=gpus.parse, help="which GPUs the ranks of this host see")
    parser.add_argument("--oversubscribe", action="store_true", help="more ranks than GPUs are meant")
    parser.add_argument("--log-dir", help="the directory for a file of each stream")
    parser.add_argument("--place", help="rank,world size,local rank,local world size (default: the process manager's)")
    parser.add_argument("--stdin", help="what rank 0 reads, on the host of dlaunch (default: what mpiexec gives it)")
    parser.add_argument("--target", required=True, type=json.loads, help="the script and its arguments, a JSON list")
    options = parser.parse_args()
    if options.place is not None:
        place: contract.Place | None = contract.Place(*map(int, options.place.split(",")))
    else:
        place = contract.find_place(os.environ)
    if place is None:
        raise SystemExit("launcher.rank: no process manager has given this process a rank; start it with dlaunch")
    directory = record.RunDirectory(options.run_dir)

    guard = os.getpid()
    dies_with_guard = process.dying_with_parent(signal.SIGTERM, guard)
    started = time.time()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, record.PASSED_ON)  # until both processes listen
    inner = os.fork()
    if inner:
        return _guard(inner, place.rank, directory, started, parent, unblocked)
    os.setsid()  # the process manager kills the guard's process group
    wakeup = _listen(signal.SIGCHLD, *record.PASSED_ON)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    dies_with_guard()
    held = run_directories.hold(options.run_dir)
    status = Supervisor(place, directory, options, guard, wakeup).run()
    sys.stdout.flush()
    held.leave(parent)
    os._exit(status)


class Supervisor:
    """Watches one script.

    Parameters
    ----------
    place : Place
        This rank's.
    directory : RunDirectory
        The job's; on another host than `dlaunch`'s it may not exist.
    options : argparse.Namespace
        The command line.
    guard : int
        The process id of the guard, this process's parent.
    wakeup : int
        The descriptor on which the numbers of signals to this process arrive.
    """

    def __init__(
        self,
        place: contract.Place,
        directory: record.RunDirectory,
        options: argparse.Namespace,
        guard: int,
        wakeup: int,
    ):
        self.place = place
        self.directory = directory
        self.options = options
        self.guard = guard
        self.wakeup = wakeup
        self.here = options.kernel == process.kernel()
        self.shared = directory.path.is_dir()
        self.words: deque[bytes] = deque()
        self.told = False
        self.orphaned: float | None = None  # when the guard was seen dead, in seconds since the epoch
        self.segments: set[str] = set()  # MPI's shared memory, which a script that is killed leaves behind
        self.until_look = LOOKS[0]
        self.next_look = time.monotonic() + self.until_look
        self.passed_on = 0  # how many of the run directory's signals the script has got
        self.earlier = 0  # how many there were before it was started
        self.status: int | None = None  # as waitpid gives it

    def run(self) -> int:
        """Starts the script, waits for its end, records it; returns its exit code as a shell would give it."""
        try:
            self._start()
        except gpus.GpuError as error:
            end = self._refused(str(error))
        else:
            while self.status is None:
                self._turn()
            if self.status != 0:
                self._end_group()
                process.unlink_segments(self.segments)
            self._drain()
            end = self._end()
        self._let_flow()
        self._record(end)
        if self.shared:
            if (end.failed or self.directory.ending()) and self._hold():
                return 0
        elif end.failed and not self.told:
            from launcher import report

            output.write_all(2, f"dlaunch: {report.describe(end)}\n".encode())
        return end.status

    def _start(self) -> None:
        _, _, local_rank, ranks_here = self.place
        environ = {**os.environ, **contract.place_variables(self.place)}
        if flight := environ.get(contract.FLIGHT_DIRECTORY):  # else the ranks would put theirs in the place of those of the start before
            environ[contract.FLIGHT_DIRECTORY] = logs.directory_of(flight, int(environ.get(contract.ATTEMPT, "0")))
        if self.options.gpus is not None:
            found = gpus.present(environ)
            environ.update(
                gpus.variables(self.options.gpus, found, ranks_here, self.options.oversubscribe, os.uname().nodename)
            )
        cores, sharing = binding.bind(self.options.bind, local_rank, ranks_here)
        at_a_time = control_groups.cpu_share(ranks_here)
        environ.update(contract.thread_variables(self.options.threads, cores, sharing, environ, at_a_time))
        environ.update(processor.core_type_variables(environ))

        err_read, err_write = os.pipe()
        out: logs.Writer = output.PlainWriter(1)
        err: logs.Writer = output.PlainWriter(2)
        if self.options.tag:
            out, err = output.tagged_writers(self.place.rank, self.directory.path, self.here and self.shared)
        if self.options.log_dir is not None:
            name = os.path.join(self.options.log_dir, f"rank-{self.place.rank}")
            out = logs.Logged(Path(f"{name}.out"), out, self._notice)
            err = logs.Logged(Path(f"{name}.err"), err, self._notice)
        self.writers: dict[int, logs.Writer] = {err_read: err}
        out_write = 1
        if self.options.tag or self.options.log_dir is not None:
            out_read, out_write = os.pipe()
            self.writers[out_read] = out
        self.stderr = err_read
        command = [sys.executable, os.path.join(os.path.dirname(__file__), "script.py"), *self.options.target]
        self.started = time.time()
        self.earlier = len(self.directory.passed_on())
        stdin = self._stdin()
        self.pid, gate = _spawn(command, environ, stdin, out_write, err_write)
        for fd in {stdin, out_write, err_write} - {0, 1}:
            os.close(fd)
        if self.shared:
            ticks = process.start_ticks(self.pid)
            host = os.uname().nodename
            self._record(record.Start(self.place.rank, host, process.kernel(), self.pid, ticks, self.started))
        os.close(gate)

    def _refused(self, reason: str) -> record.End:
        """The end of a rank whose script was not started."""
        now = time.time()
        host = os.uname().nodename
        if self.place.local_rank == 0:
            output.write_all(2, f"dlaunch: {reason}\n".encode())
        # The others fail because of it, too, but one is enough to say so.
        told = self.place.local_rank > 0
        return record.End(self.place.rank, host, os.getpid(), 2, None, now, 0.0, told, False, [reason])

    def _record(self, entry: record.Start | record.End) -> None:
        """Writes an entry. A run directory on a disk that is full is as one that this host does not see."""
        if not self.shared:
            return
        try:
            self.directory.write(entry)
        except OSError as error:
            self.shared = False
            said = f"dlaunch: rank {self.place.rank} cannot write into {self.directory.path}: {error.strerror}\n"
            output.write_all(2, said.encode())

    def _notice(self, text: str) -> None:
        """Lets dlaunch say something; once is enough, so later notices of this rank replace nothing."""
        text = f"rank {self.place.rank} on {os.uname().nodename} cannot write its log {text}"
        try:
            if self.shared:
                self.directory.put(f"rank-{self.place.rank}.notice", text)
                return
        except OSError:  # the same disk is full
            self.shared = self.directory.path.is_dir()
        output.write_all(2, f"dlaunch: {text}; its output goes to the terminal only\n".encode())

    def _stdin(self) -> int:
        source = self.options.stdin if self.place.rank == 0 and self.here else None
        if source is None:
            # Not what the process manager gives the others: MPICH's never ends.
            return 0 if self.place.rank == 0 else os.open(os.devnull, os.O_RDONLY)
        # A pipe whose writer has ended already would block the opening, so that may not block; the reading may.
        fd = os.open(source, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        return fd

    def _turn(self) -> None:
        """Waits for the next thing to happen and deals with it."""
        watched = [self.wakeup, *self.writers]
        pause = max(0.0, self.next_look - time.monotonic())
        if self.orphaned is not None:
            pause = min(pause, 0.05)
        elif not (self.here and self.shared):
            pause = min(pause, TICK)
        ready, _, _ = select.select(watched, [], [], pause)
        self._look()
        if self.wakeup in ready:
            for number in os.read(self.wakeup, 4096):
                self._signalled(number)
        for fd in self.writers.copy():
            if fd in ready:
                self._copy(fd)
        if not self.here and self.shared:
            signals = self.directory.passed_on()
            for place in range(self.passed_on, len(signals)):
                # Of those from before its start it gets the ones that end the job; SIGUSR1 would end it, too.
                if place >= self.earlier or signals[place] not in (signal.SIGUSR1, signal.SIGUSR2):
                    os.kill(self.pid, signals[place])
            self.passed_on = len(signals)
        if self.orphaned is not None:
            since = time.time() - self.orphaned
            if since > PATIENCE and not self.told:
                self.told = True
                os.kill(self.pid, signal.SIGTERM)
            elif since > PATIENCE + GRACE:
                os.kill(self.pid, signal.SIGKILL)
        # Last, because until here the process id cannot have been given to another process.
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = status
            self.ended = time.time()

    def _look(self) -> None:
        """Remembers, less and less often, what memory the script shares: one that is killed cannot be asked any more."""
        now = time.monotonic()
        if now >= self.next_look:
            self.segments |= process.shared_segments(self.pid)
            self.next_look = now + self.until_look
            self.until_look = min(2 * self.until_look, LOOKS[1])

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.segments |= process.shared_segments(self.pid)  # from the script, where MPI has just started
            return
        if os.getppid() != self.guard:
            if self.orphaned is None:
                self.orphaned = time.time()
                self.segments |= process.shared_segments(self.pid)
        elif number not in record.ENDING_SIGNALS:
            os.kill(self.pid, number)  # from the process manager, through the guard
        elif not self.told:  # Slurm's scancel signals the guard and this process, both
            self.told = True
            os.kill(self.pid, number)

    def _copy(self, fd: int) -> bool:
        """Passes on what the script wrote; says whether there may be more."""
        data = os.read(fd, 1 << 16)
        if not data:
            self.writers.pop(fd).close()
            os.close(fd)
            return False
        if fd == self.stderr:
            if b"Fatal Python error" in data:  # by a signal, after which it has a moment left: a full /dev/shm is SIGBUS in MPI_Init
                self.segments |= process.shared_segments(self.pid)
            self.words.append(data)
            while len(self.words) > 1 and sum(map(len, self.words)) - len(self.words[0]) > WORDS_BYTES:
                self.words.popleft()
        self.writers[fd].write(data)
        return True

    def _drain(self) -> None:
        """Passes on what the dead script left in its pipes; a background process of it may hold them open for ever."""
        while self.writers:
            ready, _, _ = select.select(list(self.writers), [], [], QUIET)
            if not ready:
                break
            for fd in ready:
                self._copy(fd)
        for writer in self.writers.values():
            writer.close()

    def _let_flow(self) -> None:
        """Waits until the process manager has taken what was written to it: it is ended when all ranks have recorded their end."""
        if self.options.place is not None:  # the plain engine's ranks write to where dlaunch does
            return
        limit = time.monotonic() + FLOW
        while time.monotonic() < limit and any(map(output.unread, (1, 2))):
            time.sleep(0.005)

    def _end_group(self) -> None:
        """Ends what a failed script left behind, such as the workers of a data loader."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM):
                raise

    def _end(self) -> record.End:
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        # A script that failed by itself did so before; one that MPI ended was as good as dead when its guard was.
        ended = (self.told and self.orphaned) or self.ended
        failure, ending = self.directory.failure(self.place.rank), self.directory.ending_since()
        if failure is not None:
            ended = failure[0]
            if code == -signal.SIGTERM and ending is not None:  # on its way out, because of another rank's end
                code = failure[1]
        lines = b"".join(self.words).decode(errors="replace").splitlines()
        return record.End(
            rank=self.place.rank,
            host=os.uname().nodename,
            pid=self.pid,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            time=ended,
            elapsed=ended - self.started,
            told=self.told,
            supervisor=False,
            words=lines[-WORDS:],
            follows=failure is not None and failure[2],
            asked=ending is not None and ended > ending,
            guard=None if self.orphaned is None else self.guard,
        )

    def _hold(self) -> bool:
        """Waits until the process manager ends this rank, or dlaunch lets it go, which it says.

        If this process ended now the process manager would kill the other ranks at once, also those which are just
        saving their work, with a banner of its own. `dlaunch` ends it when all have ended.
        """
        limit = time.monotonic() + HOLD
        while time.monotonic() < limit and os.getppid() == self.guard and self.shared:
            ready, _, _ = select.select([self.wakeup], [], [], TICK)
            if ready and set(os.read(self.wakeup, 4096)) & {*record.ENDING_SIGNALS}:
                return False
            if self.directory.lets_go():
                return True
            self.shared = self.directory.path.is_dir()
        return False


def _guard(
    inner: int, rank: int, directory: record.RunDirectory, started: float, parent: int, unblocked: Iterable[int]
) -> int:
    """Stays until the supervisor ends, passes signals on to it, and records its end if it could not do so itself.

    When the process manager dies that started it, it goes as well; then the supervisor ends the script.
    """
    wakeup = _listen(signal.SIGCHLD, *record.PASSED_ON)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    # Not by PR_SET_PDEATHSIG, which fires as soon as the thread ends that forked: a process manager may have several.
    parents_end = process.end_of(parent)
    watched = [wakeup] if parents_end is None else [wakeup, parents_end]
    if os.getppid() != parent:  # it had gone before it could be watched
        os._exit(1)
    while True:
        pid, status = os.waitpid(inner, os.WNOHANG)
        if pid:
            break
        ready, _, _ = select.select(watched, [], [], TICK if parents_end is None else None)
        if parents_end in ready or os.getppid() != parent:
            process.remove_session(os.environ.get("PMIX_SERVER_TMPDIR", ""), parent)
            os._exit(1)
        for number in os.read(wakeup, 4096) if wakeup in ready else b"":
            if number != signal.SIGCHLD:
                os.kill(inner, number)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and directory.path.is_dir():
        now = time.time()
        end = record.End(rank, os.uname().nodename, inner, None, -code, now, now - started, False, True, [])
        try:
            directory.write(end)
        except OSError as error:
            output.write_all(2, f"dlaunch: rank {rank} cannot write into {directory.path}: {error.strerror}\n".encode())
    return code if code >= 0 else 128 - code


def _spawn(command: list[str], environ: dict[str, str], stdin: int, stdout: int, stderr: int) -> tuple[int, int]:
    """Starts a child that dies with this process; returns its process id, and a descriptor until whose closing it holds still.

    So a script that runs is one that `dlaunch` knows of, and can pass signals on to. By hand, not by the subprocess module:
    that would cost each rank another 10 ms, and inherited descriptors (MPICH's PMI_FD) pass on here without being named.
    """
    dies_with_us = process.dying_with_parent(signal.SIGKILL, os.getpid())
    waits, gate = os.pipe()
    # A signal to the child must not come to this process's handlers, which do nothing there.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, record.PASSED_ON)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.close(waits)
        return pid, gate
    try:
        signal.set_wakeup_fd(-1)
        os.close(gate)
        os.setpgid(0, 0)
        for number in (signal.SIGCHLD, *record.PASSED_ON):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        dies_with_us()
        os.read(waits, 1)
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.execve(command[0], command, environ)
    except OSError as error:
        os.write(2, f"dlaunch: {command[0]} does not start: {error}\n".encode())
    finally:
        os._exit(127)


def _listen(*numbers: int) -> int:
    """Lets signals arrive as bytes on a descriptor, which it returns."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda number, frame: None)
    return read


if __name__ == "__main__":
    sys.exit(main())
