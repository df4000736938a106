"""LocalCommunicator: a world of one rank. Every operation is complete at once; messages to oneself are kept."""

from __future__ import annotations

import os
import sys
from collections import defaultdict, deque

import numpy as np

from .communicator import Array, Communicator
from .errors import CommunicationError
from .work import Work, drain

__all__ = ["LocalCommunicator"]


class LocalCommunicator(Communicator):
    """A world of one rank, so that a program for many also runs alone.

    Examples
    --------
    >>> import numpy as np
    >>> world = LocalCommunicator()
    >>> world.rank, world.size
    (0, 1)
    >>> total = np.array([1.5, 2.5])
    >>> world.all_reduce(total).done(), total
    (True, array([1.5, 2.5]))
    """

    transport = "local"

    def __init__(self) -> None:
        super().__init__(rank=0, size=1)
        self._sent: dict[int, deque[Array]] = defaultdict(deque)
        self._waiting: dict[int, list[list[Array]]] = defaultdict(list)

    def _all_reduce(self, array: Array, op: str) -> Work:
        return Work("all_reduce")

    def _reduce(self, array: Array, root: int, op: str) -> Work:
        return Work("reduce")

    def _reduce_scatter(self, array: Array, source: Array, op: str) -> Work:
        array[...] = source[0]
        return Work("reduce_scatter")

    def _broadcast(self, array: Array, root: int) -> Work:
        return Work("broadcast")

    def _all_gather(self, out: Array, array: Array) -> Work:
        out[0] = array
        return Work("all_gather")

    def _gather(self, out: Array | None, array: Array, root: int) -> Work:
        if out is not None:
            out[0] = array
        return Work("gather")

    def _scatter(self, array: Array, source: Array | None, root: int) -> Work:
        if source is not None:
            array[...] = source[0]
        return Work("scatter")

    def _all_to_all(self, out: Array, array: Array) -> Work:
        out[...] = array
        return Work("all_to_all")

    def _barrier(self) -> Work:
        return Work("barrier")

    def _send(self, array: Array, destination: int, tag: int) -> Work:
        self._sent[tag].append(array.copy())
        self._match(tag)
        return Work("send")

    def _recv(self, array: Array, source: int | None, tag: int) -> Work:
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

        def block() -> bool:
            if not poll():
                forget()
                raise CommunicationError(f"recv: rank 0 waits for itself: it has sent nothing more with tag {tag}")
            return True

        def forget() -> None:
            waiting[:] = [slot for slot in waiting if slot is not arrived]

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            forget()

        work = Work("recv", poll, block, cancel=cancel)
        waiting.append(arrived)
        self._match(tag)
        return work

    def _match(self, tag: int) -> None:
        """Give messages to receives in the order in which both were called (MPI-4.1, section 3.5)."""
        sent, waiting = self._sent[tag], self._waiting[tag]
        while sent and waiting:
            waiting.pop(0).append(sent.popleft())

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return None if color is None else LocalCommunicator()

    def _abort(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _close(self) -> None:
        self._sent.clear()
        drain(self)
