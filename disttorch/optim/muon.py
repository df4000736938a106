"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/), whose step is made orthogonal."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.dtypes import bfloat16, float32
from .optimizer import Optimizer
from .options import Params, zeros_like

__all__ = ["Muon"]


class Muon(Optimizer):
    """Momentum made orthogonal by Newton and Schulz's iteration, for matrices; as ``torch.optim.Muon``.

    Parameters
    ----------
    params : iterable
        Of matrices; see `Optimizer`. Other parameters belong to an optimizer such as `AdamW`.
    lr : float
        Learning rate.
    weight_decay : float
        How much of a parameter, times the learning rate, is taken off in a step.
    momentum : float
        How much of the running average of the gradient is kept.
    nesterov : bool
        Nesterov's momentum.
    ns_coefficients : (float, float, float)
        Of the iteration x <- a x + b (x x') x + c (x x')^2 x.
    eps : float
        The least norm that a step is divided by.
    ns_steps : int
        How many iterations, fewer than 100. They run in bfloat16.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        How the learning rate depends on the matrix's sides: ``sqrt(max(1, rows / columns))``, or
        ``0.2 * sqrt(max(rows, columns))``, with which AdamW's learning rate and weight decay can be used.

    Raises
    ------
    ValueError
        If a parameter is no matrix.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(2, 2, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Muon([w], lr=0.1).step()
    >>> bool((w < 1).all())
    True
    """

    moments = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        if isinstance(lr, Tensor) and lr._array.size != 1:
            raise ValueError(f"Tensor lr must be 1-element, but its shape is {list(lr.shape)}")
        if not float(lr) >= 0.0:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not momentum >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if ns_steps >= 100:
            raise ValueError(f"Number of steps must be less than 100 for computational efficiency, not {ns_steps}")
        if len(ns_coefficients) != 3:
            raise ValueError(f"Coefficients must be a tuple of exactly 3 values, not {ns_coefficients}")
        super().__init__(
            params,
            {
                "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            },
        )  # fmt: skip
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim != 2:
                    raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {param.size()}")

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if param.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        return {"momentum_buffer": zeros_like(param)}

    def update(self, xp: Any, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        p, g, momentum = param._array, grad._array, group["momentum"]
        average = state["momentum_buffer"]._array
        average += (g - average) * (1 - momentum)
        step = g + (average - g) * momentum if group["nesterov"] else average
        step = _orthogonal(xp, step, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = p.shape
        lr = group["lr"]
        p *= 1 - lr * group["weight_decay"]
        if group["adjust_lr_fn"] == "match_rms_adamw":
            lr = lr * 0.2 * max(rows, columns) ** 0.5
        else:
            lr = lr * max(1, rows / columns) ** 0.5
        p -= xp.astype(step, p.dtype) * lr


def _orthogonal(xp: Any, step: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """The orthogonal matrix nearest to a step, as Newton and Schulz's iteration finds it in bfloat16.

    Products are added up in float32 and rounded once, as matrix units do it.
    """
    a, b, c = coefficients
    wide = step.shape[0] <= step.shape[1]
    half, single = bfloat16.numpy, float32.numpy

    def rounded(x: Any) -> Any:
        return xp.astype(xp.astype(x, half), single)

    x = rounded(xp.astype(step, single))
    x = x if wide else xp.swapaxes(x, 0, 1)
    norm = rounded(xp.sqrt(xp.sum(x * x)))
    x = rounded(x / xp.maximum(norm, eps))
    for _ in range(steps):
        gram = rounded(x @ xp.swapaxes(x, 0, 1))
        x = rounded(x * a + rounded(gram * b + gram @ gram * c) @ x)
    return x if wide else xp.swapaxes(x, 0, 1)
