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
from .connect import TRANSPORTS, connect
from .environment import Environment, environment
from .errors import CommunicationError, LaunchError
from .local import LocalCommunicator
from .mpi import MPICommunicator
from .reductions import REDUCTIONS, Reduction
from .work import Work

__all__ = [
    "REDUCTIONS",
    "TRANSPORTS",
    "CommunicationError",
    "Communicator",
    "Environment",
    "LaunchError",
    "LocalCommunicator",
    "MPICommunicator",
    "Reduction",
    "Work",
    "connect",
    "environment",
]
