"""Data types: PyTorch's names over NumPy's types, and PyTorch's promotion rules.

NumPy and CuPy share NumPy's dtype objects, so one table serves every backend; bfloat16 comes from ml_dtypes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy

from .choices import CHOICES

__all__ = [
    "COMPLEX_DTYPES",
    "DTYPES",
    "FLOATING",
    "INTEGRAL",
    "as_dtype",
    "as_numpy_dtype",
    "can_cast",
    "dtype",
    "finfo",
    "get_default_dtype",
    "iinfo",
    "promote_types",
    "result_type",
    "set_default_dtype",
]

BOOL, INTEGER, FLOAT, COMPLEX = range(4)


class dtype:
    """An element type, such as ``disttorch.float32``.

    Attributes
    ----------
    itemsize : int
        Bytes an element.
    is_floating_point, is_complex, is_signed : bool
        As in PyTorch (https://docs.pytorch.org/docs/stable/tensor_attributes.html).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.float32.itemsize, disttorch.bfloat16.is_floating_point
    (4, True)
    """

    __slots__ = ("category", "is_complex", "is_floating_point", "is_signed", "itemsize", "name", "numpy")

    def __init__(self, name: str, numpy_type: Any, category: int):
        self.name = name
        self.numpy = numpy.dtype(numpy_type)
        self.category = category
        self.itemsize = self.numpy.itemsize
        self.is_floating_point = category == FLOAT
        self.is_complex = category == COMPLEX
        self.is_signed = category >= FLOAT or (category == INTEGER and self.numpy.kind == "i")

    def __repr__(self) -> str:
        return f"{CHOICES.package}.{self.name}"

    def __reduce__(self) -> tuple:
        return as_dtype, (self.name,)

    def to_complex(self) -> dtype:
        """The complex type with such parts; complex64 for the half types.

        Raises
        ------
        RuntimeError
            For integers and bool.
        """
        if self.category < FLOAT:
            raise RuntimeError(f"there is no complex type for {self}")
        return _BY_NAME["complex128" if self.itemsize == 8 else "complex64"] if self.category < COMPLEX else self

    def to_real(self) -> dtype:
        """The type of the parts of a complex type; itself of another."""
        return {"complex64": _BY_NAME["float32"], "complex128": _BY_NAME["float64"]}.get(self.name, self)


_BY_NAME = {
    name: dtype(name, numpy_type, category)
    for name, numpy_type, category in [
        ("bool", numpy.bool_, BOOL),
        ("uint8", numpy.uint8, INTEGER),
        ("uint16", numpy.uint16, INTEGER),
        ("uint32", numpy.uint32, INTEGER),
        ("uint64", numpy.uint64, INTEGER),
        ("int8", numpy.int8, INTEGER),
        ("int16", numpy.int16, INTEGER),
        ("int32", numpy.int32, INTEGER),
        ("int64", numpy.int64, INTEGER),
        ("float16", numpy.float16, FLOAT),
        ("bfloat16", ml_dtypes.bfloat16, FLOAT),
        ("float32", numpy.float32, FLOAT),
        ("float64", numpy.float64, FLOAT),
        ("complex64", numpy.complex64, COMPLEX),
        ("complex128", numpy.complex128, COMPLEX),
    ]
}
PUBLIC_DTYPES: dict[str, dtype] = {
    **_BY_NAME,
    "half": _BY_NAME["float16"],
    "float": _BY_NAME["float32"],
    "double": _BY_NAME["float64"],
    "short": _BY_NAME["int16"],
    "int": _BY_NAME["int32"],
    "long": _BY_NAME["int64"],
    "cfloat": _BY_NAME["complex64"],
    "cdouble": _BY_NAME["complex128"],
}

#: from NumPy's dtype to ours
DTYPES: dict[Any, dtype] = {d.numpy: d for d in _BY_NAME.values()}
INTEGRAL = frozenset(d.numpy for d in _BY_NAME.values() if d.category <= INTEGER)
FLOATING = frozenset(d.numpy for d in _BY_NAME.values() if d.category == FLOAT)
DIFFERENTIABLE = frozenset(d.numpy for d in _BY_NAME.values() if d.category >= FLOAT)
COMPLEX_DTYPES = frozenset(d.numpy for d in _BY_NAME.values() if d.category == COMPLEX)
HALF = frozenset((_BY_NAME["float16"].numpy, _BY_NAME["bfloat16"].numpy))

bool_, uint8, int32, int64 = (_BY_NAME[n] for n in ("bool", "uint8", "int32", "int64"))
float16, bfloat16, float32, float64 = (_BY_NAME[n] for n in ("float16", "bfloat16", "float32", "float64"))
complex64, complex128 = _BY_NAME["complex64"], _BY_NAME["complex128"]

_PYTHON_TYPES = {bool: bool_, int: int64, float: float64, complex: complex128}
_default = float32


def as_dtype(value: Any) -> dtype:
    """Our dtype for a dtype, its name, a NumPy or CuPy dtype or one of Python's number types.

    Raises
    ------
    TypeError
        If no tensor can have that type.
    """
    if isinstance(value, dtype):
        return value
    if isinstance(value, type) and value in _PYTHON_TYPES:
        return _PYTHON_TYPES[value]
    if isinstance(value, str) and (name := value.removeprefix("disttorch.").removeprefix("torch.")) in PUBLIC_DTYPES:
        return PUBLIC_DTYPES[name]
    try:
        # newbyteorder: a big-endian file's type is still an int32; the array itself is converted on the way in
        return DTYPES[numpy.dtype(value).newbyteorder("=")]
    except (KeyError, TypeError):
        raise TypeError(f"no tensor can have the dtype {value!r}; there are: {', '.join(_BY_NAME)}") from None


def as_numpy_dtype(value: Any) -> Any:
    """The NumPy dtype that `as_dtype` would wrap."""
    return value.numpy if isinstance(value, dtype) else as_dtype(value).numpy


def get_default_dtype() -> dtype:
    """The floating-point dtype of tensors made from Python floats; float32 unless set."""
    return _default


def set_default_dtype(d: Any, /) -> None:
    """Set the dtype of tensors made from Python floats.

    Raises
    ------
    TypeError
        If `d` is not a floating-point dtype.
    """
    global _default
    d = as_dtype(d)
    if not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, not {d}")
    _default = d


def promote_types(type1: Any, type2: Any) -> dtype:
    """The smallest dtype that holds both, by PyTorch's rules: the higher of bool < integer < floating < complex
    decides, so int64 with float16 is float16 (https://docs.pytorch.org/docs/stable/tensor_attributes.html).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.promote_types(disttorch.int64, disttorch.float16)
    disttorch.float16
    """
    a, b = as_dtype(type1), as_dtype(type2)
    if a is b:
        return a
    if a.category < b.category:
        a, b = b, a
    if a.category > b.category:
        if a.is_complex and b is float64:
            return complex128
        return a
    if a.category == FLOAT and {a, b} == {float16, bfloat16}:
        return float32
    if a.category == FLOAT:
        return a if a.itemsize > b.itemsize else b
    if a.category == INTEGER and a.itemsize != b.itemsize and "uint64" in (a.name, b.name):
        raise RuntimeError(f"promotion for uint64 with {a if b.name == 'uint64' else b} is not supported")
    promoted = numpy.promote_types(a.numpy, b.numpy)
    if promoted not in DTYPES or (a.category == INTEGER and promoted.kind == "f"):
        raise RuntimeError(f"there is no integer type that holds both {a} and {b}")
    return DTYPES[promoted]


def result_of(operands: Iterable[tuple[dtype, int]]) -> dtype:
    """The dtype of an operation on (dtype, rank) operands, where rank 2 is a tensor with dimensions, 1 a tensor
    without and 0 a Python number: operands of a lower rank only count where they are of a higher category.
    """
    by_rank: list[dtype | None] = [None, None, None]
    for d, rank in operands:
        seen = by_rank[rank]
        by_rank[rank] = d if seen is None else promote_types(seen, d)
    result: dtype | None = None
    for rank in (2, 1, 0):
        d2 = by_rank[rank]
        if d2 is None:
            continue
        if rank == 0 and d2.category >= FLOAT:
            d2 = _default if d2.category == FLOAT else _default.to_complex()
        if result is None:
            result = d2
        elif d2.is_complex and result.is_floating_point:
            result = result.to_complex()
        elif d2.category > result.category:
            result = promote_types(result, d2)
    if result is None:
        raise ValueError("result_type needs at least one operand")
    return result


def result_type(*tensors: Any) -> dtype:
    """The dtype that an arithmetic operation on these tensors and Python numbers gives.

    Parameters
    ----------
    *tensors : Tensor or number

    Examples
    --------
    >>> import disttorch
    >>> disttorch.result_type(disttorch.ones(2, dtype=disttorch.int64), 1.5)
    disttorch.float32
    """
    return result_of(
        (t.dtype, 2 if t.ndim else 1) if hasattr(t, "ndim") else (_PYTHON_TYPES[type(t)], 0) for t in tensors
    )


def can_cast(from_: Any, to: Any) -> bool:
    """Whether PyTorch's casting rules allow an in-place result of dtype `from_` in a tensor of dtype `to`: a category
    is never lowered.
    """
    return as_dtype(from_).category <= as_dtype(to).category


class finfo:
    """Limits of a floating-point dtype: bits, eps, max, min, tiny, smallest_normal, resolution, dtype.

    Parameters
    ----------
    type : dtype, optional
        The default dtype if absent; of a complex dtype, its real part's limits.
    """

    eps: float
    max: float
    min: float
    tiny: float
    smallest_normal: float

    def __init__(self, type: Any = None):
        d = (_default if type is None else as_dtype(type)).to_real()
        if not d.is_floating_point:
            raise TypeError(f"finfo is for floating-point types, not {d}; see iinfo")
        info = ml_dtypes.finfo(d.numpy)
        self.bits: int = info.bits
        self.dtype = d.name
        for name in ("eps", "max", "min", "tiny", "smallest_normal"):
            setattr(self, name, float(getattr(info, name)))
        self.resolution = 10.0 ** -int(info.precision)  # a power of ten, as the documentation has it

    def __repr__(self) -> str:
        values = ", ".join(f"{n}={getattr(self, n):g}" for n in ("resolution", "min", "max", "eps", "smallest_normal", "tiny"))
        return f"finfo({values}, dtype={self.dtype})"


class iinfo:
    """Limits of an integer dtype: bits, max, min, dtype."""

    def __init__(self, type: Any):
        d = as_dtype(type)
        if d.category != INTEGER:
            raise TypeError(f"iinfo is for integer types, not {d}; see finfo")
        info = numpy.iinfo(d.numpy)
        self.bits, self.max, self.min, self.dtype = int(info.bits), int(info.max), int(info.min), d.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
