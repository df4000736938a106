"""Where the ranks of a job meet, and where it keeps what it notes: addresses, ports, directories, the stdin of rank 0."""

import os
import random
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.hosts import Share, expand, master_of

_TRIES = 100


def several_nodes(environ: Mapping[str, str]) -> bool:
    """Whether this is a Slurm allocation of more than one node."""
    nodes = environ.get("SLURM_JOB_NUM_NODES", "1")
    return nodes.isdigit() and int(nodes) > 1


def run_directory_parent(environ: Mapping[str, str], elsewhere: bool = False) -> str | None:
    """Where the run directory is made: None for the system's temporary directory.

    Ranks on several hosts (`elsewhere`) need one that all of them see. The current directory is: the script is found
    there, too. Where it is none that they share, ranks elsewhere work without: they report on stderr.
    """
    return os.getcwd() if elsewhere or several_nodes(environ) else None


def master_address(environ: Mapping[str, str], shares: Sequence[Share] = ()) -> str:
    """The host of rank 0: the first of the list or of a Slurm allocation, else this one.

    Examples
    --------
    >>> master_address({"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "gpu[07-08,11]"})
    'gpu07'
    >>> master_address({})
    '127.0.0.1'
    """
    if shares:
        return master_of(shares)
    if not several_nodes(environ):
        return "127.0.0.1"
    nodes = expand(environ.get("SLURM_JOB_NODELIST", ""))
    return nodes[0] if nodes else socket.gethostname()


def master_port() -> int:
    """A TCP port that is free on this host now.

    Not one of those that the system gives to outgoing connections, of which MPI makes many before rank 0 listens.
    """
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    for _ in range(_TRIES if low > 20000 else 0):
        port = random.randrange(10000, low)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind(("", 0))
        found: int = probe.getsockname()[1]
        return found


def stdin_of_rank_0() -> str | None:
    """The file that rank 0 reads as its stdin, or None if it has to come through mpiexec.

    Rank 0 reads what `dlaunch` would read. It opens that itself, because Open MPI 5.0 never passes on its end.
    """
    try:
        if stat.S_ISSOCK(os.fstat(0).st_mode):  # these cannot be opened a second time
            return None
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return os.devnull  # in the background of a shell, whose input is not ours
    except OSError:  # closed
        return os.devnull
    return f"/proc/{os.getpid()}/fd/0"
