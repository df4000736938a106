"""cuBLAS, called directly: matrix products in the current stream, which may be captured into a CUDA graph.

CuPy has bindings of cuBLAS, but they refuse to work while a stream is captured (cupy/cupy issue 6290), and cuBLAS's own
workspace, which CuPy leaves to the library, would be allocated anew in every captured graph.
See https://docs.nvidia.com/cuda/cublas/.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int, c_int64, c_longlong, c_size_t, c_void_p
from functools import cache
from typing import Any

import cupy
from cuda import pathfinder

from ..choices import CHOICES
from . import capturing
from .devices import HandedOn

__all__ = [
    "COMPUTE_32F", "COMPUTE_64F", "COMPUTE_TF32", "CublasError", "Handle", "check", "factors", "handle", "is_exact", "product", "products",
]  # fmt: skip

# From cublas_api.h.
COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77
GEMM_DEFAULT = -1
DEFAULT_MATH, DISALLOW_REDUCED_PRECISION_REDUCTION = 0, 16
R_16F, R_16BF = 2, 14  # from library_types.h

MiB = 2**20
#: As PyTorch has it: the large products of Hopper and later devices want more.
WORKSPACE, WORKSPACE_OF_HOPPER = 8 * MiB + 128 * 1024, 32 * MiB
MOST_WORKSPACES = 8

_MATRIX = [c_void_p, c_int, c_int64]  # address, type, leading dimension
_SIZES = [c_void_p, c_int, c_int, c_int64, c_int64, c_int64]  # handle, transa, transb, m, n, k
_SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [c_void_p],
    "cublasSetStream_v2": [c_void_p, c_void_p],
    "cublasSetWorkspace_v2": [c_void_p, c_void_p, c_size_t],
    "cublasSetMathMode": [c_void_p, c_int],
    "cublasGemmEx_64": [*_SIZES, c_void_p, *_MATRIX, *_MATRIX, c_void_p, *_MATRIX, c_int, c_int],
    "cublasGemmStridedBatchedEx_64": [
        *_SIZES, c_void_p, *_MATRIX, c_longlong, *_MATRIX, c_longlong, c_void_p, *_MATRIX, c_longlong, c_int64, c_int, c_int
    ],
}  # fmt: skip


@cache
def library() -> Any:
    """libcublas, of the CUDA version that CuPy was built for."""
    found = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    for name, arguments in _SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, c_int
    found.cublasGetStatusString.argtypes, found.cublasGetStatusString.restype = [c_int], ctypes.c_char_p
    return found


class CublasError(RuntimeError):
    """A call of cuBLAS that failed."""


def check(what: str, status: int) -> None:
    """Raise an error for a status that is not success."""
    if status:
        raise CublasError(f"{what}: {library().cublasGetStatusString(status).decode()} (status {status})")


class Handle:
    """A handle of cuBLAS, which belongs to one thread and one device, and the workspaces of its streams."""

    def __init__(self, device: int):
        self.library = library()
        self.pointer = c_void_p()
        with capturing.may_call_the_driver():
            check("cublasCreate", self.library.cublasCreate_v2(byref(self.pointer)))
        major = int(cupy.cuda.runtime.getDeviceProperties(device)["major"])
        self.workspace_size = WORKSPACE_OF_HOPPER if major >= 9 else WORKSPACE
        #: bfloat16 products are done in float32 where the device has none
        self.has_bfloat16 = major >= 8
        self.workspaces: dict[int, Any] = {}
        self.stream = -1  # none yet
        self.capture: Any = None
        self.math = DEFAULT_MATH
        #: what `cublas_lt` keeps
        self.lt: Any = None

    def use(self, stream: int, capture: Any) -> None:
        """Let what follows go to a stream. Setting it takes the workspace away, so a workspace of that stream follows.

        What a CUDA graph's products write to must not be written to by others: a capture has workspaces of its own, from the graph's
        pool, which live as long as the graph.
        """
        if capture is not self.capture:
            self.workspaces.clear()
            self.capture = capture
        if stream not in self.workspaces:
            if len(self.workspaces) >= MOST_WORKSPACES:  # the oldest goes back to the pool, which gives it to its own stream again
                del self.workspaces[next(iter(self.workspaces))]
            memory = self.workspaces[stream] = cupy.cuda.alloc(self.workspace_size)
            if capture is not None:
                capture.kept.append(memory)
        check("cublasSetStream", self.library.cublasSetStream_v2(self.pointer, stream))
        workspace = self.workspaces[stream].ptr
        check("cublasSetWorkspace", self.library.cublasSetWorkspace_v2(self.pointer, workspace, self.workspace_size))
        self.stream = stream

    def ready(self, kind: int) -> c_void_p:
        """The pointer, for a product of this type of elements in the current stream."""
        stream = cupy.cuda.get_current_stream().ptr
        capture = capturing.here()
        if stream != self.stream or capture is not self.capture:
            self.use(stream, capture)
        math = DISALLOW_REDUCED_PRECISION_REDUCTION if is_exact(kind) else DEFAULT_MATH
        if math != self.math:
            check("cublasSetMathMode", self.library.cublasSetMathMode(self.pointer, math))
            self.math = math
        return self.pointer


def is_exact(kind: int) -> bool:
    """Whether partial sums of products of a half type must not be added up in it."""
    return (kind == R_16F and not CHOICES.float16_reduction) or (kind == R_16BF and not CHOICES.bfloat16_reduction)


#: handles by the number of the device
_handles = HandedOn(dict, [])


def handle() -> Handle:
    """This thread's handle for the current device."""
    device = cupy.cuda.runtime.getDevice()
    handles: dict[int, Handle] = _handles.mine
    try:
        return handles[device]
    except KeyError:
        found = handles[device] = Handle(device)
        return found


_ONE32, _ZERO32, _ONE64, _ZERO64 = (kind(*values) for kind, values in (
    (ctypes.c_float * 2, (1, 0)), (ctypes.c_float * 2, (0, 0)), (ctypes.c_double * 2, (1, 0)), (ctypes.c_double * 2, (0, 0))
))  # fmt: skip
#: 1 and 0 of a compute type, real or complex (whose imaginary part follows)
_FACTORS = {
    COMPUTE_32F: (byref(_ONE32), byref(_ZERO32)),
    COMPUTE_TF32: (byref(_ONE32), byref(_ZERO32)),
    COMPUTE_64F: (byref(_ONE64), byref(_ZERO64)),
}


def factors(compute: int) -> tuple[Any, Any]:
    """Addresses of 1 and 0 in the type of the sums."""
    return _FACTORS[compute]


def product(
    sizes: tuple[int, int, int], a: tuple[int, int, int], b: tuple[int, int, int], c: tuple[int, int], kind: int, compute: int, add: bool
) -> None:
    """C = op(A) op(B), or with `add` C + op(A) op(B), of column-major matrices.

    Parameters
    ----------
    sizes : tuple of int
        m, n, k: op(A) is m x k, op(B) k x n.
    a, b : tuple of int
        Whether the matrix is transposed (0 or 1), its address, and its leading dimension in elements.
    c : tuple of int
        Address and leading dimension.
    kind, compute : int
        The type of the elements (cudaDataType) and the one of the sums (cublasComputeType_t).
    add : bool
    """
    one, zero = _FACTORS[compute]
    found = handle()
    status = found.library.cublasGemmEx_64(
        found.ready(kind), a[0], b[0], *sizes, one, a[1], kind, a[2], b[1], kind, b[2], one if add else zero, c[0], kind, c[1],
        compute, GEMM_DEFAULT,
    )  # fmt: skip
    if status:
        check(f"cublasGemmEx of m, n, k = {sizes}", status)


def products(
    sizes: tuple[int, int, int],
    a: tuple[int, int, int],
    b: tuple[int, int, int],
    c: tuple[int, int],
    strides: tuple[int, int, int],
    count: int,
    kind: int,
    compute: int,
) -> None:
    """`count` products as of `product`, of matrices that lie `strides` elements apart; 0 for the same matrix each time."""
    one, zero = _FACTORS[compute]
    found = handle()
    status = found.library.cublasGemmStridedBatchedEx_64(
        found.ready(kind), a[0], b[0], *sizes, one, a[1], kind, a[2], strides[0], b[1], kind, b[2], strides[1], zero, c[0], kind, c[1],
        strides[2], count, compute, GEMM_DEFAULT,
    )  # fmt: skip
    if status:
        check(f"cublasGemmStridedBatchedEx of {count} times m, n, k = {sizes}", status)
