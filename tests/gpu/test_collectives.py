"""NCCL in training: with one rank, with two on one GPU where NCCL can, and two ranks that share a GPU by way of the host."""

import json
import os
import subprocess
import sys

import pytest

from tests.gpu.pool import ROOT

JOB = str(ROOT / "tests" / "gpu" / "job.py")


def run(launcher, *arguments, ranks=1, **variables):
    """What rank 0 says, and the text of everything."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **variables}
    start = [sys.executable, "-m", "launcher", "-n", str(ranks), "--oversubscribe", *launcher]
    ended = subprocess.run(
        [*start, JOB, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    text = ended.stdout + ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    return ended.returncode, json.loads(lines[-1]) if lines else {}, text


def nccl_version():
    import cupy

    return cupy.cuda.nccl.get_version() if cupy.cuda.nccl.available else 0


@pytest.mark.real
def test_nccl_with_one_rank():
    code, said, text = run(["--engine", "plain"], "--backend", "nccl")
    assert code == 0, text[-4000:]
    assert said["ranks"] == 1 and "nccl" in said["over"], said


@pytest.mark.real
def test_nccl_with_two_ranks_on_one_gpu():
    if nccl_version() < 23000:
        pytest.skip(f"NCCL 2.30 lets ranks share a GPU; this is {nccl_version()}")
    code, said, text = run(["--engine", "plain"], "--backend", "nccl", ranks=2, NCCL_MULTI_RANK_GPU_ENABLE="1")
    assert code == 0, text[-4000:]
    assert said["ranks"] == 2 and "nccl" in said["over"], said


@pytest.mark.real
def test_two_ranks_on_one_gpu_are_explained():
    import disttorch

    if disttorch.cuda.device_count() > 1:
        pytest.skip("each rank has a GPU of its own here")
    code, _, text = run(["--engine", "plain"], "--backend", "nccl", ranks=2, NCCL_MULTI_RANK_GPU_ENABLE="0")
    assert code != 0
    assert "use the same GPU" in text and "NCCL_MULTI_RANK_GPU_ENABLE=1" in text, text[-4000:]


@pytest.mark.real
def test_two_ranks_without_mpi_share_a_gpu_by_way_of_the_host():
    code, said, text = run(["--engine", "plain"], "--backend", "tcp", ranks=2)
    assert code == 0, text[-4000:]
    assert said["ranks"] == 2 and "nccl" not in said["over"].split(";")[2], said


@pytest.mark.real
def test_two_ranks_under_mpi_share_a_gpu_by_way_of_the_host():
    found = subprocess.run(
        [sys.executable, "-m", "launcher", "-n", "2", "--engine", "mpiexec", "--oversubscribe", "--dry-run", JOB],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if found.returncode:
        pytest.skip("there is no mpiexec for mpi4py's MPI here: " + found.stderr.strip().rpartition("\n")[2])
    code, said, text = run(["--engine", "mpiexec"], "--backend", "mpi", ranks=2, DISTTORCH_CUDA_AWARE="0")
    assert code == 0, text[-4000:]
    assert said["ranks"] == 2 and "mpi" in said["over"], said
