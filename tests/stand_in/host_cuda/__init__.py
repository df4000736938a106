"""Runs CUDA C++ sources on the host, without a GPU and without CUDA: for tests of our own kernels.

`HostModule` compiles a source with g++ and a header that stands for what CUDA's compilers know by themselves, and launches its
kernels on host memory, block by block, each thread as a fiber. It finds what a run on a GPU might not show: a barrier that some
threads do not reach, lanes of a warp that meet in different calls, shared memory that is read before it is written (it holds NaN),
arguments of other types than the kernel's parameters. Threads can run in several orders (`schedule`), which makes missing
barriers change results.

It cannot see races within a warp, and out-of-bounds accesses only where memory is fenced.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CompileException", "HostFunction", "HostModule", "available", "schedule"]

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-fwrapv", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w")
#: extern "C" __global__ void name(, perhaps with __launch_bounds__
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
#: extern __shared__ type name[];
DYNAMIC = re.compile(r"extern\s+__shared__\s+((?:__align__\s*\(\d+\)\s*)?)([\w:<>, ]+?)\s+(\w+)\s*\[\s*\]\s*;")
#: __shared__ type name[...];
STATIC = re.compile(r"__shared__\s+((?:__align__\s*\(\d+\)\s*)?)([\w:<>, ]+?)\s+(\w+)\s*((?:\[[^\]]*\]\s*)*);")

_lock = threading.Lock()
_seed = 0


def available() -> str | None:
    """None where kernels can be run on the host, else the reason why not."""
    return None if shutil.which("g++") else "there is no g++ to compile CUDA kernels for the host"


class CompileException(Exception):
    """A source does not compile; as ``cupy.cuda.compiler.CompileException``."""

    def __init__(self, message: str, source: str = "", name: str = "", options: tuple[str, ...] = (), backend: str = "nvrtc"):
        super().__init__(message)
        self.source, self.name, self.options, self.backend = source, name, options, backend

    def get_message(self) -> str:
        """What the compiler said."""
        return str(self)


@contextlib.contextmanager
def schedule(seed: int) -> Iterator[None]:
    """The order in which a block's threads run: 0 forward, 1 backward, others shuffled."""
    global _seed
    before, _seed = _seed, seed
    try:
        yield
    finally:
        _seed = before


def _compiled(name: str, text: str, *flags: str) -> Path:
    """The shared library of a C++ source; made once and kept in a temporary folder by the hash of all that it is made of."""
    parts = (text, *FLAGS, *flags, *((HERE / h).read_text() for h in ("runtime.h", "shim.h")))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"disttorch-host-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}-{key}.so"
    if library.exists():
        return library
    # Files of this thread alone: another one that compiles the same must not write what g++ reads here.
    made = folder / f"{name}-{key}-{os.getpid()}-{threading.get_ident()}.so"
    source = made.with_suffix(".cpp")
    source.write_text(text)
    command = ["g++", *FLAGS, *flags, f"-I{HERE}", "-o", str(made), str(source)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        source.unlink()
    if result.returncode:
        raise CompileException(f"{' '.join(command)}\n{result.stderr}", text, name, flags)
    made.replace(library)  # whole or not at all, whoever compiles the same
    return library


_runtime: Any = None


def _start() -> Any:
    global _runtime
    if _runtime is None:
        reason = available()
        if reason is not None:
            raise RuntimeError(reason)
        runtime = ctypes.CDLL(str(_compiled("runtime", (HERE / "runtime.cpp").read_text())), mode=ctypes.RTLD_GLOBAL)
        runtime.host_cuda_launch.restype = ctypes.c_char_p
        runtime.host_cuda_launch.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint,
        ]  # fmt: skip
        _runtime = runtime
    return _runtime


def for_host(code: str) -> str:
    """A CUDA source as C++ for the host: declarations of shared memory rewritten, and each kernel made callable."""
    code = DYNAMIC.sub(r"\2* const \3 = host_cuda::dynamic_shared<\2>();", code)
    site = "[] { static char here; return static_cast<const void*>(&here); }()"
    code = STATIC.sub(rf"typedef \2 shared_type_of_\3 \4; auto& \3 = host_cuda::static_shared<shared_type_of_\3>({site});", code)
    if "__shared__" in code:
        at = code.index("__shared__")
        raise NotImplementedError(f"a declaration of shared memory in a form that is not known here: {code[at : at + 80]!r}")
    names = KERNEL.findall(code)
    if not names:
        raise NotImplementedError('no kernel in the source: extern "C" __global__ void name(...)')
    return '#include "shim.h"\n#line 1 "kernel.cu"\n' + code + "\n" + "".join(f"HOST_CUDA_KERNEL({name})\n" for name in names)


class HostModule:
    """A CUDA source compiled for the host.

    Parameters
    ----------
    code : str
        CUDA C++ whose kernels are ``extern "C" __global__ void name(...)``.
    options : tuple of str
        As for NVRTC; of them, definitions of macros (``-DNAME=value``) count here.
    """

    def __init__(self, code: str, options: tuple[str, ...] = ()):
        _start()
        macros = tuple(o for o in options if o.startswith(("-D", "--define-macro=")))
        macros = tuple(o.replace("--define-macro=", "-D") for o in macros)
        self.names = tuple(KERNEL.findall(code))
        self._library = ctypes.CDLL(str(_compiled("kernel", for_host(code), *macros)))

    def get_function(self, name: str) -> HostFunction:
        """A kernel by its name.

        Raises
        ------
        ValueError
            If the source has no such kernel.
        """
        if name not in self.names:
            raise ValueError(f"the source has no kernel {name!r}; it has {', '.join(self.names)}")
        return HostFunction(name, self._library)


class HostFunction:
    """A kernel that can be launched on host memory."""

    def __init__(self, name: str, library: Any):
        self.name = name
        self._library = library
        self._entry = ctypes.cast(getattr(library, f"host_cuda_entry_{name}"), ctypes.c_void_p)
        describe = getattr(library, f"host_cuda_parameters_{name}")
        describe.restype = ctypes.c_char_p
        #: each parameter's kind (p, f, i, u, s for structures) and number of bytes, as "p8"
        self.parameters: tuple[str, ...] = tuple(describe().decode().split())

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, shared_mem: int = 0) -> None:
        """Launch it, and return when it is done.

        Parameters
        ----------
        grid, block : tuple of int
            One to three sizes.
        args : tuple
            Pointers as integers or None, numbers as NumPy scalars, structures as NumPy arrays of one element; Python's int and
            float count as 64 bits, as they do in CuPy.
        shared_mem : int
            Bytes of dynamic shared memory.

        Raises
        ------
        TypeError
            If the arguments do not fit the kernel's parameters.
        RuntimeError
            If threads of a block or lanes of a warp do not meet, or a kernel stopped itself.
        """
        sizes = [(*map(int, s), 1, 1)[:3] for s in (grid, block)]
        for what, size, limits in zip(("grid", "block"), sizes, ((2**31 - 1, 65535, 65535), (1024, 1024, 64))):
            if any(not 0 < n <= m for n, m in zip(size, limits)):
                raise ValueError(f"{self.name}: CUDA has no {what} of {size}")
        if np.prod(sizes[1]) > 1024:
            raise ValueError(f"{self.name}: a block of {sizes[1]} threads is more than CUDA's 1024")
        if not 0 <= shared_mem <= 48 * 1024:
            raise ValueError(f"{self.name}: {shared_mem} bytes of shared memory; without asking for more a block has 49152")
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments ({' '.join(self.parameters)}), got {len(args)}")
        values = [self._value(i, a, p) for i, (a, p) in enumerate(zip(args, self.parameters))]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        dims = [(ctypes.c_uint * 3)(*s) for s in sizes]
        with _lock:
            problem = _start().host_cuda_launch(self._entry, pointers, dims[0], dims[1], shared_mem, _seed)
        if problem is not None:
            raise RuntimeError(f"{self.name}{sizes}: {problem.decode()}")

    def _value(self, place: int, argument: Any, parameter: str) -> np.ndarray:
        kind, size = parameter[0], int(parameter[1:])
        if argument is None:
            argument = np.uint64(0)
        elif isinstance(argument, bool):
            argument = np.bool_(argument)
        elif isinstance(argument, int):
            argument = np.int64(argument) if argument < 2**63 else np.uint64(argument)
        elif isinstance(argument, float):
            argument = np.float64(argument)
        elif isinstance(argument, ctypes._SimpleCData):
            argument = np.ctypeslib.as_array(argument).reshape(())
        value = np.ascontiguousarray(argument).reshape(-1)
        given = value.dtype.kind
        fits = {
            "p": given in "iu",
            "f": given == "f",
            "i": given == "i" or (given == "b" and size == 1),
            "u": given == "u" or (given == "b" and size == 1),
            "s": given in "Vc" or value.dtype.fields is not None,
        }[kind]
        if value.size != 1 or not fits or value.dtype.itemsize != size:
            raise TypeError(
                f"{self.name}: argument {place} is {type(argument).__name__} of dtype {value.dtype} and {value.size} elements; "
                f"the parameter is {parameter} (p pointer, f float, i integer, u unsigned, s structure; and its bytes)"
            )
        return value
