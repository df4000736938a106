"""Scaled gradients, in place by nature: the scale taken out again, infinities looked for, and the scale changed. See `amp.GradScaler`.

All that is decided here is decided where the arrays lie, so that the host need not wait for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import kernel
from .precision import wide

__all__ = ["unscale_", "update_scale_"]


@kernel
def unscale_(xp: Any, arrays: Sequence[Any], inverse_scale: Any, found_inf: Any) -> None:
    """Multiply arrays by a number that lies with them, and note whether one of them had an element that is infinite or NaN.

    Parameters
    ----------
    arrays : sequence of array
        Changed in place; on one device, of one dtype.
    inverse_scale : array
        float32 without dimensions.
    found_inf : array
        float32 without dimensions: becomes 1 if there is such an element, and stays as it is if there is none.
    """
    for a in arrays:
        finite = xp.isfinite(a).all()
        found_inf[...] = xp.maximum(found_inf, xp.asarray(xp.logical_not(finite), dtype=found_inf.dtype))
        widened = wide(xp, a)
        # the array's own kind of number: a float32 without dimensions must not make more of it than it is
        a[...] = widened * xp.asarray(inverse_scale, dtype=widened.dtype)


@kernel
def update_scale_(
    xp: Any, scale: Any, growth_tracker: Any, found_inf: Any, growth_factor: float, backoff_factor: float, growth_interval: int
) -> None:
    """Make the scale smaller after a step with infinities, and larger after enough steps without.

    Parameters
    ----------
    scale : array
        float32 without dimensions, changed in place. It never becomes infinite.
    growth_tracker : array
        int32 without dimensions, changed in place: steps without infinities since the last change.
    found_inf : array
        float32 without dimensions, 0 if there were none.
    growth_factor, backoff_factor : float
    growth_interval : int
    """
    found = found_inf != 0
    count = growth_tracker + 1
    complete = count == growth_interval
    larger = scale * growth_factor
    larger = xp.where(xp.isfinite(larger), larger, scale)
    new_scale = xp.where(found, scale * backoff_factor, xp.where(complete, larger, scale))
    growth_tracker[...] = xp.where(xp.logical_or(found, complete), xp.zeros_like(count), count)
    scale[...] = new_scale
