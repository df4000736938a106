"""Collective operations on arrays between the ranks of a job: arrays in, arrays out.

>>> import numpy as np
>>> import collectives
>>> world = collectives.connect()
>>> values = np.arange(3.0)
>>> world.all_reduce(values, "avg")
<Work all_reduce: complete>

The same program runs alone or under `mpiexec -n 4 python program.py`. Importing this package loads no MPI library and
starts no thread.
"""

from .communicator import Communicator
from .connect import TRANSPORTS, connect, from_mpi
from .environment import Environment, environment
from .errors import CollectiveMismatchError, CollectiveTimeoutError, CommunicationError, LaunchError
from .reductions import REDUCTIONS, Reduction, scaled_sum
from .transport import Transport
from .work import Work

__all__ = [
    "REDUCTIONS",
    "TRANSPORTS",
    "CollectiveMismatchError",
    "CollectiveTimeoutError",
    "CommunicationError",
    "Communicator",
    "Environment",
    "LaunchError",
    "Reduction",
    "Transport",
    "Work",
    "connect",
    "environment",
    "from_mpi",
    "scaled_sum",
]
