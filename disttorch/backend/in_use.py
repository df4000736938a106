"""Which GPU a process computes on, and whether there is more than one: then operations must look where their tensors are.

The rule is one GPU a process, made the current one before any tensor is there. The first that is anything else tells those who asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["WHEN_SEVERAL", "arrays_on", "choose", "forget", "others_than", "several"]

#: Called once, by the thread that uses a second GPU, before it does.
WHEN_SEVERAL: list[Callable[[], None]] = []


class _Use:
    #: the one GPU; where nothing was chosen, the one that every thread starts with
    number = 0
    has_arrays = False
    several = False


_lock = threading.RLock()


def choose(number: int) -> None:
    """A GPU becomes the current one for good. Before there are arrays, this is the choice of the one GPU."""
    if number != _Use.number:
        with _lock:
            if not _Use.has_arrays and not _Use.several:
                _Use.number = number
        others_than(number)


def arrays_on(number: int | None) -> None:
    """Arrays are made on a GPU."""
    if number != _Use.number:
        others_than(number)
    elif not _Use.has_arrays:
        _Use.has_arrays = True


def others_than(number: int | None) -> None:
    """A GPU is used, or becomes the current one for a while: tell if it is not the one."""
    if number is None or number == _Use.number or _Use.several:
        return
    with _lock:
        if not _Use.several:
            for tell in WHEN_SEVERAL:
                tell()
            _Use.several = True


def several() -> bool:
    """Whether the process has used more than one GPU."""
    return _Use.several


def forget() -> None:
    """As at the beginning."""
    _Use.number, _Use.has_arrays, _Use.several = 0, False, False
