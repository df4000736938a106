"""Makes the run directories of jobs, and removes those that nobody uses any more.

Whoever uses one holds a shared lock (flock(2)) on its file ``alive``: dlaunch and the supervisors beside it, or another host's
agent and its supervisors. The kernel takes a lock from a holder that dies, however it dies. So who leaves can tell whether
it is the last: it alone gets the lock exclusively. What is left where all were killed at once the next dlaunch removes.

The file names the running kernel whose locks count, since some network file systems keep those of each host to itself.
"""

import contextlib
import fcntl
import os
import select
import tempfile

from launcher import process

PREFIX = "dlaunch-"
ALIVE = "alive"
GOING = 3.0  # seconds in which an mpiexec removes its files


class Held:
    """A run directory that this process uses.

    Parameters
    ----------
    path : str
        The directory.
    fds : list of int
        The descriptors of its locks, the one of ``alive`` first; empty where the file system has none: then nobody removes the
        directory but who made it.
    """

    def __init__(self, path: str, fds: list[int]):
        self.path = path
        self._fds = fds

    def leave(self, manager: int | None = None) -> None:
        """Lets go of the directory, and removes it if nobody else uses it.

        Parameters
        ----------
        manager : int, optional
            A process that may be removing its own files in it at this moment: its end is waited for.
        """
        if self._fds and _alone(self._fds[0]):
            end = None if manager is None else process.end_of(manager)
            if end is not None:
                select.select([end], [], [], GOING)
                os.close(end)
            remove(self.path)
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def make(parent: str | None = None) -> Held:
    """Makes a run directory and holds it; those of dead jobs beside it are removed.

    Parameters
    ----------
    parent : str, optional
        Where; default the system's temporary directory.

    Raises
    ------
    OSError
        It cannot be made.
    """
    path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    remove_left(os.path.dirname(path))
    return begin(path)


def begin(path: str) -> Held:
    """Holds a directory that has just been made."""
    fds: list[int] = []
    partial = os.path.join(path, f"{ALIVE}.partial")
    try:
        # Locked before it has its name: nobody ever finds it without a holder whose job is only just beginning.
        fds.append(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        os.write(fds[0], _kernel())
        fcntl.flock(fds[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.rename(partial, os.path.join(path, ALIVE))
    except OSError:  # no locks on this file system, or no room
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(partial)
        return Held(path, [])
    with contextlib.suppress(OSError):
        # What systemd-tmpfiles finds locked it does not clear away, however long the job takes (tmpfiles.d(5)).
        fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        fcntl.flock(fds[1], fcntl.LOCK_SH | fcntl.LOCK_NB)
    return Held(path, fds)


def hold(path: str) -> Held:
    """Holds a directory that another process of this host has made, and still holds."""
    fd = _open(path)
    if fd is not None:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # it is being removed
            os.close(fd)
        else:
            return Held(path, [fd])
    return Held(path, [])


def remove(path: str) -> None:
    """Removes a run directory; the lock's file last, so that the next dlaunch finds what could not be removed."""
    import shutil  # 10 ms, as much as all else that a supervisor starts with

    with contextlib.suppress(OSError):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != ALIVE:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        if os.listdir(path) in ([], [ALIVE]):
            shutil.rmtree(path, ignore_errors=True)


def remove_left(parent: str) -> None:
    """Removes this user's run directories of jobs of this host of which nothing is left."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            fd = _open(entry.path)
            if fd is None:
                continue
            if _alone(fd):
                remove(entry.path)
            os.close(fd)


def _alone(fd: int) -> bool:
    """Whether nobody else holds a lock, after which nobody can."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open(path: str) -> int | None:
    """The file ``alive`` of a directory; None where there is none, or it is one of another host's."""
    try:
        fd = os.open(os.path.join(path, ALIVE), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.read(fd, 100) == _kernel():
        return fd
    os.close(fd)
    return None


def _kernel() -> bytes:
    # Locks know no process-id spaces: containers on one host that share a directory see each other's.
    return process.kernel().partition("/")[0].encode()
