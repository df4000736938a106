"""Averagers of models; as ``torch.distributed.algorithms.model_averaging.averagers``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from ....autograd.variable import Tensor, bump_version
from ....backend import namespace
from ...groups import ProcessGroup, joined

__all__ = ["ModelAverager", "PeriodicModelAverager", "average_parameters"]


class ModelAverager(ABC):
    """What averages the parameters of the ranks' models.

    Parameters
    ----------
    process_group : ProcessGroup, optional
        The world unless given.

    Attributes
    ----------
    step : int
        How often it was called.
    """

    def __init__(self, process_group: Any = None):
        group = joined(process_group)
        if group is None:
            raise ValueError("ModelAverager: this rank is not a member of the process group")
        self.process_group: ProcessGroup = group
        self.step = 0

    @abstractmethod
    def average_parameters(self, params: Any) -> None:
        """Average parameters, or the parameters in an optimizer's groups, if it is time to."""


class PeriodicModelAverager(ModelAverager):
    """Averages the ranks' models every so many steps, for post-local SGD.

    Parameters
    ----------
    period : int
        Steps from one average to the next.
    warmup_steps : int
        Steps before the first.
    process_group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    ValueError
        If `period` is not positive, `warmup_steps` is negative, or this rank is no member of the group.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> model = disttorch.nn.Linear(2, 1)
    >>> averager = PeriodicModelAverager(period=4, warmup_steps=100)
    >>> averager.average_parameters(model.parameters())  # after each optimizer.step()
    >>> averager.step
    1
    >>> dist.destroy_process_group()
    """

    def __init__(self, period: int, warmup_steps: int = 0, process_group: Any = None):
        super().__init__(process_group)
        if warmup_steps < 0:
            raise ValueError("Arg ``warmup_steps`` must be a non-negative number.")
        if period <= 0:
            raise ValueError("Arg ``period`` must be a positive value.")
        self.period, self.warmup_steps = period, warmup_steps

    def average_parameters(self, params: Any) -> None:
        """Count a step, and average where it is time to.

        Parameters
        ----------
        params : iterable of Tensor, or of dict
            Parameters, or an optimizer's ``param_groups``. Those without a gradient stay as they are; all ranks give the same.

        Raises
        ------
        ValueError
            If it is time to, and none has a gradient.
        """
        if self.step >= self.warmup_steps and (self.step - self.warmup_steps) % self.period == 0:
            chosen = list(_tensors(params))
            if not chosen:
                raise ValueError(
                    "PeriodicModelAverager: no parameter has a gradient, so none would be averaged; average between optimizer.step() and "
                    "zero_grad()"
                )
            average_parameters(chosen, self.process_group)
        self.step += 1


def average_parameters(params: Iterable[Tensor], process_group: ProcessGroup) -> None:
    """Replace parameters by their mean over the ranks, those of one dtype in one message."""
    by_kind: dict[Any, list[Tensor]] = {}
    for p in params:
        by_kind.setdefault((p._array.dtype, str(p.device)), []).append(p)
    for members in by_kind.values():
        xp = namespace(members[0]._array)
        flat = xp.concatenate([p._array.reshape(-1) for p in members])
        process_group.communicator.all_reduce(flat, "avg")
        start = 0
        for p in members:
            stop = start + p._array.size
            p._array[...] = flat[start:stop].reshape(p._array.shape)
            bump_version(p)
            start = stop


def _tensors(params: Any) -> Iterable[Tensor]:
    for given in params:
        for p in given["params"] if isinstance(given, dict) else [given]:
            if p._grad is not None:
                yield p
