"""What an engine is to start: the same description for all of them."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launcher import process
from launcher.command_line import Request
from launcher.hosts import Share, is_here


class Launch(NamedTuple):
    """One start of a job.

    Attributes
    ----------
    ranks : int
        How many.
    program : sequence of str
        The supervisor's command line: what the engine runs once for each rank.
    exported : sequence of str
        Names of variables that must reach the ranks.
    directory : str
        The run directory.
    shares : sequence of Share
        Which host gets which ranks; empty where the engine knows by itself: this host, or those of an allocation.
    one_host : bool
        Whether all ranks run on this host.
    per_node : int or None
        Ranks on each node of the allocation, where ``--nnodes`` limits them.
    nodes : int or None
        ``--nnodes``.
    rsh : str or None
        ``--rsh``: how other hosts are reached; None for what the engine does by itself.
    agent : str or None
        The path of a program that goes that way when it is called as ssh is.
    links : dict
        For the nodes of ``--node-rank``, by the host of their share: the descriptor of the connection.
    attempt : int
        Which start this is, from 0.
    oversubscribe : bool
        Whether more ranks than there is room for are meant.
    """

    ranks: int
    program: Sequence[str]
    exported: Sequence[str] = ()
    directory: str = ""
    shares: Sequence[Share] = ()
    one_host: bool = True
    per_node: int | None = None
    nodes: int | None = None
    rsh: str | None = None
    agent: str | None = None
    links: dict[str, int] = {}  # noqa: RUF012  never changed
    attempt: int = 0
    oversubscribe: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether hosts are named and one of them is another one."""
        return bool(self.shares) and not self.one_host

    @property
    def own_name(self) -> str | None:
        """By which name the list has this host; None where it does not."""
        return next((share.host for share in self.shares if is_here(share.host)), None)

    def host_list(self) -> str:
        """The hosts as ``a:2,b:4``."""
        return ",".join(f"{share.host}:{share.ranks}" for share in self.shares)

    def host_file(self) -> str:
        """The path of a file in the run directory with the hosts, one ``a:2`` a line."""
        path = os.path.join(self.directory, "hosts")
        if os.path.isdir(self.directory):
            Path(path).write_text("".join(f"{share.host}:{share.ranks}\n" for share in self.shares))
        return path


def supervisor(request: Request, log_dir: str | None, stdin: str | None) -> list[str]:
    """The supervisor's command line without what belongs to one place: run directory, kernel, rank."""
    rank = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rank.py")
    # -I -S: the supervisor needs nothing but the standard library, and starts in 10 ms without the rest.
    program = [sys.executable, "-I", "-S", rank]
    if request.threads is not None:
        program += ["--threads", str(request.threads)]
    if request.bind != "none":
        program += ["--bind", request.bind]
    if request.gpus_as_given is not None:
        program += ["--gpus", request.gpus_as_given]
    if request.oversubscribe:
        program.append("--oversubscribe")
    if log_dir is not None:
        program += ["--log-dir", log_dir]
    if request.tag:
        program.append("--tag")
    if stdin is not None:
        program += ["--stdin", stdin]
    # One argument, since mpiexec would take a script's argument ":" for its own.
    return [*program, "--target", json.dumps(request.program)]


def with_place(program: Sequence[str], directory: str) -> list[str]:
    """The supervisor's command line for an engine of MPI's, which tells the ranks their places by itself."""
    at = list(program).index("--target")
    return [*program[:at], "--run-dir", directory, "--kernel", process.kernel(), *program[at:]]
