"""How layers that are no more than a function and its arguments are made of a table line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .module import Module

__all__ = ["REQUIRED", "layer"]

#: the default of a parameter that has none
REQUIRED: Any = inspect.Parameter.empty


def layer(
    name: str,
    function: Callable[..., Any],
    *,
    inputs: int = 1,
    buffers: Sequence[str] = (),
    keyword_only: bool = False,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    show: Callable[[Any], str] | None = None,
    base: type[Module] = Module,
    **parameters: Any,
) -> type[Module]:
    """A module class that keeps arguments and calls a function with them.

    Parameters
    ----------
    name : str
        The class's, under which its file keeps it.
    function : callable
        ``function(*inputs, **arguments)``.
    inputs : int
        How many the module takes when it is called.
    buffers : sequence of str
        Parameters that are tensors or None.
    keyword_only : bool
        Whether the constructor takes no positional arguments.
    prepare : callable, optional
        Makes of the constructor's arguments those that are kept and passed on.
    show : callable, optional
        The module's `extra_repr`; otherwise all arguments, of which ``inplace`` only where it is True.
    base : type
        What the class is derived from.
    **parameters
        The constructor's, with their defaults.
    """
    kind = inspect.Parameter.KEYWORD_ONLY if keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(n, kind, default=d) for n, d in parameters.items()])
    kept = tuple(prepare({n: None if d is REQUIRED else d for n, d in parameters.items()}))

    def construct(self: Module, *args: Any, **options: Any) -> None:
        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        bound.apply_defaults()
        Module.__init__(self)
        for n, value in prepare(bound.arguments).items():
            if n in buffers:
                self.register_buffer(n, value)
            else:
                setattr(self, n, value)

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        if len(arguments) + len(named) != inputs:
            raise TypeError(f"{name} takes {inputs} input{'s' if inputs > 1 else ''}, but {len(arguments) + len(named)} were given")
        return function(*arguments, **named, **{n: getattr(self, n) for n in kept})

    def forward_alone(self: Any, input: Any) -> Any:
        return function(input)

    def extra_repr(self: Any) -> str:
        shown = [(n, getattr(self, n)) for n in kept]
        return ", ".join(f"{n}={v!r}" for n, v in shown if n != "inplace" or v)

    members = {
        "__init__": construct,
        "__signature__": signature,
        "forward": forward if kept or inputs > 1 else forward_alone,
        "extra_repr": show or extra_repr,
        "__doc__": f"The function `{function.__name__}` as a module; as ``torch.nn.{name}``. Its arguments are the function's.",
        "__module__": sys._getframe(1).f_globals["__name__"],
    }
    return type(name, (base,), members)
