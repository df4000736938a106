"""What is to be launched for a formula on arrays of given dtypes: traced and written once, kept by what it depends on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from ...tracing import Graph, Node, traced, walk
from ...tracing.symbols import Symbolic, evaluated
from ..kernels.arrays import ELEMENT
from ..kernels.compilation import OPTIONS, SOURCES, compiled
from .sources import CHUNK, THREADS, kernel_source, numbers_source, rows_of_a_launch, width

__all__ = ["Plan", "plan", "settled"]

Numbers = Callable[[Any, dict[str, Any], dict[str, Any]], dict[str, Any]]
#: by name: "value", the dtype of an array of one element, a tuple of such, or ("choice", what it is)
Kinds = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=1024)
def plan(
    body: Callable[..., Sequence[Any]],
    dtypes: tuple[str | None, ...],
    numbers: Numbers | None,
    counters: tuple[tuple[str, str], ...],
    options: Kinds,
    found_inf: str,
) -> Plan:
    """The plan for a formula; made once.

    Parameters
    ----------
    body : callable
        ``body(xp, *columns, **numbers)`` returns what the columns become.
    dtypes : tuple of str or None
        Of the columns; None for those that are None.
    numbers : callable, optional
        ``numbers(xp, counters, options)`` returns the body's numbers and replaces counters; without it they are the options.
    counters : tuple of (str, str)
        The counters' names and dtypes.
    options : tuple of (str, kind)
        What `settled` returns.
    found_inf : str
        The dtype of the number that stops a launch.

    Raises
    ------
    Untraceable
        If what the body or the numbers do depends on values.
    """
    return Plan(body, dtypes, numbers, counters, options, found_inf)


def settled(options: dict[str, Any]) -> tuple[Kinds, dict[str, Any]]:
    """What kinds of options there are, and the values of those that are numbers, under the names that the kernels know them by."""
    kinds: list[tuple[str, Any]] = []
    values: dict[str, Any] = {}
    for name, option in options.items():
        kinds.append((name, _kind(name, option, values)))
    return tuple(kinds), values


def _kind(name: str, option: Any, values: dict[str, Any]) -> Any:
    if isinstance(option, tuple):
        return tuple(_kind(f"{name}.{i}", o, values) for i, o in enumerate(option))
    if isinstance(option, cupy.ndarray):
        if option.dtype not in ELEMENT:
            option = option.astype(np.float64)
        values[name] = option
        return option.dtype.name
    if isinstance(option, (int, float, np.generic)) and not isinstance(option, (bool, np.bool_)):
        values[name] = float(option)
        return "value"
    return "choice", option


def _symbols(name: str, kind: Any, graph: Graph) -> Any:
    if isinstance(kind, tuple):
        if kind[:1] == ("choice",):
            return kind[1]
        return tuple(_symbols(f"{name}.{i}", k, graph) for i, k in enumerate(kind))
    return graph.number(name)


def _arrays_in(kinds: Kinds) -> dict[str, str | None]:
    """By the name of a number its dtype, None for one that comes by value."""
    found: dict[str, str | None] = {}

    def look(name: str, kind: Any) -> None:
        if isinstance(kind, tuple):
            if kind[:1] != ("choice",):
                for i, k in enumerate(kind):
                    look(f"{name}.{i}", k)
        else:
            found[name] = None if kind == "value" else kind

    for name, kind in kinds:
        look(name, kind)
    return found


class Plan:
    """A formula's kernels, and how they are launched.

    Attributes
    ----------
    writes : tuple of bool
        Which columns are changed.
    sources : dict of str to str
        By the kernel's name.
    """

    def __init__(
        self,
        body: Callable[..., Sequence[Any]],
        dtypes: tuple[str | None, ...],
        numbers: Numbers | None,
        counters: tuple[tuple[str, str], ...],
        options: Kinds,
        found_inf: str,
    ):
        graph = Graph()
        dtype_of = dict(counters)
        values: dict[str, Any] = {name: graph.number(f"counter {name}") for name in dtype_of}
        if "step" in values:
            values["step"] = values["step"] + 1.0
        symbols = {name: _symbols(name, kind, graph) for name, kind in options}
        found = symbols if numbers is None else numbers(Symbolic(graph), values, symbols)
        choices = {n: v for n, v in found.items() if v is None or isinstance(v, (bool, str))}
        names = [n for n in found if n not in choices]
        self.columns = [None if d is None else (f"column {i}", d) for i, d in enumerate(dtypes)]
        self.trace = traced(body, [c and c[0] for c in self.columns], names, choices)
        uniforms = [u.real_number() for u in evaluated(self.trace.uniforms, found, into=graph)]
        new = {f"counter {n}": (d, graph.constant(values[n]).real_number()) for n, d in counters}
        used = {n.value for n in walk([*uniforms, *(v for _, v in new.values())]) if n.operation == "number"}
        in_memory = _arrays_in(options)
        self.options = {n: d for n, d in in_memory.items() if n in used}
        self.counters = [n for n, _ in counters]
        self.uniforms: list[Node] = uniforms
        self.writes = tuple(o is not None for o in self.trace.outputs)
        #: whether the numbers are computed on the device
        self.counts = bool(counters) or any(d is not None for d in self.options.values())
        self.given = [i for i, d in enumerate(dtypes) if d is not None]
        self.real, _ = width([d for d in dtypes if d is not None])
        self.rows = rows_of_a_launch(2 + len(self.given), 4 + (0 if self.counts else len(uniforms)))
        self.counted_rows = rows_of_a_launch(max(1, len(counters)), 4 + len(self.options))
        self.sources = {"fused": kernel_source(self.trace, self.columns, self.counts, found_inf, self.rows)}
        if self.counts:
            self.sources["numbers"] = numbers_source(uniforms, new, self.options, self.real, found_inf, self.counted_rows)
        self._table = np.dtype([("word", np.uint64, ((2 + len(self.given)) * self.rows,))])
        self._counter_table = np.dtype([("word", np.uint64, (max(1, len(counters)) * self.counted_rows,))])
        self._kernels: dict[tuple[str, int], Any] = {}

    def kernel(self, name: str) -> Any:
        """A kernel of the plan for the current device."""
        key = name, cupy.cuda.runtime.getDevice()
        found = self._kernels.get(key)
        if found is None:
            found = self._kernels[key] = compiled("a traced formula", self.text_of(name), name, OPTIONS)
        return found

    def text_of(self, name: str) -> str:
        """A kernel's source with what all sources have in common before it."""
        return f'{(SOURCES / "common.cuh").read_text()}\n#line 1 "{name} of a formula"\n{self.sources[name]}'

    def run(
        self, rows: Sequence[Sequence[Any]], values: dict[str, Any], counters: dict[str, Sequence[Any]] | None = None, found_inf: Any = None
    ) -> None:
        """Launch it.

        Parameters
        ----------
        rows : sequence of sequence of array
            The arrays that go together, contiguous and of one size; None where a column is None. All on the current device.
        values : dict
            The options' numbers, by `settled`.
        counters : dict of str to sequence of array, optional
            For each row.
        found_inf : array, optional
        """
        if self.counts:
            many = len(rows) if self.counters else 1
            shared: Any = cupy.empty(max(1, many * len(self.uniforms)), "float64" if self.real == "double" else "float32")
            self._count(many, values, counters or {}, shared, found_inf)
            stride = len(self.uniforms) if self.counters else 0
        else:
            by_value = tuple([float(v) for v in evaluated(self.uniforms, values)])
        for start in range(0, len(rows), self.rows):
            part = rows[start : start + self.rows]
            table, blocks = self._table_of(part)
            if blocks:
                numbers = (shared[start * stride :], stride) if self.counts else by_value
                self.kernel("fused")((blocks,), (THREADS,), (table, len(part), *numbers, found_inf))

    def _count(self, many: int, values: dict[str, Any], counters: dict[str, Sequence[Any]], shared: Any, found_inf: Any) -> None:
        options = [values[name] for name in self.options]
        for first in range(0, many, self.counted_rows):
            count = min(self.counted_rows, many - first)
            table: tuple[Any, ...] = ()
            if self.counters:
                words = np.zeros(1, self._counter_table)
                for i, name in enumerate(self.counters):
                    begin = i * self.counted_rows
                    words["word"][0, begin : begin + count] = [c.data.ptr for c in counters[name][first : first + count]]
                table = (words,)
            self.kernel("numbers")((-(-count // THREADS),), (THREADS,), (*table, count, first, shared, found_inf, *options))

    def _table_of(self, rows: Sequence[Sequence[Any]]) -> tuple[Any, int]:
        """The structure that a launch takes, and how many blocks it has."""
        table = np.zeros(1, self._table)
        words = table["word"][0].reshape(2 + len(self.given), self.rows)
        first = self.given[0]
        sizes = [row[first].size for row in rows]
        ends = list(itertools.accumulate([-(-size // CHUNK) for size in sizes]))
        words[0, : len(rows)] = [0, *ends[:-1]]
        words[1, : len(rows)] = sizes
        for place, column in enumerate(self.given, 2):
            words[place, : len(rows)] = [row[column].data.ptr for row in rows]
        return table, ends[-1]


def element_name(dtype: Any) -> str | None:
    """A dtype's name in the sources; None if they have none for it."""
    return ELEMENT.get(dtype)


