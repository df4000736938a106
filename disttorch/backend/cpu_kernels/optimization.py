"""Optimizer steps over flat arrays, a block at a time: every element is read and written once by the memory, however
many operations a step has.

The two formulas that most programs use are written out, without temporary arrays. Arrays that are not contiguous, and half
types, take the plain kernels' way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..kernels import optimization as plain
from ..layout import turned

__all__ = ["step_"]

#: Elements at a time: 128 KiB of float32, so AdamW's four arrays and the scratch stay in 1 MiB of second-level cache.
BLOCK = 32768


def step_(
    formula: Callable[..., Sequence[Any]],
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: float = 0.0,
    shrink: float = 1.0,
) -> None:
    kept = [i for i, m in enumerate(moments) if m is not None]
    arrays = (p, g, *(moments[i] for i in kept))
    if not p.flags.c_contiguous:
        p, g, *moments = turned((p, g, *moments))
        arrays = (p, g, *(moments[i] for i in kept))
    if not flat(arrays):
        plain.step_(np, formula, p, g, moments, numbers, maximize, add, shrink)
        return
    written_out = _WRITTEN_OUT.get(formula)
    if written_out is not None:
        written_out(arrays, maximize, add, shrink, **numbers)
        return
    for p, g, *state in blocks(arrays):
        blockwise: list[Any] = [None] * len(moments)
        for i, m in zip(kept, state):
            blockwise[i] = m
        new_p, *new = plain.prepared(np, formula, p, g, blockwise, numbers, maximize, add, shrink)
        p[...] = new_p
        for i, m in zip(kept, state):
            m[...] = new[i]


def _sgd(
    arrays: tuple[Any, ...],
    maximize: bool,
    add: float,
    shrink: float,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    first_step: bool,
) -> None:
    sign = -1.0 if maximize else 1.0
    scratch = np.empty((2, min(BLOCK, arrays[0].size)), arrays[0].dtype)
    for p, g, *state in blocks(arrays):
        t, u = scratch[:, : p.size]
        if add:
            np.multiply(p, add, t)
            (np.subtract if maximize else np.add)(t, g, t)
            scale, g = 1.0, t
        else:
            scale = sign
        if shrink != 1:
            np.multiply(p, shrink, p)
        if state:
            velocity = state[0]
            if first_step:
                np.multiply(g, scale, velocity)
            else:
                np.multiply(velocity, momentum, velocity)
                np.multiply(g, scale * (1 - dampening), u)
                np.add(velocity, u, velocity)
            if nesterov:
                np.multiply(velocity, momentum, u)
                np.add(np.multiply(g, scale, t), u, u)
                g = u
            else:
                g = velocity
            scale = 1.0
        np.multiply(g, scale * lr, u)
        np.subtract(p, u, p)


def _adam(
    arrays: tuple[Any, ...],
    maximize: bool,
    add: float,
    shrink: float,
    *,
    step_size: float,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    scratch = np.empty((2, min(BLOCK, arrays[0].size)), arrays[0].dtype)
    # p - step_size * m / (sqrt(v) / root + eps) with the division by root taken out of the loop:
    # sqrt(v) / root + eps = (sqrt(v) + eps * root) / root
    scaled_eps, scaled_step = eps * root, step_size * root
    for p, g, mean, square, *largest in blocks(arrays):
        t, u = scratch[:, : p.size]
        if add:
            np.multiply(p, add, u)
            g = (np.subtract if maximize else np.add)(u, g, u)
        elif maximize:
            g = np.negative(g, u)
        if shrink != 1:
            np.multiply(p, shrink, p)
        np.subtract(g, mean, t)
        np.multiply(t, 1 - beta1, t)
        np.add(mean, t, mean)
        np.multiply(square, beta2, square)
        np.multiply(g, 1 - beta2, t)
        np.multiply(t, g, t)
        np.add(square, t, square)
        if largest:
            square = np.maximum(largest[0], square, out=largest[0])
        np.sqrt(square, t)
        np.add(t, scaled_eps, t)
        np.divide(mean, t, t)
        np.multiply(t, scaled_step, t)
        np.subtract(p, t, p)


_WRITTEN_OUT: dict[Callable[..., Sequence[Any]], Callable[..., None]] = {plain.sgd: _sgd, plain.adam: _adam}


def flat(arrays: tuple[Any, ...]) -> bool:
    """Whether the arrays can be walked as flat memory in their own type."""
    first = arrays[0]
    return first.dtype.itemsize >= 4 and all(
        a.flags.c_contiguous and a.dtype == first.dtype and a.shape == first.shape for a in arrays
    )


def blocks(arrays: tuple[Any, ...]) -> Any:
    """The same block of each array, as flat views."""
    views = [a.reshape(-1) for a in arrays]
    size = views[0].size
    if size <= BLOCK:
        yield views
        return
    for start in range(0, size, BLOCK):
        yield [v[start : start + BLOCK] for v in views]
