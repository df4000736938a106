"""Random numbers: seeds, the states of the streams (one a device), and streams forked; as ``torch.random``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .backend import cuda_is_available
from .backend.device import device
from .ops.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from .ops.random import default_generator as _stream_of

__all__ = ["Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]

#: The CPU's own stream.
default_generator = _stream_of()


@contextmanager
def fork_rng(devices: Iterable[Any] | None = None, enabled: bool = True, device_type: str = "cuda") -> Iterator[None]:
    """Within a with-block, draw what you like: afterwards the streams go on from where they were; as ``torch.random.fork_rng``.

    Parameters
    ----------
    devices : iterable of device, str or int, optional
        GPUs whose streams are kept too; the current one unless given. The CPU's always is.
    enabled : bool
        False: do nothing.
    device_type : str
        What kind of device numbers in `devices` mean.

    Examples
    --------
    >>> import disttorch
    >>> g = disttorch.manual_seed(0)
    >>> with disttorch.random.fork_rng():
    ...     first = disttorch.rand(3)
    >>> bool((disttorch.rand(3) == first).all())
    True
    """
    if not enabled:
        yield
        return
    if devices is None:
        devices = [device(device_type)] if device_type != "cpu" and cuda_is_available() else []
    where = [device(device_type, d) if isinstance(d, int) else device(d) for d in devices]
    generators = [default_generator, *(_stream_of(d) for d in where if d.type != "cpu")]
    states = [g.get_state() for g in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)
