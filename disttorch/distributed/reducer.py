"""The reducer of DistributedDataParallel: one reduction of all gradients to their mean for each backward pass.

A gradient that has arrived is noted in its bucket; a full bucket is reduced without waiting, in the order of the buckets,
which is the same on all ranks. When the backward pass ends, what is left is reduced and all is waited for. Behind the
gradients of the last bucket lie a few flags, so that every rank learns, at no price, whether another one missed gradients.

Which bucket a gradient has stands in `layout`, what is done with a full one in `reductions`. On a GPU a whole pass can be captured as a
graph, once there have been two others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import collectives

from .. import cuda
from ..autograd.engine import Pass
from ..autograd.graph import RemovableHandle
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import namespace
from .backward_passes import BackwardPasses, is_running
from .beside import LateFlags
from .buckets import Bucket, Entry
from .layout import Layout
from .mixed_precision import _MixedPrecision
from .reducer_errors import check_parameters, missing_gradients, unexpected_gradient
from .reductions import Reductions

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
    delayed : sequence of (str, Tensor)
        More of them, whose gradients have buckets of their own, reduced when that of `awaited` has arrived. They may be left out of
        any pass: then their gradient is nothing.
    awaited : Tensor, optional
        Any tensor that asks for its gradient.
    precision : _MixedPrecision, optional
        In which dtype gradients are reduced, and whether they keep it.
    in_buckets : bool
        Whether the parameters' gradients are views of the buckets, where dtypes are the same.
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
    layout : Layout
    reductions : Reductions
    """

    def __init__(
        self,
        named_parameters: Sequence[tuple[str, Tensor]],
        communicator: collectives.Communicator,
        *,
        limits: Sequence[int],
        delayed: Sequence[tuple[str, Tensor]] = (),
        awaited: Tensor | None = None,
        precision: _MixedPrecision | None = None,
        in_buckets: bool = True,
        find_unused: bool = False,
        skip_unused: bool = False,
        static: bool = False,
    ):
        reduce_dtype = None if precision is None else precision.reduced_as
        everyone = [(n, p, False) for n, p in named_parameters] + [(n, p, True) for n, p in delayed]
        self.entries = [
            # a complex gradient is reduced as it is
            Entry(n, p, i, reduced_as=None if p.is_complex() else reduce_dtype, in_bucket=in_buckets or late, is_delayed=late)
            for i, (n, p, late) in enumerate(everyone)
        ]
        self.communicator = communicator
        self.in_buckets, self.find_unused, self.skip_unused, self.static = in_buckets, find_unused, skip_unused, static
        self._keeps_low_precision = precision is not None and precision.keep_low_precision_grads
        self.passes = 0
        first = self.entries[0].parameter
        self._there = partial(namespace(first._array).on, first.device)
        """Makes a with-block in which the parameters' device is the current one."""
        self.on_device = namespace(first._array).name != "cpu"
        self.layout = Layout(self.entries, communicator, limits=limits, awaited=awaited)
        self.reductions = Reductions(communicator, self.layout, first.device if self.on_device else None, self._write_flags)
        self.used_alike = True
        """Whether every pass so far has used the same parameters on this rank."""
        self._first_used: list[bool] = []
        self._nowhere: set[int] = set()  # numbers of parameters that no rank uses
        self._arrivals: dict[int, None] = {}  # numbers of parameters in the order in which the first pass completed them
        self.backward = BackwardPasses(self._begin)
        self._missing: list[str] = []
        self._late_flags = LateFlags()
        for e in self.entries:
            e.attach(self._arrived)
        self._holds = False  # whether delayed buckets wait for a gradient that is in no bucket
        self._hold: RemovableHandle | None = None
        if delayed and awaited is not None and all(e.parameter is not awaited for e in self.entries):
            self._hold = awaited.register_hook(self._awaited_arrived)

    @property
    def buckets(self) -> list[Bucket]:
        """In the order in which they are reduced; none before the first forward pass."""
        return self.layout.buckets

    @property
    def rebuilt(self) -> bool:
        """Whether buckets are in the order in which gradients arrived in the first pass."""
        return self.layout.rebuilt

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
        for e in check_parameters(self.entries, self.communicator.rank, self.find_unused):  # they were frozen for a while
            e.attach(self._arrived)
            e.set_home()
        if self._captures:
            if not self.layout.rebuilt:
                raise RuntimeError(
                    "DistributedDataParallel: a CUDA graph is being captured, but the buckets are not in their final order yet: run two "
                    "whole training steps before the capture"
                )
            return
        missing = self._late_flags.due()
        if missing is not None:
            self._raise_missing(missing)
        if not self.layout.buckets:
            self.layout.guess(self._flag_count)
        elif self.passes and not self.layout.rebuilt:
            useless = self._nowhere if self.static or self.skip_unused else ()
            self.layout.rebuild(self._arrivals, useless, self._flag_count)

    def after_forward(self, outputs: Iterable[Tensor], reduces: bool) -> None:
        """Note which tensors came out of a forward pass, and whether backward from them shall be reduced."""
        # a model that is frozen for a while, as a discriminator is while the generator learns, has nothing to reduce
        self.backward.note_outputs(outputs, reduces and any(e.parameter._node is not None for e in self.entries))

    def raise_precision(self) -> None:
        """Where gradients keep the dtype in which they were reduced: let them have their parameters', for more to be added to them."""
        for e in self.entries if self._keeps_low_precision else ():
            e.raise_precision()

    @property
    def _flag_count(self) -> int:
        return 1 + (len(self.entries) if self.find_unused or self.static else 0)

    @property
    def _captures(self) -> bool:
        """Whether this pass is recorded into a CUDA graph."""
        return self.on_device and cuda.is_current_stream_capturing()

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
        if self._hold is not None:
            self._set_hold(True)
        self.reductions.start_full()

    def _reset(self) -> None:
        self._missing, self._holds = [], False
        for e in self.entries:
            e.left, e.before, e.is_left_out = e.firings, None, False
        self.reductions.begin()

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
        e.settle()
        bucket.missing -= 1
        if not bucket.missing and bucket.index == self.reductions.next:
            self.reductions.start_full()
        else:
            self.reductions.let_progress()

    def _awaited_arrived(self, gradient: Tensor) -> None:
        """What delayed buckets wait for is there, and is in none of the others."""
        if self.backward.current() is not None and self._holds:
            self._set_hold(False)
            self.reductions.start_full()

    def _set_hold(self, holds: bool) -> None:
        self._holds = holds
        for b in self.buckets:
            if b.is_delayed:
                b.missing += 1 if holds else -1

    def _leave_out(self, e: Entry) -> None:
        """Contribute, for a parameter that this rank does not use in this pass, the gradient that it has, or nothing."""
        assert e.bucket is not None
        if e.left > 0:
            e.bucket.missing -= 1
        e.left, e.is_left_out = 0, True
        had_gradient = e.parameter._grad is not None
        e.settle()
        if had_gradient and self._maps_usage:
            e.before = namespace(e.slice).array(e.slice)

    def _write_flags(self, flags: Any) -> None:
        """Write what the other ranks shall know: whether gradients are missing here, and which parameters were used."""
        flags[...] = 0
        flags[0] = bool(self._missing)
        if self._maps_usage:
            if self._captures:
                raise RuntimeError(
                    "DistributedDataParallel: with find_unused_parameters=True every pass finds out anew what is used, which a CUDA graph "
                    "cannot; use static_graph=True"
                )
            flags[1:] = namespace(flags).asarray([float(e.used) for e in self.entries], dtype=flags.dtype)

    # When the backward pass has ended --------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Reduce what is left, wait, and let the parameters have their gradients."""
        try:
            with self._there():
                self._reduce_the_rest()
        finally:
            self.backward.end()
        self.passes += 1

    def _reduce_the_rest(self) -> None:
        if self._learns:
            self._learn()
        left = [e for e in self.entries if e.left > 0 and e.bucket is not None]
        if not self._maps_usage:
            self._missing = [e.name for e in left if not e.is_delayed]
        for e in left:
            self._leave_out(e)
        if self._holds:
            self._set_hold(False)
        self.reductions.start_full()
        self.reductions.wait()
        self._read_flags()
        self._hand_out()

    def _learn(self) -> None:
        """Of the first pass of a static graph: how often each gradient arrives."""
        for e in self.entries:
            e.firings -= e.left
            if e.firings:
                e.left = 0
                e.settle()
                assert e.bucket is not None
                e.bucket.missing -= 1

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
            self._late_flags.note(self.reductions.flags[:1], self._missing)
        elif bool(self.reductions.flags[0] != 0):
            self._raise_missing(self._missing)

    def _raise_missing(self, mine: list[str]) -> None:
        if self.reductions.hook_synchronizes:
            missing = [(rank, names) for rank, names in enumerate(self.communicator.all_gather_object(mine)) if names]
        else:
            missing = [(self.communicator.rank, mine)]  # the others do not know, and go on
        raise missing_gradients(missing, self.communicator.size, self.static)

    def _hand_out(self) -> None:
        """Let every parameter that was used on some rank have its mean gradient."""
        if self._maps_usage:
            xp = namespace(self.reductions.flags)
            used_here = [e.used for e in self.entries]
            # what is used here is used somewhere: then nothing need be read, which on a GPU takes time
            used = used_here if all(used_here) else xp.to_host(self.reductions.flags[1:] != 0)
            self._nowhere = {e.number for e, anywhere in zip(self.entries, used) if not anywhere and not e.is_delayed}
            self._first_used = self._first_used or used_here
            self.used_alike = self.used_alike and used_here == self._first_used
        for b in self.layout.buckets:
            for e in b.entries:
                e.used = False
                gradient = e.parameter._grad
                if e.number in self._nowhere:
                    if e.lives_there and e.before is not None:
                        e.slice[...] = e.before
                elif gradient is None:
                    e.parameter._grad = wrap(e.slice if e.lives_there else namespace(e.slice).array(e.slice, dtype=e.dtype))
                else:
                    if gradient._array is not e.slice:
                        gradient._array[...] = e.slice
                    bump_version(gradient)
        if self._keeps_low_precision:
            for e in self.entries:
                e.lower_precision(reduced=e.number not in self._nowhere)

    # Other ways through a pass ---------------------------------------------------------------------------------------

    def begin_shadow(self) -> None:
        """Take part, with nothing, in the reduction of a backward pass that this rank does not have; `end_shadow` completes it."""
        self._reset()
        for b in self.buckets:
            b.flat[...] = 0
            b.missing = 0
        for e in self.entries:
            e.used = False
        self.reductions.start_full()

    def end_shadow(self) -> None:
        """Wait for what `begin_shadow` has begun."""
        self.reductions.wait()
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
        if self.reductions.next and self.communicator.size > 1:
            raise RuntimeError(
                f"DistributedDataParallel: the backward pass before this one ended by an error when rank {self.communicator.rank} had "
                f"begun to reduce {self.reductions.next} of {len(self.buckets)} buckets; the ranks are out of step and cannot go on"
            )

    def release(self) -> None:
        """Let the parameters' gradients be their own again."""
        for e in self.entries:
            e.detach()
        if self._hold is not None:
            self._hold.remove()
