"""Averages of a model's weights: stochastic weight averaging (Izmailov et al., arXiv:1803.05407) and exponential moving
averages; as ``torch.optim.swa_utils``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from itertools import chain
from math import cos, pi
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor, bump_version
from ..backend import for_device
from ..backend.kernels.optimization import either
from ..nn.module import Module
from ..ops.creation import tensor
from .lr_scheduler import LRScheduler
from .optimizer import Optimizer

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn"]

Average = Callable[[Tensor, Tensor, Any], Tensor]
Averages = Callable[[list[Tensor], list[Tensor], Any], None]


def _share(decay: float) -> float:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")
    return decay


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average: ``decay * average + (1 - decay) * weights``."""
    _share(decay)

    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            return ema_param * decay + current_param * (1 - decay)

    return ema_update


def get_swa_avg_fn() -> Average:
    """The mean of all weights so far."""

    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            return averaged_param + (current_param - averaged_param) / (int(num_averaged) + 1)

    return swa_update


def _moves(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _ema(xp: Any, average: Any, weights: Any, *, decay: Any, count: Any) -> tuple:
    return average * decay + weights * (1 - decay), None


def _mean(xp: Any, average: Any, weights: Any, *, count: Any) -> tuple:
    return average + (weights - average) / (count + 1), None


@functools.cache
def _begun(formula: Callable[..., tuple]) -> Callable[..., tuple]:
    """An average that begins as the weights."""

    def average_or_weights(xp: Any, average: Any, weights: Any, **numbers: Any) -> tuple:
        return either(xp, numbers["count"] == 0, lambda: weights, lambda: formula(xp, average, weights, **numbers)[0]), None

    return average_or_weights


class _Fused:
    """An average of all weights at once; what is not a number that moves is copied.

    Parameters
    ----------
    formula : callable
        ``formula(xp, average, weights, count=count, **numbers)`` returns the new average.
    **numbers
        Its other arguments.
    """

    def __init__(self, formula: Callable[..., tuple], **numbers: Any):
        self.formula, self.numbers = formula, numbers

    def __call__(self, averages: list[Tensor], weights: list[Tensor], num_averaged: Any) -> None:
        self.update(self.formula, averages, weights, num_averaged)

    def begin_or_update(self, averages: list[Tensor], weights: list[Tensor], num_averaged: Any) -> None:
        """The same, but where nothing has been averaged the averages become the weights. The host does not look which it is."""
        self.update(_begun(self.formula), averages, weights, num_averaged)

    def update(self, formula: Callable[..., tuple], averages: list[Tensor], weights: list[Tensor], num_averaged: Any) -> None:
        """Apply a formula to all averages of a device."""
        with no_grad():
            alike: dict[Any, tuple[list[Any], list[Any]]] = {}
            for mean, current in zip(averages, weights):
                if not _moves(mean):
                    mean.copy_(current)
                    continue
                if current.device != mean.device or current.dtype != mean.dtype or current.shape != mean.shape:
                    current = current.to(mean.device, mean.dtype).expand(mean.shape)
                columns = alike.setdefault(mean.device, ([], []))
                columns[0].append(mean._array)
                columns[1].append(current._array)
                bump_version(mean)
            for where, columns in alike.items():
                xp, there = for_device(where)
                count: Any = num_averaged
                if isinstance(count, Tensor):
                    count = int(count) if "cpu" in (there.type, count.device.type) else count.to(there)._array
                with xp.on(there):
                    xp.elementwise_(formula, columns, {**self.numbers, "count": count})


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """`get_ema_avg_fn` of all weights at once; integers are copied."""
    return _Fused(_ema, decay=_share(decay))


def get_swa_multi_avg_fn() -> Averages:
    """`get_swa_avg_fn` of all weights at once; integers are copied."""
    return _Fused(_mean)


class AveragedModel(Module):
    """A copy of a model whose weights are an average of the model's; as ``torch.optim.swa_utils.AveragedModel``.

    Parameters
    ----------
    model : Module
    device : device, optional
        Where the copy is kept.
    avg_fn : callable, optional
        ``avg_fn(average, weights, num_averaged)`` returns the new average; the mean if absent.
    multi_avg_fn : callable, optional
        ``multi_avg_fn(averages, weights, num_averaged)`` changes the averages in place.
    use_buffers : bool
        Whether buffers are averaged too, or taken from the model.

    Examples
    --------
    >>> import disttorch
    >>> model = disttorch.nn.Linear(1, 1, bias=False)
    >>> averaged = AveragedModel(model)
    >>> for weight in (1.0, 2.0, 6.0):
    ...     model.weight.data.fill_(weight)
    ...     averaged.update_parameters(model)
    tensor([[1.]])
    tensor([[2.]])
    tensor([[6.]])
    >>> averaged.module.weight.item()
    3.0
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: Averages | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Add the model's present weights to the average."""
        with_buffers = self.use_buffers
        averages = [t.detach() for t in _weights(self.module, with_buffers)]
        weights = [t.detach().to(a.device) for a, t in zip(averages, _weights(model, with_buffers))]
        function = self.multi_avg_fn if self.avg_fn is not None or self.multi_avg_fn is not None else get_swa_multi_avg_fn()
        with no_grad():
            if isinstance(function, _Fused):
                function.begin_or_update(averages, weights, self.n_averaged)
            elif self.n_averaged.item() == 0:
                for mean, current in zip(averages, weights):
                    mean.copy_(current)
            elif self.avg_fn is not None:
                for mean, current in zip(averages, weights):
                    mean.copy_(self.avg_fn(mean, current, self.n_averaged.to(mean.device)))
            else:
                function(averages, weights, self.n_averaged)  # type: ignore[misc]
            if not with_buffers:
                for mine, theirs in zip(self.module.buffers(), model.buffers()):
                    mine.detach().copy_(theirs.detach().to(mine.device))
            self.n_averaged += 1


def _weights(model: Module, with_buffers: bool) -> Iterable[Tensor]:
    return chain(model.parameters(), model.buffers()) if with_buffers else model.parameters()


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of a model's batch normalizations anew, from all batches of a loader.

    Parameters
    ----------
    loader : iterable
        Of batches; of a tuple or list the first is taken.
    model : Module
    device : device, optional
        Where batches are moved to.
    """
    norms = [m for m in model.modules() if "running_mean" in getattr(m, "_buffers", {}) and hasattr(m, "momentum")]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    was_training = model.training
    model.train()
    with no_grad():
        for batch in loader:
            if isinstance(batch, (list, tuple)):
                batch = batch[0]
            model(batch if device is None else batch.to(device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """To a fixed rate in some steps, and on with it; as ``torch.optim.swa_utils.SWALR``.

    Parameters
    ----------
    optimizer : Optimizer
    swa_lr : float or list of float
        The rate, of all groups or of each.
    anneal_epochs : int
        How many steps it takes to come there.
    anneal_strategy : {"cos", "linear"}
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        rates = swa_lr if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise ValueError(
                "swa_lr must have the same length as optimizer.param_groups: "
                f"swa_lr has {len(rates)}, optimizer.param_groups has {len(optimizer.param_groups)}"
            )
        for group, lr in zip(optimizer.param_groups, rates):
            group["swa_lr"] = lr
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must by one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _done(self, step: int) -> float:
        """The share of the way that lies behind after a step."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - cos(pi * t)) / 2

    def get_lr(self) -> list[Any]:
        # what a step began with is found back from the last rate, so that other schedules may have their say before
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._done(step - 1), self._done(step)
        rates = []
        for group in self.optimizer.param_groups:
            start = group["swa_lr"] if before == 1 else (group["lr"] - before * group["swa_lr"]) / (1 - before)
            rates.append(group["swa_lr"] * now + start * (1 - now))
        return rates
