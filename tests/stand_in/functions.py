"""CuPy's functions by name: arguments are checked against CuPy's own signatures, then NumPy's function of the name computes."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np

from . import indexing
from .arrays import empty, ndarray, unwrapped
from .creation import (
    arange,
    array,
    asarray,
    ascontiguousarray,
    asfortranarray,
    asnumpy,
    copyto,
    from_host,
    from_the_host,
    full,
    full_like,
    like,
    ones,
    zeros,
)  # fmt: skip
from .names import NAMES, Arguments
from .operations import compute, put
from .ufuncs import dtype_of, ufunc

__all__ = ["contents", "inner", "named"]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

SYNCHRONISING = frozenset(
    "nonzero flatnonzero argwhere unique unique_values unique_counts unique_inverse unique_all bincount compress extract trim_zeros "
    "intersect1d union1d setdiff1d setxor1d in1d histogram histogramdd histogram2d".split()
)
"""Functions that copy something to the host before they can go on."""
MOVING = frozenset(
    "concatenate stack vstack hstack dstack column_stack take take_along_axis put put_along_axis reshape transpose swapaxes moveaxis "
    "rollaxis squeeze expand_dims broadcast_to broadcast_arrays flip fliplr flipud roll rot90 repeat tile split array_split hsplit vsplit "
    "dsplit diagonal diag diagflat where copy ravel atleast_1d atleast_2d atleast_3d pad choose select nonzero ascontiguousarray "
    "asfortranarray permute_dims matrix_transpose unstack".split()
)
"""Functions that compute nothing, and take any type. All others refuse bfloat16, unless a table of CuPy's says that they take it."""


def half_in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function with bfloat16, and float16 where it adds up, computed in float32 and rounded once."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kinds: set[Any] = set()
        wide_args = [_widened(each, kinds) for each in args]
        wide_kwargs = {name: _widened(each, kinds) for name, each in kwargs.items()}
        if wide_kwargs.get("dtype") in kinds:
            wide_kwargs["dtype"] = np.float32
        result = function(*wide_args, **wide_kwargs)
        if not kinds or (kwargs.get("dtype") is not None and np.dtype(kwargs["dtype"]) not in kinds):
            return result
        narrow = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
        return _narrowed(result, narrow)

    return wrapped


def _widened(value: Any, kinds: set[Any]) -> Any:
    if isinstance(value, np.ndarray) and value.dtype in (BFLOAT16, np.float16):
        kinds.add(value.dtype)
        return value.astype(np.float32)
    if isinstance(value, (list, tuple)):
        return type(value)([_widened(each, kinds) for each in value])
    return value


def _narrowed(value: Any, dtype: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float32:
        return value.astype(dtype)
    if isinstance(value, (list, tuple)):
        return type(value)([_narrowed(each, dtype) for each in value])
    return value


def function(name: str, module: str = "cupy", implementation: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The stand-in's function of a name.

    Parameters
    ----------
    implementation : callable, optional
        Of NumPy's arrays; NumPy's function of the name if absent.
    """
    full = f"{module}.{name}"
    recorded = NAMES["functions"].get(full)
    arguments = Arguments(full, recorded) if recorded is not None else None
    if implementation is None:
        library = {"cupy": np, "cupy.linalg": np.linalg, "cupy.fft": np.fft}[module]
        implementation = getattr(library, name)
    plain = implementation if name in MOVING else half_in_float32(implementation)
    synchronises = name in SYNCHRONISING
    refuses = name not in MOVING

    @functools.wraps(implementation)
    def call(*args: Any, **kwargs: Any) -> Any:
        if arguments is not None:
            arguments.check(args, kwargs)
        reads: list[ndarray] = []
        out = kwargs.pop("out", None)
        plain_args = unwrapped(args, reads, name)
        plain_kwargs = {key: unwrapped(each, reads, name) for key, each in kwargs.items()}
        if refuses and any(each.dtype == BFLOAT16 for each in reads):
            raise TypeError(f"{full}: does not support bfloat16")
        if module == "cupy.linalg" and any(each.dtype == np.float16 for each in reads):
            raise TypeError(f"{full}: does not support float16")

        def run() -> Any:
            return plain(*plain_args, **plain_kwargs)

        if module == "cupy.linalg" and getattr(_linalg, "state", "ignore") == "ignore" and name in UNCHECKED:
            run = functools.partial(_unchecked, run, plain_args[0])
        if out is not None:
            if type(out) is not ndarray:
                raise TypeError(f"return arrays must be of ArrayType [{name}]")
            put(name, out, run, reads)
            return out
        synchronising = synchronises or (name == "where" and len(args) + len(kwargs) == 1)
        return compute(name, run, reads, synchronises=synchronising)

    return call


UNCHECKED = ("cholesky", "inv", "solve")
"""Factorizations of which CuPy does not say that they failed, unless it is asked to (``cupyx.errstate``)."""
_linalg = threading.local()


@contextmanager
def errstate(*, linalg: str | None = None) -> Iterator[None]:
    before = getattr(_linalg, "state", "ignore")
    _linalg.state = before if linalg is None else linalg
    try:
        yield
    finally:
        _linalg.state = before


def _unchecked(run: Callable[[], Any], a: np.ndarray) -> Any:
    """What a factorization computes; what it was given, where it fails."""
    try:
        return run()
    except np.linalg.LinAlgError:
        return np.array(a)


def solve(a: Any, b: Any) -> Any:
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b")
    return function("solve", "cupy.linalg")(a, b)


JOINED_ONE_BY_ONE, SMALL = 8, 2 << 20
"""So many arrays, and all arrays of so many bytes, CuPy joins one by one; of others it copies the addresses from the host."""


def joining(name: str) -> Callable[..., Any]:
    """`concatenate` or `stack`."""

    def call(arrays: Any, *args: Any, **kwargs: Any) -> Any:
        arrays = list(arrays)
        alike = len({each.dtype for each in arrays if type(each) is ndarray}) == 1
        if alike and len(arrays) > JOINED_ONE_BY_ONE and sum(each.nbytes for each in arrays) < SMALL * len(arrays):
            from_the_host(name)
        return function(name)(arrays, *args, **kwargs)

    return call


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    if not isinstance(repeats, (int, list, tuple, np.integer)):
        raise ValueError("repeats must be int or sequence")
    return function("repeat")(a, repeats, axis)


def may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return bool(np.may_share_memory(a._a, b._a)) if a.size and b.size else False


def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return bool(np.shares_memory(a._a, b._a)) if a.size and b.size else False


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    if type(v) is not ndarray and not np.isscalar(v):
        raise NotImplementedError("Only int or ndarray are supported for a and v")
    return function("searchsorted")(a, v, side, sorter)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return nonzero(condition)
    if type(condition) is not ndarray and not isinstance(condition, (bool, np.bool_)):
        condition = array(condition) if not isinstance(condition, np.ndarray) else condition
    return _where(condition.astype(bool) if type(condition) is ndarray else condition, x, y)


def nonzero(a: Any) -> Any:
    if type(a) is ndarray and not a.ndim:
        raise ValueError("Calling nonzero on 0d arrays is not allowed. Use np.atleast_1d(scalar).nonzero() instead.")
    return function("nonzero")(a)


def lexsort(keys: Any) -> Any:
    if type(keys) is not ndarray:
        raise AttributeError(f"'{type(keys).__name__}' object has no attribute 'ndim'")
    if keys.ndim > 2:
        raise NotImplementedError("Keys with the rank of three or more is not supported in lexsort")
    return function("lexsort")(keys)


def einsum(*operands: Any, **options: Any) -> Any:
    for name in options:
        if name not in ("dtype", "optimize"):
            raise TypeError(f"Did not understand the following kwargs: {name}")
    return function("einsum")(*operands, **options)


def axes_of_cub(values: np.ndarray, axis: Any) -> tuple[int, ...] | None:
    """The dimensions of a reduction that CuPy leaves to CUB: all, or the last ones in C order, or the first in Fortran's; else None."""
    n = values.ndim
    axes = tuple(range(n)) if axis is None else tuple(sorted(each % n for each in (axis if isinstance(axis, tuple) else (axis,))))
    if not (values.flags.c_contiguous or values.flags.f_contiguous) or not values.size:
        return None
    first = n - len(axes) if values.flags.c_contiguous else 0
    return axes if axes == tuple(range(first, first + len(axes))) else None


def in_own_type(add: Callable[..., Any], values: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    """A reduction that rounds after every step, neighbours first."""
    rest = [n for place, n in enumerate(values.shape) if place not in axes]
    values = np.moveaxis(values, axes, range(len(rest), values.ndim)).reshape(*rest, -1)
    while values.shape[-1] > 1:
        even = values.shape[-1] // 2 * 2
        with np.errstate(all="ignore"):
            values = np.concatenate([add(values[..., 0:even:2], values[..., 1:even:2]), values[..., even:]], -1)
    return np.expand_dims(values[..., 0], axes) if keepdims else values[..., 0]


def reduction(name: str, numpys: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction with a table of types."""
    table = [tuple(map(dtype_of, line.split("->"))) for line in NAMES["reductions"][name]]
    accepts_dtype = name in ("sum", "prod")
    one_by_one = np.add if name == "sum" else np.multiply

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if type(a) is not ndarray:
            raise TypeError(f"Unsupported type {type(a)} [{name}]")
        fitting = [pair for pair in table if np.can_cast(a.dtype, pair[0])]
        if not fitting:
            raise TypeError(f"{name} does not support {a.dtype}")
        source, result = fitting[0]
        kind = result if dtype is None else np.dtype(dtype)
        narrow = kind in (BFLOAT16, np.dtype(np.float16))

        def run() -> Any:
            values = a._a
            if not accepts_dtype:
                return np.asarray(numpys(values.astype(source, copy=False), axis=axis, keepdims=keepdims)).astype(result, copy=False)
            axes = axes_of_cub(values, axis) if values.dtype == kind == np.float16 else None
            if axes is not None:
                return np.asarray(in_own_type(one_by_one, values, axes, keepdims))
            wide = np.float32 if narrow else kind
            return np.asarray(numpys(values.astype(wide, copy=False), axis=axis, keepdims=keepdims)).astype(kind, copy=False)

        if out is not None:
            put(name, out, run, [a])
            return out
        return compute(name, run, [a])

    return call


def without_dtype(call: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return call(a, axis, None, out, keepdims)

    return reduce


def inner(name: str, implementation: Callable[..., Any]) -> ufunc:
    return ufunc(name, NAMES["inner"][name], implementation)


def _nan_to_number(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    return np.where(np.isnan(x), nan, np.where(x == np.inf, posinf, np.where(x == -np.inf, neginf, x))) if x.dtype.kind in "fc" else x


_where = inner("where", np.where)
_clip = inner("clip", np.clip)
_round = inner("around", lambda x, decimals: np.around(x, int(decimals.ravel()[0]) if decimals.size else 0))
_close = inner("isclose", lambda a, b, rtol, atol, equal_nan: np.isclose(a, b, rtol.item(), atol.item(), bool(equal_nan.item())))
_replaced = inner("nan_to_num", _nan_to_number)


def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> Any:
    if type(a) is not ndarray:
        raise TypeError(f"Unsupported type {type(a)} [clip]")
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    kind = a.dtype.kind
    if a_min is None:
        a_min = -np.inf if kind == "f" else np.iinfo(a.dtype).min if kind in "iu" else None
    if a_max is None:
        a_max = np.inf if kind == "f" else np.iinfo(a.dtype).max if kind in "iu" else None
    return _clip(a, a_min, a_max, **({} if out is None else {"out": out}))


def around(a: Any, decimals: int = 0, out: Any = None) -> Any:
    return _round(a, decimals, **({} if out is None else {"out": out}))


def take_along_axis(arr: Any, indices: Any, axis: Any) -> Any:
    """An index of CuPy's, which wraps around."""
    if type(indices) is ndarray and indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")

    def wrapped(values: Any, places: Any, axis: Any) -> Any:
        n = values.size if axis is None else values.shape[axis]
        return np.take_along_axis(values, places % n if n else places, axis)

    return function("take_along_axis", implementation=wrapped)(arr, indices, axis)


def broadcast_arrays(*args: Any) -> list[Any]:
    shape = np.broadcast_shapes(*(each.shape for each in args))
    return [each if each.shape == shape else named("broadcast_to")(each, shape) for each in args]


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    if isinstance(source, int) and isinstance(destination, int) and source % a.ndim == destination % a.ndim:
        return a
    return function("moveaxis")(a, source, destination)


def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    axis = axis % a.ndim
    return a if start in (axis, axis + 1) else function("rollaxis")(a, axis, start)


def squeeze(a: Any, axis: Any = None) -> Any:
    return a.squeeze(axis)


def mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    def quietly(values: Any, axis: Any, dtype: Any, keepdims: bool) -> Any:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy has something to say of the mean of nothing
            return np.mean(values, axis, dtype, keepdims=keepdims)

    call = function("mean", implementation=quietly)
    return call(a, axis, dtype, keepdims=keepdims, **({} if out is None else {"out": out}))


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return _close(a, b, rtol, atol, equal_nan)


def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    if x.dtype.kind in "iub":
        return x.copy() if copy else x
    limits = ml_dtypes.finfo(x.dtype if x.dtype.kind != "c" else x.real.dtype)
    posinf = float(limits.max) if posinf is None else posinf
    neginf = float(limits.min) if neginf is None else neginf
    return _replaced(x, nan, posinf, neginf, **({} if copy else {"out": x}))


def rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


def floor_divide(x: Any, y: Any) -> Any:
    """Of floating-point numbers the quotient rounded down; 0 of integers by 0."""
    with np.errstate(all="ignore"):
        return np.floor(x / y) if x.dtype.kind == "f" else np.floor_divide(x, y)


def remainder(x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        return (x - floor_divide(x, y) * y) * (1 if x.dtype.kind == "f" else (y != 0).astype(y.dtype))


def fmod(x: Any, y: Any) -> Any:
    """Of integers by way of float64."""
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f":
            return np.fmod(x, y)
        return np.where(y == 0, 0, np.fmod(x.astype(np.float64), y.astype(np.float64))).astype(x.dtype)


UFUNC_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rsqrt": rsqrt, "floor_divide": floor_divide, "remainder": remainder, "fmod": fmod
}  # fmt: skip
_sum, _prod = reduction("sum", np.sum), reduction("prod", np.prod)
_amax, _amin = without_dtype(reduction("amax", np.max)), without_dtype(reduction("amin", np.min))
_count = without_dtype(reduction("count_nonzero", np.count_nonzero))
_all, _any = without_dtype(reduction("all", np.all)), without_dtype(reduction("any", np.any))

OWN: dict[str, Any] = {
    "array": array, "asarray": asarray, "asanyarray": asarray, "ascontiguousarray": ascontiguousarray, "asfortranarray": asfortranarray,
    "asnumpy": asnumpy, "empty": empty, "zeros": zeros, "ones": ones, "full": full, "empty_like": like(None), "zeros_like": like(0),
    "ones_like": like(1), "full_like": full_like, "copyto": copyto, "arange": arange, "linspace": from_host("linspace"),
    "logspace": from_host("logspace"), "eye": from_host("eye"), "identity": from_host("identity"), "tri": from_host("tri"),
    "indices": from_host("indices"), "repeat": repeat, "may_share_memory": may_share_memory, "shares_memory": shares_memory,
    "take": indexing.take, "where": where, "nonzero": nonzero, "einsum": einsum, "sum": _sum, "prod": _prod, "max": _amax, "amax": _amax,
    "min": _amin, "amin": _amin, "all": _all, "any": _any, "searchsorted": searchsorted, "clip": clip,
    "around": around, "round": around, "round_": around, "isclose": isclose,
    "take_along_axis": take_along_axis, "lexsort": lexsort, "broadcast_arrays": broadcast_arrays, "moveaxis": moveaxis,
    "mean": mean, "rollaxis": rollaxis, "squeeze": squeeze, "nan_to_num": nan_to_num, "count_nonzero": _count,
    "concatenate": joining("concatenate"), "stack": joining("stack"),
}  # fmt: skip


@functools.cache
def named(name: str, module: str = "cupy") -> Any:
    """What a module of CuPy has under a name.

    Raises
    ------
    AttributeError
        If CuPy has nothing of the name, or the stand-in nothing for it.
    """
    if module == "cupy" and name in OWN:
        return OWN[name]
    if (module, name) in (("cupy.linalg", "solve"), ("cupyx", "errstate")):
        return {"solve": solve, "errstate": errstate}[name]
    if name in NAMES["ufuncs"] and module in ("cupy", "cupyx"):
        return ufunc(name, NAMES["ufuncs"][name], UFUNC_FUNCTIONS.get(name) or getattr(np, name, None))
    if f"{module}.{name}" in NAMES["functions"]:
        library = {"cupy": np, "cupy.linalg": np.linalg, "cupy.fft": np.fft}.get(module)
        if library is not None and hasattr(library, name):
            return function(name, module)
        raise AttributeError(f"the stand-in has no {module}.{name}, which CuPy has")
    raise AttributeError(f"module '{module}' has no attribute '{name}'")


def contents(module: str) -> list[str]:
    """All names of a module."""
    return sorted({key.rsplit(".", 1)[1] for key in NAMES["functions"] if key.rsplit(".", 1)[0] == module} | set(NAMES["ufuncs"]))
