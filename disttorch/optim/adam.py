"""Adam (Kingma & Ba, arXiv:1412.6980), AMSGrad (Reddi et al., ICLR 2018) and AdamW (Loshchilov & Hutter, arXiv:1711.05101)."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.kernels.optimization import adam
from .optimizer import Optimizer
from .options import Params, betas_in_range, computed, non_negative, number, zeros_like

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam; as ``torch.optim.Adam``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the running averages of the gradient and of its square is kept.
    eps : float
        Added to the root of the second average.
    weight_decay : float
        How much of the parameter is added to its gradient.
    amsgrad : bool
        Divide by the greatest second average so far.
    maximize : bool
        Ascend instead.
    decoupled_weight_decay : bool
        Decay the parameter itself, as `AdamW` does.
    foreach
        Accepted as in PyTorch. Parameters are always stepped together here, on a GPU by one kernel.
    capturable, fused
        Count steps where the parameters are, so that a CUDA graph counts whenever it is replayed, and the host need not know how
        many steps a `GradScaler` has skipped. A learning rate that shall change between replays is a tensor there, too.
    differentiable
        Let the graph record the step.

    Raises
    ------
    ValueError
        If an option is negative, or a beta is not in [0, 1).

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> optimizer = disttorch.optim.Adam([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("epsilon value", eps)
        non_negative("weight_decay value", weight_decay)
        betas_in_range(betas)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, fused, capturable))

    moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    formula = staticmethod(adam)

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": number(0.0, param, group), "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state

    def moments_of(self, group: dict[str, Any]) -> tuple[str | None, ...]:
        return self.moments if group["amsgrad"] else (*self.moments[:2], None)

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        step, (beta1, beta2) = counters["step"], options["betas"]
        return {
            "step_size": options["lr"] / (1 - beta1**step),
            "root": (1 - beta2**step) ** 0.5,
            "beta1": beta1,
            "beta2": beta2,
            "eps": options["eps"],
        }


class AdamW(Adam):
    """Adam with decoupled weight decay; as ``torch.optim.AdamW``.

    Parameters are those of `Adam`; ``weight_decay`` is how much of a parameter, times the learning rate, is taken off in a step.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> optimizer = disttorch.optim.AdamW([w], lr=0.25, weight_decay=0.0)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip
