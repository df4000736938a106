"""Lets the C library keep memory that arrays have freed, for the next arrays. And the error of a device whose memory is full.

A training step frees and makes the same arrays again and again. Left to itself, glibc gives large ones back to the system,
which then has to fill every page with zeros once more. ``MALLOC_ARENA_TEST=8 python benchmarks/steps.py``, in an environment
without PyTorch, shows the steps without this.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["OutOfMemoryError", "keep_freed_memory"]

# From glibc's malloc.h; see mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MiB = 2**20
SETTINGS = {
    M_MMAP_THRESHOLD: 64 * MiB,  # smaller arrays come from the heap, where freed ones are found again
    M_TRIM_THRESHOLD: 512 * MiB,  # so much may be free at the end of the heap before some is given back
    M_TOP_PAD: 16 * MiB,
}


class OutOfMemoryError(RuntimeError):
    """A device's memory is full: the message says how much was asked for, by what, and who has the rest."""


def keep_freed_memory() -> None:
    """Set it, where the C library is glibc and the user has not decided by MALLOC_... variables of its own."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for parameter, value in SETTINGS.items():
            library.mallopt(parameter, value)
