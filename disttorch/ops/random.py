"""Random numbers: one stream a device, and the same numbers from the same seed on every platform.

The streams are counter-based (Philox; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import as_device, cpu, for_device
from ..backend import dtypes as dt
from ..backend.batched import RandomnessError, levels, samples_of
from ..backend.device import device

__all__ = ["Generator", "default_generator", "generator_for", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]

DEFAULT_SEED = 67280421310721  # as PyTorch's: a program that sets no seed is repeatable until it calls seed()


def _for_samples(method: Callable[..., Any]) -> Callable[..., Any]:
    """A drawing that does under `func.vmap` what its ``randomness`` says."""

    @functools.wraps(method)
    def draw(self: Generator, *args: Any) -> Any:
        inside = levels.get()
        if not inside:
            return method(self, *args)
        if any(level.randomness == "error" for level in inside):
            raise RandomnessError(
                "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' randomness "
                "flags on vmap or perform the randomness operation out of vmap"
            )
        return samples_of(functools.partial(method, self), args, [level for level in inside if level.randomness == "different"])

    return draw


class Generator:
    """A stream of random numbers.

    Parameters
    ----------
    device : device or str
        Where the numbers are made.

    Examples
    --------
    >>> import disttorch
    >>> g = disttorch.Generator().manual_seed(3)
    >>> bool((disttorch.rand(2, generator=g) < 1).all())
    True
    """

    def __init__(self, device: Any = "cpu"):
        self._xp, self.device = for_device(device)
        self._seed = DEFAULT_SEED
        self._made: Any = None

    @property
    def _source(self) -> Any:
        # made when first drawn from: numpy.random is the slowest part of importing NumPy
        if self._made is None:
            with self._xp.on(self.device):
                self._made = self._xp.random(self._seed)
        return self._made

    def begin(self) -> None:
        """Make the stream now: a CUDA graph that made it would start it again in every replay."""
        self._source  # noqa: B018 - a property that makes it

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream again from a seed, any integer of 64 bits; returns the generator.

        Raises
        ------
        RuntimeError
            If it does not fit into 64 bits.
        """
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise RuntimeError(f"manual_seed: {seed} does not fit into 64 bits")
        self._seed = seed % 2**64
        if self._made is not None and self._xp is not cpu:
            self._made.restart(self._seed)  # in its memory, which captured graphs draw from
        else:
            self._made = None
        return self

    def seed(self) -> int:
        """Start from a seed of the operating system's randomness, and return it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the stream was started from."""
        return self._seed

    def get_state(self) -> Tensor:
        """Where the stream is, as a uint8 tensor on the CPU that `set_state` takes back. To look means to wait for a GPU."""
        if self._xp is not cpu:
            return self._as_state(list(self._source.where()))
        state = self._source.bit_generator.state
        inner = state["state"]
        words = [self._seed, *inner["counter"], *inner["key"], state["buffer_pos"], state["has_uint32"], state["uinteger"]]
        words.extend(state["buffer"])
        return self._as_state(words)

    @staticmethod
    def _as_state(words: list) -> Tensor:
        return wrap(cpu.array([int(w) for w in words], dt.PUBLIC_DTYPES["uint64"].numpy).view(dt.uint8.numpy))

    def set_state(self, new_state: Tensor) -> Generator:
        """Go to where `get_state` was called.

        Raises
        ------
        RuntimeError
            If it is not such a state.
        TypeError
            If it is no tensor, or not on the CPU.
        """
        a = getattr(new_state, "_array", None)
        count = 14 if self._xp is cpu else 2
        if not isinstance(new_state, Tensor):
            raise TypeError(f"expected a torch.ByteTensor, but got {type(new_state).__name__}")
        if new_state.device.type != "cpu":
            raise TypeError(f"set_state: the state is a tensor on the CPU, but this one is on {new_state.device}: give it .cpu()")
        if a is None or a.dtype != dt.uint8.numpy or a.size != count * 8:
            raise RuntimeError(
                f"set_state: expected the {count * 8} bytes of a get_state() on this kind of device, got {new_state.dtype} of shape "
                f"{list(new_state.shape)}"
            )
        words = cpu.ascontiguousarray(a).view(dt.PUBLIC_DTYPES["uint64"].numpy)
        if self._xp is not cpu:
            self._seed = int(words[0])
            self._source.restart(self._seed, int(words[1]))
            return self
        self._seed = int(words[0])
        self._made = self._xp.random(self._seed)
        self._made.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": words[1:5].copy(), "key": words[5:7].copy()},
            "buffer_pos": int(words[7]),
            "has_uint32": int(words[8]),
            "uinteger": int(words[9]),
            "buffer": words[10:14].copy(),
        }
        return self

    def clone_state(self) -> Generator:
        """Another generator at the same place of the stream."""
        other = Generator(self.device)
        other._seed = self._seed
        return other.set_state(self.get_state())

    def __reduce__(self) -> tuple:
        return _rebuilt, (str(self.device), self._seed, self.get_state())

    # What functions draw: arrays of a shape in one of our dtypes.

    @_for_samples
    def uniform(self, shape: tuple[int, ...], d: dt.dtype) -> Any:
        """In [0, 1)."""
        if d.is_complex:
            return self.uniform(shape, d.to_real()) + 1j * self.uniform(shape, d.to_real())
        if d.itemsize < 4 and self._xp is cpu:
            # with 24 random bits a number would round up to 1 in half precision
            bits = 11 if d is dt.float16 else 8
            return (self._source.integers(0, 2**bits, shape, dt.int32.numpy) * 2.0**-bits).astype(d.numpy)
        return self._source.random(shape, d.numpy)

    @_for_samples
    def normal(self, shape: tuple[int, ...], d: dt.dtype) -> Any:
        """Of mean 0 and variance 1."""
        if d.is_complex:  # variance 1 over both parts
            real = d.to_real()
            return ((self.normal(shape, real) + 1j * self.normal(shape, real)) * 0.5**0.5).astype(d.numpy)
        if d.itemsize < 4 and self._xp is cpu:
            return self._source.standard_normal(shape, dt.float32.numpy).astype(d.numpy)
        return self._source.standard_normal(shape, d.numpy)

    def kept(self, shape: tuple[int, ...], p: float) -> Any:
        """True with probability 1 - p."""
        return self.uniform(shape, dt.float32) >= p if self._xp is cpu else self._kept(shape, p)

    @_for_samples
    def _kept(self, shape: tuple[int, ...], p: float) -> Any:
        return self._source.kept(shape, p)

    def fuses(self, a: Any) -> bool:
        """Whether `dropout` can be asked for of an array."""
        return self._xp is not cpu and a.__class__ is self._xp.ndarray and a.dtype in dt.FLOATING and not levels.get()

    def dropout(self, a: Any, p: float, scale: float) -> tuple[Any, Any]:
        """An array with each element times 0 with probability p, else times `scale`; and which were kept."""
        return self._source.dropout(a, p, scale)

    @_for_samples
    def integers(self, low: int, high: int, shape: tuple[int, ...], d: dt.dtype) -> Any:
        """In [low, high)."""
        if high > 2**63:
            return self._source.integers(low, high, shape, dt.PUBLIC_DTYPES["uint64"].numpy).astype(d.numpy, copy=False)
        return self._source.integers(low, high, shape, dt.int64.numpy).astype(d.numpy, copy=False)

    @_for_samples
    def permutation(self, n: int, d: dt.dtype) -> Any:
        """Of the integers below n."""
        if self._xp is not cpu:  # whose library has none: the order of n random numbers
            return self._xp.argsort(self._source.random((n,), dt.float64.numpy)).astype(d.numpy)
        return self._source.permutation(n).astype(d.numpy, copy=False)

    @_for_samples
    def poisson(self, rate: Any) -> Any:
        """Poisson-distributed counts with the rates given."""
        return self._xp.asarray(self._source.poisson(rate))

    @_for_samples
    def gamma(self, shape: Any) -> Any:
        """Gamma-distributed numbers of scale 1 with the shape parameters given."""
        return self._xp.asarray(self._source.standard_gamma(shape))

    @_for_samples
    def binomial(self, count: Any, p: Any) -> Any:
        """How many of so many trials succeed with probability p."""
        return self._xp.asarray(self._source.binomial(count.astype(dt.int64.numpy), p))


def _rebuilt(where: str, seed: int, state: Tensor) -> Generator:
    generator = Generator(where)
    generator._seed = seed
    return generator.set_state(state)


_generators: dict[device, Generator] = {}


def default_generator(where: Any = "cpu") -> Generator:
    """A device's own stream."""
    where = as_device(where)
    if where.type == "cuda" and where.index is None:
        where = for_device(where)[1]
    if where not in _generators:
        generator = _generators[where] = Generator(where)
        if _seed_of_all is not None:
            generator.manual_seed(_seed_of_all)
    return _generators[where]


_seed_of_all: int | None = None


def generator_for(where: device, generator: Generator | None) -> Generator:
    """The generator that a function shall draw from.

    Raises
    ------
    RuntimeError
        If the one given makes its numbers on another device.
    """
    if generator is None:
        return default_generator(where)
    if generator.device.type != where.type:
        raise RuntimeError(f"expected a '{where.type}' device type for generator but found '{generator.device.type}'")
    if generator.device != where:
        raise RuntimeError(f"Expected a '{where}' generator device but found '{generator.device}'")
    return generator


def manual_seed(seed: int) -> Generator:
    """Start the streams of all devices from a seed; returns the CPU's generator. As ``torch.manual_seed``."""
    global _seed_of_all
    cpu_generator = default_generator().manual_seed(seed)
    _seed_of_all = cpu_generator.initial_seed()
    for generator in _generators.values():
        generator.manual_seed(seed)
    return cpu_generator


def seed() -> int:
    """Start the streams of all devices from the operating system's randomness; returns the seed."""
    chosen = int.from_bytes(os.urandom(8), "little")
    manual_seed(chosen)
    return chosen


def initial_seed() -> int:
    """The seed that the CPU's stream was started from."""
    return default_generator().initial_seed()


def get_rng_state() -> Tensor:
    """Where the CPU's stream is; as ``torch.get_rng_state``."""
    return default_generator().get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Go to where `get_rng_state` was called."""
    default_generator().set_state(new_state)
