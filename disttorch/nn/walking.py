"""Going through a module's parts, parameters and buffers: methods of Module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..autograd.variable import Tensor
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module


def named_modules(
    self: Module, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
) -> Iterator[tuple[str, Module]]:
    """The module and all its parts, with their dotted names; each once unless `remove_duplicate` is off."""
    memo = set() if memo is None else memo
    if self in memo:
        return
    if remove_duplicate:
        memo.add(self)
    yield prefix, self
    for name, module in self._modules.items():
        if module is not None:
            yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)


def named_members(
    self: Module, get_members_fn: Callable[[Module], Any], prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
) -> Iterator[tuple[str, Any]]:
    """What a function finds in each part (pairs of a name and a value), with dotted names."""
    seen: set[int] = set()
    modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
    for path, module in modules:
        for name, value in get_members_fn(module):
            if value is None or id(value) in seen:
                continue
            if remove_duplicate:
                seen.add(id(value))
            yield (f"{path}.{name}" if path else name), value


def named_parameters(
    self: Module, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
) -> Iterator[tuple[str, Parameter]]:
    """All parameters with their dotted names; those of this module alone where not `recurse`."""
    return self._named_members(lambda m: m._parameters.items(), prefix, recurse, remove_duplicate)


def named_buffers(
    self: Module, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """All buffers with their dotted names; those of this module alone where not `recurse`."""
    return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)


def named_children(self: Module) -> Iterator[tuple[str, Module]]:
    """The parts of this module alone, each once, with their names."""
    seen: set[Module] = set()
    for name, module in self._modules.items():
        if module is not None and module not in seen:
            seen.add(module)
            yield name, module


def parameters(self: Module, recurse: bool = True) -> Iterator[Parameter]:
    """All parameters, each once."""
    return (p for _, p in self.named_parameters(recurse=recurse))


def buffers(self: Module, recurse: bool = True) -> Iterator[Tensor]:
    """All buffers, each once."""
    return (b for _, b in self.named_buffers(recurse=recurse))


def children(self: Module) -> Iterator[Module]:
    """The parts of this module alone, each once."""
    return (m for _, m in self.named_children())


def modules(self: Module, remove_duplicate: bool = True) -> Iterator[Module]:
    """The module and all its parts, each once, or as often as it has a name."""
    return (m for _, m in self.named_modules(remove_duplicate=remove_duplicate))
