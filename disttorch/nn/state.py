"""Saving a module's state as a dictionary and loading it: methods of Module.

Keys are the dotted names of parameters and persistent buffers, as in PyTorch. Loading looks at everything before it
complains, so one error names all that is missing, unexpected or of the wrong shape.
"""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.creation import as_tensor
from .parameter import Buffer, Parameter, is_lazy

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "StateDict"]

EXTRA_STATE = "_extra_state"


class StateDict(OrderedDict):
    """A state_dict: names to tensors, in the order of the modules.

    Attributes
    ----------
    _metadata : OrderedDict
        For each module's path the version of its layout.
    """

    _metadata: OrderedDict


class IncompatibleKeys(namedtuple("IncompatibleKeys", "missing_keys unexpected_keys")):
    """What `load_state_dict` returns: which keys it did not find, and which it did not know."""

    __slots__ = ()

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


def state_dict(
    self: Module, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
) -> dict[str, Any]:
    """Parameters and persistent buffers by their dotted names; as ``torch.nn.Module.state_dict``.

    Parameters
    ----------
    destination : dict, optional
        What to put them into; a new `StateDict` unless given.
    prefix : str
        Put in front of all names.
    keep_vars : bool
        Whether tensors keep their part in the graph.

    Returns
    -------
    dict
        Tensors on the memory of the module's, not copies.
    """
    if destination is None:
        destination = StateDict()
        destination._metadata = OrderedDict()
    local_metadata = {"version": self._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = local_metadata
    hooks = self._state_hooks
    if hooks is not None:
        for (hook,) in tuple(hooks.before_save.values()):
            hook(self, prefix, keep_vars)
    self._save_to_state_dict(destination, prefix, keep_vars)
    for name, module in self._modules.items():
        if module is not None:
            module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    if hooks is not None:
        for (hook,) in tuple(hooks.after_save.values()):
            replaced = hook(self, destination, prefix, local_metadata)
            destination = destination if replaced is None else replaced
    return destination


def save_to_state_dict(self: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Put what belongs to this module alone into a state_dict; subclasses with a state of another form override it."""
    for name, value in _own_state(self).items():
        if value is not None:
            destination[prefix + name] = value if keep_vars else value.detach()
    if _has_extra_state(self):
        destination[prefix + EXTRA_STATE] = self.get_extra_state()


def _own_state(module: Module) -> dict[str, Tensor | None]:
    persistent = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    return {**module._parameters, **persistent}


def _has_extra_state(module: Module) -> bool:
    return type(module).get_extra_state is not get_extra_state


def get_extra_state(self: Module) -> Any:
    """More state than tensors, which a subclass that has it returns; saved under the name ``_extra_state``."""
    raise RuntimeError(f"{type(self).__name__}.get_extra_state is called, but the class does not define it")


def set_extra_state(self: Module, state: Any) -> None:
    """Take back what `get_extra_state` returned; a class that defines one defines both."""
    raise RuntimeError(f"the state_dict has an extra state, but {type(self).__name__} does not define set_extra_state")


def load_state_dict(
    self: Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
) -> IncompatibleKeys:
    """Copy a state into the module's parameters and buffers; as ``torch.nn.Module.load_state_dict``.

    Parameters
    ----------
    state_dict : mapping of str to Tensor or array
        As `state_dict` returns it. NumPy arrays, and what gives one (another framework's tensors), do as well.
    strict : bool
        Whether keys that are missing or unexpected are errors.
    assign : bool
        Whether the tensors themselves are taken, with their dtype and device, instead of being copied.

    Returns
    -------
    IncompatibleKeys
        ``missing_keys`` and ``unexpected_keys``.

    Raises
    ------
    RuntimeError
        That names all keys that are missing, unexpected (if `strict`) or of the wrong shape.
    TypeError
        If `state_dict` is no mapping.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict).__name__}.")
    metadata = getattr(state_dict, "_metadata", None) or {}
    entries = OrderedDict(state_dict)
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []

    def load(module: Module, own: OrderedDict, prefix: str) -> None:
        local_metadata = {**metadata.get(prefix[:-1], {}), "assign_to_params_buffers": assign}
        module._load_from_state_dict(own, prefix, local_metadata, True, missing, unexpected, errors)
        for name, child in module._modules.items():
            if child is not None:
                path = f"{prefix}{name}."
                # out of what this module's hooks have left, which may rename keys
                load(child, OrderedDict((k, v) for k, v in own.items() if k.startswith(path)), path)
        if module._state_hooks is not None:
            incompatible = IncompatibleKeys(missing, unexpected)
            for (hook,) in tuple(module._state_hooks.after_load.values()):
                if hook(module, incompatible) is not None:
                    raise TypeError("a load_state_dict post hook must change the lists of keys in place and return None")

    load(self, entries, "")
    if strict:
        for what, keys in (("Unexpected", unexpected), ("Missing", missing)):
            if keys:
                names = ", ".join(f'"{k}"' for k in keys)
                errors.insert(0, f"{what} key(s) in state_dict: {names}. ")
    if errors:
        listed = "\n\t".join(errors)
        raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{listed}")
    return IncompatibleKeys(missing, unexpected)


def load_from_state_dict(
    self: Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Load what belongs to this module alone, and add to the lists; subclasses whose state had another form override it."""
    if self._state_hooks is not None:
        for (hook,) in tuple(self._state_hooks.before_load.values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
    assign = local_metadata.get("assign_to_params_buffers", False)
    own = _own_state(self)
    for name, current in own.items():
        if current is None:
            continue
        key = prefix + name
        if key not in state_dict:
            missing_keys.append(key)
            continue
        try:
            _load_one(self, name, key, current, state_dict[key], assign)
        except (RuntimeError, TypeError, ValueError) as error:
            error_msgs.append(f"{error}" if key in f"{error}" else f'While copying "{key}": {error}')
    extra = prefix + EXTRA_STATE
    if _has_extra_state(self):
        if extra in state_dict:
            self.set_extra_state(state_dict[extra])
        else:
            missing_keys.append(extra)
    known = {n for n, v in own.items() if v is not None} | ({EXTRA_STATE} if _has_extra_state(self) else set())
    for key in state_dict:
        if key.startswith(prefix):
            name, dot, _ = key[len(prefix) :].partition(".")
            if name not in (self._modules if dot else known):
                unexpected_keys.append(key)


def _load_one(module: Module, name: str, key: str, current: Tensor, value: Any, assign: bool) -> None:
    if is_lazy(current) and is_lazy(value):
        return  # there is nothing to load yet
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            raise TypeError(f'While copying "{key}": expected a Tensor or an array from the checkpoint but received {type(value).__name__}')
        value = as_tensor(value.detach() if hasattr(value, "detach") else value)
    have, wanted = value._array.shape, current._array.shape
    if have == (1,) and wanted == ():
        value, have = value.reshape(()), ()  # numbers that were saved as vectors of one
    if have != wanted:
        raise RuntimeError(
            f"size mismatch for {key}: copying a param with shape {list(have)} from checkpoint, the shape in current model is "
            f"{list(wanted)}."
        )
    with no_grad():
        if not assign:
            current.copy_(value)
        elif isinstance(current, Parameter):
            asks = current.requires_grad
            module._parameters[name] = value if isinstance(value, Parameter) else Parameter(value.detach(), asks)
            module._parameters[name].requires_grad_(asks)  # type: ignore[union-attr]
        else:
            module._buffers[name] = Buffer(value, current.persistent) if isinstance(current, Buffer) else value
