"""Weighted sums of rows of a table, and their gradients: what sampling an image at arbitrary points comes down to.

With rows ``r (R, C)``, weights ``w (K, P)`` and indices ``i (K, P)``, all three are derivatives of one trilinear form, the sum
over k, p and c of ``g[p, c] * w[k, p] * r[i[k, p], c]``, and so of each other.
"""

from __future__ import annotations

from typing import Any

from . import kernel

__all__ = ["row_products", "spread_rows", "weighted_rows"]


@kernel
def weighted_rows(xp: Any, rows: Any, weights: Any, indices: Any) -> Any:
    """``out[p] = sum over k of weights[k, p] * rows[indices[k, p]]``, of shape (P, C)."""
    total: Any = None
    for k in range(len(indices)):
        seen = xp.take(rows, indices[k], axis=0) * weights[k][:, None]
        total = seen if total is None else total + seen
    return total


@kernel
def spread_rows(xp: Any, g: Any, weights: Any, indices: Any, count: int) -> Any:
    """`count` rows, to which ``weights[k, p] * g[p]`` is added at ``indices[k, p]``."""
    total = xp.zeros((count, g.shape[1]), g.dtype)
    for k in range(len(indices)):
        xp.add_at(total, indices[k], g * weights[k][:, None])
    return total


@kernel
def row_products(xp: Any, g: Any, rows: Any, indices: Any) -> Any:
    """``out[k, p]``, the products of ``g[p]`` and ``rows[indices[k, p]]``, of shape (K, P)."""
    return xp.stack([xp.sum(g * xp.take(rows, at, axis=0), axis=1) for at in indices])
