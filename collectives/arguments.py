"""Checks of the arguments, made once for all transports. Messages have the values in them and say what is expected."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .staging import Array

__all__ = [
    "check_array",
    "check_counts",
    "check_dtypes",
    "check_integer",
    "check_only_on_root",
    "check_parts",
    "check_rank",
    "check_rows",
    "check_seconds",
    "check_shape",
    "check_tag",
]


class Group(Protocol):
    """What the checks need to know of a communicator."""

    rank: int
    size: int


def check_rank(group: Group, name: str, role: str, rank: int) -> None:
    """`rank` is one of the group; `role` is what the caller calls it."""
    if not _is_integer(rank):
        raise TypeError(f"{name}: {role} must be a rank, an integer from 0 to {group.size - 1}, got {rank!r}")
    if not 0 <= rank < group.size:
        raise ValueError(f"{name}: {role} is {rank}, but the ranks of this group are 0 to {group.size - 1}")


def check_tag(name: str, tag: int) -> None:
    """`tag` is an integer from 0."""
    check_integer(name, "tag", tag)
    if tag < 0:
        raise ValueError(f"{name}: tag must not be negative, got {tag}")


def check_array(group: Group, name: str, role: str, array: Array, written: bool = False) -> None:
    """`array` is of NumPy or CuPy, holds no Python objects, and can be written where it must."""
    if not isinstance(array, np.ndarray) and not is_device_array(array):
        raise TypeError(f"{name}: {role} must be a numpy.ndarray or a cupy.ndarray, got {_type_name(array)}")
    if array.dtype.hasobject:
        raise TypeError(f"{name}: {role} has the dtype {array.dtype}: use the _object methods for Python objects")
    # CuPy's flags know no `writeable`: its arrays always are.
    if written and not getattr(array.flags, "writeable", True):
        raise ValueError(f"{name}: {role} of shape {array.shape} and dtype {array.dtype} is read-only")


def check_rows(group: Group, name: str, role: str, rows: Array, array: Array) -> None:
    """`rows` has one row of the shape and dtype of `array` for each rank."""
    if rows.shape != (group.size, *array.shape):
        raise ValueError(
            f"{name}: {role} must have the shape (size, *array.shape) = {(group.size, *array.shape)} on {group.size} "
            f"rank{'s' if group.size > 1 else ''}, got {rows.shape} with array of shape {array.shape}"
        )
    check_dtypes(name, role, rows, array)


def check_only_on_root(
    group: Group, name: str, role: str, rows: Array | None, root: int, array: Array, written: bool = False
) -> None:
    """`rows` is an array on the root, and given on no other rank."""
    if group.rank == root:
        check_array(group, name, role, rows, written)
    elif rows is not None:
        raise ValueError(f"{name}: {role} is for the root, rank {root}; on rank {group.rank} it must be None")


def check_counts(
    group: Group, name: str, role: str, counts: Sequence[int], array_role: str, array: Array
) -> list[int]:
    """`counts` has a number of rows for each rank, all rows of `array` together; returns numbers of elements."""
    if not isinstance(counts, Sequence) and not isinstance(counts, np.ndarray):
        raise TypeError(f"{name}: {role} must be a sequence of one integer for each rank, got {_type_name(counts)}")
    for count in counts:
        check_integer(name, f"each of {role}", count)
    if len(counts) != group.size or min(counts) < 0:
        raise ValueError(
            f"{name}: {role} must have {group.size} numbers that are not negative, one for each rank, got {list(counts)}"
        )
    if not array.ndim or array.shape[0] != sum(counts):
        raise ValueError(
            f"{name}: {array_role} of shape {array.shape} must have {sum(counts)} rows, the sum of {role} {list(counts)}"
        )
    row = int(np.prod(array.shape[1:], dtype=np.int64))
    return [int(count) * row for count in counts]


def check_parts(
    group: Group, name: str, role: str, whole: Array | None, array: Array, counts: Sequence[int]
) -> list[int]:
    """`whole` (where it is given) has all ranks' rows, `array` this rank's; returns each rank's number of elements."""
    if whole is None:
        # Only the root has it: a stand-in without memory has its shape.
        whole = np.broadcast_to(np.zeros((), array.dtype), (sum(counts), *array.shape[1:]))
    elements = check_counts(group, name, "counts", counts, role, whole)
    if array.shape != (counts[group.rank], *whole.shape[1:]):
        raise ValueError(
            f"{name}: array must have the shape {(counts[group.rank], *whole.shape[1:])} on rank {group.rank}, by counts "
            f"{list(counts)} and {role} of shape {whole.shape}; got {array.shape}"
        )
    check_dtypes(name, role, whole, array)
    return elements


def is_device_array(array: object) -> bool:
    """Whether it is an array of CuPy; asked without importing it."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def check_dtypes(name: str, role: str, other: Array, array: Array) -> None:
    """Both arrays have one dtype: bytes are moved, nothing is converted."""
    if other.dtype != array.dtype:
        raise TypeError(f"{name}: {role} and array must have one dtype; {role} has {other.dtype}, array {array.dtype}")


def check_integer(name: str, role: str, value: object) -> None:
    """`value` is an integer, of Python's or NumPy's, and no truth value."""
    if not _is_integer(value):
        raise TypeError(f"{name}: {role} must be an integer, got {value!r}")


def check_seconds(source: str, value: object) -> float:
    """`value` is a time that something may take; returns it."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"{source} must be a positive number of seconds, got {value!r}")
    if not value > 0:
        raise ValueError(f"{source} must be a positive number of seconds, got {value!r}")
    return float(value)


def check_shape(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """`shape` is a number of elements, or one for each dimension; returns the latter."""
    dims = tuple(shape) if isinstance(shape, (Sequence, np.ndarray)) and not isinstance(shape, str) else (shape,)
    for length in dims:
        check_integer(name, "each length of shape", length)
        if length < 0:
            raise ValueError(f"{name}: lengths must not be negative, got the shape {dims}")
    return dims


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
