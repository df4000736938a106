"""DistributedDataParallel: the same model on every rank, each with its own part of the data, and the mean of the gradients.

Buckets of gradients are reduced while backward is still computing the next ones (Li et al., "PyTorch Distributed:
Experiences on accelerating data parallel training", VLDB 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..autograd.engine import queue_callback
from ..autograd.grad_mode import is_grad_enabled
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import namespace
from ..nn.module import Module
from .buckets import Bucket, fill_buckets, when_ready
from .process_group import communicator_of

__all__ = ["DistributedDataParallel"]

MiB = 2**20


class DistributedDataParallel(Module):
    """A module whose gradients are averaged over all ranks during backward; as ``torch.nn.parallel.DistributedDataParallel``.

    At the start parameters and buffers of rank 0 are copied to all ranks, so that models, and with equal steps of equal
    optimizers also the trained parameters, are the same to the bit.

    Parameters
    ----------
    module : Module
        The model, on one device. Its gradients become views of flat buckets.
    broadcast_buffers : bool
        Copy rank 0's buffers (running statistics) to all ranks at the beginning of each forward pass in training.
    init_sync : bool
        Compare the models and copy rank 0's at the start.
    process_group : ProcessGroup, optional
        The world unless given.
    bucket_cap_mb : float
        Size of a bucket in MiB; the first is 1 MiB, so that communication starts early.
    find_unused_parameters : bool
        Whether parameters may get no gradient in a pass. Those that get one on no rank keep theirs; it costs one more small
        reduction a step.
    device_ids, output_device, dim, check_reduction, gradient_as_bucket_view, static_graph
        Accepted as in PyTorch: there is one device a rank, and gradients always are views of the buckets.

    Attributes
    ----------
    module : Module
        The model.

    Raises
    ------
    RuntimeError
        If no parameter requires a gradient, the models of the ranks differ (the message says in which parameter on which
        rank), or, in backward, a parameter got no gradient and `find_unused_parameters` is false.
    ValueError
        If there is no process group.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
    ):
        super().__init__()
        communicator = communicator_of(process_group)
        if communicator is None:
            raise ValueError("DistributedDataParallel: this rank is not a member of the process group")
        self.module = module
        self.process_group = process_group
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.require_backward_grad_sync = True
        self._communicator = communicator
        # by identity: a parameter that is used in two places counts once
        self._names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
        if not self._names:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient."
            )
        if init_sync:
            self._check_models()
            self._copy_from_first([*module.parameters(), *module.buffers()])
        parameters = [p for p in module.parameters() if p.requires_grad]
        cap = int((25 if bucket_cap_mb is None else bucket_cap_mb) * MiB)
        # backward reaches the last layer first
        self._buckets = fill_buckets(parameters[::-1], min(MiB, cap), cap)
        self._next = 0  # the first bucket that has not been reduced in this pass
        self._is_collecting = False
        for bucket in self._buckets:
            for i, p in enumerate(bucket.parameters):
                when_ready(p, partial(self._gradient_arrived, bucket, i))

    def _check_models(self) -> None:
        mine = [
            (kind, name, str(t.dtype), tuple(t.shape), t.requires_grad)
            for kind, named in (("parameter", self.module.named_parameters()), ("buffer", self.module.named_buffers()))
            for name, t in named
        ]
        models = self._communicator.all_gather_object(mine)
        for rank, theirs in enumerate(models):
            difference = _difference(models[0], theirs)
            if difference is not None:
                raise RuntimeError(
                    f"DistributedDataParallel: the models of the ranks differ: rank 0 has {difference[0]}, rank {rank} {difference[1]}"
                )

    def _copy_from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors with rank 0's; those of one dtype in one message."""
        by_kind: dict[Any, list[Tensor]] = {}
        for t in tensors:
            by_kind.setdefault((t._array.dtype, str(t.device)), []).append(t)
        for members in by_kind.values():
            xp = namespace(members[0]._array)
            flat = xp.concatenate([m._array.reshape(-1) for m in members])
            self._communicator.broadcast(flat, 0)
            start = 0
            for m in members:
                stop = start + m._array.size
                m._array[...] = flat[start:stop].reshape(m._array.shape)
                bump_version(m)
                start = stop

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's result; its backward pass will average the gradients."""
        if self.require_backward_grad_sync and is_grad_enabled():
            self._begin_pass()
            if self.broadcast_buffers and self.training:
                buffers = list(self.module.buffers())
                if buffers and self._communicator.size > 1:
                    self._copy_from_first(buffers)
        return self.module(*inputs, **kwargs)

    def _begin_pass(self) -> None:
        for bucket in self._buckets:
            bucket.begin()
        self._next = 0
        self._is_collecting = False

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Add up gradients on this rank only; the first backward pass after the block reduces their sum.

        Examples
        --------
        >>> import disttorch, disttorch.distributed as dist
        >>> dist.init_process_group("local")
        >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(2, 1))
        >>> with model.no_sync():
        ...     model(disttorch.ones(3, 2)).sum().backward()
        >>> model(disttorch.ones(3, 2)).sum().backward()
        >>> model.module.bias.grad
        tensor([6.])
        >>> dist.destroy_process_group()
        """
        before = self.require_backward_grad_sync
        self.require_backward_grad_sync = False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def _gradient_arrived(self, bucket: Bucket, number: int, parameter: Tensor) -> None:
        if not self.require_backward_grad_sync:
            return
        if not self._is_collecting:
            # also where backward runs again on the same forward pass
            self._begin_pass()
            self._is_collecting = True
            queue_callback(self._finish)
        if bucket.work is not None:
            raise RuntimeError(
                f"DistributedDataParallel: the gradient of {self._name_of(parameter)} arrived a second time in one "
                "backward pass, after it had been reduced; a backward inside of a backward needs no_sync()"
            )
        if bucket.arrived(number):
            self._reduce_in_order()

    def _reduce_in_order(self) -> None:
        """Start the buckets that are full. All ranks must start them in one order, whatever order theirs are filled in."""
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            self._buckets[self._next].reduce(self._communicator)
            self._next += 1

    def _finish(self) -> None:
        """At the end of backward: wait for the reductions."""
        self._is_collecting = False
        unused = [(b, i) for b in self._buckets for i in sorted(b.missing)]
        if self.find_unused_parameters:
            unused = self._settle_unused(unused)
        elif unused:
            names = [self._name_of(b.parameters[i]) for b, i in unused]
            raise RuntimeError(
                f"DistributedDataParallel: on rank {self._communicator.rank} {len(names)} parameter(s) got no gradient in "
                f"this backward pass: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}. If that is "
                "meant, use find_unused_parameters=True; else see that all parameters take part in computing the loss."
            )
        for bucket in self._buckets:
            assert bucket.work is not None
            bucket.work.wait()
            for i, p in enumerate(bucket.parameters):
                if p._grad is not None:
                    bump_version(p._grad)
                elif (bucket, i) not in unused:
                    p._grad = wrap(bucket.slices[i])

    def _settle_unused(self, unused: list[tuple[Bucket, int]]) -> list[tuple[Bucket, int]]:
        """Contribute zeros for gradients that are missing here; returns those that are missing on every rank."""
        places = [(b, i) for b in self._buckets for i in range(len(b.parameters))]
        numbers = {(id(b), i): n for n, (b, i) in enumerate(places)}
        used = namespace(self._buckets[0].flat).ones(len(places), "int32")
        before = {}  # gradients of earlier passes, which stay as they are if no rank adds to them
        for b, i in unused:
            used[numbers[id(b), i]] = 0
            gradient = b.parameters[i]._grad
            if gradient is None:
                b.slices[i][...] = 0
            else:
                b.slices[i][...] = gradient._array
                before[id(b), i] = b.slices[i].copy()
            b.missing.discard(i)
        # the buckets first: some ranks have started them already, and all must call in one order
        self._reduce_in_order()
        self._communicator.all_reduce(used, "max")
        nowhere = [(b, i) for b, i in unused if not used[numbers[id(b), i]]]
        for b, i in nowhere:
            if (id(b), i) in before and b.work is not None:
                b.work.wait()
                b.slices[i][...] = before[id(b), i]
        return nowhere

    def _name_of(self, parameter: Tensor) -> str:
        return self._names[id(parameter)]


def _difference(first: list[tuple], other: list[tuple]) -> tuple[str, str] | None:
    """The first place where two models differ, in words."""

    def said(entry: tuple | None) -> str:
        if entry is None:
            return "no such parameter or buffer"
        kind, name, dtype, shape, requires_grad = entry
        return f"{kind} {name!r} of {dtype} and shape {list(shape)}{'' if requires_grad or kind == 'buffer' else ' without gradient'}"

    for i in range(max(len(first), len(other))):
        a = first[i] if i < len(first) else None
        b = other[i] if i < len(other) else None
        if a != b:
            return said(a), said(b)
    return None
