"""CuPy's elementwise functions: its tables of types decide, NumPy computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from .arrays import empty, ndarray
from .operations import compute, put

__all__ = ["ufunc"]

WEAK = (int, float, complex)
STRONG = {int: np.int64, float: np.float64, complex: np.complex128}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)


def dtype_of(character: str) -> Any:
    return BFLOAT16 if character == "E" else np.dtype(character)


class ufunc:
    """One of them.

    Parameters
    ----------
    name : str
    types : list of str
        What it takes and gives, as ``"ff->f"``, in CuPy's order: the first into which the arguments can be cast is taken.
    function : callable
        NumPy's, of arrays of the first types.
    """

    def __init__(self, name: str, types: list[str], function: Callable[..., Any] | None):
        self.name = self.__name__ = name
        self.types = types
        sources, results = types[0].split("->")
        self.nin, self.nout = len(sources), len(results)
        self.nargs = self.nin + self.nout
        self._function = function
        self._chosen: dict[Any, tuple[list[Any], list[Any]]] = {}
        self._table = [([dtype_of(c) for c in line.split("->")[0]], [dtype_of(c) for c in line.split("->")[1]]) for line in types]

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._function is None:
            raise NotImplementedError(f"cupy.{self.name}: not in the stand-in")
        out, dtype = options.pop("out", None), options.pop("dtype", None)
        casting, where = options.pop("casting", "same_kind"), options.pop("_where", None)
        if options:
            raise TypeError(f"Wrong arguments {options}")
        if isinstance(out, tuple):
            if len(out) != self.nout:
                raise ValueError("The 'out' tuple must have exactly one entry per ufunc output")
            outs = list(out)
        else:
            outs = [] if out is None else [out]
        args, extra = args[: self.nin], args[self.nin :]
        if extra and outs:
            raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
        outs = outs or list(extra)
        if len(args) != self.nin or len(outs) not in (0, self.nout):
            raise TypeError(f"Wrong number of arguments for '{self.name}'")
        reads: list[Any] = []
        operands: list[Any] = []
        for arg in (*args, *(() if where is None else (where,))):
            if type(arg) is not ndarray and hasattr(arg, "__cuda_array_interface__"):
                from .creation import array

                arg = array(arg, copy=False)
            if type(arg) is ndarray:
                reads.append(arg)
                operands.append(arg._a)
            elif isinstance(arg, (bool, int, float, complex, np.generic)):
                operands.append(arg)
            else:
                raise TypeError(f"Unsupported type {type(arg)} [{self.name}]")
        mask = operands.pop() if where is not None else None
        sources, results = self._choose(operands, dtype)
        function = self._function

        def run() -> Any:
            cast = []
            for operand, source in zip(operands, sources):
                values = np.asarray(operand) if isinstance(operand, np.generic) else operand
                if source == BFLOAT16:
                    # computed in float32 and rounded once, as the device does
                    values = np.asarray(values, BFLOAT16).astype(FLOAT32)
                elif type(values) in (bool, *WEAK):
                    values = np.array(values, source)
                else:
                    values = values.astype(source, copy=False)
                cast.append(values)
            values = function(*cast)
            parts = values if self.nout > 1 else (values,)
            done = [np.asarray(part).astype(kind, order="C", copy=False) for part, kind in zip(parts, results)]
            return done if self.nout > 1 else done[0]

        for each, kind in zip(outs, results):
            if each is not None:
                if type(each) is not ndarray:
                    raise TypeError(f"return arrays must be of ArrayType [{self.name}]")
                if not np.can_cast(kind, each.dtype, casting):
                    raise TypeError(f"output (typecode '{kind.char}') could not be coerced to provided output parameter (typecode "
                                    f"'{each.dtype.char}') according to the casting rule \"{casting}\"")  # fmt: skip
        if where is not None:
            return self._masked(run, mask, reads, outs, results)
        if not outs:
            made = compute(self.name, run, reads)
            return tuple(made) if self.nout > 1 else made
        if self.nout > 1:
            values = compute(self.name, run, reads)
            for each, value in zip(outs, values):
                put(self.name, each, lambda value=value: value._a, [value])
            return tuple(outs)
        target = outs[0]
        shape = np.broadcast_shapes(*(np.shape(operand) for operand in operands))
        if np.broadcast_shapes(shape, target.shape) != target.shape:
            raise ValueError(f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape {shape}")
        put(self.name, target, run, reads)
        return target

    def _masked(self, run: Any, mask: Any, reads: list[Any], outs: list[Any], results: list[Any]) -> Any:
        if self.nout > 1:
            raise NotImplementedError(f"cupy.{self.name} with _where= and several results")
        target = outs[0] if outs else empty(np.broadcast_shapes(*(each.shape for each in reads)), results[0])
        put(self.name, target, lambda: np.where(mask, run(), target._a), [*reads, target])
        return target

    def _choose(self, operands: list[Any], dtype: Any) -> tuple[list[Any], list[Any]]:
        kinds: list[Any] = []
        for operand in operands:
            kind = type(operand)
            if kind in WEAK:
                kinds.append(kind)
            elif kind is bool:
                kinds.append(np.dtype(bool))
            else:
                kinds.append(operand.dtype)
        weak = [kind for kind in kinds if isinstance(kind, type)]
        if weak and max((_score(kind.type) for kind in kinds if not isinstance(kind, type)), default=-1) < max(map(_score, weak)):
            # of a higher kind than the arrays, Python's numbers count as what they are
            kinds = [np.dtype(STRONG[kind]) if isinstance(kind, type) else kind for kind in kinds]
        key = (*kinds, None if dtype is None else np.dtype(dtype))
        if key not in self._chosen:
            self._chosen[key] = self._search(kinds, dtype)
        return self._chosen[key]

    def _search(self, kinds: list[Any], dtype: Any) -> tuple[list[Any], list[Any]]:
        if dtype is not None:
            wanted = np.dtype(dtype)
            for sources, results in self._table:
                if all(result == wanted for result in results):
                    return sources, results
            raise TypeError(f"No loop matching the specified signature and casting was found for ufunc {self.name}")
        for sources, results in self._table:
            if all(_fits(kind, source) for kind, source in zip(kinds, sources)):
                return sources, results
        raise TypeError(f"ufunc 'cupy_{self.name}' not supported for the input types {kinds}")

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """``a[indices] op= b`` with repeated indices."""
        from . import indexing

        if self.name not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        indexing.scatter(self.name, a, indices, b)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        from .functions import named

        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return named({"add": "sum", "multiply": "prod"}[self.name])(array, axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        from .functions import named

        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        return named({"add": "cumsum", "multiply": "cumprod"}[self.name])(array, axis, dtype, out)

    def outer(self, A: Any, B: Any, **options: Any) -> Any:
        return self(A.reshape(*A.shape, *(1,) * B.ndim), B, **options)


def _score(kind: type) -> int:
    """Which of two kinds is the higher."""
    if issubclass(kind, np.bool_):
        return 0
    if issubclass(kind, (np.integer, int)):
        return 1
    return 2 if issubclass(kind, (np.inexact, float, complex)) else 3


def _fits(kind: Any, source: Any) -> bool:
    if isinstance(kind, type):
        try:
            return bool(np.result_type(kind(0), source) == source)
        except TypeError:
            return False
    return bool(np.can_cast(kind, source))
