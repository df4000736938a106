"""Schedules that go up and down, the momentum the other way: cyclical rates (Smith, arXiv:1506.01186), the one-cycle policy
(Smith & Topin, arXiv:1708.07120), and cosines with warm restarts (Loshchilov & Hutter, arXiv:1608.03983).
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, floor, log, pi
from typing import Any

from ...autograd.variable import Tensor
from ..optimizer import Optimizer
from .scheduler import LRScheduler
from .schedules import _is_function

__all__ = ["CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"]


def _for_each_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        if len(value) != len(optimizer.param_groups):
            raise ValueError(
                f"{name} must have the same length as optimizer.param_groups: {len(value)} for {len(optimizer.param_groups)}"
            )
        return list(value)
    return [value] * len(optimizer.param_groups)


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _need_momentum(optimizer: Optimizer) -> None:
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")


def _assign(group: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(group.get(key), Tensor):
        group[key].fill_(float(value))
    else:
        group[key] = value


class CyclicLR(LRScheduler):
    """Between two rates, up and down; as ``torch.optim.lr_scheduler.CyclicLR``.

    Parameters
    ----------
    optimizer : Optimizer
    base_lr, max_lr : float or list of float
        The least and the greatest rate, for all groups or for each.
    step_size_up, step_size_down : int
        How many steps up, and down (as many if absent).
    mode : {"triangular", "triangular2", "exp_range"}
        Whether the height stays, halves each cycle, or falls by `gamma` each step.
    gamma : float
    scale_fn : callable, optional
        A factor of the height instead of `mode`, of the cycle's number or of the step's.
    scale_mode : {"cycle", "iterations"}
    cycle_momentum : bool
        Whether the momentum goes the other way, between `base_momentum` and `max_momentum`.
    base_momentum, max_momentum : float or list of float
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(f"mode is invalid and scale_fn is None: {mode!r}")
        for group, lr in zip(optimizer.param_groups, _for_each_group("base_lr", optimizer, base_lr)):
            if last_epoch == -1:
                _assign(group, "lr", lr)
        self.max_lrs = _for_each_group("max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up) + float(down)
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode, self.gamma, self._scale, self.scale_mode = mode, gamma, scale_fn, scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            _need_momentum(optimizer)
            self.base_momentums = _for_each_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = _for_each_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                for lowest, highest, group in zip(self.base_momentums, self.max_momentums, optimizer.param_groups):
                    _set_momentum(group, highest)
                    group["max_momentum"], group["base_momentum"] = highest, lowest
        super().__init__(optimizer, last_epoch)
        self.base_lrs = _for_each_group("base_lr", optimizer, base_lr)

    def scale_fn(self, x: float) -> float:
        """The factor of a cycle's height."""
        if self._scale is not None:
            return self._scale(x)
        return {"triangular": 1.0, "triangular2": 1 / 2.0 ** (x - 1), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> list[Any]:
        cycle = floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, lowest, highest in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums):
                _set_momentum(group, highest - (highest - lowest) * height * scale)
        return [base + (most - base) * height * scale for base, most in zip(self.base_lrs, self.max_lrs)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and a function."""
        state = super().state_dict()
        function = state.pop("_scale")
        state["_scale_fn_custom"] = None if function is None or _is_function(function) else dict(function.__dict__)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`; a function stays."""
        state = dict(state_dict)
        attributes = state.pop("_scale_fn_custom", None)
        if attributes is not None and self._scale is not None:
            self._scale.__dict__.update(attributes)
        super().load_state_dict(state)


class OneCycleLR(LRScheduler):
    """Once up and once down, to far below the beginning; as ``torch.optim.lr_scheduler.OneCycleLR``. A step is a batch.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or list of float
        The greatest rate.
    total_steps : int, optional
        How many steps it takes; or ``epochs * steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
    pct_start : float
        The share of steps on the way up.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether the momentum goes the other way.
    base_momentum, max_momentum : float or list of float
    div_factor : float
        The rate begins at ``max_lr / div_factor``,
    final_div_factor : float
        and ends at the first rate divided by this.
    three_phase : bool
        Down to the first rate as fast as up, then to the end.
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If the number of steps is not given, an option is out of range, or `step` is called too often.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if total_steps is not None:
            if total_steps <= 0 or not isinstance(total_steps, int):
                raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
            self.total_steps = total_steps
        elif epochs is not None and steps_per_epoch is not None:
            for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
                if not isinstance(value, int) or value <= 0:
                    raise ValueError(f"Expected positive integer {name}, but got {value}")
            self.total_steps = epochs * steps_per_epoch
        else:
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        if pct_start < 0 or pct_start > 1 or not isinstance(pct_start, float):
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._anneal_func_type = anneal_strategy
        # where each phase ends, and the names of the values that it goes between
        up = float(pct_start * self.total_steps) - 1
        end = self.total_steps - 1
        self._phases = [(up, ("initial_lr", "max_lr"), ("max_momentum", "base_momentum"))]
        if three_phase:
            self._phases.append((2 * up + 1 - 1, ("max_lr", "initial_lr"), ("base_momentum", "max_momentum")))
            self._phases.append((end, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum")))
        else:
            self._phases.append((end, ("max_lr", "min_lr"), ("base_momentum", "max_momentum")))
        if last_epoch == -1:
            for group, most in zip(optimizer.param_groups, _for_each_group("max_lr", optimizer, max_lr)):
                group["initial_lr"] = most / div_factor
                group["max_lr"] = most
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            _need_momentum(optimizer)
            if last_epoch == -1:
                lowest = _for_each_group("base_momentum", optimizer, base_momentum)
                highest = _for_each_group("max_momentum", optimizer, max_momentum)
                for group, low, high in zip(optimizer.param_groups, lowest, highest):
                    _set_momentum(group, high)
                    group["max_momentum"], group["base_momentum"] = high, low
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (cos(pi * share) + 1)

    def get_lr(self) -> list[Any]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"Tried to step {step} times. The specified number of total steps is {self.total_steps}")
        start = 0.0
        for i, (end, _, _) in enumerate(self._phases):
            if step <= end or i == len(self._phases) - 1:
                break
            start = end
        _, (from_lr, to_lr), (from_momentum, to_momentum) = self._phases[i]
        share = (step - start) / (end - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[from_lr], group[to_lr], share))
            if self.cycle_momentum:
                _set_momentum(group, self._between(group[from_momentum], group[to_momentum], share))
        return rates


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine down, again and again; as ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``.

    Parameters
    ----------
    optimizer : Optimizer
    T_0 : int
        How many steps the first takes.
    T_mult : int
        How much longer each is than the one before.
    eta_min : float
        The least rate.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, (float, int)):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
        self.T_0 = self.T_i = T_0
        self.T_mult, self.eta_min = T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        share = (1 + cos(pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on by one step, or to a fraction of an epoch, such as ``epoch + i / len(loader)``."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        else:
            if epoch < 0:
                raise ValueError(f"Expected non-negative epoch, but got {epoch}")
            if epoch < self.T_0:
                self.T_i, self.T_cur = self.T_0, epoch
            elif self.T_mult == 1:
                self.T_i, self.T_cur = self.T_0, epoch % self.T_0
            else:
                n = int(log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
                self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
                self.T_i = self.T_0 * self.T_mult**n
        self.last_epoch = floor(epoch)
        self._set(self.get_lr())
