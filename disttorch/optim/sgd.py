"""Stochastic gradient descent, with momentum (Sutskever et al., ICML 2013)."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.kernels.optimization import sgd
from .optimizer import Optimizer
from .options import Params, computed, non_negative, zeros_like

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent; as ``torch.optim.SGD``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    momentum : float
        How much of the last step's velocity is kept.
    dampening : float
        How much of the gradient is left out of the velocity.
    weight_decay : float
        How much of the parameter is added to its gradient.
    nesterov : bool
        Nesterov's momentum.
    maximize : bool
        Ascend instead.
    foreach, fused
        Accepted as in PyTorch. Parameters are always stepped together here, on a GPU by one kernel.
    differentiable
        Let the graph record the step.

    Raises
    ------
    ValueError
        If an option is negative, or Nesterov's momentum is asked for without momentum or with dampening.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> optimizer = disttorch.optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        non_negative("learning rate", lr)
        non_negative("momentum value", momentum)
        non_negative("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, fused, capturable=True))

    moments = ("momentum_buffer",)
    counters = ()
    formula = staticmethod(sgd)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": None} if group["momentum"] else {}

    def moments_of(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return self.moments if group["momentum"] else (None,)

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        return {k: options[k] for k in ("lr", "momentum", "dampening")}

    def choices(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
        # the velocity begins with the first gradient, also where momentum was switched on later
        is_first = bool(group["momentum"]) and state.get("momentum_buffer") is None
        if is_first:
            state["momentum_buffer"] = zeros_like(param)
        return ("nesterov", group["nesterov"]), ("first_step", is_first)
