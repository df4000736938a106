"""Elements in other places, copied: flip, roll, rot90, repeat, tile, repeat_interleave, and padding by a constant."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.layout import hides_samples, is_channels_last, laid_out_like, last_axes
from ..dims import as_shape, normal_dim, normal_dims
from .views import expand, reshape, transpose

# What users find of this family, and where: see ops/public.py.
BOTH = "flip fliplr flipud repeat_interleave roll rot90 tile"
METHODS = "repeat"
FUNCTIONS = "constant_pad_nd"

_flip = Operation("flip", lambda xp, x, *, dims: laid_out_like(xp, xp.flip(x, dims).copy(), x), x=lambda g, dims, xp: xp.flip(g, dims))


def flip(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """Dimensions in reverse order, copied; as ``torch.flip``."""
    given = as_shape(order if dims is None else ((dims,) if isinstance(dims, int) else tuple(dims),), "flip")
    places = normal_dims(given, input.ndim, "flip") if given else ()
    return apply(_flip, input, dims=places) if places else input.clone()


def fliplr(input: Tensor) -> Tensor:
    """Dimension 1 in reverse order; as ``torch.fliplr``."""
    if input.ndim < 2:
        raise RuntimeError(f"fliplr: input must be >= 2-d, got {input.ndim}-d")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Dimension 0 in reverse order; as ``torch.flipud``."""
    if input.ndim < 1:
        raise RuntimeError("flipud: input must be >= 1-d, got 0-d")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by `k` times 90 degrees in the plane of two dimensions, from the first to the second; as ``torch.rot90``."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if abs(dims[0] - dims[1]) in (0, input.ndim):
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    for d in dims:
        if not -input.ndim <= d < input.ndim:
            raise RuntimeError(f"Rotation dims out of range, dim = {d}")
    first, second = normal_dims(dims, input.ndim, "rot90") or ()
    k %= 4
    if k == 2:
        return flip(input, first, second)
    if k == 0:
        return input.clone()
    return transpose(flip(input, second), first, second) if k == 1 else transpose(flip(input, first), first, second)


_roll = Operation(
    "roll",
    lambda xp, x, *, shifts, dims: xp.roll(x, shifts, dims),
    x=lambda g, shifts, dims, xp: xp.roll(g, tuple(-s for s in shifts) if isinstance(shifts, tuple) else -shifts, dims),
)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements shifted along dimensions, those that fall off coming back at the other end; as ``torch.roll``."""
    shifts = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    if not shifts:
        raise RuntimeError("`shifts` required")
    if dims is None or dims == ():
        if len(shifts) != 1:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:0")
        return apply(_roll, input, shifts=shifts[0], dims=None)
    given = dims if isinstance(dims, (tuple, list)) else (dims,)
    if len(shifts) != len(given):
        raise RuntimeError(f"roll: shifts {shifts} and dims {tuple(given)} must align")
    if not input.ndim:
        raise IndexError(f"Dimension specified as {given[0]} but tensor has no dimensions")
    return apply(_roll, input, shifts=shifts, dims=tuple(normal_dim(d, input.ndim, "roll") for d in given))


# --- repeated -------------------------------------------------------------------------------------------------------


def repeat(input: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """The tensor several times along each dimension, copied; as ``torch.Tensor.repeat``."""
    counts = as_shape(sizes if repeats is None else (tuple(repeats),), "repeat")
    if len(counts) < input.ndim:
        raise RuntimeError(
            f"number of dimensions of repeat dims {list(counts)} can not be smaller than number of dimensions of tensor {list(input.shape)}"
        )
    if any(c < 0 for c in counts):
        raise RuntimeError(f"repeat: negative counts in {list(counts)}")
    shape = (1,) * (len(counts) - input.ndim) + tuple(input.shape)
    spaced = reshape(input, tuple(n for size in shape for n in (1, size)))
    full = expand(spaced, tuple(n for c, size in zip(counts, shape) for n in (c, size)))
    result = reshape(full, tuple(c * size for c, size in zip(counts, shape)))
    return result.clone() if result._view is not None else result  # nothing was repeated


def tile(input: Tensor, *counts: Any, dims: Any = None) -> Tensor:
    """`repeat`, with missing leading counts taken as 1; as ``torch.tile``."""
    given = as_shape(counts if dims is None else ((dims,) if isinstance(dims, int) else tuple(dims),), "tile")
    return repeat(input, (1,) * (input.ndim - len(given)) + given)


_repeat_interleave = Operation(
    "repeat_interleave",
    lambda xp, x, *, index, dim: xp.take(x, index, axis=dim),
    x=lambda g, x_shape, index, dim, xp: xp.put_index(g, tuple(x_shape), (slice(None),) * dim + (index,)),
)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element several times in a row; as ``torch.repeat_interleave``.

    Parameters
    ----------
    input : Tensor
    repeats : int or Tensor
        How often; a vector says it for each index of `dim`. With one argument only, `input` is the repeats and the result
        says for each place which index stands there.
    dim : int, optional
        Unless given, of the flattened tensor.
    output_size : int, optional
        The length of the result, where the caller knows it.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.repeat_interleave(disttorch.tensor([1, 2]), disttorch.tensor([1, 3]))
    tensor([1, 2, 2, 2])
    """
    if repeats is None:
        if input.ndim != 1:
            raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
        return _interleaved(wrap(namespace(input._array).arange(input.shape[0])), input, 0, output_size)
    if dim is None:
        input, dim = reshape(input, -1), 0
    elif not input.ndim:
        normal_dim(dim, 0, "repeat_interleave")
        input, dim = reshape(input, 1), 0
    return _interleaved(input, repeats, normal_dim(dim, input.ndim, "repeat_interleave"), output_size)


def _interleaved(input: Tensor, repeats: Any, dim: int, output_size: int | None) -> Tensor:
    xp = namespace(input._array)
    size = input._array.shape[dim]
    if isinstance(repeats, Tensor):
        counts = repeats._array
        if counts.dtype not in (dt.int32.numpy, dt.int64.numpy):
            raise RuntimeError(f"repeats has to be Long or Int tensor, got {repeats.dtype}")
        if counts.ndim > 1:
            raise RuntimeError(f"repeats must be 0-dim or 1-dim tensor, got shape {list(counts.shape)}")
        if counts.size != 1 and counts.size != size:
            raise RuntimeError(f"repeats must have the same size as input along dim, but got {counts.size} repeats and size {size}")
        if counts.size and int(counts.min()) < 0:
            raise RuntimeError("repeats can not be negative")
        counts = int(xp.reshape(counts, (-1,))[0]) if counts.size == 1 else counts
    else:
        counts = int(repeats)
        if counts < 0:
            raise RuntimeError("Repeats must be non-negative")
    if isinstance(counts, int):
        index = xp.repeat(xp.arange(size), counts)
    else:  # the place of each result among the ends of what is repeated
        ends = xp.cumsum(counts)
        index = xp.searchsorted(ends, xp.arange(int(ends[-1]) if size else 0), side="right")
    if output_size is not None and len(index) != output_size:
        raise RuntimeError(f"repeat_interleave: output_size is {output_size}, but the repeats add up to {len(index)}")
    return apply(_repeat_interleave, input, index=index, dim=dim)


# --- padded ---------------------------------------------------------------------------------------------------------


def _padded(xp: Any, x: Any, pairs: tuple[tuple[int, int], ...], value: Any) -> Any:
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs))
    last = is_channels_last(x) and not hides_samples(x)
    made = tuple([shape[d] for d in last_axes(x.ndim)[0]]) if last else shape
    result = xp.full(made, value, x.dtype) if value else xp.zeros(made, x.dtype)
    if last:
        result = result.transpose(last_axes(x.ndim)[1])
    # negative amounts take away
    result[tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, pairs))] = x[_kept(x.shape, pairs)]
    return result


def _kept(shape: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> tuple:
    return tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(shape, pairs))


_constant_pad = Operation(
    "constant_pad_nd",
    lambda xp, x, *, pairs, value: _padded(xp, x, pairs, value),
    x=lambda g, x_shape, pairs, xp: _unpadded(g, x_shape, pairs, xp),
)


def _unpadded(g: Any, x_shape: Any, pairs: tuple[tuple[int, int], ...], xp: Any) -> Any:
    inside = g[tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(g.shape, pairs))]
    return xp.put_slice(inside, tuple(x_shape), _kept(tuple(x_shape), pairs))


def constant_pad_nd(input: Tensor, pad: Any, value: Any = 0) -> Tensor:
    """A margin of a constant; `pad` says before and after for the last dimension, then for the one before, and so on.

    Negative amounts take away. As ``torch.constant_pad_nd``.
    """
    amounts = as_shape((tuple(pad),), "constant_pad_nd")
    if len(amounts) % 2:
        raise RuntimeError(f"Length of pad must be even but instead it equals {len(amounts)}")
    if len(amounts) > 2 * input.ndim:
        raise RuntimeError(
            f"Length of pad should be no more than twice the number of dimensions of the input. Pad length is {len(amounts)}, the "
            f"input has shape {list(input.shape)}"
        )
    pairs = ((0, 0),) * (input.ndim - len(amounts) // 2) + tuple(
        (amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)
    )
    for n, (a, b) in zip(input.shape, pairs):
        if n + a + b < 0 or (n + min(a, 0) + min(b, 0)) < 0:
            raise RuntimeError(
                f"The input size {n}, plus negative padding {a} and {b} resulted in a negative output size; pad is {list(amounts)}"
            )
    if isinstance(value, Tensor):
        value = value.item()
    return apply(_constant_pad, input, pairs=pairs, value=value)
