"""What starts the ranks: mpiexec, srun, or dlaunch itself. One table, `ENGINES`, and the rule that chooses.

``auto`` is the mpiexec that belongs to mpi4py's MPI library. In a Slurm allocation where that library has none, as with
the MPI of some machines' vendors, it is srun, if this Slurm speaks the library's protocol; with another one every process
would be alone in a world of one. ``--node-rank`` is the plain engine's. dlaunch asks nobody for hosts: that is a scheduler's.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from launcher import process, remote
from launcher.command_line import Request, UsageError
from launcher.hosts import is_here
from launcher.launch import Launch, with_place
from launcher.mpi import MpiError, find_library, find_mpi


class Engine(NamedTuple):
    """One way to start the ranks."""

    name: str  # of the program that is run for it: mpiexec, srun, or "the plain engine"
    what: str  # the MPI behind it, for the user
    end: signal.Signals  # ends that program and what is left of the job
    lets_go: bool  # whether it is better to let the ranks go, which ends it as well, because it says much when it is ended
    command: Callable[[Launch], list[str]]
    environment: Callable[[Launch, Mapping[str, str]], dict[str, str]]  # what the program needs on top of the user's


def choose(request: Request, environ: Mapping[str, str]) -> Engine:
    """The engine for a request.

    Raises
    ------
    MpiError
        There is no MPI for it, or none that it can start.
    UsageError
        The engine needs an allocation and there is none.
    """
    name = request.engine
    if name == "auto" and request.node_rank is not None:
        name = "plain"
    if name != "auto":
        return ENGINES[name](request, environ)
    try:
        return _mpiexec(request, environ)
    except MpiError as error:
        if "SLURM_JOB_ID" not in environ or request.mpi != "auto":
            raise
        try:
            return _srun(request, environ)
        except MpiError as other:
            raise MpiError(f"{error}. In this allocation, srun does not start its ranks either: {other}") from None


def _mpiexec(request: Request, environ: Mapping[str, str]) -> Engine:
    mpi = find_mpi(request.mpi, environ)

    def command(launch: Launch) -> list[str]:
        return mpi.command(launch._replace(program=with_place(launch.program, launch.directory)))

    def environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
        return {**mpi.engine.environment(launch, environ), **_allocation_environment(environ)}

    return Engine("mpiexec", f"{mpi.engine.name}: {mpi.version} ({mpi.library})", mpi.engine.end, False, command, environment)


def _allocation_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What starts a job step where `dlaunch` runs inside one (``srun --pty bash``).

    Since Slurm 20.11 a step otherwise waits for the cores of the step that waits for it.
    """
    return {"SLURM_OVERLAP": "1"} if "SLURM_STEP_ID" in environ else {}


def protocols(flavour: str, version: str) -> tuple[str, ...]:
    """The values of ``srun --mpi`` with which a flavour of MPI finds its world.

    Examples
    --------
    >>> protocols("MPICH", "MPICH Version: 5.0.2"), protocols("Open MPI", "Open MPI v5.0.11")
    (('pmi2',), ('pmix',))
    """
    if flavour == "Open MPI":  # from release 5 on it speaks nothing else
        return ("pmix",)
    return ("cray_shasta", "pmi2") if "CRAY" in version.upper() else ("pmi2",)


def spoken(listed: str) -> set[str]:
    """The protocols in what ``srun --mpi=list`` says.

    Examples
    --------
    >>> sorted(spoken("MPI plugin types are...\\n\\tpmi2\\n\\tnone\\nspecific pmix plugin versions available: pmix_v4\\n"))
    ['none', 'pmi2', 'pmix_v4']
    """
    words = re.findall(r"^\s*(?:srun: )?(?:specific pmix plugin versions available: )?([\w,]+)$", listed, re.MULTILINE)
    return {word for line in words for word in line.split(",")}


def _srun(request: Request, environ: Mapping[str, str]) -> Engine:
    if "SLURM_JOB_ID" not in environ:
        raise UsageError("--engine srun starts the ranks in an allocation, and this is none: sbatch or salloc makes one")
    srun = shutil.which("srun", path=environ.get("PATH"))
    if srun is None:
        raise MpiError("there is no srun on PATH")
    flavour, version, library = find_library(environ)
    said = subprocess.run(
        [srun, "--mpi=list"],
        env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    listed = spoken(said.stdout + said.stderr)
    wanted = protocols(flavour.name, version)
    protocol = next((protocol for protocol in wanted if protocol in listed), None)
    if protocol is None:
        raise MpiError(
            f"{flavour.name} needs srun --mpi={' or '.join(wanted)}, and this Slurm has {', '.join(sorted(listed)) or 'nothing'} "
            f"(srun --mpi=list)"
        )

    binds = _slurm_binds(environ)

    def command(launch: Launch) -> list[str]:
        options = [f"--mpi={protocol}", f"--ntasks={launch.ranks}", "--quiet", "--unbuffered", "--input=0", "--kill-on-bad-exit=0"]
        if binds and "SLURM_CPU_BIND" not in environ:
            options.append("--cpu-bind=none")  # --bind binds the ranks
        if environ.get("SLURM_CPUS_PER_TASK"):  # since Slurm 22.05 a step does not take this over from the job
            options.append(f"--cpus-per-task={environ['SLURM_CPUS_PER_TASK']}")
        if launch.oversubscribe:
            options.append("--overcommit")
        if launch.shares:
            options.append("--distribution=arbitrary")
        elif launch.nodes:
            options += [f"--nodes={launch.nodes}", f"--ntasks-per-node={launch.per_node}"]
        return [srun, *options, *with_place(launch.program, launch.directory)]

    def environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
        added = _allocation_environment(environ)
        if launch.shares:
            path = os.path.join(launch.directory, "tasks")
            if os.path.isdir(launch.directory):
                Path(path).write_text("".join(f"{share.host}\n" * share.ranks for share in launch.shares))
            added["SLURM_HOSTFILE"] = path
        if flavour.name == "Intel MPI" and "I_MPI_PMI_LIBRARY" not in environ and (found := _pmi_library()):
            added["I_MPI_PMI_LIBRARY"] = found
        return added

    what = f"{flavour.name}: {version} ({library}), srun --mpi={protocol}"
    return Engine("srun", what, signal.SIGTERM, True, command, environment)


def _slurm_binds(environ: Mapping[str, str]) -> bool:
    """Whether this Slurm binds tasks to cores; one that does not complains of being told not to."""
    scontrol = shutil.which("scontrol", path=environ.get("PATH"))
    if scontrol is None:
        return True
    said = subprocess.run(
        [scontrol, "show", "config"],
        env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return re.search(r"^TaskPlugin\s*=\s*(\(null\)|task/none)\s*$", said.stdout, re.MULTILINE) is None


def _pmi_library() -> str | None:
    """Slurm's client library, which Intel MPI has to be told of."""
    directories = ("/usr/lib64", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/opt/slurm/lib")
    paths = (os.path.join(directory, "libpmi2.so") for directory in directories)
    return next((path for path in paths if os.path.exists(path)), None)


# How agents start on the nodes of an allocation, where ssh need not be allowed.
_BY_SRUN = "srun --nodes=1 --ntasks=1 --nodelist={host} --overlap --mpi=none --quiet --unbuffered --kill-on-bad-exit=0"


def _plain(request: Request, environ: Mapping[str, str]) -> Engine:
    directory = os.path.dirname(os.path.abspath(__file__))
    default = remote.SSH
    if "SLURM_JOB_ID" in environ and not request.hosts:
        default = _BY_SRUN + (" --cpu-bind=none" if _slurm_binds(environ) else "")

    def command(launch: Launch) -> list[str]:
        parts = []
        shares = [share._asdict() for share in launch.shares]
        for share in shares or [{"host": "localhost", "first": 0, "ranks": launch.ranks}]:
            host = str(share["host"])
            fd = launch.links.get(host)
            started = None
            if fd is None and host != "localhost" and not is_here(host):
                started = remote.python_on_host(launch.rsh or default, host, [os.path.join(directory, "agent.py")])
            parts.append({**share, "command": started, "fd": fd})
        plan = {
            "world_size": launch.ranks, "kernel": process.kernel(), "attempt": launch.attempt, "parts": parts,
            "program": launch.program, "exported": launch.exported,
        }  # fmt: skip
        # -I -S: the standard library is enough.
        program = [sys.executable, "-I", "-S", os.path.join(directory, "plain.py")]
        return [*program, "--run-dir", launch.directory, "--plan", json.dumps(plan)]

    def environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
        return {}

    return Engine("the plain engine", "plain processes, without an MPI", signal.SIGTERM, False, command, environment)


ENGINES: dict[str, Callable[[Request, Mapping[str, str]], Engine]] = {
    "mpiexec": _mpiexec,
    "srun": _srun,
    "plain": _plain,
}
