"""What DistributedDataParallel refuses: arguments, models and hooks; and models that have changed since they were wrapped."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_origin

from ..autograd.variable import Tensor
from ..backend.layout import is_expanded
from ..futures import Future
from ..nn.module import Module
from ..nn.parameter import UninitializedParameter
from .buckets import GradBucket, MiB
from .groups import ProcessGroup, joined
from .model_state import said

__all__ = ["Places", "bucket_bytes", "check_default_group", "check_delayed", "check_devices", "check_hook", "check_module", "group_of"]


def check_delayed(module: Module, delayed: Any, awaited: Any) -> list[tuple[str, Tensor]]:
    """Parameters whose reduction waits for another one's gradient, by the names that the model has for them."""
    if (delayed is None) != (awaited is None):
        raise ValueError("delay_all_reduce_named_params and param_to_hook_all_reduce need to be set at the same time.")
    if delayed is None:
        return []
    if not (isinstance(awaited, Tensor) and awaited.requires_grad):
        found = "one that requires none" if isinstance(awaited, Tensor) else type(awaited).__name__
        raise ValueError(f"param_to_hook_all_reduce must be a parameter that requires a gradient, not {found}")
    first = {id(p): n for n, p in module.named_parameters()}
    named: dict[str, Any] = dict(module.named_parameters(remove_duplicate=False))
    chosen: dict[str, Tensor] = {}
    for name, parameter in delayed:
        if named.get(name) is not parameter:
            known = first.get(id(parameter))
            raise ValueError(
                f"delay_all_reduce_named_params: the model has no parameter {name!r}"
                if name not in named
                else f"delay_all_reduce_named_params: {name!r} is another parameter"
                + ("" if known is None else f"; the one given with it is {known!r}")
            )
        chosen[first[id(parameter)]] = named[name]
    return list(chosen.items())


def bucket_bytes(cap_mb: float | None, cap_mb_list: Sequence[float] | None) -> list[int]:
    """Bytes of the first bucket, the second, ..., and of all others."""
    caps = [25.0 if cap_mb is None else cap_mb] if cap_mb_list is None else list(cap_mb_list)
    if not caps or any(cap <= 0 for cap in caps) or (cap_mb is not None and cap_mb_list is not None):
        raise ValueError(
            "DistributedDataParallel: bucket_cap_mb or bucket_cap_mb_list must say sizes greater than 0, not both: got "
            f"{cap_mb} and {cap_mb_list}"
        )
    sizes = [int(cap * MiB) for cap in caps]
    return [min(MiB, sizes[0]), *sizes] if cap_mb_list is None else sizes


def group_of(process_group: Any, device_mesh: Any) -> ProcessGroup:
    """The group that is meant by a group, a mesh of one dimension, or neither."""
    if device_mesh is not None:
        if process_group is not None:
            raise RuntimeError("Cannot specify both process_group and device_mesh arguments.")
        if device_mesh.ndim != 1:
            raise RuntimeError(f"Only 1D device mesh is supported, but got {device_mesh}.")
        process_group = device_mesh.get_group(mesh_dim=0)
    found = joined(process_group)
    if found is None:
        raise ValueError("DistributedDataParallel: this rank is not a member of the process group")
    return found


def check_default_group(group: ProcessGroup) -> None:
    """Refuse to store a model that is reduced over another group than the world."""
    if group is not joined(None):
        raise RuntimeError(
            "DDP Pickling/Unpickling are only supported when using DDP with the default process group. That is, when you have called "
            "init_process_group and have not passed process_group argument to DDP constructor"
        )


def check_module(module: Module, ignored: set[str], wrapper: type) -> None:
    """Refuse a model that cannot be wrapped, or is in part: `wrapper` is DistributedDataParallel."""
    inner = next((name for name, m in module.named_modules() if isinstance(m, wrapper)), None)
    if inner is not None and any(f"{inner}.{n}".strip(".") not in ignored for n, _ in module.get_submodule(inner).named_parameters()):
        where = f"its part {inner!r} is" if inner else "it is"
        raise ValueError(f"DistributedDataParallel: the module's gradients are averaged already: {where} a DistributedDataParallel")
    parameters = [(n, p) for n, p in module.named_parameters() if n not in ignored]
    for name, p in parameters:
        if isinstance(p, UninitializedParameter):
            raise RuntimeError(
                f"Modules with uninitialized parameters can't be used with `DistributedDataParallel` ({name} is one). Run a dummy forward "
                "pass to correctly initialize the modules"
            )
    for name, t in (*parameters, *((n, b) for n, b in module.named_buffers() if n not in ignored)):
        if t._array.size and is_expanded(t._array):
            raise RuntimeError(
                f"DistributedDataParallel: {name} of shape {list(t.shape)} is an expanded tensor, of which places in memory are several "
                "elements; rank 0's cannot be written to it. Give the model a clone() of it"
            )
    if not any(p.requires_grad for _, p in parameters):
        raise RuntimeError(
            "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient."
        )


def check_devices(device_ids: Any, output_device: Any, parameters: Sequence[Tensor]) -> tuple[list[Any] | None, Any]:
    """Where inputs are moved to, and where results are."""
    devices = {str(p.device) for p in parameters}
    types = {p.device.type for p in parameters}
    if device_ids is not None and len(device_ids) > 1:
        raise ValueError(f"device_ids can only be None or contain a single element, got {device_ids}.")
    if len(types) > 1:
        raise ValueError(
            "DistributedDataParallel's input module must be on the same type of devices, but input module parameters locate in "
            f"{sorted(types)}."
        )
    if not device_ids or types == {"cpu"} or len(devices) > 1:
        if device_ids or output_device:
            raise ValueError(
                "DistributedDataParallel: device_ids and output_device are for models on a single GPU; got device_ids "
                f"{device_ids}, output_device {output_device}, and parameters on {sorted(devices)}."
            )
        return None, None
    return list(device_ids), device_ids[0] if output_device is None else output_device


def check_hook(hook: Any) -> None:
    """Refuse a communication hook that cannot be called as one, or says that it takes or returns something else."""
    if not callable(hook):
        raise TypeError("Communication hook must be callable.")
    signature = inspect.signature(hook)
    parameters = list(signature.parameters.values())
    if len(parameters) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ValueError(f"Communication hook: it is called with a state and a bucket, but takes {signature}")
    bucket = signature.parameters.get("bucket")
    # annotations that are still text say nothing that can be compared
    if bucket is not None and isinstance(bucket.annotation, type) and bucket.annotation not in (bucket.empty, GradBucket):
        raise ValueError("Communication hook: bucket annotation should be dist.GradBucket.")
    returned = get_origin(signature.return_annotation) or signature.return_annotation
    if returned is None or (isinstance(returned, type) and returned not in (signature.empty, Future)):
        raise ValueError("Communication hook: return annotation should be torch.futures.Future[torch.Tensor].")


class Places:
    """Where a model keeps its parameters, so that it is seen in each pass, for little, whether they are still the same.

    Parameters
    ----------
    module : Module
    ignored : set of str
        Names of parameters that do not matter.
    reduced : dict of str to Tensor
        The parameters whose gradients are reduced.
    """

    def __init__(self, module: Module, ignored: set[str], reduced: dict[str, Tensor]):
        self._module, self._ignored, self._reduced = module, ignored, reduced
        may_ask = {id(p) for p in reduced.values()} | {id(p) for n, p in module.named_parameters() if n in ignored}
        # in which dictionary, under which name, and whether it may ask for a gradient
        self._members = [
            (members, name, member, isinstance(member, Module) or id(member) in may_ask)
            for m in module.modules()
            for members in (m._parameters, m._modules)
            for name, member in members.items()
        ]
        self._sizes = [(members, len(members)) for m in module.modules() for members in (m._parameters, m._modules)]

    def check(self, rank: int) -> None:
        """Refuse a model that has other parameters than it was wrapped with.

        Raises
        ------
        RuntimeError
            The message names the parameters, and this `rank`.
        """
        if all(len(members) == size for members, size in self._sizes) and all(
            members.get(name) is member and (may_ask or member is None or member._node is None)
            for members, name, member, may_ask in self._members
        ):
            return
        known = {id(member) for _, _, member, _ in self._members if isinstance(member, Tensor)}
        reduced = {id(p) for p in self._reduced.values()}
        now = {n: p for n, p in self._module.named_parameters() if n not in self._ignored}
        found = {
            "new": [n for n, p in now.items() if id(p) not in known],
            "requires_grad was switched on": [n for n, p in now.items() if id(p) in known - reduced and p.requires_grad],
            "replaced or removed": [n for n, p in self._reduced.items() if now.get(n) is not p],
        }
        what = "; ".join(f"{how}: {said(names)}" for how, names in found.items() if names)
        if what:
            raise RuntimeError(
                f"DistributedDataParallel: on rank {rank} the model's parameters are not those that were wrapped; wrap it again after "
                f"changing it ({what})"
            )
