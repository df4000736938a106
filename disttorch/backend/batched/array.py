"""An array that hides one dimension: many samples of an array, which a program treats as one.

The hidden dimension is always the first of `value`. Batches nest: `value` may itself hide one, of an outer level. What is the
same for all samples has level 0 and hides nothing; it is in this world so that arrays of one program have one class.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple

from ..layout import is_writeable

__all__ = ["BatchedArray", "Level", "RandomnessError", "levels", "new_level"]


class RandomnessError(RuntimeError):
    """A random function was called where `func.vmap` was not told what it shall do."""



class Level(NamedTuple):
    """A batch that a program is run on."""

    number: int
    size: int
    #: what random functions do: "error", "same" for all samples, or "different"
    randomness: str


#: The batches that the running program is inside of, the innermost last.
levels: ContextVar[tuple[Level, ...]] = ContextVar("disttorch.batch_levels", default=())

_numbers = itertools.count(1)


def new_level(size: int, randomness: str = "error") -> Level:
    """A batch inside all those that there are."""
    return Level(next(_numbers), size, randomness)


class BatchedArray:
    """Samples of an array, side by side.

    Attributes
    ----------
    value : array
        (samples, *shape); the plain array if `level` is 0.
    level : int
        Which batch it is a part of; inner ones have greater numbers.
    across : str
        Of what any, all, min or max made of a whole array: its name. Where our own code asks for that as one value, it wants to
        know of a wrong index, or choose a short way, and means all samples; users' code asks by `item`.
    """

    __slots__ = ("__weakref__", "across", "level", "value")

    #: its namespace; a class of its own for each array library
    world: ClassVar[Any] = None
    # NumPy and CuPy leave mixed expressions to us
    __array_ufunc__ = None
    __array_priority__ = 500
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, level: int):
        self.value = value
        self.level = level
        self.across = ""

    # --- what it looks like to the program ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape[1:] if self.level else self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim - 1 if self.level else self.value.ndim

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def strides(self) -> tuple[int, ...]:
        return self.value.strides[1:] if self.level else self.value.strides

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def itemsize(self) -> int:
        return self.value.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def flags(self) -> _Flags:
        return _Flags(self)

    @property
    def base(self) -> Any:
        # never None: that would say that the memory is this object's own
        value = self.value
        while isinstance(value, BatchedArray):
            value = value.value
        return value if value.base is None else value.base

    @property
    def real(self) -> BatchedArray:
        return type(self)(self.value.real, self.level)

    @property
    def imag(self) -> BatchedArray:
        return type(self)(self.value.imag, self.level)

    @property
    def T(self) -> Any:
        return self.world.transpose(self, tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterable[Any]:
        return iter([self[i] for i in range(len(self))])

    def __repr__(self) -> str:
        return f"<{len(self.value) if self.level else 'any number of'} samples of shape {self.shape} at level {self.level}: {self.value!r}>"

    # --- one value for all samples ---------------------------------------------------------------------------------------

    def _only(self, what: str) -> Any:
        if self.level:
            raise RuntimeError(
                f"vmap: {what} needs one value, but there are {len(self.value)} samples with a value each. Use where() instead of a "
                "branch that depends on values, and keep results tensors"
            )
        return self.value

    def item(self) -> Any:
        return self._only("item()").item()

    def tolist(self) -> Any:
        return self._only("tolist()").tolist()

    def _of_all(self, what: str) -> Any:
        if not (self.across and self.level):
            return self._only(what)
        value = self.value
        while isinstance(value, BatchedArray):
            value = value.value
        return getattr(self.world.base, self.across)(value)

    def __bool__(self) -> bool:
        return bool(self._of_all("a condition on a tensor's value"))

    def __int__(self) -> int:
        return int(self._of_all("int()"))

    def __float__(self) -> float:
        return float(self._of_all("float()"))

    def __index__(self) -> int:
        return operator.index(self._of_all("an index"))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        if self.level:
            raise RuntimeError(
                "vmap: an array of the library's is wanted of samples that differ; a tensor that is the same for all samples cannot be "
                "changed in place to values that differ between them"
            )
        return self.value.__array__(*args, **kwargs)

    # --- indexing --------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        return self.world.get_item(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.world.set_item(self, index, value)

    # --- methods that are functions of the namespace -----------------------------------------------------------------------

    def astype(self, dtype: Any, copy: bool = True) -> BatchedArray:
        return type(self)(self.value.astype(dtype, copy=copy), self.level)

    def copy(self) -> BatchedArray:
        return self.world.array(self)

    def view(self, dtype: Any) -> BatchedArray:
        return type(self)(self.value.view(dtype), self.level)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        return self.world.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        if not axes:
            return self.T
        return self.world.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes)

    def fill(self, value: Any) -> None:
        self[...] = value

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in METHODS:
            raise AttributeError(f"samples of an array have no {name!r}")
        function = getattr(self.world, METHODS[name])
        return lambda *args, **kwargs: function(self, *args, **kwargs)


#: methods of arrays, and the namespace's functions that they are
METHODS = {
    name: name
    for name in """
    all any argmax argmin argsort clip cumprod cumsum diagonal dot max mean min nonzero prod repeat round sort squeeze std sum swapaxes
    take trace var
    """.split()
} | {"conj": "conjugate", "conjugate": "conjugate", "ravel": "ravel", "flatten": "ravel"}


class _Flags:
    """What an array says about its memory."""

    __slots__ = ("_array",)

    def __init__(self, array: BatchedArray):
        self._array = array

    @property
    def writeable(self) -> bool:
        return is_writeable(self._array.value)

    @property
    def c_contiguous(self) -> bool:
        return self._array.value.flags.c_contiguous

    @property
    def f_contiguous(self) -> bool:
        return self._array.value.flags.f_contiguous


def _operator(function: str, swapped: bool = False) -> Callable:
    def method(self: BatchedArray, other: Any) -> Any:
        called = getattr(self.world, function)
        return called(other, self) if swapped else called(self, other)

    return method


def _in_place(function: str) -> Callable:
    def method(self: BatchedArray, other: Any) -> BatchedArray:
        result = getattr(self.world, function)(self, other)
        if result.level == self.level:
            self.value[...] = result.value
        else:  # all samples had the same; now they differ
            self.value, self.level = result.value, result.level
        return self

    return method


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift",
    "rshift": "right_shift",
}  # fmt: skip
for _name, _function in _OPERATORS.items():
    setattr(BatchedArray, f"__{_name}__", _operator(_function))
    setattr(BatchedArray, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(BatchedArray, f"__i{_name}__", _in_place(_function))
for _name, _function in {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}.items():  # fmt: skip
    setattr(BatchedArray, f"__{_name}__", _operator(_function))


def _sign(function: str) -> Callable:
    return lambda self: getattr(self.world, function)(self)


for _name, _function in {"neg": "negative", "abs": "abs", "invert": "invert", "pos": "positive"}.items():
    setattr(BatchedArray, f"__{_name}__", _sign(_function))
