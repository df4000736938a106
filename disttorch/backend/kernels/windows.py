"""The geometry of sliding windows, which convolution and pooling share.

Arrays are ``(N, C, *spatial)``; kernel, stride, padding and dilation are tuples with one entry a spatial dimension. An
*offset* is a position inside the kernel, and its *tap* is what all windows see there: one strided slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

__all__ = ["Dims", "offsets", "output_shape", "padded", "spread", "tap"]

Dims = tuple[int, ...]


def output_shape(
    spatial: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool = False
) -> Dims:
    """How many windows fit along each spatial dimension.

    With `ceil_mode` a last window may hang over the end, but must start inside the input or its left padding
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html).

    Raises
    ------
    RuntimeError
        If no window fits.
    """
    shape = []
    for length, k, s, p, d in zip(spatial, kernel, stride, padding, dilation):
        room = length + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= length + p:
            count -= 1
        shape.append(count)
    if min(shape, default=1) < 1:
        raise RuntimeError(
            f"a kernel of size {tuple(kernel)} with dilation {tuple(dilation)} does not fit into an input of spatial "
            f"size {tuple(spatial)} with padding {tuple(padding)} and stride {tuple(stride)}: the output would have "
            f"spatial size {tuple(shape)}"
        )
    return tuple(shape)


def offsets(kernel: Dims) -> Iterator[Dims]:
    """All positions inside the kernel, the last dimension fastest."""
    return product(*map(range, kernel))


def tap(x: Any, offset: Dims, shape: Dims, stride: Dims, dilation: Dims) -> Any:
    """The view ``(N, C, *shape)`` of a padded input that the windows see at one kernel offset."""
    return x[
        (slice(None), slice(None))
        + tuple(slice(o * d, o * d + (n - 1) * s + 1, s) for o, n, s, d in zip(offset, shape, stride, dilation))
    ]


def padded(xp: Any, x: Any, before: Dims, after: Dims, value: float = 0) -> Any:
    """The input with `value` added before and after each spatial dimension."""
    if not any(before) and not any(after):
        return x
    return xp.pad(x, ((0, 0), (0, 0), *zip(before, after)), constant_values=value)


def spread(xp: Any, g: Any, spatial: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Any:
    """A gradient at the outputs laid out so that its taps lie at the inputs: sliding the flipped kernel over the
    result with stride 1 and the same dilation gives the gradient at the inputs, of size `spatial`.
    """
    shape = g.shape[2:]
    if any(s > 1 for s in stride):
        between = g.reshape(g.shape[:2] + tuple(n for count in shape for n in (count, 1)))
        widths = tuple((0, after) for s in stride for after in (0, s - 1))
        between = xp.pad(between, ((0, 0), (0, 0), *widths))
        g = between.reshape(g.shape[:2] + tuple(n * s for n, s in zip(shape, stride)))
    length = tuple((n - 1) * s + 1 for n, s in zip(shape, stride))
    g = g[(slice(None), slice(None)) + tuple(slice(n) for n in length)]
    reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation))
    after = tuple(max(r, size + p - n) for r, size, p, n in zip(reach, spatial, padding, length))
    g = padded(xp, g, reach, after)
    return g[(slice(None), slice(None)) + tuple(slice(p, p + n + r) for p, n, r in zip(padding, spatial, reach))]
