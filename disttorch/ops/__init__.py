"""Operations on tensors, one family a file. An operation and its derivative stand next to each other."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pkgutil import walk_packages

from . import (
    arithmetic,
    autocast,
    comparison,
    complex_numbers,
    conversion,
    counting,
    creation,
    cumulative,
    dims,
    einsum,
    extremes,
    indexing,
    linear,
    pointwise,
    random,
    reduction,
    sampled,
    shape,
    sorting,
    special,
    spectrogram,
    variance,
    windows,
    world,
)
from .creation import drawn_in_place
from .linalg import names as linear_algebra
from .nn import (
    activation,
    adaptive_pooling,
    convolution,
    distance,
    dropout,
    folding,
    native,
    noise,
    pooling,
    sampling,
)
from .nn import names as neural_networks
from .public import collect

__all__ = [
    "FAMILIES",
    "FUNCTIONS",
    "METHODS",
    "arithmetic",
    "autocast",
    "comparison",
    "complex_numbers",
    "conversion",
    "counting",
    "creation",
    "cumulative",
    "dims",
    "einsum",
    "extremes",
    "indexing",
    "linear",
    "pointwise",
    "random",
    "reduction",
    "shape",
    "sorting",
    "special",
    "variance",
    "world",
]

#: The files in which operations stand that are functions of the package or methods of Tensor.
FAMILIES = (
    arithmetic,
    comparison,
    complex_numbers,
    conversion,
    creation.data,
    creation.drawn,
    drawn_in_place,
    creation.filled,
    creation.sequences,
    indexing.masks,
    indexing.scattering,
    indexing.selection,
    linear,
    pointwise,
    reduction,
    variance,
    extremes,
    cumulative,
    sorting,
    special,
    counting,
    shape.copies,
    shape.diagonals,
    shape.in_place,
    shape.joining,
    shape.rearranging,
    shape.splitting,
    shape.strided,
    shape.views,
    neural_networks,
    activation,
    noise,
    distance,
    dropout,
    adaptive_pooling,
    convolution,
    folding,
    native,
    pooling,
    sampling,
    linear_algebra,
    einsum,
    windows,
    spectrogram,
)
for _found in walk_packages(__path__, f"{__name__}."):
    import_module(_found.name)  # those of subpackages too that are used by name elsewhere: `install` below needs all
sampled.install([m for name, m in list(sys.modules.items()) if name.startswith(f"{__name__}.")])
autocast.install([m for name, m in list(sys.modules.items()) if name.startswith(f"{__name__}.")], for_cuda=find_spec("cupy") is not None)
#: Functions of the package and methods of Tensor by their names.
FUNCTIONS, METHODS = collect(FAMILIES)
