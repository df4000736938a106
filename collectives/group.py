"""Group: what surrounds every call of a communicator, whatever carries the arrays. Written once, here.

Each call gets a number and is noted by the flight recorder and on the node's board; with ``debug="mismatch"`` what the
ranks call is compared before data moves. A wait that takes too long names the ranks that have not come, and what they did
last; one for a rank that has ended or failed ends at once.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from .board import RankState, group_number
from .errors import CollectiveMismatchError, CollectiveTimeoutError, CommunicationError
from .flight import CAPTURED, ENDED, FAILED, OPERATION, PEER, Call, Note, caller
from .job import Job
from .reductions import Reduction
from .staging import Array
from .transport import Transport
from .work import Work, completed, pending, retain, sweep

__all__ = ["Group"]

SIGNATURE_BYTES = 512
"""What the ranks compare of a call; longer texts (of many dimensions, deep paths) are cut."""
LOOK_FOR_LIFE = 0.2
"""Seconds of waiting between two looks at whether the others are alive."""
GRACE_FOR_MESSAGES = 0.7
"""Seconds that a message may be on its way from a rank that has left."""


class Group:
    """Some of a job's ranks, and the state of this rank's calls among them.

    Parameters
    ----------
    transport : Transport
        What carries NumPy arrays.
    job : Job
    name : str
        The same on all its ranks: ``"world"``, ``"world/1"``.
    ranks : sequence of int
        Its members, as numbers in the world.
    timeout : float
        Seconds.
    """

    def __init__(self, transport: Transport, job: Job, name: str, ranks: Sequence[int], timeout: float):
        self.rank: int = transport.rank
        self.size: int = transport.size
        self.name = name
        self.ranks = list(ranks)
        self.timeout = timeout
        self.job = job
        self._transport = transport
        self._device_transports: dict[str, Transport] = {}
        self._limit: float | None = None
        self._closed = False
        self._failed: Exception | None = None
        self.refused = False
        """Whether a call was refused since the group has failed, so that the program knows of it."""
        self._seq = 0
        self._splits = 0
        self._coalescing: list[Work] | None = None
        self._record = job.recorder.calls.append
        self._board = job.board
        self._slot = 0 if job.board is None else job.board.slot(name)
        self._texts: dict[Any, bytes] = {}
        self._last_text: tuple[Any, Any, Any, bytes] = (None, None, None, b"")
        """What the board was told last, and of what; the same is told again most often."""
        self._plans: dict[Any, tuple[Reduction, Reduction]] = {}
        self._comparing = job.settings.debug == "mismatch" and self.size > 1
        job.recorder.groups[name] = self.about()
        if hasattr(transport, "watch"):
            transport.watch = self._watcher()

    def about(self) -> dict[str, Any]:
        """What a flight record tells of the group."""
        return {"ranks": self.ranks, "transport": self._transport.name}

    @contextmanager
    def within(self, timeout: float | None) -> Iterator[None]:
        """What is called in the with-block may be waited for this long, in place of `timeout`.

        Parameters
        ----------
        timeout : float or None
            Seconds, also for waiting behind the block; None: as long as ever.
        """
        before, self._limit = self._limit, timeout
        try:
            yield
        finally:
            self._limit = before

    # A call ----------------------------------------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        array: Array | None = None,
        op: Reduction | None = None,
        *,
        root: int | None = None,
        peer: int | None = None,
        tag: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Note:
        """Note a call: refuse it where the group cannot carry it out, number it, record it."""
        if self._closed or self._failed is not None:
            self._refuse(operation)
        if pending:
            sweep()
        if peer is None:
            self._seq = seq = self._seq + 1
        else:
            seq = 0
        now = time.time()
        if array is None:
            dtype, nbytes = None, 0
        else:
            dtype, nbytes = array.dtype, array.nbytes
            if shape is None:
                shape = array.shape
        frame = caller(sys._getframe(2))
        note = [self, seq, operation, op, now, dtype, shape, nbytes, root, peer, tag, frame, 0.0, False, False]
        self._record(note)
        if self._board is not None:
            last = self._last_text
            if last[0] is not operation or last[1] is not op or last[2] is not dtype:
                self._last_text = last = (operation, op, dtype, self._board_text(note))
            self._board.call(self._slot, seq, nbytes, last[3], now)
        if self._comparing and peer is None:
            self._compare(note)
        return note

    def _begin(
        self,
        note: Note,
        work: Work,
        async_op: bool,
        finish: Callable[[], None] | None = None,
        output: Array | None = None,
    ) -> Work:
        """Go on with what the transport has started: wait for it, or see that it is not forgotten."""
        if work._done and work._exception is None:
            if finish is not None:
                finish()
            note[ENDED] = time.time()
            done = completed(work.operation, self, output)
            done.source = work.source
            return done
        work.owner = self
        work._output = output
        if finish is not None:
            work.then(finish)
        self._look_after(work, note)
        if work.on_stream:
            note[CAPTURED] = work.captured
        if self._coalescing is not None:
            self._coalescing.append(work)
            async_op = True
        try:
            if not async_op:
                work.wait()
        finally:
            # Also where Ctrl-C ends the waiting: the transport goes on to use the arrays.
            if not work.done():
                retain(work)
        if work.on_stream and not async_op:
            # The stream goes on; to the caller it is over, and the result is the caller's alone.
            work._output = None
            done = completed(work.operation, self, output)
            done.source = work.source
            return done
        return work

    def _nothing(self, note: Note, output: Array | None = None) -> Work:
        """The Work of a call that has nothing to move."""
        note[ENDED] = time.time()
        return completed(note[OPERATION], self, output)

    def _guarded(self, work: Work, note: Note) -> None:
        """Wait for something that the group itself needs, with all that watches over a call."""
        self._look_after(work, note)
        work.wait()

    def _look_after(self, work: Work, note: Note) -> None:
        """See that a wait for it has an end, and that the group hears how it ended."""
        if work._done:  # it has failed at once
            self._ended(note, work)
            return
        work.watch = partial(self._watch, note, limit=self._limit)
        work.ended = partial(self._ended, note)

    def _board_text(self, note: Note) -> bytes:
        call = Call(note)
        key = call.operation, call.reduction and call.reduction.name, call.dtype
        text = self._texts.get(key)
        if text is None:
            words = call.operation
            if call.reduction is not None:
                words += f" {call.reduction.name}"
            if call.dtype is not None:
                words += f" of {call.dtype}"
            text = self._texts[key] = f"{words} in {self.name}".encode()[:127]
        return text

    # Comparing calls -------------------------------------------------------------------------------------------------

    def _compare(self, note: Note) -> None:
        """Raise on every rank if the ranks do not call the same."""
        call = Call(note)
        said = f"{call.seq}|{call.text()}|{call.place()}".encode()[:SIGNATURE_BYTES]
        mine = np.zeros(SIGNATURE_BYTES, np.uint8)
        mine[: len(said)] = np.frombuffer(said, np.uint8)
        everyone = np.empty((self.size, SIGNATURE_BYTES), np.uint8)
        self._guarded(self._transport.all_gather(everyone, mine), note)
        note[ENDED] = 0.0
        told = [row.tobytes().rstrip(b"\0").decode(errors="replace").split("|") for row in everyone]
        if len({tuple(words[:2]) for words in told}) > 1:
            places = [words[-1] for words in told]
            calls = [words[1] if len(words) > 1 else "?" for words in told]
            width = max(map(len, calls))
            lines = [f"  rank {r}: {c:{width}}  at {p}" for r, (c, p) in enumerate(zip(calls, places))]
            error = CollectiveMismatchError(
                f"the ranks of group {self.name} called different things as number {call.seq}:\n" + "\n".join(lines)
            )
            note[FAILED] = True
            self._fail(error)
            raise error

    # Waiting ---------------------------------------------------------------------------------------------------------

    def _watcher(self) -> Callable[[float], None]:
        """What a transport calls that waits for other ranks before its call returns."""
        group = weakref.ref(self)  # which a transport must not keep alive

        def watch(waited: float) -> None:
            if (here := group()) is None:
                return
            try:
                here._watch(here.job.recorder.calls[-1], waited, here._limit)
            except CommunicationError as error:
                here._fail(error)
                raise

        return watch

    def _watch(self, note: Note, waited: float, limit: float | None = None) -> None:
        """Raise if a wait has no prospect: its time is over, or a rank is gone."""
        call = Call(note)
        if self.size == 1:
            if call.peer is None:
                return  # nobody is missing: a GPU is not through with it yet
            raise CommunicationError(
                f"{call.operation}: rank 0 waits for itself: it has sent nothing more with tag {call.tag}"
            )
        if waited >= (allowed := self.timeout if limit is None else limit):
            raise self._timed_out(call, waited, allowed)
        if self._board is None or waited < LOOK_FOR_LIFE:
            return
        among = self.ranks if call.peer is None else [self.ranks[call.peer]] if call.peer >= 0 else self.ranks
        gone = list(self._board.gone(among))
        if call.peer is not None and call.peer < 0 and len(gone) < self.size - 1:
            # A message from anyone may still come from those that are there.
            gone = [state for state in gone if state.life != "has left"]
        for state in gone:  # all: the first may have left in good order, and another one not
            self._lost(call, waited, state)

    def _lost(self, call: Call, waited: float, state: RankState) -> None:
        """Raise for a rank that is gone, unless it has come to this call before it went, and left in good order."""
        if state.life == "has left":
            came = call.seq and state.groups is not None and state.groups.get(group_number(self.name), call.seq) >= call.seq
            if came or waited < GRACE_FOR_MESSAGES:
                return
        raise CommunicationError(
            f"{self._what(call)}: rank {self.rank} waits for a rank that is gone. {self.job.describe(state)}"
        )

    def _timed_out(self, call: Call, waited: float, allowed: float) -> CollectiveTimeoutError:
        others = [rank for rank in self.ranks if rank != self.ranks[self.rank]]
        if call.peer is not None and call.peer >= 0:
            others = [self.ranks[call.peer]]
        states = self.job.states(others)
        number = group_number(self.name)
        missing = [
            state
            for state in states.values()
            if state.life in ("cannot be reached", "does not answer", "is gone", "has ended", "is stopped")
            or (call.seq and state.groups is not None and state.groups.get(number, call.seq) < call.seq)
        ]
        said = f"{self._what(call)}: rank {self.rank} has waited {waited:.1f} s (timeout {allowed:g} s). "
        if call.seq == 0:
            lines = [self.job.describe(state) for state in states.values()]
            return CollectiveTimeoutError(f"{said}The other side:\n  " + "\n  ".join(lines))
        if missing:
            self.job.ask_for_records(missing)
            names = ", ".join(str(self.ranks.index(state.rank)) for state in missing)
            verb = "has" if len(missing) == 1 else "have"
            lines = [self.job.describe(state) for state in missing]
            return CollectiveTimeoutError(
                f"{said}Rank{'s' if len(missing) > 1 else ''} {names} of this group {verb} not come:\n  " + "\n  ".join(lines)
            )
        late = self._transport.late()
        hint = f"the data of ranks {', '.join(map(str, late))} is missing" if late else "the data does not move"
        unknown = [state for state in states.values() if state.life == "is not known"]
        if unknown:
            hint = "nothing is known of what they do: their nodes share no memory"
        lines = [self.job.describe(state) for state in states.values()]
        return CollectiveTimeoutError(f"{said}All other ranks may have come, but {hint}:\n  " + "\n  ".join(lines))

    def _what(self, call: Call) -> str:
        text = call.text()
        if call.peer is not None:
            side = "to" if call.operation == "send" else "from"
            return f"{text} {side} rank {call.peer if call.peer >= 0 else 'any'}, tag {call.tag}, in group {self.name}"
        return f"{text}, number {call.seq} of group {self.name}"

    # Failing ---------------------------------------------------------------------------------------------------------

    def _ended(self, note: Note, work: Work) -> None:
        note[ENDED] = time.time()
        error = work._exception
        if error is not None:
            note[FAILED] = True
            message = note[PEER] is not None and not isinstance(error, CollectiveTimeoutError)
            if isinstance(error, CommunicationError) and not message:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A collective has failed: the ranks are out of step, so nothing more can be done in this group."""
        if self._failed is not None:
            return
        self._failed = error
        reason = "error"
        if isinstance(error, CollectiveTimeoutError):
            reason = "timeout"
        elif isinstance(error, CollectiveMismatchError):
            reason = "mismatch"
        if self.size > 1:
            self.job.recorder.write(reason, error)

    def _refuse(self, operation: str) -> None:
        if self._closed:
            raise CommunicationError(f"{operation}: rank {self.rank}: this communicator was closed")
        self.refused = True
        raise CommunicationError(
            f"{operation}: rank {self.rank}: group {self.name} has failed before, its ranks are out of step: {self._failed}"
        ) from self._failed
