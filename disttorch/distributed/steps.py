"""Futures whose value takes several collectives, one after the other.

A callback of ``Future.then`` that starts a collective of its own does so when this rank sees the first one complete,
which is earlier on one rank than on another; but collectives must be started in one order on all ranks. Here the steps are a
generator, and `Steps.step` takes one at a moment that all ranks have in common.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import collectives

from ..futures import Future

__all__ = ["Steps"]


class Steps(Future):
    """The value that a generator returns, which yields what is to be waited for before it goes on.

    Parameters
    ----------
    generator : generator
        Yields a `collectives.Work` or a `Future`, and is sent the future's value. It runs at once, up to its first yield.

    Examples
    --------
    >>> import collectives, numpy as np
    >>> def twice(world, values):
    ...     yield world.all_reduce(values, async_op=True)
    ...     yield world.all_reduce(values, async_op=True)
    ...     return values
    >>> Steps(twice(collectives.connect("local"), np.ones(2))).wait()
    array([1., 1.])
    """

    def __init__(self, generator: Generator[Any, Any, Any]):
        super().__init__()
        self._generator = generator
        self._awaited: Any = None
        self._advance = self._move
        self._resume(None)

    def step(self) -> None:
        """Wait for what the generator waits for, and let it run up to the next yield."""
        if self._done:
            return
        if isinstance(self._awaited, Steps) and not self._awaited._done:
            self._awaited.step()
            if not self._awaited._done:
                return
        try:
            value = self._awaited.wait()
        except Exception as error:
            self._resume(None, error)
        else:
            self._resume(value)

    def _move(self, wait: bool) -> None:
        while not self._done and (wait or self._is_there()):
            self.step()

    def _is_there(self) -> bool:
        awaited = self._awaited
        return awaited.test() if isinstance(awaited, collectives.Work) else awaited.done()

    def _resume(self, value: Any, error: Exception | None = None) -> None:
        try:
            self._awaited = self._generator.send(value) if error is None else self._generator.throw(error)
        except StopIteration as end:
            self._complete(end.value, None)
        except Exception as raised:
            self._complete(None, raised)
