"""`DataParallel`, which older scripts wrap their model in. One process has one GPU here: the whole batch is computed on the first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ...autograd.variable import Tensor
from ...backend import as_device
from ...backend.device import device as device_type
from ...cuda import device_count
from ...utils.data.collate import map_leaves
from ..module import Module

__all__ = ["DataParallel", "data_parallel"]


class DataParallel(Module):
    """A module that takes its input from the CPU or any GPU, and computes on a GPU; as ``torch.nn.DataParallel``.

    Results are PyTorch's, the time is that of one GPU: `DistributedDataParallel`, with a process for each, uses all of them. Without a
    GPU it is the module itself.

    Parameters
    ----------
    module : Module
        Its parameters are on the first of the devices.
    device_ids : sequence of int or device, optional
        All GPUs unless given; only the first computes.
    output_device : int or device, optional
        Where the results go; the first device unless given.
    dim : int
        Along which PyTorch takes the batch apart.

    Raises
    ------
    RuntimeError
        In a forward pass, if a parameter or buffer is elsewhere.
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        count = device_count()
        found = [_gpu(d) for d in (range(count) if device_ids is None else device_ids)] if count else []
        self.module, self.dim = module, dim
        self.device_ids = [d.index for d in found]
        if not found:
            return
        self.output_device = found[0].index if output_device is None else _gpu(output_device).index
        self.src_device_obj = found[0]
        if len(found) > 1:
            warnings.warn(
                f"DataParallel computes on {found[0]} alone; DistributedDataParallel, with a process for each GPU, uses them all",
                UserWarning,
                stacklevel=2,
            )

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module gives, on `output_device`."""
        if not self.device_ids:
            return self.module(*inputs, **kwargs)
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            if tensor.device != self.src_device_obj:
                raise RuntimeError(
                    f"module must have its parameters and buffers on device {self.src_device_obj} (device_ids[0]) but found one of them on "
                    f"device: {tensor.device}"
                )
        args, options = (_moved(given, self.src_device_obj) for given in (inputs, kwargs))
        return _moved(self.module(*args, **options), _gpu(self.output_device))


def data_parallel(
    module: Module, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0, module_kwargs: Any = None
) -> Any:
    """`DataParallel` for one call; as ``torch.nn.parallel.data_parallel``."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    return DataParallel(module, device_ids, output_device, dim)(*args, **(module_kwargs or {}))


def _gpu(device: Any) -> device_type:
    """A device with its number."""
    found = as_device(device)
    return device_type("cuda", found.index or 0) if found.type == "cuda" else found


def _moved(value: Any, where: device_type) -> Any:
    return map_leaves(lambda leaf: leaf.to(where) if isinstance(leaf, Tensor) else leaf, value)
