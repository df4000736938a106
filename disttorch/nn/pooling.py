"""Pooling layers over 1 to 3 spatial dimensions, made of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ops.nn import pooling
from ..ops.nn.arguments import spatial
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


class _MaxPool(Module):
    """The maximum of each window."""

    function: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        function = type(self).function
        return function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class _AvgPool(Module):
    """The mean of each window."""

    function: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        function = type(self).function
        return function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPool(Module):
    """Means of as many windows as asked for."""

    function: Callable[..., Any]

    def __init__(self, output_size: Any):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        return type(self).function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class MaxPool1d(_MaxPool):
    """The maximum of each window, of (N, C, L); as ``torch.nn.MaxPool1d``. See `max_pool1d`."""

    function = staticmethod(pooling.max_pool1d)


class MaxPool2d(_MaxPool):
    """The maximum of each window, of (N, C, H, W); as ``torch.nn.MaxPool2d``. See `max_pool2d`."""

    function = staticmethod(pooling.max_pool2d)


class MaxPool3d(_MaxPool):
    """The maximum of each window, of (N, C, D, H, W); as ``torch.nn.MaxPool3d``. See `max_pool3d`."""

    function = staticmethod(pooling.max_pool3d)


class AvgPool1d(_AvgPool):
    """The mean of each window, of (N, C, L); as ``torch.nn.AvgPool1d``. See `avg_pool1d`."""

    function = staticmethod(pooling.avg_pool1d)

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        stride = kernel_size if stride is None else stride
        kernel_size, stride, padding = (
            spatial(value, 1, "AvgPool1d", name)
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("padding", padding))
        )
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window, of (N, C, H, W); as ``torch.nn.AvgPool2d``. See `avg_pool2d`."""

    function = staticmethod(pooling.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The mean of each window, of (N, C, D, H, W); as ``torch.nn.AvgPool3d``. See `avg_pool3d`."""

    function = staticmethod(pooling.avg_pool3d)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of (N, C, L); as ``torch.nn.AdaptiveAvgPool1d``. See `adaptive_avg_pool1d`."""

    function = staticmethod(pooling.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of (N, C, H, W); as ``torch.nn.AdaptiveAvgPool2d``. See `adaptive_avg_pool2d`."""

    function = staticmethod(pooling.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means of as many windows as asked for, of (N, C, D, H, W); as ``torch.nn.AdaptiveAvgPool3d``. See `adaptive_avg_pool3d`."""

    function = staticmethod(pooling.adaptive_avg_pool3d)
