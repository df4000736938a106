"""Tensors on the stand-in for the length of a test: the CUDA backend is imported afresh, and forgotten afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from . import BACKEND, forget_backend, installed, modules

__all__ = ["tensors"]


@contextmanager
def tensors(devices: int = 1) -> Iterator[Any]:
    """Within the with-block ``disttorch`` has so many CUDA devices. Where a whole run has the stand-in, it keeps the one backend."""
    import disttorch
    from disttorch.autograd import several_devices
    from disttorch.ops import random

    for_good = "cupy" in modules.MODULES
    if not for_good:
        forget_backend()
    with installed(devices) as cupy:
        import_module(BACKEND)
        before = cupy.cuda.get_allocator()
        cupy.cuda.set_allocator(import_module(f"{BACKEND}.memory").allocate)
        try:
            yield disttorch
        finally:
            several_devices.remove()
            disttorch.cuda.graph.default_capture_stream = None
            for where in [where for where in random._generators if where.type == "cuda"]:
                del random._generators[where]
            if for_good:
                cupy.cuda.set_allocator(before)
