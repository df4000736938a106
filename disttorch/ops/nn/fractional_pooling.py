"""Fractional max pooling: windows that begin at pseudorandom steps, so that sizes shrink by any factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ..creation import rand
from .arguments import batched, check_floating, spatial
from .pooling import gather_maxima

__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]


def _fractional_max_pool_over(ndim: int) -> Callable[..., Any]:
    name = f"fractional_max_pool{ndim}d"

    def function(
        input: Tensor,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> Any:
        check_floating(name, input)
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        kernel = spatial(kernel_size, ndim, name, "kernel_size", 1)
        if output_size is None:
            ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * ndim
            shape = tuple(int(n * r) for n, r in zip(input.shape[-ndim:], ratios))
        else:
            shape = spatial(output_size, ndim, name, "output_size")

        def compute(x: Tensor) -> tuple[Tensor, Tensor]:
            if 0 in x.shape[1:]:
                raise RuntimeError(f"{name}(): Expected input to have non-zero size for non-batch dimensions, but got {list(x.shape)}")
            for size, k, n in zip(x.shape[2:], kernel, shape):
                if n < 1 or n + k - 1 > size:
                    raise RuntimeError(
                        f"{name}(): {n} windows of size {k} do not fit into an input of size {list(x.shape)}: {n + k - 1} are needed"
                    )
            samples = _random_samples
            if samples is None:
                samples = rand(*x.shape[:2], ndim, dtype=x.dtype, device=x.device)
            elif samples.ndim != 3 or samples.shape[0] < len(x) or tuple(samples.shape[1:]) != (x.shape[1], ndim):
                raise RuntimeError(f"{name}(): _random_samples must be of shape {[*x.shape[:2], ndim]}, but got {list(samples.shape)}")
            numbers = samples._array[: len(x)]
            if ndim == 2:  # where PyTorch takes the last dimension's first
                numbers = numbers[:, :, ::-1]
            indices = wrap(namespace(x._array).fractional_max_positions(x._array, kernel, shape, numbers))
            return gather_maxima(x, indices), indices

        out, indices = batched(name, input, ndim, compute)
        return (out, indices) if return_indices else out

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Maxima of windows that begin at pseudorandom steps; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    kernel_size : int or tuple of int
    output_size : int or tuple of int, optional
        How many windows there are.
    output_ratio : float or tuple of float, optional
        That number as a part of the input's size, instead.
    return_indices : bool
        Whether to return the flat spatial positions of the maxima as well.

    Returns
    -------
    Tensor, or with `return_indices` a tuple of it and an int64 Tensor of its shape

    Raises
    ------
    ValueError
        If neither `output_size` nor `output_ratio` is given.
    RuntimeError
        If the windows do not fit into the input.
    """
    return function


fractional_max_pool2d, fractional_max_pool3d = (_fractional_max_pool_over(n) for n in (2, 3))
