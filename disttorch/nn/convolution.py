"""Convolutions and their transposes over 1 to 3 spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor
from ..ops.creation import empty
from ..ops.nn import convolution
from ..ops.nn.arguments import spatial
from ..ops.nn.padding import pad
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """A convolution over `ndim` spatial dimensions, or its transpose."""

    ndim: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        output_padding: Any,
        device: Any,
        dtype: Any,
    ):
        super().__init__()
        name = type(self).__name__
        if groups <= 0:
            raise ValueError(f"groups must be a positive integer, but is {groups}")
        if in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, but they are {in_channels} and {groups}")
        if out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, but they are {out_channels} and {groups}")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode={padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = spatial(kernel_size, self.ndim, name, "kernel_size", 1)
        self.stride = spatial(stride, self.ndim, name, "stride", 1)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of 'same', 'valid'")
            if padding == "same" and max(self.stride) > 1:
                raise ValueError(f"padding='same' is not supported for strided convolutions, the stride is {self.stride}")
        self.padding = padding if isinstance(padding, str) else spatial(padding, self.ndim, name, "padding")
        self.dilation = spatial(dilation, self.ndim, name, "dilation", 1)
        self.output_padding = spatial(output_padding, self.ndim, name, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        channels = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty(*channels, *self.kernel_size, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        shown: dict[str, Any] = {"kernel_size": self.kernel_size, "stride": self.stride}
        nothing, ones = (0,) * self.ndim, (1,) * self.ndim
        for name, value, usual in [
            ("padding", self.padding, nothing),
            ("dilation", self.dilation, ones),
            ("output_padding", self.output_padding, nothing),
            ("groups", self.groups, 1),
            ("bias", self.bias is not None, True),
            ("padding_mode", self.padding_mode, "zeros"),
        ]:
            if value != usual:
                shown[name] = value
        return f"{self.in_channels}, {self.out_channels}, " + ", ".join(f"{k}={v}" for k, v in shown.items())


class _Forward(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, 0, device, dtype
        )

    def _widths(self) -> list[int]:
        """The padding as `pad` takes it: the last dimension first, before and after."""
        if self.padding == "same":
            before, after = convolution.same_padding(self.kernel_size, self.dilation)
        else:
            before = after = (0,) * self.ndim if isinstance(self.padding, str) else self.padding
        return [n for pair in zip(reversed(before), reversed(after)) for n in pair]

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_channels, *spatial), or one sample without N, to (N, out_channels, *output)."""
        function = _FORWARD[self.ndim]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(input, self._widths(), self.padding_mode), 0
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _Transposed(_Convolution):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}, not {padding_mode!r}')
        if isinstance(padding, str):
            raise TypeError(f"{type(self).__name__}: padding must be integers, not {padding!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            output_padding,
            device,
            dtype,
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Map (N, in_channels, *spatial), or one sample without N, to (N, out_channels, *output).

        Parameters
        ----------
        input : Tensor
        output_size : sequence of int, optional
            The spatial size that is meant, of those that the convolution maps to the input's, instead of `output_padding`.

        Raises
        ------
        ValueError
            If it is none of those.
        """
        extra = self.output_padding if output_size is None else self._padding_for(input, output_size)
        function = _TRANSPOSED[self.ndim]
        return function(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _padding_for(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        wanted = tuple(output_size)[-self.ndim :]
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1  # type: ignore[operator]
            for n, s, p, d, k in zip(input.shape[-self.ndim :], self.stride, self.padding, self.dilation, self.kernel_size)
        )
        if len(wanted) != self.ndim or any(not 0 <= w - m < s for w, m, s in zip(wanted, least, self.stride)):
            raise ValueError(
                f"requested an output size of {list(output_size)}, but valid sizes range from {list(least)} to "
                f"{[m + s - 1 for m, s in zip(least, self.stride)]} (for an input of {list(input.shape)})"
            )
        return tuple(w - m for w, m in zip(wanted, least))


_FORWARD = {1: convolution.conv1d, 2: convolution.conv2d, 3: convolution.conv3d}
_TRANSPOSED = {1: convolution.conv_transpose1d, 2: convolution.conv_transpose2d, 3: convolution.conv_transpose3d}


class Conv1d(_Forward):
    """Convolution over 1 spatial dimension; as ``torch.nn.Conv1d``. Parameters as for `Conv2d`."""

    ndim = 1


class Conv2d(_Forward):
    """Convolution over 2 spatial dimensions; as ``torch.nn.Conv2d``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or tuple of int
    padding : int, tuple of int, "same" or "valid"
        What is added on both sides; ``"same"`` keeps the spatial size, for a stride of 1.
    groups : int
        Into how many groups, which do not see each other, the channels are divided.
    bias : bool
        Whether there is one.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What is added.
    device, dtype : optional
        Of the parameters.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, *kernel_size), initialized uniform within ``1 / sqrt(fan_in)``.
    bias : Parameter or None
        (out_channels,), likewise.

    Raises
    ------
    ValueError
        If the channels cannot be divided into the groups, or the padding is none of those.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.Conv2d(3, 8, 5, stride=2, padding=2)(disttorch.zeros(1, 3, 32, 32)).shape
    disttorch.Size([1, 8, 16, 16])
    """

    ndim = 2


class Conv3d(_Forward):
    """Convolution over 3 spatial dimensions; as ``torch.nn.Conv3d``. Parameters as for `Conv2d`."""

    ndim = 3


class ConvTranspose1d(_Transposed):
    """The transpose of `Conv1d`; as ``torch.nn.ConvTranspose1d``. Parameters as for `ConvTranspose2d`."""

    ndim = 1


class ConvTranspose2d(_Transposed):
    """The transpose of `Conv2d`, its gradient at the input; as ``torch.nn.ConvTranspose2d``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or tuple of int
        Those of the convolution that this is the transpose of.
    output_padding : int or tuple of int
        Added to the size of the output on one side: a convolution with a stride maps several sizes to one.
    groups : int
        Into how many groups, which do not see each other, the channels are divided.
    bias : bool
        Whether there is one.
    padding_mode : "zeros"
    device, dtype : optional
        Of the parameters.

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, *kernel_size), initialized uniform within ``1 / sqrt(fan_in)``.
    bias : Parameter or None
        (out_channels,), likewise.
    """

    ndim = 2


class ConvTranspose3d(_Transposed):
    """The transpose of `Conv3d`; as ``torch.nn.ConvTranspose3d``. Parameters as for `ConvTranspose2d`."""

    ndim = 3
