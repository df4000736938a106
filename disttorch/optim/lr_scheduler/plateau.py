"""A schedule that waits for a measure to stop improving."""

from __future__ import annotations

from math import inf
from typing import Any

from ..optimizer import Optimizer
from .scheduler import LRScheduler

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` when a measure has not improved for some time; as ``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    Under data parallelism give every rank the same measure, for instance one that `all_reduce` has averaged.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether the measure is to fall or to rise.
    factor : float
        Less than 1.
    patience : int
        How many steps without improvement are let pass.
    threshold : float
        What counts as an improvement,
    threshold_mode : {"rel", "abs"}
        relative to the best so far, or absolute.
    cooldown : int
        For how many steps after a change nothing is counted.
    min_lr : float or list of float
        The least rate, of all groups or of each.
    eps : float
        Smaller changes of the rate are left out.

    Examples
    --------
    >>> import disttorch
    >>> optimizer = disttorch.optim.SGD([disttorch.ones(1, requires_grad=True)], lr=1.0)
    >>> scheduler = disttorch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ):
        if factor >= 1.0:
            raise ValueError(f"Factor should be < 1.0, not {factor}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown!")
        groups = len(optimizer.param_groups)
        if isinstance(min_lr, (list, tuple)):
            if len(min_lr) != groups:
                raise ValueError(f"expected {groups} min_lrs, got {len(min_lr)}")
            self.min_lrs = list(min_lr)
        else:
            self.min_lrs = [min_lr] * groups
        self.optimizer = optimizer
        self.mode, self.factor, self.patience, self.cooldown, self.eps = mode, factor, patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best = inf if mode == "min" else -inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Go on by one step with the measure of it: a number or a tensor of one."""
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(current, self.best):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(self._rates())

    def _reduce(self) -> None:
        if len(self.optimizer.param_groups) != len(self.min_lrs):
            raise RuntimeError(
                f"The number of param groups in the optimizer ({len(self.optimizer.param_groups)}) differs from when "
                f"ReduceLROnPlateau was made ({len(self.min_lrs)}); give min_lr as a list for them all"
            )
        rates = []
        for old, least in zip(self._rates(), self.min_lrs):
            new = max(float(old) * self.factor, least)
            rates.append(new if float(old) - new > self.eps else old)
        self._set(rates)

    @property
    def in_cooldown(self) -> bool:
        """Whether a change was so recent that nothing is counted."""
        return self.cooldown_counter > 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether a measure is an improvement."""
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            return (
                sign * a > sign * (best * (1.0 + sign * self.threshold)) if abs(best) != inf else sign * a > sign * best
            )
        return sign * a > sign * best + self.threshold
