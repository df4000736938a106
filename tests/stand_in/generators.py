"""``cupy.random``: the generators by CuPy's names and arguments, NumPy's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import ndarray
from .creation import array
from .names import NAMES, Arguments
from .operations import compute

__all__ = ["Generator", "Philox4x3210"]


class Philox4x3210:
    """A stream of bits."""

    def __init__(self, seed: Any = None, *, size: int = -1):
        self.bits = np.random.Philox(seed)


class Generator:
    """Draws from a stream of bits; each method has CuPy's arguments."""

    def __init__(self, bit_generator: Any):
        self.bit_generator = bit_generator
        self._numpys = np.random.Generator(bit_generator.bits)

    def __getattr__(self, name: str) -> Any:
        recorded = NAMES["classes"]["cupy.random.Generator"].get(name)
        if recorded is None:
            raise AttributeError(f"'Generator' object has no attribute {name!r}")
        arguments = Arguments(name, recorded)

        def draw(*args: Any, **kwargs: Any) -> Any:
            arguments.check(args, kwargs)
            bound = arguments.signature.bind(*args, **kwargs).arguments
            out, dtype, size = bound.pop("out", None), bound.pop("dtype", None), bound.pop("size", None)
            if dtype is not None and np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize < 4:
                raise TypeError(f"{name}: only float32 and float64 are drawn, not {np.dtype(dtype)}")
            reads = [value for value in bound.values() if type(value) is ndarray]

            def run() -> Any:
                plain = {key: value._a if type(value) is ndarray else value for key, value in bound.items()}
                options: dict[str, Any] = {} if size is None else {"size": size}
                if name == "integers":
                    options["dtype"] = np.int64 if dtype is None else dtype
                values = np.asarray(getattr(self._numpys, name)(**plain, **options))
                return values if dtype is None else values.astype(dtype)

            result = compute(name, run, reads)
            if type(result) is not ndarray:
                result = array(result)
            if out is not None:
                out[...] = result
                return out
            return result

        return draw
