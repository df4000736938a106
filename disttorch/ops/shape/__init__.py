"""Shapes: views, which share memory with their input, and joining, repeating and rearranging, which copy."""

from . import copies, diagonals, in_place, joining, rearranging, splitting, strided, views
from .diagonals import diag, diag_embed, diagflat, tril, triu
from .joining import block_diag, cat, meshgrid, stack
from .rearranging import constant_pad_nd, flip, repeat, repeat_interleave, roll, tile
from .splitting import chunk, narrow, select, split, unbind
from .strided import as_strided, unfold, view, view_as_complex, view_as_real
from .views import (
    broadcast_shapes,
    broadcast_tensors,
    broadcast_to,
    diagonal,
    expand,
    expand_as,
    flatten,
    movedim,
    permute,
    ravel,
    reshape,
    squeeze,
    swapaxes,
    t,
    transpose,
    unflatten,
    unsqueeze,
)

__all__ = [
    "as_strided", "block_diag", "broadcast_shapes", "broadcast_tensors", "broadcast_to", "cat", "chunk", "constant_pad_nd", "copies",
    "diag", "diag_embed", "diagflat", "diagonal", "diagonals", "expand", "expand_as", "flatten", "flip", "in_place", "joining", "meshgrid",
    "movedim", "narrow", "permute", "ravel", "rearranging", "repeat", "repeat_interleave", "reshape", "roll", "select", "split",
    "splitting", "squeeze", "stack", "strided", "swapaxes", "t", "tile", "transpose", "tril", "triu", "unbind", "unflatten",
    "unfold", "unsqueeze", "view", "view_as_complex", "view_as_real", "views",
]  # fmt: skip
