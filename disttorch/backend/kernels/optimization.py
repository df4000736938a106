"""Optimizer steps, in place by nature: the parameter and its state change, the gradient does not.

Half types are widened, stepped in float32 and rounded once. Formulas and order of operations are those on PyTorch's
pages, https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html, .Adam.html and .AdamW.html.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from . import kernel
from .precision import wide

__all__ = ["adam_", "sgd_"]


@kernel
def sgd_(
    xp: Any,
    p: Any,
    g: Any,
    momentum_buffer: Any,
    first_step: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """One step of stochastic gradient descent, with momentum where there is a buffer.

    Parameters
    ----------
    p : array
        Changed in place.
    g : array
        The gradient, of p's shape.
    momentum_buffer : array or None
        Changed in place; on the first step it becomes the gradient, without dampening.
    first_step : bool
    lr, momentum, dampening, weight_decay : float
    nesterov, maximize : bool
    """
    wide_p, g = wide(xp, p), wide(xp, g)
    if maximize:
        g = -g
    if weight_decay:
        g = g + wide_p * weight_decay
    if momentum_buffer is not None:
        velocity = g if first_step else wide(xp, momentum_buffer) * momentum + g * (1 - dampening)
        momentum_buffer[...] = velocity
        g = g + velocity * momentum if nesterov else velocity
    p[...] = wide_p - g * lr


@kernel
def adam_(
    xp: Any,
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    max_exp_avg_sq: Any,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool,
) -> None:
    """One step of Adam, or of AdamW where the weight decay is decoupled from the gradient.

    Parameters
    ----------
    p : array
        Changed in place.
    g : array
        The gradient, of p's shape.
    exp_avg, exp_avg_sq : array
        The moments' running averages, changed in place.
    max_exp_avg_sq : array or None
        The largest second moment so far, changed in place: AMSGrad where it is given.
    step : int
        Counts from 1.
    lr, beta1, beta2, eps, weight_decay : float
    decoupled, maximize : bool

    Raises
    ------
    ValueError
        If `step` is less than 1.
    """
    step_size, root, decay, add = adam_factors(step, lr, beta1, beta2, weight_decay, decoupled)
    wide_p, g = wide(xp, p) * decay, wide(xp, g)
    if maximize:
        g = -g
    if add:
        g = g + wide_p * add
    mean, square = wide(xp, exp_avg), wide(xp, exp_avg_sq)
    mean = mean + (g - mean) * (1 - beta1)
    square = square * beta2 + g * g * (1 - beta2)
    exp_avg[...] = mean
    exp_avg_sq[...] = square
    if max_exp_avg_sq is not None:
        square = xp.maximum(wide(xp, max_exp_avg_sq), square)
        max_exp_avg_sq[...] = square
    p[...] = wide_p - mean / (xp.sqrt(square) / root + eps) * step_size


def adam_factors(
    step: int, lr: float, beta1: float, beta2: float, weight_decay: float, decoupled: bool
) -> tuple[float, float, float, float]:
    """Adam's numbers for one step: the step size lr / (1 - beta1 ** step), the root sqrt(1 - beta2 ** step), the
    factor of the parameter (decoupled decay) and how much of the parameter is added to the gradient (the other decay).
    """
    if step < 1:
        raise ValueError(f"Adam's steps count from 1, got step={step}")
    step_size, root = lr / (1 - beta1**step), sqrt(1 - beta2**step)
    return step_size, root, 1 - lr * weight_decay if decoupled else 1.0, 0.0 if decoupled else weight_decay
