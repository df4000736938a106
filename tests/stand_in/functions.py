"""CuPy's functions by name: arguments are checked against CuPy's own signatures, then NumPy's function of the name computes."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from . import indexing, memory
from .arrays import empty, ndarray, unwrapped
from .operations import compute, launch, put
from .ufuncs import dtype_of, ufunc

__all__ = ["NAMES", "array", "attach_methods", "contents", "named"]

NAMES: dict[str, Any] = json.loads(Path(__file__).with_name("cupy_names.json").read_text())
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

SYNCHRONISING = frozenset(
    "nonzero flatnonzero argwhere unique unique_values unique_counts unique_inverse unique_all bincount compress extract trim_zeros "
    "intersect1d union1d setdiff1d setxor1d in1d allclose_ histogram histogramdd histogram2d digitize_ ix_ delete_".split()
)
"""Functions that copy something to the host before they can go on."""
MOVING = frozenset(
    "concatenate stack vstack hstack dstack column_stack take take_along_axis put put_along_axis reshape transpose swapaxes moveaxis rollaxis squeeze "
    "expand_dims broadcast_to broadcast_arrays flip fliplr flipud roll rot90 repeat tile split array_split hsplit vsplit dsplit diagonal "
    "diag diagflat where tril triu copy ravel atleast_1d atleast_2d atleast_3d pad choose select nonzero ascontiguousarray "
    "asfortranarray permute_dims matrix_transpose unstack".split()
)
"""Functions that compute nothing, and take any type. All others refuse bfloat16, unless a table of CuPy's says that they take it."""


class Arguments:
    """A recorded signature."""

    def __init__(self, name: str, recorded: list[list[Any]]):
        self.name = name
        kinds = inspect._ParameterKind.__members__
        self.signature = inspect.Signature(
            [inspect.Parameter(n, kinds[kind], default=None if default else inspect.Parameter.empty) for n, kind, default in recorded]
        )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None


def half_in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function with bfloat16, and float16 where it adds up, computed in float32 and rounded once."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kinds: set[Any] = set()
        wide_args = [_widened(each, kinds) for each in args]
        wide_kwargs = {name: _widened(each, kinds) for name, each in kwargs.items()}
        if wide_kwargs.get("dtype") in kinds:
            wide_kwargs["dtype"] = np.float32
        result = function(*wide_args, **wide_kwargs)
        if not kinds or kwargs.get("dtype") is not None and np.dtype(kwargs["dtype"]) not in kinds:
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

        if out is not None:
            if type(out) is not ndarray:
                raise TypeError(f"return arrays must be of ArrayType [{name}]")
            put(name, out, run, reads)
            return out
        synchronising = synchronises or (name == "where" and len(args) + len(kwargs) == 1)
        return compute(name, run, reads, synchronises=synchronising)

    return call


# What is made from nothing or from the host ----------------------------------------------------------------------------


def _on_device(values: Any, order: str = "C") -> ndarray:
    result = empty(values.shape, values.dtype, "F" if order in ("F",) or (order in "AK" and values.flags.fnc) else "C")
    values = values.copy()
    put("copy_from_host", result, lambda: values, [])
    return result


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0, *, blocking: bool = False
) -> ndarray:
    """``cupy.array``."""
    if subok:
        raise NotImplementedError
    if type(obj) is not ndarray and hasattr(obj, "__cuda_array_interface__"):
        obj = from_interface(obj)
    if type(obj) is ndarray:
        if not copy and (dtype is None or np.dtype(dtype) == obj.dtype) and obj.ndim >= ndmin and (order in "KA" or _is_in(obj, order)):
            return obj
        result = obj.astype(obj.dtype if dtype is None else dtype, order=order)
        return result.reshape((1,) * (ndmin - result.ndim) + result.shape) if result.ndim < ndmin else result
    found: list[ndarray] = []
    if isinstance(obj, (list, tuple)):
        obj = _host_list(obj, found)
    if found:
        return _joined(obj, found, dtype)
    values = np.array(obj, dtype=dtype, ndmin=ndmin)
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    return _on_device(values, order)


def _is_in(obj: ndarray, order: str) -> bool:
    return bool(obj._a.flags.c_contiguous if order == "C" else obj._a.flags.f_contiguous)


def _host_list(value: Any, found: list[ndarray]) -> Any:
    if type(value) is ndarray:
        found.append(value)
        return value
    if isinstance(value, (list, tuple)):
        return [_host_list(each, found) for each in value]
    return value


def _joined(nested: Any, found: list[ndarray], dtype: Any) -> ndarray:
    def values(each: Any) -> Any:
        if type(each) is ndarray:
            return each._a
        if isinstance(each, list):
            return np.stack([np.asarray(values(part)) for part in each]) if each else np.empty(0)
        return each

    return compute("array", lambda: np.asarray(values(nested), dtype).copy(), found)


def from_interface(obj: Any) -> ndarray:
    """An array on what another library shows by ``__cuda_array_interface__``."""
    told = obj.__cuda_array_interface__
    pointer = told["data"][0]
    dtype = np.dtype(told["typestr"])
    if dtype.kind == "V" and dtype.itemsize == 2:
        dtype = BFLOAT16
    strides = told.get("strides")
    nbytes = int(np.prod(told["shape"], dtype=np.int64)) * dtype.itemsize
    memptr = memory.MemoryPointer(memory.UnownedMemory(pointer, nbytes, obj), 0)
    return ndarray(told["shape"], dtype, memptr, strides)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False, copy: Any = None) -> ndarray:
    return array(a, dtype, copy=bool(copy), order=order or "K", blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = array(a, dtype, copy=False, order="C")
    return made if made.ndim else made.reshape(1)


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, copy=False, order="F")


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    if type(a) is ndarray:
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    if hasattr(a, "__cuda_array_interface__"):
        return from_interface(a).get(stream=stream, order=order, out=out, blocking=blocking)
    values = np.asarray(a, order=order)
    if out is not None:
        out[...] = values
        return out
    return values


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if hasattr(fill_value, "dtype") else np.array(fill_value).dtype
    result = empty(shape, dtype, order)
    result.fill(fill_value)
    return result


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def _like(filled: Any) -> Callable[..., ndarray]:
    def make(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None, *more: Any) -> ndarray:
        if type(prototype) is not ndarray:
            raise TypeError(f"Unsupported type {type(prototype)}")
        if subok:
            raise TypeError("subok is not supported yet")
        layout = np.empty_like(prototype._a, dtype, order, shape=shape)
        result = ndarray(layout.shape, layout.dtype, strides=layout.strides)
        if filled is not None:
            result.fill(filled)
        return result

    return make


def full_like(a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    result = _like(None)(a, dtype, order, subok, shape)
    result.fill(fill_value)
    return result


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if type(dst) is not ndarray:
        raise TypeError(f"Unsupported type {type(dst)}")
    if isinstance(src, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'> [copyto]")
    kind = src.dtype if hasattr(src, "dtype") else np.asarray(src).dtype
    if hasattr(src, "dtype") and not np.can_cast(kind, dst.dtype, casting):
        raise TypeError(f"Cannot cast from {kind} to {dst.dtype} in {casting} casting mode")
    reads = [each for each in (src, where) if type(each) is ndarray]

    def action() -> None:
        values = src._a if type(src) is ndarray else src
        np.copyto(dst._a, values, "unsafe", where=True if where is None else where._a if type(where) is ndarray else where)

    launch("copyto", action, [*reads, dst] if where is not None else reads, [dst])


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    values = np.arange(start, dtype=dtype) if stop is None and step == 1 else np.arange(0 if stop is None else start, start if stop is None else stop, step, dtype)
    return _on_device(values)


def from_host(name: str) -> Callable[..., Any]:
    """A function of numbers whose result NumPy makes."""
    arguments = Arguments(name, NAMES["functions"][f"cupy.{name}"])

    def call(*args: Any, **kwargs: Any) -> Any:
        arguments.check(args, kwargs)
        if kwargs.get("order") is None:
            kwargs.pop("order", None)
        result = getattr(np, name)(*args, **kwargs)
        return _on_device(result) if isinstance(result, np.ndarray) else [_on_device(each) for each in result]

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


def einsum(*operands: Any, **options: Any) -> Any:
    for name in options:
        if name not in ("dtype", "optimize"):
            raise TypeError(f"Did not understand the following kwargs: {name}")
    return function("einsum")(*operands, **options)


def reduction(name: str, numpys: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction with a table of types."""
    table = [([dtype_of(line.split("->")[0])], dtype_of(line.split("->")[1])) for line in NAMES["reductions"][name]]
    accepts_dtype = name in ("sum", "prod")

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if type(a) is not ndarray:
            raise TypeError(f"Unsupported type {type(a)} [{name}]")
        for (source,), result in table:
            if np.can_cast(a.dtype, source):
                break
        else:
            raise TypeError(f"{name} does not support {a.dtype}")
        kind = result if dtype is None else np.dtype(dtype)
        narrow = kind in (BFLOAT16, np.dtype(np.float16))

        def run() -> Any:
            values = a._a
            if not accepts_dtype:
                return np.asarray(numpys(values.astype(source, copy=False), axis=axis, keepdims=keepdims)).astype(result, copy=False)
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


def _inner(name: str, implementation: Callable[..., Any]) -> ufunc:
    return ufunc(name, NAMES["inner"][name], implementation)


def _nan_to_number(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    return np.where(np.isnan(x), nan, np.where(x == np.inf, posinf, np.where(x == -np.inf, neginf, x))) if x.dtype.kind in "fc" else x


_where = _inner("where", np.where)
_clip = _inner("clip", np.clip)
_round = _inner("around", lambda x, decimals: np.around(x, int(decimals.ravel()[0]) if decimals.size else 0))
_close = _inner("isclose", lambda a, b, rtol, atol, equal_nan: np.isclose(a, b, rtol.item(), atol.item(), bool(equal_nan.item())))
_replaced = _inner("nan_to_num", _nan_to_number)


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


UFUNC_FUNCTIONS: dict[str, Callable[..., Any]] = {"rsqrt": rsqrt}
_sum, _prod = reduction("sum", np.sum), reduction("prod", np.prod)
_amax, _amin = without_dtype(reduction("amax", np.max)), without_dtype(reduction("amin", np.min))
_count = without_dtype(reduction("count_nonzero", np.count_nonzero))
_all, _any = without_dtype(reduction("all", np.all)), without_dtype(reduction("any", np.any))

OWN: dict[str, Any] = {
    "array": array, "asarray": asarray, "asanyarray": asarray, "ascontiguousarray": ascontiguousarray, "asfortranarray": asfortranarray,
    "asnumpy": asnumpy, "empty": empty, "zeros": zeros, "ones": ones, "full": full, "empty_like": _like(None), "zeros_like": _like(0),
    "ones_like": _like(1), "full_like": full_like, "copyto": copyto, "arange": arange, "linspace": from_host("linspace"),
    "logspace": from_host("logspace"), "eye": from_host("eye"), "identity": from_host("identity"), "tri": from_host("tri"),
    "indices": from_host("indices"), "repeat": repeat, "may_share_memory": may_share_memory, "shares_memory": shares_memory,
    "take": indexing.take, "where": where, "nonzero": nonzero, "einsum": einsum, "sum": _sum, "prod": _prod, "max": _amax, "amax": _amax,
    "min": _amin, "amin": _amin, "all": _all, "any": _any, "searchsorted": searchsorted, "clip": clip,
    "around": around, "round": around, "round_": around, "isclose": isclose,
    "take_along_axis": take_along_axis, "nan_to_num": nan_to_num, "count_nonzero": _count,
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


# Methods ---------------------------------------------------------------------------------------------------------------


def _method(name: str) -> Callable[..., Any]:
    recorded = NAMES["methods"].get(name)
    arguments = Arguments(name, recorded) if recorded else None

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if arguments is not None:
            arguments.check(args, kwargs)
        return named(name)(self, *args, **kwargs)

    method.__name__ = name
    return method


def _reshape(self: ndarray, *shape: Any, order: str = "C") -> ndarray:
    target = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    target = (target,) if isinstance(target, (int, np.integer)) else tuple(int(n) for n in target)
    return compute("reshape", lambda: self._a.reshape(target, order=order), [self])


def _transpose(self: ndarray, *axes: Any) -> ndarray:
    return compute("transpose", lambda: self._a.transpose(*axes), [self])


def _astype(self: ndarray, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> ndarray:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    dtype = np.dtype(dtype)
    if casting is not None and not np.can_cast(self.dtype, dtype, casting):
        raise TypeError(f"Cannot cast array data from {self.dtype!r} to {dtype!r} according to the rule '{casting}'")
    if not copy and dtype == self.dtype and (order in "KA" or _is_in(self, order)):
        return self
    if self.dtype.kind == "c" and dtype.kind not in "cb":
        import warnings

        warnings.warn("Casting complex values to real discards the imaginary part", np.exceptions.ComplexWarning, stacklevel=2)

    def run() -> Any:
        values = self._a.real if self.dtype.kind == "c" and dtype.kind not in "cb" else self._a
        return values.astype(dtype, order=order)

    return compute("astype", run, [self])


def _copy(self: ndarray, order: str = "C") -> ndarray:
    return compute("copy", lambda: self._a.copy(order), [self])


def _fill(self: ndarray, value: Any) -> None:
    if isinstance(value, np.ndarray):
        if value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        value = value.item()
    reads = [value] if type(value) is ndarray else []
    put("fill", self, lambda: np.asarray(value._a if reads else value).astype(self.dtype), reads)


def _view(self: ndarray, dtype: Any = None, type: Any = None) -> ndarray:
    return compute("view", lambda: self._a.view() if dtype is None else self._a.view(dtype), [self])


def _flatten(self: ndarray, order: str = "C") -> ndarray:
    return compute("flatten", lambda: self._a.flatten(order), [self])


def _ravel(self: ndarray, order: str = "C") -> ndarray:
    return compute("ravel", lambda: self._a.ravel(order), [self])


def _squeeze(self: ndarray, axis: Any = None) -> ndarray:
    return compute("squeeze", lambda: self._a.squeeze(axis), [self])


def _sort(self: ndarray, axis: int = -1, kind: Any = None) -> None:
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    if self.dtype == BFLOAT16:
        raise TypeError("sort does not support bfloat16")
    if not self.ndim:
        raise np.exceptions.AxisError("Sorting arrays with the rank of zero is not supported")
    if not self._a.flags.c_contiguous:
        raise NotImplementedError("Sorting non-contiguous array is not supported.")
    put("sort", self, lambda: np.sort(self._a, axis, kind="stable"), [self])


def _dot(self: ndarray, b: Any, out: Any = None) -> Any:
    return named("dot")(self, b, **({} if out is None else {"out": out}))


def _partition(self: ndarray, kth: Any, axis: int = -1) -> None:
    put("partition", self, lambda: np.partition(self._a, kth, axis), [self])


def _real(self: ndarray) -> ndarray:
    return compute("real", lambda: self._a.real, [self])


def _imag(self: ndarray) -> ndarray:
    if self.dtype.kind != "c":
        return zeros(self.shape, self.dtype)
    return compute("imag", lambda: self._a.imag, [self])


def _conjugated(self: ndarray) -> ndarray:
    return _inner("conjugate", np.conjugate)(self) if self.dtype.kind == "c" else self


def _assign_real(self: ndarray, value: Any) -> None:
    self.real[...] = value


def _assign_imag(self: ndarray, value: Any) -> None:
    if self.dtype.kind != "c":
        raise TypeError("cupy.ndarray does not have imaginary part to set")
    self.imag[...] = value


def _binary(name: str, reflected: bool = False) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, bool, int, float, complex, np.generic)) and not hasattr(other, "__cuda_array_interface__"):
            if isinstance(other, np.ndarray):
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
            return NotImplemented
        if getattr(other, "__array_priority__", 0) > ndarray.__array_priority__ and type(other) is not ndarray:
            return NotImplemented
        function = named(name)
        return function(other, self) if reflected else function(self, other)

    return operate


def _in_place(name: str) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return named(name)(self, other, self)

    return operate


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "lshift": "left_shift", "rshift": "right_shift", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal"}


def attach_methods() -> None:
    """Give `ndarray` the rest of its methods."""
    own = {
        "reshape": _reshape, "transpose": _transpose, "astype": _astype, "copy": _copy, "fill": _fill, "view": _view, "flatten": _flatten,
        "ravel": _ravel, "squeeze": _squeeze, "sort": _sort, "dot": _dot, "partition": _partition, "take": indexing.take,
    }  # fmt: skip
    for name, recorded in NAMES["methods"].items():
        if name in own:
            setattr(ndarray, name, own[name])
        elif recorded is not None and name not in ndarray.__dict__ and hasattr(np, name):
            setattr(ndarray, name, _method(name))
    ndarray.conj = ndarray.conjugate = lambda self: _conjugated(self)  # type: ignore[attr-defined]
    ndarray.real = property(_real, _assign_real)  # type: ignore[attr-defined]
    ndarray.imag = property(_imag, _assign_imag)  # type: ignore[attr-defined]
    for operator, name in OPERATORS.items():
        setattr(ndarray, f"__{operator}__", _binary(name))
        setattr(ndarray, f"__r{operator}__", _binary(name, reflected=True))
        setattr(ndarray, f"__i{operator}__", _in_place(name))
    for operator, name in COMPARISONS.items():
        setattr(ndarray, f"__{operator}__", _binary(name))
    ndarray.__matmul__ = _binary("matmul")  # type: ignore[attr-defined]
    ndarray.__rmatmul__ = _binary("matmul", reflected=True)  # type: ignore[attr-defined]
    ndarray.__neg__ = lambda self: named("negative")(self)  # type: ignore[attr-defined]
    ndarray.__pos__ = lambda self: named("positive")(self)  # type: ignore[attr-defined]
    ndarray.__abs__ = lambda self: named("absolute")(self)  # type: ignore[attr-defined]
    ndarray.__invert__ = lambda self: named("invert")(self)  # type: ignore[attr-defined]
    ndarray.__divmod__ = lambda self, other: named("divmod")(self, other)  # type: ignore[attr-defined]
