"""Parameters and buffers: tensors that a module owns by being assigned to it."""

from __future__ import annotations

from typing import Any

from ..autograd.graph import AccumulateGrad
from ..autograd.variable import Tensor, share_version, wrap
from ..ops.creation import empty, require_grad
from ..printing import tensor_repr

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


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


_elements: Any = Tensor.__dict__["_array"]


class _Uninitialized(Tensor):
    """What a lazy module has before it has seen an input: a dtype and a device, but no shape. Whatever needs elements fails."""

    __slots__ = ()

    @property
    def _array(self) -> Any:
        raise ValueError(
            f"Attempted to use an uninitialized {self._what}: it belongs to a lazy module, which must be called once, with a batch "
            "like those to come, before its parameters are used"
        )

    @_array.setter
    def _array(self, value: Any) -> None:
        _elements.__set__(self, value)

    @property
    def _what(self) -> str:
        return "parameter" if isinstance(self, Parameter) else "buffer"

    @property
    def data(self) -> Any:
        """No elements, of the dtype and on the device that there will be some of."""
        return wrap(_elements.__get__(self))

    @data.setter
    def data(self, value: Tensor) -> None:
        _elements.__set__(self, value._array)

    dtype = property(lambda self: self.data.dtype)
    device = property(lambda self: self.data.device)

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            f"Can't access the shape of an uninitialized parameter or buffer (this is a {self._what}). This happens where the state of "
            "a lazy module that was never called is loaded into one that was. Call the module once before."
        )

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become a parameter, or a tensor, of a shape, with elements that are still to be written.

        Parameters
        ----------
        shape : sequence of int
        device, dtype : optional
            Those that were asked for when it was made unless given.
        """
        made = empty(tuple(shape), device=self.device if device is None else device, dtype=self.dtype if dtype is None else dtype)
        asks = self._node is not None
        self.__class__ = Parameter if isinstance(self, Parameter) else Tensor  # type: ignore[assignment]
        self._array = made._array
        self._node = None
        require_grad(self, asks)

    def detach(self) -> Any:
        """Itself: there is nothing to share."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Let it ask for its gradient once it is there, or not."""
        # a node that stands for the wish alone; it is made anew with the elements
        self._node = AccumulateGrad(self.data) if requires_grad else None
        return self

    def __deepcopy__(self, memo: dict) -> Any:
        copy = _nothing(type(self), self._node is not None, self.device, self.dtype)
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> tuple:
        return _nothing, (type(self), self._node is not None, self.device, self.dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _nothing(cls: type, requires_grad: bool, device: Any, dtype: Any) -> Any:
    tensor: Any = object.__new__(cls)
    tensor._node = tensor._grad = tensor._version = tensor._view = None
    tensor._array = empty(0, device=device, dtype=dtype)._array
    return tensor.requires_grad_() if requires_grad else tensor


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape is not known yet; as ``torch.nn.parameter.UninitializedParameter``.

    Parameters
    ----------
    requires_grad : bool
    device, dtype : optional
        Of the parameter to be.
    """

    __slots__ = ()

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        return _nothing(cls, requires_grad, device, dtype)


class UninitializedBuffer(_Uninitialized):
    """A buffer whose shape is not known yet; as ``torch.nn.parameter.UninitializedBuffer``.

    Parameters
    ----------
    requires_grad : bool
    device, dtype : optional
        Of the buffer to be.
    """

    __slots__ = ()

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> UninitializedBuffer:
        return _nothing(cls, requires_grad, device, dtype)


def is_lazy(param: Any) -> bool:
    """Whether a parameter or buffer has no shape yet; as ``torch.nn.parameter.is_lazy``."""
    return isinstance(param, _Uninitialized)
