"""Resizing images and signals: `interpolate` and its special cases.

Each dimension is resampled by itself, by a table of taps that is made beforehand (`backend/kernels/resampling.py`). That is
linear; the gradient is the resampling by the transposed tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend.dtypes import DTYPES
from ...backend.kernels.resampling import Taps, nearest_taps, smooth_taps
from ..world import tensors
from .adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

__all__ = ["interpolate", "resample", "upsample", "upsample_bilinear", "upsample_nearest"]


def _transposed(along: tuple[tuple[int, Taps], ...]) -> tuple[tuple[int, Taps], ...]:
    return tuple((axis, taps.transposed) for axis, taps in along)


_resample = Operation(
    "resample",
    lambda xp, x, *, along: xp.resample(x, along),
    x=lambda g, along, xp: xp.resample(g, _transposed(along)),
)

# the kernel as rules call it, where it runs on tensors
tensors.resample = lambda x, along: apply(_resample, x, along=along)


def resample(input: Tensor, along: Sequence[tuple[int, Taps]]) -> Tensor:
    """Dimensions resampled by tables of taps: pairs of a dimension, counted from 0, and its table."""
    return apply(_resample, input, along=tuple(along))


#: mode -> the numbers of spatial dimensions that it is for
_DIMENSIONS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "lanczos": (2,),
    "trilinear": (3,),
}
_KINDS = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos"}
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """The input at another spatial size; as ``torch.nn.functional.interpolate``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial) with 1 to 3 spatial dimensions; floating point, or uint8 for the modes of images.
    size : int or sequence of int, optional
        The spatial size of the result.
    scale_factor : float or sequence of float, optional
        What to multiply the spatial size by instead, rounded down.
    mode : str
        ``"nearest"``, ``"nearest-exact"``, ``"area"``; ``"linear"`` for one spatial dimension, ``"bilinear"``, ``"bicubic"``
        and ``"lanczos"`` for two, ``"trilinear"`` for three.
    align_corners : bool, optional
        Whether the centres of the corner elements coincide, rather than their outer corners. For the linear modes and bicubic.
    recompute_scale_factor : bool, optional
        Whether the distance of the places follows from the sizes, as with `size`, and not from `scale_factor`.
    antialias : bool
        Whether to filter where the result is smaller. For bilinear, bicubic and lanczos, which asks for it.

    Raises
    ------
    ValueError
        If not one of `size` and `scale_factor` is given, or options do not fit the mode.
    NotImplementedError
        For a mode that is not for so many dimensions, or not for that dtype.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([[[0.0, 3.0]]])
    >>> disttorch.nn.functional.interpolate(x, size=4, mode="linear")
    tensor([[[0.0000, 0.7500, 2.2500, 3.0000]]])
    """
    shape = input._array.shape
    ndim = len(shape) - 2
    sampled = _KINDS.get(mode)
    if align_corners is not None and (sampled is None or mode == "lanczos"):
        raise ValueError("align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear")
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    factors = _each(shape, scale_factor, "scale_factor")
    sizes = _each(shape, size, "size")
    if sizes is not None and not all(hasattr(n, "__index__") for n in sizes):
        raise TypeError(f"expected size to be one of int or a sequence of int, but got {size!r}")
    if sizes is None:
        assert factors is not None
        if not all(isinstance(f, (int, float)) for f in factors):
            raise TypeError(f"expected scale_factor to be one of float or a sequence of float, but got {scale_factor!r}")
        sizes = [math.floor(float(n) * f) for n, f in zip(shape[2:], factors)]
    wanted = [int(n) for n in sizes]
    if antialias and (mode not in ("bilinear", "bicubic", "lanczos") or ndim != 2):
        raise ValueError("Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input")
    if mode == "lanczos" and not antialias:
        raise ValueError("Lanczos mode requires antialias=True")
    if ndim not in _DIMENSIONS.get(mode, ()):
        fits = "" if mode not in _DIMENSIONS else f"; {mode} needs {' or '.join(f'{n + 2}D' for n in _DIMENSIONS[mode])} input"
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {ndim + 2}D) for the modes: "
            f"{' | '.join(_DIMENSIONS)} (got {mode}){fits}"
        )
    if min(wanted) <= 0 or 0 in shape[1:]:
        raise RuntimeError(f"Input and output sizes should be greater than 0, but got input {list(shape)} and output {wanted}")
    dtype = input._array.dtype
    if dtype not in dt.FLOATING and (dtype != dt.uint8.numpy or mode in ("area", "linear", "trilinear")):
        raise NotImplementedError(f'interpolate: mode "{mode}" is not implemented for {DTYPES[dtype]}')
    if mode == "area":
        return _AREA[ndim](input, wanted)
    steps = [None if factors is None or recompute_scale_factor or not f else 1.0 / f for f in factors or [None] * ndim]
    pairs = zip(shape[2:], wanted, steps)
    if sampled is None:
        tables = [nearest_taps(n, w, step, mode == "nearest-exact") for n, w, step in pairs]
    else:
        tables = [smooth_taps(sampled, n, w, step, bool(align_corners), antialias) for n, w, step in pairs]
    along = [(2 + i, taps) for i, (taps, n, w) in enumerate(zip(tables, shape[2:], wanted)) if not taps.is_identity]
    if dtype == dt.uint8.numpy and sampled is not None:
        return _resample_bytes(input, along)
    return resample(input, along) if along else input.clone()


def _resample_bytes(input: Tensor, along: Sequence[tuple[int, Taps]]) -> Tensor:
    """Each dimension by itself, the last first, rounded to whole bytes after each, as in Pillow and PyTorch."""
    result = input.to(dtype=dt.float32)
    for axis, taps in reversed(along):
        result = (resample(result, [(axis, taps.fixed_point)]) + 0.5).floor().clamp(0, 255)
    return result.to(dtype=dt.uint8)


def _each(shape: tuple[int, ...], value: Any, name: str) -> list[Any] | None:
    """One value a spatial dimension."""
    if value is None or not isinstance(value, (tuple, list)):
        return None if value is None else [value] * (len(shape) - 2)
    if len(value) != len(shape) - 2:
        raise ValueError(
            "Input and output must have the same number of spatial dimensions, but got input with spatial dimensions of "
            f"{list(shape[2:])} and {'output size' if name == 'size' else name} of {value}. Please provide input tensor in "
            "(N, C, d1, d2, ...,dK) format"
        )
    return list(value)


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` by its old name; as ``torch.nn.functional.upsample``."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` with the nearest elements; as ``torch.nn.functional.upsample_nearest``."""
    return interpolate(input, size, scale_factor)


def upsample_bilinear(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` of images, linear and with aligned corners; as ``torch.nn.functional.upsample_bilinear``."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)
