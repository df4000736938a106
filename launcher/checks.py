"""What is refused before anything starts, although the command line can be read."""

import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.command_line import DEFAULT_PORT, Request, UsageError
from launcher.hosts import is_here, place

# Enough for every test of a large world on a small machine; a slip of the finger (-n 4000) still gets an answer.
RANKS_PER_CORE = 16
RANKS_AT_LEAST = 64


def check_target(target: Sequence[str]) -> None:
    """Raises UsageError if the ranks would not find their script or module."""
    if target[0] != "-m":
        path = Path(target[0])
        if not target[0]:
            raise UsageError("the name of the script is empty; a variable of the shell that is not set?")
        if target[0] == "-" or re.match(r"/dev/(stdin|fd)\b|/proc/self/fd\b", target[0]) or path.is_fifo():
            raise UsageError(f"the script {target[0]} can be read only once, and every rank reads it: write it to a file")
        if path.is_dir():
            raise UsageError(f"{target[0]} is a directory, not a script")
        if not path.is_file():
            raise UsageError(f"there is no script {target[0]} (current directory: {os.getcwd()})")
        if not os.access(path, os.R_OK):
            raise UsageError(f"the script {target[0]} cannot be read (permissions)")
        return
    name = target[1]
    here = [] if sys.flags.safe_path else [os.getcwd()]
    spec = importlib.machinery.PathFinder.find_spec(name.split(".")[0], [*here, *sys.path])
    if spec is None and re.fullmatch(r"\w+(\.\w+)*", name):
        spec = importlib.util.find_spec(name.split(".")[0])  # editable installations have finders of their own
    # Inner modules are looked for by hand, since find_spec would import their package, and with it all of its imports.
    full = name.split(".")[0]
    for part in [*name.split(".")[1:], None]:
        if spec is None:
            break
        if part is None:
            if spec.submodule_search_locations is None:
                return
            part = "__main__"
        full = f"{full}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(full, spec.submodule_search_locations or [])
    if spec is None:
        reason = f"{name} is a package without {full}" if full == f"{name}.__main__" else f"there is no module {full}"
        raise UsageError(f"-m {name}: {reason} (current directory: {os.getcwd()})")


def check_size(ranks: int, cores: int, oversubscribe: bool, environ: Mapping[str, str]) -> str | None:
    """Whether so many ranks fit: a warning to print, or None where there is nothing to say.

    In a Slurm allocation the ranks must fit into its tasks (SLURM_NTASKS). Elsewhere more ranks than cores only get a
    warning, up to `RANKS_PER_CORE` for each core. ``--oversubscribe`` silences all of it.

    Raises
    ------
    UsageError
        They do not fit.

    Examples
    --------
    >>> check_size(4, 2, False, {})
    '4 ranks share 2 cores, so each runs slower than it would alone (--oversubscribe: no warning)'
    >>> check_size(4, 2, True, {}) is None
    True
    """
    if oversubscribe:
        return None
    tasks = environ.get("SLURM_NTASKS", "") if "SLURM_JOB_ID" in environ else ""
    if tasks.isdigit():
        if ranks > int(tasks):
            raise UsageError(
                f"-n {ranks} does not fit: this Slurm allocation has {tasks} tasks (SLURM_NTASKS). Ask Slurm for more "
                f"(sbatch --ntasks={ranks}), or share them with --oversubscribe"
            )
        return None
    most = max(RANKS_AT_LEAST, RANKS_PER_CORE * cores)
    if ranks > most:
        raise UsageError(
            f"-n {ranks} does not fit: dlaunch may use {cores} cores here and starts at most {most} ranks on them. "
            f"--oversubscribe starts them all the same"
        )
    if ranks > cores:
        core = "1 core" if cores == 1 else f"{cores} cores"
        return f"{ranks} ranks share {core}, so each runs slower than it would alone (--oversubscribe: no warning)"
    return None


def ranks_here(request: Request, environ: Mapping[str, str]) -> int:
    """How many ranks this host gets, as far as the request says it: in an allocation, all that there are."""
    if request.node_rank is not None and request.nodes is not None:
        return request.ranks // request.nodes + (request.node_rank < request.ranks % request.nodes)
    if request.hosts and "SLURM_JOB_ID" not in environ:
        shares = place(request.hosts, request.ranks, request.oversubscribe)
        return sum(share.ranks for share in shares if is_here(share.host))
    return request.ranks


def check_nodes(request: Request, environ: Mapping[str, str]) -> Request:
    """Completes a request for a dlaunch that is started on each of several hosts by MASTER_ADDR and MASTER_PORT.

    Raises
    ------
    UsageError
        Nothing says where the ranks meet, or ``--nnodes`` comes without the hosts.
    """
    if request.nodes is not None and request.node_rank is None and not request.hosts and "SLURM_JOB_ID" not in environ:
        raise UsageError(
            f"--nnodes {request.nodes}: on which hosts? --hosts or --hostfile names them, or dlaunch is started on each "
            f"with --node-rank"
        )
    if request.node_rank is None or request.nodes is None:
        return request
    address = request.master_addr or request.env.get("MASTER_ADDR") or environ.get("MASTER_ADDR")
    if not address:
        if request.nodes > 1:
            raise UsageError("--node-rank needs --master-addr: a name or address of the host of --node-rank 0")
        address = "127.0.0.1"
    port = str(request.master_port or request.env.get("MASTER_PORT") or environ.get("MASTER_PORT") or DEFAULT_PORT)
    if not port.isdigit() or not 1 <= int(port) <= 65534:
        raise UsageError(f"MASTER_PORT={port} is no port; with --node-rank it is 1 to 65534")
    return request._replace(master_addr=address, master_port=int(port))


def check_first_launch(environ: Mapping[str, str]) -> None:
    """Raises UsageError if `dlaunch` itself was started once for each rank, by mpiexec or srun."""
    for rank, size, program in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpiexec"),
        ("PMI_RANK", "PMI_SIZE", "mpiexec or srun"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "srun"),
    ):
        if rank in environ and environ.get(size, "").isdigit() and int(environ[size]) > 1:
            raise UsageError(
                f"dlaunch is itself process {environ[rank]} of {environ[size]} ({rank}={environ[rank]}): start it "
                f"once, without {program} before it, for it starts the ranks. To start a job from within a rank, "
                f"unset {rank} first"
            )
