"""The command line of `dlaunch`: what can be asked for. What is refused although it can be read is in `launcher.checks`."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from launcher import binding, gpus, hosts
from launcher.gpus import Gpus
from launcher.hosts import Host

ENGINES = ("auto", "mpiexec", "srun", "plain")
DEFAULT_PORT = 29500  # torchrun's


class Request(NamedTuple):
    """What the user asked for."""

    ranks: int  # of the whole job
    target: list[str]  # ["train.py", "--lr", "3"] or ["-m", "package.train", "--lr", "3"]
    tag: bool = False
    threads: int | None = None
    env: dict[str, str] = {}  # noqa: RUF012  never changed
    dry_run: bool = False
    mpi: str = "auto"
    oversubscribe: bool = False
    grace: float = 10.0  # seconds
    as_torch: bool = False
    engine: str = "auto"
    hosts: list[Host] = []  # noqa: RUF012  empty where they are not named: this host, or those of a Slurm allocation
    nodes: int | None = None
    node_rank: int | None = None
    master_addr: str | None = None
    master_port: int | None = None
    rsh: str | None = None
    bind: str = "none"
    gpus: Gpus | None = None
    gpus_as_given: str | None = None
    log_dir: str | None = None
    timeout: float | None = None  # seconds
    debug: str | None = None
    max_restarts: int = 0
    min_ranks: int | None = None

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
    named = _hosts(options)
    if options.ranks is None:
        slots = [host.slots for host in named]
        if not slots or None in slots:
            raise UsageError("-n is missing: how many ranks? For example: dlaunch -n 2 train.py")
        options.ranks = sum(slot for slot in slots if slot is not None)
    if options.module is not None:
        if not options.module:
            raise UsageError("-m needs the name of a module")
        target = ["-m", *options.module]
    else:
        target = options.target[1:] if options.target[:1] == ["--"] else options.target
        if not target:
            raise UsageError("there is no script to run. For example: dlaunch -n 2 train.py")
    request = Request(
        options.ranks, target, options.tag, options.threads, dict(options.env), options.dry_run,
        options.mpi, options.oversubscribe, options.grace, options.as_torch, options.engine, named, options.nodes,
        options.node_rank, options.master_addr, options.master_port, options.rsh, options.bind,
        None if options.gpus is None else gpus.parse(options.gpus), options.gpus, options.log_dir, options.timeout,
        options.debug, options.max_restarts, options.min_ranks,
    )  # fmt: skip
    _check(request)
    return request


def _hosts(options: argparse.Namespace) -> list[Host]:
    if options.hosts is not None and options.hostfile is not None:
        raise UsageError("--hosts and --hostfile both name the hosts; one of them is enough")
    try:
        named = []
        if options.hosts is not None:
            named = hosts.parse_hosts(options.hosts)
        elif options.hostfile is not None:
            named = hosts.read_hostfile(options.hostfile)
    except hosts.HostsError as error:
        raise UsageError(str(error)) from None
    if named and options.nodes is not None:
        if options.nodes > len(named):
            raise UsageError(f"--nnodes {options.nodes}, but there are {len(named)} hosts in the list")
        named = named[: options.nodes]
    return named


def _check(request: Request) -> None:
    """Raises UsageError where options exclude or need each other."""
    if request.timeout == 0:
        raise UsageError("--timeout 0 would let no collective wait for any rank; it must be more than 0")
    if request.min_ranks is not None and request.min_ranks > request.ranks:
        raise UsageError(f"--min-ranks {request.min_ranks} is more than all {request.ranks} ranks")
    if request.gpus is not None and gpus.VISIBLE in request.env:
        raise UsageError(f"--gpus and --env {gpus.VISIBLE}=... both say which GPUs the ranks see")
    if request.rsh is not None and not request.hosts:
        raise UsageError("--rsh says how other hosts are reached; --hosts or --hostfile must say which")
    if request.node_rank is None:
        return
    if request.engine not in ("auto", "plain"):
        raise UsageError(f"--node-rank is the plain engine's; {request.engine} starts the ranks of all hosts itself")
    if request.hosts:
        raise UsageError("--node-rank says that dlaunch is started on each host by hand; --hosts that it starts all itself")
    if request.nodes is None:
        raise UsageError("--node-rank needs --nnodes: on how many hosts is dlaunch started?")
    if request.node_rank >= request.nodes:
        raise UsageError(f"--node-rank {request.node_rank} is not one of --nnodes {request.nodes}: they count from 0")
    if request.ranks < request.nodes:
        raise UsageError(f"-n {request.ranks} is the number of all ranks, and too few for --nnodes {request.nodes}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dlaunch",
        usage="dlaunch -n N [options] script.py [args]\n       dlaunch -n N [options] -m package.module [args]\n"
        "       dlaunch info [--help]\n       dlaunch doctor DIR",
        description="Starts N ranks of a Python script, under the MPI that mpi4py uses or without one, watches them, "
        "and says which one failed and why. Exit code: 0, the first failing rank's, 128 + number for a signal, 2 for a "
        "wrong call.",
        allow_abbrev=False,
        add_help=False,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("-n", "--nproc", dest="ranks", type=_positive, metavar="N", help="number of ranks, on all hosts together")
    what.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module, as python -m does")
    what.add_argument("--as-torch", action="store_true", help="the script was written for PyTorch: what it imports as torch is disttorch")
    what.add_argument("--env", type=_assignment, action="append", default=[], metavar="NAME=VALUE", help="set a variable (repeatable)")
    what.add_argument("--dry-run", action="store_true", help="print the command and the environment, and run nothing")
    what.add_argument("--version", action="version", version=f"dlaunch {_version()}")
    what.add_argument("-h", "--help", action="help", help="say this")

    how = parser.add_argument_group("how the ranks are started")
    how.add_argument(
        "--engine", choices=ENGINES, default="auto",
        help="mpiexec; srun, in a Slurm allocation; plain: processes that meet over TCP, without an MPI (default: what "
        "gives the ranks of mpi4py's MPI their world)",
    )  # fmt: skip
    how.add_argument("--mpi", default="auto", metavar="PATH", help="the mpiexec to use (default: mpi4py's)")
    how.add_argument("--oversubscribe", action="store_true", help="more ranks than cores, slots, tasks or GPUs are meant")

    where = parser.add_argument_group(
        "several hosts", "In a Slurm allocation none of this is needed: the ranks go to its nodes."
    )
    where.add_argument(
        "--hosts", metavar="A,B:4",
        help="the hosts, with :4 for four ranks (default: 1, or where no host has a number the same on each)",
    )  # fmt: skip
    where.add_argument("--hostfile", metavar="FILE", help="the same from a file: host, host:4 or host slots=4 in each line")
    where.add_argument("--nnodes", dest="nodes", type=_positive, metavar="N", help="use N hosts of the list or the allocation")
    where.add_argument(
        "--rsh", metavar="COMMAND",
        help="how a host is reached, with {host} in its place (default: ssh). For example: ip netns exec {host}",
    )  # fmt: skip
    where.add_argument("--node-rank", type=_count, metavar="K", help="dlaunch is started once on each of --nnodes hosts; this is number K")
    where.add_argument("--master-addr", metavar="HOST", help="where rank 0 is reached (default: the first host)")
    where.add_argument(
        "--master-port", type=_port, metavar="PORT",
        help=f"a port there (default: a free one; with --node-rank {DEFAULT_PORT}, and the next one for the dlaunches)",
    )  # fmt: skip

    share = parser.add_argument_group("what each rank gets")
    share.add_argument(
        "--bind", choices=binding.KINDS, default="none",
        help="cores: its share of the cores of its host; numa: the cores of a NUMA node (default: none, all of them)",
    )  # fmt: skip
    share.add_argument(
        "--threads", type=_positive, metavar="T",
        help="threads of each rank (default: OMP_NUM_THREADS, else its cores / ranks that share them)",
    )  # fmt: skip
    share.add_argument(
        "--gpus", type=_gpus, metavar="WHICH",
        help="none, auto (all, at least one for each rank), a number of GPUs of each host, or a list: 0,2,3. Each rank "
        "takes that of its LOCAL_RANK (default: all are seen)",
    )  # fmt: skip

    watch = parser.add_argument_group("what is seen of them")
    watch.add_argument("--tag", action="store_true", help='begin each line of output with its rank: "[3] text"')
    watch.add_argument("--log-dir", metavar="DIR", help="what rank 3 writes also goes to DIR/rank-3.out and DIR/rank-3.err")
    watch.add_argument("--timeout", type=_seconds, metavar="S", help="seconds that a collective may wait for a rank (default: 1800)")
    watch.add_argument("--debug", choices=("mismatch",), help="mismatch: compare the ranks' collectives before data moves")

    end = parser.add_argument_group("when something ends")
    end.add_argument(
        "--grace", type=_seconds, default=10.0, metavar="S",
        help="seconds that ranks may take to end after Ctrl-C or SIGTERM (default: 10)",
    )  # fmt: skip
    end.add_argument(
        "--max-restarts", type=_count, default=0, metavar="K",
        help="start the job again when a rank has failed, up to K times (default: 0)",
    )  # fmt: skip
    end.add_argument(
        "--min-ranks", type=_positive, metavar="M",
        help="go on without the hosts that are gone, with at least M ranks (default: N)",
    )  # fmt: skip
    parser.add_argument("target", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1; got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more; got {text!r}")
    return int(text)


def _port(text: str) -> int:
    # Not the last one, since the dlaunches of several nodes use the one after it.
    if not re.fullmatch(r"\d+", text) or not 1 <= int(text) <= 65534:
        raise argparse.ArgumentTypeError(f"must be a port, 1 to 65534; got {text!r}")
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


def _gpus(text: str) -> str:
    try:
        gpus.parse(text)
    except gpus.GpuError as error:
        raise argparse.ArgumentTypeError(str(error).partition(": ")[2] or str(error)) from None
    return text


def _version() -> str:
    # Read, not imported: the launcher stands apart from the package that it is shipped with.
    text = (Path(__file__).parent.parent / "disttorch" / "version.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else "unknown"
