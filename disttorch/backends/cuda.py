"""As ``torch.backends.cuda``: how matrix products and attention are computed on CUDA devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..backend import cuda_is_available
from ..backend.choices import CHOICES

__all__ = [
    "cudnn_sdp_enabled",
    "enable_cudnn_sdp",
    "enable_flash_sdp",
    "enable_math_sdp",
    "enable_mem_efficient_sdp",
    "flash_sdp_enabled",
    "is_built",
    "math_sdp_enabled",
    "matmul",
    "mem_efficient_sdp_enabled",
    "sdp_kernel",
]


class _Matmul:
    """Switches of matrix products; as ``torch.backends.cuda.matmul``.

    Attributes
    ----------
    allow_tf32 : bool
        Whether float32 products may round their factors to TF32; what `set_float32_matmul_precision` sets, too.
    fp32_precision : str
        The same: "ieee", "tf32", or "none" where nothing was said.
    allow_fp16_reduced_precision_reduction, allow_bf16_reduced_precision_reduction : bool
        Whether cuBLAS may add up partial sums of half-type products in the half type.
    """

    __slots__ = ()

    @property
    def allow_tf32(self) -> bool:
        return CHOICES.float32_products != "highest"

    @allow_tf32.setter
    def allow_tf32(self, value: bool) -> None:
        CHOICES.float32_products = "high" if value else "highest"

    @property
    def fp32_precision(self) -> str:
        return "tf32" if self.allow_tf32 else CHOICES.said_of_products

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        CHOICES.said_of_products = "none" if check_precision(value) == "tf32" else value
        self.allow_tf32 = value == "tf32"

    @property
    def allow_fp16_reduced_precision_reduction(self) -> bool:
        return CHOICES.float16_reduction

    @allow_fp16_reduced_precision_reduction.setter
    def allow_fp16_reduced_precision_reduction(self, value: Any) -> None:
        CHOICES.float16_reduction = _reduction("allow_fp16_reduced_precision_reduction", value)

    @property
    def allow_bf16_reduced_precision_reduction(self) -> bool:
        return CHOICES.bfloat16_reduction

    @allow_bf16_reduced_precision_reduction.setter
    def allow_bf16_reduced_precision_reduction(self, value: Any) -> None:
        CHOICES.bfloat16_reduction = _reduction("allow_bf16_reduced_precision_reduction", value)


def check_precision(value: str) -> str:
    """A name of a precision of float32.

    Raises
    ------
    RuntimeError
        If it is none.
    """
    if value not in ("ieee", "tf32", "none"):
        raise RuntimeError(f"fp32_precision must be 'ieee', 'tf32' or 'none', but is {value!r}")
    return value


def _reduction(name: str, value: Any) -> bool:
    """A bool, or the first of a tuple, whose second is whether sums may be split at all, which cuBLAS decides."""
    first = value[0] if isinstance(value, (tuple, list)) and 1 <= len(value) <= 2 else value
    if not isinstance(first, bool):
        raise TypeError(f"{name} expects a bool, or a tuple of one or two, but got {value!r}")
    return first


matmul = _Matmul()


def is_built() -> bool:
    """Whether CUDA can be used here."""
    return cuda_is_available()


# cuDNN's one kernel is flash attention: it is taken if either name of it is enabled. Otherwise attention goes block by block.


def flash_sdp_enabled() -> bool:
    """What `enable_flash_sdp` has set."""
    return CHOICES.attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    """Whether attention may be one kernel, which is cuDNN's; see also `enable_cudnn_sdp`."""
    CHOICES.attention["flash"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    """What `enable_mem_efficient_sdp` has set."""
    return CHOICES.attention["mem_efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch: attention that is not one kernel goes block by block."""
    CHOICES.attention["mem_efficient"] = bool(enabled)


def math_sdp_enabled() -> bool:
    """What `enable_math_sdp` has set."""
    return CHOICES.attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    """Accepted as in PyTorch; see `enable_mem_efficient_sdp`."""
    CHOICES.attention["math"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    """What `enable_cudnn_sdp` has set."""
    return CHOICES.attention["cudnn"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Whether attention may be cuDNN's one kernel; with `enable_flash_sdp` off as well, it is not."""
    CHOICES.attention["cudnn"] = bool(enabled)


@contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> Iterator[None]:
    """In a with-block, the implementations that attention may take; the older form of ``nn.attention.sdpa_kernel``."""
    before = dict(CHOICES.attention)
    CHOICES.attention.update(
        flash=bool(enable_flash), math=bool(enable_math), mem_efficient=bool(enable_mem_efficient), cudnn=bool(enable_cudnn)
    )
    try:
        yield
    finally:
        CHOICES.attention.update(before)
