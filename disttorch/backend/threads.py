"""How many threads the libraries use that compute on the CPU: NumPy's BLAS, OpenMP.

They are asked and told by their own functions, found among the libraries that this process has loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import numpy

__all__ = ["VARIABLES", "get_num_threads", "libraries", "loaded", "set_num_threads"]

#: parts of the libraries' file names, and the functions that ask for and set the number of threads
FUNCTIONS = (
    ("openblas", "scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("openblas", "openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas", "openblas_get_num_threads", "openblas_set_num_threads"),
    ("mkl_rt", "MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("libgomp", "omp_get_max_threads", "omp_set_num_threads"),
    ("libomp", "omp_get_max_threads", "omp_set_num_threads"),
    ("libiomp", "omp_get_max_threads", "omp_set_num_threads"),
)
#: for libraries that are loaded later, and processes that are started
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def get_num_threads() -> int:
    """How many threads a matrix product on the CPU may use; as ``torch.get_num_threads``."""
    found = loaded()
    if found:
        return found[0][0]()
    for name in VARIABLES:  # NumPy with a BLAS that cannot be asked
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return len(os.sched_getaffinity(0))


def set_num_threads(count: int, /) -> None:
    """Set how many threads matrix products and other operations on the CPU use; as ``torch.set_num_threads``.

    It holds for the libraries that are loaded now; those loaded later, and processes started later, find it in the environment.

    Raises
    ------
    TypeError
        If it is no integer.
    RuntimeError
        If it is not positive, or NumPy's library for matrix products has no function for it.
    """
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads expects an int, but got {type(count).__name__}")
    if count < 1:
        raise RuntimeError("set_num_threads expects a positive integer")
    found = loaded()
    for _, set_threads in found:
        set_threads(count)
    os.environ.update(dict.fromkeys(VARIABLES, str(count)))
    if not found:
        blas = numpy.show_config("dicts")["Build Dependencies"]["blas"]["name"]
        raise RuntimeError(f"set_num_threads: NumPy's BLAS here ({blas}) cannot be told; set OMP_NUM_THREADS before Python starts")


def loaded() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """The functions that ask and tell, of those libraries of `FUNCTIONS` that this process has loaded."""
    with open("/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].rstrip() for line in file if ".so" in line}
    found = []
    for part, get_name, set_name in FUNCTIONS:
        for path in sorted(paths):
            if part not in os.path.basename(path):
                continue
            try:
                library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
            except OSError:
                continue  # its file was replaced since
            if hasattr(library, get_name) and hasattr(library, set_name):
                found.append((getattr(library, get_name), getattr(library, set_name)))
    return found


def libraries() -> dict[str, str]:
    """The libraries that compute on the CPU, by what they are for."""
    blas = numpy.show_config("dicts")["Build Dependencies"]["blas"]
    return {
        "arrays": f"NumPy {numpy.__version__}",
        "matrix products": f"{blas['name']} {blas['version']}, {get_num_threads()} threads",
    }
