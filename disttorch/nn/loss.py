"""Losses as modules: a table of functions and their arguments. They are called with input and target."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..autograd.variable import Tensor
from ..ops.nn import classification, ctc, distance, loss, margin
from ..ops.nn.linear_cross_entropy import LinearCrossEntropyOptions, linear_cross_entropy
from .linear import Linear
from .module import Module
from .table import layer

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CosineSimilarity", "CrossEntropyLoss", "GaussianNLLLoss",
    "HingeEmbeddingLoss", "HuberLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions", "MSELoss",
    "MarginRankingLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "NLLLoss2d",
    "PairwiseDistance", "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


class _Loss(Module):
    """What losses are derived from: a module with a ``reduction``.

    Parameters
    ----------
    size_average, reduce : bool, optional
        PyTorch's arguments of old.
    reduction : {"mean", "sum", "none"}
    """

    reduction: str

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"):
        super().__init__()
        given = _reduced({"size_average": size_average, "reduce": reduce, "reduction": reduction})
        self.reduction = given["reduction"]


class _WeightedLoss(_Loss):
    """A loss with a weight for each class or element, which is a buffer."""

    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ):
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


def _reduced(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the two of old turned into a reduction."""
    average, reduce = given.pop("size_average", None), given.pop("reduce", None)
    if average is not None or reduce is not None:
        given["reduction"] = loss.reduction_of(average, reduce, given["reduction"])
    return given


def _with_delta(given: dict[str, Any]) -> dict[str, Any]:
    if given["delta"] is not None and not isinstance(given["delta"], (int, float)):
        raise TypeError(f"delta must be a float or int, got: {type(given['delta'])}")
    return given


def _nothing(module: Any) -> str:
    return ""


_of_pair = partial(layer, inputs=2, prepare=_reduced, show=_nothing, base=_Loss)
_of_three = partial(layer, inputs=3, prepare=_reduced, show=_nothing, base=_Loss)
_weighted = partial(_of_pair, base=_WeightedLoss, buffers=["weight"])
_OLD: dict[str, Any] = {"size_average": None, "reduce": None}
_USUAL: dict[str, Any] = {**_OLD, "reduction": "mean"}

# Of classes
BCELoss = _weighted("BCELoss", classification.binary_cross_entropy, weight=None, **_USUAL)
BCEWithLogitsLoss = _of_pair(
    "BCEWithLogitsLoss", classification.binary_cross_entropy_with_logits, buffers=["weight", "pos_weight"], weight=None, **_USUAL,
    pos_weight=None,
)  # fmt: skip
CrossEntropyLoss = _weighted(
    "CrossEntropyLoss", classification.cross_entropy, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean",
    label_smoothing=0.0,
)  # fmt: skip
NLLLoss = _weighted(
    "NLLLoss", classification.nll_loss, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"
)
CTCLoss = layer(
    "CTCLoss", ctc.ctc_loss, inputs=4, show=_nothing, base=_Loss, blank=0, reduction="mean", zero_infinity=False
)
MultiMarginLoss = _weighted("MultiMarginLoss", margin.multi_margin_loss, p=1, margin=1.0, weight=None, **_USUAL)
MultiLabelMarginLoss = _of_pair("MultiLabelMarginLoss", margin.multilabel_margin_loss, **_USUAL)
MultiLabelSoftMarginLoss = _weighted("MultiLabelSoftMarginLoss", margin.multilabel_soft_margin_loss, weight=None, **_USUAL)
SoftMarginLoss = _of_pair("SoftMarginLoss", margin.soft_margin_loss, **_USUAL)

# Of numbers
MSELoss = _of_pair("MSELoss", loss.mse_loss, **_USUAL)
L1Loss = _of_pair("L1Loss", loss.l1_loss, **_USUAL)
SmoothL1Loss = _of_pair("SmoothL1Loss", loss.smooth_l1_loss, **_USUAL, beta=1.0)
HuberLoss = _of_pair("HuberLoss", loss.huber_loss, prepare=_with_delta, reduction="mean", delta=1.0)
KLDivLoss = _of_pair("KLDivLoss", loss.kl_div, **_USUAL, log_target=False)
PoissonNLLLoss = _of_pair(
    "PoissonNLLLoss", loss.poisson_nll_loss, log_input=True, full=False, size_average=None, eps=1e-8, reduce=None, reduction="mean"
)
GaussianNLLLoss = layer(
    "GaussianNLLLoss", loss.gaussian_nll_loss, inputs=3, show=_nothing, base=_Loss, keyword_only=True, full=False, eps=1e-6,
    reduction="mean",
)  # fmt: skip

# Of pairs and triplets
HingeEmbeddingLoss = _of_pair("HingeEmbeddingLoss", margin.hinge_embedding_loss, margin=1.0, **_USUAL)
MarginRankingLoss = _of_three("MarginRankingLoss", margin.margin_ranking_loss, margin=0.0, **_USUAL)
CosineEmbeddingLoss = _of_three("CosineEmbeddingLoss", margin.cosine_embedding_loss, margin=0.0, **_USUAL)


def _with_margin(given: dict[str, Any]) -> dict[str, Any]:
    if given["margin"] is not None and given["margin"] <= 0:
        raise ValueError(f"TripletMarginLoss: expected margin to be greater than 0, got {given['margin']} instead")
    return _reduced(given)


TripletMarginLoss = layer(
    "TripletMarginLoss", margin.triplet_margin_loss, inputs=3, prepare=_with_margin, show=_nothing, base=_Loss, margin=1.0, p=2.0,
    eps=1e-6, swap=False, **_USUAL,
)  # fmt: skip

# Distances
CosineSimilarity = layer("CosineSimilarity", distance.cosine_similarity, inputs=2, show=_nothing, dim=1, eps=1e-8)
PairwiseDistance = layer("PairwiseDistance", distance.pairwise_distance, inputs=2, show=_nothing, p=2.0, eps=1e-6, keepdim=False)


class NLLLoss2d(NLLLoss):  # type: ignore[misc, valid-type]
    """`NLLLoss` under its name of old; as ``torch.nn.NLLLoss2d``."""


class TripletMarginWithDistanceLoss(_Loss):
    """`TripletMarginLoss` with any distance; as ``torch.nn.TripletMarginWithDistanceLoss``.

    Parameters
    ----------
    distance_function : callable, optional
        Of two tensors; `PairwiseDistance` unless given. A module becomes a part of this one.
    margin : float
        Positive.
    swap : bool
        As for the function `triplet_margin_loss`.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the margin is not positive.
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(reduction=reduction)
        if margin <= 0:
            raise ValueError(f"TripletMarginWithDistanceLoss: expected margin to be greater than 0, got {margin} instead")
        self.distance_function: Any = PairwiseDistance() if distance_function is None else distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of triplets."""
        return margin.triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function, margin=self.margin, swap=self.swap,
            reduction=self.reduction,
        )  # fmt: skip


class LinearCrossEntropyLoss(_WeightedLoss):
    """Cross entropy of a linear layer, whose logits are never whole in memory; as ``torch.nn.LinearCrossEntropyLoss``.

    Parameters
    ----------
    in_features, num_classes : int
    out_features : tuple of int
        Dimensions behind the classes.
    bias : bool
    device, dtype : optional
        Of the linear layer.
    reduction, weight, ignore_index, label_smoothing, options
        As for the function `linear_cross_entropy`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
    ):
        super().__init__(weight, reduction=reduction)
        self.in_features = in_features
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(in_features, rows, bias=bias, device=device, dtype=dtype)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.options = options

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of (N, in_features) or (in_features,)."""
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.in_features) if self.out_features else self.linear.weight,
            target,
            linear_bias=bias if bias is None or not self.out_features else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, num_classes={self.num_classes}, out_features={self.out_features}, "
            f"bias={self.linear.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )
