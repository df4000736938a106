"""Ranks of a job as threads of this process, each with a device of the stand-in, and a process group over NCCL."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from collectives.connect import Settings, world_over
from collectives.job import forget
from collectives.nccl import NCCLTransport
from collectives.store import HashStore
from collectives.tcp import TCPTransport
from disttorch import cuda
from disttorch.cuda._room import room
from disttorch.distributed.backend import BackendConfig
from disttorch.distributed.groups import ProcessGroup
from tests import stand_in
from tests.stand_in.nccl import hub

__all__ = ["Together", "begun", "on_ranks"]


#: What ranks say who waited for one that has failed.
BECAUSE = "has closed its transport", "waits for what does not come"


class Together:
    """A place that all ranks come to, without a collective."""

    def __init__(self, size):
        self._barrier = threading.Barrier(size)

    def __call__(self):
        self._barrier.wait(30)


def on_ranks(size, program, directory, timeout=20.0, devices=None):
    """What a program returns on each rank, called with the rank's process group and a place to meet.

    Parameters
    ----------
    program : callable
        Of (ProcessGroup, Together).
    directory : path
        For flight records.
    devices : sequence of int, optional
        The device of each rank; its number unless given.
    """
    hub.reset()
    stand_in.set_count(size)
    for name in ("devices", "graphs", "memory", "streams", "world"):
        room(name)  # what is imported when it is first needed is imported by one thread
    store, meet = HashStore(20), Together(size)

    def rank(number):
        np.seterr(all="ignore")  # the stand-in computes with what is in memory, for the shapes of what is still to come
        world = group = None
        cuda.set_device(number if devices is None else devices[number])
        base = TCPTransport.world(store, number, size, 20, address="127.0.0.1")
        try:
            world = world_over(base, "tcp", Settings(timeout), {"DISTTORCH_FLIGHT_DIR": str(directory)})
            world.job.for_gpus = "nccl"
            group = ProcessGroup(world, list(range(size)), BackendConfig("cpu:gloo,cuda:nccl"))
            result = program(group, meet)
            group.shutdown()
            return result
        except BaseException:
            meet._barrier.abort()
            if group is not None:
                abandon(group)
            raise
        finally:
            if world is not None:
                forget(world.job)  # else an exception in a thread of any later test would end this process, as a job's does
            base.close()  # a rank that fails must not keep the others waiting

    def abandon(group):
        """What its streams still wait for does not come."""
        for communicator in (group.communicator, group._lane):
            for transport in () if communicator is None else communicator._device_transports.values():
                if isinstance(transport, NCCLTransport):
                    transport.abandon()

    with ThreadPoolExecutor(size) as pool:
        ended = [pool.submit(rank, number) for number in range(size)]
    errors = [error for future in ended if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError) or any(text in str(error) for text in BECAUSE))
    return [future.result() for future in ended]


def begun(cupy, group, meet):
    """A group's communicator, after a first collective that is complete on all ranks."""
    group.communicator.all_reduce(cupy.ones(1))
    cupy.cuda.get_current_stream().synchronize()
    meet()
    return group.communicator
