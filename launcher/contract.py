"""The environment that `dlaunch` gives to every rank: the one place where it is written down.

What a rank finds
-----------------

====================  ====================================================================================
variable              meaning
====================  ====================================================================================
RANK                  this process, 0 to WORLD_SIZE - 1; the same number as its rank in MPI.COMM_WORLD
WORLD_SIZE            how many ranks the job has
LOCAL_RANK            this process among those of its host, 0 to LOCAL_WORLD_SIZE - 1; picks the GPU
LOCAL_WORLD_SIZE      how many ranks run on this host
MASTER_ADDR           a name or address of the host of rank 0 that every rank can reach: the first of ``--hosts`` or
                      of the Slurm allocation, else 127.0.0.1; ``--master-addr`` (kept if already set)
MASTER_PORT           a TCP port that was free at the start; ``--master-port`` (kept if already set)
OMP_NUM_THREADS       threads a rank: the cores it may use // the ranks that share them, at least 1, and no more than its
                      part of a container's quota; or ``--threads``
OPENBLAS_NUM_THREADS  the same for OpenBLAS, which is inside NumPy's wheels
MKL_NUM_THREADS       the same for MKL
OPENBLAS_CORETYPE     ``Haswell`` on AMD's Zen 4, where OpenBLAS does not take the fastest kernels by itself
                      (`launcher/processor.py`); elsewhere not set
PYTHONFAULTHANDLER    1, so that a segmentation fault says in which Python line
UCX_DEBUG_SIGNO       0, so that SIGHUP ends a rank: UCX, which carries MPI's messages, would else take it for itself
DISTTORCH_LAUNCHER    ``dlaunch``: the rank was started by this launcher, which ends the job when a rank fails
DISTTORCH_FAILED      1, once the rank's script has failed: exit functions must not wait for other ranks
DISTTORCH_RUN_DIR     the private directory of one start of the job; every process of it carries the variable
DISTTORCH_ATTEMPT     0 for the first start of the job, 1 for its first restart, ... (``--max-restarts``)
DISTTORCH_TIMEOUT     seconds that a collective may wait for a rank: ``--timeout``; not set without it
DISTTORCH_DEBUG       ``mismatch``: compare the ranks' calls before data moves: ``--debug``; not set without it
DISTTORCH_FLIGHT_DIR  where ranks write flight records: the directory of ``--log-dir`` (kept if already set); after a
                      restart ``attempt-1`` in it, and so on
CUDA_VISIBLE_DEVICES  the GPUs of the host that the job uses, with ``--gpus``; all ranks of a host see the same
====================  ====================================================================================

Under ``--engine plain`` there is nothing else: no variable of an MPI's process manager, and the ranks meet at
MASTER_ADDR:MASTER_PORT, where rank 0 listens.

RANK to MASTER_PORT mean what they mean under torchrun (https://docs.pytorch.org/docs/stable/elastic/run.html,
"Environment Variables"). What the user has set wins over every default: the thread counts one by one (an
OMP_NUM_THREADS alone also decides for OpenBLAS and MKL), OPENBLAS_CORETYPE, PYTHONFAULTHANDLER, UCX_DEBUG_SIGNO,
MASTER_ADDR and MASTER_PORT.
Options and ``--env`` are said for this job, so they win over the environment. One value is taken away unless
``--env`` gives it: an OPENBLAS_CORETYPE that keeps NumPy from using the processor.

What a rank tells
-----------------

When a rank has started MPI it sends a SIGCHLD to its parent, the supervisor, which then looks which memory MPI shares and
removes that if the rank is killed. `launcher/script.py` does so for a script that imports mpi4py.MPI, and `collectives`
where it starts MPI itself.

Where it comes from
-------------------

MPI's process manager tells each process its place in variables of its own; `PLACES` lists them. Slurm's are read
last: under `mpiexec` inside an allocation they describe the processes that Slurm started, which need not be the ranks.
The plain engine tells each supervisor its place itself.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LAUNCHER_MARK = "DISTTORCH_LAUNCHER"
RUN_DIRECTORY = "DISTTORCH_RUN_DIR"
ATTEMPT = "DISTTORCH_ATTEMPT"
TIMEOUT = "DISTTORCH_TIMEOUT"
DEBUG = "DISTTORCH_DEBUG"
FLIGHT_DIRECTORY = "DISTTORCH_FLIGHT_DIR"
# What dlaunch sets for one start of a job: inside a rank of one, these are not the user's.
_OF_A_JOB = ("MASTER_ADDR", "MASTER_PORT", ATTEMPT, FLIGHT_DIRECTORY, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

# Variables that process managers set for one process. The settings that users make for them (..._MCA_...) stay.
_CONNECTION = re.compile(
    r"PMI_|PMIX_(?!MCA_)|PRTE_(?!MCA_)|HYDI_|MPI_LOCALN?RANK"
    r"|OMPI_(?!MCA_|CC$|CXX$|FC$|CFLAGS$|LDFLAGS$)|OMPI_MCA_(num_procs|initial_wdir|cpu_type|PREFIXES)$"
)


class Place(NamedTuple):
    """Where a rank stands in its job, all counted from 0 and in ranks."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


# family: the variables of rank, world size, rank on this host, ranks on this host. The first that has all four counts:
# Slurm's pmi2 sets PMI's rank and size, and leaves the rest to its own variables.
PLACES = {
    "Open MPI": tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
    "PMI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
}


def find_place(environ: Mapping[str, str]) -> Place | None:
    """The place that a process manager gave to this process, or None where none did.

    Raises
    ------
    ValueError
        A process manager set a rank, but none has set all four, or not to numbers.

    Examples
    --------
    >>> find_place({"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"})
    Place(rank=1, world_size=4, local_rank=1, local_world_size=2)
    >>> find_place({}) is None
    True
    """
    incomplete = []
    for family, names in PLACES.items():
        if names[0] not in environ:
            continue
        values = [environ.get(name, "") for name in names]
        if family == "Slurm":
            values[3] = _tasks_on_node(values[3], environ.get("SLURM_NODEID", "0"))
        if all(value.isdigit() for value in values):
            return Place(*map(int, values))
        incomplete += [f"{name}={environ.get(name, '(not set)')}" for name in names]
    if incomplete:
        raise ValueError(f"the process manager gave an incomplete place: {', '.join(incomplete)}")
    return None


def place_variables(place: Place) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE of a rank."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
    }


def thread_variables(
    asked: int | None, cores: int, local_world_size: int, environ: Mapping[str, str], at_a_time: float | None = None
) -> dict[str, str]:
    """The thread counts that have to be set for a rank, without those that the user has set already.

    Parameters
    ----------
    asked : int or None
        The value of ``--threads``, which wins over the environment.
    cores : int
        Cores that this rank may use.
    local_world_size : int
        Ranks that share these cores.
    environ : mapping
        The environment as the user made it.
    at_a_time : float, optional
        How many processors' time the rank may use, where a container's quota says so (`launcher.control_groups`).

    Examples
    --------
    >>> thread_variables(None, 8, 3, {"MKL_NUM_THREADS": "1"})
    {'OMP_NUM_THREADS': '2', 'OPENBLAS_NUM_THREADS': '2'}
    """
    if asked is not None:
        return dict.fromkeys(THREAD_VARIABLES, str(asked))
    # OpenMP allows a list, one number for each nesting level: "4,2".
    outer = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    fitting = cores // max(1, local_world_size)
    if at_a_time is not None:
        fitting = min(fitting, int(at_a_time))
    default = outer if outer.isdigit() and int(outer) > 0 else str(max(1, fitting))
    return {name: default for name in THREAD_VARIABLES if not environ.get(name)}


def job_variables(
    run_directory: str, address: str, port: int, environ: Mapping[str, str], attempt: int = 0
) -> dict[str, str]:
    """What all ranks of a job share: the marks of the job, and the defaults that the user has not set."""
    variables = {LAUNCHER_MARK: "dlaunch", RUN_DIRECTORY: run_directory, ATTEMPT: str(attempt)}
    if not environ.get("MASTER_ADDR"):
        variables["MASTER_ADDR"] = address
    if not environ.get("MASTER_PORT"):
        variables["MASTER_PORT"] = str(port)
    for name, value in (("PYTHONFAULTHANDLER", "1"), ("UCX_DEBUG_SIGNO", "0")):
        if not environ.get(name):
            variables[name] = value
    return variables


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without a process manager's connection, which would mislead the `mpiexec` of another job.

    A rank may start a job of its own, as may a single process under ``mpiexec -n 1`` or ``srun``. Of a job of dlaunch's
    the place and the meeting point are left out, too.

    Examples
    --------
    >>> outside({"PMI_RANK": "0", "PMI_FD": "9", "OMPI_MCA_btl": "self,sm", "HOME": "/home/ada"})
    {'OMPI_MCA_btl': 'self,sm', 'HOME': '/home/ada'}
    """
    nested = _OF_A_JOB if LAUNCHER_MARK in environ else ()
    return {name: value for name, value in environ.items() if not _CONNECTION.match(name) and name not in nested}


def usable_cores() -> int:
    """Cores on which this process may run: its affinity, which taskset, Slurm and containers narrow."""
    return len(os.sched_getaffinity(0))


def _tasks_on_node(counts: str, node: str) -> str:
    """Slurm's run-length list "4(x2),3" read at one node's index; an empty string where it says nothing about it."""
    index = int(node) if node.isdigit() else 0
    for count, repeat in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        index -= int(repeat or 1)
        if index < 0:
            return count
    return ""
