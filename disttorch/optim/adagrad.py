"""Steps scaled by the squares of past gradients: Adagrad (Duchi et al., JMLR 2011), Adadelta (Zeiler, arXiv:1212.5701) and
RMSprop (Hinton 2012; centered: Graves, arXiv:1308.0850). The formulas are those of their pages at
https://docs.pytorch.org/docs/stable/optim.html.
"""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from .optimizer import Optimizer
from .options import Params, computed, non_negative, number, zeros_like

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


class Adagrad(Optimizer):
    """Adagrad; as ``torch.optim.Adagrad``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    lr_decay : float
        The learning rate of step t is ``lr / (1 + (t - 1) * lr_decay)``.
    weight_decay : float
        How much of the parameter is added to its gradient.
    initial_accumulator_value : float
        What the sum of squares begins with.
    eps : float
        Added to the root of the sum.
    foreach, maximize, differentiable, fused
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Adagrad([w], lr=0.25).step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    moments = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        non_negative("learning rate", lr)
        non_negative("lr_decay value", lr_decay)
        non_negative("weight_decay value", weight_decay)
        non_negative("initial_accumulator_value value", initial_accumulator_value)
        non_negative("epsilon value", eps)
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, fused))
        # the sums are there before the first step, as in PyTorch: programs share them between processes
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param] = self.init_state(param, group)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        start = group["initial_accumulator_value"]
        total = zeros_like(param)
        total._array += complex(start, start) if total._array.dtype.kind == "c" else start
        return {"step": number(0.0, param, group), "sum": total}

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        return {"clr": options["lr"] / (1 + (counters["step"] - 1) * options["lr_decay"]), "eps": options["eps"]}

    @staticmethod
    def formula(xp: Any, p: Any, g: Any, total: Any, *, clr: Any, eps: float) -> tuple:
        total = total + g * g
        return p - g / (xp.sqrt(total) + eps) * clr, total

    def share_memory(self) -> None:
        """Accepted as in PyTorch: arrays are shared with other processes when they are sent to them."""


class Adadelta(Optimizer):
    """Adadelta; as ``torch.optim.Adadelta``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        What a step is multiplied by.
    rho : float
        How much of the running averages is kept.
    eps : float
        Added under both roots.
    weight_decay : float
        How much of the parameter is added to its gradient.
    foreach, capturable, maximize, differentiable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Adadelta([w]).step()
    >>> w
    tensor([0.9968], requires_grad=True)
    """

    moments = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        non_negative("learning rate", lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        non_negative("epsilon value", eps)
        non_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "capturable": capturable,
            "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": number(0.0, param, group), "square_avg": zeros_like(param), "acc_delta": zeros_like(param)}

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        return {k: options[k] for k in ("lr", "rho", "eps")}

    @staticmethod
    def formula(xp: Any, p: Any, g: Any, square: Any, moved: Any, *, lr: Any, rho: float, eps: float) -> tuple:
        square = square * rho + g * g * (1 - rho)
        delta = xp.sqrt(moved + eps) / xp.sqrt(square + eps) * g
        return p - delta * lr, square, moved * rho + delta * delta * (1 - rho)


class RMSprop(Optimizer):
    """RMSprop; as ``torch.optim.RMSprop``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    alpha : float
        How much of the running average of the squared gradient is kept.
    eps : float
        Added to its root.
    weight_decay : float
        How much of the parameter is added to its gradient.
    momentum : float
        How much of the last step's velocity is kept.
    centered : bool
        Divide by the gradient's estimated standard deviation.
    capturable, foreach, maximize, differentiable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.RMSprop([w], lr=0.025).step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    moments = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("epsilon value", eps)
        non_negative("momentum value", momentum)
        non_negative("weight_decay value", weight_decay)
        non_negative("alpha value", alpha)
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay,
            "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": number(0.0, param, group), "square_avg": zeros_like(param)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(param)
        if group["centered"]:
            state["grad_avg"] = zeros_like(param)
        return state

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        return {k: options[k] for k in ("lr", "alpha", "eps", "momentum")}

    @staticmethod
    def formula(
        xp: Any, p: Any, g: Any, square: Any, velocity: Any, mean: Any, *, lr: Any, alpha: float, eps: float, momentum: float
    ) -> tuple:
        square = square * alpha + g * g * (1 - alpha)
        variance = square
        if mean is not None:
            mean = mean + (g - mean) * (1 - alpha)
            variance = square - mean * mean
        step = g / (xp.sqrt(variance) + eps)
        if velocity is not None:
            velocity = step = velocity * momentum + step
        return p - step * lr, square, velocity, mean
