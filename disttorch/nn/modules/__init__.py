"""The paths under which PyTorch keeps its modules, ``torch.nn.modules.conv`` and so on, for programs that import by them.

Each path is a module object that finds names in the files where they stand here, or else in ``disttorch.nn``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

#: PyTorch's file: ours, in the order in which they are asked
PATHS = {
    "activation": "activation multihead",
    "adaptive": "adaptive",
    "batchnorm": "normalization lazy",
    "channelshuffle": "upsampling",
    "container": "containers parameter_containers",
    "conv": "convolution lazy",
    "distance": "loss",
    "dropout": "dropout",
    "flatten": "linear",
    "fold": "upsampling",
    "instancenorm": "normalization lazy",
    "lazy": "lazy",
    "linear": "linear lazy",
    "loss": "loss",
    "module": "module hooks state",
    "normalization": "normalization",
    "padding": "padding",
    "pixelshuffle": "upsampling",
    "pooling": "pooling",
    "rnn": "rnn rnn_cell",
    "sparse": "sparse",
    "transformer": "transformer",
    "upsampling": "upsampling",
}
#: base classes that PyTorch's users ask for, and our names for them
RENAMED = {
    "_ConvNd": "_Convolution",
    "_ConvTransposeNd": "_Transposed",
    "_DropoutNd": "_Dropout",
    "_NormBase": "_RunningNorm",
    "_MaxPoolNd": "_MaxPool",
    "_AvgPoolNd": "_AvgPool",
    "_AdaptiveAvgPoolNd": "_AdaptiveAvgPool",
    "_AdaptiveMaxPoolNd": "_AdaptiveMaxPool",
    "_LPPoolNd": "_LPPool",
    "_MaxUnpoolNd": "_MaxUnpool",
    "_ConstantPadNd": "_ConstantPad",
    "_IncompatibleKeys": "IncompatibleKeys",
}


class _Path(ModuleType):
    """One of PyTorch's files."""

    def __init__(self, name: str, files: str):
        super().__init__(f"{__name__}.{name}", f"The names of ``torch.nn.modules.{name}``.")
        self.files = files.split()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for spelled in (name, RENAMED.get(name, name)):
            for file in self.files:
                module = import_module(f"disttorch.nn.{file}")
                if hasattr(module, spelled):
                    return getattr(module, spelled)
        return __getattr__(name)


def __getattr__(name: str) -> Any:
    return getattr(import_module("disttorch.nn"), name)


for _name, _files in PATHS.items():
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = _Path(_name, _files)
