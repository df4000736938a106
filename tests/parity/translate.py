"""PyTorch's values as ours and back, so that one set of arguments can be given to both."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

import disttorch

#: PyTorch's dtypes that we have, and ours
DTYPES = {
    getattr(torch, name): ours
    for name, ours in disttorch.PUBLIC_DTYPES.items()
    if isinstance(getattr(torch, name, None), torch.dtype)
}
#: what PyTorch's modules were made of, so that ours can be made of the same: (args, kwargs)
MADE_OF: weakref.WeakKeyDictionary[torch.nn.Module, tuple[tuple, dict]] = weakref.WeakKeyDictionary()


def _remember(cls: type, *args: Any, **kwargs: Any) -> Any:
    module = object.__new__(cls)
    MADE_OF[module] = args, kwargs
    return module


torch.nn.Module.__new__ = _remember  # type: ignore[method-assign,assignment]


class Untranslatable(Exception):
    """A value of PyTorch's that we do not claim to have: sparse and quantized tensors, dtypes outside the vocabulary."""


def tensor(t: torch.Tensor, requires_grad: bool | None = None, memo: dict[Any, Any] | None = None) -> Any:
    """A tensor of ours with a copy of PyTorch's elements, its strides and its requires_grad.

    With a `memo`, tensors that share memory there share it here.
    """
    if t.layout != torch.strided or t.is_quantized or t.dtype not in DTYPES or t.device.type != "cpu":
        raise Untranslatable(f"{t.layout} {t.dtype} {t.device}")
    source = t.detach().resolve_conj().resolve_neg()
    wants = t.requires_grad if requires_grad is None else requires_grad
    storage = source.untyped_storage()
    key = ("storage", storage.data_ptr(), t.dtype)
    is_part = storage.nbytes() > source.numel() * source.element_size()
    if memo is not None and (is_part or not wants) and storage.nbytes() >= source.element_size():
        if key not in memo:
            whole = torch.empty(0, dtype=t.dtype).set_(storage, 0, (storage.nbytes() // source.element_size(),), (1,))
            memo[key] = (_array(whole.clone()), source)  # kept alive, so that its address stays its own
        whole = disttorch.from_numpy(memo[key][0])
        part = disttorch.as_strided(whole, source.shape, source.stride(), source.storage_offset()).detach()
        return part.requires_grad_(wants)
    overlaps = any(stride == 0 and n > 1 for stride, n in zip(source.stride(), source.shape))
    copy = source.clone(memory_format=torch.contiguous_format if overlaps else torch.preserve_format)
    return disttorch.from_numpy(_array(copy)).requires_grad_(wants)


def _array(t: torch.Tensor) -> np.ndarray:
    if t.dtype is torch.bfloat16:
        return t.view(torch.int16).numpy().view(DTYPES[torch.bfloat16].numpy)
    return t.numpy()


def ours(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Any argument of a PyTorch call as ours; the same tensor twice is the same tensor twice. `memo` collects the tensors."""
    memo = {} if memo is None else memo
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            made = tensor(value, memo=memo)
            if isinstance(value, torch.nn.Parameter):
                made = disttorch.nn.Parameter(made.detach(), value.requires_grad)
            memo[id(value)] = made
        return memo[id(value)]
    if isinstance(value, torch.dtype):
        if value not in DTYPES:
            raise Untranslatable(str(value))
        return DTYPES[value]
    if isinstance(value, torch.device):
        return disttorch.device(str(value))
    if isinstance(value, torch.Size):
        return disttorch.Size(value)
    if isinstance(value, (torch.memory_format, torch.layout)):
        return getattr(disttorch, str(value).removeprefix("torch."))
    if isinstance(value, torch.Generator):
        return disttorch.Generator().manual_seed(value.initial_seed())
    if isinstance(value, torch.nn.Module):
        args, kwargs = MADE_OF.get(value, ((), {}))
        module = getattr(disttorch.nn, type(value).__name__)(*ours(args, memo), **ours(kwargs, memo))
        module.load_state_dict({k: ours(v) for k, v in value.state_dict().items()})
        return module.to(next((DTYPES[p.dtype] for p in value.parameters()), None)).train(value.training)
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return disttorch.nn.utils.rnn.PackedSequence(*(ours(v, memo) for v in value))
    if callable(value) and getattr(torch.nn.functional, getattr(value, "__name__", ""), None) is value:
        return getattr(disttorch.nn.functional, value.__name__)
    if isinstance(value, slice):
        return slice(*(ours(v, memo) for v in (value.start, value.stop, value.step)))
    if type(value) in (list, tuple):
        return type(value)(ours(v, memo) for v in value)
    if isinstance(value, dict):
        return {k: ours(v, memo) for k, v in value.items()}
    return value


def theirs(value: Any) -> Any:
    """What a function of ours returned as PyTorch's: tensors without their graph."""
    if isinstance(value, disttorch.Tensor):
        array = np.array(value.detach().numpy())  # a copy: PyTorch refuses read-only memory and negative strides
        if value.dtype is disttorch.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)
    if isinstance(value, disttorch.dtype):
        return getattr(torch, str(value).removeprefix("disttorch.").removeprefix("torch."))
    if isinstance(value, (list, tuple)):
        return (
            type(value)(theirs(v) for v in value) if type(value) in (list, tuple) else tuple(theirs(v) for v in value)
        )
    return value


def tensors_in(value: Any, kind: type) -> list[Any]:
    """All tensors of a nested value, in order."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v, kind)]
    return []
