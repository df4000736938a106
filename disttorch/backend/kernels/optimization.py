"""Optimizer steps and other elementwise changes of many arrays, in place by nature.

An optimizer's formula is a pure function of the namespace, the parameter, its gradient and its state, elementwise; it
returns the new parameter and the new state. `step_` applies one and writes what it returned; on tensors the same formula
makes a step that can be differentiated. `steps_` applies it to many parameters with the same numbers, and `counted_steps_`
computes the numbers on the device, from counters that lie there. Half types are widened, stepped in float32 and rounded once.
Formulas and order of operations are those on PyTorch's pages, https://docs.pytorch.org/docs/stable/optim.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import kernel
from .precision import wide

__all__ = ["adam", "counted_steps_", "decay", "either", "elementwise_", "prepared", "sgd", "step_", "steps_"]

Formula = Callable[..., Sequence[Any]]


@kernel
def step_(
    xp: Any,
    formula: Formula,
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: Any = 0.0,
    shrink: Any = 1.0,
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


@kernel
def steps_(
    xp: Any,
    formula: Formula,
    params: Sequence[Any],
    grads: Sequence[Any],
    moments: Sequence[Sequence[Any]],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: Any = 0.0,
    shrink: Any = 1.0,
) -> None:
    """`step_` of many parameters with the same numbers.

    Parameters
    ----------
    formula, numbers, maximize, add, shrink
        As in `step_`.
    params, grads : sequence of array
    moments : sequence of sequence of array or None
        For each parameter.
    """
    for p, g, state in zip(params, grads, moments):
        xp.step_(formula, p, g, state, numbers, maximize, add, shrink)


@kernel
def counted_steps_(
    xp: Any,
    formula: Formula,
    numbers: Callable[..., dict[str, Any]],
    params: Sequence[Any],
    grads: Sequence[Any],
    moments: Sequence[Sequence[Any]],
    counters: dict[str, Sequence[Any]],
    options: dict[str, Any],
    choices: dict[str, Any],
    grad_scale: Any = None,
    found_inf: Any = None,
) -> None:
    """Steps whose numbers depend on what lies in the device's memory, so that the host need not know them.

    Parameters
    ----------
    formula : callable
        As in `step_`.
    numbers : callable
        ``numbers(xp, counters, options)`` returns the formula's arguments that are numbers, from the counters' values, which it may
        replace in the dict. It is written with operators and xp's `where`, `maximum` and `single`.
    params, grads : sequence of array
    moments : sequence of sequence of array or None
        For each parameter.
    counters : dict of str to sequence of array
        Arrays without dimensions, for each parameter; "step", if there is one, goes up by 1 before `numbers` is asked.
    options : dict
        The optimizer's; each a number, an array of one element, a tuple of such, or a choice. "weight_decay",
        "decoupled_weight_decay" and "maximize" are settled as in `prepared`.
    choices : dict
        The formula's arguments that are no numbers.
    grad_scale : array, optional
        Of one element: gradients are divided by it, and left so.
    found_inf : array, optional
        Of one element: where it is not 0, nothing is changed.
    """
    options = {k: _as_wide(xp, v) for k, v in options.items()}
    goes = None if found_inf is None else xp.reshape(found_inf, ()) == 0
    names = [*counters]
    for i, (p, g, state) in enumerate(zip(params, grads, moments)):
        held = {n: counters[n][i] for n in names}
        values = {n: xp.asarray(c, dtype="float64") for n, c in held.items()}
        if "step" in values:
            values["step"] = values["step"] + 1.0
        found = numbers(OnArrays(xp), values, options)
        gradient = wide(xp, g)
        if grad_scale is not None:
            gradient = gradient / xp.asarray(xp.reshape(grad_scale, ()), dtype=gradient.dtype)
            _write(xp, g, gradient, goes)
        widened = [None if m is None else wide(xp, m) for m in state]
        maximize, settled = options.get("maximize", False), decay(options)
        new = prepared(xp, formula, wide(xp, p), gradient, widened, {**found, **choices}, maximize, *settled)
        for old, value in zip((p, *state), new):
            if old is not None:
                _write(xp, old, value, goes)
        for n, c in held.items():
            _write(xp, c, values[n], goes)


def _as_wide(xp: Any, option: Any) -> Any:
    """An option as it is computed with: an array as one of float64 without dimensions."""
    if isinstance(option, tuple):
        return tuple(_as_wide(xp, o) for o in option)
    return xp.asarray(xp.reshape(option, ()), dtype="float64") if hasattr(option, "dtype") else option


def _write(xp: Any, array: Any, value: Any, goes: Any) -> None:
    array[...] = value if goes is None else xp.where(goes, xp.asarray(value, dtype=array.dtype), array)


class OnArrays:
    """What the numbers of a step are computed with, on arrays without dimensions."""

    def __init__(self, xp: Any):
        self._xp = xp

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """One of two."""
        return self._xp.where(condition, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger."""
        return self._xp.maximum(a, b)

    def single(self, a: Any) -> Any:
        """A number as float32 holds it."""
        return self._xp.asarray(self._xp.asarray(a, dtype="float32"), dtype="float64")


@kernel
def elementwise_(xp: Any, formula: Formula, columns: Sequence[Sequence[Any]], numbers: dict[str, Any]) -> None:
    """Many arrays changed in place by one elementwise formula.

    Parameters
    ----------
    formula : callable
        ``formula(xp, *arrays, **numbers)`` returns what they become, None for those that stay.
    columns : sequence of sequence of array
        The formula's arrays: the n-th of each go together, and have one shape.
    numbers : dict
        Its other arguments: numbers, or arrays of one element on the arrays' device.
    """
    numbers = {k: xp.reshape(v, ()) if hasattr(v, "dtype") else v for k, v in numbers.items()}
    for row in zip(*columns):
        for old, new in zip(row, formula(xp, *[wide(xp, a) for a in row], **numbers)):
            if new is not None:
                old[...] = new


def decay(options: dict[str, Any]) -> tuple[Any, Any]:
    """How much of the parameter is added to its gradient, and what the parameter is multiplied by: weight decay, one way or the other."""
    amount = options.get("weight_decay", 0.0)
    if options.get("decoupled_weight_decay", False):
        return 0.0, 1.0 if _is(amount, 0) else 1 - options["lr"] * amount
    return amount, 1.0


def _is(number: Any, value: int) -> bool:
    """Whether it is a plain number of this value."""
    return number.__class__ in (int, float) and number == value


def either(xp: Any, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """What one of two functions gives: the one that the condition says where it is known, else chosen from both."""
    if condition.__class__ is bool:
        return yes() if condition else no()
    return xp.where(condition, yes(), no())


def prepared(
    xp: Any,
    formula: Formula,
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool,
    add: Any,
    shrink: Any,
) -> Sequence[Any]:
    """What a formula returns for a gradient whose sign and decay are settled first, as all optimizers do it."""
    if maximize:
        g = -g
    if not _is(add, 0):
        g = g + p * add
    if not _is(shrink, 1):
        p = p * shrink
    return formula(xp, p, g, *moments, **numbers)


def sgd(
    xp: Any, p: Any, g: Any, velocity: Any, *, lr: Any, momentum: Any, dampening: Any, nesterov: bool, first_step: bool
) -> tuple:
    """Gradient descent, with momentum where there is a velocity, which begins as the first gradient."""
    if velocity is not None:
        velocity = g if first_step else velocity * momentum + g * (1 - dampening)
        g = g + velocity * momentum if nesterov else velocity
    return p - g * lr, velocity


def adam(
    xp: Any, p: Any, g: Any, mean: Any, square: Any, greatest: Any, *, step_size: Any, root: Any, beta1: Any, beta2: Any, eps: Any
) -> tuple:
    """Adam, AMSGrad where the greatest second moment is kept.

    The t-th step's size is ``lr / (1 - beta1**t)``, its root ``sqrt(1 - beta2**t)``.
    """
    mean = mean + (g - mean) * (1 - beta1)
    square = square * beta2 + g * g * (1 - beta2)
    second = square
    if greatest is not None:
        greatest = second = xp.maximum(greatest, square)
    return p - mean / (xp.sqrt(second) / root + eps) * step_size, mean, square, greatest
