"""DistributedDataParallel: the same model on every rank, each with its own part of the data, and the mean of the gradients.

Buckets of gradients are reduced while backward is still computing the next ones (Li et al., "PyTorch Distributed:
Experiences on accelerating data parallel training", VLDB 2020). How, stands in `reducer`; here is what users see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import collectives

from ..autograd.grad_mode import is_grad_enabled
from ..autograd.variable import Tensor
from ..backend import for_device
from ..func.modules import replaced
from ..futures import Future
from ..nn.module import Module
from . import data_parallel_checks as checks
from .algorithms.join import Join, Joinable, JoinHook
from .buckets import BuiltinCommHookType, GradBucket
from .buffer_sync import BufferCommHookLocation, BufferSync
from .communication_times import CommunicationTimes
from .groups import ProcessGroup
from .logging_data import logging_data
from .mixed_precision import LowPrecision, _MixedPrecision, cast_buffers, check_mixed_precision
from .model_state import copy_from, copy_model
from .reducer import Reducer
from .structures import moved, tensors_in
from .uneven_inputs import DDPJoinHook, agree

__all__ = ["BufferCommHookLocation", "DistributedDataParallel"]


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
    dim, check_reduction, batched_grad_copy
        Accepted as in PyTorch: there is one device a rank, nothing to check, and the engine writes gradients into the buckets.
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
    gradient_as_bucket_view : bool
        Whether ``parameter.grad`` is a view of the memory that is reduced, which saves a copy of all gradients. (False in
        PyTorch unless given.)
    static_graph : bool
        All passes are like the first: use the same parameters, each as often. Then parameters may be left out, and be reached
        several times in a pass (by reentrant checkpoints), without any search.
    delay_all_reduce_named_params : list of (str, Parameter), optional
        Parameters of the model, by name, whose gradients are reduced together, without a hook, once they and that of
        `param_to_hook_all_reduce` have arrived. A pass may leave them out. They are copied from rank 0 even without `init_sync`.
    param_to_hook_all_reduce : Parameter, optional
        Given with `delay_all_reduce_named_params`, whose bucket is reduced behind this parameter's, on all ranks alike.
    mixed_precision : _MixedPrecision, optional
        Of ``disttorch.nn.parallel.distributed``: let the model compute, and gradients be reduced, in a lower precision. Where this module
        is called, floating-point inputs are cast, and parameters are copies of ``param_dtype`` until the model returns (in PyTorch until
        backward has ended); otherwise they, and their gradients, are in full precision. Hooks see buckets of ``reduce_dtype``.
    device_mesh : DeviceMesh, optional
        Of one dimension, in place of a process group.
    skip_all_reduce_unused_params : bool
        With `find_unused_parameters`: parameters that no rank uses in the first pass are not reduced any more.
    bucket_cap_mb_list : list of float, optional
        Sizes of the buckets in the order in which they are reduced; the last is also for those that follow.
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
        If no parameter requires a gradient, one has no shape yet or is an expanded tensor, the models of the ranks differ (the message
        says in which parameter on which rank), or, on every rank, in backward, a parameter got no gradient on one of them and that
        was not allowed; if a process group and a mesh are both given, or one of several dimensions.
    ValueError
        If there is no process group, this rank is in none, or arguments do not fit the model.
    TypeError
        If `mixed_precision` is something else.
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
        mixed_precision: _MixedPrecision | None = None,
        device_mesh: Any = None,
        skip_all_reduce_unused_params: bool = False,
        bucket_cap_mb_list: Sequence[float] | None = None,
        batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
    ):
        super().__init__()
        Joinable.__init__(self)
        check_mixed_precision(mixed_precision)
        self._delayed = checks.check_delayed(module, delay_all_reduce_named_params, param_to_hook_all_reduce)
        self._awaited = (param_to_hook_all_reduce,)  # bare it would be a parameter of this module, too
        self.process_group = checks.group_of(process_group, device_mesh)
        delayed = {name for name, _ in self._delayed}
        self._left_alone = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ())) - delayed
        self.parameters_to_ignore = self._left_alone | delayed
        checks.check_module(module, self._left_alone, DistributedDataParallel)
        self.module = module
        parameters = [p for _, p in self._parameters_to_reduce() + self._delayed]
        self.device = parameters[0].device
        self.device_ids, self.output_device = checks.check_devices(device_ids, output_device, parameters)
        self.dim = dim
        self.forward_sync_buffers = next((given for given in (forward_sync_buffers, broadcast_buffers) if given is not None), True)
        self.find_unused_parameters = find_unused_parameters
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.static_graph = static_graph
        self.skip_all_reduce_unused_params = skip_all_reduce_unused_params
        self.require_backward_grad_sync = True
        self._bucket_bytes = checks.bucket_bytes(bucket_cap_mb, bucket_cap_mb_list)
        self._buffer_sync = BufferSync(module, self._left_alone)
        self.mixed_precision = mixed_precision
        self._comm_hook: tuple[Any, Callable] | None = None
        with self._there():
            if init_sync:
                self._copy_model(forward_sync_buffers is not None or self.forward_sync_buffers)
            else:
                copy_from(self._communicator, 0, [p for _, p in self._delayed])
            if mixed_precision is not None:
                cast_buffers(module, mixed_precision.buffer_dtype, self._left_alone)
            self._make_reducer()

    def _there(self) -> Any:
        """A with-block in which the model's device is the current one, which a program need not have said."""
        return for_device(self.device)[0].on(self.device)

    def _make_reducer(self) -> None:
        parameters = self._parameters_to_reduce()
        delayed = [(n, p) for n, p in self._delayed if p.requires_grad]
        self.reducer = Reducer(
            parameters,
            self.process_group.lane if self._own_lane is None else self._own_lane,
            limits=self._bucket_bytes,
            delayed=delayed,
            awaited=self._awaited[0],
            precision=self.mixed_precision,
            in_buckets=self.gradient_as_bucket_view,
            find_unused=self.find_unused_parameters,
            skip_unused=self.skip_all_reduce_unused_params,
            static=self.static_graph,
        )
        if self._comm_hook is not None:
            self.reducer.reductions.hook_state, self.reducer.reductions.hook = self._comm_hook
        self._places = checks.Places(self.module, self._left_alone, dict(parameters + delayed))
        self._low_precision = None if self.mixed_precision is None else LowPrecision(self.module, self.mixed_precision, self._left_alone)

    def _parameters_to_reduce(self) -> list[tuple[str, Tensor]]:
        """By identity: a parameter that is used in two places counts once."""
        delayed = {id(p) for _, p in self._delayed}
        return [
            (n, p) for n, p in self.module.named_parameters() if p.requires_grad and n not in self._left_alone and id(p) not in delayed
        ]

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
        """The module's result; its backward pass will average the gradients.

        In a `func.functional_call` with other parameters than this module's own there is nothing of its own to average: their gradients
        are those of this rank.
        """
        with self._there():
            return self._forward(inputs, kwargs)

    def _forward(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reduces = self.require_backward_grad_sync and is_grad_enabled() and not self._is_replaced
        buffers = self._buffers_to_copy() if reduces and self.training else []
        root = 0
        if self._join_config.enable:
            Join.notify_join_context(self)
            if self._join_config.counting and not self._divide_by_initial_world_size:
                self.reducer.reductions.scale = self._communicator.size / self._join_config.counting[0].result()[0].item()
            root, *_ = agree(self, self._communicator.rank, reduces, bool(buffers))
        if reduces:
            self._places.check(self._communicator.rank)
            self.reducer.before_forward()
            if buffers:
                self._sync_buffers(BufferCommHookLocation.PRE_FORWARD, buffers, root)
        if self.device_ids:
            inputs, kwargs = moved(inputs, self.device), moved(kwargs, self.device)
        if self._low_precision is None:
            result = self.module(*inputs, **kwargs)
        else:
            self.reducer.raise_precision()
            result = self._low_precision.call(inputs, kwargs)
        if buffers:
            self._sync_buffers(BufferCommHookLocation.POST_FORWARD, buffers, root)
        if is_grad_enabled() and not self._is_replaced:
            self.reducer.after_forward(tensors_in(result), reduces)
        return result

    @property
    def _is_replaced(self) -> bool:
        """Whether a `functional_call` has put others in the place of parameters."""
        aside = replaced()
        return bool(aside) and any(e.parameter is own for own in aside for e in self.reducer.entries)

    def _buffers_to_copy(self) -> list[tuple[str, Tensor]]:
        return self._buffer_sync.named(self._communicator) if self.forward_sync_buffers else []

    def _sync_buffers(self, location: BufferCommHookLocation, buffers: list[tuple[str, Tensor]], root: int) -> None:
        self.reducer.reductions.wait_also(self._buffer_sync.at(location, self._communicator, buffers, root))

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
        checks.check_hook(hook)
        if self._comm_hook is not None:
            raise RuntimeError("register_comm_hook or register_builtin_comm_hook can only be called once.")
        self._comm_hook = state, hook
        self.reducer.reductions.hook_state, self.reducer.reductions.hook = state, hook

    def _register_builtin_comm_hook(self, comm_hook_type: BuiltinCommHookType) -> None:
        """Register the communication hook of that name, in this module's process group."""
        from .algorithms.ddp_comm_hooks import default_hooks

        self.register_comm_hook(self.process_group, default_hooks.BUILTIN[BuiltinCommHookType(comm_hook_type)])

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
        self._buffer_sync.hook = hook, state, comm_hook_location

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
        return DDPJoinHook(self, kwargs.get("divide_by_initial_world_size", True))

    def _stand_apart(self) -> None:
        if self._own_lane is None:
            self._own_lane = self.process_group.another_lane()
            with self._there():
                self.reducer.release()
                self._make_reducer()

    _own_lane: collectives.Communicator | None = None
    _divide_by_initial_world_size = True

    @property
    def join_device(self) -> Any:
        """The device of the model."""
        return self.device

    @property
    def join_process_group(self) -> ProcessGroup:
        """The group over which gradients are averaged."""
        return self.process_group

    def _copy_model(self, with_buffers: bool, root: int = 0) -> None:
        """Compare the ranks' models, and make that of one rank everyone's."""
        copy_model(self._communicator, self.module, self._left_alone, with_buffers, root)

    # What is asked of it ---------------------------------------------------------------------------------------------

    _get_ddp_logging_data = logging_data

    @property
    def communication_times(self) -> CommunicationTimes:
        """How long the reductions of the last backward pass took on this rank; zeros before the first."""
        return self.reducer.reductions.times

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
        checks.check_default_group(self.process_group)
        left_out = ("process_group", "reducer", "_own_lane", "_places", "_low_precision")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.process_group = checks.group_of(None, None)
        self._make_reducer()
