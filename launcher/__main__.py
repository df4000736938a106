"""`dlaunch`, also as ``python -m launcher``: starts the ranks of a job and ends with their exit code."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from launcher import checks, command_line, console, contract, gpus, logs, nodes
from launcher.command_line import Request, UsageError
from launcher.engines import choose
from launcher.gpus import GpuError
from launcher.hosts import HostsError, place
from launcher.launch import supervisor
from launcher.mpi import MpiError
from launcher.processor import CORE_TYPE, weaker_core_type
from launcher.record import PASSED_ON
from launcher.remote import RemoteError
from launcher.restart import Runner, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `dlaunch`.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0 if all ranks ended with 0; else that of the rank that failed first (128 + number for a
        signal), in the last start of the job; 128 + number where a signal to `dlaunch` ended the job; 2 where nothing
        was started.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console.open_what_is_closed()
    if arguments[:1] == ["info"]:
        from launcher import info

        return info.main(arguments[1:])
    if arguments[:1] == ["doctor"]:
        from launcher import doctor

        return doctor.main(arguments[1:])
    before = _say_when_stopped()
    request = None
    try:
        _check_directory()
        request, environ, said = _checked(arguments, dict(os.environ))
        for line in said:
            say(line)
        if request.node_rank:
            return _follow(request, environ)
        runner = Runner(request, choose(request, environ), environ)
        if request.dry_run:
            runner.explain()
            return 0
        if request.log_dir is not None and (aside := logs.prepare(request.log_dir)):
            say(f"what an earlier job left in {request.log_dir} is in {aside} now")
    except (UsageError, MpiError, HostsError, GpuError, RemoteError) as error:
        say(str(error))
        return 2
    except OSError as error:
        log_dir = None if request is None else request.log_dir
        if request is None or log_dir is None or error.filename is None or not str(error.filename).startswith(log_dir):
            raise
        say(f"--log-dir {request.log_dir}: {error.strerror}")
        return 2
    except _Stopped as stopped:  # to find the MPI may take long; from here on the runner deals with signals
        say(f"stopped by {signal.Signals(stopped.number).name} before the start")
        return 128 + stopped.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return runner.run()


class _Stopped(BaseException):
    """A signal asks for the end before anything has started."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _say_when_stopped() -> dict[signal.Signals, Any]:
    """Lets signals raise `_Stopped` that end a program, as SIGUSR1 does, too; returns the handlers that there were."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped(number)

    before: dict[signal.Signals, Any] = {}
    for number in PASSED_ON:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup, and "&" of a shell without job control
            before[number] = signal.signal(number, stop)
    return before


def _check_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more: change to another one (cd), or to it again") from None


def _checked(arguments: Sequence[str], environ: dict[str, str]) -> tuple[Request, dict[str, str], list[str]]:
    """The request, the environment that it makes of this one, and what is to be said before the start."""
    request = command_line.parse(arguments)
    if request.node_rank is None:  # one on each host may be started by srun
        checks.check_first_launch(environ)
    checks.check_target(request.target)
    weaker = None if CORE_TYPE in request.env else weaker_core_type(environ)
    if weaker is not None:
        del environ[CORE_TYPE]
    environ = {**contract.outside(environ), **_options(request), **request.env}
    request = checks.check_nodes(request, environ)
    if request.log_dir is not None:
        request = request._replace(log_dir=os.path.abspath(request.log_dir))
    if request.hosts:
        place(request.hosts, request.ranks, request.oversubscribe)
    if request.nodes and request.node_rank is None and not request.hosts and request.ranks % request.nodes:
        raise UsageError(f"-n {request.ranks} ranks do not fit evenly on --nnodes {request.nodes} nodes of the allocation")
    here = checks.ranks_here(request, environ)
    warning = checks.check_size(here, contract.usable_cores(), request.oversubscribe, environ) if here else None
    if here and "SLURM_JOB_ID" not in environ:  # there, the supervisors see what their host has
        gpus.variables(request.gpus, gpus.present(environ), here, request.oversubscribe, gpus.host_name())
    return request, environ, [line for line in (warning, weaker) if line]


def _options(request: Request) -> dict[str, str]:
    """The variables that options stand for."""
    options = {
        "MASTER_ADDR": request.master_addr,
        "MASTER_PORT": request.master_port,
        contract.TIMEOUT: None if request.timeout is None else f"{request.timeout:g}",
        contract.DEBUG: request.debug,
    }
    return {name: str(value) for name, value in options.items() if value is not None}


def _follow(request: Request, environ: dict[str, str]) -> int:
    """Runs the ranks of a node that is not node 0."""
    assert request.master_addr and request.master_port and request.nodes and request.node_rank

    def program(attempt: int) -> list[str]:
        log_dir = None if request.log_dir is None else logs.directory_of(request.log_dir, attempt)
        return supervisor(request, log_dir, None)

    port = request.master_port + 1
    if request.dry_run:
        print(f"# node {request.node_rank} of {request.nodes} does what that of node 0 says at {request.master_addr}:{port}")
        print(f"# and runs, for each of {checks.ranks_here(request, environ)} ranks:")
        print(shlex.join(program(0)))
        return 0
    return nodes.follow(
        request.master_addr, port, request.node_rank, request.nodes, request.ranks, program, environ, say
    )


if __name__ == "__main__":
    sys.exit(main())
