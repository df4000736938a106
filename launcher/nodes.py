"""torchrun's way to several hosts: dlaunch is started once on each, by hand or by a batch system.

    host 0:  dlaunch -n 8 --nnodes 2 --node-rank 0 --master-addr n1 train.py
    host 1:  dlaunch -n 8 --nnodes 2 --node-rank 1 --master-addr n1 train.py

The ranks meet at MASTER_ADDR:MASTER_PORT, where rank 0 listens; the dlaunches meet at the port after it, where that of
node 0 listens. That one decides, as if it had started all: which rank failed first, restarts, the end, the exit code.
The others start their own ranks, say what becomes of them, and end as it tells them.
"""

import contextlib
import json
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launcher import channel
from launcher.agent import Agent
from launcher.console import tell
from launcher.hosts import is_here
from launcher.record import ENDING_SIGNALS, PASSED_ON
from launcher.supervisors import arrived, signals

JOIN = 600.0  # seconds in which all nodes have to be started
REJOIN = 5.0  # seconds that a restart waits for a node that has gone, and may have been started again
SETTLE = 8.0  # seconds that nodes get to end an attempt
SAYING = 15.0  # seconds between two lines that say for whom we wait


class NodesError(RuntimeError):
    """The dlaunches of a job did not find together, or do not belong together."""


class Nodes:
    """The other nodes of a job, as that of node rank 0 sees them.

    Parameters
    ----------
    address : str
        MASTER_ADDR.
    port : int
        Where to listen: MASTER_PORT + 1.
    nodes : int
        How many there are, with this one.
    ranks : int
        How many ranks the job has; the others must have been told the same.
    """

    def __init__(self, address: str, port: int, nodes: int, ranks: int):
        self.nodes = nodes
        self.ranks = ranks
        self.links: dict[int, socket.socket] = {}
        try:
            self.listener = _listen(address, port)
        except OSError as error:
            raise NodesError(
                f"dlaunch of node 0 cannot listen at {address}:{port}, the port after --master-port: {error}"
            ) from None

    def gather(self, seconds: float, stopped: Callable[[float], bool], say: Callable[[str], None]) -> list[int]:
        """Waits for the nodes that are not connected.

        Parameters
        ----------
        seconds : float
            How long.
        stopped : callable
            Waits so many seconds, and says whether to give up.
        say : callable
            Takes lines for the user.

        Returns
        -------
        list of int
            Those that have not come.

        Raises
        ------
        NodesError
            One came that was started with another number of nodes or ranks.
        """
        limit = time.monotonic() + seconds
        spoken = time.monotonic()
        while missing := [node for node in range(1, self.nodes) if node not in self.links]:
            if time.monotonic() > limit or stopped(0.0):
                return missing
            if time.monotonic() - spoken > SAYING:
                spoken = time.monotonic()
                say(f"waiting for the dlaunch of node{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}")
            if select.select([self.listener], [], [], 0.1)[0]:
                self._accept()
        return []

    def _accept(self) -> None:
        link, (peer, *_) = self.listener.accept()
        link.settimeout(5.0)
        try:
            # No byte more than that: what comes behind it is for the engine.
            kind, payload = channel.receive(link)
            hello = json.loads(payload) if kind == channel.HELLO else None
        except (OSError, ValueError):
            hello = None
        if not isinstance(hello, dict) or {"node", "nodes", "ranks"} - hello.keys():
            link.close()  # somebody who knocks at every port
            return
        link.settimeout(None)
        wrong = None
        if (hello["nodes"], hello["ranks"]) != (self.nodes, self.ranks):
            wrong = (
                f"node {hello['node']} ({peer}) was started with --nnodes {hello['nodes']} and {hello['ranks']} ranks, "
                f"node 0 with --nnodes {self.nodes} and {self.ranks} ranks"
            )
        elif hello["node"] in self.links:
            wrong = f"two dlaunches were started with --node-rank {hello['node']}; the second one on {peer}"
        if wrong is not None:
            channel.send(link.fileno(), channel.OVER, {"code": 2, "lines": [f"dlaunch: {wrong}"]})
            link.close()
            raise NodesError(wrong)
        _keep_alive(link)
        self.links[hello["node"]] = link

    def settle(self, attempt: int) -> None:
        """Waits until no node has anything left of an attempt; those that do not say so are let go."""
        for node, link in list(self.links.items()):
            if not channel.send(link.fileno(), channel.END, attempt):
                self._drop(node)
        limit = time.monotonic() + SETTLE
        for node, link in list(self.links.items()):
            frames = channel.Frames()
            settled = False
            while not settled:
                if not select.select([link], [], [], max(0.0, limit - time.monotonic()))[0]:
                    break
                data = channel.read(link.fileno())
                if not data:
                    break
                for kind, payload in frames.feed(data):
                    settled |= kind == channel.DONE and json.loads(payload)["attempt"] == attempt
            if not settled:
                self._drop(node)

    def over(self, code: int, lines: Sequence[str]) -> None:
        """Tells all nodes how the job ended."""
        for link in self.links.values():
            channel.send(link.fileno(), channel.OVER, {"code": code, "lines": list(lines)})
            link.close()
        self.links.clear()
        self.listener.close()

    def _drop(self, node: int) -> None:
        self.links.pop(node).close()


def follow(
    address: str,
    port: int,
    node: int,
    nodes: int,
    ranks: int,
    program: Callable[[int], Sequence[str]],
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> int:
    """What dlaunch does on every node but node 0; returns the job's exit code.

    Parameters
    ----------
    address, port : str, int
        Where that of node 0 listens.
    node, nodes, ranks : int
        This node, how many there are, how many ranks the job has.
    program : callable
        The supervisor's command line for an attempt.
    environ : mapping
        The environment of the ranks, without what they share with those of other nodes.
    say : callable
        Takes lines for the user.
    """
    with signals(signal.SIGCHLD, *PASSED_ON) as wakeup:
        link = _connect(address, port, wakeup, say)
        if isinstance(link, int):
            return link
        channel.send(link.fileno(), channel.HELLO, {"node": node, "nodes": nodes, "ranks": ranks})
        told = 0

        def signalled(number: int) -> bool:
            """Node 0 decides. Who asks a third time need not wait for it."""
            nonlocal told
            if number in PASSED_ON:
                channel.send(link.fileno(), channel.SIGNAL, number)
                told += number in ENDING_SIGNALS
            return told > 2

        frames = channel.Frames()
        while True:
            ready, _, _ = select.select([link.fileno(), wakeup], [], [])
            for number in arrived(wakeup):
                if signalled(number):
                    return 128 + number
            if link.fileno() not in ready:
                continue
            data = channel.read(link.fileno())
            if not data:
                say(f"the dlaunch of node 0 ({address}) is gone, so the ranks of node {node} have been ended")
                return 1
            waiting = frames.feed(data)
            while waiting:
                kind, payload = waiting.pop(0)
                said: Any = json.loads(payload)
                if kind == channel.OVER:
                    tell(*said["lines"])
                    code: int = said["code"]
                    return code
                if kind == channel.END:
                    channel.send(link.fileno(), channel.DONE, {"attempt": said, "status": 0})
                elif kind == channel.PLAN:
                    agent = Agent(
                        link.fileno(), link.fileno(), said, program(said["attempt"]), {**environ, **said["environ"]},
                        pipes=False,
                    )  # fmt: skip
                    agent.frames, agent.pending, waiting = frames, waiting, []
                    agent.run(wakeup, signalled)


def _listen(address: str, port: int) -> socket.socket:
    """Listens at that address alone if it is one of this host's; behind a router it is not."""
    family, where = socket.AF_INET, ""
    for candidate, _, _, _, (name, *_) in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
        if is_here(str(name)):
            family, where = candidate, str(name)
            break
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((where, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _connect(address: str, port: int, wakeup: int, say: Callable[[str], None]) -> socket.socket | int:
    """The connection to node 0, which may be started later; or an exit code."""
    begun = spoken = time.monotonic()
    while True:
        try:
            link = socket.create_connection((address, port), timeout=5.0)
            # On one host the system may give the connection that very port for its own end: TCP's simultaneous open.
            if link.getsockname() != link.getpeername():
                link.settimeout(None)
                _keep_alive(link)
                return link
            link.close()
            reason: Exception = ConnectionRefusedError("nobody listens")
        except OSError as error:
            reason = error
        now = time.monotonic()
        if now - begun > JOIN:
            say(f"there was no dlaunch of node 0 at {address}:{port} within {JOIN:.0f} s: {reason}")
            return 1
        if now - spoken > SAYING:
            spoken = now
            say(f"waiting for the dlaunch of node 0 at {address}:{port} ({reason})")
        select.select([wakeup], [], [], 0.2)
        for number in arrived(wakeup):
            if number in ENDING_SIGNALS:
                return 128 + number


def _keep_alive(link: socket.socket) -> None:
    """A host that has lost its power is noticed within half a minute."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000)):
        with contextlib.suppress(AttributeError):  # not every system has them all
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
