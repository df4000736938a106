"""Steps that do not follow the gradient's size: Rprop (Riedmiller & Braun, ICNN 1993), and averaged SGD (Polyak & Juditsky,
SIAM J. Control Optim. 1992). The formulas are those of their pages at https://docs.pytorch.org/docs/stable/optim.html.
"""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.kernels.optimization import either
from .optimizer import Optimizer
from .options import Params, computed, non_negative, number, zeros_like

__all__ = ["ASGD", "Rprop"]


class Rprop(Optimizer):
    """Resilient backpropagation; as ``torch.optim.Rprop``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        The first step's size.
    etas : (float, float)
        What an element's step is multiplied by where its gradient changed its sign, and where it kept it.
    step_sizes : (float, float)
        The smallest and the largest step.
    capturable, foreach, maximize, differentiable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Rprop([w], lr=0.25).step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    moments = ("prev", "step_size")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        non_negative("learning rate", lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        size, lr = zeros_like(param), float(group["lr"])
        size._array += complex(lr, lr) if size._array.dtype.kind == "c" else lr
        return {"step": number(0.0, param, group), "prev": zeros_like(param), "step_size": size}

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        (turned, kept), (smallest, largest) = options["etas"], options["step_sizes"]
        return {"of_turned": turned, "of_kept": kept, "smallest": smallest, "largest": largest}

    @staticmethod
    def formula(
        xp: Any, p: Any, g: Any, before: Any, size: Any, *, of_turned: Any, of_kept: Any, smallest: Any, largest: Any
    ) -> tuple:
        agreement = g * before
        turned = agreement < 0
        factor = xp.where(turned, of_turned, xp.where(agreement > 0, of_kept, 1.0))
        size = xp.clip(size * xp.astype(factor, p.dtype), smallest, largest)
        g = xp.where(turned, xp.zeros_like(g), g)
        return p - xp.sign(g) * size, g, size


class ASGD(Optimizer):
    """Averaged stochastic gradient descent; as ``torch.optim.ASGD``. The average is in the state, under "ax".

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    lambd : float
        Decay of the parameter, and of the learning rate.
    alpha : float
        Power by which the learning rate falls.
    t0 : float
        The step from which parameters are averaged.
    weight_decay : float
        How much of the parameter is added to its gradient.
    foreach, maximize, differentiable, capturable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.ASGD([w], lr=0.25).step()
    >>> w
    tensor([0.5000], requires_grad=True)
    """

    moments = ("ax",)
    counters = ("step", "eta", "mu")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": number(0.0, param, group),
            "eta": number(float(group["lr"]), param, group),
            "mu": number(1.0, param, group),
            "ax": zeros_like(param),
        }

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        step, lr, lambd = counters["step"], options["lr"], options["lambd"]
        found = {"eta": counters["eta"], "mu": counters["mu"], "lambd": lambd}
        counters["eta"] = lr / (1 + lambd * lr * step) ** options["alpha"]
        counters["mu"] = 1 / xp.maximum(1.0, step - options["t0"])
        return found

    @staticmethod
    def formula(xp: Any, p: Any, g: Any, average: Any, *, eta: Any, mu: Any, lambd: Any) -> tuple:
        p = p * (1 - lambd * eta) - g * eta
        return p, either(xp, mu == 1, lambda: p, lambda: average + (p - average) * mu)
