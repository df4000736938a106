"""Optimizer steps, in place by nature: the parameter and its state change, the gradient does not.

An optimizer's formula is a pure function of the namespace, the parameter, its gradient and its state, elementwise; it
returns the new parameter and the new state. `step_` applies one and writes what it returned; on tensors the same formula
makes a step that can be differentiated. Half types are widened, stepped in float32 and rounded once. Formulas and order
of operations are those on PyTorch's pages, https://docs.pytorch.org/docs/stable/optim.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import kernel
from .precision import wide

__all__ = ["adam", "adam_", "prepared", "sgd", "sgd_", "step_"]


@kernel
def step_(
    xp: Any,
    formula: Callable[..., tuple],
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: float = 0.0,
    shrink: float = 1.0,
) -> None:
    """One step of a formula.

    Parameters
    ----------
    formula : callable
        ``formula(xp, p, g, *moments, **numbers)`` returns ``(p, *moments)``.
    p : array
        Changed in place.
    g : array
        The gradient, of p's shape.
    moments : sequence of array or None
        The state of p's shape, changed in place.
    numbers : dict
        The formula's other arguments.
    maximize : bool
        Whether to go up the gradient.
    add : float
        How much of the parameter is added to its gradient.
    shrink : float
        What the parameter is multiplied by before the step.
    """
    widened = [None if m is None else wide(xp, m) for m in moments]
    new_p, *new_moments = prepared(xp, formula, wide(xp, p), wide(xp, g), widened, numbers, maximize, add, shrink)
    p[...] = new_p
    for old, new in zip(moments, new_moments):
        if old is not None:
            old[...] = new


def prepared(
    xp: Any,
    formula: Callable[..., tuple],
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool,
    add: Any,
    shrink: Any,
) -> tuple:
    """What a formula returns for a gradient whose sign and decay are settled first, as all optimizers do it."""
    if maximize:
        g = -g
    if add is not None and not (add.__class__ in (int, float) and add == 0):
        g = g + p * add
    if not (shrink.__class__ in (int, float) and shrink == 1):
        p = p * shrink
    return formula(xp, p, g, *moments, **numbers)


def sgd(
    xp: Any, p: Any, g: Any, velocity: Any, *, lr: Any, momentum: float, dampening: float, nesterov: bool, first_step: bool
) -> tuple:
    """Gradient descent, with momentum where there is a velocity, which begins as the first gradient."""
    if velocity is not None:
        velocity = g if first_step else velocity * momentum + g * (1 - dampening)
        g = g + velocity * momentum if nesterov else velocity
    return p - g * lr, velocity


def adam(
    xp: Any, p: Any, g: Any, mean: Any, square: Any, greatest: Any, *, step: int, lr: Any, beta1: Any, beta2: Any, eps: float
) -> tuple:
    """Adam, AMSGrad where the greatest second moment is kept."""
    step_size, root, _, _ = adam_factors(step, lr, beta1, beta2, 0.0, False)
    mean = mean + (g - mean) * (1 - beta1)
    square = square * beta2 + g * g * (1 - beta2)
    second = square
    if greatest is not None:
        greatest = second = xp.maximum(greatest, square)
    return p - mean / (xp.sqrt(second) / root + eps) * step_size, mean, square, greatest


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
    numbers = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "first_step": first_step}
    step_(xp, sgd, p, g, (momentum_buffer,), numbers, maximize, weight_decay)


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
    _, _, shrink, add = adam_factors(step, lr, beta1, beta2, weight_decay, decoupled)
    numbers = {"step": step, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
    step_(xp, adam, p, g, (exp_avg, exp_avg_sq, max_exp_avg_sq), numbers, maximize, add, shrink)


def adam_factors(
    step: int, lr: Any, beta1: Any, beta2: Any, weight_decay: float, decoupled: bool
) -> tuple[Any, Any, Any, float]:
    """Adam's numbers for one step: the step size lr / (1 - beta1 ** step), the root sqrt(1 - beta2 ** step), the
    factor of the parameter (decoupled decay) and how much of the parameter is added to the gradient (the other decay).
    """
    if step < 1:
        raise ValueError(f"Adam's steps count from 1, got step={step}")
    step_size, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
    return step_size, root, 1 - lr * weight_decay if decoupled else 1.0, 0.0 if decoupled else weight_decay
