"""disttorch: tensors, autograd and distributed training on NumPy and CuPy, with PyTorch's names and meanings.

    import disttorch as torch
"""

from __future__ import annotations

import math
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import autograd, ops
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
from .backend.layout import LAYOUTS, MEMORY_FORMATS, layout, memory_format
from .backend.memory import OutOfMemoryError
from .backend.threads import get_num_threads, set_num_threads
from .ops import FUNCTIONS
from .ops.dims import Size
from .ops.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from .printing import set_printoptions
from .settings import (
    are_deterministic_algorithms_enabled,
    get_deterministic_debug_mode,
    get_float32_matmul_precision,
    get_num_interop_threads,
    is_complex,
    is_deterministic_algorithms_warn_only_enabled,
    is_floating_point,
    is_nonzero,
    is_same_size,
    is_signed,
    is_storage,
    is_warn_always_enabled,
    numel,
    set_default_tensor_type,
    set_deterministic_debug_mode,
    set_float32_matmul_precision,
    set_flush_denormal,
    set_num_interop_threads,
    set_warn_always,
    typename,
    use_deterministic_algorithms,
)
from .tensor import Tensor, is_tensor
from .tensor.memory import UntypedStorage
from .tensor.types import TENSOR_TYPES
from .version import __version__

if TYPE_CHECKING:
    from .functions import *  # noqa: F403 - what the tables hold

globals().update(FUNCTIONS)
globals().update(PUBLIC_DTYPES)
globals().update(MEMORY_FORMATS)
globals().update(LAYOUTS)
globals().update({_name: _type for _name, _type in TENSOR_TYPES.items() if "." not in _name})


default_generator = ops.random.default_generator()
inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
newaxis = None

#: Subpackages, imported when they are first used,
_LATER = frozenset(
    """
    _C __config__ accelerator amp array_api as_torch backends compiler cpu cuda distributed distributions
    _dynamo _inductor fft func futures jit linalg masked metrics mps multiprocessing
    nn optim profiler random serialization signal special testing transforms utils xpu
    """.split()
)
#: and functions that stand in one.
_STANDS_IN = {
    "serialization": "load save",
    "compiler": "compile",
    "func": "vmap",
    "accelerator": "Event Stream get_device_module",
    "amp.autocast_mode": """
        autocast clear_autocast_cache get_autocast_cpu_dtype get_autocast_dtype get_autocast_gpu_dtype is_autocast_cache_enabled
        is_autocast_cpu_enabled is_autocast_enabled
    """,
}
_PLACES = {name: place for place, names in _STANDS_IN.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Subpackages are imported when they are first used; a name that is not there is said to be absent."""
    if name in _LATER:
        return import_module(f"disttorch.{name}")
    if name.startswith("_foreach_"):
        found = import_module("disttorch.ops.foreach").FOREACH.get(name)
        if found is not None:
            return found
    if name in _PLACES:
        return getattr(import_module(f"disttorch.{_PLACES[name]}"), name)
    raise AttributeError(
        f"disttorch has no {name!r}: it is not built (yet) or no name of PyTorch's; docs/api-coverage.md lists what is there",
        name=name,
        obj=sys.modules[__name__],
    )
