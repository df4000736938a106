"""Making tensors: from data, filled, in sequences, at random."""

from . import data, drawn, drawn_gamma, filled, sequences
from .data import as_tensor, asarray, from_dlpack, from_numpy, frombuffer, require_grad, tensor
from .drawn import bernoulli, multinomial, normal, rand, rand_like, randint, randint_like, randn, randn_like, randperm
from .filled import (
    empty,
    empty_like,
    empty_strided,
    eye,
    full,
    full_like,
    ones,
    ones_like,
    scalar_tensor,
    zeros,
    zeros_like,
)
from .sequences import arange, linspace, logspace

__all__ = [
    "arange", "as_tensor", "asarray", "bernoulli", "data", "drawn", "drawn_gamma", "empty", "empty_like", "empty_strided", "eye", "filled",
    "from_dlpack", "from_numpy", "frombuffer", "full", "full_like", "linspace", "logspace", "multinomial", "normal", "ones",
    "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "require_grad",
    "scalar_tensor", "sequences", "tensor", "zeros", "zeros_like",
]  # fmt: skip
