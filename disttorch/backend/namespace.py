"""An array world: NumPy's names bound to one library's functions, plus the kernel table.

Code above the backend takes the namespace of the arrays it was given (`namespace`) and calls it ``xp``; it never
names a library. `ARRAY_FUNCTIONS` is all that we use of NumPy and CuPy under one and the same name and meaning.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from .kernels import PLAIN

__all__ = ["ARRAY_FUNCTIONS", "IN_ONE_ORDER", "NAMESPACES", "Namespace", "move", "namespace"]

ARRAY_FUNCTIONS = tuple(
    """
    abs absolute add all amax amin any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
    argpartition argsort array_equal asarray ascontiguousarray bincount bitwise_and bitwise_or bitwise_xor
    broadcast_arrays broadcast_to cbrt ceil clip concatenate conjugate copysign copyto cos cosh cumprod cumsum deg2rad
    diagonal diff divide einsum empty empty_like equal exp exp2 expand_dims expm1 eye flip floor floor_divide fmax fmin
    fmod frexp from_dlpack full full_like gcd greater greater_equal heaviside hypot invert isfinite isin isinf isnan lcm
    left_shift less less_equal lexsort linspace log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not
    logical_or logical_xor logspace matmul max maximum mean min minimum moveaxis multiply nan_to_num ndarray negative
    nextafter nonzero not_equal ones ones_like outer pad positive power prod rad2deg reciprocal remainder repeat reshape
    right_shift rint roll searchsorted sign signbit sin sinh sort split sqrt square squeeze stack std subtract sum
    swapaxes take take_along_axis tan tanh tensordot tile trace transpose tri tril triu trunc unique var where zeros
    zeros_like
    """.split()
)


class Namespace(SimpleNamespace):
    """One array world. Attributes are NumPy's functions and the kernels, under one roof.

    Parameters
    ----------
    name : str
        The device type, ``"cpu"`` or ``"cuda"``.
    library : module
        What `ARRAY_FUNCTIONS` are taken from.
    """

    def __init__(self, name: str, library: Any):
        super().__init__(**{function: getattr(library, function) for function in ARRAY_FUNCTIONS})
        self.name = name
        self.linalg, self.fft = library.linalg, library.fft
        for kernel_name, plain in PLAIN.items():
            setattr(self, kernel_name, partial(plain, self))

    def __repr__(self) -> str:
        return f"<array namespace {self.name}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the array namespace {self.__dict__.get('name')!r} has no {name!r}")


#: from the type of an array (or of a library's scalar) to its namespace
NAMESPACES: dict[type, Any] = {}


#: from the type of an array whose operators give results in C order, whatever the operands: what makes of the rules of an elementwise
#: operation some whose results lie as the operands do
IN_ONE_ORDER: dict[type, Any] = {}


def namespace(array: Any) -> Any:
    """The namespace that an array belongs to.

    Raises
    ------
    TypeError
        If no backend knows arrays of that type.
    """
    try:
        return NAMESPACES[type(array)]
    except KeyError:
        known = ", ".join(sorted(t.__name__ for t in NAMESPACES))
        raise TypeError(f"no backend has arrays of type {type(array).__name__!r}; known are {known}") from None


def move(xp: Any, array: Any, target: Any, non_blocking: bool = False) -> Any:
    """A copy of an array of the namespace `xp` on another device, which may have its elements later than the function returns."""
    from . import for_device

    there, where = for_device(target)
    if there.name == "cpu":
        return xp.to_host(array, non_blocking)
    return there.from_host(array, where.index, non_blocking)
