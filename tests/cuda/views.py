"""What CuPy's functions give that only look at memory: on memory that is not there, which shows it without a GPU.

The same table is held against CuPy itself, where it is installed, and against the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["VIEWS"]

Function = Callable[[Any, Any], Any]

#: of a float32 array of shape (4, 6): the function, shape, strides, offset in bytes, and its base: "a", "itself" or "none"
VIEWS: dict[str, tuple[Function, tuple[int, ...], tuple[int, ...], int, str]] = {
    "view": (lambda cp, a: a.view(), (4, 6), (24, 4), 0, "a"),
    "T": (lambda cp, a: a.T, (6, 4), (4, 24), 0, "a"),
    "transpose in order": (lambda cp, a: a.transpose((0, 1)), (4, 6), (24, 4), 0, "a"),
    "reshape": (lambda cp, a: a.reshape(3, 8), (3, 8), (32, 4), 0, "a"),
    "reshape to the same": (lambda cp, a: a.reshape(4, 6), (4, 6), (24, 4), 0, "a"),
    "reshape with -1": (lambda cp, a: cp.reshape(a, (2, -1)), (2, 12), (48, 4), 0, "a"),
    "ravel": (lambda cp, a: a.ravel(), (24,), (4,), 0, "a"),
    "moveaxis": (lambda cp, a: cp.moveaxis(a, 0, 1), (6, 4), (4, 24), 0, "a"),
    "moveaxis of nothing": (lambda cp, a: cp.moveaxis(a, 0, 0), (4, 6), (24, 4), 0, "itself"),
    "rollaxis of nothing": (lambda cp, a: cp.rollaxis(a, 0), (4, 6), (24, 4), 0, "itself"),
    "swapaxes": (lambda cp, a: a.swapaxes(0, 1), (6, 4), (4, 24), 0, "a"),
    "swapaxes of nothing": (lambda cp, a: a.swapaxes(0, 0), (4, 6), (24, 4), 0, "a"),
    "squeeze": (lambda cp, a: cp.squeeze(a[:1], 0), (6,), (4,), 0, "a"),
    "squeeze of nothing": (lambda cp, a: cp.squeeze(a), (4, 6), (24, 4), 0, "itself"),
    "expand_dims": (lambda cp, a: cp.expand_dims(a, 0), (1, 4, 6), (96, 24, 4), 0, "a"),
    "broadcast_to": (lambda cp, a: cp.broadcast_to(a, (2, 4, 6)), (2, 4, 6), (0, 24, 4), 0, "a"),
    "broadcast_to the same": (lambda cp, a: cp.broadcast_to(a, (4, 6)), (4, 6), (24, 4), 0, "a"),
    "broadcast_arrays": (lambda cp, a: cp.broadcast_arrays(a, a)[0], (4, 6), (24, 4), 0, "itself"),
    "diagonal": (lambda cp, a: cp.diagonal(a), (4,), (28,), 0, "a"),
    "slice": (lambda cp, a: a[1:], (3, 6), (24, 4), 24, "a"),
    "integer": (lambda cp, a: a[1], (6,), (4,), 24, "a"),
    "element": (lambda cp, a: a[1, 2], (), (), 32, "a"),
    "ellipsis": (lambda cp, a: a[...], (4, 6), (24, 4), 0, "a"),
    "backwards": (lambda cp, a: a[::-1], (4, 6), (-24, 4), 72, "a"),
    "flip": (lambda cp, a: cp.flip(a), (4, 6), (-24, -4), 92, "a"),
    "split": (lambda cp, a: cp.split(a, 2)[1], (2, 6), (24, 4), 48, "a"),
    "view of a view": (lambda cp, a: a[1:][1:], (2, 6), (24, 4), 48, "a"),
    "another dtype": (lambda cp, a: a.view("i4"), (4, 6), (24, 4), 0, "a"),
    "a larger dtype": (lambda cp, a: a.view("f8"), (4, 3), (24, 8), 0, "a"),
    "real": (lambda cp, a: a.real, (4, 6), (24, 4), 0, "itself"),
    "conj": (lambda cp, a: a.conj(), (4, 6), (24, 4), 0, "itself"),
    "astype without a copy": (lambda cp, a: a.astype("f4", copy=False), (4, 6), (24, 4), 0, "itself"),
    "ascontiguousarray": (lambda cp, a: cp.ascontiguousarray(a), (4, 6), (24, 4), 0, "itself"),
    "on the same memory": (lambda cp, a: cp.ndarray((2, 2), a.dtype, memptr=a.data + 8, strides=(24, -4)), (2, 2), (24, -4), 8, "none"),
}


def facts(cp: Any, a: Any, function: Function) -> tuple[tuple[int, ...], tuple[int, ...], int, str]:
    """Shape, strides, offset and base of what a function makes of an array."""
    made = function(cp, a)
    base = "itself" if made is a else "a" if made.base is a else "none" if made.base is None else "another"
    return made.shape, made.strides, made.data.ptr - a.data.ptr, base
