"""How an operation on arrays is launched: its uses of memory are checked, then it is carried out, queued or captured.

An operation is a function that computes NumPy arrays from NumPy arrays on the blocks' memory. Where it cannot run yet (its stream is
held up, or captured) it is run on what is in memory for the sake of the results' shapes, and again when it is its turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import devices
from .arrays import empty_like_result, ndarray
from .order import Region, lock, state
from .streams import current, submit, synchronising

__all__ = ["bounds", "compute", "launch", "put"]

Uses = list[tuple[Region, int, int, bool]]


def bounds(array: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array and behind its last."""
    values = array._a
    start: int = array.data.ptr
    if not values.size:
        return start, start
    if values.flags.c_contiguous:
        return start, start + values.nbytes
    low = high = 0
    for n, step in zip(values.shape, values.strides):
        if step > 0:
            high += (n - 1) * step
        else:
            low += (n - 1) * step
    return start + low, start + high + values.itemsize


def uses_of(reads: Sequence[Any], writes: Sequence[Any], name: str) -> Uses:
    device = devices.current()
    uses: Uses = []
    for arrays, writing in ((reads, False), (writes, True)):
        for array in arrays:
            region = array._region
            if region is None:
                continue
            if region.device != device:
                raise ValueError(
                    f"The device where the array resides ({region.device}) is different from the current device ({device}) [{name}]. "
                    "Peer access is unavailable between these devices."
                )
            low, high = bounds(array)
            if high > low:
                uses.append((region, low, high, writing))
    return uses


def launch(name: str, action: Callable[[], Any], reads: Sequence[Any], writes: Sequence[Any]) -> None:
    """Launch what writes to arrays that are there already."""
    with lock:
        note_order(name, reads, writes)
        uses = uses_of(reads, writes, name)
        line = current()
        line.advance()

        def act() -> bool:
            action()
            return True

        submit(line, name, act, uses)


def note_order(name: str, reads: Sequence[Any], writes: Sequence[Any]) -> None:
    """Note where elements of images or volumes are laid out in another order than they are read in."""
    if state.turned is None:
        return
    for made in writes:
        for read in reads:
            alike = made.ndim > 3 and read.shape == made.shape and all(read.strides) and all(made.strides)
            if alike and made.size and steps(read) != steps(made):
                state.turned.append((name, made.shape))
                break


def steps(array: Any) -> list[int]:
    """The dimensions of more than one element, from the outermost in memory to the innermost."""
    return sorted([d for d, n in enumerate(array.shape) if n > 1], key=lambda d: -abs(array.strides[d]))


def compute(name: str, function: Callable[[], Any], reads: Sequence[Any], synchronises: bool = False) -> Any:
    """Launch what makes new arrays, and give them; views of arrays that were read are views, for which nothing is launched."""
    if synchronises:
        synchronising(name)
    with lock:
        line = current()
        result = function()
        several = isinstance(result, (tuple, list))
        parts = list(result) if several else [result]
        made: list[Any] = []
        fresh: list[tuple[int, Any]] = []
        for number, part in enumerate(parts):
            if isinstance(part, np.ndarray) and part.dtype.kind != "O":
                view = _view(part, reads)
                if view is None:
                    view = empty_like_result(part, name in ("astype", "copy"))
                    fresh.append((number, view))
                made.append(view)
            elif isinstance(part, (np.generic, bool)):
                view = empty_like_result(np.asarray(part))
                fresh.append((number, view))
                made.append(view)
            else:
                made.append(part)
        note_order(name, reads, [view for _, view in fresh])
        if fresh:
            uses = uses_of(reads, [view for _, view in fresh], name)
            line.advance()
            ready: list[Any] = [None if line.busy or line.capture is not None else parts]

            def act() -> bool:
                values = ready.pop() if ready else None
                if values is None:
                    again = function()
                    values = list(again) if several else [again]
                for number, view in fresh:
                    view._a[...] = values[number]
                return True

            submit(line, name, act, uses)
        if synchronises:
            from .streams import get_current_stream

            get_current_stream().synchronize()
        if not several:
            return made[0]
        return type(result)(*made) if hasattr(result, "_fields") else type(result)(made)


def put(name: str, target: Any, function: Callable[[], Any], reads: Sequence[Any]) -> None:
    """Launch what computes an array and writes it to another."""

    def action() -> None:
        target._a[...] = function()

    launch(name, action, reads, [target])


def _view(part: np.ndarray, reads: Sequence[Any]) -> Any:
    """The array as a view of one that was read, or None where its memory is new."""
    if part.base is None and not any(part is each._a for each in reads):
        return None
    start = part.__array_interface__["data"][0]
    for each in reads:
        region = each._region
        if region is not None and (region.pointer <= start < region.pointer + region.size) and part.size:
            return ndarray.on(part, each, start)
        if region is None and not part.size and part.base is not None:
            return ndarray.on(part, each, each.data.ptr)
        if not part.size and math.prod(each.shape) and part.base is not None and np.may_share_memory(part.base, each._a):
            return ndarray.on(part, each, each.data.ptr)
    return None


def count_calls() -> list[str]:
    """Begin to note the names of all that is launched."""
    state.calls = []
    return state.calls
