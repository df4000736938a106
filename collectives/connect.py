"""connect: from a process that knows nothing of the others to a communicator, or an error that says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import mpi_world
from .communicator import Communicator
from .environment import Environment, environment, launchers_found
from .errors import LaunchError
from .local import LocalCommunicator
from .mpi import MPICommunicator

__all__ = ["TRANSPORTS", "connect"]


def connect(transport: str = "auto", environ: Mapping[str, str] | None = None) -> Communicator:
    """The communicator of all ranks that were started together.

    Parameters
    ----------
    transport : {"auto", "local", "mpi"}, default "auto"
        ``"local"`` is a world of this process alone. ``"auto"`` is that too, unless the environment says that there
        are more ranks, or that an MPI launcher started this one.
    environ : mapping, optional
        Environment variables; `os.environ` if not given.

    Raises
    ------
    ValueError
        If there is no such transport.
    LaunchError
        If the environment and MPI disagree about the ranks: most often the program was started by the launcher of
        another MPI than the library that it loads, so that every process would be alone in its world.
    ImportError
        If MPI is wanted and there is no MPI library.

    Examples
    --------
    >>> connect("local")
    <LocalCommunicator rank 0 of 1>
    """
    if transport == "auto":
        told = environment(environ)
        by_mpi = any(found.launcher in ("mpich", "openmpi", "pmix") for found in launchers_found(environ))
        transport = "mpi" if told.world_size != 1 or by_mpi else "local"
    if transport not in TRANSPORTS:
        raise ValueError(f"there is no transport {transport!r}; it is one of auto, {', '.join(TRANSPORTS)}")
    return TRANSPORTS[transport](environ)


def _connect_local(environ: Mapping[str, str] | None) -> Communicator:
    return LocalCommunicator()


def _connect_mpi(environ: Mapping[str, str] | None) -> Communicator:
    MPI = mpi_world.load()
    found = {told.launcher: told for told in launchers_found(environ)}
    if "openmpi" in found and "mpich" not in found and MPI.get_vendor()[0].startswith(("MPICH", "MVAPICH")):
        # These do not find out that they are alone, they end the process in MPI_Init.
        raise LaunchError(f"{_says(found['openmpi'])}. {_wrong_launcher(MPI)}")
    told = environment(environ)
    world = mpi_world.start().COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    if told.launcher == "none" or (rank, size) == (told.rank, told.world_size or size):
        return MPICommunicator.world()
    contradiction = f"{_says(told)}, but MPI says rank {rank} of {size}. "
    if size == 1:
        raise LaunchError(contradiction + _wrong_launcher(MPI))
    raise LaunchError(
        f"{contradiction}Variables of another job are left in the environment: unset those named, or start the "
        f"program with the launcher that set them. mpi4py loaded {_library(MPI)}."
    )


TRANSPORTS: dict[str, Callable[[Mapping[str, str] | None], Communicator]] = {
    "local": _connect_local,
    "mpi": _connect_mpi,
}

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
