"""Parameters that are functions of others; as ``torch.nn.utils.parametrize``.

A parametrized tensor ``module.weight`` is a property of a class made for that one module: reading it computes
``module.parametrizations.weight()``, a `ParametrizationList` that holds what is trained, as ``original`` (or ``original0``,
``original1``, ...), and the modules that make the tensor of it. The class's own name is `Parametrized` and the module's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ...autograd.grad_mode import no_grad
from ...autograd.variable import Tensor
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "transfer_parametrizations_and_params", "type_before_parametrizations",
]  # fmt: skip

#: how many `cached` blocks are open, and what was computed in them by (module's id, name)
_open = 0
_computed: dict[tuple[int, str], Any] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once within the block; as ``torch.nn.utils.parametrize.cached``."""
    global _open
    _open += 1
    try:
        yield
    finally:
        _open -= 1
        if not _open:
            _computed.clear()


class ParametrizationList(ModuleList):
    """The modules that make one tensor, and what they make it of; as ``torch.nn.utils.parametrize.ParametrizationList``.

    Parameters
    ----------
    modules : sequence of Module
        Applied in order; the first gets ``original``, or all of ``original0``, ``original1``, ...
    original : Tensor
        The tensor before. The modules' ``right_inverse``, where they have one, say what is kept of it.
    unsafe : bool
        Whether dtype and shape may change.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False):
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with suppress(NotImplementedError):  # then it has none after all, and what there is becomes the original
                        new = module.right_inverse(new)
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if not self.is_tensor and not isinstance(new, Sequence):
            raise ValueError(
                f"'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got {type(new).__name__}"
            )
        if self.is_tensor:
            self._keep(original, new)
        else:
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(
                        f"'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got element {i} of the sequence "
                        f"with type {type(part).__name__}."
                    )
                made: Any = Parameter(part.detach(), original.requires_grad) if isinstance(original, Parameter) else part
                if isinstance(original, Parameter):
                    self.register_parameter(f"original{i}", made)
                else:
                    self.register_buffer(f"original{i}", made)
        if not unsafe:
            self._check(original)

    def _keep(self, original: Tensor, new: Tensor) -> None:
        """The original keeps its identity, so that optimizers that know it go on, with new values."""
        if new is not original:
            if not self.unsafe and original.dtype != new.dtype:
                raise ValueError(
                    "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                    f"original.dtype: {original.dtype}\nright_inverse(original).dtype: {new.dtype}"
                )
            original.data = new.detach()
        if isinstance(original, Parameter):
            self.register_parameter("original", original)
        else:
            self.register_buffer("original", original)

    def _check(self, original: Tensor) -> None:
        made = self()
        if not isinstance(made, Tensor):
            raise ValueError(f"A parametrization must return a tensor. Got {type(made).__name__}.")
        if made.dtype != original.dtype:
            raise ValueError(
                "Registering a parametrization may not change the dtype of the tensor, unless `unsafe` flag is enabled.\n"
                f"unparametrized dtype: {original.dtype}\nparametrized dtype: {made.dtype}"
            )
        if made.shape != original.shape:
            raise ValueError(
                "Registering a parametrization may not change the shape of the tensor, unless `unsafe` flag is enabled.\n"
                f"unparametrized shape: {list(original.shape)}\nparametrized shape: {list(made.shape)}"
            )

    def originals(self) -> list[Tensor]:
        """What is trained."""
        return [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Change the originals so that the modules make this value of them.

        Raises
        ------
        RuntimeError
            If a module has no ``right_inverse``.
        ValueError
            If what they return does not fit the originals.
        """
        with no_grad():
            new: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement right_inverse, so its tensor cannot be assigned"
                    )
                new = module.right_inverse(new)
            if self.is_tensor and not isinstance(new, Tensor):
                raise ValueError(f"`right_inverse` should return a tensor. Got {type(new).__name__}")
            parts = [new] if self.is_tensor else list(new)
            if len(parts) != self.ntensors:
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a sequence of length {len(parts)}."
                )
            for original, part in zip(self.originals(), parts):
                if original.dtype != part.dtype:
                    raise ValueError(f"right_inverse may not change the dtype: it is {original.dtype}, and {part.dtype} was returned")
                original.data = part.detach()

    def forward(self) -> Tensor:
        """The tensor."""
        first, *others = list(self)
        made = first(*self.originals())
        for module in others:
            made = module(made)
        return made


def _own_class(module: Module) -> type:
    """A class for this module alone, in which its parametrized tensors are properties."""
    plain = type(module)

    def getstate(self: Module) -> Any:
        raise RuntimeError(
            "Serialization of parametrized modules is only supported through state_dict(). See "
            "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
        )

    def deepcopied(self: Module, memo: dict) -> Module:
        replica = memo.get(id(self))
        if replica is None:
            replica = plain.__new__(plain)
            memo[id(self)] = replica
            replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
            replica.__class__ = _own_class(replica)
            for name in replica.parametrizations:
                _add_property(replica, name)
        return replica

    members: dict[str, Any] = {"__getstate__": getstate, "__module__": plain.__module__, "__deepcopy__": deepcopied}
    return type(f"Parametrized{plain.__name__}", (plain,), members)


def _add_property(module: Module, name: str) -> None:
    def get(self: Any) -> Tensor:
        if not _open:
            return self.parametrizations[name]()
        key = (id(module), name)
        if key not in _computed:
            _computed[key] = self.parametrizations[name]()
        return _computed[key]

    def put(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)
        _computed.pop((id(module), name), None)

    setattr(type(module), name, property(get, put))


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Let a module compute one of its parameters or buffers; as ``torch.nn.utils.parametrize.register_parametrization``.

    What is trained is afterwards ``module.parametrizations.<tensor_name>.original``. Assigning to the tensor goes through
    the parametrization's ``right_inverse``, where it has one. Several parametrizations are applied one after the other.

    Parameters
    ----------
    module : Module
    tensor_name : str
        Of a parameter or buffer.
    parametrization : Module
        Maps the original to the tensor.
    unsafe : bool
        Whether dtype and shape may change.

    Returns
    -------
    Module
        The module.

    Raises
    ------
    ValueError
        If there is no such parameter or buffer, or, unless `unsafe`, dtype or shape change.

    Examples
    --------
    >>> import disttorch
    >>> class Symmetric(disttorch.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = disttorch.nn.Linear(2, 2)
    >>> _ = disttorch.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all()), list(layer.state_dict())
    (True, ['bias', 'parametrizations.weight.original'])
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        parts: Any = module.parametrizations[tensor_name]
        if not unsafe:
            before = getattr(module, tensor_name)
            after = parametrization(before)
            if not isinstance(after, Tensor):
                raise ValueError(f"A parametrization must return a tensor. Got {type(after).__name__}.")
            if after.dtype != before.dtype or after.shape != before.shape:
                raise ValueError(
                    "Registering a parametrization may not change the dtype or the shape of the tensor, unless the `unsafe` flag is "
                    f"enabled: {before.dtype} {list(before.shape)} would become {after.dtype} {list(after.shape)}"
                )
            if hasattr(parametrization, "right_inverse"):
                back = parametrization.right_inverse(after)
                if not isinstance(back, Tensor) or back.dtype != before.dtype or back.shape != before.shape:
                    raise ValueError("parametrization.right_inverse must return a tensor of the dtype and shape of the tensor it was given")
        parts.append(parametrization)
        parts.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        original = getattr(module, tensor_name)
        parts = ParametrizationList([parametrization], original, unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            module.__class__ = _own_class(module)
            module.parametrizations = ModuleDict()
        _add_property(module, tensor_name)
        module.parametrizations[tensor_name] = parts
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{tensor_name}'"
        )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrizations, or one of that name; as ``torch.nn.utils.parametrize.is_parametrized``."""
    parts = module._modules.get("parametrizations")
    if not isinstance(parts, ModuleDict):
        return False
    return len(parts) > 0 if tensor_name is None else tensor_name in parts


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Let a tensor be a plain parameter or buffer again; as ``torch.nn.utils.parametrize.remove_parametrizations``.

    Parameters
    ----------
    module : Module
    tensor_name : str
    leave_parametrized : bool
        Whether it keeps the value that was computed, or gets back the original, where that is one tensor.

    Returns
    -------
    Module
        The module.

    Raises
    ------
    ValueError
        If the tensor is not parametrized; or there are several originals, none of which it could get back.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parts: Any = module.parametrizations[tensor_name]
    if parts.is_tensor:
        original = parts.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, original)
    else:
        module.register_buffer(tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class that a module had; as ``torch.nn.utils.parametrize.type_before_parametrizations``."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module, tensor_name: str | None = None) -> Module:
    """Give another module the same parametrizations, and what they are made of;
    as ``torch.nn.utils.parametrize.transfer_parametrizations_and_params``.
    """
    if not is_parametrized(from_module):
        return to_module
    given: Any = from_module.parametrizations
    for name in list(given) if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, getattr(from_module, name))
        for parametrization in given[name]:
            register_parametrization(to_module, name, parametrization)
        to: Any = to_module.parametrizations
        for target, source in zip(to[name].originals(), given[name].originals()):
            target.data = source.detach().clone()
    return to_module
