"""Stochastic gradient descent, with momentum (Sutskever et al., ICML 2013)."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, wrap
from .optimizer import Optimizer, Params, non_negative, zeros_like

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
    foreach, differentiable, fused
        Accepted as in PyTorch: how PyTorch computes the step, which is always fused here. `differentiable` must be false.

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
        lr: float = 1e-3,
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
        if differentiable:
            raise ValueError("SGD: differentiable=True is not built; write the step with operations on tensors instead")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": None} if group["momentum"] else {}

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        buffer = state.get("momentum_buffer")
        is_first = buffer is None
        if momentum and is_first:
            buffer = state["momentum_buffer"] = zeros_like(wrap(p))
        xp.sgd_(
            p, g, buffer._array if momentum and buffer is not None else None, is_first, float(group["lr"]), momentum, group["dampening"],
            group["weight_decay"], group["nesterov"], group["maximize"],
        )  # fmt: skip
