"""Mixed precision of DistributedDataParallel: parameters in full precision for the optimizer, in a lower one where the model computes.

In a forward pass parameters stand on copies of a lower precision, and afterwards on their own memory again. The graph keeps the copies.
What leads to a parameter asks for a gradient of the parameter's own dtype, so that gradients are added up in full precision, whatever
they were computed in; they are converted once more where they are reduced in another dtype (`Entry.reduced_as`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from ..autograd.variable import Tensor
from ..backend.dtypes import dtype
from ..nn.module import Module
from ..utils.checkpoint import surroundings
from .structures import mapped

__all__ = ["Copies", "FullPrecisionState", "LowPrecision", "_MixedPrecision", "cast_buffers", "check_mixed_precision"]


@dataclass
class _MixedPrecision:
    """In which dtypes a model computes, and its gradients are reduced; as ``torch.nn.parallel.distributed._MixedPrecision``.

    The last three fields are those of ``torch.distributed.fsdp.MixedPrecision``, and mean what they mean there for the outermost module.
    Only floating-point tensors are cast.

    Attributes
    ----------
    param_dtype : dtype, optional
        Of parameters, and of inputs, in forward and backward. Outside of them parameters have their own dtype.
    reduce_dtype : dtype, optional
        In which gradients are reduced. That of `param_dtype` unless given, or else the parameters' own.
    buffer_dtype : dtype, optional
        Of buffers, from when the model is wrapped; ``state_dict`` gives them in the dtype that they had.
    keep_low_precision_grads : bool
        Whether ``parameter.grad`` keeps the dtype in which it was reduced; else it has that of the parameter.
    cast_forward_inputs, cast_root_forward_inputs : bool
        Unless both are False inputs are cast to `param_dtype`.
    """

    param_dtype: dtype | None = None
    reduce_dtype: dtype | None = None
    buffer_dtype: dtype | None = None
    keep_low_precision_grads: bool = False
    cast_forward_inputs: bool = False
    cast_root_forward_inputs: bool = True

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if value is not None and not (isinstance(value, dtype) and value.is_floating_point):
                raise TypeError(f"_MixedPrecision: {field.name} must be a floating-point dtype or None, not {value!r}")

    @property
    def reduced_as(self) -> Any:
        """The array library's dtype of gradients that are reduced, None for each parameter's own."""
        reduced = self.param_dtype if self.reduce_dtype is None else self.reduce_dtype
        return None if reduced is None else reduced.numpy


def check_mixed_precision(config: Any) -> None:
    """Refuse what is no configuration."""
    if config is not None and not isinstance(config, _MixedPrecision):
        raise TypeError(f"DistributedDataParallel: mixed_precision must be a _MixedPrecision, not {type(config).__name__}")


class LowPrecision:
    """Lets a model compute in a lower precision.

    Parameters
    ----------
    module : Module
    config : _MixedPrecision
    ignored : collection of str
        Names of parameters that are left alone.
    """

    def __init__(self, module: Module, config: _MixedPrecision, ignored: Collection[str]):
        self._module, self._to = module, config.param_dtype
        self._casts_inputs = config.cast_forward_inputs or config.cast_root_forward_inputs
        self._parameters = [p for n, p in module.named_parameters() if n not in ignored and self._is_cast(p)]

    def _is_cast(self, t: Tensor) -> bool:
        return self._to is not None and t.dtype.is_floating_point and t.dtype is not self._to

    def call(self, inputs: tuple, kwargs: dict[str, Any]) -> Any:
        """The module's result."""
        if self._to is None:
            return self._module(*inputs, **kwargs)
        if self._casts_inputs:
            inputs, kwargs = (
                mapped(given, lambda t: t.to(self._to) if self._is_cast(t) else t, dataclasses=True) for given in (inputs, kwargs)
            )
        with Copies(self._parameters, self._to).in_place():
            return self._module(*inputs, **kwargs)


class Copies:
    """Parameters' values, as they are now, in another dtype.

    Parameters
    ----------
    parameters : sequence of Tensor
    to : dtype

    Examples
    --------
    >>> import disttorch
    >>> layer = disttorch.nn.Linear(2, 1)
    >>> with Copies(list(layer.parameters()), disttorch.bfloat16).in_place():
    ...     y = layer(disttorch.ones(1, 2, dtype=disttorch.bfloat16))
    >>> y.dtype, layer.weight.dtype
    (disttorch.bfloat16, disttorch.float32)
    """

    def __init__(self, parameters: Sequence[Tensor], to: dtype):
        self._copies = [(p, p.detach().to(to)._array) for p in parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the with-block parameters have the copies' values; so they have where a checkpoint in it computes again."""
        before = [p._array for p, _ in self._copies]
        token = surroundings.set((*surroundings.get(), self.in_place))
        try:
            for p, low in self._copies:
                p._array = low
            yield
        finally:
            for (p, _), array in zip(self._copies, before):
                p._array = array
            surroundings.reset(token)


class FullPrecisionState:
    """A hook that gives buffers in a ``state_dict`` the dtype that they had before they were cast.

    Parameters
    ----------
    dtypes : dict of str to dtype
        By the buffer's name in the module that has the hook.
    """

    def __init__(self, dtypes: dict[str, dtype]):
        self._dtypes = dtypes

    def __call__(self, module: Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
        for name, full in self._dtypes.items():
            if prefix + name in state:
                state[prefix + name] = state[prefix + name].to(full)


def cast_buffers(module: Module, to: dtype | None, ignored: Collection[str]) -> None:
    """Give a model's buffers a dtype, all but those of certain names; its ``state_dict`` keeps the dtypes that they had."""
    if to is None:
        return
    had = {}
    for name, buffer in module.named_buffers():
        if name not in ignored and buffer.dtype.is_floating_point and buffer.dtype is not to:
            had[name] = buffer.dtype
            buffer.data = buffer.data.to(to)
    if had:
        module.register_state_dict_post_hook(FullPrecisionState(had))
