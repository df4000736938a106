"""Weight normalization made of a hook, as it was before parametrizations; as ``torch.nn.utils.weight_norm``."""

from __future__ import annotations

import warnings
from typing import Any

from ...autograd.grad_mode import no_grad
from ..module import Module
from ..parameter import Parameter
from .norms import norm_except_dim

__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]


class WeightNorm:
    """The hook: before each forward pass it makes ``name`` of ``name_g`` and ``name_v``."""

    def __init__(self, name: str, dim: int | None):
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Any:
        """The weight."""
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / norm_except_dim(v, self.dim))

    def remove(self, module: Module) -> None:
        """Make the weight a parameter again."""
        weight = self.compute_weight(module)
        delattr(module, self.name)
        del module._parameters[self.name + "_g"], module._parameters[self.name + "_v"]
        setattr(module, self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train a weight's norms ``name_g`` and directions ``name_v`` apart; as ``torch.nn.utils.weight_norm``.

    New programs use ``nn.utils.parametrizations.weight_norm``.

    Parameters
    ----------
    module : Module
    name : str
        Of the weight.
    dim : int, optional
        Along which there is one norm each; None for one norm altogether.

    Returns
    -------
    Module
        The module.

    Raises
    ------
    RuntimeError
        If it has been done already.
    """
    warnings.warn(
        "`weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`.", FutureWarning, stacklevel=2
    )
    if any(isinstance(hook, WeightNorm) and hook.name == name for hook in _hooks(module)):
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    del module._parameters[name]
    with no_grad():
        module.register_parameter(name + "_g", Parameter(norm_except_dim(weight, hook.dim).detach()))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def _hooks(module: Module) -> list[Any]:
    return [] if module._hooks is None else [entry[0] for entry in module._hooks.before.values()]


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make a weight a plain parameter again; as ``torch.nn.utils.remove_weight_norm``.

    Raises
    ------
    ValueError
        If it is not normalized.
    """
    for number, entry in list(module._hooks.before.items() if module._hooks is not None else ()):
        if isinstance(entry[0], WeightNorm) and entry[0].name == name:
            entry[0].remove(module)
            del module._hooks.before[number]  # type: ignore[union-attr]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
