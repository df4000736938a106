"""The surroundings in which a worker process is started: one thread for matrix products, and no part in an MPI job.

A child has its parent's environment and, if forked, its libraries' settings, so both are changed around the start and
restored afterwards.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["context_for", "surroundings"]

#: what tells a process that it is a rank of an MPI job: a worker that a script makes import mpi4py must not join it
RANK_VARIABLES = ("PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_", "PRRTE_", "HYDRA_", "HYDI_", "MPI_LOCAL", "MPIR_")

#: of libraries not loaded yet, that is in workers that are not forked
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: of libraries that are: parts of their file names, and the functions that ask for and set the number of threads
THREAD_FUNCTIONS = (
    ("openblas", "scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("openblas", "openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas", "openblas_get_num_threads", "openblas_set_num_threads"),
    ("libgomp", "omp_get_max_threads", "omp_set_num_threads"),
    ("libomp", "omp_get_max_threads", "omp_set_num_threads"),
    ("libiomp", "omp_get_max_threads", "omp_set_num_threads"),
)

START_METHOD = "DISTTORCH_WORKER_START_METHOD"


def context_for(given: Any) -> Any:
    """The multiprocessing context for workers, from what the user gave: a context, a start method's name or None.

    Raises
    ------
    ValueError
        If there is no such start method here.
    """
    if given is not None and not isinstance(given, str):
        if not hasattr(given, "Process") or not hasattr(given, "Pipe"):
            raise ValueError(
                f"multiprocessing_context must be a start method or a multiprocessing context, got {given!r}"
            )
        return given
    told = multiprocessing.get_start_method(allow_none=True)
    name = given or os.environ.get(START_METHOD) or told or "fork"
    known = multiprocessing.get_all_start_methods()
    if name not in known:
        raise ValueError(f"there is no start method {name!r} for worker processes; there are {', '.join(known)}")
    return multiprocessing.get_context(name)


@contextmanager
def surroundings() -> Iterator[None]:
    """While processes are started: the environment and the libraries' threads as workers shall have them."""
    changed = {n: value for n, value in os.environ.items() if n.startswith(RANK_VARIABLES) or n in THREAD_VARIABLES}
    threads = [(set_threads, get_threads()) for get_threads, set_threads in _loaded()]
    try:
        for name in changed:
            del os.environ[name]
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
        for set_threads, _ in threads:
            set_threads(1)
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork beside threads. Ours hold no lock that a worker takes, and BLAS's are
            # told of the fork.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            yield
    finally:
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(changed)
        for set_threads, count in threads:
            set_threads(count)


def _loaded() -> list[tuple[Any, Any]]:
    """The functions of those libraries of `THREAD_FUNCTIONS` that this process has loaded."""
    with open("/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].rstrip() for line in file if ".so" in line}
    found = []
    for part, get_name, set_name in THREAD_FUNCTIONS:
        for path in paths:
            if part not in os.path.basename(path):
                continue
            try:
                library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
            except OSError:
                continue  # its file was replaced since
            if hasattr(library, get_name) and hasattr(library, set_name):
                found.append((getattr(library, get_name), getattr(library, set_name)))
    return found
