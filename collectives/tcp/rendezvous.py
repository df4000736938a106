"""rendezvous: from the environment to a store, as torchrun's `env://` has it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..environment import environment
from ..errors import LaunchError
from ..store import Store, TCPStore
from ..store.interface import DEFAULT_TIMEOUT, Seconds

__all__ = ["rendezvous"]


def rendezvous(
    environ: Mapping[str, str] | None = None, *, timeout: Seconds = DEFAULT_TIMEOUT
) -> tuple[Store, int, int]:
    """The store at MASTER_ADDR and MASTER_PORT, which rank 0 holds, and this rank's place.

    Under torchrun, whose own store has that port (TORCHELASTIC_USE_AGENT_STORE), at the next one.

    Parameters
    ----------
    environ : mapping, optional
        Environment variables; `os.environ` if not given.
    timeout : datetime.timedelta or float, default 300 seconds
        How long to try to reach rank 0, and how long the store waits for keys.

    Returns
    -------
    store : Store
    rank, size : int

    Raises
    ------
    LaunchError
        If the variables are missing or make no sense.
    StoreError
        If rank 0 cannot listen at that port, or cannot be reached there.

    Examples
    --------
    >>> rendezvous({"RANK": "0", "WORLD_SIZE": "2"})
    Traceback (most recent call last):
    ...
    collectives.errors.LaunchError: ranks without MPI meet at MASTER_ADDR and MASTER_PORT; MASTER_ADDR is not set
    """
    variables = os.environ if environ is None else environ
    told = environment(variables)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not variables.get(name):
            raise LaunchError(f"ranks without MPI meet at MASTER_ADDR and MASTER_PORT; {name} is not set")
    if told.world_size is None:
        raise LaunchError(f"ranks without MPI are counted by WORLD_SIZE, which is not set (rank {told.rank})")
    host, text = variables["MASTER_ADDR"], variables["MASTER_PORT"]
    try:
        port = int(text)
    except ValueError:
        raise LaunchError(f"MASTER_PORT={text!r} is not an integer") from None
    if not 0 < port < 65536:
        raise LaunchError(f"MASTER_PORT={port} is no port: those are 1 to 65535")
    if variables.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() in ("true", "1"):
        # torchrun itself holds a store at that port, of PyTorch's; ours goes next to it.
        port += 1 if port < 65535 else -1
    store = TCPStore(host, port, told.world_size, told.rank == 0, timeout, wait_for_workers=False, multi_tenant=True)
    return store, told.rank, told.world_size
