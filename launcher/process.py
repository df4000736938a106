"""What the kernel knows of our processes: who dies with whom, which are still the ones we started, which are left.

Linux only: prctl(2) and proc(5).
"""

import contextlib
import ctypes
import os
import re
import signal
from collections.abc import Callable, Iterable

PR_SET_PDEATHSIG = 1  # prctl(2)

# How MPICH and Open MPI (releases 5, 4) name the memory that the ranks of one host share.
_SEGMENT = re.compile(r"/dev/shm/(mpich_shm_|sm_segment\.|vader_segment\.)\S+$")


def dying_with_parent(number: signal.Signals, parent: int) -> Callable[[], None]:
    """A function for a fresh child, between fork and exec: the kernel sends it `number` when process `parent` dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        if prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent:  # it died between the fork and the prctl, when nobody was asked to tell us
            os.kill(os.getpid(), number)

    return ask


def kernel() -> str:
    """Names this running kernel and process-id space: two processes with the same name can signal each other by pid.

    A host name does not do: two containers may share it, and two Slurm node names may be one machine.
    """
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return f"{boot.read().strip()}/{os.readlink('/proc/self/ns/pid')}"


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is none. Pid and ticks name it for ever."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # Field 22; the second field is the command in parentheses and may hold anything, so count from its end.
            return int(stat.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_ended(pid: int, ticks: int | None) -> bool:
    """Whether the process that started at `ticks` has ended, also where its parent has not taken notice of that yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return int(fields[19]) != ticks or fields[0] in "ZX"


def at_rest(pid: int) -> bool:
    """Whether all threads of a process wait for something. What has arrived for one of them lets it run from that moment on."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] in "RDTt":
                    return False
    except (FileNotFoundError, ProcessLookupError):
        return True
    return True


def children(pid: int) -> list[int]:
    """The children of a process; none where the kernel does not list them."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as listed:
                found += map(int, listed.read().split())
    return found


def end_of(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends; None where the kernel has none (before Linux 5.3)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_process(pid: int, ticks: int | None, number: int) -> bool:
    """Sends a signal to a process if it is still the one that started at `ticks`; says whether it was there."""
    if start_ticks(pid) != ticks:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def shared_segments(pid: int) -> set[str]:
    """The files of MPI libraries in /dev/shm that a process has mapped; they are memory until they are unlinked.

    Empty where the process has ended, or the kernel does not let this one see: a program with capabilities of its own.
    """
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return {found[0] for line in maps if (found := _SEGMENT.search(line))}
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()


def unlink_segments(paths: Iterable[str]) -> None:
    """Gives back the memory of a job that was ended: MPI unlinks it in MPI_Finalize, to which such a job never comes."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def session_of(pid: int) -> str:
    """The directory of a daemon of Open MPI's, which holds the node's topology there open; "" for another process."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                directory, file = os.path.split(os.readlink(f"/proc/{pid}/fd/{name}"))
                if file == "hwloc.sm" and _is_session(directory, pid):
                    return directory
    return ""


def remove_session(path: str, pid: int) -> None:
    """Removes the files of a daemon of Open MPI's, process `pid`, that was killed: the next one with its id would not start."""
    if _is_session(path, pid):
        import shutil  # 10 ms, as much as all else that a supervisor starts with

        shutil.rmtree(path, ignore_errors=True)


def _is_session(path: str, pid: int) -> bool:
    # After the program, or the MPI that it stands for. Narrow, since all that is in it will be removed.
    return re.fullmatch(rf"(ompi|prted|prte|prterun)\.{pid}", os.path.basename(path)) is not None


def carrying(mark: str) -> list[int]:
    """The processes of this user whose environment has the entry `mark` ("NAME=value"), without this process."""
    wanted = mark.encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as environ:
                if wanted in environ.read().split(b"\0"):
                    found.append(int(name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found
