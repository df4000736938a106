"""What the tests of distributed training share: the world's process group."""

import pytest

import disttorch.distributed as dist


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """The group of all ranks: those of the MPI job, or this process alone."""
    dist.init_process_group()
    yield
    dist.destroy_process_group()
