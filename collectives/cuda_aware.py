"""Whether the MPI library of this process takes device memory: what it says itself, or what the environment says of it."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["cuda_aware"]


def cuda_aware(environ: Mapping[str, str] | None = None, library: Callable[[], Any] | None = None) -> bool:
    """Whether MPI can be given arrays of a GPU.

    DISTTORCH_CUDA_AWARE=1 or 0 decides. Otherwise the library is asked: Open MPI by ``MPIX_Query_cuda_support``, MPICH by
    ``MPIX_GPU_query_support``. Cray MPICH takes device memory where MPICH_GPU_SUPPORT_ENABLED=1 is set, MVAPICH where
    MV2_USE_CUDA=1 or MVP_USE_CUDA=1 is.

    Parameters
    ----------
    environ : mapping, optional
        Environment variables; `os.environ` if not given.
    library : callable, optional
        Gives the loaded library as `ctypes.CDLL` does; the one of mpi4py if not given.

    Raises
    ------
    ValueError
        If DISTTORCH_CUDA_AWARE is neither 0 nor 1.

    Examples
    --------
    >>> cuda_aware({"DISTTORCH_CUDA_AWARE": "1"}), cuda_aware({"DISTTORCH_CUDA_AWARE": "0"})
    (True, False)
    """
    variables = os.environ if environ is None else environ
    forced = variables.get("DISTTORCH_CUDA_AWARE")
    if forced:
        if forced not in ("0", "1"):
            raise ValueError(f"DISTTORCH_CUDA_AWARE={forced!r} is neither 0 nor 1")
        return forced == "1"
    for name in ("MPICH_GPU_SUPPORT_ENABLED", "MV2_USE_CUDA", "MVP_USE_CUDA"):
        if variables.get(name) == "1":
            return True
    loaded = (library or _loaded_library)()
    # Open MPI: int MPIX_Query_cuda_support(void).
    if (query := getattr(loaded, "MPIX_Query_cuda_support", None)) is not None:
        query.restype, query.argtypes = ctypes.c_int, ()
        return bool(query())
    # MPICH: int MPIX_GPU_query_support(int gpu_type, int *is_supported), of type MPIX_GPU_SUPPORT_CUDA = 0.
    if (query := getattr(loaded, "MPIX_GPU_query_support", None)) is not None:
        query.restype, query.argtypes = ctypes.c_int, (ctypes.c_int, ctypes.POINTER(ctypes.c_int))
        supported = ctypes.c_int(0)
        return query(0, ctypes.byref(supported)) == 0 and bool(supported.value)
    return False


def _loaded_library() -> Any:
    """The MPI library that this process has loaded, by its file: its names are not those of the whole process."""
    maps = Path("/proc/self/maps")
    text = maps.read_text() if maps.exists() else ""
    found = re.search(r"(/\S*/libmpi(?:ch|_abi|_cray)?\.so[.\d]*)$", text, re.MULTILINE)
    return ctypes.CDLL(found[1]) if found else None
