"""Half types in and out: kernels compute in float32 and round once, at the end.

Both lines hold in every world: a tensor's dtype has an itemsize as NumPy's has, and ``xp.asarray`` of a tensor with a
dtype is its differentiable cast.
"""

from __future__ import annotations

from typing import Any

__all__ = ["is_complex", "narrow", "wide"]


def wide(xp: Any, array: Any) -> Any:
    """The array to compute with: float16 and bfloat16 become float32, other types stay as they are."""
    return xp.asarray(array, dtype="float32") if array.dtype.itemsize < 4 else array


def is_complex(array: Any) -> bool:
    """Whether the elements are complex, of a tensor too."""
    kind = getattr(array.dtype, "kind", None)
    return array.dtype.is_complex if kind is None else kind == "c"


def narrow(xp: Any, array: Any, dtype: Any) -> Any:
    """The result, rounded to `dtype` where it is not of that type already."""
    return array if array.dtype == dtype else xp.asarray(array, dtype=dtype)
