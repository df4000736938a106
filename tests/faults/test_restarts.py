"""Ranks are killed again and again; the training always comes to its end, with the parameters of one that nobody disturbed."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import disttorch as torch
from launcher.mpi import find_mpi
from tests.faults.jobs import ROOT, SLACK, Jobs

TRAIN = ROOT / "tests" / "faults" / "train.py"
STEPS = 60
RANKS = 2


def trained(directory: Path) -> dict:
    return torch.load(directory / "end.safetensors")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """The end of a training of the same ranks that nobody disturbed."""
    jobs = Jobs(tmp_path_factory.mktemp("undisturbed"), find_mpi("auto", os.environ).mpiexec)
    job = jobs.start("dlaunch", RANKS, TRAIN, arguments=[STEPS, 0])
    assert jobs.ended(job, 60 + SLACK).code == 0
    assert starts(jobs.directory) == [0]
    return trained(jobs.directory)


def starts(directory: Path) -> list[int]:
    """The step that each start of the job began with."""
    return [json.loads(line)["first"] for line in (directory / "starts").read_text().splitlines()]


def same(one: dict, other: dict) -> None:
    assert float(one["loss"]) < 5.0
    assert one["model"].keys() == other["model"].keys()
    for name, parameter in one["model"].items():
        assert parameter.numpy().tobytes() == other["model"][name].numpy().tobytes(), name


KILLS = 2
"""In each job; dlaunch waits longer from restart to restart."""


@pytest.mark.parametrize(("way", "trainings"), [("dlaunch", 25), ("plain", 5)])
def test_a_training_that_is_killed_at_random_moments(tmp_path, undisturbed, way, trainings):
    """50 kills in all: of any rank, between the steps, in a reduction or while rank 0 saves a checkpoint."""

    def train(seed: int) -> None:
        directory = tmp_path / str(seed)
        directory.mkdir()
        jobs = Jobs(directory, find_mpi("auto", os.environ).mpiexec)
        try:
            job = jobs.start(way, RANKS, TRAIN, "--max-restarts", KILLS + 1, "--timeout", 60, arguments=[STEPS, seed, KILLS])
            ended = jobs.ended(job, 60 + SLACK)
        finally:
            jobs.end_all()
        assert ended.code == 0, f"seed {seed}: {ended.err}"
        same(trained(directory), undisturbed)
        assert ended.err.count("was killed by SIGKILL (signal 9)") == KILLS, f"seed {seed}: {ended.err}"
        assert f"restart {KILLS} of {KILLS + 1}, with {RANKS} ranks" in ended.err
        begun = starts(directory)
        assert len(begun) == KILLS + 1 and begun == sorted(begun), f"seed {seed}: {begun}"  # what was saved is never lost
        assert list(directory.glob("checkpoint*")) == [directory / "checkpoint.safetensors"]

    # Some at a time, since restarts are mostly waiting.
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(train, range(trainings)))
