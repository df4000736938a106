"""As ``torch.backends.cuda``."""

from __future__ import annotations

from types import SimpleNamespace

from ..backend import cuda_is_available

#: Switches of matrix products.
matmul = SimpleNamespace(
    allow_tf32=False, allow_fp16_reduced_precision_reduction=True, allow_bf16_reduced_precision_reduction=True, fp32_precision="none"
)
_attention = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}


def is_built() -> bool:
    """Whether CUDA can be used here."""
    return cuda_is_available()


def flash_sdp_enabled() -> bool:
    """What `enable_flash_sdp` has set."""
    return _attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch: attention is computed one way here, in blocks."""
    _attention["flash"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    """What `enable_mem_efficient_sdp` has set."""
    return _attention["mem_efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch; see `enable_flash_sdp`."""
    _attention["mem_efficient"] = bool(enabled)


def math_sdp_enabled() -> bool:
    """What `enable_math_sdp` has set."""
    return _attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch; see `enable_flash_sdp`."""
    _attention["math"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    """What `enable_cudnn_sdp` has set."""
    return _attention["cudnn"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch; see `enable_flash_sdp`."""
    _attention["cudnn"] = bool(enabled)
