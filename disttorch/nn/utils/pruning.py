"""Pruning methods: which entries of a tensor go. Each is also the hook that keeps them at 0; see prune.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from ...autograd.grad_mode import no_grad
from ...autograd.variable import Tensor
from ...ops import FUNCTIONS, reduction
from ...ops.linalg.norms import torch_norm
from ..module import Module

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer", "RandomStructured",
    "RandomUnstructured", "hook_of",
]  # fmt: skip


class BasePruningMethod(ABC):
    """How a mask is made; as ``torch.nn.utils.prune.BasePruningMethod``. Subclasses define `compute_mask` and PRUNING_TYPE."""

    #: "unstructured" (single entries), "structured" (whole channels) or "global" (given for all)
    PRUNING_TYPE: str
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of a tensor, of which `default_mask` has been pruned before; of its shape."""

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned tensor."""
        original = getattr(module, self._tensor_name + "_orig")
        return getattr(module, self._tensor_name + "_mask").to(dtype=original.dtype) * original

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any) -> Any:
        """Prune a parameter of a module, with a hook, which is returned.

        Parameters
        ----------
        module : Module
        name : str
            Of the parameter.
        *args, **kwargs
            The method's.
        importance_scores : Tensor, optional
            Of the parameter's shape: what decides instead of its values.
        """
        before = hook_of(module, name)
        method: Any = cls(*args, **kwargs)
        method._tensor_name = name
        if before is not None:
            number, old = before
            del module._hooks.before[number]  # type: ignore[union-attr]
            container = PruningContainer(old) if not isinstance(old, PruningContainer) else old
            container.add_pruning_method(method)
            method = container
        value = getattr(module, name)
        if importance_scores is not None and importance_scores.shape != value.shape:
            raise ValueError(
                f"importance_scores should have the same shape as parameter {name}, {list(value.shape)}, but has "
                f"{list(importance_scores.shape)}"
            )
        scores = value if importance_scores is None else importance_scores
        if before is None:
            original = module._parameters[name]
            default = FUNCTIONS["ones_like"](value)
            del module._parameters[name]
            module.register_parameter(name + "_orig", original)
        else:
            default = getattr(module, name + "_mask").detach().clone()
        try:
            with no_grad():
                mask = method.compute_mask(scores.detach(), default)
        except Exception:
            if before is None:
                module.register_parameter(name, module._parameters.pop(name + "_orig"))
            raise
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """A pruned copy of a tensor."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise ValueError(f"importance_scores should have the same shape as tensor t, {list(t.shape)}, but has {list(scores.shape)}")
        default = FUNCTIONS["ones_like"](t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default_mask=default)

    def remove(self, module: Module) -> None:
        """Make the tensor, pruned for good, a plain parameter again. The hook stays with the caller."""
        name = self._tensor_name
        pruned = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original = module._parameters.pop(name + "_orig")
        original.data = pruned.detach()  # type: ignore[union-attr]
        del module._buffers[name + "_mask"]
        module.register_parameter(name, original)


def hook_of(module: Module, name: str) -> tuple[int, BasePruningMethod] | None:
    """The number of a parameter's pruning hook and the hook; None if it is not pruned."""
    for number, entry in (module._hooks.before if module._hooks is not None else {}).items():
        if isinstance(entry[0], BasePruningMethod) and entry[0]._tensor_name == name:
            return number, entry[0]
    return None


class PruningContainer(BasePruningMethod):
    """Several methods one after the other; as ``torch.nn.utils.prune.PruningContainer``."""

    def __init__(self, *methods: Any):
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if len(methods) == 1 and not isinstance(methods[0], Iterable):
            self._tensor_name = methods[0]._tensor_name
        for method in methods[0] if len(methods) == 1 and isinstance(methods[0], Iterable) else methods:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Put a method behind the others; it must be for the same tensor."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        name = getattr(self, "_tensor_name", None)
        if name is not None and name != method._tensor_name:
            raise ValueError(
                f"Can only add pruning methods acting on the parameter named '{name}' to PruningContainer {self}. "
                f"Found '{method._tensor_name}'"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask, with what the last method takes away of what it has left."""
        method: Any = self._pruning_methods[-1]
        mask = default_mask.to(dtype=t.dtype)
        new = mask.clone()
        part: Any
        if method.PRUNING_TYPE == "unstructured":
            part = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim
            others = tuple(d for d in range(t.ndim) if d != dim)
            kept = (reduction.sum(mask, others) != 0) if others else mask != 0
            part = (slice(None),) * dim + (kept,)
        elif method.PRUNING_TYPE == "global":
            part = (slice(None),) * t.ndim
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        found = method.compute_mask(t[part], default_mask=mask[part])
        new[part] = found.to(dtype=new.dtype)
        return new


def _check_amount(amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if amount < 0 or (isinstance(amount, float) and amount > 1.0):
        raise ValueError(f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer")


def _count(amount: Any, size: int) -> int:
    """How many of `size` entries shall go."""
    if isinstance(amount, int):
        if amount > size:
            raise ValueError(f"amount={amount} should be smaller than the number of parameters to prune={size}")
        return amount
    return round(amount * size)


def _without(mask: Tensor, flat_indices: Tensor) -> Tensor:
    result = mask.clone()
    flat = result.reshape(-1)
    flat[flat_indices] = 0
    return flat.reshape(mask.shape)


class Identity(BasePruningMethod):
    """A mask of ones; as ``torch.nn.utils.prune.Identity``."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask."""
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Entries chosen at random; as ``torch.nn.utils.prune.RandomUnstructured``."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: Any):
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask without some entries."""
        count = _count(self.amount, t.numel())
        return _without(default_mask, FUNCTIONS["randperm"](t.numel(), device=t.device)[:count]) if count else default_mask.clone()


class L1Unstructured(BasePruningMethod):
    """The entries of smallest absolute value; as ``torch.nn.utils.prune.L1Unstructured``."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: Any):
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask without some entries."""
        count = _count(self.amount, t.numel())
        return _without(default_mask, t.abs().reshape(-1).topk(count, largest=False)[1]) if count else default_mask.clone()


class _Structured(BasePruningMethod):
    """Whole channels, of which `keep` says which stay."""

    PRUNING_TYPE = "structured"
    amount: Any
    dim: int

    def keep(self, t: Tensor, count: int) -> Tensor:
        """The numbers of the channels that stay, with `count` gone."""
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask without some channels."""
        if t.ndim <= 1:
            raise ValueError(
                "Structured pruning can only be applied to multidimensional tensors. Found tensor of shape "
                f"{list(t.shape)} with {t.ndim} dims"
            )
        if not -t.ndim <= self.dim < t.ndim:
            raise IndexError(f"Invalid index {self.dim} for tensor of size {list(t.shape)}")
        size = t.shape[self.dim]
        count = _count(self.amount, size)
        if not count:
            return default_mask
        mask = FUNCTIONS["zeros"](size, dtype=default_mask.dtype, device=t.device)
        mask[self.keep(t, count)] = 1
        shape = [1] * t.ndim
        shape[self.dim] = size
        return default_mask * mask.reshape(shape)


class RandomStructured(_Structured):
    """Channels chosen at random; as ``torch.nn.utils.prune.RandomStructured``."""

    def __init__(self, amount: Any, dim: int = -1):
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def keep(self, t: Tensor, count: int) -> Tensor:
        """All but some at random."""
        return FUNCTIONS["randperm"](t.shape[self.dim], device=t.device)[count:]


class LnStructured(_Structured):
    """The channels of smallest n-norm; as ``torch.nn.utils.prune.LnStructured``."""

    def __init__(self, amount: Any, n: Any, dim: int = -1):
        _check_amount(amount)
        self.amount, self.n, self.dim = amount, n, dim

    def keep(self, t: Tensor, count: int) -> Tensor:
        """Those of largest norm."""
        others = tuple(d for d in range(t.ndim) if d != self.dim % t.ndim)
        return torch_norm(t, self.n, others).topk(t.shape[self.dim] - count)[1]


class CustomFromMask(BasePruningMethod):
    """A mask that the caller has; as ``torch.nn.utils.prune.CustomFromMask``."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor):
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The default mask times that mask."""
        return default_mask * self.mask.to(dtype=default_mask.dtype)
