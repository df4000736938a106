"""Metrics of training itself: the mean loss, perplexity, and how many samples a second go through."""

from __future__ import annotations

import time
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..ops.creation import as_tensor
from ..ops.nn.classification import cross_entropy
from .metric import Metric

__all__ = ["Mean", "Perplexity", "Throughput"]


class Mean(Metric):
    """The weighted mean of numbers, such as losses of batches weighted by their sizes.

    Examples
    --------
    >>> from disttorch.metrics import Mean
    >>> loss = Mean()
    >>> loss.update(2.0, 30)  # the mean of 30 samples
    >>> loss.update(5.0, 10)
    >>> loss.compute().item()
    2.75
    """

    def __init__(self, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self._add_sum("total")
        self._add_sum("weight")

    @no_grad()
    def update(self, value: Any, weight: Any = 1.0) -> None:
        """Count a number, or all in a tensor, with a weight or a tensor of weights that broadcasts to it."""
        value = as_tensor(value).detach().to(dt.float64)
        weight = as_tensor(weight).detach().to(device=value.device, dtype=dt.float64).expand(value.shape)
        self._add(total=(value * weight).sum(), weight=weight.sum())

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["total"] / totals["weight"]


class Perplexity(Metric):
    """The exponential of the mean negative log likelihood of tokens.

    Parameters
    ----------
    ignore_index : int
        Tokens that are not counted.
    process_group : ProcessGroup, optional
    """

    def __init__(self, ignore_index: int = -100, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self.ignore_index = ignore_index
        self._add_sum("nll")
        self._add_sum("count")

    @no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count logits (..., C) of the next tokens, and which they were (...).

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        if tuple(logits.shape[:-1]) != tuple(target.shape):
            raise ValueError(
                f"Perplexity: logits of shape {list(logits.shape)} for targets of shape {list(target.shape)}; expected (..., C) and (...)"
            )
        target = target.reshape(-1)
        counted: Any = target != self.ignore_index
        rows = logits.detach().reshape(-1, logits.shape[-1])
        nll = cross_entropy(rows, target, ignore_index=self.ignore_index, reduction="none")
        self._add(nll=nll.to(dt.float64).sum(), count=counted.sum())

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        return (totals["nll"] / totals["count"]).exp()


class Throughput(Metric):
    """Samples a second of all ranks together: their number over the time of the slowest rank.

    The clock runs from construction or `reset`; `pause` stops it, for example for validation, and `update` starts it again.
    """

    def __init__(self, *, process_group: Any = None) -> None:
        super().__init__(process_group)
        self._add_sum("samples")
        self._add_sum("seconds", by_rank=True)
        self._since: float | None = time.perf_counter()

    def update(self, samples: int) -> None:
        """Count samples that have gone through."""
        if self._since is None:
            self._since = time.perf_counter()
        self._add(samples=samples)

    def pause(self) -> None:
        """Stop the clock until the next `update`."""
        self._tick()
        self._since = None

    def reset(self) -> None:
        """Forget all that was counted, and start the clock anew."""
        super().reset()
        self._since = time.perf_counter()

    def compute(self) -> Tensor:
        """Samples a second. All ranks of the group must call it."""
        self._tick()
        return super().compute()

    def state_dict(self) -> dict[str, Tensor]:
        """This rank's samples and seconds."""
        self._tick()
        return super().state_dict()

    def _tick(self) -> None:
        if self._since is not None:
            now = time.perf_counter()
            self._add(seconds=now - self._since)
            self._since = now

    def _result(self, totals: dict[str, Tensor]) -> Tensor:
        return totals["samples"] / totals["seconds"].max()
