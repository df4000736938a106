"""What this installation computes with; as ``torch.__config__``."""

from __future__ import annotations

from .backend import cuda_is_available
from .backend.threads import get_num_threads, libraries
from .version import __version__

__all__ = ["parallel_info", "show"]


def show() -> str:
    """The versions of the libraries that compute, a line each."""
    lines = [f"disttorch {__version__}", *(f"  - {name}: {what}" for name, what in libraries().items())]
    lines.append(f"  - CUDA: {'available' if cuda_is_available() else 'no device, or no CuPy'}")
    return "\n".join(lines) + "\n"


def parallel_info() -> str:
    """How many threads they use."""
    return f"get_num_threads(): {get_num_threads()}\n"
