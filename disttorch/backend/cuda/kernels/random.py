"""Random numbers of a generator on a device: see sources/random.cu and sources/distributions.cu.

Where the stream is lies in device memory and is moved on by the kernels themselves: nothing waits for the device, and a captured graph
draws new numbers at every replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from ... import dtypes as dt
from .. import capturing
from ..layouts import in_one_order
from .arrays import ELEMENT, THREADS, blocks, contiguous
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["Philox", "signed"]

SOURCE, DISTRIBUTIONS = "random.cu", "distributions.cu"
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])
declare(DISTRIBUTIONS, [{}])

INT64, UINT64 = dt.int64.numpy, dt.PUBLIC_DTYPES["uint64"].numpy
BOOL, FLOAT32, FLOAT64 = dt.bool_.numpy, dt.float32.numpy, dt.float64.numpy


def signed(word: int) -> int:
    """The 64 bits of a number as those of a signed one."""
    return (word + 2**63) % 2**64 - 2**63


class Philox:
    """A stream of random numbers (Philox4x32-10), on the device that was the current one when it was made.

    Parameters
    ----------
    seed : int
        Its lower 64 bits count.
    """

    def __init__(self, seed: int):
        self._state = cupy.empty((3,), UINT64)
        self._stream, self._captured = cupy.cuda.get_current_stream(), capturing.in_this_thread()
        self.restart(seed)

    def _here(self) -> Any:
        """The state, for a kernel in the current stream: after what was drawn last, if that was in another one."""
        stream, captured = cupy.cuda.get_current_stream(), capturing.in_this_thread()
        if stream.ptr != self._stream.ptr:
            if captured == self._captured:  # a graph that is captured cannot wait for work outside of it; who begins one has waited
                stream.wait_event(self._stream.record())
            self._stream = stream
        self._captured = captured
        return self._state

    def restart(self, seed: int, place: int = 0) -> None:
        """Go to a place of the stream of a seed, in the same memory: captured graphs go on from there."""
        with self._state.device:
            launch(function(SOURCE, "set_state", ELEMENT="float32"), 1, 1, (self._here(), signed(seed), signed(place)))

    def where(self) -> tuple[int, int]:
        """The seed and the place; waits for the device."""
        with self._state.device:
            seed, place, _ = (int(word) for word in cupy.asnumpy(self._here()))
        return seed, place

    def random(self, size: Sequence[int] | int, dtype: Any = FLOAT64) -> Any:
        """Uniform in [0, 1), of any of the floating-point types."""
        return self._drawn("draw_uniform", size, dtype)

    def standard_normal(self, size: Sequence[int] | int, dtype: Any = FLOAT64) -> Any:
        """Of mean 0 and variance 1."""
        return self._drawn("draw_normal", size, dtype)

    def _drawn(self, name: str, size: Sequence[int] | int, dtype: Any) -> Any:
        out = cupy.empty(size, dtype)
        if out.size:
            kernel = function(SOURCE, name, ELEMENT=ELEMENT[out.dtype])
            launch(kernel, blocks(out.size, 4), THREADS, (self._here(), out, out.size))
        return out

    def integers(self, low: int, high: int, size: Sequence[int] | int, dtype: Any = INT64) -> Any:
        """In [low, high), where both are of 64 bits."""
        out = cupy.empty(size, INT64)
        if out.size:
            kernel = function(SOURCE, "draw_integers", ELEMENT="float32")
            launch(kernel, blocks(out.size, 2), THREADS, (self._here(), out, out.size, signed(low), signed((high - low) % 2**64)))
        return out.view(UINT64) if dtype == UINT64 else out.astype(dtype, copy=False)

    def kept(self, size: Sequence[int] | int, p: float) -> Any:
        """True with probability 1 - p."""
        out = cupy.empty(size, BOOL)
        if out.size:
            launch(function(SOURCE, "draw_kept", ELEMENT="float32"), blocks(out.size, 4), THREADS, (self._here(), out, out.size, float(p)))
        return out

    def dropout(self, x: Any, p: float, scale: float) -> tuple[Any, Any]:
        """The array with each element times 0 with probability p, else times `scale`; and which were kept."""
        return in_one_order(self._dropout)(x, p, scale)

    def _dropout(self, x: Any, p: float, scale: float) -> tuple[Any, Any]:
        x = contiguous(x)
        out, kept = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, BOOL)
        if x.size:
            kernel = function(SOURCE, "dropout", ELEMENT=ELEMENT[x.dtype])
            launch(kernel, blocks(x.size, 8), THREADS, (self._here(), x, out, kept, x.size, float(p), float(scale)))
        return out, kept

    def standard_gamma(self, shape: Any) -> Any:
        """Gamma-distributed numbers of scale 1 with the shape parameters given; float64."""
        return self._rejected("draw_gamma", FLOAT64, contiguous(cupy.asarray(shape, FLOAT64)))

    def poisson(self, rate: Any) -> Any:
        """Poisson-distributed counts with the rates given; int64."""
        return self._rejected("draw_poisson", INT64, contiguous(cupy.asarray(rate, FLOAT64)))

    def binomial(self, count: Any, p: Any) -> Any:
        """How many of so many trials succeed with probability p; int64."""
        count, p = cupy.broadcast_arrays(cupy.asarray(count, INT64), cupy.asarray(p, FLOAT64))
        return self._rejected("draw_binomial", INT64, contiguous(count), contiguous(p))

    def _rejected(self, name: str, dtype: Any, *parameters: Any) -> Any:
        out = cupy.empty(parameters[0].shape, dtype)
        if out.size:
            launch(function(DISTRIBUTIONS, name), blocks(out.size), THREADS, (self._here(), *parameters, out, out.size))
        return out

