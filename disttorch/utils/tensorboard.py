"""As ``torch.utils.tensorboard``: `SummaryWriter` is that of the package tensorboardX, which writes TensorBoard's files without PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "SummaryWriter":
        raise AttributeError(f"disttorch.utils.tensorboard has no {name!r}, only SummaryWriter")
    try:
        return import_module("tensorboardX").SummaryWriter
    except ModuleNotFoundError as error:
        if error.name != "tensorboardX":
            raise
        raise ModuleNotFoundError(
            "No module named 'tensorboardX', which writes TensorBoard's files here: pip install tensorboardX", name="tensorboardX"
        ) from None
