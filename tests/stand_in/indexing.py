"""Elements and places of arrays, by CuPy's rules: indices out of range wrap around, masks ask the device how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import ndarray
from .operations import compute, launch

__all__ = ["get", "scatter", "set", "take"]


def prepared(array: ndarray, index: Any, reads: list[ndarray]) -> tuple[Any, bool]:
    """NumPy's index, whether it is a function of arrays' values (to be taken when the operation runs), and the arrays it reads."""
    parts = index if isinstance(index, tuple) else (index,)
    ready: list[Any] = []
    masks = False
    for part in parts:
        if type(part) is ndarray:
            if part.dtype.kind == "b":
                masks = True
            elif part.dtype.kind not in "iu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype})")
            reads.append(part)
            ready.append(part)
        elif isinstance(part, (list, np.ndarray)):
            values = np.asarray(part)
            if isinstance(part, list) and not part:
                values = values.astype(np.intp)
            if values.dtype.kind not in "iub":
                raise IndexError("arrays used as indices must be of integer or boolean type.")
            masks |= values.dtype.kind == "b" and isinstance(part, np.ndarray)
            if values.ndim:
                from .creation import from_the_host

                from_the_host("an index")
            ready.append(values)
        elif isinstance(part, (slice, int, np.integer, bool, np.bool_, type(None), type(...))):
            ready.append(part)
        else:
            raise IndexError(f"only integers, slices, ellipsis, newaxis, and arrays are valid indices, not {type(part).__name__}")
    return ready, masks


def resolved(ready: list[Any], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The index with arrays' values in it, wrapped around."""
    used = sum(
        1 if isinstance(part, (slice, int, np.integer)) and not isinstance(part, bool)
        else 0 if part is None or part is ... or isinstance(part, (bool, np.bool_))
        else part.ndim if part.dtype.kind == "b" else 1
        for part in ready
    )  # fmt: skip
    axis, result = 0, []
    for part in ready:
        if part is None or isinstance(part, (bool, np.bool_)):
            result.append(part)
        elif part is ...:
            result.append(part)
            axis += len(shape) - used
        elif isinstance(part, (slice, int, np.integer)):
            result.append(part)
            axis += 1
        else:
            values = part._a if type(part) is ndarray else part
            if values.dtype.kind == "b":
                result.append(values)
                axis += values.ndim
            else:
                n = shape[axis] if axis < len(shape) else 0
                result.append(values.astype(np.intp) % n if n else values.astype(np.intp))
                axis += 1
    return tuple(result)


def is_basic(ready: list[Any]) -> bool:
    return all(part is None or part is ... or (isinstance(part, (slice, int, np.integer)) and not isinstance(part, bool)) for part in ready)


def get(array: ndarray, index: Any) -> ndarray:
    reads: list[ndarray] = [array]
    ready, masks = prepared(array, index, reads)
    if is_basic(ready):
        if not any(part is ... for part in ready):
            ready.append(...)  # an array also where nothing is left of the dimensions
        return compute("getitem", lambda: array._a[tuple(ready)], reads)
    return compute("getitem", lambda: array._a[resolved(ready, array.shape)], reads, synchronises=masks)


def set(array: ndarray, index: Any, values: Any) -> None:
    reads: list[ndarray] = []
    ready, _ = prepared(array, index, reads)
    if type(values) is not ndarray and hasattr(values, "__cuda_array_interface__"):
        from .creation import array as made

        values = made(values, copy=False)
    if type(values) is ndarray:
        reads.append(values)
        given = values
    elif isinstance(values, (np.ndarray, list, tuple)):
        from .creation import array as made

        if is_basic(ready):  # what is no array of the device is filled in as a number
            if np.ndim(values):
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            values = np.asarray(values).item()
            given = values
        else:
            given = made(values)
            reads.append(given)
    else:
        given = values

    def action() -> None:
        source = given._a if type(given) is ndarray else given
        if isinstance(source, np.ndarray) and source.dtype != array.dtype:
            source = source.astype(array.dtype)
        where = resolved(ready, array.shape)
        if array._a.dtype.kind in "iub" and not isinstance(source, np.ndarray):
            source = np.asarray(source).astype(array.dtype)
        array._a[where] = source

    if is_basic(ready):
        part = get(array, index)
        if type(given) is ndarray and part.ndim < given.ndim and given.shape[: given.ndim - part.ndim].count(1) != given.ndim - part.ndim:
            raise ValueError(f"could not broadcast input array from shape {given.shape} into shape {part.shape}")
        launch("setitem", action, reads, [part])
        return
    launch("setitem", action, [*reads, array], [array])


_HOW = {
    "add": np.add, "subtract": np.subtract, "maximum": np.maximum, "minimum": np.minimum, "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
}  # fmt: skip
SCATTERED = {"add": "iILQefd", "subtract": "iI", "maximum": "iILQfd", "minimum": "iILQfd"}
"""What the device's atomic operations take; bits of int64 too."""


def scatter(how: str, array: ndarray, index: Any, values: Any) -> None:
    kinds = SCATTERED.get(how, "ilILqQ")
    if array.dtype.char not in kinds:
        raise TypeError(f"cupy.{how}.at only supports {', '.join(np.dtype(kind).name for kind in kinds)} as data type, not {array.dtype}")
    reads: list[ndarray] = [array]
    ready, _ = prepared(array, index, reads)
    if isinstance(values, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if type(values) is ndarray:
        reads.append(values)

    def action() -> None:
        source = values._a if type(values) is ndarray else values
        where = resolved(ready, array.shape)
        _HOW[how].at(array._a, where, np.asarray(source).astype(array.dtype))

    launch(f"{how}.at", action, reads, [array])


def take(a: ndarray, indices: Any, axis: Any = None, out: Any = None, mode: str = "wrap") -> Any:
    if isinstance(indices, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'> [take]")
    if type(indices) is ndarray:
        if indices.dtype.kind not in "iub":
            raise TypeError("Cannot cast array data to int64 according to the rule 'safe'")
        reads = [a, indices]
    else:
        reads = [a]

    def run() -> Any:
        where = indices._a if type(indices) is ndarray else np.asarray(indices)
        where = where.astype(np.intp)
        if not where.ndim:
            return np.asarray(np.take(a._a, where, axis, mode="wrap"))
        return np.take(a._a, where, axis, mode="wrap")

    from .operations import put

    if out is not None:
        put("take", out, run, reads)
        return out
    return compute("take", run, reads)
