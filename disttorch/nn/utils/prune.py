"""Entries of parameters set to 0 and kept there; as ``torch.nn.utils.prune``. The methods stand in pruning.py.

A pruned ``weight`` is ``weight_orig``, a parameter, times ``weight_mask``, a buffer of 0 and 1, computed before each forward
pass by a hook: the pruning method itself. Pruning again looks only at what the mask has left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...autograd.grad_mode import no_grad
from ...autograd.variable import Tensor
from ...ops import FUNCTIONS
from ..module import Module
from .pruning import (
    BasePruningMethod,
    CustomFromMask,
    Identity,
    L1Unstructured,
    LnStructured,
    PruningContainer,
    RandomStructured,
    RandomUnstructured,
    hook_of,
)

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer", "RandomStructured",
    "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove",
]  # fmt: skip


def identity(module: Module, name: str) -> Module:
    """Bring a parameter into the form of a pruned one without pruning it; as ``torch.nn.utils.prune.identity``."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Any) -> Module:
    """Prune entries of a parameter at random; as ``torch.nn.utils.prune.random_unstructured``.

    Parameters
    ----------
    module : Module
    name : str
    amount : int or float
        How many, or which part.
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: Any, importance_scores: Tensor | None = None) -> Module:
    """Prune the entries of smallest absolute value; as ``torch.nn.utils.prune.l1_unstructured``.

    Parameters
    ----------
    module : Module
    name : str
    amount : int or float
        How many, or which part.
    importance_scores : Tensor, optional
        What decides instead of the values.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.nn.utils import prune
    >>> layer = prune.l1_unstructured(disttorch.nn.Linear(2, 3), "weight", amount=0.5)
    >>> int((layer.weight == 0).sum()), sorted(layer.state_dict())
    (3, ['bias', 'weight_mask', 'weight_orig'])
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Any, dim: int) -> Module:
    """Prune channels along a dimension at random; as ``torch.nn.utils.prune.random_structured``."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Module, name: str, amount: Any, n: Any, dim: int, importance_scores: Tensor | None = None) -> Module:
    """Prune the channels of smallest n-norm along a dimension; as ``torch.nn.utils.prune.ln_structured``."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune a parameter by a mask of 0 and 1; as ``torch.nn.utils.prune.custom_from_mask``."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Any, pruning_method: Any, importance_scores: Any = None, **kwargs: Any) -> None:
    """Prune entries of several parameters, which are compared with each other; as ``torch.nn.utils.prune.global_unstructured``.

    Parameters
    ----------
    parameters : iterable of (Module, str)
    pruning_method : type
        Such as `L1Unstructured`.
    importance_scores : dict of (Module, str) to Tensor, optional
        What decides instead of the values.
    **kwargs
        The method's, such as ``amount``.

    Raises
    ------
    TypeError
        If the method is not one of single entries, or the parameters are no iterable.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    pairs = list(parameters)
    method = pruning_method(**kwargs)
    method._tensor_name = "temp_name"
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. '
            f"Found method {pruning_method} of type {method.PRUNING_TYPE}"
        )
    container = PruningContainer()
    container._tensor_name = "temp_name"
    container.add_pruning_method(method)
    flat = [scores.get((m, n), getattr(m, n)).detach().reshape(-1) for m, n in pairs]
    masks = [getattr(m, n + "_mask", None) for m, n in pairs]
    default = FUNCTIONS["cat"]([FUNCTIONS["ones_like"](s) if mask is None else mask.reshape(-1) for s, mask in zip(flat, masks)])
    with no_grad():
        final = container.compute_mask(FUNCTIONS["cat"](flat), default)
    start = 0
    for module, name in pairs:
        shape = getattr(module, name).shape
        custom_from_mask(module, name, final[start : start + shape.numel()].reshape(shape))
        start += shape.numel()


def remove(module: Module, name: str) -> Module:
    """Make a pruned tensor, its zeros included, a plain parameter again; as ``torch.nn.utils.prune.remove``.

    Raises
    ------
    ValueError
        If it is not pruned.
    """
    found = hook_of(module, name)
    if found is None:
        raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed")
    number, method = found
    method.remove(module)
    del module._hooks.before[number]  # type: ignore[union-attr]
    return module


def is_pruned(module: Module) -> bool:
    """Whether a module or a part of it is pruned; as ``torch.nn.utils.prune.is_pruned``."""
    return any(
        isinstance(entry[0], BasePruningMethod)
        for part in module.modules()
        for entry in (part._hooks.before.values() if part._hooks is not None else ())
    )
