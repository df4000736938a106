"""Discrete Fourier transforms, as three primitives: complex to complex, real to half a spectrum, and half a spectrum to real;
and overlapping frames of a signal.

The transforms sum ``exp(-2 pi i j k / n)`` (``inverse``: ``+``) over some dimensions and multiply by `scale`. Tensors go through the
operations of ``ops/fft.py``, which stand under the same names in the namespace of tensors.
"""

from __future__ import annotations

from typing import Any

from . import kernel


@kernel
def fft_c2c(xp: Any, x: Any, dims: tuple[int, ...], inverse: bool, scale: float) -> Any:
    """Over each of the dimensions, of complex input."""
    # the libraries' norm that does not divide: "backward" for the forward transform, "forward" for the inverse
    for dim in dims:
        x = xp.fft.ifft(x, axis=dim, norm="forward") if inverse else xp.fft.fft(x, axis=dim, norm="backward")
    return x if scale == 1 else x * xp.scalar(scale, x.real.dtype)


@kernel
def fft_r2c(xp: Any, x: Any, dim: int, scale: float) -> Any:
    """The first n // 2 + 1 frequencies of real input, forward."""
    spectrum = xp.fft.rfft(x, axis=dim, norm="backward")
    return spectrum if scale == 1 else spectrum * xp.scalar(scale, x.dtype)


@kernel
def fft_c2r(xp: Any, x: Any, dim: int, n: int, scale: float) -> Any:
    """n real values of the first n // 2 + 1 frequencies, inverse; the imaginary parts of the first and, for even n, the
    last frequency do not count.
    """
    signal = xp.fft.irfft(x, n, axis=dim, norm="forward")
    return signal if scale == 1 else signal * xp.scalar(scale, signal.dtype)


@kernel
def frames(xp: Any, x: Any, n: int, hop: int) -> Any:
    """Windows of n values at distances of `hop` along the last dimension: (batch, length) to (batch, count, n), without a copy."""
    batch, length = x.shape
    return xp.restride(x, (batch, (length - n) // hop + 1, n), (x.strides[0], x.strides[1] * hop, x.strides[1]))


@kernel
def overlap_add(xp: Any, x: Any, hop: int, length: int) -> Any:
    """Frames (batch, count, n) added up where they lie in a signal (batch, length): what is transposed to `frames`.

    Each frame is cut into pieces as long as the distance; the k-th pieces of all frames are one stretch of the signal.
    """
    batch, count, n = x.shape
    pieces = -(-n // hop)
    total = xp.zeros((batch, count - 1 + pieces, hop), x.dtype)
    for k in range(pieces):
        width = min(hop, n - k * hop)
        total[:, k : k + count, :width] += x[:, :, k * hop : k * hop + width]
    signal = xp.reshape(total, (batch, -1))[:, :length]
    short = length - signal.shape[1]
    return xp.concatenate((signal, xp.zeros((batch, short), x.dtype)), axis=1) if short > 0 else signal
