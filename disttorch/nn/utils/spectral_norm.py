"""Spectral normalization made of a hook, as it was before parametrizations; as ``torch.nn.utils.spectral_norm``."""

from __future__ import annotations

from typing import Any

from ...autograd.grad_mode import no_grad
from ...autograd.variable import Tensor
from ..convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..module import Module
from ..parameter import Parameter
from .norms import power_iteration, singular_value, start_vectors

__all__ = ["SpectralNorm", "remove_spectral_norm", "spectral_norm"]


class SpectralNorm:
    """The hook: before each forward pass it makes ``name`` of ``name_orig`` and the vectors ``name_u`` and ``name_v``."""

    def __init__(self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12):
        if n_power_iterations <= 0:
            raise ValueError(f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}")
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def reshape_weight_to_matrix(self, weight: Tensor) -> Tensor:
        """The weight with the dimension of the outputs first, and the others as one."""
        return weight.movedim(self.dim, 0).reshape(weight.shape[self.dim], -1)

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The normalized weight; the vectors change in place, so that replicas of the module share them."""
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = self.reshape_weight_to_matrix(weight)
        if do_power_iteration:
            with no_grad():
                new_u, new_v = power_iteration(matrix.detach(), u, v, self.n_power_iterations, self.eps, first="v")
                u.copy_(new_u)
                v.copy_(new_v)
        return weight / singular_value(matrix, u.clone(), v.clone())

    def remove(self, module: Module) -> None:
        """Make the weight a parameter again."""
        with no_grad():
            weight = self.compute_weight(module, do_power_iteration=False)
        delattr(module, self.name)
        for part in ("_u", "_v", "_orig"):
            delattr(module, self.name + part)
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, do_power_iteration=module.training))


def _find(module: Module, name: str) -> int | None:
    """The number of the hook for a weight."""
    if module._hooks is not None:
        for number, entry in module._hooks.before.items():
            if isinstance(entry[0], SpectralNorm) and entry[0].name == name:
                return number
    return None


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value; as ``torch.nn.utils.spectral_norm``.

    New programs use ``nn.utils.parametrizations.spectral_norm``.

    Parameters
    ----------
    module : Module
    name : str
        Of the weight.
    n_power_iterations : int
        Steps for each forward pass in training.
    eps : float
        The least norm to divide by.
    dim : int, optional
        The dimension of the outputs: 0, and 1 for transposed convolutions, unless given.

    Returns
    -------
    Module
        The module.

    Raises
    ------
    RuntimeError
        If it has been done already.
    """
    if _find(module, name) is not None:
        raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    if dim is None:
        dim = 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    with no_grad():
        u, v = start_vectors(hook.reshape_weight_to_matrix(weight.detach()), eps)
    delattr(module, name)
    module.register_parameter(name + "_orig", weight)
    # a plain attribute that other hooks, and code that looks at the weight before the first call, find
    setattr(module, name, weight.detach())
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make a weight a plain parameter again; as ``torch.nn.utils.remove_spectral_norm``.

    Raises
    ------
    ValueError
        If it is not normalized.
    """
    number = _find(module, name)
    if number is None or module._hooks is None:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    module._hooks.before.pop(number)[0].remove(module)
    return module
