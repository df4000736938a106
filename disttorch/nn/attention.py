"""Which implementation of attention to take; as ``torch.nn.attention``.

There are two, and neither has the matrix of all weights: on CUDA devices one kernel of cuDNN's, taken where cuDNN's or flash attention
is allowed, and one that computes in blocks, which all others of PyTorch's names mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum

from ..backend.choices import CHOICES

__all__ = ["SDPBackend", "current_backends", "sdpa_kernel"]


class SDPBackend(IntEnum):
    """PyTorch's implementations of `scaled_dot_product_attention`; as ``torch.nn.attention.SDPBackend``."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


_SWITCHES = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_chosen: ContextVar[tuple[SDPBackend, ...]] = ContextVar("sdpa_backends", default=tuple(SDPBackend)[1:])


def current_backends() -> tuple[SDPBackend, ...]:
    """What `sdpa_kernel` allows at this point."""
    return _chosen.get()


@contextmanager
def sdpa_kernel(backends: SDPBackend | Sequence[SDPBackend], set_priority: bool = False) -> Iterator[None]:
    """In a with-block, the implementations that attention may take; as ``torch.nn.attention.sdpa_kernel``.

    Parameters
    ----------
    backends : SDPBackend or sequence of SDPBackend
    set_priority : bool
        Whether their order is that of preference.

    Raises
    ------
    AssertionError
        For anything else.
    """
    chosen = (backends,) if isinstance(backends, SDPBackend) else tuple(backends)
    if not all(isinstance(b, SDPBackend) for b in chosen):
        raise AssertionError(f"sdpa_kernel: backends must be an SDPBackend or a sequence of them, got {backends!r}")
    token = _chosen.set(chosen)
    before = dict(CHOICES.attention)
    CHOICES.attention.update((name, backend in chosen) for name, backend in _SWITCHES.items())
    try:
        yield
    finally:
        CHOICES.attention.update(before)
        _chosen.reset(token)
