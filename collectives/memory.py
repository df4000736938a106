"""Memory that the processes of one node share, and which processes those are.

The memory is anonymous (memfd_create(2)): it has no name that could be left behind, counts against no limit of /dev/shm
(64 MB in many containers), and is freed with its last user, however that one ends. Another process maps it through
/proc/PID/fd/N. Where it may not (ranks in containers that hide processes from each other), `open_shared` raises
OSError, and the ranks do without shared memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import sys
import weakref
from typing import NamedTuple

import numpy as np

__all__ = ["Handle", "Shared", "create_shared", "machine_identity", "node_identity", "open_shared"]


HUGE = 4 * 2**20
"""Bytes from which on huge pages are asked for."""


class Handle(NamedTuple):
    """Where another process of the node finds a block."""

    pid: int
    fd: int
    nbytes: int


class Shared:
    """A block of shared memory; it stays mapped as long as arrays or words over it are in use.

    Python's own `mmap` keeps a file descriptor for each mapping. Here none is kept, since a rank maps a block of each rank of its node
    for each group, and many systems allow 1024 files.

    Attributes
    ----------
    bytes : ndarray of uint8, shape (nbytes,)
        All of it, writable.
    """

    def __init__(self, fd: int, nbytes: int):
        self._fd: int | None = fd
        address = _libc.mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        memory = (ctypes.c_ubyte * nbytes).from_address(address)
        # Not at the end of the process, when threads may still be at work on it: the system takes it then.
        weakref.finalize(memory, _libc.munmap, address, nbytes).atexit = False
        if hasattr(mmap, "MADV_HUGEPAGE") and nbytes >= HUGE:
            # Larger pages mean fewer of them to look up in a long sum. Systems give them on advice only if shmem_enabled says so;
            # that this one has none is no error.
            _libc.madvise(address, nbytes, mmap.MADV_HUGEPAGE)
        self._memory = memoryview(memory).cast("B")
        self.bytes = np.frombuffer(self._memory, np.uint8)

    def handle(self) -> Handle:
        """What others open it with, until `sealed`."""
        assert self._fd is not None
        return Handle(os.getpid(), self._fd, len(self._memory))

    def sealed(self) -> None:
        """All who should have it have opened it: give the file descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def words(self) -> memoryview:
        """The block as 64-bit integers. Reading or writing one of them is a single access to memory."""
        return self._memory.cast("q")

    def raw(self) -> memoryview:
        """The block as bytes."""
        return self._memory


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


def create_shared(nbytes: int, name: str = "collectives") -> Shared:
    """A new block, of zeros.

    Parameters
    ----------
    nbytes : int
        At least 1; rounded up to whole pages.
    name : str
        What it is called in /proc/PID/maps.

    Raises
    ------
    OSError
        If the system has no memory for it; the message says for how much.

    Examples
    --------
    >>> block = create_shared(100)
    >>> block.bytes[:3] = 7, 8, 9
    >>> open_shared(block.handle()).bytes[:4]
    array([7, 8, 9, 0], dtype=uint8)
    >>> block.sealed()
    """
    size = -(-max(1, nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return Shared(fd, size)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"no shared memory of {size:,} bytes: {error.strerror}") from error


def open_shared(handle: Handle) -> Shared:
    """A block that another process of this node has created.

    Raises
    ------
    OSError
        If that process cannot be seen from here, or has given the descriptor back.
    """
    fd = os.open(f"/proc/{handle.pid}/fd/{handle.fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != handle.nbytes:
            raise OSError(f"process {handle.pid} shares {os.fstat(fd).st_size} bytes, not {handle.nbytes}")
        block = Shared(fd, handle.nbytes)
    except OSError:
        os.close(fd)
        raise
    block.sealed()
    return block


def node_identity() -> str:
    """A text that is the same in two processes if they can share memory: one kernel, one space of process ids and one network.

    The network counts because namespaces with networks of their own are hosts to everyone else. DISTTORCH_NODE, if
    set, decides instead: with it one machine can stand for several.

    Examples
    --------
    >>> node_identity() == node_identity()
    True
    """
    named = os.environ.get("DISTTORCH_NODE")
    if named:
        return f"{named} (DISTTORCH_NODE)"
    if not sys.platform.startswith("linux"):
        return f"{socket.gethostname()}/{os.getpid()}"  # alone: nothing is known of how to share
    return "/".join((machine_identity(), os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/net")))


def machine_identity() -> str:
    """A text that is the same in two processes if one kernel runs them, which is who owns the devices. Names of hosts may be the same."""
    if not sys.platform.startswith("linux"):
        return socket.gethostname()
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return boot.read().strip()
