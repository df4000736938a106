"""The plain engine on another host than dlaunch's: starts that host's ranks, and tells of them over a channel.

The host need not share a file system for the run directory with the others: the files that its supervisors write there
are sent to dlaunch's host, which puts them into its own, and signals come the other way. Where the directory is shared
nothing is sent twice. When the channel closes, whoever was at its other end is gone, and the ranks are ended.
"""

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Run by its path on the other host, without an installation there beyond these files.
if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from launcher import channel, output, process, run_directories
from launcher.contract import RUN_DIRECTORY
from launcher.record import ENDING_SIGNALS, RunDirectory
from launcher.supervisors import Stream, Supervisors, arrived, signals

TICK = 0.1  # seconds between looks at the run directory
QUIET = 0.2  # seconds without output after which the pipe of a rank that has ended counts as empty
LEAVE = 4.0  # seconds that supervisors get to end their scripts when the channel has closed

# The files of a run directory that say something of a rank. No other name is taken from a channel.
RECORDS = re.compile(r"rank-\d+\.(start\.json|(seen\.)?end\.json|failed|notice)")


class Agent:
    """One host's part of one attempt.

    Parameters
    ----------
    source, sink : int
        The descriptors of the channel: to read from, to write to.
    plan : mapping
        What dlaunch's host sent: ``directory``, ``kernel``, ``attempt``, ``first``, ``ranks``, ``world_size``.
    program : sequence of str
        The supervisor's command line, without run directory and place.
    environ : mapping
        The environment of the ranks.
    pipes : bool
        Whether what the ranks write goes over the channel; else it is written here.
    """

    def __init__(
        self,
        source: int,
        sink: int,
        plan: Mapping[str, Any],
        program: Sequence[str],
        environ: Mapping[str, str],
        pipes: bool,
    ):
        self.source = source
        self.sink = sink
        self.pipes = pipes
        self.attempt = plan["attempt"]
        self.open = True
        self.pending: list[tuple[bytes, bytes]] = []  # frames that came together with the plan
        self.frames = channel.Frames()
        self.path = plan["directory"]
        self.made = None if os.path.isdir(self.path) else _make(self.path)
        if self.made is not None:
            self.path = self.made.path
        self.directory = RunDirectory(self.path)
        self.sent: set[str] = set()
        self.elsewhere = plan["kernel"] != process.kernel()
        self.supervisors = Supervisors(
            self.directory,
            [*program, "--run-dir", self.path, "--kernel", plan["kernel"]],
            {**environ, RUN_DIRECTORY: self.path},
            plan["first"], plan["ranks"], plan["world_size"],
        )  # fmt: skip
        # With --tag whole lines come from the supervisors, and whole lines are sent on.
        self.tag = "--tag" in program
        self.lines: dict[int, output.Lines] = {}

    def run(self, wakeup: int, signalled: Callable[[int], bool]) -> bool:
        """Starts the ranks and serves them until all have ended.

        Parameters
        ----------
        wakeup : int
            The descriptor on which signals to this process arrive.
        signalled : callable
            Called with each; says whether the ranks are to be ended.

        Returns
        -------
        bool
            Whether the channel is still open.
        """
        ended = self._carry_out(self.pending)
        try:
            self.supervisors.start(own_stdin=False, pipes=self.pipes)
            while self.supervisors.running and not ended:
                fds = [self.source, wakeup, *(stream.fd for stream in self.supervisors.streams)]
                ready, _, _ = select.select(fds, [], [], TICK)
                ended = any([signalled(number) for number in arrived(wakeup)])  # noqa: C419  each is to be taken
                for stream in self.supervisors.streams[:]:
                    if stream.fd in ready:
                        self._copy(stream)
                if self.source in ready:
                    ended |= self._received()
                self.supervisors.reap()
                ended |= self.supervisors.unrecorded
                self._mirror()
        finally:
            self._end(by_force=ended)
        done = {"attempt": self.attempt, "status": self.supervisors.status}
        return self.open and channel.send(self.sink, channel.DONE, done)

    def _received(self) -> bool:
        """Carries out what has arrived; says whether the ranks are to be ended."""
        data = channel.read(self.source)
        self.open = bool(data)
        return self._carry_out(self.frames.feed(data)) or not data

    def _carry_out(self, frames: list[tuple[bytes, bytes]]) -> bool:
        ended = False
        for kind, payload in frames:
            # Where the run directory is shared the supervisors read it there.
            if kind == channel.SIGNAL and self.made:
                self.directory.pass_on(json.loads(payload))
            ended |= kind == channel.END and json.loads(payload) == self.attempt
        return ended

    def _copy(self, stream: Stream) -> None:
        data = os.read(stream.fd, 1 << 16)
        lines = self.lines.setdefault(stream.fd, output.Lines(may_go_on=False))
        if not data:
            self.supervisors.streams.remove(stream)
            os.close(stream.fd)
            data = lines.rest()
        elif self.tag:
            data = lines.feed(data)
        if data:
            channel.send(self.sink, channel.OUT if stream.number == 1 else channel.ERR, data)

    def _mirror(self) -> None:
        """Sends the records that are new; a record is complete as soon as it has its name."""
        if not self.made:
            return
        try:
            self.directory.make_again()
            names = sorted(os.listdir(self.path))
        except OSError:  # and it cannot be made: the exit codes are what is left to tell
            return
        for name in names:
            if name in self.sent or not RECORDS.fullmatch(name):
                continue
            self.sent.add(name)
            with open(os.path.join(self.path, name)) as file:
                channel.send(self.sink, channel.FILE, {"name": name, "text": file.read()})

    def _end(self, by_force: bool) -> None:
        self.supervisors.kill()
        if by_force and self.elsewhere:  # on dlaunch's own machine it sees to that itself
            mark = f"{RUN_DIRECTORY}={self.path}"
            limit = time.monotonic() + LEAVE
            while (left := process.carrying(mark)) and time.monotonic() < limit:
                time.sleep(TICK)
            for pid in left:
                process.signal_process(pid, process.start_ticks(pid), signal.SIGKILL)
        while self.supervisors.streams:
            ready, _, _ = select.select([stream.fd for stream in self.supervisors.streams], [], [], QUIET)
            if not ready:
                break
            for stream in self.supervisors.streams[:]:
                if stream.fd in ready:
                    self._copy(stream)
        for stream in self.supervisors.streams:
            os.close(stream.fd)
        self._mirror()
        if self.made:
            run_directories.remove(self.path)
            self.made.leave()


def _make(path: str) -> run_directories.Held:
    """Makes the run directory on this host, which does not share it with dlaunch's: by the same name if that can be."""
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return run_directories.make()
    return run_directories.begin(path)


def main() -> int:
    """What dlaunch's host starts through rsh: the channel is stdin and stdout, and the first frame is the plan."""
    source, sink = os.dup(0), os.dup(1)
    # Whatever writes here without being asked must not come between the frames.
    os.dup2(2, 1)
    frames = channel.Frames()
    found: list[tuple[bytes, bytes]] = []
    while not found:
        data = channel.read(source)
        if not data:
            return 1  # dlaunch went away before it said anything
        found = frames.feed(data)
    plan = json.loads(found[0][1])
    try:
        os.chdir(plan["cwd"])
    except OSError as error:
        print(f"dlaunch: host {os.uname().nodename}: {error.strerror}: {plan['cwd']}, where dlaunch was started", file=sys.stderr)
        return 1
    with signals(signal.SIGCHLD, *ENDING_SIGNALS) as wakeup:
        agent = Agent(source, sink, plan, plan["program"], plan["environ"], pipes=True)
        agent.frames, agent.pending = frames, found[1:]
        agent.run(wakeup, lambda number: number in ENDING_SIGNALS)
    return agent.supervisors.status


if __name__ == "__main__":
    sys.exit(main())
