"""disttorch: tensors, autograd and distributed training on NumPy and CuPy, with PyTorch's names and meanings.

    import disttorch as torch
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import autograd
from .autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .backend import get_default_device, set_default_device
from .backend.device import device
from .backend.dtypes import (
    PUBLIC_DTYPES,
    can_cast,
    dtype,
    finfo,
    get_default_dtype,
    iinfo,
    promote_types,
    result_type,
    set_default_dtype,
)
from .ops import FUNCTIONS
from .ops.dims import Size
from .ops.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from .printing import set_printoptions
from .tensor import Tensor, is_tensor
from .version import __version__

globals().update(FUNCTIONS)
globals().update(PUBLIC_DTYPES)


def __getattr__(name: str) -> Any:
    """Subpackages are imported when they are first used; a name that is not there is said to be absent."""
    if name in ("cuda", "distributed", "nn", "optim", "serialization", "utils"):
        return import_module(f"disttorch.{name}")
    if name in ("load", "save"):
        return getattr(import_module("disttorch.serialization"), name)
    raise AttributeError(f"disttorch has no {name!r}: it is not built (yet) or no name of PyTorch's")
