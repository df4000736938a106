"""As ``torch.jit``, for programs that are decorated for it: `script` and `trace` give back what they are given, to run in Python.

There is no second language and no archive of programs, so `save` and `load` are not here: see `disttorch.save`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

__all__ = ["Final", "export", "freeze", "ignore", "is_scripting", "is_tracing", "optimize_for_inference", "optimized_execution", "script",
           "script_if_tracing", "trace", "unused"]  # fmt: skip


def script(obj: Any, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> Any:
    """The function, class or module itself.

    Examples
    --------
    >>> import disttorch
    >>> @disttorch.jit.script
    ... def double(x: disttorch.Tensor):
    ...     return x * 2
    >>> double(disttorch.ones(1))
    tensor([2.])
    """
    return obj


def trace(func: Callable, example_inputs: Any = None, **options: Any) -> Any:
    """The function or module itself; it is not called with the example."""
    return func


def freeze(mod: Any, preserved_attrs: Any = None, optimize_numerics: bool = True) -> Any:
    """The module itself."""
    return mod


def optimize_for_inference(mod: Any, other_methods: Any = None) -> Any:
    """The module itself."""
    return mod


def script_if_tracing(fn: Callable) -> Callable:
    """The function itself."""
    return fn


def export(fn: Callable) -> Callable:
    """The function itself."""
    return fn


def ignore(drop: Any = False, **options: Any) -> Any:
    """The function itself, with and without parentheses."""
    return drop if callable(drop) else (lambda function: function)


unused = export


def is_scripting() -> bool:
    """Whether TorchScript runs: never."""
    return False


def is_tracing() -> bool:
    """Whether a trace is taken: never."""
    return False


def optimized_execution(should_optimize: bool) -> Any:
    """A with-block that changes nothing."""
    return nullcontext()
