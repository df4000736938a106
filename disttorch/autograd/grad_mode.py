"""Whether operations are recorded: no_grad, enable_grad, set_grad_enabled, inference_mode, detect_anomaly.

The mode is a context variable: each thread and each asyncio task has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import ContextVar
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

__all__ = [
    "ANOMALY",
    "detect_anomaly",
    "enable_grad",
    "inference_mode",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "recording",
    "set_detect_anomaly",
    "set_grad_enabled",
]

#: What recording holds under detect_anomaly: true, and each node also notes where it was recorded.
ANOMALY = 2

recording: ContextVar[int] = ContextVar("disttorch.recording", default=True)
_anomaly: ContextVar[bool] = ContextVar("disttorch.anomaly", default=False)
_inference: ContextVar[bool] = ContextVar("disttorch.inference", default=False)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return bool(recording.get())


def is_anomaly_enabled() -> bool:
    """Whether backward looks for NaN in this thread."""
    return _anomaly.get()


def is_inference_mode_enabled() -> bool:
    """Whether the innermost block is an `inference_mode`."""
    return _inference.get()


def _mode(enabled: bool) -> int:
    return ANOMALY if enabled and _anomaly.get() else enabled


class _Block:
    """A mode for the length of a with-block, or of each call of the function that it decorates."""

    _before: list[tuple]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        block = object.__new__(cls)
        block._before = []
        return block

    def _enter(self) -> tuple:
        raise NotImplementedError

    def __enter__(self) -> None:
        self._before.append((recording.get(), _anomaly.get(), _inference.get()))
        self._enter()

    def __exit__(self, *exception: Any) -> None:
        before = self._before.pop()
        recording.set(before[0])
        _anomaly.set(before[1])
        _inference.set(before[2])

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: self)


def decorated(function: Callable, block: Callable[[], Any]) -> Callable:
    """The function with a block around each call; of a generator, around each of its steps."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with block():
            return function(*args, **kwargs)

    @wraps(function)
    def stepped(*args: Any, **kwargs: Any) -> Generator:
        generator = function(*args, **kwargs)
        step, argument = generator.send, None
        while True:
            try:
                with block():
                    value = step(argument)
            except StopIteration as end:
                return end.value
            try:
                step, argument = generator.send, (yield value)
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                step, argument = generator.throw, error

    return stepped if isgeneratorfunction(function) else wrapped


class _PlainBlock(_Block):
    """Can decorate with and without parentheses: ``@no_grad()`` and ``@no_grad``."""

    def __new__(cls, function: Callable | None = None) -> Any:
        block = super().__new__(cls)
        return block if function is None else _Block.__call__(block, function)


class no_grad(_PlainBlock):
    """Do not record operations: results need no gradient, and parameters may be changed in place.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(2, requires_grad=True)
    >>> with disttorch.no_grad():
    ...     print((w * 2).requires_grad)
    False
    """

    def _enter(self) -> Any:
        recording.set(False)


class enable_grad(_PlainBlock):
    """Record operations, inside a `no_grad` block too."""

    def _enter(self) -> Any:
        recording.set(_mode(True))


class inference_mode(_Block):
    """Do not record operations; ``inference_mode(False)`` does nothing. As ``torch.inference_mode``."""

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):
            return _Block.__call__(cls(), mode)
        block = super().__new__(cls)
        block._wanted = bool(mode)
        return block

    def _enter(self) -> Any:
        if self._wanted:  # type: ignore[attr-defined]
            recording.set(False)
            _inference.set(True)


class set_grad_enabled(_Block):
    """Record operations or not, from now on, and inside a with-block only until its end.

    Parameters
    ----------
    mode : bool
    """

    def __init__(self, mode: bool):
        self.mode = bool(mode)
        self._outer = (recording.get(), _anomaly.get(), _inference.get())
        recording.set(_mode(self.mode))

    def __enter__(self) -> None:
        self._before.append(self._outer)
        recording.set(_mode(self.mode))

    def __call__(self, function: Callable) -> Callable:
        recording.set(self._outer[0])  # as a decorator it only applies during calls
        return decorated(function, lambda: set_grad_enabled(self.mode))


class set_detect_anomaly(_Block):
    """Like `detect_anomaly`, from now on, and inside a with-block only until its end.

    Parameters
    ----------
    mode : bool
    check_nan : bool
        Accepted as in PyTorch; backward looks for NaN whenever the mode is on and this is true.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self._outer = (recording.get(), _anomaly.get(), _inference.get())
        _anomaly.set(bool(mode) and check_nan)
        recording.set(_mode(bool(recording.get())))

    def __enter__(self) -> None:
        self._before.append(self._outer)


class detect_anomaly(_Block):
    """Stop backward at the first operation whose gradient has a NaN, name it and show where it was computed.

    Parameters
    ----------
    check_nan : bool

    Notes
    -----
    Every operation notes its place in the program, which is slow: for debugging
    (https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection).
    """

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan

    def _enter(self) -> Any:
        _anomaly.set(self.check_nan)
        recording.set(_mode(bool(recording.get())))
