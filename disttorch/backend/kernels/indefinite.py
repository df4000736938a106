"""L D L^T of symmetric or Hermitian matrices that are not positive definite, as LAPACK's sytrf and hetrf store it.

Pivoting: J. Bunch and L. Kaufman, Some stable methods for calculating inertia and solving symmetric linear systems, Math. Comp. 31
(1977). Each matrix chooses blocks of its own, so a batch is done one matrix after another.
"""

from __future__ import annotations

import math
from typing import Any

from . import kernel
from .factorization import magnitude

#: Bounds the growth of elements for blocks of one row and of two alike.
ALPHA = (1 + math.sqrt(17)) / 8


@kernel
def ldl_factor(xp: Any, a: Any, hermitian: bool) -> tuple[Any, Any, Any]:
    """Of the lower triangle of a (..., n, n): L and the blocks of D in one matrix, what was exchanged int32 (..., n), and info
    (...): 0, or the number of the first block of D that is zero.

    A positive pivot p in row k: rows k and p - 1 were exchanged. Negative ones, in rows k and k + 1: a block of two, and rows k + 1
    and -p - 1 were exchanged.
    """
    n = a.shape[-1]
    packed = xp.array(xp.tril(a))
    flat = xp.reshape(packed, (-1, n, n)) if packed.size else packed
    count = flat.shape[0] if packed.size else 0
    pivots = xp.zeros((count, n), "int32")
    info = xp.zeros(count, "int32")
    for i in range(count):
        info[i] = _factor(xp, flat[i], pivots[i], hermitian)
    batch = a.shape[:-2]
    if not packed.size:
        return packed, xp.zeros((*batch, n), "int32"), xp.zeros(batch, "int32")
    return packed, xp.reshape(pivots, (*batch, n)), xp.reshape(info, batch)


def _factor(xp: Any, a: Any, pivots: Any, hermitian: bool) -> int:
    n = a.shape[0]
    info = k = 0
    while k < n:
        step, chosen = _choice(xp, a, k, hermitian)
        if step == 0:
            info = info or k + 1
            step = 1
        last = k + step - 1
        if chosen != last:
            _exchange(xp, a, k, last, chosen, hermitian)
        rest = k + step
        if hermitian:
            for d in range(k, rest):
                a[d, d] = a[d, d].real
        if (rest < n and a[k, k] != 0) or step == 2:
            block = a[k:rest, k:rest]
            if step == 2:
                above = xp.conjugate(block[1, 0]) if hermitian else block[1, 0]
                block = xp.stack((xp.stack((block[0, 0], above)), xp.stack((block[1, 0], block[1, 1]))))
            columns = xp.array(a[rest:, k:rest])
            scaled = xp.matmul(columns, xp.linalg.inv(block))
            turned = xp.swapaxes(columns, 0, 1)
            a[rest:, rest:] -= xp.tril(xp.matmul(scaled, xp.conjugate(turned) if hermitian else turned))
            a[rest:, k:rest] = scaled
        pivots[k:rest] = chosen + 1 if step == 1 else -(chosen + 1)
        k = rest
    return info


def _choice(xp: Any, a: Any, k: int, hermitian: bool) -> tuple[int, int]:
    """How many rows the next block has (0: one, which is zero), and which row comes to its end."""
    n = a.shape[0]
    here = float(abs(a[k, k].real) if hermitian else magnitude(xp, a[k, k]))
    greatest = 0.0
    at = k
    if k + 1 < n:
        sizes = magnitude(xp, a[k + 1 :, k])
        at = k + 1 + int(xp.argmax(sizes))
        greatest = float(sizes[at - k - 1])
    if max(here, greatest) == 0 or math.isnan(here):
        return 0, k
    if here >= ALPHA * greatest:
        return 1, k
    beside = float(xp.max(magnitude(xp, a[at, k:at])))
    if at + 1 < n:
        beside = max(beside, float(xp.max(magnitude(xp, a[at + 1 :, at]))))
    if here >= ALPHA * greatest * (greatest / beside):
        return 1, k
    there = float(abs(a[at, at].real) if hermitian else magnitude(xp, a[at, at]))
    return (1, at) if there >= ALPHA * beside else (2, at)


def _exchange(xp: Any, a: Any, k: int, p: int, q: int, hermitian: bool) -> None:
    """Rows and columns p < q of what is left, in the lower triangle."""

    def swap(one: Any, other: Any) -> None:
        kept = xp.array(a[one])
        a[one] = a[other]
        a[other] = kept

    swap((slice(q + 1, None), p), (slice(q + 1, None), q))
    between = slice(p + 1, q)
    column, row = xp.array(a[between, p]), xp.array(a[q, between])
    a[q, between], a[between, p] = (xp.conjugate(column), xp.conjugate(row)) if hermitian else (column, row)
    if hermitian:
        a[q, p] = xp.conjugate(a[q, p])
    swap((p, p), (q, q))
    if p > k:
        swap((p, k), (q, k))


@kernel
def ldl_solve(xp: Any, ld: Any, pivots: Any, b: Any, hermitian: bool) -> Any:
    """X with A X = B, given what `ldl_factor` made of A; ld (..., n, n), b (..., n, k), of the same leading dimensions."""
    n, k = b.shape[-2:]
    x = xp.array(b)
    if not x.size:
        return x
    flat, flat_ld, flat_pivots = xp.reshape(x, (-1, n, k)), xp.reshape(ld, (-1, n, n)), xp.reshape(pivots, (-1, n))
    for i in range(flat.shape[0]):
        _solve(xp, flat_ld[i], [int(p) for p in flat_pivots[i]], flat[i], hermitian)
    return x


def _solve(xp: Any, a: Any, pivots: list[int], x: Any, hermitian: bool) -> None:
    n = a.shape[0]
    blocks = []
    k = 0
    while k < n:
        step = 1 if pivots[k] > 0 else 2
        blocks.append((k, step, abs(pivots[k]) - 1))
        k += step

    def swap(row: int, other: int) -> None:
        if row != other:
            kept = xp.array(x[row])
            x[row] = x[other]
            x[other] = kept

    for k, step, other in blocks:
        rest = k + step
        swap(rest - 1, other)
        x[rest:] -= xp.matmul(a[rest:, k:rest], x[k:rest])
        block = a[k:rest, k:rest]
        if step == 2:
            above = xp.conjugate(block[1, 0]) if hermitian else block[1, 0]
            block = xp.stack((xp.stack((block[0, 0], above)), xp.stack((block[1, 0], block[1, 1]))))
            x[k:rest] = xp.linalg.solve(block, x[k:rest])
        else:
            x[k:rest] /= block
    for k, step, other in reversed(blocks):
        rest = k + step
        turned = xp.swapaxes(a[rest:, k:rest], 0, 1)
        x[k:rest] -= xp.matmul(xp.conjugate(turned) if hermitian else turned, x[rest:])
        swap(rest - 1, other)
