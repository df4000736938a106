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
    "SAVED_HOOKS",
    "detect_anomaly",
    "enable_grad",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "recording",
    "saved_hooks",
    "set_detect_anomaly",
    "set_grad_enabled",
]

#: `recording` is 0, or 1 and what else is to be done with each node: note the place in the program where it was recorded,
ANOMALY = 2
#: give what it saved to the hooks of `saved_tensors_hooks`.
SAVED_HOOKS = 4

recording: ContextVar[int] = ContextVar("disttorch.recording", default=1)
#: the (pack, unpack) hooks that are set, the innermost last; or what forbids to set any
saved_hooks: ContextVar[tuple] = ContextVar("disttorch.saved_hooks", default=())
# 0, 1 for anomaly mode, 2 if it looks for NaN too
_anomaly: ContextVar[int] = ContextVar("disttorch.anomaly", default=0)
_inference: ContextVar[bool] = ContextVar("disttorch.inference", default=False)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return bool(recording.get())


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on in this thread."""
    return _anomaly.get() > 0


def is_anomaly_check_nan_enabled() -> bool:
    """Whether backward looks for NaN in this thread."""
    return _anomaly.get() > 1


def is_inference_mode_enabled() -> bool:
    """Whether the innermost block is an `inference_mode`."""
    return _inference.get()


def mode_of(enabled: bool) -> int:
    """What `recording` is set to, in this thread's anomaly mode and with its hooks, to record or not."""
    if not enabled:
        return 0
    return 1 | (ANOMALY if _anomaly.get() else 0) | (SAVED_HOOKS if saved_hooks.get() else 0)


def use_saved_hooks(hooks: tuple) -> tuple:
    """Set all (pack, unpack) hooks of this thread; returns those before, for `use_saved_hooks` again."""
    before = saved_hooks.get()
    saved_hooks.set(hooks)
    recording.set(mode_of(recording.get() > 0))
    return before


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
        recording.set(0)


class enable_grad(_PlainBlock):
    """Record operations, inside a `no_grad` block too."""

    def _enter(self) -> Any:
        recording.set(mode_of(True))


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
            recording.set(0)
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
        recording.set(mode_of(self.mode))

    def __enter__(self) -> None:
        self._before.append(self._outer)
        recording.set(mode_of(self.mode))

    def __call__(self, function: Callable) -> Callable:
        recording.set(self._outer[0])  # as a decorator it only applies during calls
        return decorated(function, lambda: set_grad_enabled(self.mode))


class set_detect_anomaly(_Block):
    """Like `detect_anomaly`, from now on, and inside a with-block only until its end.

    Parameters
    ----------
    mode : bool
    check_nan : bool
        Whether backward looks for NaN.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self._outer = (recording.get(), _anomaly.get(), _inference.get())
        _anomaly.set((2 if check_nan else 1) if mode else 0)
        recording.set(mode_of(recording.get() > 0))

    def __enter__(self) -> None:
        self._before.append(self._outer)


class detect_anomaly(_Block):
    """Show where in the program an operation was computed whose derivative fails, or has a NaN; backward stops there.

    Parameters
    ----------
    check_nan : bool
        Whether a NaN is an error; otherwise only what raises one by itself.

    Notes
    -----
    Every operation notes its place in the program, which is slow: for debugging
    (https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection).
    """

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan

    def _enter(self) -> Any:
        _anomaly.set(2 if self.check_nan else 1)
        recording.set(mode_of(recording.get() > 0))
