"""The standard's data types: promotion without special cases for arrays without dimensions, kinds, limits, what a device has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..autograd.variable import Tensor
from ..backend import as_device, cuda_is_available, get_default_device
from ..backend import dtypes as dt
from ..ops.conversion import to

__all__ = ["DTYPES", "__array_namespace_info__", "astype", "can_cast", "finfo", "iinfo", "isdtype", "promoted", "result_type"]

#: The standard's data types by their names.
DTYPES = {
    name: dt.PUBLIC_DTYPES[name]
    for name in """
    bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128
    """.split()
}
_KINDS = {
    "bool": ("bool",),
    "signed integer": ("int8", "int16", "int32", "int64"),
    "unsigned integer": ("uint8", "uint16", "uint32", "uint64"),
    "real floating": ("float16", "bfloat16", "float32", "float64"),
    "complex floating": ("complex64", "complex128"),
}
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]


def result_type(*arrays_and_dtypes: Any) -> dt.dtype:
    """The dtype of an operation on arrays, dtypes and Python numbers; an array without dimensions counts as any other."""
    found: list[dt.dtype] = []
    numbers: list[Any] = []
    for value in arrays_and_dtypes:
        if isinstance(value, Tensor):
            found.append(value.dtype)
        elif isinstance(value, dt.dtype):
            found.append(value)
        elif isinstance(value, (bool, int, float, complex)):
            numbers.append(value)
        else:
            raise TypeError(f"result_type: expected arrays, dtypes and numbers, got {type(value).__name__}")
    if not found:
        raise ValueError("result_type needs at least one array or dtype")
    result = found[0]
    for other in found[1:]:
        result = _promote(result, other)
    return dt.result_of([(result, 2), *((dt.as_dtype(type(n)), 0) for n in numbers)])


def _promote(a: dt.dtype, b: dt.dtype) -> dt.dtype:
    if a.category == b.category == dt.INTEGER and not (a.is_signed or b.is_signed):
        return a if a.itemsize >= b.itemsize else b  # PyTorch has no promotion of uint64
    return dt.promote_types(a, b)


def promoted(*values: Any) -> list[Any]:
    """Arrays in the one dtype that they have together; Python numbers are left as they are."""
    arrays = [v for v in values if isinstance(v, Tensor)]
    if len(arrays) < 2 or len({a._array.dtype for a in arrays}) == 1:
        return list(values)
    result = result_type(*arrays)
    return [to(v, dtype=result) if isinstance(v, Tensor) else v for v in values]


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """An array in another dtype; itself if nothing changes and `copy` is False."""
    return to(x, dtype=dtype, device=device, copy=copy)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether the promotion rules lead from one dtype, or an array's, to another."""
    source = from_.dtype if isinstance(from_, Tensor) else from_
    try:
        return _promote(source, to) is to
    except RuntimeError:  # there is no type for both
        return False


def isdtype(dtype: dt.dtype, kind: Any) -> bool:
    """Whether a dtype is another one, or of a kind such as "integral", or of one of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"isdtype: there is no kind {kind!r}; there are {', '.join(_KINDS)}")
        return dtype.name in _KINDS[kind]
    return dtype is kind


def _limits(of: Any, type: Any) -> SimpleNamespace:
    dtype = type.dtype if isinstance(type, Tensor) else dt.as_dtype(type)
    info = of(dtype)
    values = {n: getattr(info, n) for n in ("bits", "eps", "max", "min", "smallest_normal") if hasattr(info, n)}
    return SimpleNamespace(**values, dtype=dtype.to_real())


def finfo(type: Any, /) -> Any:
    """Limits of a floating-point dtype, or an array's: bits, eps, max, min, smallest_normal, dtype."""
    return _limits(dt.finfo, type)


def iinfo(type: Any, /) -> Any:
    """Limits of an integer dtype, or an array's: bits, max, min, dtype."""
    return _limits(dt.iinfo, type)


class __array_namespace_info__:
    """What there is: capabilities, devices and dtypes."""

    def capabilities(self) -> dict[str, Any]:
        """Whether shapes may depend on data, and the most dimensions."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Any:
        """The device of arrays that are made without one."""
        return get_default_device()

    def default_dtypes(self, *, device: Any = None) -> dict[str, dt.dtype]:
        """The dtypes that are taken where none is said."""
        real = dt.get_default_dtype()
        return {"real floating": real, "complex floating": real.to_complex(), "integral": dt.int64, "indexing": dt.int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, dt.dtype]:
        """The dtypes by name, of a kind or of several."""
        return {name: d for name, d in DTYPES.items() if kind is None or isdtype(d, kind)}

    def devices(self) -> list[Any]:
        """The devices."""
        found = [as_device("cpu")]
        if cuda_is_available():
            from ..backend import cuda

            found += [as_device(f"cuda:{i}") for i in range(cuda.device_count())]
        return found
