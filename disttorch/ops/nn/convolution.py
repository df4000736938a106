"""Convolution over 1 to 3 spatial dimensions.

The result is linear in the input and in the weight. Its two gradients are linear operations again, and the three are
each other's derivatives, so derivatives of every order stay convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..world import tensors
from .arguments import batched, spatial
from .padding import pad

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "same_padding",
]


def _add_bias(out: Any, bias: Any) -> Any:
    if bias is not None:
        out += bias.reshape((-1,) + (1,) * (out.ndim - 2))
    return out


def _bias_rule(g: Any, xp: Any) -> Any:
    return xp.sum(g, axis=(0, *range(2, g.ndim)))


_convolution = Operation(
    "convolution",
    lambda xp, x, weight, bias, *, stride, padding, dilation, groups: _add_bias(
        xp.convolution(x, weight, stride, padding, dilation, groups), bias
    ),
    x=lambda g, weight, x_shape, stride, padding, dilation, groups, xp: xp.convolution_input(
        g, weight, x_shape, stride, padding, dilation, groups
    ),
    weight=lambda g, x, weight_shape, stride, padding, dilation, groups, xp: xp.convolution_weight(
        g, x, weight_shape, stride, padding, dilation, groups
    ),
    bias=_bias_rule,
)
# y is a gradient at the output, the result one at the input; also the transposed convolution of y
_convolution_input = Operation(
    "convolution_input",
    lambda xp, y, weight, bias, *, size, stride, padding, dilation, groups: _add_bias(
        xp.convolution_input(y, weight, size, stride, padding, dilation, groups), bias
    ),
    y=lambda g, weight, stride, padding, dilation, groups, xp: xp.convolution(
        g, weight, stride, padding, dilation, groups
    ),
    weight=lambda g, y, weight_shape, stride, padding, dilation, groups, xp: xp.convolution_weight(
        y, g, weight_shape, stride, padding, dilation, groups
    ),
    bias=_bias_rule,
)
# y is a gradient at the output, the result one at the weight
_convolution_weight = Operation(
    "convolution_weight",
    lambda xp, y, x, *, size, stride, padding, dilation, groups: xp.convolution_weight(
        y, x, size, stride, padding, dilation, groups
    ),
    y=lambda g, x, stride, padding, dilation, groups, xp: xp.convolution(x, g, stride, padding, dilation, groups),
    x=lambda g, y, x_shape, stride, padding, dilation, groups, xp: xp.convolution_input(
        y, g, x_shape, stride, padding, dilation, groups
    ),
)


def _window(stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


# the kernels as rules call them, where they run on tensors
tensors.convolution = lambda x, weight, *window: apply(_convolution, x, weight, None, **_window(*window))
tensors.convolution_input = lambda y, weight, size, *window: apply(
    _convolution_input, y, weight, None, size=tuple(size), **_window(*window)
)
tensors.convolution_weight = lambda y, x, size, *window: apply(
    _convolution_weight, y, x, size=tuple(size), **_window(*window)
)


def same_padding(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What ``padding="same"`` adds (before, after) along each spatial dimension; an odd one more after."""
    total = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def _check_operands(name: str, ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, channels: int) -> None:
    """Refuse a weight, a bias or dtypes that do not fit; `channels` is the number of output channels."""
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None and what == "bias":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}(): argument '{what}' must be Tensor, not {type(tensor).__name__}")
        if tensor._array.dtype != input._array.dtype:
            raise RuntimeError(
                f"{name}(): input type ({input.dtype}) and {what} type ({tensor.dtype}) should be the same; convert one with .to()"
            )
    if weight._array.ndim != ndim + 2:
        raise RuntimeError(
            f"{name}(): expected a weight of {ndim + 2} dimensions, but got weight of size {list(weight._array.shape)} for "
            f"input of size {list(input._array.shape)}"
        )
    if bias is not None and bias._array.shape != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight._array.shape)}, expected bias to be 1-dimensional with {channels} elements, "
            f"but got bias of size {list(bias._array.shape)} instead"
        )


def _convolution_over(ndim: int) -> Callable[..., Tensor]:
    name = f"conv{ndim}d"

    def function(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        stride = spatial(stride, ndim, name, "stride", 1)
        dilation = spatial(dilation, ndim, name, "dilation", 1)
        if groups < 1:
            raise RuntimeError(f"{name}(): groups must be at least 1, but is {groups}")

        def compute(x: Tensor) -> Tensor:
            shape = weight._array.shape if isinstance(weight, Tensor) else ()
            _check_operands(name, ndim, x, weight, bias, shape[0] if shape else 0)
            if x._array.shape[1] != shape[1] * groups or shape[0] % groups:
                raise RuntimeError(
                    f"Given groups={groups}, weight of size {list(shape)}, expected input {list(x._array.shape)} to have "
                    f"{shape[1] * groups} channels, but got {x._array.shape[1]} channels instead"
                    if not shape[0] % groups
                    else f"Given groups={groups}, expected weight of size {list(shape)} to be divisible by {groups} at dimension 0"
                )
            around = padding
            if isinstance(padding, str):
                x, around = _named_padding(name, x, padding, shape[2:], stride, dilation)
            around = spatial(around, ndim, name, "padding")
            return apply(_convolution, x, weight, bias, stride=stride, padding=around, dilation=dilation, groups=groups)

        return batched(name, input, ndim, compute)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Cross-correlation over {ndim} spatial dimension{"s" if ndim > 1 else ""}; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    weight : Tensor
        (O, C / groups, *kernel), of the input's dtype.
    bias : Tensor, optional
        (O,)
    stride, dilation : int or tuple of int
    padding : int, tuple of int, "valid" or "same"
        Zeros on both sides; ``"same"`` keeps the spatial size, for a stride of 1.
    groups : int
        Into how many groups, which do not see each other, the channels are divided.

    Returns
    -------
    Tensor
        (N, O, *output), or (O, *output).

    Raises
    ------
    RuntimeError
        If shapes or dtypes do not fit.
    """
    return function


def _named_padding(
    name: str, x: Tensor, padding: str, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    if padding == "valid":
        return x, (0,) * len(kernel)
    if padding != "same":
        raise RuntimeError(f"{name}(): invalid padding string {padding!r}, must be 'valid' or 'same'")
    if max(stride) > 1:
        raise RuntimeError(f"{name}(): padding='same' is not supported for strided convolutions, the stride is {stride}")
    before, after = same_padding(kernel, dilation)
    if before == after:
        return x, before
    uneven = [n for b, a in zip(reversed(before), reversed(after)) for n in (0, a - b)]
    return pad(x, uneven), before


def _transposed_over(ndim: int) -> Callable[..., Tensor]:
    name = f"conv_transpose{ndim}d"

    def function(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        stride = spatial(stride, ndim, name, "stride", 1)
        padding = spatial(padding, ndim, name, "padding")
        extra = spatial(output_padding, ndim, name, "output_padding")
        dilation = spatial(dilation, ndim, name, "dilation", 1)
        for o, s, d in zip(extra, stride, dilation):
            if o >= max(s, d):
                raise RuntimeError(f"output padding must be smaller than either stride or dilation, but got {extra}, {stride}, {dilation}")

        def compute(y: Tensor) -> Tensor:
            shape = weight._array.shape if isinstance(weight, Tensor) else ()
            channels = shape[1] * groups if len(shape) > 1 else 0
            _check_operands(name, ndim, y, weight, bias, channels)
            if y._array.shape[1] != shape[0] or shape[0] % groups:
                raise RuntimeError(
                    f"Given transposed=1, groups={groups}, weight of size {list(shape)}, expected input {list(y._array.shape)} to have "
                    f"{shape[0]} channels (a multiple of groups), but got {y._array.shape[1]} channels instead"
                )
            size = tuple(
                (n - 1) * s - 2 * p + d * (k - 1) + o + 1
                for n, s, p, d, k, o in zip(y._array.shape[2:], stride, padding, dilation, shape[2:], extra)
            )
            if min(size) < 1:
                raise RuntimeError(f"{name}(): input of size {list(y._array.shape)} gives an output of spatial size {list(size)}")
            if any(o >= s for o, s in zip(extra, stride)):
                # the convolution of such a size has more windows than the input has values; nothing comes through those
                y = pad(y, [n for o, s in zip(reversed(extra), reversed(stride)) for n in (0, o // s)])
            size = (y._array.shape[0], channels, *size)
            window = _window(stride, padding, dilation, groups)
            return apply(_convolution_input, y, weight, bias, size=size, **window)

        return batched(name, input, ndim, compute)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The transpose of `conv{ndim}d`, its gradient at the input; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    weight : Tensor
        (C, O / groups, *kernel), of the input's dtype.
    bias : Tensor, optional
        (O,)
    stride, padding, dilation : int or tuple of int
        Those of the convolution that this one is the transpose of.
    output_padding : int or tuple of int
        Which of the sizes that this convolution maps to the input's is meant: added to the output on one side.
    groups : int

    Returns
    -------
    Tensor
        (N, O, *output), or (O, *output).
    """
    return function


conv1d, conv2d, conv3d = (_convolution_over(n) for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_transposed_over(n) for n in (1, 2, 3))
