"""What the tests of collectives share: the world of the MPI job that they run in, and jobs started from a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from collectives import Communicator, connect

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MPI_LOCAL", "PMI", "OMPI_COMM", "SLURM")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A rank whose test failed is out of step with the others, who would wait for it: end the job with its report."""
    report = yield
    if report.failed and item.get_closest_marker("mpi") and (world := connect("mpi")).size > 1:
        terminal = item.config.pluginmanager.get_plugin("terminalreporter")
        terminal.write_line(f"\nrank {world.rank} of {world.size}: {item.nodeid}\n{report.longreprtext}")
        terminal.flush()
        time.sleep(1.0)  # MPI_Abort discards what the launcher has not passed on
        world.abort(1)
    return report


TRANSPORTS = ("mpi", "shared", "hierarchical", "tcp")


@pytest.fixture(scope="session", params=TRANSPORTS)
def world(request: pytest.FixtureRequest) -> Communicator:
    """All ranks of the job that the tests run in, over every transport that needs no GPU."""
    return world_over(request.param)


@pytest.fixture(scope="session")
def mpi() -> Communicator:
    """The same over MPI alone."""
    return world_over("mpi")


def world_over(transport: str) -> Communicator:
    if transport not in _worlds:
        _worlds[transport] = _connected(transport)
    world = _worlds[transport]
    if world.size == 1 and transport != "mpi":
        pytest.skip("a single rank is a world of its own, which test_local.py tests")
    return world


_worlds: dict[str, Communicator] = {}


def _connected(transport: str) -> Communicator:
    from mpi4py import MPI

    comm = connect("mpi", timeout=WAIT)
    if transport == "mpi" or comm.size == 1:
        return comm
    if transport == "tcp":
        from collectives.store import TCPStore

        store = TCPStore("127.0.0.1", 0, comm.size, True, wait_for_workers=False) if comm.rank == 0 else None
        port = MPI.COMM_WORLD.bcast(store.port if store else None)
        store = store or TCPStore("127.0.0.1", port, comm.size, wait_for_workers=False)
        return connect("tcp", store=store, rank=comm.rank, size=comm.size, timeout=WAIT)
    if transport == "hierarchical":
        os.environ["DISTTORCH_NODE"] = f"node {node_of(comm.rank, comm.size)}"
    try:
        return connect(transport, timeout=WAIT)
    finally:
        os.environ.pop("DISTTORCH_NODE", None)


def node_of(rank: int, size: int) -> int:
    """The node that a rank stands on in tests of the hierarchy: two ranks each, where their number is odd also one alone."""
    return rank // 2 if size > 2 else rank


WAIT = 240.0
"""Seconds: a machine with fewer cores than ranks, and other work, is slow."""


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment without a trace of a launcher."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS_VARIABLES)}
    return environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


@pytest.fixture
def run_alone(clean_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in one process, with variables added to a clean environment."""

    def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            env=clean_environment | variables, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def run_job(clean_environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program on some ranks, with the mpiexec that belongs to this Python environment."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    # Open MPI refuses root and more ranks than cores unless told.
    permissions = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }

    def run(program: str, ranks: int = 2, **variables: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(program)
        return subprocess.run(
            [mpiexec, "-n", str(ranks), sys.executable, str(script)],
            env=clean_environment | permissions | variables, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    return run
