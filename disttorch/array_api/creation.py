"""The standard's functions that make arrays."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops import FUNCTIONS as OURS
from ..ops.creation import from_dlpack as _from_dlpack

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace", "meshgrid", "ones", "ones_like",
    "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array of numbers, nested lists, arrays of any library; without a copy where that is possible and `copy` allows it."""
    return OURS["asarray"](obj, dtype=dtype, device=device, copy=copy)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array on the memory of another library's."""
    return _from_dlpack(x, device=device, copy=copy)


def arange(start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Numbers from `start`, or 0, up to `stop`, which is not among them."""
    first, last = (0, start) if stop is None else (start, stop)
    if (last - first) * step <= 0:  # none, where PyTorch has an error
        whole = all(isinstance(v, int) for v in (first, last, step))
        return OURS["empty"]((0,), dtype=dtype or (OURS["arange"](0).dtype if whole else None), device=device)
    return OURS["arange"](first, last, step, dtype=dtype, device=device)


def linspace(start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True) -> Tensor:
    """Equally spaced numbers; without `endpoint` the last one is a step before `stop`."""
    if dtype is None and any(isinstance(v, complex) for v in (start, stop)):
        dtype = OURS["full"]((), 1j).dtype
    if endpoint:
        return OURS["linspace"](start, stop, num, dtype=dtype, device=device)
    return OURS["linspace"](start, stop, num + 1, dtype=dtype, device=device)[:num]


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones on a diagonal, zeros elsewhere; the diagonal `k` places above the main one."""
    columns = n_rows if n_cols is None else n_cols
    rows, cols = OURS["arange"](n_rows, device=device), OURS["arange"](columns, device=device)
    ones = OURS["ones"]((), dtype=dtype, device=device)
    return ((cols - rows.unsqueeze(1)) == k).to(ones.dtype)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array that nobody has written to."""
    return OURS["empty"](_shape(shape), dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of zeros."""
    return OURS["zeros"](_shape(shape), dtype=dtype, device=device)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of ones."""
    return OURS["ones"](_shape(shape), dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of one value, in the dtype that Python's number has by default."""
    return OURS["full"](_shape(shape), fill_value, dtype=dtype, device=device)


def _shape(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`empty` with another array's shape and dtype."""
    return OURS["empty_like"](x, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`zeros` with another array's shape and dtype."""
    return OURS["zeros_like"](x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`ones` with another array's shape and dtype."""
    return OURS["ones_like"](x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`full` with another array's shape and dtype."""
    return OURS["full_like"](x, fill_value, dtype=dtype, device=device)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid, an array for each dimension."""
    return list(OURS["meshgrid"](*arrays, indexing=indexing))


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The part on and below a diagonal; zeros above."""
    return OURS["tril"](x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The part on and above a diagonal; zeros below."""
    return OURS["triu"](x, k)
