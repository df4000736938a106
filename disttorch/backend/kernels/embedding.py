"""Rows added up by their number: the derivative of looking rows up in a table."""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = ["add_rows"]


@kernel
def add_rows(xp: Any, g: Any, index: Any, rows: int) -> Any:
    """Zeros (rows, D) with row i of ``g`` added at row ``index[i]``; half types are added in float32.

    Parameters
    ----------
    g : array (M, D)
    index : integer array (M,)
    rows : int
    """
    result = xp.zeros((rows, g.shape[1]), wide(xp, g).dtype)
    xp.add_at(result, index, wide(xp, g))
    return narrow(xp, result, g.dtype)
