"""The surroundings in which a worker process is started: one thread for matrix products, and no part in an MPI job.

A child has its parent's environment and, if forked, its libraries' settings, so both are changed around the start and
restored afterwards.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...backend.threads import VARIABLES, loaded

__all__ = ["context_for", "surroundings"]

#: what tells a process that it is a rank of an MPI job: a worker that a script makes import mpi4py must not join it
RANK_VARIABLES = ("PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_", "PRRTE_", "HYDRA_", "HYDI_", "MPI_LOCAL", "MPIR_")

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


# Two threads that start workers at once would take each other's surroundings for those to go back to. A worker may have been forked
# within the block, by the thread that it goes on as.
_one_at_a_time = threading.RLock()


@contextmanager
def surroundings() -> Iterator[None]:
    """While processes are started: the environment and the libraries' threads as workers shall have them."""
    with _one_at_a_time, _changed():
        yield


@contextmanager
def _changed() -> Iterator[None]:
    changed = {n: value for n, value in os.environ.items() if n.startswith(RANK_VARIABLES) or n in VARIABLES}
    threads = [(set_threads, get_threads()) for get_threads, set_threads in loaded()]
    try:
        for name in changed:
            del os.environ[name]
        os.environ.update(dict.fromkeys(VARIABLES, "1"))
        for set_threads, _ in threads:
            set_threads(1)
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork beside threads. Ours hold no lock that a worker takes, and BLAS's are
            # told of the fork.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            yield
    finally:
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(changed)
        for set_threads, count in threads:
            set_threads(count)
