"""LRScheduler: the walk over groups that all schedules share. A schedule is what it makes of a group's learning rate.

A schedule changes the rate that it finds, so that several can be chained: it multiplies by the ratio of two neighbouring
values of its formula, instead of setting the value itself.
"""

from __future__ import annotations

import warnings
from typing import Any

from ...autograd.variable import Tensor
from ..optimizer import Optimizer

__all__ = ["LRScheduler"]


class LRScheduler:
    """Base class of schedules; as ``torch.optim.lr_scheduler.LRScheduler``.

    Subclasses define `get_lr`, which returns the groups' new learning rates from their present ones in
    ``self.optimizer.param_groups``, from ``self.base_lrs`` and from ``self.last_epoch``.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        How many steps have been taken; -1 to begin. Otherwise the optimizer's groups say under "initial_lr" where they began.

    Attributes
    ----------
    base_lrs : list of float
        Each group's learning rate at the beginning.
    last_epoch : int
        How many steps have been taken.

    Raises
    ------
    TypeError
        If `optimizer` is no Optimizer.
    KeyError
        If a group has no "initial_lr" where the schedule goes on.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        if last_epoch == -1:
            for group in optimizer.param_groups:
                lr = group["lr"]
                group.setdefault("initial_lr", lr.clone() if isinstance(lr, Tensor) else lr)
        else:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with last_epoch >= 0"
                    )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._steps_before = optimizer.counted_steps
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The groups' learning rates for ``self.last_epoch``."""
        raise NotImplementedError

    def get_last_lr(self) -> list[Any]:
        """The learning rates that the last step has set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step.

        Parameters
        ----------
        epoch : int, optional
            Deprecated, as in PyTorch: go to this step instead.
        """
        if self._step_count == 1 and self.optimizer.counted_steps == self._steps_before:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`: call them in the opposite order, or the first value "
                "of the learning rate schedule is skipped.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            self._set(self.get_lr())
            return
        warnings.warn(
            "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
            "`scheduler.step()` to step the scheduler.",
            UserWarning,
            stacklevel=2,
        )
        self.last_epoch = epoch
        closed = getattr(self, "_get_closed_form_lr", self.get_lr)
        self._set(closed())

    def _set(self, values: list[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values):
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(lr) if isinstance(lr, Tensor) else group["lr"].fill_(lr)  # a GPU is not waited for
            else:
                group["lr"] = lr
        self._last_lr = [
            g["lr"].clone() if isinstance(g["lr"], Tensor) else g["lr"] for g in self.optimizer.param_groups
        ]

    def _rates(self) -> list[Any]:
        """The groups' present learning rates."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_steps_before")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.__dict__.update(state_dict)
