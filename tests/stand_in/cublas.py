"""A stand-in for libcublas and libcublasLt: a shared library with their functions, whose products NumPy computes on the blocks' memory.

The functions are C's, compiled with g++, so that arguments pass through the same calling convention as to the real library; they hand
them on to Python. Every argument that the real library would refuse is refused, with a status and a text that says why.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int, c_int64, c_longlong, c_size_t, c_uint, c_void_p
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from . import devices
from .host_cuda import _compiled
from .order import lock, region_at
from .streams import line_of, submit, synchronising

__all__ = ["CublasHandle", "modules", "rounded_to_tf32"]

SOURCE = """
#include <cstdint>
#include <cstddef>
typedef int (*gemm_t)(void*, int, int, int64_t, int64_t, int64_t, const void*, const void*, int, int64_t, long long, const void*, int,
                      int64_t, long long, const void*, void*, int, int64_t, long long, int64_t, int, int);
static struct {
    int (*create)(void**);
    int (*set_stream)(void*, void*);
    int (*set_workspace)(void*, void*, size_t);
    int (*set_math_mode)(void*, int);
    gemm_t gemm;
    const char* (*text)(int);
    int (*matmul)(void*, int, int, int64_t, int64_t, int64_t, const void*, const void*, int, int64_t, const void*, int64_t, const void*,
                  void*, int64_t, int, unsigned, const void*, void*, size_t, void*);
    int (*has_algorithm)(int64_t, int64_t, int64_t, int, int, unsigned);
} to;
// What cublasLt's opaque descriptions hold, and the heuristics' answer.
struct Operation { int compute, scale, transa, transb; unsigned epilogue; const void* bias; };
struct Layout { int type; uint64_t rows, columns; int64_t leading; };
struct Preference { uint64_t workspace; unsigned reductions, alignment[4]; };
struct Result { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
template <typename T> static int assign(T& field, const void* from, size_t size) {
    if (size != sizeof(T)) return 7;
    field = *static_cast<const T*>(from);
    return 0;
}
extern "C" {
void stand_in_connect(void** functions) { for (int i = 0; i < 8; ++i) reinterpret_cast<void**>(&to)[i] = functions[i]; }
int cublasCreate_v2(void** handle) { return to.create(handle); }
int cublasSetStream_v2(void* handle, void* stream) { return to.set_stream(handle, stream); }
int cublasSetWorkspace_v2(void* handle, void* memory, size_t bytes) { return to.set_workspace(handle, memory, bytes); }
int cublasSetMathMode(void* handle, int mode) { return to.set_math_mode(handle, mode); }
const char* cublasGetStatusString(int status) { return to.text(status); }
int cublasGemmEx_64(void* handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void* alpha, const void* A, int Atype,
                    int64_t lda, const void* B, int Btype, int64_t ldb, const void* beta, void* C, int Ctype, int64_t ldc,
                    int computeType, int algo) {
    return to.gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1, computeType,
                   algo);
}
int cublasGemmStridedBatchedEx_64(void* handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void* alpha,
                                  const void* A, int Atype, int64_t lda, long long strideA, const void* B, int Btype, int64_t ldb,
                                  long long strideB, const void* beta, void* C, int Ctype, int64_t ldc, long long strideC,
                                  int64_t batchCount, int computeType, int algo) {
    return to.gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc, strideC,
                   batchCount, computeType, algo);
}
int cublasLtCreate(void** handle) { return to.create(handle); }
int cublasLtMatmulDescCreate(Operation** made, int compute, int scale) {
    *made = new Operation{compute, scale, 0, 0, 1, nullptr};
    return 0;
}
int cublasLtMatmulDescDestroy(Operation* o) { delete o; return 0; }
int cublasLtMatmulDescSetAttribute(Operation* o, int attribute, const void* from, size_t size) {
    switch (attribute) {
        case 3: return assign(o->transa, from, size);
        case 4: return assign(o->transb, from, size);
        case 7: return assign(o->epilogue, from, size);
        case 8: return assign(o->bias, from, size);
    }
    return 7;
}
int cublasLtMatrixLayoutCreate(Layout** made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    *made = new Layout{type, rows, columns, leading};
    return 0;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { delete layout; return 0; }
int cublasLtMatmulPreferenceCreate(Preference** made) { *made = new Preference{0, 7, {256, 256, 256, 256}}; return 0; }
int cublasLtMatmulPreferenceDestroy(Preference* p) { delete p; return 0; }
int cublasLtMatmulPreferenceSetAttribute(Preference* p, int attribute, const void* from, size_t size) {
    if (attribute == 1) return assign(p->workspace, from, size);
    if (attribute == 3) return assign(p->reductions, from, size);
    if (attribute >= 5 && attribute <= 8) return assign(p->alignment[attribute - 5], from, size);
    return 7;
}
static int fits(const Operation* o, const Layout* a, const Layout* b, const Layout* c, int64_t* m, int64_t* n, int64_t* k) {
    *m = o->transa ? a->columns : a->rows, *k = o->transa ? a->rows : a->columns, *n = o->transb ? b->rows : b->columns;
    return *k == int64_t(o->transb ? b->columns : b->rows) && *m == int64_t(c->rows) && *n == int64_t(c->columns) && a->type == b->type &&
           a->type == c->type;
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, Operation* o, Layout* a, Layout* b, Layout* c, Layout* d, Preference* p, int wanted,
                                   Result* results, int* count) {
    int64_t m, n, k;
    *count = 0;
    if (c != d || wanted < 1 || !fits(o, a, b, c, &m, &n, &k)) return 7;
    int status = to.has_algorithm(m, n, k, a->type, o->compute, p->reductions);
    if (status) return status;
    *results = Result{{p->alignment[0], p->alignment[1], p->alignment[2], p->reductions}, 0, 0, 1.0f, {}};
    *count = 1;
    return 0;
}
int cublasLtMatmul(void* handle, Operation* o, const void* alpha, const void* A, Layout* a, const void* B, Layout* b, const void* beta,
                   const void* C, Layout* c, void* D, Layout* d, const Result* algorithm, void* workspace, size_t size, void* stream) {
    int64_t m, n, k;
    if (C != D || c != d || o->scale != 0 || !fits(o, a, b, c, &m, &n, &k)) return 7;
    const void* addresses[3] = {A, B, D};
    for (int i = 0; i < 3; ++i)
        if (reinterpret_cast<uint64_t>(addresses[i]) % algorithm->algorithm[i]) return 7;
    return to.matmul(handle, o->transa, o->transb, m, n, k, alpha, A, a->type, a->leading, B, b->leading, beta, D, c->leading, o->compute,
                     o->epilogue, o->bias, workspace, size, stream);
}
}
"""
SUCCESS, NOT_INITIALIZED, INVALID_VALUE, ARCH_MISMATCH, EXECUTION_FAILED, NOT_SUPPORTED = 0, 1, 7, 8, 13, 15
TYPES = {0: "float32", 1: "float64", 2: "float16", 4: "complex64", 5: "complex128", 14: ml_dtypes.bfloat16}
#: compute type -> the types of elements it may be asked for, and the one of the factors
COMPUTES = {68: ({0, 2, 4, 14}, "float32"), 77: ({0, 4}, "float32"), 70: ({1, 5}, "float64")}


class Refused(Exception):
    """What the library would answer with a status."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class CublasHandle:
    """A handle: its device, stream, workspace and mode."""

    made: dict[int, CublasHandle] = {}  # noqa: RUF012 - the library's own table
    #: (transa, transb, m, n, k, count, type, compute type, math mode) of all products since somebody cleared it
    calls: list[tuple[Any, ...]] = []  # noqa: RUF012
    #: sizes, type, compute type and allowed reductions that cublasLt's heuristics were asked for; and sizes that they know nothing for
    asked: list[tuple[int, ...]] = []  # noqa: RUF012
    without_algorithm: set[tuple[int, ...]] = set()  # noqa: RUF012

    def __init__(self) -> None:
        self.device, self.stream, self.workspace, self.mode = devices.current(), 0, (0, 0), 0


_texts: dict[int, str] = {}


def _answering(function: Callable[..., None]) -> Callable[..., int]:
    """Exceptions cannot leave a C function: they become a status, and what `cublasGetStatusString` says."""

    def call(*arguments: Any) -> int:
        try:
            with lock:
                function(*arguments)
        except Refused as refused:
            _texts[refused.status] = str(refused)
            return refused.status
        except Exception as error:  # the caller raises it again, with the text
            _texts[EXECUTION_FAILED] = f"{type(error).__name__}: {error}"
            return EXECUTION_FAILED
        return SUCCESS

    return call


def _handle(pointer: int | None) -> CublasHandle:
    found = CublasHandle.made.get(pointer or 0)
    if found is None:
        raise Refused(NOT_INITIALIZED, f"{pointer} is no handle")
    return found


def _create(into: int) -> None:
    number = 0x1000 + len(CublasHandle.made)
    CublasHandle.made[number] = CublasHandle()
    ctypes.c_void_p.from_address(into).value = number


def _set_stream(handle: int, stream: int | None) -> None:
    found = _handle(handle)
    line_of(stream or 0)
    found.stream, found.workspace = stream or 0, (0, 0)


def _set_workspace(handle: int, memory: int, size: int) -> None:
    region = region_at(memory, "cublasSetWorkspace")
    if memory % 256 or memory + size > region.pointer + region.size:
        raise Refused(INVALID_VALUE, f"a workspace of {size} bytes at {memory:#x} is not aligned, or leaves its block of memory")
    _handle(handle).workspace = (memory, size)


def _set_math_mode(handle: int, mode: int) -> None:
    if mode not in (0, 2, 3, 16):
        raise Refused(INVALID_VALUE, f"no math mode {mode}")
    _handle(handle).mode = mode


def _matrix(what: str, pointer: int, rows: int, columns: int, leading: int, stride: int, count: int, dtype: Any) -> tuple[Any, Any]:
    """The matrices (count, rows, columns), in columns, as an array on the memory; and the use of it."""
    if leading < max(1, rows):
        raise Refused(INVALID_VALUE, f"the leading dimension of {what}, {leading}, is less than its rows, {rows}")
    item = np.dtype(dtype).itemsize
    if pointer % item:
        raise Refused(INVALID_VALUE, f"{what} at {pointer:#x} is not aligned to its elements")
    region = region_at(pointer, f"cublasGemm, {what}")
    low = pointer - region.pointer
    high = low + ((columns - 1) * leading + rows + max(0, count - 1) * max(stride, 0)) * item
    if stride < 0 or high > region.size:
        raise Refused(EXECUTION_FAILED, f"{what} of {rows} x {columns}, {leading}, {count} times {stride} apart leaves its block of memory")
    array: Any = np.ndarray((count, rows, columns), dtype, region.bytes, low, (stride * item, item, leading * item))
    return array, (region, pointer, region.pointer + high)


def rounded_to_tf32(a: Any) -> Any:
    """Rounded to 10 bits of mantissa, to even."""
    bits = np.ascontiguousarray(a).view(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return rounded.view(np.float32).view(a.dtype).reshape(a.shape)


def _gemm(
    pointer: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, a: int, a_type: int, lda: int, a_stride: int,
    b: int, b_type: int, ldb: int, b_stride: int, beta: int, c: int, c_type: int, ldc: int, c_stride: int, count: int, compute: int,
    algorithm: int,
) -> None:  # fmt: skip
    handle = _handle(pointer)
    if handle.device != devices.current():
        raise Refused(INVALID_VALUE, f"a handle of device {handle.device} while device {devices.current()} is the current one")
    if min(m, n, k, count) < 1 or transa not in (0, 1, 2) or transb not in (0, 1, 2):
        raise Refused(INVALID_VALUE, f"m, n, k = {m}, {n}, {k}, {count} times, transa, transb = {transa}, {transb}")
    allowed, factor_type = COMPUTES.get(compute, (set(), ""))
    if a_type != b_type or a_type != c_type or a_type not in allowed or algorithm not in range(-1, 24):
        raise Refused(NOT_SUPPORTED, f"types {a_type}, {b_type}, {c_type} with the compute type {compute}, algorithm {algorithm}")
    if a_type == 14 and devices.properties(handle.device)["major"] < 8:
        raise Refused(ARCH_MISMATCH, "bfloat16 before compute capability 8.0")
    dtype: Any = np.dtype(TYPES[a_type])
    if count > 1 and c_stride < (n - 1) * ldc + m:
        raise Refused(INVALID_VALUE, f"results {c_stride} elements apart overlap")
    left, left_use = _matrix("A", a, *((k, m) if transa else (m, k)), lda, a_stride, count, dtype)
    right, right_use = _matrix("B", b, *((n, k) if transb else (k, n)), ldb, b_stride, count, dtype)
    out, out_use = _matrix("C", c, m, n, ldc, c_stride, count, dtype)
    factors = np.dtype(factor_type if dtype.kind != "c" else ("complex64" if factor_type == "float32" else "complex128"))
    first, second = (
        np.frombuffer((ctypes.c_char * factors.itemsize).from_address(p), factors).copy()[0] for p in (alpha, beta)
    )  # host memory, read at the call
    line = line_of(handle.stream)
    if not handle.workspace[1]:
        synchronising("cublasGemm without a workspace of its own")
    uses = [(*left_use, False), (*right_use, False), (*out_use, True)]
    if second != 0:
        uses.append((*out_use, False))
    if handle.workspace[1]:
        region = region_at(handle.workspace[0], "cublasGemm, workspace")
        uses.append((region, handle.workspace[0], sum(handle.workspace), True))

    def act() -> bool:
        x, y = (np.swapaxes(p, 1, 2) if t else p for p, t in ((left, transa), (right, transb)))
        x, y = (np.conj(p) if t == 2 else p for p, t in ((x, transa), (y, transb)))
        wide = factors if dtype.itemsize >= 4 else np.dtype(np.float32)
        x, y = x.astype(wide), y.astype(wide)
        if compute == 77:
            x, y = rounded_to_tf32(x), rounded_to_tf32(y)
        result = first * np.matmul(x, y)
        if second != 0:
            result = result + second * out.astype(wide)
        out[...] = result.astype(dtype)
        return True

    CublasHandle.calls.append((transa, transb, m, n, k, count, a_type, compute, handle.mode))
    line.advance()
    submit(line, "cublasGemm", act, uses)


def _matmul(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, a: int, kind: int, lda: int, b: int, ldb: int, beta: int,
    c: int, ldc: int, compute: int, epilogue: int, bias: int, workspace: int, size: int, stream: int | None,
) -> None:  # fmt: skip
    """A product by cublasLt with a bias for each row."""
    if epilogue != 4 or kind not in COMPUTES.get(compute, (set(), ""))[0] or bias % 16:
        raise Refused(NOT_SUPPORTED, f"epilogue {epilogue} with the bias at {bias:#x}, type {kind}, compute type {compute}")
    dtype: Any = np.dtype(TYPES[kind])
    left, left_use = _matrix("A", a, *((k, m) if transa else (m, k)), lda, 0, 1, dtype)
    right, right_use = _matrix("B", b, *((n, k) if transb else (k, n)), ldb, 0, 1, dtype)
    out, out_use = _matrix("C", c, m, n, ldc, 0, 1, dtype)
    added, bias_use = _matrix("bias", bias, m, 1, m, 0, 1, dtype)
    one, zero = (ctypes.c_float.from_address(p).value for p in (alpha, beta))
    if (one, zero) != (1, 0):
        raise Refused(INVALID_VALUE, f"alpha = {one}, beta = {zero}")
    region = region_at(workspace, "cublasLtMatmul, workspace")
    uses = [(*left_use, False), (*right_use, False), (*bias_use, False), (*out_use, True), (region, workspace, workspace + size, True)]

    def act() -> bool:
        x, y = (np.swapaxes(p, 1, 2) if t else p for p, t in ((left, transa), (right, transb)))
        x, y = x.astype(np.float32), y.astype(np.float32)
        if compute == 77:
            x, y = rounded_to_tf32(x), rounded_to_tf32(y)
        out[...] = (np.matmul(x, y) + added.astype(np.float32)).astype(dtype)
        return True

    CublasHandle.calls.append((transa, transb, m, n, k, 1, kind, compute, "bias"))
    line = line_of(stream or 0)
    line.advance()
    submit(line, "cublasLtMatmul", act, uses)


def _has_algorithm(m: int, n: int, k: int, kind: int, compute: int, reductions: int) -> None:
    CublasHandle.asked.append((m, n, k, kind, compute, reductions))
    if (m, n, k) in CublasHandle.without_algorithm:
        raise Refused(NOT_SUPPORTED, "no algorithm")


def _text(status: int) -> bytes:
    _kept[:] = [_texts.get(status, f"status {status}").encode()]  # C reads it after this function has returned
    return ctypes.cast(ctypes.c_char_p(_kept[0]), c_void_p).value  # type: ignore[return-value]


_kept: list[bytes] = []
_MATRIX = (c_void_p, c_int, c_int64, c_longlong)
_FUNCTIONS: list[tuple[Any, Callable[..., Any]]] = [
    (CFUNCTYPE(c_int, c_void_p), _answering(_create)),
    (CFUNCTYPE(c_int, c_void_p, c_void_p), _answering(_set_stream)),
    (CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t), _answering(_set_workspace)),
    (CFUNCTYPE(c_int, c_void_p, c_int), _answering(_set_math_mode)),
    (
        CFUNCTYPE(c_int, c_void_p, *[c_int] * 2, *[c_int64] * 3, c_void_p, *_MATRIX, *_MATRIX, c_void_p, *_MATRIX, c_int64, c_int, c_int),
        _answering(_gemm),
    ),
    (CFUNCTYPE(c_void_p, c_int), _text),
    (
        CFUNCTYPE(
            c_int, c_void_p, c_int, c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_int, c_int64, c_void_p, c_int64, c_void_p,
            c_void_p, c_int64, c_int, c_uint, c_void_p, c_void_p, c_size_t, c_void_p,
        ),
        _answering(_matmul),
    ),
    (CFUNCTYPE(c_int, c_int64, c_int64, c_int64, c_int, c_int, c_uint), _answering(_has_algorithm)),
]  # fmt: skip


@cache
def library() -> str:
    """The path of the shared library, connected with this file's functions."""
    path = str(_compiled("cublas", SOURCE))
    loaded = ctypes.CDLL(path)
    _callbacks.extend(kind(function) for kind, function in _FUNCTIONS)
    table = (c_void_p * len(_callbacks))(*(ctypes.cast(f, c_void_p) for f in _callbacks))
    loaded.stand_in_connect(table)
    return path


_callbacks: list[Any] = []


def modules() -> dict[str, types.ModuleType]:
    """``cuda.pathfinder``, which finds libraries: of them, this one."""

    def load_nvidia_dynamic_lib(libname: str) -> Any:
        if libname not in ("cublas", "cublasLt"):
            raise pathfinder.DynamicLibNotFoundError(f"the stand-in has no library {libname!r}")  # type: ignore[attr-defined]
        return types.SimpleNamespace(abs_path=library(), was_already_loaded_from_elsewhere=False, found_via="stand-in")

    namespace, pathfinder = types.ModuleType("cuda"), types.ModuleType("cuda.pathfinder")
    namespace.__path__ = []  # type: ignore[attr-defined]
    namespace.pathfinder = pathfinder  # type: ignore[attr-defined]
    pathfinder.DynamicLibNotFoundError = type("DynamicLibNotFoundError", (RuntimeError,), {})  # type: ignore[attr-defined]
    pathfinder.load_nvidia_dynamic_lib = load_nvidia_dynamic_lib  # type: ignore[attr-defined]
    return {"cuda": namespace, "cuda.pathfinder": pathfinder}
