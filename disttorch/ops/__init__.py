"""Operations on tensors, one family a file. An operation and its derivative stand next to each other."""

from . import conversion, creation, dims, indexing, linear, pointwise, random, reduction, shape, world
from .nn import softmax
from .public import collect

__all__ = [
    "FAMILIES",
    "FUNCTIONS",
    "METHODS",
    "conversion",
    "creation",
    "dims",
    "indexing",
    "linear",
    "pointwise",
    "random",
    "reduction",
    "shape",
    "world",
]

#: The files in which operations stand that are functions of the package or methods of Tensor.
FAMILIES = (
    conversion,
    creation,
    indexing,
    linear,
    pointwise,
    reduction,
    shape,
    softmax,
)
#: Functions of the package and methods of Tensor by their names.
FUNCTIONS, METHODS = collect(FAMILIES)
