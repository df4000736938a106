"""Workers of the ranks of an MPI job: they are no ranks, and the job ends as if they were not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, signal, sys
from mpi4py import MPI  # a worker that is spawned imports this too, and MPI starts in it
import disttorch as torch
from disttorch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

method, act = sys.argv[1:]
SIZE = 21

class Numbers(Dataset):
    def __len__(self):
        return SIZE
    def __getitem__(self, i):
        if get_worker_info() is not None and i == 13 and act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((500,), i)

if __name__ == "__main__":
    torch.distributed.init_process_group()
    sampler = DistributedSampler(Numbers())
    loader = DataLoader(Numbers(), 3, sampler=sampler, num_workers=2, multiprocessing_context=method)
    for epoch in range(2 if method == "fork" else 1):
        sampler.set_epoch(epoch)
        seen = torch.zeros(SIZE)
        for batch in loader:
            seen[batch[:, 0]] += 1
            torch.distributed.all_reduce(torch.ones(1))  # between batches, while workers are there
        torch.distributed.all_reduce(seen)
        assert seen.sum().item() == 2 * len(sampler) and seen.min().item() >= 1
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        print("all", MPI.COMM_WORLD.Get_size(), "are done", flush=True)
"""


@pytest.fixture
def run_job(tmp_path):
    """Run the program on two ranks, with the mpiexec that belongs to this Python environment."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    launchers = ("RANK", "WORLD_SIZE", "LOCAL_", "MPI_LOCAL", "PMI", "OMPI_COMM", "SLURM")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(launchers)} | {
        "PYTHONPATH": str(ROOT),
        # Open MPI refuses root and more ranks than cores unless told.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }

    def run(*args):
        return subprocess.run(
            [mpiexec, "-n", "2", sys.executable, "-W", "error", str(script), *args],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_between_collectives(run_job, method):
    job = run_job(method, "work")
    assert (job.returncode, job.stdout, job.stderr) == (0, "all 2 are done\n", "")


def test_a_rank_whose_worker_dies_ends_the_job(run_job):
    job = run_job("fork", "die")
    assert job.returncode not in (0, None)
    assert "DataLoader worker" in job.stderr
    assert "was killed by signal 9 (SIGKILL)" in job.stderr
