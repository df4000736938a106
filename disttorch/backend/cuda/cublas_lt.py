"""A product of matrices with a bias added before it is rounded and written, by cublasLt.

What such a product needs besides addresses - descriptions of the matrices and the algorithm that cublasLt's heuristics choose - is
made once for sizes and layouts and kept. See https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from ctypes import byref, c_float, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any, NamedTuple

from cuda import pathfinder

from . import capturing
from .cublas import COMPUTE_64F, Handle, check, factors

__all__ = ["product_with_bias"]

# From cublasLt.h.
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
EPILOGUE_BIAS = 4
PREF_WORKSPACE, PREF_REDUCTIONS, PREF_ALIGNMENT_A = 1, 3, 5
REDUCTION_COMPUTE_TYPE = 2
R_32F = 0  # from library_types.h

#: Descriptions that a thread keeps for a device.
MOST = 1024

_SIGNATURES: dict[str, list[Any]] = {
    "cublasLtCreate": [c_void_p],
    "cublasLtMatmulDescCreate": [c_void_p, c_int, c_int],
    "cublasLtMatmulDescDestroy": [c_void_p],
    "cublasLtMatmulDescSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatrixLayoutCreate": [c_void_p, c_int, c_uint64, c_uint64, c_int64],
    "cublasLtMatrixLayoutDestroy": [c_void_p],
    "cublasLtMatmulPreferenceCreate": [c_void_p],
    "cublasLtMatmulPreferenceDestroy": [c_void_p],
    "cublasLtMatmulPreferenceSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulAlgoGetHeuristic": [*[c_void_p] * 7, c_int, c_void_p, c_void_p],
    "cublasLtMatmul": [*[c_void_p] * 14, c_size_t, c_void_p],
}


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm, and what it needs."""

    _fields_ = (
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class Description(NamedTuple):
    """What cublasLt has to know of a product: its operation, its three matrices, and the algorithm."""

    operation: c_void_p
    layouts: tuple[c_void_p, c_void_p, c_void_p]
    found: Heuristic


@cache
def library() -> Any:
    """libcublasLt, which comes with libcublas."""
    found = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
    for name, arguments in _SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, c_int
    return found


class Lt:
    """A handle of cublasLt beside one of cuBLAS, whose workspaces it uses, and the descriptions of its products."""

    def __init__(self) -> None:
        self.library, self.pointer = library(), c_void_p()
        with capturing.may_call_the_driver():
            check("cublasLtCreate", self.library.cublasLtCreate(byref(self.pointer)))
        self.described: OrderedDict[Any, Description | None] = OrderedDict()

    def description(self, key: tuple[Any, ...], workspace: int) -> Description | None:
        """What is known for a key, the arguments of `describe` behind `workspace`; None if cublasLt has no algorithm."""
        if key in self.described:
            self.described.move_to_end(key)
            return self.described[key]
        made = self.described[key] = self.describe(workspace, *key)
        while len(self.described) > MOST:
            self.forget(self.described.popitem(last=False)[1])
        return made

    def describe(
        self,
        workspace: int,
        sizes: tuple[int, int, int],
        transposed: tuple[int, int],
        leading: tuple[int, int, int],
        alignment: tuple[int, int, int],
        kind: int,
        compute: int,
        exact: bool,
    ) -> Description | None:
        """Descriptions of C = op(A) op(B) + bias, and an algorithm for it that needs at most so many bytes of workspace."""
        call, (m, n, k) = self.library, sizes
        operation = c_void_p()
        check("cublasLtMatmulDescCreate", call.cublasLtMatmulDescCreate(byref(operation), compute, R_32F))
        for attribute, value in (
            (DESC_TRANSA, c_int(transposed[0])), (DESC_TRANSB, c_int(transposed[1])), (DESC_EPILOGUE, c_uint32(EPILOGUE_BIAS)),
        ):  # fmt: skip
            self.set_attribute(operation, attribute, value)
        shapes = ((k, m) if transposed[0] else (m, k), (n, k) if transposed[1] else (k, n), (m, n))
        layouts = tuple(self.layout(kind, *shape, ld) for shape, ld in zip(shapes, leading))
        preference = c_void_p()
        check("cublasLtMatmulPreferenceCreate", call.cublasLtMatmulPreferenceCreate(byref(preference)))
        wishes: list[tuple[int, Any]] = [(PREF_WORKSPACE, c_uint64(workspace))]
        # A, B, C and D, the last two of which are one matrix
        wishes += [(PREF_ALIGNMENT_A + i, c_uint32(bytes)) for i, bytes in enumerate((*alignment, alignment[2]))]
        if exact:
            wishes.append((PREF_REDUCTIONS, c_uint32(REDUCTION_COMPUTE_TYPE)))
        for attribute, value in wishes:
            status = call.cublasLtMatmulPreferenceSetAttribute(preference, attribute, byref(value), ctypes.sizeof(value))
            check("cublasLtMatmulPreferenceSetAttribute", status)
        found, count = Heuristic(), c_int()
        a, b, c = layouts
        # no algorithm is a status, too: then there is none to count
        call.cublasLtMatmulAlgoGetHeuristic(self.pointer, operation, a, b, c, c, preference, 1, byref(found), byref(count))
        check("cublasLtMatmulPreferenceDestroy", call.cublasLtMatmulPreferenceDestroy(preference))
        made = Description(operation, (a, b, c), found)
        if not count.value or found.state:
            self.forget(made)
            return None
        return made

    def layout(self, kind: int, rows: int, columns: int, leading: int) -> c_void_p:
        """The description of a column-major matrix."""
        made = c_void_p()
        check("cublasLtMatrixLayoutCreate", self.library.cublasLtMatrixLayoutCreate(byref(made), kind, rows, columns, leading))
        return made

    def set_attribute(self, operation: c_void_p, attribute: int, value: Any) -> None:
        """Say something of an operation."""
        status = self.library.cublasLtMatmulDescSetAttribute(operation, attribute, byref(value), ctypes.sizeof(value))
        if status:
            check("cublasLtMatmulDescSetAttribute", status)

    def forget(self, description: Description | None) -> None:
        """Give back what a description holds."""
        if description is not None:
            check("cublasLtMatmulDescDestroy", self.library.cublasLtMatmulDescDestroy(description.operation))
            for layout in description.layouts:
                check("cublasLtMatrixLayoutDestroy", self.library.cublasLtMatrixLayoutDestroy(layout))


def alignment_of(address: int) -> int:
    """The largest power of two up to 256 that an address is a multiple of."""
    return min(256, address & -address)


def product_with_bias(
    handle: Handle,
    sizes: tuple[int, int, int],
    a: tuple[int, int, int],
    b: tuple[int, int, int],
    c: tuple[int, int],
    bias: int,
    kind: int,
    compute: int,
    exact: bool,
) -> bool:
    """C = op(A) op(B) + bias for each column, of column-major matrices, in the current stream.

    Parameters
    ----------
    handle : Handle
        This thread's handle of cuBLAS.
    sizes, a, b, c, kind, compute
        As of `cublas.product`.
    bias : int
        The address of m numbers.
    exact : bool
        Whether partial sums must not be added up in a half type.

    Returns
    -------
    bool
        False, and nothing done, if cublasLt has no algorithm for it.
    """
    if compute == COMPUTE_64F or bias % 16:
        return False
    handle.ready(kind)
    lt: Lt = handle.lt if handle.lt is not None else Lt()
    handle.lt = lt
    alignment = (alignment_of(a[1]), alignment_of(b[1]), alignment_of(c[0]))
    key = (sizes, (a[0], b[0]), (a[2], b[2], c[1]), alignment, kind, compute, exact)
    description = lt.description(key, handle.workspace_size)
    if description is None:
        return False
    operation, (left, right, out), found = description
    lt.set_attribute(operation, DESC_BIAS_POINTER, c_void_p(bias))
    one, zero = factors(compute)
    workspace = handle.workspaces[handle.stream].ptr
    status = lt.library.cublasLtMatmul(
        lt.pointer, operation, one, a[1], left, b[1], right, zero, c[0], out, c[0], out, byref(found), workspace, handle.workspace_size,
        handle.stream,
    )  # fmt: skip
    if status:
        check(f"cublasLtMatmul of m, n, k = {sizes} with a bias", status)
    return True
