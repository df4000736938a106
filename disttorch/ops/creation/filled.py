"""Tensors of a shape filled with a value, or with nothing."""

from __future__ import annotations

from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import for_device, namespace
from ...backend.dtypes import as_dtype
from ...backend.layout import check_layout, in_format, is_dense, kept_format, laid_out_like, strides_in
from ..dims import as_shape
from .data import require_grad

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = """
    empty empty_like empty_permuted empty_strided eye full full_like ones ones_like scalar_tensor zeros zeros_like
"""
METHODS = "new_empty new_empty_strided new_full new_ones new_zeros"


def put_into(out: Tensor | None, result: Tensor) -> Tensor:
    """The result, in the tensor given as ``out=`` if there is one."""
    if out is None:
        return result
    if out._array.shape != result._array.shape:
        out.resize_(tuple(result._array.shape))
    return out.copy_(result)


def _dtype_of(dtype: Any, out: Tensor | None) -> dt.dtype:
    if dtype is not None:
        return as_dtype(dtype)
    return dt.get_default_dtype() if out is None else out.dtype


def _check_size(name: str, shape: tuple[int, ...]) -> None:
    for n in shape:
        if n < 0:
            raise RuntimeError(f"{name}: trying to create tensor with negative dimension {n}: {list(shape)}")


def _make(name: str, size: Any, dtype: dt.dtype, device: Any, requires_grad: bool, *fill: Any) -> Tensor:
    shape = as_shape(size, name)
    _check_size(name, shape)
    xp, where = for_device(device)
    with xp.on(where):
        # negative numbers wrap round in unsigned types
        array = getattr(xp, name)(shape, *(xp.scalar(v, dtype.numpy) for v in fill), dtype=dtype.numpy)
    return require_grad(wrap(array), requires_grad)


def _filled(name: str, what: str, *more: str) -> Any:
    def function(
        *sizes: Any,
        size: Any = None,
        out: Tensor | None = None,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
        **options: Any,
    ) -> Tensor:
        for option in options:
            if option not in more:
                raise TypeError(f"{name}() got an unexpected keyword argument {option!r}")
        if not sizes and size is None:
            raise TypeError(f"{name}(): the size is missing")
        check_layout(layout)
        if size is not None:
            sizes = (size,)
        form = kept_format(options.get("memory_format"), "contiguous_format")
        if form == "preserve_format":
            raise RuntimeError(f"{name}(): unsupported memory format option Preserve")
        made = _make(name, sizes, _dtype_of(dtype, out), device if out is None else out.device, requires_grad)
        if form != "contiguous_format":
            a = made._array
            made._array = namespace(a).empty_strided(a.shape, a.dtype, strides_in(a.shape, a.itemsize, form))
        return put_into(out, made)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A tensor of a shape {what}; as ``torch.{name}``.

    Parameters
    ----------
    *sizes : int, or one sequence of int
    dtype : dtype, optional
        The default dtype unless given.
    device : device or str, optional
    requires_grad : bool
    layout, pin_memory
        Accepted as in PyTorch.
    """
    return function


zeros = _filled("zeros", "filled with 0")
ones = _filled("ones", "filled with 1")
empty = _filled("empty", "with whatever its memory held", "memory_format")


def full(
    size: Any,
    fill_value: Any,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of a shape filled with a value; as ``torch.full``. Its dtype is the value's unless given."""
    check_layout(layout)
    value = fill_value.item() if hasattr(fill_value, "item") else fill_value
    if dtype is None:
        dtype = dt.result_of([(as_dtype(type(value)), 0)]) if out is None else out.dtype
    if isinstance(value, complex) and not as_dtype(dtype).is_complex:
        raise RuntimeError(f"full: value {value} cannot be converted to type {dtype} without overflow")
    shape = (size,) if isinstance(size, int) else (tuple(size),)
    return put_into(out, _make("full", shape, as_dtype(dtype), device if out is None else out.device, requires_grad, value))


def _like(name: str, maker: Any) -> Any:
    def function(
        input: Tensor,
        *args: Any,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        pin_memory: bool = False,
        **options: Any,
    ) -> Tensor:
        check_layout(layout)
        a = input._array
        form = kept_format(memory_format)
        if form != "preserve_format":
            strides_in(a.shape, 1, form)  # refuses another number of dimensions
        result = maker(
            a.shape, *args, dtype=input.dtype if dtype is None else dtype, device=input.device if device is None else device, **options
        )
        if form == "preserve_format":
            if not a.flags.c_contiguous or a.ndim > 3:
                result._array = _laid_out_like(result._array, a)
        elif form != "contiguous_format":
            result._array = in_format(namespace(result._array), result._array, form)
        return require_grad(result, requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{name.removesuffix('_like')}` in the shape, dtype, device and layout of another tensor; as ``torch.{name}``."
    return function


def _laid_out_like(made: Any, a: Any) -> Any:
    """An array with the dimensions in memory in the order that they have in another."""
    if 0 in a.strides:
        return made
    if a.__class__ is not made.__class__:  # on another device, or of many samples
        return laid_out_like(namespace(made), made, a)
    if a.flags.c_contiguous or is_dense(a):
        return laid_out_like(namespace(a), made, a)
    turned = namespace(a).empty_like(a, dtype=made.dtype)
    turned[...] = made
    return turned


zeros_like, ones_like = _like("zeros_like", zeros), _like("ones_like", ones)
empty_like, full_like = _like("empty_like", empty), _like("full_like", full)


def _new(name: str, maker: Any) -> Any:
    def function(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        return maker(*args, dtype=self.dtype if dtype is None else dtype, device=self.device if device is None else device, **options)

    function.__name__ = function.__qualname__ = f"new_{name}"
    function.__doc__ = f"`{name}` in this tensor's dtype and on its device unless given; as ``torch.Tensor.new_{name}``."
    return function


new_zeros, new_ones, new_empty, new_full = (_new(n, m) for n, m in (("zeros", zeros), ("ones", ones), ("empty", empty), ("full", full)))


def scalar_tensor(
    s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor without dimensions, floating point unless a dtype is given; as ``torch.scalar_tensor``."""
    return full(
        (), s, dtype=dt.get_default_dtype() if dtype is None else dtype, layout=layout, device=device, requires_grad=requires_grad
    )


def empty_strided(
    size: Any,
    stride: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of a shape and strides (in elements) with whatever its memory held; as ``torch.empty_strided``.

    Raises
    ------
    RuntimeError
        If sizes and strides differ in length, or one is negative.
    """
    check_layout(layout)
    shape, strides = as_shape((tuple(size),), "empty_strided"), as_shape((tuple(stride),), "empty_strided")
    if len(shape) != len(strides):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(strides)} and {list(shape)}")
    _check_size("empty_strided", shape)
    if any(s < 0 for s in strides):
        raise RuntimeError(f"empty_strided: negative strides are not supported, got {list(strides)}")
    d = _dtype_of(dtype, None).numpy
    extent = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides))
    xp, where = for_device(device)
    with xp.on(where):
        memory = xp.empty((extent,), d)
    return require_grad(wrap(xp.restride(memory, shape, tuple(s * d.itemsize for s in strides))), requires_grad)


def empty_permuted(
    size: Any,
    physical_layout: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor of a shape without gaps, whose dimensions lie in memory in the order given; as ``torch.empty_permuted``."""
    shape, order = as_shape((tuple(size),), "empty_permuted"), as_shape((tuple(physical_layout),), "empty_permuted")
    if len(shape) != len(order):
        raise RuntimeError(
            f"Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = {len(shape)} is not "
            f"equal to len(physical_layout) = {len(order)}"
        )
    if sorted(order) != list(range(len(order))):
        raise RuntimeError(f"empty_permuted: {list(order)} does not name each dimension from 0 to {len(order) - 1} once")
    strides, step = [0] * len(shape), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return empty_strided(shape, strides, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad)


new_empty_strided = _new("empty_strided", empty_strided)


def eye(
    n: int,
    m: int | None = None,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A matrix with ones on the diagonal; as ``torch.eye``."""
    check_layout(layout)
    for name, count in (("n", n), ("m", m)):
        if count is not None and count < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {count}")
    shape = (n, n if m is None else m)
    return put_into(out, _make("eye_of", shape, _dtype_of(dtype, out), device if out is None else out.device, requires_grad))
