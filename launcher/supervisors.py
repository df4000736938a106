"""Starts the supervisors of one host's ranks, where no MPI does: the part of a process manager that every host needs."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from launcher import output
from launcher.contract import Place
from launcher.record import End, RunDirectory


class Stream(NamedTuple):
    """An output of a rank: the descriptor on which it arrives, and which one it is: 1 or 2."""

    fd: int
    number: int


class Supervisors:
    """The supervisors of the ranks `first` to ``first + ranks - 1``, in sessions of their own.

    Parameters
    ----------
    directory : RunDirectory
        The job's, on this host.
    program : sequence of str
        The supervisor's command line without its place.
    environ : mapping
        The environment of the ranks.
    first, ranks, world_size : int
        Which ranks of how many.
    """

    def __init__(
        self,
        directory: RunDirectory,
        program: Sequence[str],
        environ: Mapping[str, str],
        first: int,
        ranks: int,
        world_size: int,
    ):
        self.directory = directory
        self.program = program
        self.environ = environ
        self.places = [Place(first + local, world_size, local, ranks) for local in range(ranks)]
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.streams: list[Stream] = []
        self.status = 0  # the first exit code that is not 0, as a shell gives it
        self.unrecorded = False  # whether an end could not be recorded: nobody will end the other ranks because of it
        self.started = time.time()

    def start(self, *, own_stdin: bool, pipes: bool) -> None:
        """Starts them all.

        Parameters
        ----------
        own_stdin : bool
            Whether rank 0 gets this process's stdin; the others never do.
        pipes : bool
            Whether their outputs arrive on `streams`; else they are this process's.
        """
        for place in self.places:
            output = subprocess.PIPE if pipes else None
            process = subprocess.Popen(
                [*self.program, "--place", ",".join(map(str, place))],
                env=dict(self.environ),
                stdin=None if own_stdin and place.rank == 0 else subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            self.running[place.rank] = process
            for number, pipe in ((1, process.stdout), (2, process.stderr)):
                if pipe is not None:
                    self.streams.append(Stream(os.dup(pipe.fileno()), number))
                    pipe.close()

    def reap(self) -> None:
        """Takes notice of those that have ended, and records an end that they could not record themselves."""
        for rank, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[rank]
            self.status = self.status or (code if code >= 0 else 128 - code)
            # One that was killed has left the rest to its script's supervisor, which may have told it to end already.
            if (code > 0 and not self.directory.has_end(rank)) or (code < 0 and not self.directory.knows_why(rank)):
                now, host = time.time(), os.uname().nodename
                exit_code, number = (code, None) if code > 0 else (None, -code)
                elapsed = now - self.started
                end = End(rank, host, process.pid, exit_code, number, now, elapsed, False, True, [])
                try:
                    self.directory.write_seen(end)
                except OSError as error:
                    self.unrecorded = True
                    said = f"dlaunch: the end of rank {rank} cannot be written into {self.directory.path}: {error.strerror}\n"
                    output.write_all(2, said.encode())

    def kill(self) -> None:
        """Ends them by force; each then ends its script with a SIGTERM and, after a while, a SIGKILL."""
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in self.running.values():
            process.wait()
        self.running.clear()


@contextlib.contextmanager
def signals(*numbers: int) -> Iterator[int]:
    """Lets signals arrive as bytes on a descriptor, and puts everything back afterwards.

    SIGHUP stays ignored where it was: nohup.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = {}
    # Before the handlers, which do nothing: a signal that came between would be lost.
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in numbers:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, lambda number, frame: None)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def arrived(wakeup: int) -> bytes:
    """The numbers of the signals that have arrived on the descriptor of `signals`."""
    try:
        return os.read(wakeup, 4096)
    except BlockingIOError:
        return b""
