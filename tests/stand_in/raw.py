"""``cupy.RawModule`` and ``RawKernel``: CUDA C++ compiled for the host and run on the blocks' memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from . import devices
from .arrays import ndarray
from .driver import unsafe
from .memory import MemoryPointer
from .operations import bounds
from .order import Region, lock, regions
from .streams import current, submit

__all__ = ["RawKernel", "RawModule"]


def reading_only(code: str, name: str) -> tuple[bool, ...]:
    """For each parameter of a kernel whether it is a pointer to what does not change (``const T*``)."""
    found = re.search(rf"\bvoid\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?{re.escape(name)}\s*\(([^)]*)\)", code)
    if found is None:
        return ()
    return tuple("*" in each and "const" in each.partition("*")[0].split() for each in found.group(1).split(","))


def _host_module(code: str, options: tuple[str, ...], name: str) -> Any:
    try:
        from .host_cuda import HostModule
    except ImportError as error:
        raise NotImplementedError(f"the kernel {name!r} needs tests/stand_in/host_cuda, which compiles for the host") from error
    return HostModule(code, options)


MOST_POINTERS = 4096
"""Elements of an array of uint64 that may be a table of addresses."""


class RawModule:
    """``cupy.RawModule`` of source text."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (), backend: str = "nvrtc",
        translate_cucomplex: bool = False, enable_cooperative_groups: bool = False, name_expressions: Any = None, jitify: bool = False,
    ):  # fmt: skip
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if path is not None:
            raise NotImplementedError("RawModule of a compiled file")
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple of str")
        if backend not in ("nvrtc", "nvcc"):
            raise ValueError("backend must be nvrtc or nvcc")
        self.code, self.options, self.backend = code, options, backend
        self._module: Any = None
        self._name_expressions = name_expressions

    def compile(self, log_stream: Any = None) -> None:
        self._load("?")

    def _load(self, name: str) -> Any:
        if self._module is None:
            unsafe("cuModuleLoadData")
            self._module = _host_module(str(self.code), self.options, name)
        return self._module

    def get_function(self, name: str) -> RawKernel:
        return RawKernel._of(self._load(name).get_function(name), name, self.options, str(self.code))

    def get_global(self, name: str) -> Any:
        raise NotImplementedError(f"RawModule.get_global({name!r}): not in the stand-in")


class RawKernel:
    """A function of a module."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", *, translate_cucomplex: bool = False,
                 enable_cooperative_groups: bool = False, jitify: bool = False):  # fmt: skip
        self.name, self.options = name, options
        self._function = _host_module(code, options, name).get_function(name)
        self._shared = 48 << 10
        self._reads = reading_only(code, name)

    @classmethod
    def _of(cls, function: Any, name: str, options: tuple[str, ...], code: str) -> RawKernel:
        kernel = cls.__new__(cls)
        kernel._reads = reading_only(code, name)
        kernel._function, kernel.name, kernel.options, kernel._shared = function, name, options, 48 << 10
        return kernel

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > devices.properties(devices.current())["sharedMemPerBlockOptin"]:
            from .streams import CUDARuntimeError

            raise CUDARuntimeError(1, "CUDA_ERROR_INVALID_VALUE: more shared memory than a block can have")
        self._shared = size

    max_threads_per_block = 1024
    num_regs = 32
    shared_size_bytes = local_size_bytes = const_size_bytes = 0

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        grid, block = _three(grid), _three(block)
        if block[0] * block[1] * block[2] > 1024 or min(grid) < 1 or min(block) < 1 or max(grid[1:]) > 65535 or shared_mem > self._shared:
            from .streams import CUDARuntimeError

            raise CUDARuntimeError(
                1, f"CUDA_ERROR_INVALID_VALUE: {self.name} launched with grid {grid}, block {block}, {shared_mem} bytes of shared memory "
                f"(at most {self._shared})",
            )  # fmt: skip
        plain: list[Any] = []
        uses: list[tuple[Region, int, int, bool]] = []
        keep: list[Any] = []
        device = devices.current()
        with lock:
            for place, arg in enumerate(args):
                if type(arg) is ndarray or isinstance(arg, MemoryPointer):
                    data = arg.data if type(arg) is ndarray else arg
                    region = data.mem.region
                    plain.append(data.ptr)
                    keep.append(arg)
                    if region is not None:
                        if region.device != device:
                            raise ValueError(f"{self.name}: an array of device {region.device} where {device} is the current one")
                        low, high = bounds(arg) if type(arg) is ndarray else (data.ptr, data.ptr + 1)
                        if high > low:
                            uses.append((region, low, high, not (place < len(self._reads) and self._reads[place])))
                        if type(arg) is ndarray and arg.dtype == np.uint64 and arg.size <= MOST_POINTERS:
                            uses += behind_pointers(arg)
                elif arg is None:  # a null pointer
                    plain.append(0)
                elif isinstance(arg, (np.generic, bool, int, float, complex)):
                    plain.append(arg)
                    if isinstance(arg, (int, np.int64, np.uint64)) and not isinstance(arg, bool) and int(arg) > 4096:
                        region = regions.at(int(arg))
                        if region is not None:
                            uses.append((region, int(arg), int(arg) + 1, True))
                elif isinstance(arg, np.ndarray) or hasattr(arg, "dtype"):
                    plain.append(arg)
                else:
                    raise TypeError(f"Unsupported type {type(arg)} [{self.name}]")
            line = current()
            line.advance()

            def act() -> bool:
                self._function(grid, block, tuple(plain), shared_mem=shared_mem)
                return True

            submit(line, self.name, act, uses)


def behind_pointers(table: ndarray) -> list[tuple[Region, int, int, bool]]:
    """The places that a table of addresses names; what happens there is not known, but at least a read."""
    found = ((regions.at(int(pointer)), int(pointer)) for pointer in table._a.ravel() if pointer > 4096)
    return [(region, pointer, pointer + 1, False) for region, pointer in found if region is not None]


def _three(size: Any) -> tuple[int, int, int]:
    size = tuple(int(n) for n in size)
    return (*size, 1, 1, 1)[:3]  # type: ignore[return-value]
