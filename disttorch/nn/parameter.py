"""Parameters and buffers: tensors that a module owns by being assigned to it."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, share_version
from ..ops.creation import empty, require_grad
from ..printing import tensor_repr

__all__ = ["Buffer", "Parameter"]


def _on_memory_of(data: Any, cls: type) -> Any:
    """A tensor of a subclass on another's memory."""
    if data is None:
        data = empty(0)
    elif not isinstance(data, Tensor):
        raise TypeError(f"{cls.__name__}: data must be a Tensor, not {type(data).__name__}")
    tensor: Any = object.__new__(cls)
    tensor._array = data._array
    tensor._node = tensor._grad = tensor._version = tensor._view = None
    share_version(data, tensor)
    return tensor


class Parameter(Tensor):
    """A tensor that is trained; as ``torch.nn.Parameter``. Results of operations on it are plain tensors.

    Parameters
    ----------
    data : Tensor, optional
        Its memory is used, not copied.
    requires_grad : bool
        Whether gradients are computed for it.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.Parameter(disttorch.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        return require_grad(_on_memory_of(data, cls), requires_grad)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return "Parameter containing:\n" + tensor_repr(self)


class Buffer(Tensor):
    """A tensor that belongs to a module's state but is not trained; as ``torch.nn.Buffer``.

    Parameters
    ----------
    data : Tensor, optional
        Its memory is used, not copied.
    persistent : bool
        Whether it is part of the module's ``state_dict``.
    """

    __slots__ = ()

    persistent: bool

    def __new__(cls, data: Any = None, persistent: bool = True) -> Buffer:
        buffer = _on_memory_of(data, cls)
        buffer.persistent = persistent
        return buffer

    def __reduce__(self) -> tuple:
        return (*Tensor.__reduce__(self)[:2], {"persistent": self.persistent})
