"""How each reduction of each dtype is done by NCCL, which has sums, products, minima, maxima and averages of ten dtypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .reductions import Reduction

__all__ = ["Plan", "plan_for"]

# NCCL's names for NumPy's kinds and sizes; bfloat16 is known by its name.
_DTYPES = {
    ("i", 1): "NCCL_INT8", ("i", 4): "NCCL_INT32", ("i", 8): "NCCL_INT64",
    ("u", 1): "NCCL_UINT8", ("u", 4): "NCCL_UINT32", ("u", 8): "NCCL_UINT64",
    ("f", 2): "NCCL_FLOAT16", ("f", 4): "NCCL_FLOAT32", ("f", 8): "NCCL_FLOAT64",
}  # fmt: skip
_OPS = {
    "sum": "NCCL_SUM", "scaled_sum": "NCCL_SUM", "product": "NCCL_PROD", "min": "NCCL_MIN", "max": "NCCL_MAX", "avg": "NCCL_AVG",
}  # fmt: skip
# Of truth values, 0 and 1: "and" is their minimum, "or" their maximum, and their sum is odd where "xor" is true (also where the
# sum of many ranks overflows a byte).
_OF_TRUTHS = {
    "min": "NCCL_MIN", "land": "NCCL_MIN", "band": "NCCL_MIN", "max": "NCCL_MAX", "lor": "NCCL_MAX", "bor": "NCCL_MAX",
    "lxor": "NCCL_SUM", "bxor": "NCCL_SUM",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One reduction of one dtype.

    Attributes
    ----------
    dtype, op : int
        NCCL's numbers.
    per_element : int
        Elements of NCCL's dtype for each of the array's: 2 for complex numbers.
    before : callable
        Of (CuPy, array): the buffer that NCCL reduces, the array's own memory where that is possible.
    after : callable
        Of (array, buffer): puts the buffer's content into the array.
    gathered : bool
        NCCL has nothing for it: the ranks' arrays are gathered, and each rank reduces them.
    """

    dtype: int = 0
    op: int = 0
    per_element: int = 1
    before: Callable[[Any, Any], Any] = lambda cupy, array: array
    after: Callable[[Any, Any], None] = lambda array, buffer: None
    gathered: bool = False


def plan_for(nccl: Any, operation: str, op: Reduction, dtype: np.dtype, size: int) -> Plan:
    """How to reduce arrays of `dtype` with `op` on `size` ranks.

    Parameters
    ----------
    nccl : module
        ``cupy.cuda.nccl``.
    operation : str
        The caller, for the message.

    Raises
    ------
    TypeError
        If GPUs have no such dtype.
    """
    kind, bytes_each = dtype.kind, dtype.itemsize

    def number(name: str) -> int:
        return int(getattr(nccl, name))

    if kind == "b" or (op.logical and kind in "iu"):
        parity = _OF_TRUTHS[op.name] == "NCCL_SUM"

        def truths(cupy: Any, array: Any) -> Any:
            return array.view(np.uint8) if kind == "b" else (array != 0).view(np.uint8)

        def put_truths(array: Any, buffer: Any) -> None:
            if parity:
                buffer &= 1
            if kind != "b" or array.data.ptr != buffer.data.ptr:
                array[...] = buffer.reshape(array.shape)

        return Plan(number("NCCL_UINT8"), number(_OF_TRUTHS[op.name]), before=truths, after=put_truths)
    if op.name in ("band", "bor", "bxor") or (kind == "c" and op.name == "product"):
        return Plan(gathered=True)
    if kind == "c" and bytes_each in (8, 16):
        part = np.dtype(f"f{bytes_each // 2}")

        def put_complex(array: Any, buffer: Any) -> None:
            if array.data.ptr != buffer.data.ptr:
                array[...] = buffer.view(dtype).reshape(array.shape)

        return Plan(
            number(_DTYPES["f", bytes_each // 2]), number(_OPS[op.name]), 2,
            before=lambda cupy, array: array.reshape(-1).view(part), after=put_complex,
        )  # fmt: skip
    if kind in "iu" and bytes_each == 2:
        # Remainders of 2 ** 16 are those of 2 ** 32, so overflow gives what it gives in 16 bits.
        def put_narrow(array: Any, buffer: Any) -> None:
            array[...] = buffer.reshape(array.shape).astype(dtype)

        return Plan(
            number(_DTYPES[kind, 4]), number(_OPS[op.name]),
            before=lambda cupy, array: array.astype(f"{kind}4"), after=put_narrow,
        )  # fmt: skip
    name = "NCCL_BFLOAT16" if dtype.name == "bfloat16" else _DTYPES.get((kind, bytes_each))
    if name is None or not hasattr(nccl, name):
        raise TypeError(
            f"{operation}: GPUs reduce no {dtype}; they do bool, int8 to int64, uint8 to uint64, float16, bfloat16, float32, float64, "
            "complex64 and complex128"
        )
    return Plan(number(name), number(_OPS[op.name]))
