"""Pooling layers over 1 to 3 spatial dimensions, made of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ops.nn import adaptive_pooling, fractional_pooling, pooling, unpooling
from ..ops.nn.arguments import spatial
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
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


class _AdaptiveMaxPool(Module):
    """Maxima of as many windows as asked for."""

    function: Callable[..., Any]

    def __init__(self, output_size: Any, return_indices: bool = False):
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        return type(self).function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _LPPool(Module):
    """The power mean of each window."""

    function: Callable[..., Any]

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False):
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        return type(self).function(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, ceil_mode={self.ceil_mode}"


class _MaxUnpool(Module):
    """Values put back where a max pool found them."""

    function: Callable[..., Any]
    ndim: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        name = type(self).__name__
        self.kernel_size = spatial(kernel_size, self.ndim, name, "kernel_size", 1)
        self.stride = spatial(kernel_size if stride is None else stride, self.ndim, name, "stride", 1)
        self.padding = spatial(padding, self.ndim, name, "padding")

    def forward(self, input: Any, indices: Any, output_size: Sequence[int] | None = None) -> Any:
        """Put (N, C, *spatial), or one sample without N, to the indices that the pool returned."""
        return type(self).function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _FractionalMaxPool(Module):
    """Maxima of windows that begin at pseudorandom steps."""

    function: Callable[..., Any]
    ndim: int

    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Any = None,
    ):
        super().__init__()
        name = type(self).__name__
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{name} requires specifying either an output size, or a pooling ratio, but not both or none")
        self.kernel_size = spatial(kernel_size, self.ndim, name, "kernel_size", 1)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else spatial(output_size, self.ndim, name, "output_size", 1)
        ratios = output_ratio if output_ratio is None or isinstance(output_ratio, (tuple, list)) else (output_ratio,) * self.ndim
        self.output_ratio = ratios
        if ratios is not None and not all(0 < r < 1 for r in ratios):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Any) -> Any:
        """Pool (N, C, *spatial), or one sample without N."""
        function = type(self).function
        return function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, _random_samples=self._random_samples
        )


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


def _over(ndim: int, name: str, base: type[Module], function: Callable[..., Any]) -> Any:
    sizes = ", ".join("DHW"[3 - ndim :]) if ndim > 1 else "L"
    doc = (base.__doc__ or "").removesuffix(".")
    members = {
        "__doc__": f"{doc}, of (N, C, {sizes}); as ``torch.nn.{name}{ndim}d``. See `{function.__name__}`.",
        "__module__": __name__,
        "ndim": ndim,
        "function": staticmethod(function),
    }
    return type(f"{name}{ndim}d", (base,), members)


MaxPool1d, MaxPool2d, MaxPool3d = (
    _over(n, "MaxPool", _MaxPool, f) for n, f in enumerate((pooling.max_pool1d, pooling.max_pool2d, pooling.max_pool3d), 1)
)
AvgPool2d, AvgPool3d = (_over(n, "AvgPool", _AvgPool, f) for n, f in enumerate((pooling.avg_pool2d, pooling.avg_pool3d), 2))
LPPool1d, LPPool2d, LPPool3d = (
    _over(n, "LPPool", _LPPool, f) for n, f in enumerate((pooling.lp_pool1d, pooling.lp_pool2d, pooling.lp_pool3d), 1)
)
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (
    _over(n, "AdaptiveAvgPool", _AdaptiveAvgPool, getattr(adaptive_pooling, f"adaptive_avg_pool{n}d")) for n in (1, 2, 3)
)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (
    _over(n, "AdaptiveMaxPool", _AdaptiveMaxPool, getattr(adaptive_pooling, f"adaptive_max_pool{n}d")) for n in (1, 2, 3)
)
MaxUnpool1d, MaxUnpool2d, MaxUnpool3d = (
    _over(n, "MaxUnpool", _MaxUnpool, getattr(unpooling, f"max_unpool{n}d")) for n in (1, 2, 3)
)
FractionalMaxPool2d, FractionalMaxPool3d = (
    _over(n, "FractionalMaxPool", _FractionalMaxPool, getattr(fractional_pooling, f"fractional_max_pool{n}d")) for n in (2, 3)
)
