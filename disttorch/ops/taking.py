"""The operations behind ``x[...]``: a part as a view, and elements at places as a copy. Shapes and indexing stand on them."""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation

__all__ = ["index_op", "select_op", "slice_op"]


def _put_back(g: Any, x_shape: Any, index: Any, xp: Any) -> Any:
    return xp.put_slice(g, x_shape, index)


slice_op = Operation("slice", lambda xp, x, *, index: x[index], is_view=True, x=_put_back)
select_op = Operation("select", lambda xp, x, *, index: x[index], is_view=True, x=_put_back)
index_op = Operation(
    "index", lambda xp, x, *, index: x[index], x=lambda g, x_shape, index, xp: xp.put_index(g, x_shape, index)
)
