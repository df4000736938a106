"""LocalTransport: a world of one rank. Every operation is complete at once; messages to oneself are kept."""

from __future__ import annotations

import os
import sys
from collections import defaultdict, deque
from typing import NoReturn

import numpy as np

from .errors import CommunicationError
from .reductions import Reduction
from .staging import Array, truth
from .transport import Counts, Transport
from .work import Work

__all__ = ["LocalTransport"]


class LocalTransport(Transport):
    """A world of one rank, so that a program for many also runs alone."""

    name = "local"
    averages = True
    accumulates_half = True

    def __init__(self) -> None:
        super().__init__(rank=0, size=1)
        self._sent: dict[int, deque[Array]] = defaultdict(deque)
        self._waiting: dict[int, list[list[Array]]] = defaultdict(list)

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        truth(array, op)
        return Work("all_reduce")

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        truth(array, op)
        return Work("reduce")

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        array[...] = source.reshape(array.shape)
        truth(array, op)
        return Work("reduce_scatter")

    def broadcast(self, array: Array, root: int) -> Work:
        return Work("broadcast")

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        out[...] = array.reshape(out.shape)
        return Work("all_gather")

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        if out is not None:
            out[...] = array.reshape(out.shape)
        return Work("gather")

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        if source is not None:
            array[...] = source.reshape(array.shape)
        return Work("scatter")

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        out[...] = array.reshape(out.shape)
        return Work("all_to_all")

    def barrier(self) -> Work:
        return Work("barrier")

    def send(self, array: Array, destination: int, tag: int) -> Work:
        self._sent[tag].append(array.copy())
        self._match(tag)
        return Work("send")

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        arrived: list[Array] = []
        waiting = self._waiting[tag]
        cancelled = False

        def poll() -> bool:
            if cancelled and not arrived:
                raise CommunicationError(f"recv: rank 0: cancelled, no message with tag {tag} had come")
            if not arrived:
                return False
            if arrived[0].nbytes != array.nbytes:
                raise CommunicationError(
                    f"recv: rank 0 expects {array.nbytes} bytes with tag {tag}, got {arrived[0].nbytes} from rank 0"
                )
            # The bytes count, as between processes: a message carries no dtype.
            array.reshape(-1).view(np.uint8)[...] = arrived[0].reshape(-1).view(np.uint8)
            work.source = 0
            return True

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            waiting[:] = [slot for slot in waiting if slot is not arrived]

        work = Work("recv", poll, cancel=cancel)
        waiting.append(arrived)
        self._match(tag)
        return work

    def _match(self, tag: int) -> None:
        """Give messages to receives in the order in which both were called (MPI-4.1, section 3.5)."""
        sent, waiting = self._sent[tag], self._waiting[tag]
        while sent and waiting:
            waiting.pop(0).append(sent.popleft())

    def split(self, color: int | None, key: int) -> Transport | None:
        return None if color is None else LocalTransport()

    def abort(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def close(self) -> None:
        self._sent.clear()

