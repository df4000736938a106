"""Which transport a process gets, and what it hears when the environment and MPI contradict each other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collectives import connect

pytestmark = pytest.mark.mpi_skip  # processes started from within an MPI job would believe to be its ranks

CONNECT = "import collectives; world = collectives.connect({}); print(f'{{world.transport}} {{world.rank}} {{world.size}}')"
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_import_starts_nothing(run_alone: Run) -> None:
    done = run_alone(
        "import sys, threading, collectives\n"
        "assert 'mpi4py' not in sys.modules, 'mpi4py was imported'\n"
        "assert 'ml_dtypes' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
        "assert sys.excepthook is sys.__excepthook__\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_process_alone_needs_no_mpi(run_alone: Run) -> None:
    done = run_alone("import sys, collectives; collectives.connect(); assert 'mpi4py' not in sys.modules")
    assert done.returncode == 0, done.stderr


ALONE = {
    "nothing said": ({}, "", "local 0 1"),
    "the contract says one": ({"RANK": "0", "WORLD_SIZE": "1"}, "", "local 0 1"),
    "a batch shell of many tasks": ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, "", "local 0 1"),
    "mpi asked for": ({}, "'mpi'", "mpi 0 1"),
    "local asked for among many": ({"RANK": "2", "WORLD_SIZE": "4"}, "'local'", "local 0 1"),
}


@pytest.mark.parametrize(("variables", "transport", "expected"), ALONE.values(), ids=ALONE)
def test_a_world_of_one(run_alone: Run, variables: dict[str, str], transport: str, expected: str) -> None:
    done = run_alone(CONNECT.format(transport), **variables)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


# The variables of a launcher that this process' MPI library knows nothing of.
STRANGERS = {
    "contract": ({"RANK": "1", "WORLD_SIZE": "4"}, "rank 1 of 4 (RANK and WORLD_SIZE)"),
    "slurm": (
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"},
        "rank 3 of 4 (SLURM_PROCID and SLURM_STEP_NUM_TASKS, as srun sets them)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("variables", "told"), STRANGERS.values(), ids=STRANGERS)
def test_many_ranks_that_are_each_alone(run_alone: Run, variables: dict[str, str], told: str) -> None:
    done = run_alone(CONNECT.format(""), **variables)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"collectives.errors.LaunchError: the environment says {told}, but MPI says rank 0 of 1.")
    for part in ("mpi4py loaded ", "libmpi", "every process is alone", "mpiexec", "srun --mpi=", "dlaunch"):
        assert part in message


def test_the_mpiexec_of_another_library(run_alone: Run) -> None:
    """As this library sees it: MPICH ends processes that Open MPI's mpiexec started, Open MPI lets them be alone."""
    done = run_alone(
        "import mpi4py; mpi4py.rc.initialize = False\nfrom mpi4py import MPI\nimport os, collectives\n"
        "ours = MPI.get_vendor()[0] == 'Open MPI'\n"
        "rank, size = ('PMI_RANK', 'PMI_SIZE') if ours else ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')\n"
        "os.environ |= {rank: '1', size: '4'}\n"
        "collectives.connect()\n"
    )
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("collectives.errors.LaunchError: the environment says rank 1 of 4 (")
    assert "every process is alone in its world. Start it with its own mpiexec" in message


def test_variables_of_another_job(run_job: Run) -> None:
    done = run_job(CONNECT.format(""), RANK="0", WORLD_SIZE="2")
    assert done.returncode != 0
    assert (
        "rank 1 of 2 on" in done.stderr
        and "the environment says rank 0 of 2 (RANK and WORLD_SIZE), but MPI says rank 1 of 2" in done.stderr
        and "Variables of another job are left in the environment" in done.stderr
    ), done.stderr


def test_an_mpi_launcher_means_mpi(run_job: Run) -> None:
    for ranks in (1, 2):
        done = run_job(CONNECT.format(""), ranks)
        assert done.returncode == 0, done.stderr
        for rank in range(ranks):
            assert f"{'shared' if ranks > 1 else 'local'} {rank} {ranks}" in done.stdout


def test_a_rank_that_never_comes(run_job: Run) -> None:
    """It has started MPI, and does not connect: the others do not wait for longer than their timeout."""
    done = run_job(
        "import time\nfrom mpi4py import MPI\nif MPI.COMM_WORLD.rank == 1: time.sleep(30)\n"
        "import collectives\ncollectives.connect(timeout=1.5)"
    )
    assert done.returncode != 0
    assert "CollectiveTimeoutError: connect: rank 0 of 2 has waited 1.5 s for all ranks to come together over mpi" in done.stderr


def test_no_mpi_library(run_alone: Run) -> None:
    done = run_alone(CONNECT.format("'mpi'"), MPI4PY_LIBMPI="/nowhere/libmpi.so")
    assert done.returncode == 1
    assert "ImportError: mpi4py finds no MPI library. `pip install disttorch[mpich]`" in done.stderr
    assert "/nowhere/libmpi.so" in done.stderr


def test_unknown_transport() -> None:
    with pytest.raises(ValueError, match="no transport 'smoke'; it is one of auto, local, mpi"):
        connect("smoke")
    assert connect("local").transport == "local"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torchrun comes with PyTorch, which is not installed")
def test_under_torchrun(clean_environment: dict[str, str], tmp_path: Path) -> None:
    """torchrun has MASTER_PORT itself; one GPU a process or none, and no MPI."""
    script = tmp_path / "train.py"
    script.write_text(CONNECT.format("timeout=60"))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env=clean_environment | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Lines of two processes may come in one piece.
    assert all(f"shared {rank} 2" in done.stdout for rank in range(2)), done.stdout
