"""Metrics of numbers: how far predictions are from targets."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..ops.shape import stack
from .metric import Metric

__all__ = ["MeanAbsoluteError", "MeanSquaredError", "R2Score"]


class MeanSquaredError(Metric):
    """The mean of (pred - target)**2 over all numbers; with ``squared=False`` its root.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.metrics import MeanSquaredError
    >>> error = MeanSquaredError()
    >>> error.update(disttorch.tensor([1.0, 2.0]), disttorch.tensor([1.0, 4.0]))
    >>> error.compute().item()
    2.0
    """

    def __init__(self, squared: bool = True, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self.squared = squared
        self._add_sum("error")
        self._add_sum("count")

    @no_grad()
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count predictions and targets of one shape."""
        d = _differences(type(self).__name__, pred, target)
        self._add(error=(d * d).sum(), count=d.numel())

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        mean = totals["error"] / totals["count"]
        return mean if self.squared else mean.sqrt()


class MeanAbsoluteError(Metric):
    """The mean of abs(pred - target) over all numbers."""

    def __init__(self, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self._add_sum("error")
        self._add_sum("count")

    @no_grad()
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count predictions and targets of one shape."""
        d = _differences(type(self).__name__, pred, target)
        self._add(error=d.abs().sum(), count=d.numel())

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["error"] / totals["count"]


class R2Score(Metric):
    """The part of the targets' variance that predictions explain: 1 - sum((target - pred)**2) / sum((target - mean)**2).

    Each rank keeps count, mean and sum of squared deviations, and they are merged by the formula of Chan, Golub and LeVeque
    (1983): sums of squares would lose all digits where the mean is large.
    """

    def __init__(self, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self._add_sum("residual")
        self._add_sum("moments", 3, by_rank=True)

    @no_grad()
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count predictions and targets of one shape."""
        d = _differences("R2Score", pred, target)
        if not d.numel():
            return
        y = target.detach().to(dt.float64)
        mean = y.mean()
        deviation = y - mean
        new = stack([mean * 0 + y.numel(), mean, (deviation * deviation).sum()]).to(device=self.device)
        self._add(residual=(d * d).sum())
        self._sums["moments"] = _merged(self._sums["moments"], new)

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        moments = totals["moments"][0]
        for other in totals["moments"][1:]:
            moments = _merged(moments, other)
        return 1 - totals["residual"] / moments[2]


def _merged(a: Tensor, b: Tensor) -> Tensor:
    n = a[0] + b[0]
    safe = n.clamp(min=1)
    delta = b[1] - a[1]
    return stack([n, (a[0] * a[1] + b[0] * b[1]) / safe, a[2] + b[2] + delta * delta * a[0] * b[0] / safe])


def _differences(name: str, pred: Tensor, target: Tensor) -> Tensor:
    if tuple(pred.shape) != tuple(target.shape):
        raise ValueError(f"{name}: predictions of shape {list(pred.shape)} for targets of shape {list(target.shape)}")
    return pred.detach().to(dt.float64) - target.detach().to(dt.float64)
