"""Where am I? The environment variables by which launchers tell a process its rank.

The contract is torchrun's: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE. Without it the variables of MPICH's and
Open MPI's launchers, of PMIx and of Slurm say the same. A new launcher is one line of the table below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .errors import LaunchError

__all__ = ["Environment", "environment", "launchers_found"]


@dataclass(frozen=True, slots=True)
class Environment:
    """What a launcher told this process.

    Attributes
    ----------
    rank : int
        This process's number, from 0.
    world_size : int or None
        The number of processes; None if only the MPI library can tell (PMIx alone).
    local_rank, local_world_size : int or None
        The same among the processes of this node; None if the launcher does not tell.
    launcher : str
        Who told: ``"contract"`` (RANK, WORLD_SIZE: torchrun, dlaunch), ``"mpich"``, ``"openmpi"``, ``"pmix"``,
        ``"slurm"``; ``"none"`` for a process that was started alone.
    """

    rank: int = 0
    world_size: int | None = 1
    local_rank: int | None = 0
    local_world_size: int | None = 1
    launcher: str = "none"


def environment(environ: Mapping[str, str] | None = None) -> Environment:
    """What the launcher told this process: the contract's variables, else those of MPI's launchers, else Slurm's.

    What the first launcher leaves open (ranks within the node, mostly) is taken from the others, if they agree with it.

    Parameters
    ----------
    environ : mapping, optional
        Environment variables; `os.environ` if not given.

    Raises
    ------
    LaunchError
        If variables are not integers, or do not fit together.

    Examples
    --------
    >>> environment({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    Environment(rank=3, world_size=8, local_rank=1, local_world_size=2, launcher='contract')
    >>> environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"})
    Environment(rank=0, world_size=1, local_rank=0, local_world_size=1, launcher='none')
    """
    found = launchers_found(environ)
    if not found:
        return Environment()
    first = found[0]
    for other in found[1:]:
        if other.rank == first.rank and (first.world_size is None or other.world_size in (None, first.world_size)):
            first = _completed(first, other)
    if first.world_size == 1:
        first = _completed(first, Environment())
    return first


def launchers_found(environ: Mapping[str, str] | None = None) -> list[Environment]:
    """What each launcher that left its variables told, in the order in which they are believed."""
    variables = os.environ if environ is None else environ
    return [told for launcher in _LAUNCHERS if (told := _told(launcher, variables)) is not None]


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The variables of one launcher; those of the world's size in the order in which they are looked for."""

    name: str
    rank: str
    world_size: tuple[str, ...]
    local_rank: str
    local_world_size: str
    present: tuple[str, ...]
    """The variables any of which shows that this launcher started the process."""


# In the order in which they are believed: an inner launcher comes before the one that it was started by.
_LAUNCHERS = (
    _Launcher("contract", "RANK", ("WORLD_SIZE",), "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("RANK", "WORLD_SIZE")),
    _Launcher("mpich", "PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ("PMI_SIZE",)),
    _Launcher(
        "openmpi", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE", ("OMPI_COMM_WORLD_RANK",),
    ),
    # PMIx tells the size through its library only.
    _Launcher("pmix", "PMIX_RANK", (), "", "", ("PMIX_RANK",)),
    # Only in a step: in the shell of sbatch or salloc a program runs once, whatever SLURM_NTASKS says.
    _Launcher(
        "slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE", ("SLURM_STEP_ID",),
    ),
)  # fmt: skip


def _completed(told: Environment, other: Environment) -> Environment:
    missing = [name for name in ("world_size", "local_rank", "local_world_size") if getattr(told, name) is None]
    return replace(told, **{name: getattr(other, name) for name in missing})


def _told(launcher: _Launcher, environ: Mapping[str, str]) -> Environment | None:
    """What one launcher's variables say; None if it did not start this process."""
    present = [variable for variable in launcher.present if environ.get(variable)]
    if not present:
        return None
    rank = _integer(environ, launcher.rank)
    if rank is None:
        raise LaunchError(f"{present[0]}={environ[present[0]]} is set, but {launcher.rank} is not")
    sizes = [variable for variable in launcher.world_size if environ.get(variable)]
    if launcher.world_size and not sizes:
        raise LaunchError(f"{launcher.rank}={rank} is set, but {' or '.join(launcher.world_size)} is not")
    size = _integer(environ, sizes[0]) if sizes else None
    if size is not None and not 0 <= rank < size:
        raise LaunchError(f"{launcher.rank}={rank} is no rank of {sizes[0]}={size}: ranks are 0 to {size - 1}")
    here = _slurm_tasks_here(environ) if launcher.name == "slurm" else _integer(environ, launcher.local_world_size)
    local = _integer(environ, launcher.local_rank)
    if local is not None and here is not None and not 0 <= local < here:
        raise LaunchError(
            f"{launcher.local_rank}={local} is no rank of this node's {here} "
            f"({launcher.local_world_size}={environ[launcher.local_world_size]})"
        )
    return Environment(rank, size, local, here, launcher.name)


def _integer(environ: Mapping[str, str], variable: str) -> int | None:
    text = environ.get(variable, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise LaunchError(f"{variable}={text!r} is not an integer") from None
    if value < 0:
        raise LaunchError(f"{variable}={text} is negative")
    return value


def _slurm_tasks_here(environ: Mapping[str, str]) -> int | None:
    """This node's entry in a list like ``2(x3),1``: three nodes with two tasks and one with one."""
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE")
    node = _integer(environ, "SLURM_NODEID")
    if not tasks or node is None:
        return None
    counts: list[int] = []
    for entry in tasks.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry.strip())
        if match is None:
            raise LaunchError(f"SLURM_STEP_TASKS_PER_NODE={tasks!r}: cannot read {entry!r}; expected 2 or 2(x3)")
        counts += [int(match[1])] * int(match[2] or 1)
    if node >= len(counts):
        raise LaunchError(f"SLURM_NODEID={node}, but SLURM_STEP_TASKS_PER_NODE={tasks!r} lists {len(counts)} nodes")
    return counts[node]
