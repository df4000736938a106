"""The table of reductions: what each is called, the NumPy function that defines it, the dtypes that it allows.

A new reduction is one line here: every transport reads the table. Names are those of PyTorch's ReduceOp in lower
case, and MPI's logical operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["REDUCTIONS", "Reduction", "is_half", "reduction_for"]


@dataclass(frozen=True, slots=True)
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
    """

    name: str
    function: np.ufunc
    kinds: frozenset[str]
    mpi_name: str

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

# What to do instead, for the refusals that a caller is most likely to meet.
_ADVICE = {
    ("sum", "bool"): "use 'bor' for any, 'band' for all, or convert to an integer dtype to count",
    ("avg", "bool"): "convert to a floating-point dtype first",
    ("avg", "integer"): "convert to a floating-point dtype first, or take 'sum' and divide",
    ("product", "bool"): "use 'band'",
}


def reduction_for(operation: str, op: str, dtype: np.dtype) -> Reduction:
    """The table's entry for `op`, if arrays of `dtype` can be reduced with it.

    Parameters
    ----------
    operation : str
        The caller, for the message.
    op : str
        A name of the table: ``"sum"``, ``"avg"``, ``"product"``, ``"min"``, ``"max"``, ``"band"``, ``"bor"``,
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
    reduction = REDUCTIONS.get(op) if isinstance(op, str) else None
    if reduction is None:
        raise ValueError(f"{operation}: there is no reduction {op!r}; it is one of {', '.join(REDUCTIONS)}")
    kind = _kind(dtype)
    if kind not in reduction.kinds:
        advice = _ADVICE.get((op, kind), f"it allows the kinds {', '.join(sorted(reduction.kinds))}")
        if kind == "swapped":
            advice = f"convert to this machine's byte order, array.astype({str(dtype.newbyteorder('='))!r})"
        raise TypeError(f"{operation}: {op!r} is not defined for {dtype}; {advice}")
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
