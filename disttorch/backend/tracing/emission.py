"""Expressions written as C: one constant for each node, in an order in which operands come first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .graph import Node

__all__ = ["literal", "statements"]

#: Operators, and what is written out; the rest are C's functions, which end in f for float.
_FORMS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "not": "!{0}",
    "select": "{0} ? {1} : {2}",
    # NaN in either is NaN, as in NumPy, which C's fmax and fmin pass over
    "max": "{0} > {1} || {0} != {0} ? {0} : {1}",
    "min": "{0} < {1} || {0} != {0} ? {0} : {1}",
    "single": "(float){0}",
}
_RENAMED = {"abs": "fabs"}


def literal(value: float, real: str) -> str:
    """A number of the type `real`."""
    if not math.isfinite(value):  # for which C has no word without a header
        return {"inf": "(1.0 / 0.0)", "-inf": "(-1.0 / 0.0)"}.get(str(value), "(0.0 / 0.0)")
    return f"({value!r}f)" if real == "float" else f"({value!r})"


def statements(nodes: Sequence[Node], names: dict[int, str], real: str, prefix: str = "v") -> list[str]:
    """Lines of C that compute nodes.

    Parameters
    ----------
    nodes : sequence of Node
        Operands before what uses them.
    names : dict of int to str
        What nodes are called, by ``id``: on entry those that are there already, on return also the new ones.
    real : {"float", "double"}
        The type to compute in.
    prefix : str
        What new names begin with.
    """
    lines = []
    for node in nodes:
        if id(node) in names:
            continue
        if node.operation == "constant":
            names[id(node)] = literal(node.value, real)
            continue
        operands = [names[id(o)] if id(o) in names else literal(o.value, real) for o in node.operands]
        form = _FORMS.get(node.operation)
        if form is None:
            function = _RENAMED.get(node.operation, node.operation) + ("f" if real == "float" else "")
            form = function + "(" + ", ".join(f"{{{i}}}" for i in range(len(operands))) + ")"
        name = names[id(node)] = f"{prefix}{len(names)}"
        lines.append(f"const {'bool' if node.is_bool else real} {name} = {form.format(*operands)};")
    return lines
