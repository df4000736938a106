"""Jobs of these tests run under whichever MPI this environment's mpi4py loads, and without one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.mpi import find_mpi
from tests.faults.jobs import Jobs
from tests.hosts import Hosts, two_hosts


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """A `Jobs` in the test's temporary directory; what a failed test leaves running is ended by its process id."""
    jobs = Jobs(tmp_path, find_mpi("auto", os.environ).mpiexec)
    yield jobs
    jobs.end_all()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts of the test's own, whose wire it may cut."""
    with two_hosts() as hosts:
        yield hosts
