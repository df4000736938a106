"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..autograd.variable import Tensor
from ..nn.module import Module
from ..nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from ..nn.parameter import Parameter
from ..ops.shape import stack

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "replaced", "stack_module_state"]

#: what the calls of `functional_call` that are under way have put aside
_aside: ContextVar[tuple[Tensor, ...]] = ContextVar("aside", default=())


def replaced() -> tuple[Tensor, ...]:
    """The modules' own parameters and buffers in whose place `functional_call` has put others for the moment."""
    return _aside.get()


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other parameters and buffers than its own; as ``torch.func.functional_call``.

    Parameters
    ----------
    module : Module
        It is unchanged afterwards; what forward does to a buffer in place happens to the given one.
    parameter_and_buffer_dicts : dict, or tuple of dicts
        Tensors by name; what is not named stays the module's own.
    args : Any or tuple
        Of forward.
    kwargs : dict, optional
    tie_weights : bool
        Whether a parameter that the module has under several names is replaced under all of them if one is given.
    strict : bool
        Whether names that are missing or unknown are errors.

    Raises
    ------
    RuntimeError
        With `strict`, for such names.
    ValueError
        If two dicts name the same tensor, or two values are given for one that is tied.

    Examples
    --------
    >>> import disttorch
    >>> linear = disttorch.nn.Linear(2, 1)
    >>> new = {"weight": disttorch.ones(1, 2), "bias": disttorch.zeros(1)}
    >>> disttorch.func.functional_call(linear, new, disttorch.tensor([3.0, 4.0]))
    tensor([7.])
    """
    if isinstance(parameter_and_buffer_dicts, dict):
        given = parameter_and_buffer_dicts
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        if not all(isinstance(d, dict) for d in parameter_and_buffer_dicts):
            raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
        given = {}
        for d in parameter_and_buffer_dicts:
            twice = given.keys() & d.keys()
            if twice:
                raise ValueError(f"{sorted(twice)} appeared in multiple dictionaries; behavior of functional call is ambiguous")
            given.update(d)
    else:
        raise ValueError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(parameter_and_buffer_dicts).__name__}"
        )
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, given, tie_weights, strict):
        return module(*arguments, **(kwargs or {}))


def _owner(module: Module, name: str) -> tuple[Module, str]:
    *path, last = name.split(".")
    for part in path:
        module = getattr(module, part)
    return module, last


@contextmanager
def _replaced(module: Module, given: dict[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    own = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    unknown, missing = given.keys() - own.keys(), own.keys() - given.keys()
    values = dict(given)
    if tie_weights:
        names: dict[int, list[str]] = {}
        for name, tensor in own.items():
            names.setdefault(id(tensor), []).append(name)
        for same in names.values():
            chosen = {id(given[n]): given[n] for n in same if n in given}
            if len(chosen) > 1:
                raise ValueError(f"functional_call got multiple values for keys {same}, which are tied. Consider using tie_weights=False")
            for value in chosen.values():
                values.update(dict.fromkeys(same, value))
                missing -= set(same)
    if strict and (unknown or missing):
        raise RuntimeError(
            "Error(s) in reparametrizing for "
            f"{type(module).__name__}: missing key(s): {sorted(missing)}, unexpected key(s): {sorted(unknown)}"
        )
    before: list[tuple[dict, str, Any]] = []
    try:
        for name, value in values.items():
            if name in unknown:
                continue
            holder, last = _owner(module, name)
            place = holder._parameters if last in holder._parameters else holder._buffers
            before.append((place, last, place[last]))
            place[last] = value  # type: ignore[assignment]
        token = _aside.set((*_aside.get(), *(old for place, last, old in before if place[last] is not old)))
        try:
            yield
        finally:
            _aside.reset(token)
    finally:
        for place, last, value in reversed(before):
            place[last] = value


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Let all batch normalizations of a module keep no running statistics, which `vmap` could not change in place.

    As ``torch.func.replace_all_batch_norm_modules_``. Returns the module.

    Examples
    --------
    >>> import disttorch
    >>> model = disttorch.nn.Sequential(disttorch.nn.BatchNorm1d(2))
    >>> disttorch.func.replace_all_batch_norm_modules_(model)[0].running_mean is None
    True
    """
    for module in root.modules():
        if isinstance(module, (BatchNorm1d, BatchNorm2d, BatchNorm3d)):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root


def stack_module_state(models: Sequence[Module] | Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of several models of one architecture, stacked, to `vmap` over.

    As ``torch.func.stack_module_state``.

    Raises
    ------
    RuntimeError
        If there are none, they are of several classes, or not all in training or evaluation mode.

    Examples
    --------
    >>> import disttorch
    >>> models = [disttorch.nn.Linear(2, 3) for _ in range(5)]
    >>> parameters, buffers = disttorch.func.stack_module_state(models)
    >>> parameters["weight"].shape
    disttorch.Size([5, 3, 2])
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or all(not m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
        asking = {t.requires_grad for t in tensors}
        if len(asking) > 1:
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        together = stack(tuple(t.detach() for t in tensors))
        return together.requires_grad_() if asking == {True} and isinstance(tensors[0], Parameter) else together

    parameters = {
        name: stacked(name, [dict(m.named_parameters())[name] for m in models]) for name, _ in models[0].named_parameters()
    }
    buffers = {name: stacked(name, [dict(m.named_buffers())[name] for m in models]) for name, _ in models[0].named_buffers()}
    return parameters, buffers
