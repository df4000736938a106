"""Tensors overwritten at random: ``uniform_``, ``normal_``, ``random_``, ... in place."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.operation import check_in_place, finish_in_place
from ...autograd.variable import Tensor, bump_version, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.dtypes import DTYPES
from ..conversion import assign
from ..random import Generator, generator_for
from .drawn import check_probability, check_range

# What users find of this family, and where: see ops/public.py.
METHODS = "bernoulli_ cauchy_ exponential_ geometric_ log_normal_ normal_ random_ uniform_"


def _in_place(name: str, draw: Any, doc: str) -> Any:
    def function(input: Tensor, *args: Any, generator: Generator | None = None, **options: Any) -> Tensor:
        if "from" in options:
            options["from_"] = options.pop("from")
        check_in_place(name.removesuffix("_"), input)
        a = input._array
        drawn = draw(generator_for(input.device, generator), a.shape, DTYPES[a.dtype], *args, **options)
        namespace(a).copyto(a, drawn, casting="unsafe")
        bump_version(input)
        finish_in_place(assign, (input, wrap(a)), (a, a), (), {})
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Overwrite with {doc}; as ``torch.Tensor.{name}``."
    return function


def _only_floating(name: str, d: dt.dtype, complex_too: bool = False) -> None:
    if d.category < dt.FLOAT or (d.is_complex and not complex_too):
        raise NotImplementedError(f"{name} is a continuous distribution: dtype must be floating point, not {d}")


def _open_uniform(source: Any, shape: Any) -> Any:
    """In (0, 1), in float64: logarithms are taken of it."""
    return 1.0 - source.uniform(shape, dt.float64)


def _uniform(source: Any, shape: Any, d: dt.dtype, from_: float = 0.0, to: float = 1.0) -> Any:
    _only_floating("uniform_", d, complex_too=True)
    if from_ > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    if to - from_ > dt.finfo(d).max:
        raise RuntimeError(f"uniform_ expects to-from <= max of {d}, but found to={to} and from={from_}")
    return source.uniform(shape, d) * (to - from_) + from_


def _normal(source: Any, shape: Any, d: dt.dtype, mean: float = 0.0, std: float = 1.0) -> Any:
    _only_floating("normal_", d, complex_too=True)
    if std < 0:
        raise RuntimeError(f"normal_ expects std >= 0.0, but found std {std}")
    return source.normal(shape, d) * std + mean


def _log_normal(source: Any, shape: Any, d: dt.dtype, mean: float = 1.0, std: float = 2.0) -> Any:
    _only_floating("log_normal_", d)
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    drawn = source.normal(shape, dt.float64) * std + mean
    return namespace(drawn).exp(drawn)


def _exponential(source: Any, shape: Any, d: dt.dtype, lambd: float = 1.0) -> Any:
    if d.category != dt.FLOAT:
        raise RuntimeError(f"Exponential distribution is a continuous probability distribution: dtype must be floating point, not {d}")
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    u = _open_uniform(source, shape)
    return -namespace(u).log(u) / lambd


def _cauchy(source: Any, shape: Any, d: dt.dtype, median: float = 0.0, sigma: float = 1.0) -> Any:
    if d.category != dt.FLOAT:
        raise RuntimeError(f"Cauchy distribution is a continuous probability distribution: dtype must be floating point, not {d}")
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    u = _open_uniform(source, shape)
    return median + sigma * namespace(u).tan(math.pi * (u - 0.5))


def _geometric(source: Any, shape: Any, d: dt.dtype, p: float) -> Any:
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    u = _open_uniform(source, shape)
    return namespace(u).floor(namespace(u).log(u) / math.log1p(-p)) + 1


def _bernoulli(source: Any, shape: Any, d: dt.dtype, p: Any = 0.5) -> Any:
    if isinstance(p, Tensor):
        xp = namespace(p._array)
        if p.numel() and not bool(xp.all((p._array >= 0) & (p._array <= 1))):
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
        return source.uniform(shape, dt.float64) < p._array
    check_probability("bernoulli_", p)
    return source.uniform(shape, dt.float64) < p


def _random(source: Any, shape: Any, d: dt.dtype, from_: int | None = None, to: int | None = None) -> Any:
    if d.category == dt.COMPLEX:
        raise NotImplementedError(f"random_ is not implemented for {d}")
    if from_ is not None and to is None:
        from_, to = 0, from_
    if to is None:
        # floating point: integers up to which all can be represented
        whole = {"float16": 11, "bfloat16": 8, "float32": 24}.get(d.name, 53)
        to = 2**whole + 1 if d.category >= dt.FLOAT else 2 if d is dt.bool_ else dt.iinfo(d).max + 1
    low = 0 if from_ is None else int(from_)
    check_range(low, int(to), d)
    return source.integers(low, int(to), shape, d)


uniform_ = _in_place("uniform_", _uniform, "numbers uniform in [from, to), which are 0 and 1 unless given")
normal_ = _in_place("normal_", _normal, "normally distributed numbers of a mean and standard deviation (0 and 1)")
log_normal_ = _in_place("log_normal_", _log_normal, "numbers whose logarithms are normal, of mean 1 and standard deviation 2")
exponential_ = _in_place("exponential_", _exponential, "exponentially distributed numbers of rate `lambd` (1)")
cauchy_ = _in_place("cauchy_", _cauchy, "Cauchy-distributed numbers of a median and sigma (0 and 1)")
geometric_ = _in_place("geometric_", _geometric, "how many trials it takes to the first success of probability `p`")
bernoulli_ = _in_place("bernoulli_", _bernoulli, "1 with probability `p`, a number (0.5) or a tensor, else 0")
random_ = _in_place("random_", _random, "integers uniform in [from, to), of all that the dtype has from 0 on unless given")
