"""Optimizers; as ``torch.optim``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import lr_scheduler
from .adafactor import Adafactor
from .adagrad import Adadelta, Adagrad, RMSprop
from .adam import Adam, AdamW
from .adam_family import Adamax, NAdam, RAdam, SparseAdam
from .lbfgs import LBFGS
from .muon import Muon
from .optimizer import Optimizer
from .rprop import ASGD, Rprop
from .sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
]


def __getattr__(name: str) -> Any:
    """swa_utils is imported when it is first used, as its models are modules; other names are said to be absent."""
    if name == "swa_utils":
        return import_module(f"{__name__}.swa_utils")
    raise AttributeError(f"disttorch.optim has no {name!r}: it is not built (yet) or no name of PyTorch's; see docs/api-coverage.md")
