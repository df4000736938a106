"""Optimizer steps and other elementwise changes of many arrays as one kernel each: CUDA's versions of the table's functions.

Arrays that do not lie in memory without gaps, dtypes that the kernels do not know and formulas that cannot be traced take the plain
kernels' way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cupy

from ...kernels import PLAIN
from ...kernels.optimization import decay, prepared
from ...layout import turned
from ...namespace import NAMESPACES
from ...tracing import Untraceable
from .plans import Numbers, Plan, element_name, plan, settled

__all__ = ["counted_steps_", "elementwise_", "step_", "steps_"]

Formula = Callable[..., Sequence[Any]]
log = logging.getLogger(__name__)


def step_(
    formula: Formula,
    p: Any,
    g: Any,
    moments: Sequence[Any],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: Any = 0.0,
    shrink: Any = 1.0,
) -> None:
    """`steps_` of one parameter."""
    steps_(formula, [p], [g], [moments], numbers, maximize, add, shrink)


def steps_(
    formula: Formula,
    params: Sequence[Any],
    grads: Sequence[Any],
    moments: Sequence[Sequence[Any]],
    numbers: dict[str, Any],
    maximize: bool = False,
    add: Any = 0.0,
    shrink: Any = 1.0,
) -> None:
    """The plain kernel's step, with the numbers handed over by value."""
    given = dict(numbers)
    has_add, has_shrink = not _is(add, 0), not _is(shrink, 1)
    given |= {"to add": add} if has_add else {}
    given |= {"to shrink": shrink} if has_shrink else {}
    body = _step_of(formula, maximize, has_add, has_shrink, False)

    def one_by_one(row: Sequence[Any], i: int) -> None:
        _plain("step_", formula, row[0], row[1], row[2:], numbers, maximize, add, shrink)

    _run(body, [[p, g, *m] for p, g, m in zip(params, grads, moments)], None, {}, given, None, one_by_one)


def counted_steps_(
    formula: Formula,
    numbers: Numbers,
    params: Sequence[Any],
    grads: Sequence[Any],
    moments: Sequence[Sequence[Any]],
    counters: dict[str, Sequence[Any]],
    options: dict[str, Any],
    choices: dict[str, Any],
    grad_scale: Any = None,
    found_inf: Any = None,
) -> None:
    """The plain kernel's step, with the numbers computed by a kernel of their own, a thread for each parameter."""
    amount, decoupled = options.get("weight_decay", 0.0), bool(options.get("decoupled_weight_decay", False))
    decays = not _is(amount, 0)
    maximize = bool(options.get("maximize", False))
    scaled = grad_scale is not None
    given: dict[str, Any] = {**options, **({"scale of gradients": grad_scale} if scaled else {})}
    if not decays:
        given["weight_decay"] = None  # no number that a kernel takes
    body = _step_of(formula, maximize, decays and not decoupled, decays and decoupled, scaled)
    counted = _numbers_of(numbers, decays, decoupled, scaled, tuple(choices.items()))

    def one_by_one(row: Sequence[Any], i: int) -> None:
        own = {name: [arrays[i]] for name, arrays in counters.items()}
        _plain("counted_steps_", formula, numbers, row[:1], row[1:2], [row[2:]], own, options, choices, grad_scale, found_inf)

    _run(body, [[p, g, *m] for p, g, m in zip(params, grads, moments)], counted, counters, given, found_inf, one_by_one)


def elementwise_(formula: Formula, columns: Sequence[Sequence[Any]], numbers: dict[str, Any]) -> None:
    """The plain kernel's change, for all arrays by one kernel."""

    def one_by_one(row: Sequence[Any], i: int) -> None:
        _plain("elementwise_", formula, [[a] for a in row], numbers)

    _run(formula, [list(row) for row in zip(*columns)], None, {}, numbers, None, one_by_one)


def _run(
    body: Formula,
    rows: list[list[Any]],
    numbers: Numbers | None,
    counters: dict[str, Sequence[Any]],
    options: dict[str, Any],
    found_inf: Any,
    one_by_one: Callable[[Sequence[Any], int], None],
) -> None:
    """Apply a formula to rows of arrays, by as few launches as there are kinds of them; `one_by_one` does a row that has none."""
    kinds, values = settled(options)
    stops = "float32" if found_inf is None else element_name(found_inf.dtype)
    groups: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        dtypes = tuple([None if a is None else element_name(a.dtype) or "?" for a in row])
        counted = tuple([(name, element_name(arrays[i].dtype) or "?") for name, arrays in counters.items()])
        groups.setdefault((row[0].device.id, dtypes, counted), []).append(i)
    for (device, dtypes, counted), places in groups.items():
        found = _plan(body, dtypes, numbers, counted, kinds, stops)
        with cupy.cuda.Device(device):
            if found is None:
                for i in places:
                    one_by_one(rows[i], i)
                continue
            fit, copies = [], []
            for i in places:
                flat = _flat(rows[i], found.writes)
                if flat is None:
                    one_by_one(rows[i], i)
                else:
                    fit.append(i)
                    copies.append(flat)
            if fit:
                found.run(copies, values, {name: [arrays[i] for i in fit] for name, arrays in counters.items()}, found_inf)


def _flat(row: list[Any], writes: Sequence[bool]) -> list[Any] | None:
    """The row's arrays in one order of elements in memory, the first one's: those that are only read are copied where they lie otherwise;
    None if one that is written does.
    """
    size = row[0].size
    result = []
    for a, written in zip(turned(row), writes):
        if a is not None and not a.flags.c_contiguous:
            if written:
                return None
            a = cupy.ascontiguousarray(a)
        if a is not None and a.size != size:
            return None
        result.append(a)
    return result


_untraceable: set[Any] = set()


def _plan(
    body: Formula, dtypes: tuple, numbers: Numbers | None, counters: tuple[tuple[str, str], ...], kinds: tuple, stops: str | None
) -> Plan | None:
    """The plan, None where there can be none."""
    if stops is None or "?" in dtypes or any(d == "?" for _, d in counters) or body in _untraceable or numbers in _untraceable:
        return None
    try:
        return plan(body, dtypes, numbers, counters, kinds, stops)
    except Untraceable as reason:
        name = getattr(body, "formula", body)
        _untraceable.add(body)
        log.debug("%s is not traced into a kernel, and runs operation by operation: %s", getattr(name, "__qualname__", name), reason)
        return None


@lru_cache(maxsize=256)
def _step_of(formula: Formula, maximize: bool, has_add: bool, has_shrink: bool, scaled: bool) -> Formula:
    """A step as a formula of a parameter, its gradient and its moments, by what is settled before the formula of the optimizer."""

    def step(xp: Any, p: Any, g: Any, *moments: Any, **numbers: Any) -> Sequence[Any]:
        add = numbers.pop("to add") if has_add else 0.0
        shrink = numbers.pop("to shrink") if has_shrink else 1.0
        unscaled = g * numbers.pop("1 / scale of gradients") if scaled else g
        new_p, *new = prepared(xp, formula, p, unscaled, moments, numbers, maximize, add, shrink)
        return new_p, unscaled if scaled else None, *new

    step.formula = formula  # type: ignore[attr-defined]
    return step


@lru_cache(maxsize=256)
def _numbers_of(numbers: Numbers, decays: bool, decoupled: bool, scaled: bool, choices: tuple[tuple[str, Any], ...]) -> Numbers:
    """An optimizer's numbers together with those that `_step_of` takes."""

    def all_numbers(xp: Any, counters: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        found = {**numbers(xp, counters, options), **dict(choices)}
        if decays:
            add, shrink = decay(options)
            found |= {"to shrink": shrink} if decoupled else {"to add": add}
        if scaled:
            found["1 / scale of gradients"] = 1.0 / options["scale of gradients"]
        return found

    return all_numbers


def _is(number: Any, value: int) -> bool:
    return number.__class__ in (int, float) and number == value


def _plain(name: str, *args: Any) -> None:
    PLAIN[name](NAMESPACES[cupy.ndarray], *args)
