"""The plain engine: a process manager of our own, for jobs without an MPI. dlaunch runs it in mpiexec's place.

It starts the supervisors of this host's ranks, and an agent (`launcher.agent`) on each other host. What happens is in
the run directory, as under every engine: what agents tell is written there, and the signals that dlaunch notes there are
passed on to them. The ranks find RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and meet there by themselves.
"""

import argparse
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from launcher import channel, output, process
from launcher.agent import RECORDS
from launcher.record import ENDING_SIGNALS, End, RunDirectory
from launcher.supervisors import Supervisors, arrived, signals

TICK = 0.1  # seconds between looks at the signals for other hosts
GOING = 5.0  # seconds that agents get to end when this process is told to: longer than they give their supervisors

# What belongs to the session that dlaunch was started in, and would mislead programs on another host.
_SESSION = re.compile(r"(SSH|XDG|DBUS)_|(DISPLAY|HOSTNAME|SHLVL|WINDOWID|PWD|OLDPWD|_)$")


class Part(NamedTuple):
    """The ranks of one host.

    Attributes
    ----------
    host : str
        Its name.
    first, ranks : int
        Its ranks.
    command : list of str or None
        What starts its agent; None for this host, and where there is a connection.
    fd : int or None
        The descriptor of a connection to a dlaunch that was started there (``--node-rank``).
    """

    host: str
    first: int
    ranks: int
    command: list[str] | None
    fd: int | None


class Elsewhere:
    """Another host's ranks, as this process sees them."""

    def __init__(self, part: Part, plan: Mapping[str, Any]):
        self.part = part
        self.frames = channel.Frames()
        self.open = True
        self.process: subprocess.Popen[bytes] | None = None
        self.way = "a connection" if part.command is None else part.command[0]
        if part.command is not None:
            self.process = subprocess.Popen(
                part.command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                preexec_fn=process.dying_with_parent(signal.SIGTERM, os.getpid()),  # noqa: PLW1509  no threads here
            )  # fmt: skip
            assert self.process.stdin and self.process.stdout
            self.sink, self.source = self.process.stdin.fileno(), self.process.stdout.fileno()
        else:
            assert part.fd is not None
            self.sink = self.source = part.fd
        channel.send(self.sink, channel.PLAN, plan)

    def how_lost(self) -> str:
        """What is known of the end of the connection."""
        if self.process is None:
            return "the connection to its dlaunch broke"
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"the connection through {self.way} broke"
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return f"{self.way} ended with {how}"


class Plain:
    """One attempt on all hosts."""

    def __init__(self, directory: str, plan: Mapping[str, Any]):
        self.directory = RunDirectory(directory)
        self.plan = plan
        self.world_size: int = plan["world_size"]
        self.parts = [Part(**part) for part in plan["parts"]]
        self.started = time.time()
        self.passed_on = 0
        self.status = 0
        self.asked_to_end = False
        self.dlaunch = os.getppid()
        self.others: list[Elsewhere] = []
        self.lines = output.LinesOfOthers(self.directory.path, "--tag" in plan["program"])

    def run(self) -> int:
        """Returns the first exit code that is not 0, or 0, when all ranks have ended."""
        with signals(signal.SIGCHLD, *ENDING_SIGNALS) as wakeup:
            here = self._start()
            try:
                while not self.asked_to_end and (any(s.running for s in here) or any(o.open for o in self.others)):
                    opened = [other.source for other in self.others if other.open]
                    ready, _, _ = select.select([wakeup, *opened], [], [], TICK if opened else None)
                    if set(arrived(wakeup)) & set(ENDING_SIGNALS):
                        self.asked_to_end = True
                    for other in self.others:
                        if other.open and other.source in ready:
                            self._received(other)
                    for supervisors in here:
                        supervisors.reap()
                        self.status = self.status or supervisors.status
                    if any(supervisors.unrecorded for supervisors in here):
                        return self.status
                    if opened:
                        self._pass_on()
            finally:
                for supervisors in here:
                    supervisors.kill()
                self._close()
        return 128 + signal.SIGTERM if self.asked_to_end else self.status

    def _start(self) -> list[Supervisors]:
        """Starts the agents first, since they take longer, then the ranks of this host."""
        program = self.plan["program"]
        for part in self.parts:
            if part.command is None and part.fd is None:
                continue
            told = {
                "directory": str(self.directory.path), "kernel": self.plan["kernel"], "attempt": self.plan["attempt"],
                "first": part.first, "ranks": part.ranks, "world_size": self.world_size,
            }  # fmt: skip
            if part.command is not None:
                environ = {name: value for name, value in os.environ.items() if not _SESSION.match(name)}
                told |= {"program": program, "environ": environ, "cwd": os.getcwd()}
            else:
                told |= {"environ": {name: os.environ[name] for name in self.plan["exported"]}}
            self.others.append(Elsewhere(part, told))
        here = []
        for part in self.parts:
            if part.command is None and part.fd is None:
                own = [*program, "--run-dir", str(self.directory.path), "--kernel", self.plan["kernel"]]
                here.append(Supervisors(self.directory, own, os.environ, part.first, part.ranks, self.world_size))
                here[-1].start(own_stdin=True, pipes=False)
        return here

    def _received(self, other: Elsewhere) -> None:
        data = channel.read(other.source)
        for kind, payload in other.frames.feed(data):
            if kind in (channel.OUT, channel.ERR):
                self.lines.write(1 if kind == channel.OUT else 2, payload)
            elif kind == channel.FILE:
                record = json.loads(payload)
                if RECORDS.fullmatch(record["name"]):
                    self.directory.put(record["name"], record["text"])
            elif kind == channel.SIGNAL and os.getppid() == self.dlaunch:
                os.kill(self.dlaunch, json.loads(payload))  # somebody there wants dlaunch to end, or pressed Ctrl-C
            elif kind == channel.DONE and json.loads(payload)["attempt"] == self.plan["attempt"]:
                other.open = False
                self.status = self.status or json.loads(payload)["status"]
        if not data and other.open:
            other.open = False
            self._lost(other)

    def _lost(self, other: Elsewhere) -> None:
        """Records the end of the ranks of a host that has gone without a word."""
        now = time.time()
        how = other.how_lost()
        self.status = self.status or 1
        for rank in range(other.part.first, other.part.first + other.part.ranks):
            if not self.directory.knows_why(rank):
                self.directory.write_seen(
                    End(rank, other.part.host, 0, 1, None, now, now - self.started, False, False, [], lost=how)
                )

    def _pass_on(self) -> None:
        numbers = self.directory.passed_on()
        for number in numbers[self.passed_on :]:
            for other in self.others:
                if other.open:
                    channel.send(other.sink, channel.SIGNAL, number)
        self.passed_on = len(numbers)

    def _close(self) -> None:
        """Closes the channels, upon which agents end what is left there; the dlaunches of other hosts are only told to."""
        for other in self.others:
            if other.process is not None:
                assert other.process.stdin is not None
                other.process.stdin.close()
            elif other.open:
                channel.send(other.sink, channel.END, self.plan["attempt"])
        limit = time.monotonic() + GOING
        for other in self.others:
            if other.process is None:
                continue
            try:
                other.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                other.process.terminate()


def main() -> int:
    """Runs the job that the arguments describe."""
    parser = argparse.ArgumentParser(prog="launcher.plain", description=__doc__)
    parser.add_argument("--run-dir", required=True, help="the job's run directory")
    parser.add_argument("--plan", required=True, type=json.loads, help="what to start where, in JSON")
    options = parser.parse_args()
    return Plain(options.run_dir, options.plan).run()


if __name__ == "__main__":
    sys.exit(main())
