"""What the tests of distributed training share: the world's process group, and a port for ranks that the test starts."""

import socket

import pytest

import disttorch.distributed as dist


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """The group of all ranks: those of the MPI job, or this process alone."""
    dist.init_process_group()
    yield
    dist.destroy_process_group()


@pytest.fixture
def port():
    """A port of the loopback that is given to nobody else: held, without listening there, which leaves it to those who ask for it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
