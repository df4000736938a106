"""Batch normalization over the batches of all ranks: as if one rank had them joined."""

from __future__ import annotations

from typing import Any

from ..autograd.function import Function, once_differentiable
from ..autograd.variable import Tensor, wrap
from ..backend import namespace
from ..nn.module import Module
from ..nn.normalization import _BatchNorm
from ..ops import creation
from ..ops.nn.arguments import check_floating
from ..ops.nn.normalization import check_channels, move_running
from .collective import all_reduce
from .movement import all_gather_single
from .process_group import get_world_size, is_initialized

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(_BatchNorm):
    """Batch normalization with the statistics of all ranks' batches; as ``torch.nn.SyncBatchNorm``.

    The result, the gradients and the running statistics are those of `BatchNorm2d` on the joined batch. In evaluation, and
    without other ranks, it is a `BatchNorm2d` for any number of dimensions. Training calls it on all ranks of the group.

    Parameters
    ----------
    num_features : int
        C of the input (N, C, *spatial).
    eps, momentum, affine, track_running_stats
        As for `BatchNorm2d`.
    process_group : ProcessGroup, optional
        The ranks; all unless given.
    device, dtype : optional
    bias : bool
        Whether there is a bias, if `affine`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_dims(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input of size {list(input.shape)})")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel of (N, C, *spatial)."""
        alone = not is_initialized() or get_world_size(self.process_group) < 2
        if alone or not self.training:
            return super().forward(input)
        self._check_dims(input)
        check_floating("SyncBatchNorm", input)
        state = {"running_mean": self.running_mean, "running_var": self.running_var, "weight": self.weight, "bias": self.bias}
        check_channels("SyncBatchNorm", input, **state)
        with namespace(input._array).on(input.device):
            return self._normalized(input)

    def _normalized(self, input: Tensor) -> Tensor:
        mean, var, count = _joined_statistics(input, self.process_group)
        xp = namespace(var)
        # on a GPU the number stays there: to look at it the host would have to wait
        if xp.name == "cpu" and count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)} on each rank")
        if self.training:
            share = self._count_batch()
            move_running(self.running_mean, mean, share)
            move_running(self.running_var, xp.asarray(var * (count / (count - 1)), dtype=var.dtype), share)
        rstd = 1.0 / xp.sqrt(var + self.eps)
        return _Normalize.apply(input, self.weight, self.bias, mean, rstd, count, self.process_group)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """A module with each batch normalization in it replaced, on the same parameters.

        Parameters
        ----------
        module : Module
            It is changed; if it is a batch normalization itself, the new one is only returned.
        process_group : ProcessGroup, optional
        """
        result = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            result = cls(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group
            )
            result._parameters.update(module._parameters)
            result._buffers.update(module._buffers)
            result.training = module.training
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


def _joined_statistics(input: Tensor, group: Any) -> tuple[Any, Any, Any]:
    """Mean and biased variance of each channel over the ranks' batches, and how many values there are in each (on a GPU as an array):
    from each rank's own (Chan, Golub & LeVeque, 1979), in one collective. A rank's batch may be empty.
    """
    a = input._array
    xp = namespace(a)
    channels = a.shape[1]
    count = a.size // channels if channels else 0
    if count:
        mean, var = xp.batch_norm_stats(a)
    else:
        mean = var = xp.zeros((channels,), "float32" if a.dtype.itemsize < 4 else a.dtype)
    dtype = mean.dtype
    own = xp.concatenate([xp.asarray(v, dtype="float64") for v in (mean, var, xp.full((1,), count))])
    ranks = get_world_size(group)
    everyone = creation.empty(ranks * (2 * channels + 1), dtype=wrap(own).dtype, device=input.device)
    all_gather_single(everyone, wrap(own), group=group)
    parts = everyone._array.reshape(ranks, 2 * channels + 1)
    counts = parts[:, -1:]
    total = counts.sum()
    means, variances = parts[:, :channels], parts[:, channels:-1]
    mean = (means * counts).sum(axis=0) / total
    away = means - mean
    var = ((variances + away * away) * counts).sum(axis=0) / total
    return xp.asarray(mean, dtype=dtype), xp.asarray(var, dtype=dtype), int(total) if xp.name == "cpu" else total


class _Normalize(Function):
    """Normalization with statistics that all ranks' inputs have a part in."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, rstd: Any, count: Any, group: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.statistics = mean, rstd, count, group
        ctx.has_bias = bias is not None
        a = x._array
        arrays = (None if t is None else t._array for t in (weight, bias))
        return wrap(namespace(a).batch_norm(a, *arrays, mean, rstd))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        saved, weight = ctx.saved_tensors
        mean, rstd, count, group = ctx.statistics
        x, g = saved._array, grad._array
        xp = namespace(x)
        axes, per_channel = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
        if x.dtype.itemsize < 4:
            x, g = xp.asarray(x, dtype="float32"), xp.asarray(g, dtype="float32")
        h = (x - mean.reshape(per_channel)) * rstd.reshape(per_channel)
        gb, gw = xp.sum(g, axis=axes), xp.sum(g * h, axis=axes)
        sums = wrap(xp.concatenate([gb, gw]))
        all_reduce(sums, group=group)
        count = xp.asarray(count, dtype=sums._array.dtype)
        all_gb, all_gw = (part.reshape(per_channel) / count for part in (sums._array[: len(gb)], sums._array[len(gb) :]))
        scale = rstd if weight is None else rstd * weight._array
        gx = (g - all_gb - h * all_gw) * scale.reshape(per_channel)
        like = saved._array.dtype if weight is None else weight._array.dtype
        own = ((gx, saved._array.dtype, True), (gw, like, weight is not None), (gb, like, ctx.has_bias))
        return (*(wrap(xp.asarray(v, dtype=d)) if there else None for v, d, there in own), None, None, None, None)
