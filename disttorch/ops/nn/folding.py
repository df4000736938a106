"""Windows of images as columns and back, and channels exchanged for space."""

from __future__ import annotations

from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..world import tensors
from .arguments import batched, spatial

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle"

__all__ = ["channel_shuffle", "fold", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "unfold"]

_unfold = Operation(
    "im2col",
    lambda xp, x, *, window: xp.unfold_windows(x, *window),
    x=lambda g, x_shape, window, xp: xp.fold_windows(g, x_shape[2:], *window),
)
_fold = Operation(
    "col2im",
    lambda xp, x, *, size, window: xp.fold_windows(x, size, *window),
    x=lambda g, window, xp: xp.unfold_windows(g, *window),
)

# the kernels as rules call them, where they run on tensors
tensors.unfold_windows = lambda x, *window: apply(_unfold, x, window=window)
tensors.fold_windows = lambda x, size, *window: apply(_fold, x, size=tuple(size), window=window)


def _window(name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> tuple[tuple[int, ...], ...]:
    return (
        spatial(kernel_size, 2, name, "kernel_size", 1),
        spatial(dilation, 2, name, "dilation", 1),
        spatial(padding, 2, name, "padding"),
        spatial(stride, 2, name, "stride", 1),
    )


def _counts(size: tuple[int, ...], window: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """How many windows fit along each dimension."""
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(size, *window))


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """All windows of images as columns; as ``torch.nn.functional.unfold``.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or one sample (C, H, W).
    kernel_size, dilation, padding, stride : int or tuple of int
        Of the windows.

    Returns
    -------
    Tensor
        (N, C * prod(kernel_size), windows)

    Raises
    ------
    RuntimeError
        If no window fits.
    """
    window = _window("unfold", kernel_size, dilation, padding, stride)
    if input._array.ndim in (3, 4) and 0 in input.shape[-3:]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, but got: "
            f"{list(input.shape)}"
        )
    if input._array.ndim in (3, 4) and min(_counts(input.shape[-2:], window)) < 1:
        raise RuntimeError(
            f"Given input with spatial size {tuple(input.shape[-2:])}, kernel_size={window[0]}, dilation={window[1]}, "
            f"padding={window[2]}, calculated shape of the array of sliding blocks as {_counts(input.shape[-2:], window)}, but its "
            "components must be at least one."
        )
    return batched("unfold", input, 2, lambda x: apply(_unfold, x, window=window))


def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Columns added up to images, where windows overlap; as ``torch.nn.functional.fold``.

    Parameters
    ----------
    input : Tensor
        (N, C * prod(kernel_size), windows), or one sample without N.
    output_size : int or tuple of int
        The images' spatial size.
    kernel_size, dilation, padding, stride : int or tuple of int
        Of the windows.

    Returns
    -------
    Tensor
        (N, C, *output_size)

    Raises
    ------
    RuntimeError
        If the columns are not those of such windows.
    """
    size = spatial(output_size, 2, "fold", "output_size", 1)
    window = _window("fold", kernel_size, dilation, padding, stride)
    if input._array.ndim not in (2, 3) or 0 in input.shape[-2:]:
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for input, but got: "
            f"{list(input.shape)}"
        )
    rows, columns = input.shape[-2:]
    if rows % prod(window[0]):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={rows} and kernel_size={window[0]}."
        )
    counts = _counts(size, window)
    if min(counts) < 1 or prod(counts) != columns:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={window[0]}, dilation={window[1]}, padding={window[2]}, stride={window[3]}, expected "
            f"size of input's dimension 2 to match the calculated number of sliding blocks {' * '.join(map(str, counts))} = "
            f"{prod(counts)}, but got input.size(2)={columns}."
        )
    return batched("fold", input, 1, lambda x: apply(_fold, x, size=size, window=window))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r ** 2, H, W) as (..., C, H * r, W * r); as ``torch.nn.functional.pixel_shuffle``."""
    shape = _image("pixel_shuffle", input)
    r = upscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *batch, c, h, w = shape
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but "
            f"input.size(-3)={c} is not divisible by {r * r}"
        )
    n = len(batch)
    apart = input.reshape(*batch, c // (r * r), r, r, h, w)
    return apart.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2).reshape(*batch, c // (r * r), h * r, w * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) as (..., C * r ** 2, H, W); as ``torch.nn.functional.pixel_unshuffle``."""
    shape = _image("pixel_unshuffle", input)
    r = downscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *batch, c, h, w = shape
    for what, size, dim in (("height", h, -2), ("width", w, -1)):
        if size % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but input.size({dim})={size} is not divisible by {r}"
            )
    n = len(batch)
    apart = input.reshape(*batch, c, h // r, r, w // r, r)
    return apart.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(*batch, c * r * r, h // r, w // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of (N, C, *spatial) dealt out from `groups` groups in turn; as ``torch.channel_shuffle``."""
    shape = tuple(input.shape)
    if len(shape) <= 2:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}")
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if shape[1] % groups:
        raise RuntimeError(f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} groups.")
    return input.reshape(shape[0], groups, shape[1] // groups, *shape[2:]).transpose(1, 2).reshape(*shape)


native_channel_shuffle = channel_shuffle


def _image(name: str, input: Tensor) -> tuple[int, ...]:
    shape = tuple(input.shape)
    if len(shape) < 3:
        raise RuntimeError(f"{name} expects input to have at least 3 dimensions, but got input with {len(shape)} dimension(s)")
    return shape
