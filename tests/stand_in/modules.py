"""The modules ``cupy``, ``cupyx``, ``cupy.cuda``, ..., made of the parts."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import numpy as np

from . import (
    cublas,
    cudnn,
    devices,
    driver,
    functions,
    generators,
    graphs,
    memory,
    methods,
    names,
    raw,
    runtime,
    streams,
)
from .arrays import ndarray
from .host_cuda import CompileException
from .ufuncs import ufunc

__all__ = ["MODULES", "built", "put_in_place"]

TYPES = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 intp uintp int_ half single "
    "double generic number integer floating complexfloating inexact signedinteger unsignedinteger dtype finfo iinfo newaxis pi e inf nan "
    "result_type promote_types can_cast issubdtype isscalar broadcast_shapes s_ c_ r_ ndindex errstate"
).split()


class Module(types.ModuleType):
    """A module whose functions are made when asked for."""

    def __init__(self, name: str, lazy: bool = False, **contents: Any):
        super().__init__(name)
        self.__path__: list[str] = []
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        self.__dict__.update(contents)
        self.__dict__["_lazy"] = lazy

    def __getattr__(self, name: str) -> Any:
        if self.__dict__.get("_lazy") and not name.startswith("__"):
            value = functions.named(name, self.__name__)
            self.__dict__[name] = value
            return value
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def built() -> dict[str, Module]:
    """The modules by name, made anew."""
    methods.attach_methods()
    plain = {name: getattr(np, name) for name in TYPES if hasattr(np, name)}
    cuda_runtime = Module("cupy.cuda.runtime", **runtime.contents())
    driver_module = Module("cupy.cuda.driver", CUDADriverError=streams.CUDADriverError)
    nvtx = Module("cupy.cuda.nvtx", RangePush=_push, RangePop=_pop, Mark=_mark, RangePushC=_push, MarkC=_mark)
    memory_module = Module("cupy.cuda.memory", **{name: getattr(memory, name) for name in memory.__all__ if "inned" not in name})
    memory_module.PythonFunctionAllocator = None
    del memory_module.__dict__["PythonFunctionAllocator"]
    pinned_module = Module(
        "cupy.cuda.pinned_memory",
        **{name: getattr(memory, name) for name in ("PinnedMemory", "PinnedMemoryPointer", "PinnedMemoryPool", "alloc_pinned_memory",
                                                    "set_pinned_memory_allocator")},
        is_memory_pinned=memory.is_pinned,
    )  # fmt: skip
    stream_module = Module(
        "cupy.cuda.stream", Stream=streams.Stream, ExternalStream=streams.ExternalStream, Event=streams.Event,
        get_current_stream=streams.get_current_stream, get_elapsed_time=streams.get_elapsed_time,
    )  # fmt: skip
    graph_module = Module("cupy.cuda.graph", Graph=graphs.Graph)
    device_module = Module("cupy.cuda.device", Device=devices.Device, get_device_id=devices.current)
    compiler = Module("cupy.cuda.compiler", CompileException=CompileException)
    cuda = Module(
        "cupy.cuda", runtime=cuda_runtime, nvtx=nvtx, memory=memory_module, pinned_memory=pinned_module, stream=stream_module,
        compiler=compiler, driver=driver_module,
        graph=graph_module, device=device_module, Device=devices.Device, Stream=streams.Stream, ExternalStream=streams.ExternalStream,
        Event=streams.Event, Graph=graphs.Graph, get_current_stream=streams.get_current_stream, get_elapsed_time=streams.get_elapsed_time,
        get_device_id=devices.current, is_available=lambda: devices.count() > 0,
        **{name: getattr(memory, name) for name in (
            "BaseMemory", "Memory", "MemoryHook", "MemoryPointer", "MemoryPool", "PinnedMemory", "PinnedMemoryPointer", "PinnedMemoryPool",
            "UnownedMemory", "alloc", "alloc_pinned_memory", "get_allocator", "set_allocator", "set_pinned_memory_allocator",
            "using_allocator")},
    )  # fmt: skip
    linalg = Module("cupy.linalg", lazy=True, LinAlgError=np.linalg.LinAlgError)
    fft = Module("cupy.fft", lazy=True)
    cupy = Module(
        "cupy", lazy=True, __version__=names.NAMES["version"], ndarray=ndarray, ufunc=ufunc, cuda=cuda, linalg=linalg, fft=fft,
        RawModule=raw.RawModule, RawKernel=raw.RawKernel, get_default_memory_pool=lambda: memory.default_pool,
        get_default_pinned_memory_pool=lambda: memory.default_pinned_pool, get_array_module=_array_module,
        from_dlpack=_from_dlpack, fromDlpack=_from_dlpack, **plain,
    )  # fmt: skip
    random = Module("cupy.random", Generator=generators.Generator, Philox4x3210=generators.Philox4x3210)
    cupy.random = random  # type: ignore[attr-defined]
    cupyx = Module("cupyx", lazy=True, empty_pinned=memory.empty_pinned, zeros_pinned=memory.zeros_pinned)
    made = [
        cupy, cuda, cuda_runtime, driver_module, nvtx, memory_module, pinned_module, stream_module, graph_module, device_module, compiler,
        linalg, fft, random, cupyx,
    ]  # fmt: skip
    from . import nccl

    nccl_module = Module("cupy.cuda.nccl", **nccl.contents())
    cuda.nccl = nccl_module  # type: ignore[attr-defined]
    libraries = {**cublas.modules(), "cudnn": cudnn.module()}
    return {**{module.__name__: module for module in [*made, nccl_module]}, **libraries}


MODULES: dict[str, Module] = {}


def put_in_place() -> Module:
    """Put them where ``import cupy`` finds them."""
    MODULES.update(built())
    sys.modules.update(MODULES)
    driver.put_in_place()
    return MODULES["cupy"]


ranges: list[str] = []
"""What nvtx was told."""


def _push(message: str, id_color: int = -1) -> None:
    ranges.append(message)


def _pop() -> None:
    ranges.append("")


def _mark(message: str, id_color: int = -1) -> None:
    ranges.append(f"mark {message}")


def _array_module(*args: Any) -> Any:
    return MODULES["cupy"] if any(type(each) is ndarray for each in args) else np


def _from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    from . import interchange

    return interchange.imported(array)
