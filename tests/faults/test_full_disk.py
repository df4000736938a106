"""A disk that is full: what cannot be written is named, what was there is kept, and no job waits for anything."""

import contextlib
import json
import os
import re
import signal
import subprocess

import pytest

import disttorch as torch
from tests.faults.jobs import SLACK


@pytest.fixture
def small(tmp_path):
    """A directory with room for 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk to fill")
    path = tmp_path / "small"
    path.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True, capture_output=True, text=True, timeout=30
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no small disk can be mounted here: {error.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=30)


def fill(path):
    """Leave no byte."""
    with contextlib.suppress(OSError), open(path / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


TALKS = """
world = connect()
tell("here")
for turn in range(40):
    print(f"{rank} {turn} " + "x" * 2000, flush=True)
    world.all_reduce(np.ones(10))
print(f"{rank} is done", flush=True)
"""


@pytest.mark.parametrize("way", ["dlaunch", "plain"])
def test_logs(jobs, small, way):
    """The job goes on, its output goes to the terminal, and it is said once."""
    job = jobs.start(way, 2, jobs.script(TALKS), "--tag", "--log-dir", small)  # with --tag lines stay whole
    ended = jobs.ended(job, SLACK + 60)
    assert ended.code == 0, ended.err
    assert {f"[{rank}] {rank} is done" for rank in range(2)} <= {*ended.out.splitlines()}
    for rank in range(2):
        assert sum(line.startswith(f"[{rank}] {rank} ") and line.endswith("x" * 2000) for line in ended.out.splitlines()) == 40
    said = [line for line in ended.err.splitlines() if line.startswith("dlaunch: ")]
    assert len(said) == 1, ended.err
    why = rf"cannot write its log {small}/rank-\d\.(out|err): No space left on device"
    assert re.fullmatch(rf"dlaunch: rank \d on \S+ {why}; output goes to the terminal only", said[0]), said


FAILS = """
world = connect()
tell("here")
wait_for("go")
if rank == 1:
    {how}
world.barrier()
"""


@pytest.mark.parametrize("way", ["dlaunch", "plain", "mpiexec"])
def test_flight_records(jobs, small, way):
    """The error that is being raised is the one that matters."""
    environ = {"DISTTORCH_FLIGHT_DIR": str(small), "DISTTORCH_TIMEOUT": "2"}
    job = jobs.start(way, 2, jobs.script(FAILS.format(how="time.sleep(600)")), environ=environ)
    jobs.told("here", 2)
    fill(small)
    jobs.go("go")
    ended = jobs.ended(job, 2 + SLACK, segments=way != "mpiexec")
    assert ended.code == 1
    assert f"rank 0: no flight record: {small}/rank-0.flight.json: No space left on device" in ended.err
    assert re.search(r"CollectiveTimeoutError: barrier, number 1 of group world: rank 0 has waited 2\.\d s", ended.err)
    assert [path.name for path in small.iterdir()] == ["ballast"]


def test_flight_records_that_are_asked_for(jobs, small):
    """A signal to a job that is well does not end it because its records find no room."""
    job = jobs.start("dlaunch", 2, jobs.script(FAILS.format(how="pass")), "--log-dir", small)
    jobs.told("here", 2)
    fill(small)
    job.send_signal(signal.SIGUSR1)
    said = []
    while len(said) < 2:
        line = job.stderr.readline()
        assert line
        if "no flight record" in line:
            said.append(line)
    jobs.go("go")
    ended = jobs.ended(job, SLACK)
    assert ended.code == 0, ended.err
    assert sorted(said) == [f"rank {r}: no flight record: {small}/rank-{r}.flight.json: No space left on device\n" for r in range(2)]


SAVES = """
import disttorch as torch
import disttorch.distributed as dist
dist.init_process_group()
path = sys.argv[1] + "/checkpoint"
if rank == 0:
    torch.save({"step": 1, "weights": torch.arange(1000.0)}, path)
dist.barrier()
tell("here")
wait_for("go")
if rank == 0:
    try:
        torch.save({"step": 2, "weights": torch.arange(100_000.0)}, path)
    except OSError as error:
        tell("said", error=type(error).__name__, message=str(error))
        raise
while True:
    dist.barrier()
"""


@pytest.mark.parametrize("way", ["dlaunch", "plain", "mpiexec"])
def test_checkpoints(jobs, small, way):
    """The old one is as it was, the error names the path, and the job ends."""
    job = jobs.start(way, 2, jobs.script(SAVES), arguments=[small], environ={"DISTTORCH_FLIGHT_DIR": "flight"})
    jobs.told("here", 2)
    before = (small / "checkpoint").read_bytes()
    jobs.go("go")
    ended = jobs.ended(job, SLACK, segments=way != "mpiexec")
    assert ended.code == 1
    [said] = jobs.told("said", [0])
    assert said["error"] == "OSError"
    assert re.search(rf"save: No space left on device: '{small}/checkpoint'", said["message"]), said
    assert said["message"] in ended.said
    if way != "mpiexec":
        assert re.match(r"dlaunch: rank 0 .*by OSError: .*No space left on device", ended.err.splitlines()[-1])
    assert [path.name for path in small.iterdir()] == ["checkpoint"]
    assert (small / "checkpoint").read_bytes() == before
    state = torch.load(small / "checkpoint")
    assert state["step"] == 1 and state["weights"].tolist() == [float(i) for i in range(1000)]


def test_the_record_of_a_run_that_went_well_before(jobs, small):
    """A directory in which there is an earlier job's record, and no room: it is not taken for this job's."""
    (small / "rank-0.flight.json").write_text(json.dumps({"rank": 0}))
    job = jobs.start(
        "dlaunch", 2, jobs.script(FAILS.format(how="raise ValueError('bad batch')")), environ={"DISTTORCH_FLIGHT_DIR": str(small)}
    )
    jobs.told("here", 2)
    fill(small)
    jobs.go("go")
    ended = jobs.ended(job, SLACK)
    assert ended.code == 1 and "ValueError: bad batch" in ended.err
    assert [path.name for path in small.iterdir()] == ["ballast"]
