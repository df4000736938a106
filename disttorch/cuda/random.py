"""Random numbers of CUDA devices: seeds, and where the streams of numbers are; as ``torch.cuda.random``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..autograd.variable import Tensor
from ..backend import cuda_is_available as is_available
from ..backend.device import device as device_type
from ..ops import random
from ._room import room

__all__ = [
    "get_rng_state", "get_rng_state_all", "initial_seed", "manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state",
    "set_rng_state_all",
]  # fmt: skip


def _stream(device: Any = None) -> random.Generator:
    return random.default_generator(device_type("cuda", room("devices").number(device)))


def _all_streams() -> list[random.Generator]:
    from . import device_count

    return [_stream(i) for i in range(device_count())]


def manual_seed(seed: int) -> None:
    """Start the current device's random numbers from a seed; without a device there is nothing to do."""
    if is_available():
        _stream().manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Start the random numbers of all devices from a seed."""
    if is_available():
        for stream in _all_streams():
            stream.manual_seed(seed)


def seed() -> None:
    """Start the current device's random numbers from a seed of the system's."""
    if is_available():
        _stream().seed()


def seed_all() -> None:
    """Start the random numbers of all devices from one seed of the system's."""
    if is_available():
        first, *others = _all_streams()
        chosen = first.seed()
        for stream in others:
            stream.manual_seed(chosen)


def initial_seed() -> int:
    """The seed that the current device's random numbers started from."""
    return _stream().initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """Where a device's stream of random numbers is, as a uint8 tensor on the CPU."""
    return _stream(device).get_state()


def get_rng_state_all() -> list[Tensor]:
    """Where the streams of all devices are."""
    return [stream.get_state() for stream in _all_streams()]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Go to where `get_rng_state` was called."""
    _stream(device).set_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Go to where `get_rng_state_all` was called."""
    for index, state in enumerate(new_states):
        _stream(index).set_state(state)
