"""Starts a job, and starts it again when a rank has failed: ``--max-restarts``, ``--min-ranks``.

A job is started again when a rank ended otherwise than with exit code 0, by whatever: an exception, an exit code, a
signal, the loss of its host. It is not when

- dlaunch got SIGINT, SIGTERM or SIGHUP meanwhile, or Slurm is cancelling the job: somebody wants it to end;
- the rank that failed first ended with exit code 2 within `USAGE` seconds, as argparse ends a script that was called
  wrongly: it would end so again;
- no rank had started although every host is there: it would not start the next time, either.

It starts with as many ranks as before. Only where hosts of the list are gone are their slots left out, down to
``--min-ranks``; they are asked before each restart, and with ``--min-ranks`` before the first start, too.
"""

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from launcher import contract, control_groups, logs, remote, report, run_directories
from launcher.command_line import Request
from launcher.console import tell
from launcher.engines import Engine
from launcher.hosts import Host, Share, expand, is_here, place, with_slots
from launcher.job import Job
from launcher.launch import Launch, supervisor
from launcher.meeting import master_address, master_port, run_directory_parent, several_nodes, stdin_of_rank_0
from launcher.nodes import JOIN, REJOIN, Nodes, NodesError
from launcher.record import ENDING_SIGNALS
from launcher.report import Outcome
from launcher.supervisors import arrived, signals

USAGE = 10.0  # seconds within which exit code 2 is taken for a wrong call
PAUSE = 0.5  # seconds before the first restart; twice as many before each further one
LONGEST_PAUSE = 8.0


class Stop(Exception):
    """The job is not started (again); carries the exit code and what to say."""

    def __init__(self, code: int, said: str):
        super().__init__(said)
        self.code = code


def say(text: str) -> None:
    """Says something to the user."""
    tell(f"dlaunch: {text}")


class Runner:
    """A job with all its starts.

    Parameters
    ----------
    request : Request
        What was asked for.
    engine : Engine
        What starts the ranks.
    environ : mapping
        The environment, in which the user's decisions stand.
    """

    def __init__(self, request: Request, engine: Engine, environ: Mapping[str, str]):
        self.request = request
        self.engine = engine
        self.environ = dict(environ)
        self.hosts = list(request.hosts)
        if not self.hosts and engine.name == "the plain engine" and request.node_rank is None:
            self.hosts = _hosts_of_allocation(environ, request.nodes)
        self.nodes: Nodes | None = None
        self.code = 2  # that of the last start
        self.words: list[str] = []  # the last lines that were said
        self.stdin = stdin_of_rank_0()

    def run(self) -> int:
        """Starts the job as often as it may be; returns the exit code."""
        with signals(signal.SIGCHLD, *ENDING_SIGNALS, signal.SIGUSR1, signal.SIGUSR2) as self.wakeup:
            try:
                self._meet_nodes()
                attempt = 0
                while True:
                    shares = self._shares(attempt)
                    outcome = self._start(shares, attempt)
                    self._report(outcome)
                    if not outcome.failed or not self._may_restart(outcome, attempt):
                        break
                    attempt += 1
            except Stop as stop:
                self.code, self.words = stop.code, [f"dlaunch: {stop}"]
                say(str(stop))
            except NodesError as error:
                self.code, self.words = 2, [f"dlaunch: {error}"]
                say(str(error))
            finally:
                if self.nodes is not None:
                    self.nodes.over(self.code, self.words)
        return self.code

    def explain(self) -> None:
        """Prints what would be run, in a form that a shell understands."""
        shares = self._own_and(range(1, self.request.nodes or 1)) if self.request.node_rank == 0 else []
        if self.hosts:
            shares = place(self.hosts, self.request.ranks, self.request.oversubscribe)
        links = {share.host: index for index, share in enumerate(shares[1:], start=3)} if not self.hosts else {}
        launch, environ = self._launch(shares, 0, "RUN_DIRECTORY", links)
        added = {name: value for name, value in environ.items() if self.environ.get(name) != value or name in self.request.env}
        here = next((share.ranks for share in shares if is_here(share.host)), self.request.ranks)
        at_a_time = control_groups.cpu_share(here)
        threads = contract.thread_variables(self.request.threads, contract.usable_cores(), here, self.environ, at_a_time)
        print(f"# {self.engine.what}")
        for share in shares:
            print(f"# {share.host}: ranks {share.first} to {share.first + share.ranks - 1}")
        if launch.agent is not None:
            print(f"# {launch.agent} goes to a host by: {self.request.rsh}")
        print(f"# each rank also gets RANK, WORLD_SIZE={launch.ranks}, LOCAL_RANK, LOCAL_WORLD_SIZE and, on this host:")
        if self.request.bind != "none":
            print(f"#   what --bind {self.request.bind} gives it, and as many threads")
        else:
            for name, value in sorted(threads.items()):
                print(f"#   {name}={value}")
        for name, value in sorted(added.items()):
            print(f"{name}={shlex.quote(value)} \\")
        print(shlex.join(self.engine.command(launch)))

    def _launch(
        self, shares: Sequence[Share], attempt: int, directory: str, links: dict[str, int]
    ) -> tuple[Launch, dict[str, str]]:
        """What the engine is to start, and the environment it starts in."""
        request = self.request
        ranks = sum(share.ranks for share in shares) if shares else request.ranks
        one_host = all(is_here(share.host) for share in shares) if shares else "SLURM_JOB_ID" not in self.environ
        address = request.master_addr or master_address(self.environ, [] if links else shares)
        variables = contract.job_variables(
            directory, address, request.master_port or master_port(), self.environ, attempt
        )
        log_dir = None
        if request.log_dir is not None:
            log_dir = logs.directory_of(request.log_dir, attempt)
            if not self.environ.get(contract.FLIGHT_DIRECTORY):
                variables[contract.FLIGHT_DIRECTORY] = request.log_dir
        agent = os.path.join(directory, "rsh") if request.rsh is not None and not one_host else None
        # The nodes of --node-rank have their users' settings already.
        exported = sorted(variables if links else {**request.env, **variables})
        launch = Launch(
            ranks, supervisor(request, log_dir, self.stdin), exported, directory, shares, one_host,
            None if request.nodes is None else ranks // request.nodes, request.nodes, request.rsh, agent, links, attempt,
            request.oversubscribe,
        )  # fmt: skip
        environ = {**self.environ, **request.env, **variables}
        return launch, {**environ, **self.engine.environment(launch, environ)}

    def _start(self, shares: Sequence[Share], attempt: int) -> Outcome:
        elsewhere = any(not is_here(share.host) for share in shares) and self.engine.name != "the plain engine"
        parent = None if self.engine.name == "the plain engine" else run_directory_parent(self.environ, elsewhere)
        try:
            held = run_directories.make(parent)
        except OSError as error:
            where = f" in {parent}" if parent else ""
            raise Stop(self.code, f"the job's run directory cannot be made{where}: {error.strerror}") from None
        directory = held.path
        try:
            links = {}
            if self.nodes is not None:
                links = {f"node {node}": link.fileno() for node, link in self.nodes.links.items()}
            launch, environ = self._launch(shares, attempt, directory, links)
            if launch.agent is not None and launch.rsh is not None:
                with open(launch.agent, "w", opener=lambda path, flags: os.open(path, flags, 0o700)) as file:
                    file.write(remote.agent_script(launch.rsh))
            job = Job(
                self.engine.command(launch), environ, directory, launch.ranks, self.engine.end, self.request.grace,
                self.request.tag, self.stdin, self.engine.name, say, list(links.values()),
                self.engine.lets_go, not launch.one_host,
            )  # fmt: skip
            outcome = job.run(self.wakeup)
            if self.nodes is not None:
                self.nodes.settle(attempt)
            return outcome
        finally:
            run_directories.remove(directory)
            held.leave()

    def _report(self, outcome: Outcome) -> None:
        self.code = report.exit_code(outcome)
        self.words = report.lines(outcome)
        if self.words:
            tell("", *self.words)  # what the ranks wrote last, such as a progress bar, need not have ended its line

    def _may_restart(self, outcome: Outcome, attempt: int) -> bool:
        """Whether the job is started again; waits a little if so."""
        most = self.request.max_restarts
        if most == 0 or outcome.interrupted:
            return False
        if attempt >= most:
            say(f"this was the last of {most + 1} starts (--max-restarts {most})")
            return False
        failure = outcome.first_failure
        if failure is not None and failure.code == 2 and failure.elapsed < USAGE and failure.lost is None:
            say(f"rank {failure.rank} ended with exit code 2 at once, as a wrong call of the script does: no restart")
            return False
        if not outcome.starts and not (failure and failure.lost) and not self._gone():
            say("no rank had started, though every host is there: no restart")
            return False
        if self._stopped(min(LONGEST_PAUSE, PAUSE * 2**attempt)):
            raise Stop(128 + self.stopped_by, f"stopped by {signal.Signals(self.stopped_by).name} before restart {attempt + 1}")
        if _cancelled(self.environ):
            say("Slurm is ending the job: no restart")
            return False
        return True

    def _shares(self, attempt: int) -> list[Share]:
        """The hosts that are there, with their ranks; empty where the engine knows its hosts."""
        request = self.request
        if self.nodes is not None:
            shares = self._shares_of_nodes(attempt)
        elif self.hosts:
            shares = self._shares_of_hosts(attempt)
        else:
            shares = []
        ranks = sum(share.ranks for share in shares) if shares else request.ranks
        if attempt:
            say(f"restart {attempt} of {request.max_restarts}, with {ranks} rank{'' if ranks == 1 else 's'}")
        return shares

    def _shares_of_hosts(self, attempt: int) -> list[Share]:
        request = self.request
        everywhere = place(self.hosts, request.ranks, request.oversubscribe)
        gone = self._gone() if attempt or request.min_ranks is not None else {}
        if not gone:
            return everywhere
        hosts = with_slots(self.hosts, everywhere)
        for host in hosts:
            if host.name in gone:
                slots = "slot is" if host.slots == 1 else f"{host.slots} slots are"
                say(f"host {host.name} cannot be reached ({gone[host.name]}): its {slots} left out")
        left = [host for host in hosts if host.name not in gone and host.slots]
        ranks = min(request.ranks, sum(host.slots or 0 for host in left))
        self._enough(ranks)
        return place(left, ranks, False)

    def _shares_of_nodes(self, attempt: int) -> list[Share]:
        assert self.nodes is not None
        missing = self.nodes.gather(REJOIN if attempt else JOIN, self._stopped, say)
        if self.stopped_by:
            raise Stop(128 + self.stopped_by, f"stopped by {signal.Signals(self.stopped_by).name} while it waited for nodes")
        if missing:
            say(f"node{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} did not come: left out")
        shares = self._own_and(sorted(self.nodes.links))
        self._enough(sum(share.ranks for share in shares))
        return shares

    def _own_and(self, nodes: Sequence[int]) -> list[Share]:
        """The shares of node 0 and of these: what each would have if all were there."""
        total = self.request.nodes or 1
        shares, first = [], 0
        for node in [0, *nodes]:
            ranks = self.request.ranks // total + (node < self.request.ranks % total)
            shares.append(Share(f"node {node}" if node else "localhost", first, ranks))
            first += ranks
        return shares

    def _enough(self, ranks: int) -> None:
        """Raises Stop if so many ranks are too few."""
        least = self.request.min_ranks or self.request.ranks
        if ranks < least:
            given = f"--min-ranks is {least}" if self.request.min_ranks else "--min-ranks is not given"
            raise Stop(self.code or 2, f"only {ranks} of {self.request.ranks} ranks have a host, and {given}: no start")

    def _gone(self) -> dict[str, str]:
        """The hosts of the list that cannot be reached, and why."""
        if not self.request.hosts:
            return {}
        others = [host.name for host in self.hosts if not is_here(host.name)]
        gone = remote.unreachable(self.request.rsh or remote.SSH, others, lambda: self._stopped(0.0))
        if self.stopped_by:
            raise Stop(128 + self.stopped_by, f"stopped by {signal.Signals(self.stopped_by).name} before a start")
        return gone

    stopped_by = 0

    def _stopped(self, seconds: float) -> bool:
        """Waits, and says whether a signal has asked for the end meanwhile."""
        limit = time.monotonic() + seconds
        while not self.stopped_by:
            select.select([self.wakeup], [], [], max(0.0, limit - time.monotonic()))
            for number in arrived(self.wakeup):
                if number in ENDING_SIGNALS:
                    self.stopped_by = number
            if time.monotonic() >= limit:
                break
        return bool(self.stopped_by)

    def _meet_nodes(self) -> None:
        request = self.request
        if request.node_rank is not None and (request.nodes or 1) > 1:
            assert request.master_addr is not None and request.master_port is not None and request.nodes is not None
            self.nodes = Nodes(request.master_addr, request.master_port + 1, request.nodes, request.ranks)


def _hosts_of_allocation(environ: Mapping[str, str], nodes: int | None) -> list[Host]:
    """The nodes of a Slurm allocation with their tasks, for the engine that knows nothing of Slurm."""
    if not several_nodes(environ):
        return []
    names = expand(environ.get("SLURM_JOB_NODELIST", ""))
    counts: list[int] = []
    for count, repeat in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_TASKS_PER_NODE", "")):
        counts += [int(count)] * int(repeat or 1)
    if nodes is not None or len(counts) != len(names):
        return [Host(name, None) for name in names[:nodes]]
    return [Host(name, count) for name, count in zip(names, counts)]


def _cancelled(environ: Mapping[str, str]) -> bool:
    """Whether Slurm is ending the job that this runs in: ``scancel`` reaches the ranks before it reaches dlaunch."""
    job, squeue = environ.get("SLURM_JOB_ID"), shutil.which("squeue", path=environ.get("PATH"))
    if job is None or squeue is None:
        return False
    try:
        said = subprocess.run(
            [squeue, "--noheader", "--format=%T", "--jobs", job],
            env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.stdout.strip() in ("CANCELLED", "COMPLETING", "PREEMPTED", "TIMEOUT", "NODE_FAIL")
