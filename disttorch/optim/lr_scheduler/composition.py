"""Schedules made of schedules."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler

__all__ = ["ChainedScheduler", "SequentialLR"]


class SequentialLR(LRScheduler):
    """One schedule after another; as ``torch.optim.lr_scheduler.SequentialLR``.

    Parameters
    ----------
    optimizer : Optimizer
        That of all schedules.
    schedulers : list of LRScheduler
    milestones : list of int
        At which step the second begins, and so on.
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If the numbers of schedules and milestones do not fit, an optimizer is another one, or a schedule needs measures.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.optim.lr_scheduler import ConstantLR, ExponentialLR, SequentialLR
    >>> optimizer = disttorch.optim.SGD([disttorch.ones(1, requires_grad=True)], lr=1.0)
    >>> warmup, decay = ConstantLR(optimizer, 0.5, total_iters=2), ExponentialLR(optimizer, 0.5)
    >>> scheduler = SequentialLR(optimizer, [warmup, decay], milestones=[2])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.5, 0.5, 1.0, 0.5]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ):
        if not schedulers:
            raise ValueError(f"{type(self).__name__} expects at least one scheduler, but got no scheduler.")
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"{type(self).__name__} at index {i} should have `optimizer` as its attribute.")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{type(self).__name__} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be "
                    f"specified when calling `step`, but got one at index {i} in the given schedulers sequence."
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{type(self).__name__} expects all schedulers to belong to the same optimizer, but got scheduler "
                    f"{type(scheduler).__name__} at index {i} with another one"
                )
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"Sequential Schedulers expects number of schedulers provided to be one more than the number of milestone points, but "
                f"got number of schedulers {len(schedulers)} and the number of milestones to be equal to {len(milestones)}"
            )
        self.optimizer = optimizer
        self._schedulers, self._milestones = schedulers, list(milestones)
        self.last_epoch = last_epoch + 1
        # all have taken their first step when they were made; only the first's is to count
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in _leaves(self):
            scheduler.last_epoch -= 1
        beginning = _leaves(schedulers[0])
        for scheduler in (schedulers[0], *beginning):
            scheduler._is_initial, scheduler._step_count = True, 0
        schedulers[0].step()
        for scheduler in (schedulers[0], *beginning):
            scheduler._is_initial = False
        self._last_lr = schedulers[0].get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on by one step."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] if isinstance(scheduler, LRScheduler) else group["lr"]
            _restart(scheduler)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the schedules' own states."""
        return _state_with_parts(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        _load_with_parts(self, state_dict)


class ChainedScheduler(LRScheduler):
    """Several schedules at once, each changing what the one before has made; as ``torch.optim.lr_scheduler.ChainedScheduler``.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
    optimizer : Optimizer, optional
        That of all schedules.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        if not schedulers:
            raise ValueError(
                f"{type(self).__name__} expects at least one scheduler to be chained, but got no scheduler."
            )
        optimizer = optimizer or schedulers[0].optimizer
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"{type(self).__name__} at index {i} should have `optimizer` as its attribute.")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{type(self).__name__} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be "
                    f"specified when calling `step`, but got one at index {i} in the given schedulers sequence."
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{type(self).__name__} expects all schedulers to belong to the same optimizer, but got scheduler "
                    f"{type(scheduler).__name__} at index {i} with another one"
                )
        self._schedulers = schedulers
        self.optimizer = optimizer
        self._last_lr = schedulers[-1].get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on by one step."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._schedulers[-1].get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the schedules' own states."""
        return _state_with_parts(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        _load_with_parts(self, state_dict)


def _leaves(scheduler: Any) -> list[LRScheduler]:
    parts = getattr(scheduler, "_schedulers", None)
    return [scheduler] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def _restart(scheduler: LRScheduler) -> None:
    """Begin a schedule at its own step 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the deprecated argument, which is what is meant here
        scheduler.step(0)


def _state_with_parts(scheduler: Any) -> dict[str, Any]:
    state = LRScheduler.state_dict(scheduler)
    state["_schedulers"] = [part.state_dict() for part in scheduler._schedulers]
    return state


def _load_with_parts(scheduler: Any, state_dict: dict[str, Any]) -> None:
    for part, state in zip(scheduler._schedulers, state_dict["_schedulers"]):
        part.load_state_dict(state)
    LRScheduler.load_state_dict(scheduler, {k: v for k, v in state_dict.items() if k != "_schedulers"})
