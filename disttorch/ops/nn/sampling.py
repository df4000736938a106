"""Images sampled at arbitrary points: `grid_sample`, and `affine_grid`, which makes such points.

What is sampled at a point is a weighted sum of a few pixels: rows of a table (pixels, channels). The weights are functions
of the points by ordinary operations, so their gradients come by themselves; the sum is `weighted_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from .. import creation
from ..indexing import where
from ..linear import matmul
from ..pointwise import floor, fmod
from ..shape import stack
from ..world import tensors

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator"

__all__ = ["affine_grid", "affine_grid_generator", "grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d"]

# with g[p, c], weights[k, p] and rows[index[k, p], c], each is a derivative of the sum of all their products
_weighted_rows = Operation(
    "weighted_rows",
    lambda xp, rows, weights, index: xp.weighted_rows(rows, weights, index),
    rows=lambda g, weights, index, rows_shape, xp: xp.spread_rows(g, weights, index, rows_shape[0]),
    weights=lambda g, rows, index, xp: xp.row_products(g, rows, index),
)
_spread_rows = Operation(
    "spread_rows",
    lambda xp, y, weights, index, *, count: xp.spread_rows(y, weights, index, count),
    y=lambda g, weights, index, xp: xp.weighted_rows(g, weights, index),
    weights=lambda g, y, index, xp: xp.row_products(y, g, index),
)
_row_products = Operation(
    "row_products",
    lambda xp, y, rows, index: xp.row_products(y, rows, index),
    y=lambda g, rows, index, xp: xp.weighted_rows(rows, g, index),
    rows=lambda g, y, index, rows_shape, xp: xp.spread_rows(y, g, index, rows_shape[0]),
)

# the kernels as rules call them, where they run on tensors
tensors.weighted_rows = lambda rows, weights, index: apply(_weighted_rows, rows, weights, index)
tensors.spread_rows = lambda y, weights, index, count: apply(_spread_rows, y, weights, index, count=count)
tensors.row_products = lambda y, rows, index: apply(_row_products, y, rows, index)

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Images sampled at points; as ``torch.nn.functional.grid_sample``.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (N, C, D, H, W), floating point.
    grid : Tensor
        (N, *output, 2) or (N, *output, 3): for each place of the result the point (x, y) or (x, y, z), from -1 to 1 in the image.
    mode : {"bilinear", "nearest", "bicubic"}
    padding_mode : {"zeros", "border", "reflection"}
        What lies outside of the image.
    align_corners : bool, optional
        Whether -1 and 1 are the centres of the first and the last pixel, rather than their outer edges.

    Returns
    -------
    Tensor
        (N, C, *output)

    Raises
    ------
    ValueError
        For another mode.
    RuntimeError
        If shapes or dtypes do not fit.
    """
    if mode not in _MODES:
        raise ValueError(f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'")
    if padding_mode not in _PADDINGS:
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    _check(input, grid, mode)
    n, channels, *size = input.shape
    output = grid.shape[1:-1]
    points = grid.reshape(n * prod(output), len(size))
    # the grid's last coordinate is the first dimension's
    along = [_places(points[:, len(size) - 1 - i], length, bool(align_corners)) for i, length in enumerate(size)]
    taps = [_taps(at, length, mode, padding_mode, bool(align_corners)) for at, length in zip(along, size)]
    xp = namespace(input._array)
    image = xp.arange(n)[:, None] * prod(size) + xp.zeros((n, prod(output)), dt.int64.numpy)
    weights, indices = [], []
    for chosen in product(*taps):
        weight: Any = None
        index: Any = 0
        for (position, share, inside), length in zip(chosen, size):
            share = share if inside is None else where(wrap(inside), share, xp.scalar(0, input._array.dtype).item())
            weight = share if weight is None else weight * share
            index = index * length + position
        weights.append(weight)
        indices.append(index + image.reshape(-1))
    rows = input.movedim(1, -1).reshape(n * prod(size), channels)
    sampled = apply(_weighted_rows, rows, stack(weights), wrap(xp.stack(indices)))
    return sampled.reshape(n, *output, channels).movedim(-1, 1)


def _check(input: Tensor, grid: Tensor, mode: str) -> None:
    shape, other = list(input.shape), list(grid.shape)
    if len(shape) not in (4, 5) or len(other) != len(shape):
        raise RuntimeError(
            f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with sizes {shape} and grid "
            f"with sizes {other}"
        )
    if other[0] != shape[0]:
        raise RuntimeError(
            f"grid_sampler(): expected grid and input to have same batch size, but got input with sizes {shape} and grid with sizes {other}"
        )
    if other[-1] != len(shape) - 2:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {len(shape) - 2} in last dimension, but got grid with sizes {other}"
        )
    if 0 in shape[2:]:
        raise RuntimeError(
            f"grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes {shape} with dimension "
            f"{shape.index(0, 2)} being empty"
        )
    if mode == "bicubic" and len(shape) == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if input._array.dtype not in dt.FLOATING or input._array.dtype != grid._array.dtype:
        raise RuntimeError(
            f"grid_sampler(): expected input and grid to have the same floating-point dtype, got {input.dtype} and {grid.dtype}"
        )


def _places(point: Tensor, length: int, align_corners: bool) -> Tensor:
    """From -1 .. 1 to pixels."""
    return (point + 1) * ((length - 1) / 2) if align_corners else ((point + 1) * length - 1) * 0.5


def _taps(at: Tensor, length: int, mode: str, padding: str, align_corners: bool) -> list[tuple[Any, Tensor, Any]]:
    """Along one dimension: the pixels that a place is made of, as (positions, shares, which of them are inside)."""
    if mode == "bicubic":
        first = floor(at).detach()
        shares = _cubic_shares(at - first)
        return [
            _tap(_padded(first + step, length, padding, align_corners), share, length, padding)
            for step, share in zip((-1, 0, 1, 2), shares)
        ]
    at = _padded(at, length, padding, align_corners)
    if mode == "nearest":
        nearest = at.round()
        # 1, with the gradient 0 that PyTorch gives
        return [_tap(nearest, nearest - nearest.detach() + 1, length, padding)]
    first = floor(at).detach()
    part = at - first
    return [_tap(first, 1 - part, length, padding), _tap(first + 1, part, length, padding)]


def _tap(position: Tensor, share: Tensor, length: int, padding: str) -> tuple[Any, Tensor, Any]:
    p = position._array
    xp = namespace(p)
    inside = (p >= 0) & (p <= length - 1) if padding == "zeros" else None
    # clipped before, since large numbers are no integers, and after, since nan is none
    whole = xp.clip(xp.asarray(xp.clip(p, -1, length), dtype=dt.int64.numpy), 0, length - 1)
    return whole, share, inside


def _cubic_shares(t: Tensor) -> list[Tensor]:
    """Keys' cubic convolution with a = -0.75 of the pixels at -1, 0, 1 and 2, for a place at t from 0 to 1."""
    a = -0.75

    def far(d: Tensor) -> Tensor:
        return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a

    def near(d: Tensor) -> Tensor:
        return ((d * (a + 2) - (a + 3)) * d) * d + 1

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _padded(at: Tensor, length: int, padding: str, align_corners: bool) -> Tensor:
    """Places beyond the image, as places in it; what is moved to the border has no gradient."""
    if padding == "zeros":
        return at
    if padding == "reflection":
        at = _reflected(at, 0.0, length - 1.0) if align_corners else _reflected(at, -0.5, length - 0.5)
    within = wrap((at._array > 0) & (at._array < length - 1))
    return where(within, at, at.detach().clamp(0, length - 1))


def _reflected(at: Tensor, low: float, high: float) -> Tensor:
    """Places mirrored at both ends until they lie between them."""
    span = high - low
    if span == 0:
        return at * 0
    beyond = at - low
    beyond = where(beyond < 0, -beyond, beyond)
    rest = fmod(beyond, span)
    flips = floor(beyond.detach() / span)
    even = wrap(flips._array % 2 == 0)
    return where(even, rest + low, high - rest)


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """`grid_sample` with the modes as numbers, in the order in which it lists them; as ``torch.grid_sampler``."""
    return grid_sample(input, grid, _MODES[interpolation_mode], _PADDINGS[padding_mode], align_corners)


def _sampler_over(ndim: int) -> Any:
    name = f"grid_sampler_{ndim}d"

    def function(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
        if input.ndim != ndim + 2:
            raise RuntimeError(f"{name}(): expected {ndim + 2}D input, but got input with sizes {list(input.shape)}")
        return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`grid_sampler` over {ndim} spatial dimensions; as ``torch.{name}``."
    return function


grid_sampler_2d, grid_sampler_3d = (_sampler_over(n) for n in (2, 3))


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points of an affine map, for `grid_sample`; as ``torch.nn.functional.affine_grid``.

    Parameters
    ----------
    theta : Tensor
        (N, 2, 3), or (N, 3, 4) for volumes: the maps from places in the result to points in the input.
    size : sequence of int
        (N, C, H, W) or (N, C, D, H, W) of the result.
    align_corners : bool, optional
        Whether -1 and 1 are the centres of the first and the last pixel, rather than their outer edges.

    Returns
    -------
    Tensor
        (N, H, W, 2) or (N, D, H, W, 3)

    Raises
    ------
    ValueError
        If `theta` is not of that shape or dtype, or a size is not positive.
    NotImplementedError
        For other numbers of dimensions.
    """
    if theta._array.dtype not in dt.FLOATING:
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    sizes = tuple(int(n) for n in size)
    if len(sizes) not in (4, 5):
        raise NotImplementedError(
            f"affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size {sizes}."
        )
    ndim = len(sizes) - 2
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (ndim, ndim + 1):
        raise ValueError(
            f"Expected a batch of {ndim}D affine matrices of shape Nx{ndim}x{ndim + 1} for size {sizes}. Got {list(theta.shape)}."
        )
    if min(sizes) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {sizes}")
    made = {"dtype": theta.dtype, "device": theta.device}
    coordinates = [
        _centres(n, bool(align_corners), made).reshape(-1, *(1,) * (ndim - 1 - i)).expand(*sizes[2:])
        for i, n in enumerate(sizes[2:])
    ]
    base = stack([*reversed(coordinates), creation.ones(*sizes[2:], **made)], -1).reshape(-1, ndim + 1)
    return matmul(base, theta.transpose(1, 2)).reshape(theta.shape[0], *sizes[2:], ndim)


affine_grid_generator = affine_grid


def _centres(n: int, align_corners: bool, made: dict[str, Any]) -> Tensor:
    """From -1 to 1, the places of n pixels' centres."""
    if n == 1:
        return creation.zeros(1, **made)
    ends = creation.linspace(-1, 1, n, **made)
    return ends if align_corners else ends * ((n - 1) / n)
