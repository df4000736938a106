"""As ``torch.backends.cudnn``: whether and how convolutions and attention on CUDA devices use NVIDIA's cuDNN.

The module's switches can be set like variables: ``disttorch.backends.cudnn.benchmark = True``.

Attributes
----------
enabled : bool
    Whether cuDNN may be used.
benchmark : bool
    Whether the first call with new shapes tries several of cuDNN's engines and keeps the fastest.
benchmark_limit : int
    How many it tries; 0 for all.
deterministic : bool
    Whether only engines may be used that give the same bits every time.
allow_tf32 : bool
    Whether float32 convolutions may round their factors to TF32.
fp32_precision : str
    The same: "ieee", "tf32", or "none" where nothing was said; also as ``conv.fp32_precision``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..backend import cuda_is_available
from ..backend.choices import CHOICES
from .cuda import check_precision

__all__ = ["flags", "is_acceptable", "is_available", "version"]


def is_available() -> bool:
    """Whether there is a CUDA device, the package ``cudnn``, and the library behind it."""
    return version() is not None


def version() -> int | None:
    """The version of cuDNN, such as 91002; None without it."""
    if not cuda_is_available():
        return None
    from ..backend.cuda.cudnn.library import version as found

    return found()


def is_acceptable(tensor: Any) -> bool:
    """Whether cuDNN may compute with a tensor: one on a CUDA device, of a type that it knows, and cuDNN is enabled and here."""
    known = ("float16", "bfloat16", "float32", "float64")
    return bool(CHOICES.cudnn and tensor.device.type == "cuda" and str(tensor.dtype).rpartition(".")[2] in known and is_available())


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int | None = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
    fp32_precision: str = "none",
) -> Iterator[None]:
    """Set all switches for a with-block; what is not named is as by default, and cuDNN is off unless it is enabled."""
    module: Any = sys.modules[__name__]
    before = {name: getattr(module, name) for name in ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32")}
    said = CHOICES.said_of_convolutions
    module.enabled, module.benchmark, module.benchmark_limit = enabled, benchmark, benchmark_limit
    module.deterministic, module.allow_tf32 = deterministic, allow_tf32
    if fp32_precision != "none":
        module.fp32_precision = fp32_precision
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
        CHOICES.said_of_convolutions = said


class _Convolutions:
    """``conv``: how exact convolutions of float32 are."""

    __slots__ = ()

    @property
    def fp32_precision(self) -> str:
        return "tf32" if CHOICES.cudnn_tf32 else CHOICES.said_of_convolutions

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        CHOICES.said_of_convolutions = "none" if check_precision(value) == "none" else "ieee"
        CHOICES.cudnn_tf32 = value != "ieee"


def _switch(choice: str, kind: Any) -> Any:
    """A property of the module that is one of the choices."""

    def set_to(module: ModuleType, value: Any) -> None:
        setattr(CHOICES, choice, kind(value))

    return property(lambda module: getattr(CHOICES, choice), set_to)


class _Module(ModuleType):
    """This module, with switches."""

    enabled = _switch("cudnn", bool)
    benchmark = _switch("cudnn_benchmark", bool)
    benchmark_limit = _switch("cudnn_benchmark_limit", lambda value: 0 if value is None else int(value))
    deterministic = _switch("cudnn_deterministic", bool)
    allow_tf32 = _switch("cudnn_tf32", bool)
    conv = _Convolutions()

    @property
    def fp32_precision(self) -> str:
        return CHOICES.said_of_convolutions

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        _Module.conv.fp32_precision = value


sys.modules[__name__].__class__ = _Module
