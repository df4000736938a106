"""`dlaunch`, also as ``python -m launcher``: starts the ranks of a job and ends with their exit code."""

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence

from launcher import command_line, contract, process, report
from launcher.command_line import Request, UsageError
from launcher.job import Job, master_address, master_port, run_directory_parent, stdin_of_rank_0
from launcher.mpi import Mpi, MpiError, allocation_environment, find_mpi
from launcher.processor import CORE_TYPE, weaker_core_type


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
        signal); 128 + number where a signal to `dlaunch` ended the job; 2 where nothing was started.
    """
    environ = dict(os.environ)
    try:
        request = command_line.parse(sys.argv[1:] if arguments is None else arguments)
        command_line.check_first_launch(environ)
        command_line.check_target(request.target)
        warning = command_line.check_size(request.ranks, contract.usable_cores(), request.oversubscribe, environ)
        weaker = None if CORE_TYPE in request.env else weaker_core_type(environ)
        if weaker is not None:
            del environ[CORE_TYPE]
        environ = {**contract.outside(environ), **request.env}
        mpi = find_mpi(request.mpi, environ)
    except (UsageError, MpiError) as error:
        print(f"dlaunch: {error}", file=sys.stderr)
        return 2
    for said in (warning, weaker):
        if said:
            print(f"dlaunch: {said}", file=sys.stderr)
    if request.dry_run:
        _explain(request, mpi, environ)
        return 0
    directory = tempfile.mkdtemp(prefix="dlaunch-", dir=run_directory_parent(environ))
    try:
        variables = contract.job_variables(directory, master_address(environ), master_port(), environ)
        stdin = stdin_of_rank_0()
        command, added = _command(request, mpi, directory, variables, environ, stdin)
        environ.update(added)
        job = Job(command, environ, directory, request.ranks, mpi.engine.end, request.grace, request.tag, stdin)
        outcome = job.run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    last_words = report.lines(outcome)
    if last_words:
        print(file=sys.stderr)  # what the ranks wrote last, such as a progress bar, need not have ended its line
    for line in last_words:
        print(line, file=sys.stderr)
    return report.exit_code(outcome)


def _command(
    request: Request,
    mpi: Mpi,
    directory: str,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    stdin: str | None,
) -> tuple[list[str], dict[str, str]]:
    """The command line for mpiexec, and the variables that are added to the environment for it."""
    exported = {**request.env, **variables}
    rank = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rank.py")
    # -I -S: the supervisor needs nothing but the standard library, and starts in 10 ms without the rest.
    program = [sys.executable, "-I", "-S", rank, "--run-dir", directory, "--kernel", process.kernel()]
    if request.threads is not None:
        program += ["--threads", str(request.threads)]
    if request.tag:
        program.append("--tag")
    if stdin is not None:
        program += ["--stdin", stdin]
    # One argument, since mpiexec would take a script's argument ":" for its own.
    program += ["--target", json.dumps(request.program)]
    one_host = "SLURM_JOB_ID" not in environ
    command = mpi.command(request.ranks, sorted(exported), one_host, program)
    return command, {**exported, **mpi.engine.environment(environ), **allocation_environment(environ)}


def _explain(request: Request, mpi: Mpi, environ: Mapping[str, str]) -> None:
    """Prints what would be run, in a form that a shell understands."""
    variables = contract.job_variables("RUN_DIRECTORY", master_address(environ), master_port(), environ)
    command, added = _command(request, mpi, "RUN_DIRECTORY", variables, environ, stdin_of_rank_0())
    ranks = contract.thread_variables(request.threads, contract.usable_cores(), request.ranks, environ)
    print(f"# {mpi.engine.name}: {mpi.version} ({mpi.library})")
    print(f"# each rank also gets RANK, WORLD_SIZE={request.ranks}, LOCAL_RANK, LOCAL_WORLD_SIZE and, on this host:")
    for name, value in sorted(ranks.items()):
        print(f"#   {name}={value}")
    for name, value in sorted(added.items()):
        print(f"{name}={shlex.quote(value)} \\")
    print(shlex.join(command))


if __name__ == "__main__":
    sys.exit(main())
