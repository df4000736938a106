"""Indexing: elements taken by their places, and values put there."""

from . import masks, places, scattering, selection
from .getitem import getitem, setitem
from .masks import fill, masked_fill, masked_scatter, where
from .scattering import (
    gather,
    index_add,
    index_copy,
    index_fill,
    index_put,
    index_reduce,
    put,
    scatter,
    scatter_add,
    scatter_reduce,
)
from .selection import (
    argwhere,
    index_select,
    masked_select,
    nonzero,
    nonzero_static,
    take,
    take_along_dim,
    unravel_index,
)

__all__ = [
    "argwhere", "fill", "gather", "getitem", "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "index_select",
    "masked_fill", "masked_scatter", "masked_select", "masks", "nonzero", "nonzero_static", "places", "put", "scatter", "scatter_add",
    "scatter_reduce", "scattering", "selection", "setitem", "take", "take_along_dim", "unravel_index", "where",
]  # fmt: skip
