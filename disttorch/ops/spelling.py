"""What users may write for an argument, and what they are told when it is no tensor.

Other names of arguments, which PyTorch's functions take too, are NumPy's ``axis``, ``keepdims`` and ``x``, and older ones:

    torch.cat((a, b), axis=1)        # dim
    x.amax(axis=0, keepdims=True)    # dim, keepdim
    torch.linalg.norm(input=x)       # A

Elementwise functions do not take them: they would pay for it in every call. They look at their operands by themselves; other
functions just use them, and the error is put into the caller's words here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any

from ..autograd.variable import Tensor

__all__ = ["expecting_tensors", "no_tensor", "other_names", "renamed", "spelled", "spelled_in"]

#: names that stand for the first argument, however it is called, and for one of a certain name
_FIRST = ("input", "x", "a", "x1")
_NAMED = {"dim": ("axis",), "keepdim": ("keepdims",), "other": ("x2",), "B": ("b", "other")}


def other_names(function: Callable[..., Any], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """What else a function's arguments may be called: {the other name: its own}; none where it has no dimensions and is no
    function of matrices.
    """
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not isinstance(function, FunctionType):
        return {}
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found = dict(known or ())
    if "axis" in names and "keepdims" in names:  # sum and mean, which everybody calls, spell them themselves
        return found
    if "dim" in names or "keepdim" in names or (names and names[0] in ("A", "B", "L", "b")):
        found.update((other, name) for name in names if name in _NAMED for other in _NAMED[name])
        found.update((other, names[0]) for other in _FIRST)
    return {other: name for other, name in found.items() if other not in names}


def renamed(function: Callable[..., Any], others: Mapping[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """Options under the function's own names.

    Raises
    ------
    TypeError
        If an argument is given under two names.
    """
    result: dict[str, Any] = {}
    for name, value in options.items():
        own = others.get(name, name)
        if own in result or (own != name and own in options):
            raise TypeError(f"{function.__name__}() got several values for argument '{own}', also called '{name}'")
        result[own] = value
    return result


def spelled(function: Callable[..., Any], known: Mapping[str, str] | None = None) -> Callable[..., Any]:
    """A function that takes its arguments under their other names too; the function itself where they have none."""
    if hasattr(function, "other_names") and not known:
        return function
    others = other_names(function, known)
    if not others:
        return function

    @functools.wraps(function)
    def taking_other_names(*args: Any, **options: Any) -> Any:
        if options and not others.keys().isdisjoint(options):
            options = renamed(function, others, options)
        try:
            return function(*args, **options)
        except AttributeError as error:
            raise no_tensor(function, error, args, options) from None

    taking_other_names.other_names = others  # type: ignore[attr-defined]
    return taking_other_names


def expecting_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that says so, by a TypeError, where it is given something else than a tensor; itself where it looks already."""
    looks = hasattr(function, "operation") or (hasattr(function, "other_names") and not function.__name__.endswith("_"))
    if looks or function.__name__ in _LOOK or _arguments(function)[:1] not in _TENSORS:
        return function

    @functools.wraps(function)
    def expecting(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except AttributeError as error:
            raise no_tensor(function, error, args, options) from None

    expecting.other_names = {}  # type: ignore[attr-defined]
    return expecting


#: What looks at its operands itself, and is called too often for another call around it.
_LOOK = frozenset(
    """
    add sub subtract mul multiply div divide true_divide rsub pow clamp clip clamp_min clamp_max maximum minimum relu sum matmul mm bmm
    mv dot vdot addmm baddbmm lerp
    """.split()
)
#: The first argument of functions of tensors.
_TENSORS = {("input",), ("tensor",), ("y",), ("condition",), ("count",)}


def _arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function.__code__.co_varnames if isinstance(function, FunctionType) else ()


def no_tensor(function: Callable[..., Any], error: AttributeError, args: tuple, options: Mapping[str, Any]) -> Exception:
    """The error to raise: a TypeError where an argument lacks what tensors have, else the one that there is."""
    for name, value in [*zip(_arguments(function), args), *options.items()]:
        if value is error.obj and not isinstance(value, Tensor):
            return TypeError(f"{function.__name__}(): argument '{name}' must be Tensor, not {type(value).__name__}")
    return error


def spelled_in(namespace: dict[str, Any], names: Iterable[str], known: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """`spelled` for functions of a module; `known` as ``ARGUMENTS`` in `public.py`."""
    for name in names:
        if isinstance(namespace[name], FunctionType):
            namespace[name] = spelled(namespace[name], (known or {}).get(name))
