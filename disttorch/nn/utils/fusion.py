"""Batch normalization folded into the layer before it, for evaluation; as ``torch.nn.utils.fusion``."""

from __future__ import annotations

import copy
from typing import Any

from ...autograd.variable import Tensor
from ...ops import pointwise
from ...ops.creation import ones_like, zeros_like
from ..module import Module
from ..parameter import Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A convolution that does what a convolution and a batch normalization do together; as ``torch.nn.utils.fuse_conv_bn_eval``.

    Parameters
    ----------
    conv : Module
        A convolution, in evaluation; it is copied.
    bn : Module
        A batch normalization with running statistics, in evaluation.
    transpose : bool
        Whether the convolution is a transposed one.
    """
    return _fused(conv, bn, fuse_conv_bn_weights, transpose)


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A Linear that does what a Linear and a BatchNorm1d do together; as ``torch.nn.utils.fuse_linear_bn_eval``.

    Raises
    ------
    ValueError
        If the sizes do not fit.
    """
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ValueError(
            f"To fuse, linear.out_features == bn.num_features or bn.num_features == 1, not {linear.out_features} and {bn.num_features}"
        )
    return _fused(linear, bn, fuse_linear_bn_weights)


def _fused(layer: Any, bn: Any, fuse: Any, *more: Any) -> Module:
    if layer.training or bn.training:
        raise ValueError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("fusion needs a batch normalization with running statistics")
    fused: Any = copy.deepcopy(layer)
    fused.weight, fused.bias = fuse(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, *more
    )
    return fused


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """The weight and bias of `fuse_conv_bn_eval`, of those of both layers and the running mean and variance."""
    shape = (1, -1) if transpose else (-1, 1)
    scale, shift = _affine(conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    weight = conv_w * scale.reshape(*shape, *(1,) * (conv_w.ndim - 2))
    return _parameters(weight, shift, conv_w, conv_b)


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """The weight and bias of `fuse_linear_bn_eval`, of those of both layers and the running mean and variance."""
    scale, shift = _affine(linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    return _parameters(linear_w * scale.unsqueeze(-1), shift, linear_w, linear_b)


def _affine(bias: Any, mean: Any, var: Any, eps: float, weight: Any, shift: Any) -> tuple[Tensor, Tensor]:
    """What normalization multiplies by, and what it adds to, the layer's result without its bias."""
    weight = ones_like(mean) if weight is None else weight
    shift = zeros_like(mean) if shift is None else shift
    bias = zeros_like(mean) if bias is None else bias
    scale = weight * pointwise.rsqrt(var + eps)
    return scale, (bias - mean) * scale + shift


def _parameters(weight: Tensor, bias: Tensor, old_weight: Tensor, old_bias: Tensor | None) -> tuple[Parameter, Parameter]:
    like = old_weight if old_bias is None else old_bias
    return (
        Parameter(weight.detach().to(dtype=old_weight.dtype), old_weight.requires_grad),
        Parameter(bias.detach().to(dtype=like.dtype), like.requires_grad),
    )
