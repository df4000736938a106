"""What a device computed beside what the CPU computes from the same numbers, in float64 and in the same dtype.

The CPU in float64 is the reference. Where a result jumps (a quotient rounded down, the place of the largest of equals) the
CPU's result in the same dtype counts as well, because the reference has been given another question there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import disttorch

#: What rounding in a dtype may cost, relative and absolute: a result of a few operations, or a sum of a few hundred numbers.
TOLERANCE = {"float16": 5e-3, "bfloat16": 4e-2, "float32": 1e-4, "float64": 1e-6, "complex64": 1e-4, "complex128": 1e-6}


def map_tensors(value: Any, function: Callable[[Any], Any], memo: dict[int, Any] | None = None) -> Any:
    """Nested arguments with each tensor replaced; the same tensor twice stays the same tensor twice."""
    memo = {} if memo is None else memo
    if isinstance(value, disttorch.Tensor):
        if id(value) not in memo:
            memo[id(value)] = function(value)
        return memo[id(value)]
    if isinstance(value, dict):
        return {k: map_tensors(v, function, memo) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(map_tensors(v, function, memo) for v in (value.start, value.stop, value.step)))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(v, function, memo) for v in value))
    if type(value) in (list, tuple):
        return type(value)(map_tensors(v, function, memo) for v in value)
    return value


def widened(t: Any) -> Any:
    """A tensor in double precision, a leaf like the one it was."""
    if not (t.is_floating_point() or t.is_complex()):
        return t
    return t.detach().to(disttorch.complex128 if t.is_complex() else disttorch.float64).requires_grad_(t.requires_grad)


def to_device(where: Any) -> Callable[[Any], Any]:
    """What makes a leaf on the device of a leaf on the CPU."""
    return lambda t: t.detach().to(where).requires_grad_(t.requires_grad)


def to_host(value: Any) -> Any:
    """Nested results without their graphs, on the CPU."""
    return map_tensors(value, lambda t: t.detach().cpu())


def exact(t: Any) -> np.ndarray:
    """The elements as float64 or complex128; integers and truth values as they are."""
    t = t.detach().cpu()
    if t.is_complex():
        return np.asarray(t.resolve_conj().to(disttorch.complex128).numpy())
    return np.asarray(t.double().numpy() if t.is_floating_point() else t.numpy())


def error(found: np.ndarray, reference: np.ndarray) -> float:
    """The largest distance; infinite where one is NaN or infinite and the other is not the same."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        same = (found == reference) | (np.isnan(found) & np.isnan(reference))
        distance = np.abs(np.where(same, 0, found) - np.where(same, 0, reference))
    return float(np.nan_to_num(distance, nan=np.inf).max(initial=0.0))


def is_close(found: np.ndarray, reference: np.ndarray, tolerance: float, of_largest: bool) -> bool:
    """Whether they agree; for a sum of numbers larger than itself the largest of the tensor is the measure."""
    absolute = tolerance
    if of_largest and reference.size:
        finite = np.abs(reference[np.isfinite(reference)])
        absolute *= max(1.0, float(finite.max(initial=0.0)))
    with np.errstate(all="ignore"):
        return bool(np.allclose(found, reference, rtol=tolerance, atol=absolute, equal_nan=True))


def check(what: str, found: Any, narrow: Any, wide: Any, dtype: str, of_largest: bool = False, values: bool = True) -> bool:
    """Compare one tensor of the device with the CPU's in the same dtype and in float64.

    Parameters
    ----------
    what : str
        Names the tensor in messages.
    found, narrow, wide : Tensor or None
        The device's; the CPU's; the reference, None where it could not be computed in float64.
    dtype : str
        The dtype that was computed in, where it is coarser than the result's.
    of_largest : bool
        Whether the largest element of the tensor is the measure of an error, as for gradients.
    values : bool
        Whether values are compared, and not only shapes and dtypes.

    Returns
    -------
    bool
        Whether it is the reference in float64 that it agrees with.

    Raises
    ------
    AssertionError
        If it differs from both.
    """
    if found.dtype is not narrow.dtype:
        raise AssertionError(f"{what}: dtype {found.dtype} instead of {narrow.dtype}")
    if tuple(found.shape) != tuple(narrow.shape):
        raise AssertionError(f"{what}: shape {list(found.shape)} instead of {list(narrow.shape)}")
    if not values:
        return True
    ours, same_dtype = exact(found), exact(narrow)
    names = [str(narrow.dtype).rpartition(".")[2], dtype]
    tolerance = max(TOLERANCE.get(n, 0.0) for n in names) if names[0] in TOLERANCE else 0.0
    reference = exact(wide) if wide is not None and tuple(wide.shape) == tuple(narrow.shape) else None
    if reference is not None and is_close(ours, reference, tolerance, of_largest):
        return True
    if is_close(ours, same_dtype, tolerance, of_largest):
        return False
    if reference is not None and error(ours, reference) <= 4 * error(same_dtype, reference) < np.inf:
        return True
    truth = same_dtype if reference is None else reference
    with np.errstate(all="ignore"):
        at = np.unravel_index(int(np.nanargmax(np.nan_to_num(np.abs(ours - truth), nan=np.inf))), truth.shape) if truth.size else ()
    raise AssertionError(
        f"{what}: {ours[at]!r} at {tuple(map(int, at))} instead of {truth[at]!r}; the CPU in {narrow.dtype}: {same_dtype[at]!r} "
        f"(largest error {error(ours, truth):.3g}, the CPU's {error(same_dtype, truth):.3g})"
    )
