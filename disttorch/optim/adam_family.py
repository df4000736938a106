"""Relatives of Adam: Adamax (Kingma & Ba, arXiv:1412.6980), NAdam (Dozat 2016), RAdam (Liu et al., arXiv:1908.03265) and
SparseAdam. The formulas are those of their pages at https://docs.pytorch.org/docs/stable/optim.html.
"""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.kernels.optimization import either
from .optimizer import Optimizer
from .options import Params, betas_in_range, computed, non_negative, number, zeros_like

__all__ = ["Adamax", "NAdam", "RAdam", "SparseAdam"]


class Adamax(Optimizer):
    """Adam with the largest gradient so far for the second moment; as ``torch.optim.Adamax``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the running average of the gradient and of the infinity norm is kept.
    eps : float
        Added to the gradient's magnitude.
    weight_decay : float
        How much of the parameter is added to its gradient.
    foreach, maximize, differentiable, capturable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Adamax([w], lr=0.25).step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    moments = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("epsilon value", eps)
        betas_in_range(betas)
        non_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": number(0.0, param, group), "exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = options["betas"]
        clr = options["lr"] / (1 - beta1 ** counters["step"])
        return {"clr": clr, "beta1": beta1, "beta2": beta2, "eps": options["eps"]}

    @staticmethod
    def formula(
        xp: Any, p: Any, g: Any, mean: Any, largest: Any, *, clr: Any, beta1: float, beta2: float, eps: float
    ) -> tuple:
        mean = mean + (g - mean) * (1 - beta1)
        largest = xp.maximum(largest * beta2, xp.abs(g) + eps)
        return p - mean / largest * clr, mean, largest


class NAdam(Optimizer):
    """Adam with Nesterov's momentum; as ``torch.optim.NAdam``.

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
        How much of the parameter is added to its gradient, or taken off it.
    momentum_decay : float
        How fast the momentum comes to its full value.
    decoupled_weight_decay : bool
        Decay the parameter itself.
    foreach, maximize, capturable, differentiable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.NAdam([w], lr=0.25).step()
    >>> w.item() < 0.85
    True
    """

    moments = ("exp_avg", "exp_avg_sq")
    counters = ("step", "mu_product")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("epsilon value", eps)
        betas_in_range(betas)
        non_negative("weight_decay value", weight_decay)
        non_negative("momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": number(0.0, param, group),
            "mu_product": number(1.0, param, group),
            "exp_avg": zeros_like(param),
            "exp_avg_sq": zeros_like(param),
        }

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        step, lr, (beta1, beta2) = counters["step"], options["lr"], options["betas"]
        mu, next_mu = (beta1 * (1 - 0.5 * 0.96 ** (t * options["momentum_decay"])) for t in (step, step + 1))
        product = counters["mu_product"] = xp.single(counters["mu_product"] * xp.single(mu))  # as float32 multiplies
        return {
            "of_gradient": lr * (1 - mu) / (1 - product),
            "of_mean": lr * next_mu / (1 - product * next_mu),
            "correction": 1 - beta2**step,
            "beta1": beta1,
            "beta2": beta2,
            "eps": options["eps"],
        }

    @staticmethod
    def formula(
        xp: Any,
        p: Any,
        g: Any,
        mean: Any,
        square: Any,
        *,
        of_gradient: Any,
        of_mean: Any,
        correction: Any,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> tuple:
        mean = mean + (g - mean) * (1 - beta1)
        square = square * beta2 + g * g * (1 - beta2)
        root = xp.sqrt(square / correction) + eps
        return p - g / root * of_gradient - mean / root * of_mean, mean, square


class RAdam(Optimizer):
    """Adam whose adaptive step waits until its variance is known well enough; as ``torch.optim.RAdam``.

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
        How much of the parameter is added to its gradient, or taken off it.
    decoupled_weight_decay : bool
        Decay the parameter itself.
    foreach, maximize, capturable, differentiable
        As in `Adam`.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.RAdam([w], lr=0.25).step()
    >>> w
    tensor([0.5000], requires_grad=True)
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        non_negative("learning rate", lr)
        non_negative("epsilon value", eps)
        betas_in_range(betas)
        non_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, computed(defaults, foreach, differentiable, None, capturable))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": number(0.0, param, group), "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    @staticmethod
    def numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        step, (beta1, beta2) = counters["step"], options["betas"]
        correction = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction  # of the simple moving average, equation (5)
        is_rectified = length > 5
        # where it is not, numbers that no root or division fails at
        longest, length = xp.where(is_rectified, longest, 6.0), xp.where(is_rectified, length, 6.0)
        ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        return {
            "lr": options["lr"] / (1 - beta1**step),
            "rectification": xp.where(is_rectified, (ratio * correction) ** 0.5, 0.0),
            "beta1": beta1,
            "beta2": beta2,
            "eps": options["eps"],
        }

    @staticmethod
    def formula(
        xp: Any, p: Any, g: Any, mean: Any, square: Any, *, lr: Any, rectification: Any, beta1: float, beta2: float, eps: float
    ) -> tuple:
        mean = mean + (g - mean) * (1 - beta1)
        square = square * beta2 + g * g * (1 - beta2)
        step = either(xp, rectification > 0, lambda: mean / (xp.sqrt(square) + eps) * rectification, lambda: mean)
        return p - step * lr, mean, square


class SparseAdam(Optimizer):
    """Adam that steps only rows with a gradient, for embeddings; as ``torch.optim.SparseAdam``.

    Gradients are dense arrays here, also those of ``Embedding(sparse=True)``: a row (an index of the first dimension) whose
    gradient is all zeros is one that no sample looked up, so the row and its averages are left alone.

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
    maximize : bool
        Ascend instead.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(2, 1, requires_grad=True)
    >>> w[0].sum().backward()
    >>> disttorch.optim.SparseAdam([w], lr=0.25).step()
    >>> w
    tensor([[0.7500],
            [1.0000]], requires_grad=True)
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ):
        non_negative("learning rate", lr)
        if not float(lr) > 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps > 0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        betas_in_range(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        found = [(i, j) for i, g in enumerate(self.param_groups) for j, p in enumerate(g["params"]) if p.is_complex()]
        if found:
            raise ValueError(f"Complex params at indices {found}: SparseAdam does not support complex parameters")

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def update(self, xp: Any, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] += 1
        step, (beta1, beta2) = state["step"], group["betas"]
        p, g = param._array, grad._array
        mean, square = state["exp_avg"]._array, state["exp_avg_sq"]._array
        rows = xp.nonzero(xp.any(xp.reshape(g != 0, (g.shape[0], -1)), axis=1))[0] if g.ndim else ...
        g, old_mean, old_square = g[rows], mean[rows], square[rows]
        if group["maximize"]:
            g = -g
        new_mean = old_mean + (g - old_mean) * (1 - beta1)
        new_square = old_square + (g * g - old_square) * (1 - beta2)
        mean[rows], square[rows] = new_mean, new_square
        size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        p[rows] = p[rows] - new_mean / (xp.sqrt(new_square) + group["eps"]) * size
