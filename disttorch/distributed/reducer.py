"""The reducer of DistributedDataParallel: one reduction of all gradients to their mean for each backward pass.

A gradient that has arrived is noted in its bucket; a full bucket is reduced without waiting, in the order of the buckets,
which is the same on all ranks. When the backward pass ends, what is left is reduced and all is waited for. Behind the
gradients of the last bucket lie a few flags, so that every rank learns, at no price, whether another one missed gradients.

On a GPU nothing waits on the host: to wait for a reduction puts what comes behind it on the GPU, and what the host does beside that
stands in `beside`. So a whole pass can be captured as a graph, once there have been two others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import collectives

from .. import cuda
from ..autograd.engine import Pass
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import namespace
from ..futures import Future
from .backward_passes import BackwardPasses, is_running
from .beside import LateFlags, Side
from .buckets import Bucket, Entry, GradBucket, Memory, divide
from .communication_times import CommunicationTimes, DeviceClock, HostClock
from .model_state import said
from .reducer_errors import missing_gradients, unexpected_gradient
from .steps import Steps

__all__ = ["Reducer"]


class Reducer:
    """Reduces the gradients of a model's parameters.

    Parameters
    ----------
    named_parameters : sequence of (str, Tensor)
        The parameters that ask for gradients, in the order in which the model registered them.
    communicator : collectives.Communicator
    limits : sequence of int
        Bytes of the first bucket, the second, ..., and of all others; see `buckets.divide`.
    last_limit : int
        Bytes of the very last bucket.
    in_buckets : bool
        Whether the parameters' gradients are views of the buckets.
    find_unused : bool
        Whether a pass may leave parameters out.
    skip_unused : bool
        Whether parameters that the first pass leaves out, on all ranks, are not reduced any more.
    static : bool
        Whether all passes are like the first.

    Attributes
    ----------
    passes : int
        Backward passes that were reduced.
    rebuilt : bool
        Whether buckets are in the order in which gradients arrived in the first pass.
    scale : float
        What means are multiplied by: more than 1 where ranks that have no more inputs shall not count.
    hook, hook_state
        The communication hook.
    """

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, Tensor]],
        communicator: collectives.Communicator,
        *,
        limits: Sequence[int],
        last_limit: int,
        in_buckets: bool = True,
        find_unused: bool = False,
        skip_unused: bool = False,
        static: bool = False,
    ):
        self.entries = [Entry(name, p, i) for i, (name, p) in enumerate(named_parameters)]
        self.communicator = communicator
        self.limits, self.last_limit = limits, last_limit
        self.in_buckets, self.find_unused, self.skip_unused, self.static = in_buckets, find_unused, skip_unused, static
        self.hook: Callable[[Any, GradBucket], Future] | None = None
        self.hook_state: Any = None
        self.scale = 1.0
        self.passes = 0
        self.rebuilt = False
        first = self.entries[0].parameter
        self.on_device = namespace(first._array).name != "cpu"
        self._clock = DeviceClock() if self.on_device else HostClock()
        self._side = Side(first.device) if self.on_device else None
        self.buckets: list[Bucket] = []
        self.first_sizes: list[int] = []
        self.used_alike = True
        """Whether every pass so far has used the same parameters on this rank."""
        self._first_used: list[bool] = []
        self._nowhere: set[int] = set()  # numbers of parameters that no rank uses
        self._memories: dict[Any, Memory] = {}
        self._arrivals: dict[int, None] = {}  # numbers of parameters in the order in which the first pass completed them
        self.backward = BackwardPasses(self._begin)
        self._next = 0  # the first bucket that has not been started in this pass
        self._oldest = 0  # the first bucket that is not known to be reduced
        self._missing: list[str] = []
        self._flags: Any = None
        self._flag_work: collectives.Work | None = None
        self._late_flags = LateFlags()
        self._also: list[Future] = []
        for e in self.entries:
            e.attach(self._arrived)

    # Around the forward pass -----------------------------------------------------------------------------------------

    def before_forward(self) -> None:
        """Make the buckets, or make them anew, where that is due; every rank calls.

        Raises
        ------
        RuntimeError
            If a parameter is not what it was, or the pass before could not be completed.
        """
        if self.backward.root is not None and not is_running(self.backward.root):
            self._abandon()
        self._check_parameters()
        if self._captures:
            if not self.rebuilt:
                raise RuntimeError(
                    "DistributedDataParallel: a CUDA graph is being captured, but the buckets are not in their final order yet: run two "
                    "whole training steps before the capture"
                )
            return
        missing = self._late_flags.due()
        if missing is not None:
            self._raise_missing(missing)
        if not self.buckets:
            # the reverse of the registration is a good guess: backward reaches the last layer first
            self._fill(self.entries[::-1])
            self.first_sizes = self.bucket_sizes()
        elif self.passes and not self.rebuilt:
            self._rebuild()

    def after_forward(self, outputs: Iterable[Tensor], reduces: bool) -> None:
        """Note which tensors came out of a forward pass, and whether backward from them shall be reduced."""
        # a model that is frozen for a while, as a discriminator is while the generator learns, has nothing to reduce
        self.backward.note_outputs(outputs, reduces and any(e.parameter._node is not None for e in self.entries))

    @property
    def times(self) -> CommunicationTimes:
        """How long the reductions of the last pass took; on a GPU this waits for it."""
        return self._clock.times()

    @property
    def _captures(self) -> bool:
        """Whether this pass is recorded into a CUDA graph."""
        return self.on_device and cuda.is_current_stream_capturing()

    def wait_also(self, futures: Iterable[Future]) -> None:
        """Wait for something else, too, at the end of the next backward pass."""
        self._also.extend(futures)

    def _check_parameters(self) -> None:
        changed, frozen = [], []
        for e in self.entries:
            p = e.parameter
            if p._array.shape != e.shape or p._array.dtype != e.dtype:
                changed.append(f"{e.name} (was {e.dtype} of shape {list(e.shape)}, is {p._array.dtype} of shape {list(p._array.shape)})")
            elif p._node is None:
                frozen.append(e.name)
            elif p._node is not e.node:  # it was frozen for a while
                e.attach(self._arrived)
                e.set_home(self.in_buckets)
        where = f"DistributedDataParallel: on rank {self.communicator.rank}"
        if changed:
            raise RuntimeError(f"{where} parameters have changed since the model was wrapped; wrap it again: {said(changed)}")
        if frozen and len(frozen) < len(self.entries) and not self.find_unused:
            raise RuntimeError(
                f"{where} requires_grad of {len(frozen)} parameter(s) was switched off after the model was wrapped; wrap it again, "
                f"or use find_unused_parameters=True: {said(frozen)}"
            )

    # Buckets ---------------------------------------------------------------------------------------------------------

    def bucket_sizes(self) -> list[int]:
        """Bytes of the gradients in each bucket."""
        return [b.flat.nbytes for b in self.buckets]

    def _fill(self, order: Sequence[Entry]) -> None:
        """Make buckets of parameters in the order in which their gradients are expected; gradients move with them."""
        flags = 1 + (len(self.entries) if self.find_unused or self.static else 0)
        if not self._memories:
            kinds: dict[Any, list[Entry]] = {}
            for e in order:
                kinds.setdefault(e.kind, []).append(e)
            for kind, members in kinds.items():
                self._memories[kind] = Memory(self.communicator, members, flags)
        moving = [(e, namespace(e.slice).array(e.slice)) for e in self.entries if e.gradient_is_here()]
        for memory in self._memories.values():
            memory.forget()
        for e in self.entries:
            e.bucket = e.slice = None
        groups = divide(order, self.limits, self.last_limit)
        self.buckets = [
            Bucket(i, members, self._memories[members[0].kind], flags if i == len(groups) - 1 else 0)
            for i, members in enumerate(groups)
        ]
        for e, copy in moving:
            assert e.parameter._grad is not None
            if e.bucket is not None:
                e.slice[...] = copy
                copy = e.slice
            e.parameter._grad._array = copy
        for e in self.entries:
            e.set_home(self.in_buckets)

    def _rebuild(self) -> None:
        """Fill the buckets in the order in which gradients arrived on rank 0 in the first pass."""
        arrived = self.communicator.broadcast_object(list(self._arrivals), 0)
        others = [e.number for e in reversed(self.entries) if e.number not in set(arrived)]
        useless = self._nowhere if self.static or self.skip_unused else set()
        order = [self.entries[i] for i in [*arrived, *others] if i not in useless]
        self._fill(order or self.entries[::-1])
        self.rebuilt = True

    # During the backward pass ----------------------------------------------------------------------------------------

    @property
    def _learns(self) -> bool:
        """Whether this is the first pass of a static graph, which all others are like."""
        return self.static and not self.passes

    @property
    def _maps_usage(self) -> bool:
        """Whether the ranks tell each other which parameters they used."""
        return self._learns or (self.find_unused and not self.static)

    def _begin(self, root: Pass) -> None:
        before = self.backward.root
        if before is not None:
            if is_running(before):
                raise RuntimeError(
                    "DistributedDataParallel: a backward pass of this model inside of another one of its backward passes can only be "
                    "run in no_sync()"
                )
            self._abandon()
        self.backward.root = root
        root.callbacks.append(self._finish)
        self._reset()
        if self._learns:
            return
        for e in self.entries:
            if e.bucket is not None and (e.left == 0 or (self._maps_usage and e.node not in root.nodes)):
                self._leave_out(e)
        self._start_full()

    def _reset(self) -> None:
        self._next = self._oldest = 0
        self._missing = []
        self._clock.begin()
        for e in self.entries:
            e.left, e.before, e.is_left_out = e.firings, None, False
        for b in self.buckets:
            b.begin()

    def _arrived(self, e: Entry) -> None:
        """A gradient has been added to a parameter's."""
        if self.backward.current() is None:
            e.used = True
            return
        gradient = e.parameter._grad
        assert gradient is not None
        if gradient._node is not None:
            raise RuntimeError(
                f"DistributedDataParallel: the gradient of {e.name} has a graph of its own (create_graph=True), but the mean over the "
                "ranks cannot be differentiated. Compute such gradients by autograd.grad, or call backward in no_sync()"
            )
        e.used = True
        e.left -= 1
        if not self.passes:
            self._arrivals.pop(e.number, None)
            self._arrivals[e.number] = None
        if self._learns or e.left > 0:
            return
        bucket = e.bucket
        if bucket is None or e.left < 0:
            raise unexpected_gradient(e, self.static)
        e.settle(self.in_buckets)
        bucket.missing -= 1
        if not bucket.missing and bucket.index == self._next:
            self._start_full()
        else:
            self._let_progress()

    def _let_progress(self) -> None:
        """Look at the oldest reduction under way: transports may only move on when somebody looks."""
        while self._oldest < self._next and self._clock.has_ended(self._oldest):
            self._oldest += 1
        if self._oldest < self._next:
            work = self.buckets[self._oldest].work
            if work is not None and not work.on_stream:
                work.test()

    def _leave_out(self, e: Entry) -> None:
        """Contribute, for a parameter that this rank does not use in this pass, the gradient that it has, or nothing."""
        assert e.bucket is not None
        if e.left > 0:
            e.bucket.missing -= 1
        e.left, e.is_left_out = 0, True
        had_gradient = e.parameter._grad is not None
        e.settle(self.in_buckets)
        if had_gradient and self._maps_usage:
            e.before = namespace(e.slice).array(e.slice)

    def _start_full(self) -> None:
        """Start the buckets that are full. All ranks must start them in one order, whatever order theirs are filled in."""
        while self._next < len(self.buckets) and not self.buckets[self._next].missing:
            self._next += 1
            self._start(self.buckets[self._next - 1])

    def _start(self, bucket: Bucket) -> None:
        is_last = bucket is self.buckets[-1]
        if is_last:
            self._write_flags(bucket)
        self._clock.started(bucket.index)
        if self.hook is None:
            bucket.work = self.communicator.all_reduce(bucket.array, "avg", async_op=True)
            bucket.work.then(partial(self._clock.ended, bucket.index))
            return
        with self._beside():
            # what takes several steps takes one here, a moment that all ranks have in common
            for earlier in self.buckets[: bucket.index]:
                if isinstance(earlier.future, Steps):
                    earlier.future.step()
            bucket.future = self.hook(self.hook_state, GradBucket(bucket, is_last))
        if not isinstance(bucket.future, Future):
            raise TypeError(
                f"a communication hook must return a Future that holds a Tensor, not {type(bucket.future).__name__}: {self._hook_name}"
            )
        if is_last and self._hook_synchronizes:
            self._flag_work = self.communicator.all_reduce(self._flags, "max", async_op=True)

    def _beside(self) -> AbstractContextManager[None]:
        """Where hooks compute: on a GPU, on a stream that backward does not wait for."""
        return nullcontext() if self._side is None else self._side.behind()

    @property
    def _hook_synchronizes(self) -> bool:
        return self.hook is None or getattr(self.hook, "synchronizes", True)

    @property
    def _hook_name(self) -> str:
        return getattr(self.hook, "__qualname__", repr(self.hook))

    def _write_flags(self, bucket: Bucket) -> None:
        """Write what the other ranks shall know: whether gradients are missing here, and which parameters were used."""
        self._flags = bucket.flags
        xp = namespace(self._flags)
        if self.hook is not None:
            self._flags = xp.zeros(len(bucket.flags), "float32")
        self._flags[...] = 0
        self._flags[0] = bool(self._missing)
        if self._maps_usage:
            if self._captures:
                raise RuntimeError(
                    "DistributedDataParallel: with find_unused_parameters=True every pass finds out anew what is used, which a CUDA graph "
                    "cannot; use static_graph=True"
                )
            self._flags[1:] = xp.asarray([float(e.used) for e in self.entries], dtype=self._flags.dtype)

    # When the backward pass has ended --------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Reduce what is left, wait, and let the parameters have their gradients."""
        try:
            if self._learns:
                self._learn()
            left = [e for e in self.entries if e.left > 0 and e.bucket is not None]
            if not self._maps_usage:
                self._missing = [e.name for e in left]
            for e in left:
                self._leave_out(e)
            self._start_full()
            self._wait()
            self._read_flags()
            self._hand_out()
        finally:
            self.backward.end()
        self.passes += 1

    def _learn(self) -> None:
        """Of the first pass of a static graph: how often each gradient arrives."""
        for e in self.entries:
            e.firings -= e.left
            if e.firings:
                e.left = 0
                e.settle(self.in_buckets)
                assert e.bucket is not None
                e.bucket.missing -= 1

    def _wait(self) -> None:
        self._clock.computed()
        with nullcontext() if self.hook is None else self._beside():
            pending = [b.future for b in self.buckets if isinstance(b.future, Steps)]
            while pending:
                for steps in pending:
                    steps.step()
                pending = [steps for steps in pending if not steps.done()]
            for b in self.buckets:
                if b.future is not None:
                    self._take(b, b.future.wait())
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
        if self.scale != 1.0 and self.hook is None:
            for b in self.buckets:
                b.flat *= b.flat.dtype.type(self.scale)
        self._clock.over()

    def _take(self, bucket: Bucket, result: Any) -> None:
        """What a communication hook has made of a bucket."""
        if not isinstance(result, Tensor) or result._array.size != bucket.flat.size:
            found = f"one of {result._array.size}" if isinstance(result, Tensor) else type(result).__name__
            raise TypeError(
                f"the Future of a communication hook must hold one Tensor of the bucket's {bucket.flat.size} elements, not {found}: "
                f"{self._hook_name}"
            )
        if result._array is not bucket.flat:
            bucket.flat[...] = result._array.reshape(bucket.flat.shape)

    def _read_flags(self) -> None:
        """See what the ranks say; on a GPU in the pass after the next, when it has come this far anyway.

        Raises
        ------
        RuntimeError
            On every rank, if a gradient is missing on one of them. In a pass that is captured, where it is missing.
        """
        if self._captures:
            if self._missing:
                raise missing_gradients([(self.communicator.rank, self._missing)], self.communicator.size, self.static)
        elif self.on_device:
            self._late_flags.note(self._flags[:1], self._missing)
        elif bool(self._flags[0] != 0):
            self._raise_missing(self._missing)

    def _raise_missing(self, mine: list[str]) -> None:
        if self._hook_synchronizes:
            missing = [(rank, names) for rank, names in enumerate(self.communicator.all_gather_object(mine)) if names]
        else:
            missing = [(self.communicator.rank, mine)]  # the others do not know, and go on
        raise missing_gradients(missing, self.communicator.size, self.static)

    def _hand_out(self) -> None:
        """Let every parameter that was used on some rank have its mean gradient."""
        if self._maps_usage:
            xp = namespace(self._flags)
            used_here = [e.used for e in self.entries]
            # what is used here is used somewhere: then nothing need be read, which on a GPU takes time
            used = used_here if all(used_here) else xp.to_host(self._flags[1:] != 0)
            self._nowhere = {i for i, anywhere in enumerate(used) if not anywhere}
            self._first_used = self._first_used or used_here
            self.used_alike = self.used_alike and used_here == self._first_used
        for b in self.buckets:
            for e in b.entries:
                e.used = False
                gradient = e.parameter._grad
                if e.number in self._nowhere:
                    if self.in_buckets and e.before is not None:
                        e.slice[...] = e.before
                elif gradient is None:
                    e.parameter._grad = wrap(e.slice if self.in_buckets else namespace(e.slice).array(e.slice))
                else:
                    if gradient._array is not e.slice:
                        gradient._array[...] = e.slice
                    bump_version(gradient)

    # Other ways through a pass ---------------------------------------------------------------------------------------

    def shadow(self) -> None:
        """Take part, with nothing, in the reduction of a backward pass that this rank does not have."""
        self._reset()
        for b in self.buckets:
            b.flat[...] = 0
            b.missing = 0
        for e in self.entries:
            e.used = False
        self._start_full()
        self._wait()
        self._read_flags()
        self._hand_out()
        self.passes += 1

    def _abandon(self) -> None:
        """Forget a pass that ended by an error.

        Raises
        ------
        RuntimeError
            If other ranks may wait for the rest of it.
        """
        self.backward.end()
        if self._next and self.communicator.size > 1:
            raise RuntimeError(
                f"DistributedDataParallel: the backward pass before this one ended by an error when rank {self.communicator.rank} had "
                f"begun to reduce {self._next} of {len(self.buckets)} buckets; the ranks are out of step and cannot go on"
            )

    def release(self) -> None:
        """Let the parameters' gradients be their own again."""
        for e in self.entries:
            e.detach()
