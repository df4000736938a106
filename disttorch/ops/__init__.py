"""Operations on tensors, one family a file. An operation and its derivative stand next to each other."""

from . import conversion, creation, dims, indexing, linear, pointwise, random, reduction, shape, world

__all__ = ["conversion", "creation", "dims", "indexing", "linear", "pointwise", "random", "reduction", "shape", "world"]
