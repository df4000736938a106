"""``compile`` and its surroundings, as ``torch.compiler``: there is no compiler, so everything runs as it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "allow_in_graph", "compile", "cudagraph_mark_step_begin", "disable", "is_compiling", "is_dynamo_compiling", "is_exporting", "reset",
]  # fmt: skip


def compile(
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    **others: Any,
) -> Any:
    """The model or function itself; as ``torch.compile``, which gives one that computes the same.

    Parameters
    ----------
    model : Module or callable, optional
        Without it, a decorator.
    fullgraph, dynamic, backend, mode, options, disable
        Accepted as in PyTorch.

    Examples
    --------
    >>> import disttorch
    >>> model = disttorch.nn.Linear(1, 1)
    >>> disttorch.compile(model, mode="max-autotune") is model
    True
    """
    if model is None:
        return lambda function: function
    if not callable(model):
        raise RuntimeError(f"Model can't be {type(model).__name__}: it must be a Module or a function")
    return model


def disable(fn: Callable | None = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function itself, or a decorator that returns it."""
    return (lambda function: function) if fn is None else fn


def allow_in_graph(fn: Any) -> Any:
    """The function itself."""
    return fn


def is_compiling() -> bool:
    """Whether a compiler looks at the program: there is none."""
    return False


is_dynamo_compiling = is_exporting = is_compiling


def reset() -> None:
    """Nothing is kept that could be reset."""


def cudagraph_mark_step_begin() -> None:
    """Nothing is captured."""
