"""A formula run on symbols: the array functions that know them, and what comes out, parted into what all elements share and the rest."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..kernels import PLAIN
from .graph import Graph, Node, Untraceable, walk

__all__ = ["Trace", "evaluated", "python", "traced"]

#: Functions of one array that C has too, under its name.
_UNARY = {
    "sqrt": "sqrt", "cbrt": "cbrt", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10",
    "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "floor": "floor", "ceil": "ceil",
    "trunc": "trunc", "rint": "rint", "abs": "abs", "absolute": "abs",
}  # fmt: skip
#: And of two.
_BINARY = {"maximum": "max", "minimum": "min", "arctan2": "atan2", "hypot": "hypot", "copysign": "copysign"}
#: What operators do, under the functions' names.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "power": lambda a, b: a**b,
    "negative": lambda a: -a,
    "positive": lambda a: a,
    "square": lambda a: a * a,
    "reciprocal": lambda a: 1.0 / a,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "equal": lambda a, b: a == b,
    "not_equal": lambda a, b: a != b,
    "logical_and": lambda a, b: a & b,
    "logical_or": lambda a, b: a | b,
    "logical_not": lambda a: ~a,
    "isnan": lambda a: a != a,
    "isfinite": lambda a: a - a == 0.0,
    "isinf": lambda a: abs(a) == math.inf,
}


class Symbolic:
    """The array namespace of symbols: the functions that are elementwise."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def where(self, condition: Any, a: Any, b: Any) -> Node:
        graph = self.graph
        condition = graph.constant(condition).truth()
        return graph.node("select", condition, graph.constant(a).real_number(), graph.constant(b).real_number())

    def clip(self, a: Any, smallest: Any = None, largest: Any = None) -> Node:
        if smallest is not None:
            a = self.maximum(a, smallest)
        return a if largest is None else self.minimum(a, largest)

    def sign(self, a: Any) -> Node:
        a = self.graph.constant(a)
        return self.where(a > 0.0, 1.0, self.where(a < 0.0, -1.0, a))  # of 0 it is 0, of NaN NaN

    def astype(self, a: Any, dtype: Any) -> Node:
        return self.graph.cast(a, dtype)

    def asarray(self, a: Any, dtype: Any = None) -> Node:
        return self.graph.cast(a, dtype)

    def zeros_like(self, a: Any) -> Node:
        return self.graph.constant(0.0)

    def ones_like(self, a: Any) -> Node:
        return self.graph.constant(1.0)

    def full_like(self, a: Any, value: Any) -> Node:
        return self.graph.constant(value)

    def single(self, a: Any) -> Node:
        """A number as float32 holds it."""
        return self.graph.node("single", self.graph.constant(a).real_number())

    def __getattr__(self, name: str) -> Any:
        graph = self.graph
        if name in _UNARY or name in _BINARY:
            operation = _UNARY.get(name) or _BINARY[name]
            return lambda *operands: graph.node(operation, *[graph.constant(o).real_number() for o in operands])
        if name in _OPERATORS:
            return lambda *operands: _OPERATORS[name](*map(graph.constant, operands))
        if name in PLAIN:  # a kernel that is a formula itself
            return partial(PLAIN[name], self)
        raise Untraceable(f"it calls {name}")


class Trace:
    """What a formula computes.

    Attributes
    ----------
    outputs : list of Node or None
        The new value of each column; None where it stays.
    uniforms : list of Node
        What all elements share: the largest such parts of the outputs, over the formula's numbers.
    reads : set of str
        The columns whose old values count.
    """

    def __init__(self, outputs: Sequence[Node | None]):
        self.outputs = list(outputs)
        self.uniforms: list[Node] = []
        written = [o for o in self.outputs if o is not None]
        known: set[int] = set()

        def hoist(node: Node) -> None:
            if id(node) not in known and not is_literal(node):
                known.add(id(node))
                self.uniforms.append(node)

        for node in walk(written):
            if not node.uniform:
                for operand in node.operands:
                    if operand.uniform:
                        hoist(operand)
        for node in written:
            if node.uniform:
                hoist(node)
        # what is below a shared part is not walked again when the rest is written out
        self.elementwise = [n for n in walk(written) if not n.uniform]
        self.reads = {n.value for n in self.elementwise if n.operation == "element"}


def is_literal(node: Node) -> bool:
    """Whether a number can be written into a source: C has no word for infinity without a header."""
    return node.operation == "constant" and math.isfinite(node.value)


def traced(
    formula: Callable[..., Sequence[Any]], columns: Sequence[str | None], numbers: Sequence[str], choices: dict[str, Any], dtype: Any = None
) -> Trace:
    """Run a formula on symbols.

    Parameters
    ----------
    formula : callable
        ``formula(xp, *columns, **numbers, **choices)`` returns what the columns become, None for those that stay.
    columns : sequence of str or None
        Names of the columns' elements; None is handed on as None.
    numbers : sequence of str
        The names of arguments that are numbers, unknown until the kernel starts.
    choices : dict
        The arguments that are none, as they are.
    dtype : dtype, optional
        What is computed in, where the formula may ask.

    Raises
    ------
    Untraceable
        If what it does depends on values.
    """
    graph = Graph(dtype)
    elements = [None if c is None else graph.element(c) for c in columns]
    results = formula(Symbolic(graph), *elements, **{n: graph.number(n) for n in numbers}, **choices)
    outputs: list[Node | None] = []
    for element, result in zip(elements, results, strict=True):
        stays = element is None or result is None or result is element
        outputs.append(None if stays else graph.constant(result).real_number())
    return Trace(outputs)


class Python:
    """The functions with which the numbers of a step are computed, on Python's own numbers."""

    maximum, minimum = staticmethod(max), staticmethod(min)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        """One of two."""
        return a if condition else b

    @staticmethod
    def single(a: float) -> float:
        """A number as float32 holds it."""
        return struct.unpack("f", struct.pack("f", a))[0]


python = Python()


def evaluated(nodes: Sequence[Node], values: dict[str, Any], into: Graph | None = None) -> list[Any]:
    """The values of expressions over numbers, as Python's numbers, or as nodes of another graph whose nodes `values` may hold."""
    functions = {} if into is None else _in_graph(into)
    found: dict[int, Any] = {}
    for node in walk(nodes):
        if node.operation == "number":
            value = values[node.value]
            value = float(value) if into is None else into.constant(value)
        elif node.operation == "constant":
            value = node.value if into is None else into.constant(node.value)
        else:
            operands = [found[id(o)] for o in node.operands]
            value = _as_c(node.operation, operands) if into is None else functions[node.operation](*operands)
        found[id(node)] = value
    return [found[id(n)] for n in nodes]


def _in_graph(graph: Graph) -> Any:
    class Operations(dict):
        def __missing__(self, operation: str) -> Any:
            is_bool = operation in ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not")
            return lambda *operands: graph.node(operation, *operands, is_bool=is_bool)

    return Operations()


def _as_c(operation: str, operands: list[Any]) -> Any:
    """What C gives, also where Python raises."""
    try:
        return _HOST[operation](*operands)
    except ZeroDivisionError:
        a, b = operands if operation == "div" else (1.0, 0.0)
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)
    except OverflowError:
        return math.inf
    except ValueError:
        pole = operands[0] == (-1 if operation == "log1p" else 0)
        if pole and operation == "pow":
            return math.inf
        return -math.inf if pole and operation.startswith("log") else math.nan


_HOST: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": math.pow,
    "neg": lambda a: -a,
    "abs": abs,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
    "select": lambda c, a, b: a if c else b,
    "max": lambda a, b: a if a > b or a != a else b,
    "min": lambda a, b: a if a < b or a != a else b,
    "single": Python.single,
    "rint": lambda a: float(round(a)),
    "floor": lambda a: float(math.floor(a)),
    "ceil": lambda a: float(math.ceil(a)),
    "trunc": lambda a: float(math.trunc(a)),
    **{n: getattr(math, n) for n in ("atan2", "hypot", "copysign")},
    **{c: getattr(math, c) for c in _UNARY.values() if c not in ("abs", "floor", "ceil", "trunc", "rint")},
}
