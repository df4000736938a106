"""Futures: values that are not there yet; as ``torch.futures``.

A future is completed by whoever calls `Future.set_result`, or, where it stands for a collective
(``Work.get_future()``), by whoever waits for it or asks whether it is done: nothing runs behind the program's back, so
callbacks that call collectives themselves do so in the same order on every rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import GenericAlias
from typing import Any, ClassVar

__all__ = ["Future", "collect_all", "wait_all"]


class Future:
    """A value that will be there; as ``torch.futures.Future``.

    Parameters
    ----------
    devices : list, optional
        Accepted as in PyTorch.

    Examples
    --------
    >>> from disttorch.futures import Future
    >>> number = Future()
    >>> double = number.then(lambda done: 2 * done.value())
    >>> number.set_result(21)
    >>> double.wait()
    42
    """

    #: ``Future[Tensor]``, as annotations say it
    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(self, *, devices: list | None = None):
        self._changed = threading.Condition()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future], None]] = []
        #: Lets what the value comes from progress (True: until it is complete) and completes the future then.
        self._advance: Callable[[bool], None] | None = None

    def done(self) -> bool:
        """Whether the value, or an error in its place, is there."""
        self._let_progress(False)
        return self._done

    def wait(self) -> Any:
        """The value, as soon as it is there.

        Raises
        ------
        Exception
            What was set in the value's place, or what a callback of `then` raised.
        """
        self._let_progress(True)
        with self._changed:
            self._changed.wait_for(lambda: self._done)
        return self.value()

    def value(self) -> Any:
        """The value that is there.

        Raises
        ------
        RuntimeError
            If it is not there yet: `wait` waits.
        Exception
            As `wait`.
        """
        if not self._done:
            raise RuntimeError("Future.value: the future is not complete; wait() waits for it")
        if self._error is not None:
            raise self._error
        return self._value

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """A future of what a callback makes of this one.

        Parameters
        ----------
        callback : callable
            Called once with this future when it is complete, also where that is with an error; what it returns or raises
            becomes the new future's.

        Returns
        -------
        Future
        """
        child = Future()
        child._advance = self._advance

        def run(done: Future) -> None:
            try:
                value = callback(done)
            except Exception as error:
                child._complete(None, error)
            else:
                child._complete(value, None)

        self._when_done(run)
        return child

    def add_done_callback(self, callback: Callable[[Future], None]) -> None:
        """Have a callback called with this future when it is complete, without a new future.

        What it raises is raised where the future is completed.
        """
        self._when_done(callback)

    def set_result(self, result: Any) -> None:
        """Complete the future with a value, and run the callbacks.

        Raises
        ------
        RuntimeError
            If it is complete already.
        """
        self._complete(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Complete the future with an error, which `wait` and `value` raise.

        Raises
        ------
        RuntimeError
            If it is complete already.
        TypeError
            If it is no exception.
        """
        if not isinstance(result, BaseException):
            raise TypeError(f"set_exception: {result!r} is of type {type(result).__name__}, not an exception")
        self._complete(None, result)

    def _let_progress(self, wait: bool) -> None:
        advance = self._advance  # once: another thread may complete the future just now
        if not self._done and advance is not None:
            advance(wait)

    def _complete(self, value: Any, error: BaseException | None) -> None:
        if not self._settle(value, error):
            raise RuntimeError(
                "Attempting to mark a completed Future as complete again. Note that a Future can only be marked completed once."
            )

    def _settle(self, value: Any, error: BaseException | None) -> bool:
        """Complete the future and run the callbacks, unless it is complete already; whether it was not."""
        with self._changed:
            if self._done:
                return False
            self._value, self._error, self._done, self._advance = value, error, True, None
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback(self)
        return True

    def _when_done(self, callback: Callable[[Future], None]) -> None:
        with self._changed:
            if not self._done:
                self._callbacks.append(callback)
                noted = _noted.get()
                if noted is not None and self._advance is not None:
                    noted.append(self)
                return
        callback(self)

    def _done_within(self, seconds: float) -> bool:
        """Whether somebody else completes it in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done, seconds)


_noted: ContextVar[list[Future] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_callbacks(noted: list[Future]) -> Iterator[None]:
    """In the with-block futures of what is under way are noted when they are given callbacks: for whoever waits for something that
    these callbacks do, because they run only where somebody waits for such a future.
    """
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)


def collect_all(futures: Sequence[Future]) -> Future:
    """A future of the list of futures, complete when all of them are, well or not; as ``torch.futures.collect_all``.

    Examples
    --------
    >>> from disttorch.futures import Future, collect_all
    >>> both = [Future(), Future()]
    >>> together = collect_all(both)
    >>> for number, future in enumerate(both):
    ...     future.set_result(number)
    >>> [future.wait() for future in together.wait()]
    [0, 1]
    """
    futures = list(futures)
    together = Future()
    missing = len(futures)
    lock = threading.Lock()

    def one_more(_: Future) -> None:
        nonlocal missing
        with lock:
            missing -= 1
            last = missing == 0
        if last:
            together.set_result(futures)

    def advance(wait: bool) -> None:
        for future in futures:
            future._let_progress(wait)

    together._advance = advance
    for future in futures:
        future._when_done(one_more)
    if not futures:
        together.set_result(futures)
    return together


def wait_all(futures: Sequence[Future]) -> list[Any]:
    """The values of all futures; the first error is raised when all are complete. As ``torch.futures.wait_all``."""
    return [future.wait() for future in collect_all(futures).wait()]
