"""The families of functions, and what each does with the hidden dimension.

A family is a function of the world and a name that makes the batched function: ``RULES[name](world, name)``. Where values
come from inside of batched arrays, `values` hide their samples in dimension 0 if `hides` says so. What is in no family and no
plain kernel is computed sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .dimensions import DIMENSIONS
from .one_by_one import Family, padded_to, sample_by_sample, spread, table
from .products import PRODUCTS

__all__ = ["RULES"]

# --- elementwise -----------------------------------------------------------------------------------------------------


def _elementwise(world: Any, name: str) -> Callable[..., Any]:
    """All arrays broadcast against each other."""

    def function(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        names = list(kwargs)
        level, _, values, hides = world.split((*args, *kwargs.values()))
        if level:
            ndim = max([getattr(v, "ndim", 0) - h for v, h in zip(values, hides)])
            values = [padded_to(v, ndim) if h else v for v, h in zip(values, hides)]
        called = getattr(world.world_of(*values), name)
        count = len(args)
        result = world.make(called(*values[:count], **dict(zip(names, values[count:]))), level)
        if out is not None:
            world.copyto(out, result)
            return out
        return result

    return function


_ELEMENTWISE = """
    abs absolute add angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor cbrt ceil clip
    conjugate copysign cos cosh deg2rad divide equal erf erfc exp exp2 expm1 float_power floor floor_divide fmax fmin fmod frac frexp
    gcd gelu gelu_backward greater greater_equal heaviside hypot integer_power invert isfinite isinf isnan isneginf isposinf lcm ldexp
    left_shift less less_equal log log10 log1p log2 log_add_exp logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
    logit maximum minimum multiply nan_to_num negative nextafter not_equal positive power rad2deg reciprocal relu remainder
    replace_nonfinite right_shift rint round sgn sigmoid sign signbit silu sin sinc sinh softplus sqrt square subtract tan tanh
    to_complex trunc where xlog1py xlogy
"""


# --- indexing kernels ---------------------------------------------------------------------------------------------------


def _scatter_add(world: Any, name: str) -> Callable[..., Any]:
    def scatter_add(source: Any, index: Any, shape: Any, axis: int) -> Any:
        level, size, (values, at), hides = world.split((source, index))
        if level:
            values, at = spread(world, values, hides[0], size), spread(world, at, hides[1], size)
            shape, axis = (size, *shape), axis % len(shape) + 1
        return world.make(world.world_of(values, at).scatter_add(values, at, shape, axis), level)

    return scatter_add


def _diagonal_backward(world: Any, name: str) -> Callable[..., Any]:
    def diagonal_backward(g: Any, shape: Any, offset: int, dim1: int, dim2: int) -> Any:
        level, size, (value,), _ = world.split((g,))
        if level:
            dim1, dim2, shape = dim1 % len(shape) + 1, dim2 % len(shape) + 1, (size, *shape)
        return world.make(world.world_of(value).diagonal_backward(value, shape, offset, dim1, dim2), level)

    return diagonal_backward


RULES: dict[str, Family] = {
    **table(_elementwise, _ELEMENTWISE),
    "scatter_add": _scatter_add,
    "diagonal_backward": _diagonal_backward,
    "attention_keep": sample_by_sample,  # the device's own, since the seed may lie there
    "ldl_solve": sample_by_sample,
    **DIMENSIONS,
    **PRODUCTS,
}
