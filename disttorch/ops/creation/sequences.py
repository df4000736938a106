"""Tensors of numbers in a row: arange, range, linspace, logspace."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import for_device
from ...backend.dtypes import as_dtype
from ...backend.layout import check_layout
from .data import require_grad
from .filled import put_into

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "arange linspace logspace range"


def _numbers(name: str, *values: Any) -> list[Any]:
    """Numbers, of tensors without dimensions too."""
    found = []
    for v in values:
        if hasattr(v, "item"):
            if getattr(v, "ndim", 0):
                raise RuntimeError(f"{name} only supports 0-dimensional tensors, but got one with {v.ndim} dimension(s)")
            v = v.item()
        elif not isinstance(v, (int, float, complex)):
            raise TypeError(f"{name}(): arguments must be numbers, not {type(v).__name__}")
        found.append(v)
    return found


def _steps(start: Any, end: Any, step: Any, is_inclusive: bool) -> int:
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not math.isfinite(start) or not math.isfinite(end):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) / step < 0:
        raise RuntimeError(f"upper bound and lower bound inconsistent with step sign: {start}, {end}, step {step}")
    if all(isinstance(v, int) for v in (start, end, step)) and not is_inclusive:
        return -(-(end - start) // step)
    return math.floor((end - start) / step) + 1 if is_inclusive else math.ceil((end - start) / step)


def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Numbers from `start` (0 if only one is given) up to, but not including, `end`; as ``torch.arange``.

    Raises
    ------
    RuntimeError
        If the step is zero, or leads away from the end.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.arange(1, 2.5, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    if end is None:
        start, end = None, start
    if end is None:
        raise TypeError("arange(): where it ends must be given")
    if start is None:
        start = 0
    return _in_steps(start, end, step, False, out, dtype, layout, device, requires_grad)


def range(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from `start` to `end`, which is included, floating point unless a dtype is given; as ``torch.range``."""
    if end is None:
        start, end = 0, start
    return _in_steps(start, end, step, True, out, dtype or dt.get_default_dtype(), layout, device, requires_grad)


def _in_steps(
    start: Any, end: Any, step: Any, is_inclusive: bool, out: Any, dtype: Any, layout: Any, device: Any, requires_grad: bool
) -> Tensor:
    check_layout(layout)
    start, end, step = _numbers("arange", start, end, step)
    for v in (start, end, step):
        if isinstance(v, complex):
            raise RuntimeError(f"arange: value {v} cannot be converted to type double without overflow")
    if dtype is None and out is not None:
        dtype = out.dtype
    if dtype is None:
        dtype = dt.int64 if all(isinstance(v, int) for v in (start, end, step)) else dt.get_default_dtype()
    d = as_dtype(dtype)
    xp, where = for_device(device if out is None else out.device)
    whole = [int(v) if math.isfinite(v) else v for v in (start, end, step)]
    if d is dt.int64 and step:
        start, end, step = whole
        if step == 0:
            raise ValueError("step must be nonzero, also as an integer")
    count = _steps(start, end, step, is_inclusive)
    if d.category == dt.INTEGER:  # how many there are is counted before
        start, end, step = whole
    with xp.on(where):
        array = xp.arange(count)
        if step != 1 or step.__class__ is float:
            array = array * step
        if start != 0 or start.__class__ is float:
            array = array + start
        array = array.astype(d.numpy, copy=False)
    return require_grad(put_into(out, wrap(array)), requires_grad)


def _equal_steps(xp: Any, start: Any, end: Any, steps: int, d: dt.dtype) -> Any:
    """From both ends to the middle, as PyTorch counts, so that both are exact."""
    wide = dt.complex128 if d.is_complex else dt.float64
    if steps == 1:
        return xp.full((1,), start, wide.numpy)
    step = (end - start) / (steps - 1) if steps else 0
    number = xp.arange(steps)
    return xp.where(number < steps / 2, start + number * step, end - (steps - 1 - number) * step).astype(wide.numpy)


def _spaced(
    name: str, start: Any, end: Any, steps: int, base: Any, out: Any, dtype: Any, layout: Any, device: Any, requires_grad: bool
) -> Tensor:
    check_layout(layout)
    start, end = _numbers(name, start, end)
    if not hasattr(steps, "__index__"):
        raise TypeError(f"{name}(): argument 'steps' must be int, not {type(steps).__name__}")
    steps = steps.__index__()
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, got {steps}")
    is_complex = isinstance(start, complex) or isinstance(end, complex)
    if dtype is None and out is not None:
        dtype = out.dtype
    if dtype is None:
        dtype = dt.get_default_dtype().to_complex() if is_complex else dt.get_default_dtype()
    d = as_dtype(dtype)
    if is_complex and not d.is_complex:
        raise RuntimeError(f"{name}: dtype {d} cannot hold the complex numbers from {start} to {end}")
    if d.category <= dt.INTEGER:
        start, end = int(start), int(end)
    xp, where = for_device(device if out is None else out.device)
    with xp.on(where):
        array = _equal_steps(xp, start, end, steps, d)
        if base is not None:
            array = xp.power(xp.full((), base, array.dtype), array)
        array = array.astype(d.numpy)
    return require_grad(put_into(out, wrap(array)), requires_grad)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included; as ``torch.linspace``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linspace(0, 1, 3)
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _spaced("linspace", start, end, steps, None, out, dtype, layout, device, requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """`steps` powers of `base`, their exponents at equal distances from `start` to `end`; as ``torch.logspace``."""
    return _spaced("logspace", start, end, steps, base, out, dtype, layout, device, requires_grad)
