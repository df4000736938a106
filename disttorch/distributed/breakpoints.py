"""A breakpoint of one rank, at which the others wait."""

from __future__ import annotations

import bdb
import pdb
import sys
from collections import Counter

from .groups import _get_default_group

__all__ = ["breakpoint"]

_passed: Counter[tuple[str, int]] = Counter()
"""How often each place in a program has been come to."""


def breakpoint(rank: int = 0, skip: int = 0, timeout_s: float | None = 3600) -> None:
    """Let one rank look around in the debugger; the others wait until it goes on. As ``torch.distributed.breakpoint``.

    The debugger is in the frame that calls this, and its ``c`` goes on. Of the ranks that a launcher started it is most often only
    rank 0 that can read what is typed.

    Parameters
    ----------
    rank : int
        The rank of the world that stops.
    skip : int
        How many times to pass by this place first.
    timeout_s : float, optional
        How long the others wait, in seconds; None: as long as the group's timeout.

    Raises
    ------
    bdb.BdbQuit
        If the debugger is quit.
    ValueError
        If there is no such rank.
    """
    world = _get_default_group()
    if not 0 <= rank < world.size():
        raise ValueError(f"breakpoint: there is no rank {rank} in a world of {world.size()}")
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    _passed[place] += 1
    if _passed[place] <= skip:
        return
    if world.rank() == rank:
        debugger = pdb.Pdb()
        debugger.message(f"rank {rank} is at a breakpoint; the other ranks wait for it")
        debugger.reset()
        debugger.interaction(frame, None)
        if debugger.quitting:
            raise bdb.BdbQuit
    with world.communicator.within(timeout_s):
        world.communicator.barrier()
