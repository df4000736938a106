"""connect: from a process that knows nothing of the others to a communicator, or an error that says what is wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import mpi_world
from .communicator import Communicator
from .environment import Environment, environment, launchers_found
from .errors import CommunicationError, LaunchError
from .hierarchical import HierarchicalTransport
from .job import Job, Settings, remember
from .local import LocalTransport
from .mpi import MPITransport
from .shared import SharedTransport
from .transport import Transport

__all__ = ["TRANSPORTS", "best_transport", "connect", "from_mpi", "world_over"]


def connect(
    transport: str = "auto",
    environ: Mapping[str, str] | None = None,
    *,
    timeout: float | None = None,
    debug: str | None = None,
    store: Any = None,
    rank: int | None = None,
    size: int | None = None,
) -> Communicator:
    """The communicator of all ranks that were started together; the same one until it is closed.

    Parameters
    ----------
    transport : str, default "auto"
        - ``"auto"``: this process alone, unless the environment says that there are more ranks, or that an MPI launcher
          started this one. Ranks meet through MPI where an MPI launcher started them, else through TCP, where RANK, WORLD_SIZE,
          MASTER_ADDR and MASTER_PORT say how. Ranks of a node use shared memory, ranks on several nodes that and
          MPI (or TCP) between the nodes. DISTTORCH_TRANSPORT, if set, takes the place of ``"auto"``.
        - ``"local"``: a world of this process alone.
        - ``"mpi"``, ``"tcp"``: these alone, without shared memory.
        - ``"shared"``, ``"hierarchical"``: these, or an error that says why not; in a world of one, as ``"local"``.
        - ``"nccl"``: as ``"auto"``, and arrays of a GPU by NCCL, or an error that says why not.
    environ : mapping, optional
        Environment variables; `os.environ` if not given.
    timeout : float, optional
        Seconds that an operation may wait for other ranks; else DISTTORCH_TIMEOUT, else 1800.
    debug : {None, "mismatch"}
        Compare what the ranks call before data moves; else DISTTORCH_DEBUG.
    store : collectives.store.Store, optional
        Where ranks without MPI meet.
    rank, size : int, optional
        This process's place, where a `store` is given, which needs both. Otherwise what started the process says it.

    Raises
    ------
    TypeError
        If the timeout is no number.
    ValueError
        If there is no such transport or debug mode, the timeout is not positive, or `store` comes without `rank` and `size`.
    CommunicationError
        If the ranks do not meet, or cannot use the transport that was asked for.
    LaunchError
        If the environment and MPI disagree about the ranks: most often the program was started by the launcher of
        another MPI than the library that it loads, so that every process would be alone in its world.
    ImportError
        If MPI is wanted and there is no MPI library.

    Examples
    --------
    >>> connect("local")
    <Communicator world: rank 0 of 1 over local>
    """
    variables = os.environ if environ is None else environ
    if transport == "auto":
        transport = variables.get("DISTTORCH_TRANSPORT") or "auto"
    if transport not in TRANSPORTS:
        raise ValueError(f"there is no transport {transport!r}; it is one of {', '.join(TRANSPORTS)}")
    settings = Settings.of(variables, timeout, debug)
    key = transport, settings
    known = _worlds.get(key)
    if known is not None and not known._closed and known._failed is None and store is None:
        return known
    base = _meet(transport, variables, settings, store, rank, size)
    world = world_over(base, transport, settings, variables)
    _worlds[key] = world
    return world


_worlds: dict[Any, Communicator] = {}


def from_mpi(comm: Any, transport: str = "auto", *, timeout: float | None = None, debug: str | None = None) -> Communicator:
    """A communicator of the ranks of one of mpi4py's. Every rank of it must call.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Duplicated, so that its messages and ours cannot be mistaken for each other.
    transport, timeout, debug
        As for `connect`; transports that use MPI.
    """
    settings = Settings.of(os.environ, timeout, debug)
    mpi_world.start()
    return world_over(MPITransport(comm, settings.timeout), transport, settings, os.environ)


def _meet(
    transport: str,
    environ: Mapping[str, str],
    settings: Settings,
    store: Any,
    rank: int | None,
    size: int | None,
) -> Transport:
    """A plain transport between all ranks that were started together."""
    if transport == "local":
        return LocalTransport()
    if transport == "tcp" or store is not None:
        return _by_tcp(environ, settings, store, rank, size)
    told = environment(environ)
    by_mpi = any(found.launcher in _MPI_LAUNCHERS for found in launchers_found(environ))
    if transport == "mpi" or by_mpi:
        return _by_mpi(environ, settings)
    if told.world_size == 1:
        return LocalTransport()
    if told.launcher == "contract" and environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        return _by_tcp(environ, settings, store, rank, size)
    return _by_mpi(environ, settings)


def _by_tcp(
    environ: Mapping[str, str], settings: Settings, store: Any, rank: int | None, size: int | None
) -> Transport:
    from . import tcp

    if store is None:
        store, rank, size = tcp.rendezvous(environ, timeout=settings.timeout)
    elif rank is None or size is None:
        raise ValueError("connect: a store needs rank and size")
    return LocalTransport() if size == 1 else tcp.TCPTransport.world(store, rank, size, settings.timeout)


def _by_mpi(environ: Mapping[str, str], settings: Settings) -> Transport:
    MPI = mpi_world.load()
    found = {told.launcher: told for told in launchers_found(environ)}
    if "openmpi" in found and "mpich" not in found and MPI.get_vendor()[0].startswith(("MPICH", "MVAPICH")):
        # These do not find out that they are alone, they end the process in MPI_Init.
        raise LaunchError(f"{_says(found['openmpi'])}. {_wrong_launcher(MPI)}")
    told = environment(environ)
    world = mpi_world.start().COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    if told.launcher == "none" or (rank, size) == (told.rank, told.world_size or size):
        return MPITransport(world, settings.timeout)
    contradiction = f"{_says(told)}, but MPI says rank {rank} of {size}. "
    if size == 1:
        raise LaunchError(contradiction + _wrong_launcher(MPI))
    raise LaunchError(
        f"{contradiction}Variables of another job are left in the environment: unset those named, or start the "
        f"program with the launcher that set them. mpi4py loaded {_library(MPI)}."
    )


def world_over(base: Transport, choice: str, settings: Settings, environ: Mapping[str, str]) -> Communicator:
    """The communicator of all ranks of a plain transport."""
    job = Job(base, settings, environ)
    job.choice = choice
    world = Communicator(best_transport(base, job, range(base.size)), job, "world", range(base.size), settings.timeout)
    remember(job)
    if environ.get("DISTTORCH_VERBOSE") and world.rank == 0:
        print(world.describe(), file=sys.stderr)
    return world


def best_transport(base: Transport, job: Job, ranks: Sequence[int]) -> Transport:
    """The fastest transport for a group, on top of a plain one; what was asked for, where something was.

    Parameters
    ----------
    base : Transport
        Between the group's ranks.
    job : Job
    ranks : sequence of int
        The group's ranks in the world.

    Raises
    ------
    CommunicationError
        If a transport was asked for that these ranks cannot use.
    """
    if base.size == 1:
        if base.name in ("local", "mpi", "tcp") and not job.choice.startswith(("mpi", "tcp")):
            if base.name != "local":
                base.close()
            return LocalTransport()
        return base
    wanted = job.choice
    if wanted in ("mpi", "tcp"):
        return base
    nodes = [job.node_of[rank] for rank in ranks]
    numbers = {node: i for i, node in enumerate(dict.fromkeys(nodes))}
    node_of = [numbers[node] for node in nodes]
    if len(numbers) == 1:
        if job.shares_memory:
            return SharedTransport(base)
        if wanted == "shared":
            raise CommunicationError(f"connect: shared memory was asked for. {'; '.join(job.notes)}")
        return base
    if wanted == "shared" and len(ranks) == job.size:
        raise CommunicationError(
            f"connect: shared memory was asked for, but the {len(ranks)} ranks are on {len(numbers)} nodes; "
            "'hierarchical' uses it inside of each"
        )
    if wanted != "hierarchical" and (len(numbers) == len(ranks) or not job.shares_memory):
        return base

    def inside(part: Transport) -> Transport:
        return SharedTransport(part) if part.size > 1 and job.shares_memory else part

    return HierarchicalTransport.over(base, node_of, inside)


TRANSPORTS = ("auto", "local", "mpi", "shared", "hierarchical", "tcp", "nccl")
"""What `connect` may be asked for."""

_MPI_LAUNCHERS = ("mpich", "openmpi", "pmix")

_SOURCES = {
    "contract": "RANK and WORLD_SIZE",
    "mpich": "PMI_RANK and PMI_SIZE, as the mpiexec of MPICH and `srun --mpi=pmi2` set them",
    "openmpi": "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE, as the mpiexec of Open MPI sets them",
    "pmix": "PMIX_RANK, as the mpiexec of Open MPI and `srun --mpi=pmix` set it",
    "slurm": "SLURM_PROCID and SLURM_STEP_NUM_TASKS, as srun sets them",
}


# How ranks must be started for each family of MPI libraries, by the start of mpi4py's name for the vendor.
_STARTERS = {"Open MPI": "`srun --mpi=pmix`", "": "`srun --mpi=pmi2`"}


def _says(told: Environment) -> str:
    of = "" if told.world_size is None else f" of {told.world_size}"
    return f"the environment says rank {told.rank}{of} ({_SOURCES[told.launcher]})"


def _wrong_launcher(MPI: Any) -> str:
    path = _library_path()
    mpiexec = path.parent.parent / "bin" / "mpiexec" if path else None
    own = f"its own mpiexec ({mpiexec})" if mpiexec and mpiexec.exists() else "its own mpiexec"
    vendor = MPI.get_vendor()[0]
    srun = next(srun for name, srun in _STARTERS.items() if vendor.startswith(name))
    return (
        f"mpi4py loaded {_library(MPI)}: what started the program does not belong to this library, so every process "
        f"is alone in its world. Start it with {own}, with {srun}, or with dlaunch; or set MPI4PY_LIBMPI to the "
        "library that belongs to the launcher."
    )


def _library(MPI: Any) -> str:
    # Open MPI's text ends with a NUL, MPICH's has many lines.
    version = " ".join(MPI.Get_library_version().rstrip("\0").splitlines()[0].split())
    path = _library_path()
    return f"{version} from {path}" if path else version


def _library_path() -> Path | None:
    """The file of the MPI library in this process; None where the system has no list of loaded files."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    match = re.search(r"(/\S*/libmpi(?:ch|_abi)?\.so[.\d]*)$", maps.read_text(), re.MULTILINE)
    return Path(match[1]) if match else None
