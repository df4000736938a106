"""Dropout layers, which do something in training only."""

from __future__ import annotations

from collections.abc import Callable

from ..autograd.variable import Tensor
from ..ops.nn import dropout
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    """Elements set to 0 at random.

    Parameters
    ----------
    p : float
        The probability of each to become 0.
    inplace : bool

    Raises
    ------
    ValueError
        If p is no probability.
    """

    function: Callable[..., Tensor]

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements if the module is in training."""
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Each element 0 with probability p, else divided by 1 - p; as ``torch.nn.Dropout``."""

    function = staticmethod(dropout.dropout)


class Dropout1d(_Dropout):
    """Dropout of whole channels of (N, C, L) or (C, L); as ``torch.nn.Dropout1d``."""

    function = staticmethod(dropout.dropout1d)


class Dropout2d(_Dropout):
    """Dropout of whole channels of (N, C, H, W) or (C, H, W); as ``torch.nn.Dropout2d``."""

    function = staticmethod(dropout.dropout2d)


class Dropout3d(_Dropout):
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W); as ``torch.nn.Dropout3d``."""

    function = staticmethod(dropout.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1 of what SELU gives; as ``torch.nn.AlphaDropout``."""

    function = staticmethod(dropout.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels of (N, C, ...); as ``torch.nn.FeatureAlphaDropout``."""

    function = staticmethod(dropout.feature_alpha_dropout)
