"""The lookout: a thread that tells ranks of other nodes what the board of this node says.

Only jobs on several nodes have one. It answers when the rank's main thread is stuck, and one rank can answer for all of its node. A
question is a connection that sends the job's secret; the answer is JSON. Nothing is ever received but the secret.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .board import Board, RankState

__all__ = ["Lookout", "addresses_here", "ask"]

SECRET_BYTES = 32
PATIENCE = 1.5
"""Seconds that a node gets to answer."""
PAUSE = 0.1
"""Seconds after a question that could not be accepted."""


class Lookout:
    """Answers for this node.

    Parameters
    ----------
    board : Board
    secret : bytes
        What a question must begin with: the same on all ranks of the job.
    """

    def __init__(self, board: Board, secret: bytes):
        self._board = board
        self._secret = secret
        self._closed = False
        if socket.has_dualstack_ipv6():
            self._server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            self._server = socket.create_server(("", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, name="collectives lookout", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
        with contextlib.suppress(OSError):  # not connected: it only wakes the thread up
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(PAUSE)  # the asker has gone again, or there is no descriptor left for it at this moment
                continue
            with connection, contextlib.suppress(OSError):  # one that goes away gets no answer
                connection.settimeout(PATIENCE)
                told = b""
                while len(told) < SECRET_BYTES and (more := connection.recv(SECRET_BYTES - len(told))):
                    told += more
                if secrets.compare_digest(told, self._secret):
                    states = [self._board.read(rank).as_dict() for rank in self._board.ranks]
                    connection.sendall(json.dumps(states).encode())


def ask(ways: Sequence[Sequence[tuple[str, int]]], ranks: Sequence[int], secret: bytes) -> dict[int, RankState]:
    """The states of a node's ranks, from whichever of them answers; where none does, what that says of each.

    Parameters
    ----------
    ways : sequence of sequence of (address, port)
        For each rank of the node, how it may be reached.
    ranks : sequence of int
        The node's ranks, in the same order.
    secret : bytes
        The job's.
    """
    asked = [(rank, place) for rank, way in zip(ranks, ways) for place in way]
    with ThreadPoolExecutor(max_workers=min(16, max(1, len(asked)))) as pool:
        told = list(pool.map(lambda one: _ask_one(one[1], secret), asked))
    answers = [answer for answer in told if isinstance(answer, list)]
    if not answers:
        return {rank: _without_answer(rank, asked, told) for rank in ranks}
    states = [RankState(**fields) for fields in answers[0]]
    # JSON's keys are texts.
    return {
        s.rank: RankState(**{**s.as_dict(), "groups": {int(k): v for k, v in (s.groups or {}).items()}}) for s in states
    }


# What is said of a rank that gives no answer; what says most comes first.
_SILENT = "does not answer", "its process is stopped, or calculates something that lets no other thread run; asked at"
_GONE = "is gone", "nobody listens any more at"
_UNREACHABLE = "cannot be reached", "no answer from"


def _without_answer(rank: int, asked: Sequence[tuple[int, tuple[str, int]]], told: Sequence[object]) -> RankState:
    mine = {place[0]: said for (one, place), said in zip(asked, told) if one == rank}
    for life, why in (_SILENT, _GONE, _UNREACHABLE):
        tried = sorted(address for address, said in mine.items() if said == (life, why))
        if tried:
            return RankState(rank, life=life, failure=f"{why} {', '.join(tried)}")
    return RankState(rank)


def _ask_one(place: tuple[str, int], secret: bytes) -> list[dict] | tuple[str, str]:
    """The answer, or why there is none."""
    try:
        connection = socket.create_connection(place, timeout=PATIENCE)
    except ConnectionRefusedError:
        return _GONE
    except OSError:
        return _UNREACHABLE
    with connection:
        try:
            connection.settimeout(PATIENCE)
            connection.sendall(secret)
            answer = b""
            while more := connection.recv(1 << 16):
                answer += more
            return json.loads(answer) if answer else _GONE
        except TimeoutError:  # the system has taken the connection, but nobody speaks
            return _SILENT
        except (OSError, ValueError):  # it ends just now
            return _GONE


def addresses_here() -> list[str]:
    """The addresses of this node at which others may reach it, without loopback where there are others.

    Linux tells them in /proc/net, for the network namespace of the process.
    """
    found: list[str] = []
    trie = Path("/proc/net/fib_trie")
    if trie.exists():
        lines = trie.read_text().splitlines()
        for line, following in itertools.pairwise(lines):
            if "host LOCAL" in following:
                found.append(line.split()[-1])
    inet6 = Path("/proc/net/if_inet6")
    if inet6.exists():
        for line in inet6.read_text().splitlines():
            digits, _, _, scope = line.split()[:4]
            if scope == "00":  # global
                found.append(str(ipaddress.IPv6Address(int(digits, 16))))
    found = list(dict.fromkeys(found))
    outside = [address for address in found if not ipaddress.ip_address(address).is_loopback]
    return outside or ["127.0.0.1"]
