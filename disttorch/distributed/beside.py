"""What the reducer of gradients does beside backward on a GPU: a stream for communication hooks, and flags that are read later.

A hook computes, too: it converts a bucket, waits for a collective, computes again. On the stream of backward that would hold up the
gradients still to come; so it has a stream of its own, behind backward's when a bucket is full, and before it when backward has ended.

Flags tell whether a rank missed a gradient. To read them the host must wait for the GPU. They are copied while the GPU goes on, and read
a pass later, when they have long been there; on all ranks at the same place, since what is done then all ranks do together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import cuda
from ..autograd.variable import wrap

__all__ = ["LateFlags", "Side"]


class Side:
    """A stream of a GPU beside that of backward.

    Parameters
    ----------
    device : device
    """

    def __init__(self, device: Any):
        self._device = device
        self._stream = cuda.Stream(device)

    @contextmanager
    def behind(self) -> Iterator[None]:
        """What is computed in the with-block comes behind what the current stream has now."""
        self._stream.wait_stream(cuda.current_stream(self._device))
        with cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let what is computed from now on come behind it."""
        cuda.current_stream(self._device).wait_stream(self._stream)


class LateFlags:
    """Flags on their way to the host, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, Any, list[str]]] = deque()

    def note(self, flag: Any, missing: list[str]) -> None:
        """Begin to copy a flag, an array of one element, of a pass in which this rank missed some gradients."""
        there = wrap(flag).to("cpu", non_blocking=True)
        self._waiting.append((cuda.current_stream(wrap(flag).device).record_event(), there, missing))

    def due(self) -> list[str] | None:
        """What this rank missed in the pass before the last, if some rank missed something in it."""
        if len(self._waiting) < 2:
            return None
        event, there, missing = self._waiting.popleft()
        if not event.query():
            event.synchronize()  # the host is more than a step ahead of the GPU, which it does not keep waiting
        return missing if bool(there._array[0]) else None
