"""The reductions of one backward pass: buckets are started in one order on all ranks, and waited for when backward has ended.

On a GPU nothing waits on the host: to wait for a reduction puts what comes behind it on the GPU. Hooks compute on a stream beside
backward's; see `beside`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import collectives

from ..autograd.variable import Tensor
from ..backend import namespace
from ..futures import Future, noting_callbacks
from .beside import Side
from .buckets import Bucket, GradBucket
from .communication_times import CommunicationTimes, DeviceClock, HostClock
from .layout import Layout
from .steps import Steps

__all__ = ["Reductions"]


class Reductions:
    """Reduces buckets that are full.

    Parameters
    ----------
    communicator : collectives.Communicator
    layout : Layout
        The buckets.
    device : device or None
        The GPU that they lie on, None for the CPU.
    write_flags : callable
        Called with an array of the flags, before the last bucket is reduced: writes what the other ranks shall know.

    Attributes
    ----------
    hook, hook_state
        The communication hook.
    scale : float
        What means are multiplied by: more than 1 where ranks that have no more inputs shall not count.
    next : int
        The first bucket that has not been started in this pass.
    flags : ndarray
        What `write_flags` has written; once waited for, what the ranks have.
    """

    def __init__(
        self, communicator: collectives.Communicator, layout: Layout, device: Any, write_flags: Callable[[Any], None]
    ):
        self._communicator, self._layout, self._write_flags = communicator, layout, write_flags
        self.hook: Callable[[Any, GradBucket], Future] | None = None
        self.hook_state: Any = None
        self.scale = 1.0
        self.next = 0
        self.flags: Any = None
        self._oldest = 0  # the first bucket that is not known to be reduced
        self._flag_work: collectives.Work | None = None
        self._also: list[Future] = []
        self._called_back: list[Future] = []  # futures to which hooks have given callbacks in this pass
        self._clock = HostClock() if device is None else DeviceClock()
        self._side = None if device is None else Side(device)

    @property
    def times(self) -> CommunicationTimes:
        """How long the reductions of the last pass took; on a GPU this waits for it."""
        return self._clock.times()

    @property
    def hook_synchronizes(self) -> bool:
        """Whether all ranks take part in each reduction, so that they may call another collective where one has."""
        return self.hook is None or getattr(self.hook, "synchronizes", True)

    @property
    def hook_name(self) -> str:
        """The hook's name for people, "" without one."""
        return "" if self.hook is None else getattr(self.hook, "__qualname__", repr(self.hook))

    def wait_also(self, futures: Iterable[Future]) -> None:
        """Wait for something else, too, at the end of the next backward pass."""
        self._also.extend(futures)

    def begin(self) -> None:
        """A backward pass begins: none of its buckets is reduced."""
        self.next = self._oldest = 0
        self._called_back.clear()
        self._clock.begin()
        for b in self._layout.buckets:
            b.begin()

    def start_full(self) -> None:
        """Start the buckets that are full. All ranks must start them in one order, whatever order theirs are filled in."""
        buckets = self._layout.buckets
        while self.next < len(buckets) and not buckets[self.next].missing:
            self.next += 1
            self._start(buckets[self.next - 1], buckets)

    def let_progress(self) -> None:
        """Look at the oldest reduction under way: transports may only move on when somebody looks."""
        while self._oldest < self.next and self._clock.has_ended(self._oldest):
            self._oldest += 1
        if self._oldest < self.next:
            work = self._layout.buckets[self._oldest].work
            if work is not None and not work.on_stream:
                work.test()

    def wait(self) -> None:
        """Wait for all of them; after that buckets hold means."""
        self._clock.computed()
        buckets = self._layout.buckets
        with nullcontext() if self.hook is None else self._beside():
            pending = [b.future for b in buckets if isinstance(b.future, Steps)]
            while pending:
                for steps in pending:
                    steps.step()
                pending = [steps for steps in pending if not steps.done()]
            for b in buckets:
                if b.future is not None:
                    self._take(b, self._value(b.future))
                    self._clock.ended(b.index)
                else:
                    assert b.work is not None
                    b.work.wait()
        if self._side is not None and self.hook is not None:
            self._side.join()
        if self._flag_work is not None:
            self._flag_work.wait()
            self._flag_work = None
        also, self._also = self._also, []
        for future in also:
            future.wait()
        if self.scale != 1.0:
            for b in buckets:
                if b.future is None:
                    b.flat *= b.flat.dtype.type(self.scale)
        self._clock.over()

    def _start(self, bucket: Bucket, buckets: Sequence[Bucket]) -> None:
        is_last = bucket is buckets[-1]
        if is_last:
            self.flags = bucket.flags if self.hook is None else namespace(bucket.flags).zeros(len(bucket.flags), "float32")
            self._write_flags(self.flags)
        self._clock.started(bucket.index)
        if self.hook is None or bucket.is_delayed:
            bucket.work = self._communicator.all_reduce(bucket.array, "avg", async_op=True)
            bucket.work.then(partial(self._clock.ended, bucket.index))
        else:
            self._call_hook(bucket, buckets)
        if is_last and self.hook is not None and self.hook_synchronizes:
            self._flag_work = self._communicator.all_reduce(self.flags, "max", async_op=True)

    def _call_hook(self, bucket: Bucket, buckets: Sequence[Bucket]) -> None:
        assert self.hook is not None
        with self._beside():
            # what takes several steps takes one here, a moment that all ranks have in common
            for earlier in buckets[: bucket.index]:
                if isinstance(earlier.future, Steps):
                    earlier.future.step()
            is_last = all(later.is_delayed for later in buckets[bucket.index + 1 :])
            with noting_callbacks(self._called_back):
                bucket.future = self.hook(self.hook_state, GradBucket(bucket, is_last))
        if not isinstance(bucket.future, Future):
            raise TypeError(
                f"a communication hook must return a Future that holds a Tensor, not {type(bucket.future).__name__}: {self.hook_name}"
            )

    def _value(self, future: Future) -> Any:
        """What a hook's future holds. One that a callback completes, of whatever the hook has begun, cannot wait for that itself: here
        all that has callbacks is waited for, in the order in which it began, which is the same on all ranks.

        Raises
        ------
        TimeoutError
            If nobody completes it.
        """
        if future._advance is None and not future._done:
            with noting_callbacks(self._called_back):
                while self._called_back and not future._done:
                    self._called_back.pop(0).wait()
            timeout = self._communicator.timeout
            if not future._done_within(timeout):
                raise TimeoutError(
                    f"the Future of a communication hook is not complete after {timeout:g} s (the group's timeout), and nothing is under "
                    f"way that would complete it; the hook, or a callback of its own, must call set_result: {self.hook_name}"
                )
        return future.wait()

    def _beside(self) -> AbstractContextManager[None]:
        """Where hooks compute: on a GPU, on a stream that backward does not wait for."""
        return nullcontext() if self._side is None else self._side.behind()

    def _take(self, bucket: Bucket, result: Any) -> None:
        """What a communication hook has made of a bucket."""
        if not isinstance(result, Tensor) or result._array.size != bucket.flat.size:
            found = f"one of {result._array.size}" if isinstance(result, Tensor) else type(result).__name__
            raise TypeError(
                f"the Future of a communication hook must hold one Tensor of the bucket's {bucket.flat.size} elements, not {found}: "
                f"{self.hook_name}"
            )
        if result._array is not bucket.flat:
            bucket.flat[...] = result._array.reshape(bucket.flat.shape)
