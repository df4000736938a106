"""Where users find an operation, said in its own family's file, by tables of names:

    BOTH        a function of the package and a method of Tensor
    FUNCTIONS   a function of the package only
    METHODS     a method of Tensor only (names with an underscore at the end change the tensor in place)
    TWINS       those that also have a twin in place, ``name_``, made here: computed beside, then written
    OUT         those that get ``out=`` here: computed, then written into the tensor, or tuple of tensors, that was given
    ALIASES     {another name of PyTorch's: the name it means}
    ARGUMENTS   {name: {another name of an argument: its own}}, beyond those of `spelling.py`

Elementwise functions bring their twins and ``out=`` along (`elementwise.py`), without the copy. A new operation is a
function in a family's file and its name in these tables; a new family is a line in ``FAMILIES`` of ``ops/__init__.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ..autograd.variable import Tensor
from . import conversion
from .elementwise import IN_PLACE
from .operands import write_out
from .spelling import expecting_tensors, no_tensor, other_names, renamed, spelled

__all__ = ["TWINS_OF_THE_PACKAGE", "collect", "in_place_twin", "with_out"]

#: Twins in place that PyTorch also has as functions of the package.
TWINS_OF_THE_PACKAGE = """
    abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ as_strided_ asin_ asinh_ atan_ atanh_ ceil_ clamp_
    clamp_max_ clamp_min_ clip_ conj_physical_ cos_ cosh_ deg2rad_ erf_ erfc_ exp2_ exp_ expm1_ fix_ floor_ frac_ gcd_ i0_
    index_put_ lcm_ ldexp_ log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ resize_as_ round_
    rsqrt_ sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ xlogy_
""".split()


def collect(families: Iterable[ModuleType]) -> tuple[dict[str, Callable[..., Any]], dict[str, Callable[..., Any]]]:
    """The functions of the package and the methods of Tensor, by name.

    Raises
    ------
    TypeError
        If two families claim one name.
    """
    functions: dict[str, Callable[..., Any]] = {}
    methods: dict[str, Callable[..., Any]] = {}
    for family in families:
        tables = {k: getattr(family, k, "").split() for k in ("BOTH", "FUNCTIONS", "METHODS", "TWINS", "OUT")}
        aliases: dict[str, str] = getattr(family, "ALIASES", {})
        for name in tables["OUT"]:
            setattr(family, name, with_out(getattr(family, name)))
        spellings: dict[str, dict[str, str]] = getattr(family, "ARGUMENTS", {})
        for name in {*tables["BOTH"], *tables["FUNCTIONS"], *tables["METHODS"]}:
            setattr(family, name, spelled(getattr(family, name), spellings.get(name)))
        for places, names in (
            ((functions, methods), tables["BOTH"]),
            ((functions,), tables["FUNCTIONS"]),
            ((methods,), tables["METHODS"]),
        ):
            others = [(alias, meant) for alias, meant in aliases.items() if meant in names]
            for name, meant in [(n, n) for n in names] + others:
                for place in places:
                    if name in place:
                        raise TypeError(f"{family.__name__}: {name} is claimed by another family, or twice")
                    place[name] = getattr(family, meant)
        for name in tables["TWINS"]:
            twin = in_place_twin(name, getattr(family, name))
            for called in (name, *(alias for alias, meant in aliases.items() if meant == name)):
                methods[called + "_"] = twin
        for alias, meant in aliases.items():
            if meant + "_" in IN_PLACE:
                methods[alias + "_"] = IN_PLACE[meant + "_"]
    methods = {**IN_PLACE, **methods}
    functions.update((name, methods[name]) for name in TWINS_OF_THE_PACKAGE if name in methods and name not in functions)
    functions = {name: expecting_tensors(function) for name, function in functions.items()}
    return functions, methods


def in_place_twin(name: str, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A method that puts a function's result into its first argument's memory."""

    def in_place(input: Tensor, *args: Any, **options: Any) -> Tensor:
        return conversion.overwrite(name, input, function(conversion.before_overwriting(input), *args, **options))

    in_place.__wrapped__ = function  # type: ignore[attr-defined]
    in_place.other_names = getattr(function, "other_names", {})  # type: ignore[attr-defined]
    in_place.__name__ = in_place.__qualname__ = name + "_"
    in_place.__doc__ = f"`{name}` in place."
    return in_place


def with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that also takes ``out=``, a tensor or as many tensors as it has results."""

    others = other_names(function)

    @functools.wraps(function)
    def taking_out(*args: Any, out: Any = None, **options: Any) -> Any:
        if options and not others.keys().isdisjoint(options):
            options = renamed(function, others, options)
        try:
            result = function(*args, **options)
        except AttributeError as error:
            raise no_tensor(function, error, args, options) from None
        if out is None:
            return result
        if isinstance(result, Tensor):
            return write_out(function.__name__, result, out)
        if len(out) != len(result):
            raise TypeError(f"{function.__name__}: out= has {len(out)} tensors, but there are {len(result)} results")
        written = [write_out(function.__name__, r, o) for r, o in zip(result, out)]
        return result._make(written) if hasattr(result, "_make") else tuple(written)

    taking_out.other_names = others  # type: ignore[attr-defined]
    return taking_out
