"""Expressions of a traced formula: nodes that are what an operation gives, each kept once however often it was written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["Graph", "Node", "Untraceable", "walk"]


class Untraceable(Exception):
    """A formula does something that cannot be known before the elements are."""


class Graph:
    """Where the nodes of one trace are kept, so that equal expressions are one node.

    Parameters
    ----------
    dtype : dtype, optional
        What is computed in, where the formula may ask: then it cannot be traced if it computes in another type on the way.
    """

    def __init__(self, dtype: Any = None) -> None:
        self.dtype = dtype
        self._nodes: dict[tuple, Node] = {}

    def node(self, operation: str, *operands: Node, value: Any = None, is_bool: bool = False, uniform: bool | None = None) -> Node:
        """The node of an operation and its operands."""
        key = (operation, value, math.copysign(1, value) if value.__class__ is float else 0, *map(id, operands))
        found = self._nodes.get(key)
        if found is None:
            if uniform is None:
                uniform = all(o.uniform for o in operands)
            found = self._nodes[key] = Node(self, operation, operands, value, is_bool, uniform)
        return found

    def element(self, name: str) -> Node:
        """A value that each element has of its own."""
        return self.node("element", value=name, uniform=False)

    def number(self, name: str) -> Node:
        """A value that all elements share, known when the kernel starts."""
        return self.node("number", value=name)

    def constant(self, value: Any) -> Node:
        """A number that is written into the source."""
        if isinstance(value, Node):
            return value
        try:
            return self.node("constant", value=float(value))
        except (TypeError, ValueError):
            raise Untraceable(f"a {type(value).__name__} among the numbers") from None

    def cast(self, value: Any, dtype: Any) -> Node:
        """A value in the only type there is."""
        if self.dtype is not None and dtype is not None and dtype != self.dtype:
            raise Untraceable(f"it computes in {dtype}")
        return self.constant(value)


class Node:
    """What an operation gives, with the operators of an array.

    Attributes
    ----------
    operation : str
    operands : tuple of Node
    value : str or float
        The name of an element or number, the value of a constant.
    is_bool : bool
        Whether it is a truth value.
    uniform : bool
        Whether it is the same for all elements.
    """

    __slots__ = ("graph", "is_bool", "operands", "operation", "uniform", "value")
    __array_ufunc__ = None  # NumPy's scalars leave the operators to us

    def __init__(self, graph: Graph, operation: str, operands: tuple[Node, ...], value: Any, is_bool: bool, uniform: bool):
        self.graph, self.operation, self.operands = graph, operation, operands
        self.value, self.is_bool, self.uniform = value, is_bool, uniform

    @property
    def dtype(self) -> Any:
        """What is computed in, the graph's; where that is None it matters to nobody, and casts do nothing."""
        return self.graph.dtype

    def astype(self, dtype: Any, copy: bool = True) -> Node:
        """The same: the graph's type is the only one."""
        return self.graph.cast(self, dtype)

    def real_number(self) -> Node:
        """Truth as 1 and 0."""
        if not self.is_bool:
            return self
        one, zero = self.graph.constant(1.0), self.graph.constant(0.0)
        return self.graph.node("select", self, one, zero)

    def _with(self, operation: str, other: Any, swapped: bool = False, is_bool: bool = False) -> Node:
        a, b = self.real_number(), self.graph.constant(other).real_number()
        if swapped:
            a, b = b, a
        if a.operation == b.operation == "constant" and operation in _FOLDED:
            return self.graph.constant(_FOLDED[operation](a.value, b.value))
        if operation == "mul":
            if b.operation == "constant" and b.value == 1:
                return a
            if a.operation == "constant" and a.value == 1:
                return b
        return self.graph.node(operation, a, b, is_bool=is_bool)

    def __add__(self, other: Any) -> Node:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Node:
        return self._with("add", other, swapped=True)

    def __sub__(self, other: Any) -> Node:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Node:
        return self._with("sub", other, swapped=True)

    def __mul__(self, other: Any) -> Node:
        return self._with("mul", other)

    def __rmul__(self, other: Any) -> Node:
        return self._with("mul", other, swapped=True)

    def __truediv__(self, other: Any) -> Node:
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Node:
        return self._with("div", other, swapped=True)

    def __pow__(self, other: Any) -> Node:
        exponent = self.graph.constant(other)
        if exponent.operation == "constant":
            n = exponent.value
            if n == 0.5:
                return self.graph.node("sqrt", self.real_number())
            if 1 <= abs(n) <= 8 and n == int(n):
                product = self._product(int(abs(n)))
                return product if n > 0 else 1.0 / product
        return self._with("pow", other)

    def __rpow__(self, other: Any) -> Node:
        return self._with("pow", other, swapped=True)

    def _product(self, n: int) -> Node:
        half = self.real_number() if n == 1 else self._product(n // 2)
        if n == 1:
            return half
        return half * half * self if n % 2 else half * half

    def __neg__(self) -> Node:
        if self.operation == "constant":
            return self.graph.constant(-self.value)
        return self.graph.node("neg", self.real_number())

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return self.graph.node("abs", self.real_number())

    def __lt__(self, other: Any) -> Node:
        return self._with("lt", other, is_bool=True)

    def __le__(self, other: Any) -> Node:
        return self._with("le", other, is_bool=True)

    def __gt__(self, other: Any) -> Node:
        return self._with("gt", other, is_bool=True)

    def __ge__(self, other: Any) -> Node:
        return self._with("ge", other, is_bool=True)

    def __eq__(self, other: Any) -> Node:  # type: ignore[override]
        return self._with("eq", other, is_bool=True)

    def __ne__(self, other: Any) -> Node:  # type: ignore[override]
        return self._with("ne", other, is_bool=True)

    __hash__ = object.__hash__

    def truth(self) -> Node:
        """Whether it is not 0."""
        return self if self.is_bool else self != 0.0

    def __and__(self, other: Any) -> Node:
        return self.graph.node("and", self.truth(), self.graph.constant(other).truth(), is_bool=True)

    def __or__(self, other: Any) -> Node:
        return self.graph.node("or", self.truth(), self.graph.constant(other).truth(), is_bool=True)

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> Node:
        return self.graph.node("not", self.truth(), is_bool=True)

    def __bool__(self) -> bool:
        raise Untraceable("its course depends on a value")

    def __float__(self) -> float:
        raise Untraceable("it asks for a value")

    __int__ = __index__ = __float__

    def __getitem__(self, index: Any) -> Any:
        raise Untraceable("it is not elementwise")

    def __iter__(self) -> Any:
        raise Untraceable("it is not elementwise")

    __len__ = __iter__

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f"it asks an array for its {name}")

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.operands)) if self.operands else self.value
        return f"{self.operation}({inside})"


_FOLDED = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}


def walk(nodes: Iterable[Node]) -> list[Node]:
    """All nodes that these are made of, and they themselves, operands first; each once."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [(n, False) for n in reversed(list(nodes))]
    while stack:
        node, has_operands = stack.pop()
        if has_operands:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(o, False) for o in reversed(node.operands) if id(o) not in seen]
    return order
