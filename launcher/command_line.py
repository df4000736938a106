"""The command line of `dlaunch`: what can be asked for, and what is refused before anything starts."""

import argparse
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

# Enough for every test of a large world on a small machine; a slip of the finger (-n 4000) still gets an answer.
RANKS_PER_CORE = 16
RANKS_AT_LEAST = 64


class Request(NamedTuple):
    """What the user asked for."""

    ranks: int
    target: list[str]  # ["train.py", "--lr", "3"] or ["-m", "package.train", "--lr", "3"]
    tag: bool
    threads: int | None
    env: dict[str, str]
    dry_run: bool
    mpi: str
    oversubscribe: bool
    grace: float  # seconds
    as_torch: bool = False

    @property
    def program(self) -> list[str]:
        """What each rank runs: the target, or what runs the target for it."""
        return ["-m", "disttorch.as_torch", *self.target] if self.as_torch else self.target


class UsageError(ValueError):
    """The command line cannot be carried out as it stands."""


def parse(arguments: Sequence[str]) -> Request:
    """Reads a command line.

    Raises
    ------
    UsageError
        It lacks something or says something impossible.
    SystemExit
        After ``--help`` and ``--version``, with code 0.

    Examples
    --------
    >>> request = parse(["-n", "4", "--tag", "train.py", "--lr", "3"])
    >>> request.ranks, request.tag, request.target
    (4, True, ['train.py', '--lr', '3'])
    """
    options = _parser().parse_args(arguments)
    if options.ranks is None:
        raise UsageError("-n is missing: how many ranks? For example: dlaunch -n 2 train.py")
    if options.module is not None:
        if not options.module:
            raise UsageError("-m needs the name of a module")
        target = ["-m", *options.module]
    else:
        target = options.target[1:] if options.target[:1] == ["--"] else options.target
        if not target:
            raise UsageError("there is no script to run. For example: dlaunch -n 2 train.py")
    return Request(
        options.ranks, target, options.tag, options.threads, dict(options.env), options.dry_run,
        options.mpi, options.oversubscribe, options.grace, options.as_torch,
    )  # fmt: skip


def check_target(target: Sequence[str]) -> None:
    """Raises UsageError if the ranks would not find their script or module."""
    if target[0] != "-m":
        path = Path(target[0])
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dlaunch",
        usage="dlaunch -n N [options] script.py [args]\n       dlaunch -n N [options] -m package.module [args]",
        description="Starts N ranks of a Python script under the MPI that mpi4py uses, watches them, and says which "
        "one failed and why. Exit code: 0, the first failing rank's, 128 + number for a signal, 2 for a wrong call.",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--nproc", dest="ranks", type=_positive, metavar="N", help="number of ranks")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module, as python -m does")
    parser.add_argument(
        "--as-torch", action="store_true", help="the script was written for PyTorch: what it imports as torch is disttorch"
    )
    parser.add_argument("--tag", action="store_true", help='begin each line of output with its rank: "[3] text"')
    parser.add_argument(
        "--threads", type=_positive, metavar="T", help="threads of each rank (default: its host's cores / ranks there)"
    )
    parser.add_argument(
        "--env", type=_assignment, action="append", default=[], metavar="NAME=VALUE", help="set a variable (repeatable)"
    )
    parser.add_argument(
        "--grace", type=_seconds, default=10.0, metavar="S",
        help="seconds that ranks may take to end after Ctrl-C or SIGTERM (default: 10)",
    )  # fmt: skip
    parser.add_argument("--mpi", default="auto", metavar="PATH", help="the mpiexec to use (default: mpi4py's)")
    parser.add_argument("--oversubscribe", action="store_true", help="more ranks than cores or tasks are meant")
    parser.add_argument("--dry-run", action="store_true", help="print the command and the environment, and run nothing")
    parser.add_argument("--version", action="version", version=f"dlaunch {_version()}")
    parser.add_argument("target", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more; got {text!r}")
    return value


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE; got {text!r}")
    return name, value


def _version() -> str:
    # Read, not imported: the launcher stands apart from the package that it is shipped with.
    text = (Path(__file__).parent.parent / "disttorch" / "version.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else "unknown"
