"""What all metrics are: named sums in float64, and a formula of their totals over the ranks.

A new metric names its sums in ``__init__`` (`_add_sum`), adds to them in ``update`` and says in ``_result`` what is made of
the totals. What cannot be added up, such as means and times, is kept for each rank (``by_rank``) and merged by the formula.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import distributed
from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..backend import for_device
from ..ops.creation import as_tensor, zeros
from ..ops.shape import cat

__all__ = ["Metric", "MetricCollection"]


class Metric:
    """A figure of merit of all samples that all ranks have seen since the last `reset`.

    Parameters
    ----------
    process_group : ProcessGroup, optional
        Whose ranks' samples are counted together; the world unless given. Without `init_process_group` it is this process.

    Notes
    -----
    Sums are float64, exact for counts up to 2**53. `update` does not communicate; `compute` is a collective call of all
    ranks of the group, with one all-reduce, and changes nothing, so it may be called in the middle of an epoch.
    """

    def __init__(self, process_group: Any = None) -> None:
        self.process_group = process_group
        self.device = for_device("cpu")[1]
        self._sums: dict[str, Tensor] = {}
        self._by_rank: set[str] = set()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        raise NotImplementedError(f"{type(self).__name__} is a Metric without update")

    def _result(self, totals: dict[str, Tensor]) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a Metric without _result")

    def compute(self) -> Any:
        """The metric of what all ranks have counted. All ranks of the group must call it."""
        return MetricCollection(it=self).compute()["it"]

    def reset(self) -> None:
        """Forget all that was counted."""
        for name, sum_ in self._sums.items():
            self._sums[name] = zeros(tuple(sum_.shape), dtype=dt.float64, device=self.device)

    def to(self, device: Any) -> Metric:
        """Keep the sums on a device, which should be that of the predictions: then `update` never waits for a GPU."""
        self.device = for_device(device)[1]
        self._sums = {name: sum_.to(device=self.device) for name, sum_ in self._sums.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """This rank's sums: each rank saves and loads its own."""
        return {name: sum_.clone() for name, sum_ in self._sums.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the sums of a `state_dict`.

        Raises
        ------
        KeyError, ValueError
            If they are not those of such a metric.
        """
        if set(state) != set(self._sums):
            raise KeyError(f"{type(self).__name__}: its sums are {sorted(self._sums)}, and the state has {sorted(state)}")
        for name, sum_ in self._sums.items():
            if tuple(state[name].shape) != tuple(sum_.shape):
                raise ValueError(
                    f"{type(self).__name__}: {name} has shape {list(sum_.shape)}, and in the state {list(state[name].shape)}"
                )
        self._sums = {name: as_tensor(state[name], dtype=dt.float64).to(device=self.device).clone() for name in self._sums}

    def _add_sum(self, name: str, *shape: int, by_rank: bool = False) -> None:
        self._sums[name] = zeros(shape, dtype=dt.float64)
        if by_rank:
            self._by_rank.add(name)

    def _add(self, **terms: Any) -> None:
        for name, term in terms.items():
            self._sums[name] = self._sums[name] + as_tensor(term).detach().to(device=self.device, dtype=dt.float64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MetricCollection:
    """Several metrics by name, with one all-reduce for all of them.

    Parameters
    ----------
    **metrics : Metric
        Of the same process group.

    Raises
    ------
    ValueError
        If there are none, or they are of several groups.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.metrics import Accuracy, ConfusionMatrix, MetricCollection
    >>> metrics = MetricCollection(accuracy=Accuracy(), confusion=ConfusionMatrix(2))
    >>> metrics.update(disttorch.tensor([0, 1, 1]), disttorch.tensor([0, 0, 1]))
    >>> metrics.compute()
    {'accuracy': tensor(0.6667, dtype=disttorch.float64), 'confusion': tensor([[1, 1],
            [0, 1]])}
    """

    def __init__(self, **metrics: Metric) -> None:
        groups = {id(m.process_group) for m in metrics.values()}
        if len(groups) != 1:
            raise ValueError(f"MetricCollection needs metrics of one process group, got {len(metrics)} of {len(groups)} groups")
        self.metrics = metrics
        self.process_group = next(iter(metrics.values())).process_group

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch in every metric."""
        for metric in self.metrics.values():
            metric.update(*args, **kwargs)

    def compute(self) -> dict[str, Any]:
        """Every metric of what all ranks have counted. All ranks of the group must call it."""
        with no_grad():
            totals = _totals(self.metrics.values(), self.process_group)
            return {name: m._result(t) for (name, m), t in zip(self.metrics.items(), totals)}

    def reset(self) -> None:
        """Forget all that was counted."""
        for metric in self.metrics.values():
            metric.reset()

    def to(self, device: Any) -> MetricCollection:
        """Keep the sums on a device."""
        for metric in self.metrics.values():
            metric.to(device)
        return self

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """This rank's sums, by metric."""
        return {name: metric.state_dict() for name, metric in self.metrics.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from the sums of a `state_dict`."""
        for name, metric in self.metrics.items():
            metric.load_state_dict(state[name])


def _totals(metrics: Iterable[Metric], group: Any) -> list[dict[str, Tensor]]:
    """Each metric's sums over the ranks; sums by rank get a first dimension of that size, in which each rank has its place."""
    metrics = list(metrics)
    size, rank = (distributed.get_world_size(group), distributed.get_rank(group)) if distributed.is_initialized() else (1, 0)
    spread: list[list[tuple[str, Tensor]]] = []
    for metric in metrics:
        spread.append([])
        for name, sum_ in metric._sums.items():
            if name in metric._by_rank:
                places = zeros((size, *sum_.shape), dtype=dt.float64, device=sum_.device)
                places[rank] = sum_
                sum_ = places
            spread[-1].append((name, sum_))
    if size > 1:
        # one message, on the device of the first: a metric has few numbers
        where = metrics[0].device
        flat = cat([s.reshape(-1).to(device=where) for named in spread for _, s in named])
        distributed.all_reduce(flat, group=group)
        start = 0
        for metric, named in zip(metrics, spread):
            for i, (name, s) in enumerate(named):
                stop = start + s.numel()
                named[i] = name, flat[start:stop].reshape(s.shape).to(device=metric.device)
                start = stop
    return [dict(named) for named in spread]
