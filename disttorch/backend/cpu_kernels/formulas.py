"""Traced formulas as NumPy's calls on a few buffers, a block of elements at a time.

A formula written with operators makes a new array at each step. Here its expressions are put in order once, and each step writes where
nothing is needed any more: what the steps hand on stays in the second-level cache, and nothing is allocated on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import HALF
from ..tracing import Node, Trace, Untraceable, traced
from ..tracing.symbols import evaluated

__all__ = ["BLOCK", "REAL", "Program", "program"]

log = logging.getLogger(__name__)

#: Elements at a time: 128 KiB of float32, so a formula's arrays and its buffers stay in 1 MiB of second-level cache.
BLOCK = 32768
#: Bytes of a line of the cache. Vectors as wide as one cross two where an array does not begin on one, at up to twice the time.
LINE = 64
#: What programs work on: half types are widened to float32 and rounded once, at the end.
REAL = HALF | {np.dtype(np.float32), np.dtype(np.float64)}
_BOOL = np.dtype(np.bool_)


@lru_cache(maxsize=1024)
def program(formula: Callable[..., Any], dtypes: tuple[Any, ...], parameters: tuple[Any, ...]) -> Program | None:
    """The program of a formula; made once. None if the formula cannot be traced.

    Parameters
    ----------
    formula : callable
        ``formula(xp, *arrays, *parameters)`` returns one array.
    dtypes : tuple of dtype
        Of the result, and of the arrays; all in `REAL`.
    parameters : tuple
        What stands behind the arrays: numbers and choices.
    """
    real = np.result_type(np.float32, *[d for d in dtypes if d not in HALF])
    names = ["out", *map(str, range(len(dtypes) - 1))]
    try:
        trace = traced(lambda xp, out, *arrays: (formula(xp, *arrays, *parameters), *arrays), names, (), {}, real)
        return Program(trace, names, dtypes, real)
    except Untraceable as reason:
        log.debug("%s runs operation by operation: %s", formula.__name__, reason)
        return None


class Step(NamedTuple):
    """One call: a function, the places of its arguments, and the place of its result."""

    function: Callable[..., Any]
    arguments: tuple[int, ...]
    result: int


class Program:
    """A trace as steps between places: first the result and the arrays, then numbers, then buffers.

    Parameters
    ----------
    trace : Trace
        Whose first column becomes what it computes; the others stay.
    names : sequence of str
        Of the columns.
    dtypes : sequence of dtype
        Of the columns.
    real : dtype
        What is computed in.
    """

    def __init__(self, trace: Trace, names: Sequence[str], dtypes: Sequence[Any], real: Any):
        self.real = real
        self.steps: list[Step] = []
        self.numbers: list[Any] = []
        #: the dtypes of the buffers
        self.buffers: list[Any] = []
        #: by the place of a number that of the buffer that is full of it
        self.filled: dict[int, int] = {}
        self._columns = len(names)
        self._place: dict[int, int] = {}
        self._free: dict[Any, list[int]] = {real: [], _BOOL: []}
        output = trace.outputs[0]
        assert output is not None
        nodes = [n for n in trace.elementwise if n.operation != "element"]
        self._put_numbers(trace, [*(o for n in nodes for o in n.operands), output])
        last = {id(o): k for k, node in enumerate(nodes) for o in node.operands}
        for element in trace.elementwise:
            if element.operation == "element":
                column = names.index(element.value)
                self._place[id(element)] = column if dtypes[column] == real else self._call(_into, (column,), self._buffer(real))
        for k, node in enumerate(nodes):
            self._compute(node, node is output and dtypes[0] == real, [o for o in node.operands if last[id(o)] == k])
        if self._place[id(output)] != 0:
            self._call(_into, (self._place[id(output)],), 0)

    def _put_numbers(self, trace: Trace, nodes: Sequence[Node]) -> None:
        literals = [n for n in nodes if n.operation == "constant"]
        shared = [*trace.uniforms, *literals]
        for node, value in zip(shared, evaluated(shared, {})):
            if id(node) not in self._place:
                self._place[id(node)] = self._columns + len(self.numbers)
                self.numbers.append(np.array(value, _BOOL if node.is_bool else self.real))

    def _buffer(self, dtype: Any) -> int:
        """The place of a buffer that is not in use."""
        if self._free[dtype]:
            return self._free[dtype].pop()
        self.buffers.append(dtype)
        return self._first_buffer + len(self.buffers) - 1

    @property
    def _first_buffer(self) -> int:
        return self._columns + len(self.numbers)

    def _full_of(self, number: int) -> int:
        """The place of a buffer that holds a number in all its elements."""
        if number not in self.filled:
            self.buffers.append(self.real)
            self.filled[number] = self._first_buffer + len(self.buffers) - 1
        return self.filled[number]

    def _call(self, function: Callable[..., Any], arguments: tuple[int, ...], result: int) -> int:
        self.steps.append(Step(function, arguments, result))
        return result

    def _compute(self, node: Node, is_output: bool, done: Sequence[Node]) -> None:
        """A step for a node: into the result, or into a buffer, one of its operands' that are needed no more, or else another."""
        dtype = _BOOL if node.is_bool else self.real
        arguments = tuple([self._place[id(o)] for o in node.operands])
        if node.operation in ("max", "min"):  # which take three times as long with a number
            arguments = tuple([self._full_of(p) if self._columns <= p < self._first_buffer else p for p in arguments])
        freed = {p for o in done if (p := self._place[id(o)]) >= self._first_buffer}
        fitting = [p for p in freed if self.buffers[p - self._first_buffer] == dtype]
        result = 0 if is_output and node.operation != "select" else fitting[0] if fitting else self._buffer(dtype)
        self._place[id(node)] = self._call(_function(node), arguments, result)
        for place in freed - {result}:
            self._free[self.buffers[place - self._first_buffer]].append(place)

    def run(self, out: Any, arrays: Sequence[Any]) -> None:
        """Compute.

        Parameters
        ----------
        out : array, shape (n,)
            For the result.
        arrays : sequence of array, shape (n,) or ()
        """
        size = min(out.size, BLOCK)
        buffers = self._memory(size)
        rest = [*self.numbers, *buffers]
        for number, buffer in self.filled.items():
            rest[buffer - self._columns].fill(rest[number - self._columns])
        for start in range(0, out.size, BLOCK):
            block = slice(start, start + BLOCK)
            first = out[block]
            if first.size < size:
                rest = [*self.numbers, *(b[: first.size] for b in buffers)]
            cells = [first, *(a[block] if a.ndim else a for a in arrays), *rest]
            for function, arguments, result in self.steps:
                cells[result] = function(*[cells[a] for a in arguments], out=cells[result])

    def _memory(self, size: int) -> list[Any]:
        """The buffers, each beginning on a line of the cache."""
        widths = [-(-size * d.itemsize // LINE) * LINE for d in self.buffers]
        memory = np.empty(sum(widths) + LINE, np.uint8)
        begin = -memory.ctypes.data % LINE
        found = []
        for width, dtype in zip(widths, self.buffers):
            found.append(memory[begin : begin + size * dtype.itemsize].view(dtype))
            begin += width
        return found


def _into(source: Any, out: Any) -> Any:
    np.copyto(out, source, casting="unsafe")  # NumPy knows no kind of bfloat16
    return out


def _select(condition: Any, yes: Any, no: Any, out: Any) -> Any:
    return np.where(condition, yes, no)  # a new array, in a third of the time of numpy.copyto with a mask


def _truth(condition: Any, one: Any, zero: Any, out: Any) -> Any:
    return _into(condition, out)


def _function(node: Node) -> Callable[..., Any]:
    """NumPy's function for a node, or one of ours: they take memory for the result as `out`, and return the result."""
    if node.operation == "select":
        yes, no = node.operands[1:]
        return _truth if yes.operation == no.operation == "constant" and (yes.value, no.value) == (1, 0) else _select
    try:
        return _FUNCTIONS[node.operation]
    except KeyError:
        raise Untraceable(f"there is no function for {node.operation}") from None


#: NumPy's functions by the names of the traces, which are C's.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "neg": np.negative, "abs": np.absolute,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "max": np.maximum, "min": np.minimum,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "atan2": np.arctan2, "hypot": np.hypot, "copysign": np.copysign,
    **{n: getattr(np, n) for n in "sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh floor ceil trunc rint".split()},
}  # fmt: skip
