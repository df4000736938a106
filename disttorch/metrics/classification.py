"""Metrics of classes: how often the right one was found, and which were taken for which.

Predictions are class numbers in the shape of the targets, or scores with one more dimension, the second, for the classes;
for two classes also probabilities in the shape of the targets.
"""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..ops.creation import arange
from .metric import Metric

__all__ = ["Accuracy", "ConfusionMatrix", "F1Score", "Precision", "Recall"]

_AVERAGES = ("micro", "macro", "weighted", None)


class Accuracy(Metric):
    """The part of the samples whose class was found.

    Parameters
    ----------
    top_k : int
        A class is found if its score is among the `top_k` highest. Of equal scores the lower class counts as the higher;
        a score that is NaN finds nothing.
    ignore_index : int, optional
        Samples of this target are not counted.
    threshold : float
        From which a probability means class 1, where predictions are probabilities in the shape of the targets.
    process_group : ProcessGroup, optional

    Returns
    -------
    Tensor
        From `compute`: a float64 without dimensions; NaN before any sample.

    Raises
    ------
    ValueError
        From `update`, if the shapes do not fit.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.metrics import Accuracy
    >>> accuracy = Accuracy(top_k=2)
    >>> accuracy.update(disttorch.tensor([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), disttorch.tensor([2, 2]))
    >>> accuracy.compute().item()
    0.5
    """

    def __init__(
        self, top_k: int = 1, *, ignore_index: int | None = None, threshold: float = 0.5, process_group: Any = None
    ) -> None:
        super().__init__(process_group)
        if top_k < 1:
            raise ValueError(f"Accuracy: top_k must be 1 or more, got {top_k}")
        self.top_k, self.ignore_index, self.threshold = top_k, ignore_index, threshold
        self._add_sum("right")
        self._add_sum("count")

    @no_grad()
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count a batch: scores (N, C, ...) or classes (N, ...), and the right classes (N, ...)."""
        right: Any
        if pred.ndim == target.ndim:
            if self.top_k > 1:
                raise ValueError(
                    f"Accuracy: top_k={self.top_k} needs scores of shape (N, C, ...), got predictions of shape {list(pred.shape)}"
                )
            right = classes_of("Accuracy", pred, target, self.threshold) == target
        else:
            right = _among_highest(*_rows("Accuracy", pred, target), self.top_k)
            target = target.reshape(-1)
        if self.ignore_index is not None:
            counted: Any = target != self.ignore_index
            self._add(right=(right & counted).sum(), count=counted.sum())
        else:
            self._add(right=right.sum(), count=target.numel())

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["right"] / totals["count"]


class ConfusionMatrix(Metric):
    """How many samples of each class (row) were taken for each class (column).

    Parameters
    ----------
    num_classes : int
    normalize : "true", "pred" or "all", optional
        Parts instead of counts: of the samples of a class, of those taken for a class, or of all.
    ignore_index : int, optional
        Samples of this target are not counted.
    threshold : float
        From which a probability means class 1.
    process_group : ProcessGroup, optional

    Returns
    -------
    Tensor
        From `compute`: (num_classes, num_classes), int64, or float64 if normalized (0 where there are no samples).

    Raises
    ------
    ValueError
        From `update`, if shapes do not fit or a class is not below `num_classes`.
    """

    def __init__(
        self,
        num_classes: int,
        normalize: str | None = None,
        *,
        ignore_index: int | None = None,
        threshold: float = 0.5,
        process_group: Any = None,
    ) -> None:
        super().__init__(process_group)
        if normalize not in ("true", "pred", "all", None):
            raise ValueError(f"ConfusionMatrix: normalize must be 'true', 'pred', 'all' or None, got {normalize!r}")
        self.num_classes, self.normalize = num_classes, normalize
        self.ignore_index, self.threshold = ignore_index, threshold
        self._add_sum("counts", num_classes, num_classes)

    @no_grad()
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count a batch: scores (N, C, ...) or classes (N, ...), and the right classes (N, ...)."""
        name, n = type(self).__name__, self.num_classes
        pred, target = classes_of(name, pred, target, self.threshold).reshape(-1), target.reshape(-1).to(dt.int64)
        if self.ignore_index is not None:
            kept = target != self.ignore_index
            pred, target = pred[kept], target[kept]
        for what, classes in (("target", target), ("prediction", pred)):
            if classes.numel() and not 0 <= (low := int(classes.min())) <= (high := int(classes.max())) < n:
                raise ValueError(f"{name}: with num_classes={n} a {what} is between 0 and {n - 1}, got {low} to {high}")
        self._add(counts=(target * n + pred).bincount(minlength=n * n).reshape(n, n))

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        counts = totals["counts"]
        if self.normalize is None:
            return counts.to(dt.int64)
        whole = {"true": lambda: counts.sum(1, keepdim=True), "pred": lambda: counts.sum(0, keepdim=True), "all": counts.sum}
        return _ratio(counts, whole[self.normalize]())


class _ByClass(ConfusionMatrix):
    """A ratio for each class, and its average."""

    def __init__(
        self,
        num_classes: int,
        average: str | None = "macro",
        *,
        ignore_index: int | None = None,
        threshold: float = 0.5,
        process_group: Any = None,
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, threshold=threshold, process_group=process_group)
        average = None if average == "none" else average
        if average not in _AVERAGES:
            raise ValueError(f"{type(self).__name__}: average must be one of {_AVERAGES}, got {average!r}")
        self.average = average

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        counts = totals["counts"]
        right, taken, there = counts.diagonal(), counts.sum(0), counts.sum(1)
        if self.average == "micro":
            return self._ratio(right.sum(), taken.sum(), there.sum())
        each = self._ratio(right, taken, there)
        if self.average is None:
            return each
        weights = there if self.average == "weighted" else ((taken + there) > 0).to(dt.float64)
        return _ratio((each * weights).sum(), weights.sum())

    def _ratio(self, right: Tensor, taken: Tensor, there: Tensor) -> Tensor:
        raise NotImplementedError


_ARGUMENTS = """

    Parameters
    ----------
    num_classes : int
    average : "macro", "micro", "weighted" or None
        The mean over classes, as scikit-learn counts: all that are among targets or predictions; the ratio of all classes'
        counts together; the mean weighted by how many samples classes have; or (num_classes,) without a mean.
    ignore_index : int, optional
        Samples of this target are not counted.
    threshold : float
        From which a probability means class 1.
    process_group : ProcessGroup, optional

    Returns
    -------
    Tensor
        From `compute`: float64, without dimensions or (num_classes,); 0 where there is nothing to divide by.
    """


class Precision(_ByClass):
    """Of the samples taken for a class, the part that is of it."""

    def _ratio(self, right: Tensor, taken: Tensor, there: Tensor) -> Tensor:
        return _ratio(right, taken)


class Recall(_ByClass):
    """Of the samples of a class, the part that was taken for it."""

    def _ratio(self, right: Tensor, taken: Tensor, there: Tensor) -> Tensor:
        return _ratio(right, there)


class F1Score(_ByClass):
    """The harmonic mean of precision and recall."""

    def _ratio(self, right: Tensor, taken: Tensor, there: Tensor) -> Tensor:
        return _ratio(2 * right, taken + there)


for _metric in (Precision, Recall, F1Score):
    _metric.__doc__ = f"{_metric.__doc__}{_ARGUMENTS}"


def classes_of(name: str, pred: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Predicted classes, in the shape of the targets, from whatever predictions are."""
    if pred.ndim == target.ndim + 1 and pred.ndim > 1 and (pred.shape[0], *pred.shape[2:]) == tuple(target.shape):
        return pred.argmax(1)
    if tuple(pred.shape) != tuple(target.shape):
        raise ValueError(
            f"{name}: predictions of shape {list(pred.shape)} for targets of shape {list(target.shape)}; they must have that shape, "
            "or one more dimension, the second, for the classes"
        )
    return (pred >= threshold).to(dt.int64) if pred.is_floating_point() else pred.to(dt.int64)


def _rows(name: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores as (samples, classes), and targets as (samples,)."""
    if pred.ndim != target.ndim + 1 or (pred.shape[0], *pred.shape[2:]) != tuple(target.shape):
        raise ValueError(
            f"{name}: scores of shape {list(pred.shape)} for targets of shape {list(target.shape)}; expected (N, C, ...) and (N, ...)"
        )
    return pred.movedim(1, -1).reshape(-1, pred.shape[1]), target.reshape(-1)


def _among_highest(scores: Tensor, target: Tensor, k: int) -> Tensor:
    """Whether fewer than k classes come before the right one."""
    classes = scores.shape[1]
    index = target.to(dt.int64).clamp(0, max(classes - 1, 0))  # a target to ignore may be anything
    own = scores.gather(1, index[:, None])
    tied = (scores == own) & (arange(classes, device=scores.device) < index[:, None])
    return (((scores > own) | tied).sum(1) < k) & (own == own)[:, 0] & (index == target)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 where there is nothing to divide by."""
    return part / whole.clamp(min=1)
