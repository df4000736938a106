"""The table of reductions: what each is called, the NumPy function that defines it, the dtypes that it allows.

A new reduction is one line here: every transport reads the table. Names are those of PyTorch's ReduceOp in lower
case, and MPI's logical operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["REDUCTIONS", "Reduction", "combine", "is_half", "reduction_for", "scaled_sum"]


@dataclass(frozen=True, slots=True, eq=False)  # known by identity: it is looked up in every call
class Reduction:
    """One way of combining the ranks' elements.

    Attributes
    ----------
    name : str
        What callers write: ``"sum"``.
    function : numpy.ufunc
        The function of two elements that defines the result. For ``"avg"`` the sum is divided by the number of ranks.
    kinds : frozenset of str
        The kinds of dtype allowed, of ``"bool"``, ``"integer"``, ``"half"``, ``"float"``, ``"complex"``.
    mpi_name : str
        The predefined operation of MPI (MPI-4.1, section 6.9.2) without its prefix ``MPI_``.
    factor : float or None
        What every element is multiplied with before: `scaled_sum`.
    """

    name: str
    function: np.ufunc
    kinds: frozenset[str]
    mpi_name: str
    factor: float | None = None

    @property
    def logical(self) -> bool:
        """Whether results are 0 or 1 whatever the elements are."""
        return self.function in (np.logical_and, np.logical_or, np.logical_xor)


_BITS = frozenset({"bool", "integer"})
_ORDERED = frozenset({"bool", "integer", "half", "float"})
_NUMBERS = frozenset({"integer", "half", "float", "complex"})
_FRACTIONS = frozenset({"half", "float", "complex"})

REDUCTIONS: dict[str, Reduction] = {
    reduction.name: reduction
    for reduction in (
        Reduction("sum", np.add, _NUMBERS, "SUM"),
        Reduction("avg", np.add, _FRACTIONS, "SUM"),
        Reduction("product", np.multiply, _NUMBERS, "PROD"),
        Reduction("min", np.minimum, _ORDERED, "MIN"),
        Reduction("max", np.maximum, _ORDERED, "MAX"),
        Reduction("band", np.bitwise_and, _BITS, "BAND"),
        Reduction("bor", np.bitwise_or, _BITS, "BOR"),
        Reduction("bxor", np.bitwise_xor, _BITS, "BXOR"),
        Reduction("land", np.logical_and, _BITS, "LAND"),
        Reduction("lor", np.logical_or, _BITS, "LOR"),
        Reduction("lxor", np.logical_xor, _BITS, "LXOR"),
    )
}



def scaled_sum(factor: float) -> Reduction:
    """The sum of the ranks' elements, each multiplied with a number before; as PyTorch's ``PREMUL_SUM``.

    Every rank may have a factor of its own. The product is rounded to the array's dtype before it is added (half
    types: to float32).

    Raises
    ------
    TypeError
        If the factor is no real number.

    Examples
    --------
    >>> import collectives
    >>> values = np.array([2.0, 4.0])
    >>> collectives.connect("local").all_reduce(values, scaled_sum(0.5))
    <Work all_reduce: complete>
    >>> values
    array([1., 2.])
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.integer, np.floating)):
        raise TypeError(f"scaled_sum: factor must be a real number, got {factor!r}")
    return Reduction("scaled_sum", np.add, _FRACTIONS, "SUM", float(factor))


def combine(op: Reduction, parts: Sequence[Any], out: Any, size: int) -> None:
    """Combine arrays of the ranks into `out`, in their order; `out` may be the first of them.

    float16 and bfloat16 are accumulated in float32 and rounded once. For ``"avg"`` the sum is divided by `size`.

    Examples
    --------
    >>> out = np.empty(2, np.float16)
    >>> combine(REDUCTIONS["avg"], [np.array([1, 2], np.float16), np.array([3, 5], np.float16)], out, 2)
    >>> out
    array([2. , 3.5], dtype=float16)
    """
    function = op.function
    if is_half(out.dtype):
        sums = parts[0].astype(np.float32)
        for part in parts[1:]:
            function(sums, part.astype(np.float32), out=sums)
        if op.name == "avg":
            np.divide(sums, size, out=sums)
        # A sum beyond float16's range is an infinity, as it is in any float16 arithmetic.
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = sums
        return
    if len(parts) == 1:
        out[...] = parts[0]
    else:
        function(parts[0], parts[1], out=out)
        for part in parts[2:]:
            function(out, part, out=out)
    if op.name == "avg":
        np.divide(out, size, out=out)


# What to do instead, for the refusals that a caller is most likely to meet.
_ADVICE = {
    ("sum", "bool"): "use 'bor' for any, 'band' for all, or convert to an integer dtype to count",
    ("avg", "bool"): "convert to a floating-point dtype first",
    ("avg", "integer"): "convert to a floating-point dtype first, or take 'sum' and divide",
    ("product", "bool"): "use 'band'",
}


def reduction_for(operation: str, op: str | Reduction, dtype: np.dtype) -> Reduction:
    """The table's entry for `op`, if arrays of `dtype` can be reduced with it.

    Parameters
    ----------
    operation : str
        The caller, for the message.
    op : str or Reduction
        `scaled_sum`, or a name of the table: ``"sum"``, ``"avg"``, ``"product"``, ``"min"``, ``"max"``, ``"band"``, ``"bor"``,
        ``"bxor"``, ``"land"``, ``"lor"``, ``"lxor"``.
    dtype : numpy.dtype
        The arrays' dtype.

    Raises
    ------
    ValueError
        If there is no reduction of that name.
    TypeError
        If the dtype is none that the reduction allows.

    Examples
    --------
    >>> reduction_for("all_reduce", "max", np.dtype("float32")).mpi_name
    'MAX'
    >>> reduction_for("all_reduce", "avg", np.dtype("int64"))
    Traceback (most recent call last):
    ...
    TypeError: all_reduce: 'avg' is not defined for int64; convert to a floating-point dtype first, or take 'sum' \
and divide
    """
    reduction = REDUCTIONS.get(op) if isinstance(op, str) else op if isinstance(op, Reduction) else None
    if reduction is None:
        raise ValueError(f"{operation}: there is no reduction {op!r}; it is one of {', '.join(REDUCTIONS)}")
    kind = _kind(dtype)
    if kind not in reduction.kinds:
        advice = _ADVICE.get((reduction.name, kind), f"it allows the kinds {', '.join(sorted(reduction.kinds))}")
        if kind == "swapped":
            advice = f"convert to this machine's byte order, array.astype({str(dtype.newbyteorder('='))!r})"
        raise TypeError(f"{operation}: {reduction.name!r} is not defined for {dtype}; {advice}")
    return reduction


@lru_cache(maxsize=256)
def is_half(dtype: np.dtype) -> bool:
    """Whether `dtype` is float16 or bfloat16, which are reduced in float32 and rounded once.

    Examples
    --------
    >>> is_half(np.dtype("float16")), is_half(np.dtype("float32"))
    (True, False)
    """
    return _kind(dtype) == "half"


@lru_cache(maxsize=256)
def _kind(dtype: np.dtype) -> str:
    # bfloat16 is known by its name: importing ml_dtypes for it would burden callers who have none of it.
    if dtype.name == "bfloat16":
        return "half"
    if not dtype.isnative:
        return "swapped"
    if dtype.kind == "f" and dtype.isbuiltin == 1:
        return "half" if dtype.itemsize == 2 else "float"
    return {"b": "bool", "i": "integer", "u": "integer", "c": "complex"}.get(dtype.kind, "other")
