"""DistributedDataParallel: the same model on every rank, each with its own part of the data, and the mean of the gradients.

Buckets of gradients are reduced while backward is still computing the next ones (Li et al., "PyTorch Distributed:
Experiences on accelerating data parallel training", VLDB 2020). How, stands in `reducer`; here is what users see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import collectives

from ..autograd.grad_mode import is_grad_enabled
from ..autograd.variable import Tensor
from ..backend import namespace
from ..futures import Future
from ..nn.module import Module
from .algorithms.join import Join, Joinable, JoinHook
from .buckets import BuiltinCommHookType, GradBucket
from .communication_times import CommunicationTimes
from .data_parallel_checks import Places, check_devices, check_hook, check_module, group_of, refuse_what_is_not_there
from .groups import ProcessGroup, joined
from .model_state import check_models, copy_from
from .reducer import Reducer
from .structures import moved, tensors_in

__all__ = ["BufferCommHookLocation", "DistributedDataParallel"]

MiB = 2**20


class BufferCommHookLocation(Enum):
    """When the hook for buffers is called: before or after the module's own forward."""

    PRE_FORWARD = auto()
    POST_FORWARD = auto()


class DistributedDataParallel(Module, Joinable):
    """A module whose gradients are averaged over all ranks during backward; as ``torch.nn.parallel.DistributedDataParallel``.

    At the start parameters and buffers of rank 0 are copied to all ranks, so that models, and with equal steps of equal
    optimizers also the trained parameters, are the same to the bit.

    A backward pass is reduced if it comes from an output of this module's forward, called outside of `no_sync`. The model's
    parameters must stay those that it had when it was wrapped. ``backward(create_graph=True)`` is refused: the mean of
    the ranks' gradients cannot be differentiated (``autograd.grad`` may be used, for gradient penalties for instance).

    Parameters
    ----------
    module : Module
        The model.
    device_ids, output_device : list of one device, and device, optional
        Where the model is on a GPU: that GPU; inputs are moved there. Must be None for a model on the CPU.
    dim : int
        Accepted as in PyTorch; there is one device a rank.
    broadcast_buffers : bool, optional
        As `forward_sync_buffers`; False also leaves the buffers as they are at the start.
    init_sync : bool
        Compare the models and copy rank 0's at the start.
    process_group : ProcessGroup, optional
        The world unless given.
    bucket_cap_mb : float, optional
        Size of a bucket in MiB, 25 unless given. The first is 1 MiB, so that communication starts early, as is the last,
        which nothing can hide.
    find_unused_parameters : bool
        Whether a pass may leave parameters out. Those that get a gradient on no rank keep the one they have.
    check_reduction : bool
        Accepted as in PyTorch, where it is deprecated.
    gradient_as_bucket_view : bool
        Whether ``parameter.grad`` is a view of the memory that is reduced, which saves a copy of all gradients. (False in
        PyTorch unless given.)
    static_graph : bool
        All passes are like the first: use the same parameters, each as often. Then parameters may be left out, and be reached
        several times in a pass (by reentrant checkpoints), without any search.
    delay_all_reduce_named_params, param_to_hook_all_reduce, mixed_precision
        Not supported: leave the parameters to the buckets, and use ``amp.autocast``.
    device_mesh : DeviceMesh, optional
        Of one dimension, in place of a process group.
    skip_all_reduce_unused_params : bool
        With `find_unused_parameters`: parameters that no rank uses in the first pass are not reduced any more.
    bucket_cap_mb_list : list of float, optional
        Sizes of the buckets in the order in which they are reduced; the last is also for those that follow.
    batched_grad_copy : bool
        Accepted as in PyTorch; gradients are written into the buckets by the engine.
    forward_sync_buffers : bool, optional
        Copy rank 0's buffers (running statistics) to all ranks at the beginning of each forward pass in training whose
        backward is reduced. (PyTorch also does it in the first pass after such a one, in evaluation, too, which therefore all
        ranks must run.) True unless given.

    Attributes
    ----------
    module : Module
        The model.
    communication_times : CommunicationTimes
        How long the reductions of the last backward pass took, and how much of that backward hid.

    Raises
    ------
    RuntimeError
        If no parameter requires a gradient, the models of the ranks differ (the message says in which parameter on which
        rank), or, on every rank, in backward, a parameter got no gradient on one of them and that was not allowed.
    ValueError
        If there is no process group, or arguments do not fit the model.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool | None = None,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
        delay_all_reduce_named_params: Any = None,
        param_to_hook_all_reduce: Any = None,
        mixed_precision: Any = None,
        device_mesh: Any = None,
        skip_all_reduce_unused_params: bool = False,
        bucket_cap_mb_list: Sequence[float] | None = None,
        batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
    ):
        super().__init__()
        Joinable.__init__(self)
        refuse_what_is_not_there(delay_all_reduce_named_params, param_to_hook_all_reduce, mixed_precision)
        self.process_group = group_of(process_group, device_mesh)
        self.parameters_to_ignore = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))
        check_module(module, self.parameters_to_ignore, DistributedDataParallel)
        self.module = module
        parameters = self._parameters_to_reduce()
        self.device = parameters[0][1].device
        self.device_ids, self.output_device = check_devices(device_ids, output_device, [p for _, p in parameters])
        self.dim = dim
        self.forward_sync_buffers = next((given for given in (forward_sync_buffers, broadcast_buffers) if given is not None), True)
        self.find_unused_parameters = find_unused_parameters
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.static_graph = static_graph
        self.skip_all_reduce_unused_params = skip_all_reduce_unused_params
        self.require_backward_grad_sync = True
        caps = [25.0 if bucket_cap_mb is None else bucket_cap_mb] if bucket_cap_mb_list is None else list(bucket_cap_mb_list)
        if not caps or any(cap <= 0 for cap in caps) or (bucket_cap_mb is not None and bucket_cap_mb_list is not None):
            raise ValueError(
                "DistributedDataParallel: bucket_cap_mb or bucket_cap_mb_list must say sizes greater than 0, not both: got "
                f"{bucket_cap_mb} and {bucket_cap_mb_list}"
            )
        self._bucket_bytes = [int(cap * MiB) for cap in caps]
        if bucket_cap_mb_list is None:
            self._bucket_bytes.insert(0, min(MiB, self._bucket_bytes[0]))
        self._buffer_hook: tuple[Callable, Any, BufferCommHookLocation] | None = None
        self._comm_hook: tuple[Any, Callable] | None = None
        if init_sync:
            self._copy_model(forward_sync_buffers is not None or self.forward_sync_buffers)
        self._make_reducer()

    def _make_reducer(self) -> None:
        parameters = self._parameters_to_reduce()
        self.reducer = Reducer(
            parameters,
            self.process_group.lane,
            limits=self._bucket_bytes,
            last_limit=min(MiB, self._bucket_bytes[-1]),
            in_buckets=self.gradient_as_bucket_view,
            find_unused=self.find_unused_parameters,
            skip_unused=self.skip_all_reduce_unused_params,
            static=self.static_graph,
        )
        if self._comm_hook is not None:
            self.reducer.hook_state, self.reducer.hook = self._comm_hook
        self._places = Places(self.module, self.parameters_to_ignore, dict(parameters))

    def _parameters_to_reduce(self) -> list[tuple[str, Tensor]]:
        """By identity: a parameter that is used in two places counts once."""
        return [(n, p) for n, p in self.module.named_parameters() if p.requires_grad and n not in self.parameters_to_ignore]

    @property
    def _communicator(self) -> collectives.Communicator:
        return self.process_group.communicator

    @property
    def broadcast_buffers(self) -> bool:
        """`forward_sync_buffers`, by its older name."""
        return self.forward_sync_buffers

    @broadcast_buffers.setter
    def broadcast_buffers(self, value: bool) -> None:
        self.forward_sync_buffers = value

    # The forward pass ------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's result; its backward pass will average the gradients."""
        reduces = self.require_backward_grad_sync and is_grad_enabled()
        buffers = self._buffers_to_copy() if reduces and self.training else []
        root = 0
        if self._join_config.enable:
            counting = Join.notify_join_context(self)
            if counting is not None and not self._divide_by_initial_world_size:
                self.reducer.scale = self._communicator.size / counting.result()[0].item()
            root, *_ = self._agree(self._communicator.rank, reduces, bool(buffers))
        if reduces:
            self._places.check(self._communicator.rank)
            self.reducer.before_forward()
            if self._buffer_hook is None or self._buffer_hook[2] is BufferCommHookLocation.PRE_FORWARD:
                self._sync_buffers(buffers, root)
        if self.device_ids:
            inputs, kwargs = moved(inputs, self.device), moved(kwargs, self.device)
        result = self.module(*inputs, **kwargs)
        if reduces and self._buffer_hook is not None and self._buffer_hook[2] is BufferCommHookLocation.POST_FORWARD:
            self._sync_buffers(buffers, root)
        if is_grad_enabled():
            self.reducer.after_forward(tensors_in(result), reduces)
        return result

    def _buffers_to_copy(self) -> list[tuple[str, Tensor]]:
        if not self.forward_sync_buffers or (self._communicator.size == 1 and self._buffer_hook is None):
            return []
        return [(n, b) for n, b in self.module.named_buffers() if n not in self.parameters_to_ignore]

    def _sync_buffers(self, buffers: list[tuple[str, Tensor]], root: int) -> None:
        if not buffers:
            return
        if self._buffer_hook is None:
            # graphs that have saved a buffer go on with the new values: one more forward pass is no reason to refuse a backward
            copy_from(self._communicator, root, [b for _, b in buffers], notice=False)
            return
        hook, state, _ = self._buffer_hook
        futures = hook(state, dict(buffers))
        if futures is not None:
            self.reducer.wait_also(futures)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Add up gradients on this rank only; the first pass whose forward is outside of the block reduces their sum.

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

    # Hooks -----------------------------------------------------------------------------------------------------------

    def register_comm_hook(self, state: object, hook: Callable[[Any, GradBucket], Future]) -> None:
        """Let a function reduce the buckets; as ``torch.nn.parallel.DistributedDataParallel.register_comm_hook``.

        Parameters
        ----------
        state : object
            Given to the hook at every call.
        hook : callable
            ``hook(state, bucket)``, called with each `GradBucket` when it is full, in the same order on all ranks. Returns a
            `Future` of a tensor with the gradients to use, of the bucket's size; the mean over the ranks is for the hook to
            form. The future is waited for when backward has ended. What takes several collectives one after the other is best
            a `disttorch.distributed.steps.Steps`: its steps are taken at moments that all ranks have in common. A hook
            with an attribute ``synchronizes = False`` does not want to wait for all ranks: then only the rank where a
            gradient is missing raises.

        Raises
        ------
        TypeError
            If it cannot be called.
        ValueError
            If it is annotated to take or return something else.
        RuntimeError
            If there is one already.
        """
        check_hook(hook)
        if self._comm_hook is not None:
            raise RuntimeError("register_comm_hook or register_builtin_comm_hook can only be called once.")
        self._comm_hook = state, hook
        self.reducer.hook_state, self.reducer.hook = state, hook

    def _register_builtin_comm_hook(self, comm_hook_type: BuiltinCommHookType) -> None:
        """Register the communication hook of that name, in this module's process group."""
        from .algorithms.ddp_comm_hooks import default_hooks

        hooks = {
            BuiltinCommHookType.ALLREDUCE: default_hooks.allreduce_hook,
            BuiltinCommHookType.FP16_COMPRESS: default_hooks.fp16_compress_hook,
        }
        self.register_comm_hook(self.process_group, hooks[BuiltinCommHookType(comm_hook_type)])

    def _register_buffer_comm_hook(
        self,
        state: Any,
        hook: Callable[[Any, dict[str, Tensor]], Any],
        comm_hook_location: BufferCommHookLocation = BufferCommHookLocation.POST_FORWARD,
    ) -> None:
        """Let a function make the ranks' buffers alike, in place of copying rank 0's.

        Parameters
        ----------
        state : object
        hook : callable
            ``hook(state, buffers)`` with a dict of the named buffers; may return futures to wait for at the end of backward.
        comm_hook_location : BufferCommHookLocation
        """
        if not callable(hook):
            raise AssertionError(f"hook must be callable, got {type(hook).__name__}")
        self._buffer_hook = hook, state, comm_hook_location

    # Uneven inputs ---------------------------------------------------------------------------------------------------

    def join(
        self, divide_by_initial_world_size: bool = True, enable: bool = True, throw_on_early_termination: bool = False
    ) -> Join:
        """A with-block for training in which ranks may run out of inputs before others.

        Ranks without inputs take part in the others' reductions with zeros. In the end all have the model of the rank that went
        on longest. Each iteration inside is one forward and one backward pass. Collectives of the program's own, as
        `SyncBatchNorm` has them, are not shadowed: they need `throw_on_early_termination`.

        Parameters
        ----------
        divide_by_initial_world_size : bool
            Whether gradients are divided by the number of all ranks, so that every input has the same weight, or by the
            number of those that still have inputs.
        enable, throw_on_early_termination
            As for `Join`.

        Examples
        --------
        >>> import disttorch, disttorch.distributed as dist
        >>> dist.init_process_group("local")
        >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(1, 1))
        >>> with model.join():
        ...     for _ in range(2 + dist.get_rank()):
        ...         model(disttorch.ones(1, 1)).sum().backward()
        >>> dist.destroy_process_group()
        """
        return Join([self], enable, throw_on_early_termination, divide_by_initial_world_size=divide_by_initial_world_size)

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """The hook that shadows this module's passes; takes ``divide_by_initial_world_size`` (True unless given)."""
        return _DDPJoinHook(self, kwargs.get("divide_by_initial_world_size", True))

    @property
    def join_device(self) -> Any:
        """The device of the model."""
        return self.device

    @property
    def join_process_group(self) -> ProcessGroup:
        """The group over which gradients are averaged."""
        return self.process_group

    _divide_by_initial_world_size = True

    def _agree(self, rank: int, reduces: bool, copies_buffers: bool) -> tuple[int, bool, bool]:
        """Among ranks with and without inputs: the highest rank that has some, whether backward is reduced, buffers copied."""
        like = next(iter(self.reducer.entries)).parameter._array
        xp = namespace(like)
        mine = xp.asarray([rank, reduces, copies_buffers], dtype="int64")
        self._communicator.all_reduce(mine, "max")
        root, any_reduces, any_copies = (int(v) for v in xp.to_host(mine))
        return root, bool(any_reduces), bool(any_copies)

    def _shadow(self) -> None:
        root, reduces, copies_buffers = self._agree(-1, False, False)
        if not reduces:
            return
        self.reducer.before_forward()
        if copies_buffers:
            self._sync_buffers(self._buffers_to_copy(), root)
        self.reducer.shadow()

    def _copy_model(self, with_buffers: bool, root: int = 0) -> None:
        """Compare the ranks' models, and make that of one rank everyone's."""
        parameters = [("parameter", n, p) for n, p in self.module.named_parameters() if n not in self.parameters_to_ignore]
        buffers = [("buffer", n, b) for n, b in self.module.named_buffers() if n not in self.parameters_to_ignore]
        named = parameters + buffers if with_buffers else parameters
        check_models(self._communicator, named)
        copy_from(self._communicator, root, [t for _, _, t in named])

    # What is asked of it ---------------------------------------------------------------------------------------------

    @property
    def communication_times(self) -> CommunicationTimes:
        """How long the reductions of the last backward pass took on this rank; zeros before the first."""
        return self.reducer.times

    def _get_ddp_logging_data(self) -> dict[str, Any]:
        """What was asked for, the buckets, and how long reductions take, under PyTorch's names; times in nanoseconds."""
        r = self.reducer
        first, rebuilt = (", ".join(str(n) for n in sizes) for sizes in (r.first_sizes, r.bucket_sizes() if r.rebuilt else []))
        return {
            "world_size": self._communicator.size,
            "rank": self._communicator.rank,
            "module_name": type(self.module).__name__,
            "backend_name": self.process_group.name(),
            "broadcast_buffers": self.forward_sync_buffers,
            "bucket_cap_bytes": self._bucket_bytes[-1],
            "find_unused_parameters": self.find_unused_parameters,
            "gradient_as_bucket_view": self.gradient_as_bucket_view,
            "static_graph": self.static_graph,
            "comm_hook": "" if r.hook is None else getattr(r.hook, "__qualname__", repr(r.hook)),
            "num_parameter_tensors": len(r.entries),
            "total_parameter_size_bytes": sum(e.parameter._array.nbytes for e in r.entries),
            "iteration": r.passes,
            "initial_bucket_sizes": first,
            "bucket_sizes": first,
            "has_rebuilt_buckets": r.rebuilt,
            "rebuilt_bucket_sizes": rebuilt,
            "can_set_static_graph": r.used_alike,
            "backward_comm_time": int(r.times.total * 1e9),
            "backward_compute_comm_overlap_time": int(max(0.0, r.times.total - r.times.exposed) * 1e9),
        }

    def _set_static_graph(self) -> None:
        """As ``static_graph=True``, where no pass has been reduced yet."""
        if self.static_graph:
            return
        if self.reducer.buckets:
            raise RuntimeError("_set_static_graph: must be called before the first forward pass")
        self.static_graph = self.reducer.static = True

    @staticmethod
    def _set_params_and_buffers_to_ignore_for_model(module: Module, params_and_buffers_to_ignore: Iterable[str]) -> None:
        """Name parameters and buffers of a model, not wrapped yet, that are to be left alone."""
        module._ddp_params_and_buffers_to_ignore = list(params_and_buffers_to_ignore)

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not joined(None):
            raise RuntimeError(
                "DDP Pickling/Unpickling are only supported when using DDP with the default process group. That is, when you have called "
                "init_process_group and have not passed process_group argument to DDP constructor"
            )
        left_out = ("process_group", "reducer", "_places")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.process_group = group_of(None, None)
        self._make_reducer()


class _DDPJoinHook(JoinHook):
    def __init__(self, model: DistributedDataParallel, divide_by_initial_world_size: bool):
        self._model = model
        model._divide_by_initial_world_size = divide_by_initial_world_size
        model.reducer.scale = 1.0

    def main_hook(self) -> None:
        self._model._shadow()

    def post_hook(self, is_last_joiner: bool) -> None:
        model = self._model
        model.reducer.scale = 1.0
        root, *_ = model._agree(model._communicator.rank if is_last_joiner else -1, False, False)
        model._copy_model(model.forward_sync_buffers, root)
