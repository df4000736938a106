"""Activation functions that draw random numbers: rrelu and the Gumbel softmax."""

from __future__ import annotations

from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.dtypes import DTYPES
from .. import pointwise
from ..dims import normal_dim
from ..random import default_generator
from .activation import in_place, leaky_relu, write_over
from .arguments import check_floating, warn
from .softmax import softmax

__all__ = ["gumbel_softmax", "rrelu", "rrelu_"]

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "rrelu rrelu_"


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """`leaky_relu` with a random slope for each element; as ``torch.nn.functional.rrelu``.

    Parameters
    ----------
    input : Tensor
    lower, upper : float
        Between them slopes are drawn in training; else the slope is their mean.
    training : bool
    inplace : bool
    """
    check_floating("rrelu", input)
    if lower > upper:
        raise RuntimeError(f"rrelu: lower bound {lower} should not be greater than upper bound {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    a = input._array
    xp = namespace(a)
    drawn = default_generator(input.device).uniform(a.shape, DTYPES[a.dtype]) * (upper - lower) + lower
    slopes = wrap(xp.asarray(xp.where(a > 0, xp.scalar(1, a.dtype), drawn), dtype=a.dtype))
    return write_over(input, inplace, "rrelu", lambda x: pointwise.mul(x, slopes))


rrelu_ = in_place(rrelu)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of classes that can be differentiated; as ``torch.nn.functional.gumbel_softmax``.

    Softmax of (logits + noise) / tau with noise of Gumbel's distribution
    (Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2017).

    Parameters
    ----------
    logits : Tensor
        Logarithms of probabilities, not necessarily normalized.
    tau : float
        The temperature: the lower, the closer to one class.
    hard : bool
        Whether the result is one-hot; its gradient is that of the soft sample.
    eps : float
        Accepted as in PyTorch, which does not use it either.
    dim : int
    """
    if eps != 1e-10:
        warn("`eps` parameter is deprecated and has no effect.")
    check_floating("gumbel_softmax", logits)
    a = logits._array
    xp = namespace(a)
    wide = DTYPES[a.dtype] if a.dtype.itemsize >= 4 else dt.float32
    # -log of a number uniform in (0, 1] is exponentially distributed, and -log of that is Gumbel's
    exponential = -xp.log1p(-default_generator(logits.device).uniform(a.shape, wide))
    noise = -xp.log(xp.maximum(exponential, xp.scalar(dt.finfo(wide).tiny, wide.numpy)))
    soft = softmax((logits + wrap(xp.asarray(noise, dtype=a.dtype))) / tau, dim)
    if not hard:
        return soft
    where = normal_dim(dim, soft.ndim, "gumbel_softmax")
    s = soft._array
    if not s.ndim:
        chosen = xp.ones_like(s)
    else:
        places = xp.arange(s.shape[where]).reshape(-1, *(1,) * (s.ndim - where - 1))
        chosen = xp.asarray(xp.expand_dims(xp.argmax(s, axis=where), where) == places, dtype=s.dtype)
    return wrap(chosen) - soft.detach() + soft
