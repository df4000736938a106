"""Losses as modules: a table of functions and their arguments. They are called with input and target."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..ops.nn import classification, distance, loss
from .table import layer

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "PairwiseDistance",
    "PoissonNLLLoss",
    "SmoothL1Loss",
]


def _reduced(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the two of old turned into a reduction."""
    average, reduce = given.pop("size_average", None), given.pop("reduce", None)
    if average is not None or reduce is not None:
        given["reduction"] = loss.reduction_of(average, reduce, given["reduction"], stacklevel=4)
    return given


def _nothing(module: Any) -> str:
    return ""


_of_pair = partial(layer, inputs=2, prepare=_reduced, show=_nothing)
_OLD: dict[str, Any] = {"size_average": None, "reduce": None}

BCELoss = _of_pair("BCELoss", classification.binary_cross_entropy, buffers=["weight"], weight=None, **_OLD, reduction="mean")
BCEWithLogitsLoss = _of_pair(
    "BCEWithLogitsLoss",
    classification.binary_cross_entropy_with_logits,
    buffers=["weight", "pos_weight"],
    weight=None,
    **_OLD,
    reduction="mean",
    pos_weight=None,
)
CrossEntropyLoss = _of_pair(
    "CrossEntropyLoss",
    classification.cross_entropy,
    buffers=["weight"],
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
)
NLLLoss = _of_pair(
    "NLLLoss",
    classification.nll_loss,
    buffers=["weight"],
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
)
MSELoss = _of_pair("MSELoss", loss.mse_loss, **_OLD, reduction="mean")
L1Loss = _of_pair("L1Loss", loss.l1_loss, **_OLD, reduction="mean")
SmoothL1Loss = _of_pair("SmoothL1Loss", loss.smooth_l1_loss, **_OLD, reduction="mean", beta=1.0)
HuberLoss = _of_pair("HuberLoss", loss.huber_loss, reduction="mean", delta=1.0)
KLDivLoss = _of_pair("KLDivLoss", loss.kl_div, **_OLD, reduction="mean", log_target=False)
PoissonNLLLoss = _of_pair(
    "PoissonNLLLoss",
    loss.poisson_nll_loss,
    log_input=True,
    full=False,
    size_average=None,
    eps=1e-8,
    reduce=None,
    reduction="mean",
)
GaussianNLLLoss = layer(
    "GaussianNLLLoss",
    loss.gaussian_nll_loss,
    inputs=3,
    show=_nothing,
    keyword_only=True,
    full=False,
    eps=1e-6,
    reduction="mean",
)
CosineSimilarity = layer("CosineSimilarity", distance.cosine_similarity, inputs=2, show=_nothing, dim=1, eps=1e-8)
PairwiseDistance = layer(
    "PairwiseDistance", distance.pairwise_distance, inputs=2, show=_nothing, p=2.0, eps=1e-6, keepdim=False
)
