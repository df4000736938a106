"""Jobs in an allocation of a real Slurm, on two nodes, under every engine that starts them there."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from launcher.mpi import find_mpi
from tests.slurm import testbed

TIMEOUT = 300.0
PLACE = "print('place', *(os.environ[name] for name in 'RANK WORLD_SIZE MASTER_ADDR'.split()), flush=True)\n"
SUM = PLACE + "from mpi4py import MPI\nprint('sum', MPI.COMM_WORLD.allreduce(10 ** MPI.COMM_WORLD.rank), flush=True)\n"


@pytest.fixture(scope="module")
def slurm_conf():
    """The configuration of a Slurm of two nodes, which is gone afterwards."""
    if reason := testbed.missing():
        pytest.skip(reason)
    keeper = subprocess.Popen(
        [sys.executable, testbed.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        line = keeper.stdout.readline()
        assert line, f"the testbed ended with {keeper.wait()}"
        yield line.strip().removeprefix("export SLURM_CONF=")
    finally:
        keeper.stdin.close()
        keeper.wait(TIMEOUT)
        keeper.stdout.close()


class Allocation:
    """Submits a dlaunch as a batch job on two nodes, each with two tasks."""

    def __init__(self, session, slurm_conf):
        self.session = session
        self.environ = {**session.environ, "SLURM_CONF": slurm_conf}
        self.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        self.environ |= testbed.files_of_open_mpi(session.directory)
        self.job = None

    def submit(self, *arguments):
        command = [sys.executable, "-m", "launcher", *map(str, arguments)]
        self.job = self.slurm(
            "sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2", "--no-requeue", "--output=said",
            f"--wrap=exec {' '.join(command)}",
        ).strip()  # fmt: skip

    def slurm(self, *command):
        return subprocess.run(
            command, cwd=self.session.directory, env=self.environ, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def ended(self):
        """The exit code of the batch job, and what it said."""
        limit = time.monotonic() + TIMEOUT
        while True:
            fields = dict(re.findall(r"(\w+)=(\S*)", self.slurm("scontrol", "--oneliner", "show", "job", self.job)))
            if fields["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
                said = (self.session.directory / "said").read_text()
                return int(fields["ExitCode"].partition(":")[0]), said
            assert time.monotonic() < limit, f"waited {TIMEOUT} s for the end of {fields}"
            time.sleep(0.1)


@pytest.fixture
def allocation(session, slurm_conf):
    allocation = Allocation(session, slurm_conf)
    yield allocation
    if allocation.job is not None:
        subprocess.run(["scancel", allocation.job], env=allocation.environ, check=False, timeout=60)


@pytest.fixture(params=["auto", "mpiexec", "srun", "plain"])
def engine(request, plain_environ):
    if request.param == "srun" and find_mpi("auto", plain_environ).engine.name == "Open MPI":
        pytest.skip("Debian's slurmd loads no PMIx, the one protocol of Open MPI")
    return request.param


def test_ranks_have_one_world(session, say, allocation, engine):
    script = session.script(say + (PLACE if engine == "plain" else SUM))
    allocation.submit("-n", 4, "--engine", engine, script)
    code, said = allocation.ended()
    assert code == 0, said
    assert sorted(line for line in said.splitlines() if line.startswith("place")) == [f"place {rank} 4 n1" for rank in range(4)]
    assert said.count("sum 1111\n") == (0 if engine == "plain" else 4)
    assert len(said.splitlines()) == (4 if engine == "plain" else 8), said


def test_nnodes_spreads_the_ranks(session, say, allocation, engine):
    script = session.script(say + "print('place', *(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')), flush=True)\n")
    allocation.submit("-n", 2, "--nnodes", 2, "--engine", engine, script)
    code, said = allocation.ended()
    assert code == 0, said
    assert sorted(said.splitlines()) == ["place 0 0 1", "place 1 0 1"]


def test_a_rank_fails(session, say, allocation, left_of, engine):
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nfor other in range(4):\n    wait_for(f'start.{other}.json')\n"
        "if rank == 3:\n    sys.exit(5)\nwait_for('never')\n"
    )
    allocation.submit("-n", 4, "--engine", engine, script)
    code, said = allocation.ended()
    assert code == 5, said
    assert re.match(r"dlaunch: rank 3 .*ended with exit code 5 .*; the other 3 ranks were ended", said.splitlines()[-1])
    assert "srun: error" not in said
    assert left_of(session.files("start.*.json", 4)[0]["run"]) == []


def test_a_killed_rank_is_started_again(session, say, allocation, engine):
    script = session.script(
        say + "attempt = int(os.environ['DISTTORCH_ATTEMPT'])\nsay(f'start{attempt}')\n"
        "for other in range(4):\n    wait_for(f'start{attempt}.{other}.json')\n"
        "if attempt == 0 and rank == 2:\n    os.kill(os.getpid(), 9)\nif attempt == 0:\n    wait_for('never')\nprint('end', rank)\n"
    )
    allocation.submit("-n", 4, "--max-restarts", 1, "--engine", engine, script)
    code, said = allocation.ended()
    assert code == 0, said
    assert "was killed by SIGKILL" in said and "restart 1 of 1, with 4 ranks" in said
    assert {line for line in said.splitlines() if line.startswith("end")} == {f"end {rank}" for rank in range(4)}


def test_a_job_that_is_cancelled_is_not_started_again(session, say, allocation, left_of, engine):
    script = session.script(
        say + "say('start' + os.environ['DISTTORCH_ATTEMPT'], run=os.environ['DISTTORCH_RUN_DIR'])\nwait_for('never')\n"
    )
    allocation.submit("-n", 4, "--max-restarts", 3, "--engine", engine, script)
    run = session.files("start0.*.json", 4)[0]["run"]
    allocation.slurm("scancel", allocation.job)
    _, said = allocation.ended()
    assert "restart 1 of 3" not in said
    assert not list(session.directory.glob("start1.*"))
    session.until(lambda: left_of(run) == [], "the end of all processes")


@pytest.mark.parametrize("victim", ["guard", "srun", "dlaunch"])
def test_kill_9_under_srun_leaves_nothing(session, say, allocation, left_of, victim):
    if find_mpi("auto", session.environ).engine.name == "Open MPI":
        pytest.skip("Debian's slurmd loads no PMIx, the one protocol of Open MPI")
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'], dlaunch=int(os.environ['DLAUNCH_PID']))\nwait_for('never')\n"
    )
    allocation.submit("-n", 4, "--engine", "srun", "--env", "DLAUNCH_PID=$$", script)
    starts = session.files("start.*.json", 4)
    run, dlaunch = starts[0]["run"], starts[0]["dlaunch"]
    with open(f"/proc/{dlaunch}/task/{dlaunch}/children") as children:
        srun = int(children.read().split()[0])
    with open(f"/proc/{starts[1]['ppid']}/stat") as stat:
        guard = int(stat.read().rpartition(")")[2].split()[1])
    os.kill({"guard": guard, "srun": srun, "dlaunch": dlaunch}[victim], signal.SIGKILL)
    code, said = allocation.ended()
    assert code in ((0, 9, 137) if victim == "dlaunch" else (137, 9)), said
    session.until(lambda: left_of(run) == [], "the end of all processes")
