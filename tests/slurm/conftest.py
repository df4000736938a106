"""A Slurm for the whole session (`testbed.py`), and jobs in it as a user submits them."""

import contextlib
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import process
from tests.slurm import testbed

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 300.0  # seconds after which something hangs; Slurm itself looks at time limits once a minute
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}

# What the shell that runs the tests may have set, and Slurm, an MPI, the launcher or the batch scripts would read.
_SCRUBBED = re.compile(
    r"SLURM_|SBATCH_|SRUN_|S[A-Z]+_FORMAT|PMI|OMPI_|PRTE_|HYDRA_|OMP_|OPENBLAS_|MKL_|MASTER_|DISTTORCH_|PYTHON|RANK|WORLD_"
    r"|LOCAL_|DLAUNCH|MPI_TYPE|MAX_ATTEMPTS"
)


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[str]:
    """The configuration file of a Slurm of two nodes, which ends with this process, however that ends."""
    if reason := testbed.missing():
        pytest.skip(reason)
    keeper = subprocess.Popen(
        [sys.executable, str(Path(testbed.__file__))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert keeper.stdin
    assert keeper.stdout
    try:
        line = keeper.stdout.readline()
        assert line, f"the testbed ended with {keeper.wait()}; its own message is in the captured output"
        yield line.strip().removeprefix("export SLURM_CONF=")
    finally:
        keeper.stdin.close()
        keeper.wait(TIMEOUT)
        keeper.stdout.close()


class Job:
    """One job, or one element of a job array."""

    def __init__(self, cluster: "Cluster", number: str, mark: str):
        self.cluster = cluster
        self.number = number
        self.mark = mark

    def fields(self) -> dict[str, str]:
        """What `scontrol show job` says."""
        said = self.cluster.run("scontrol", "--oneliner", "show", "job", self.number)
        return dict(re.findall(r"(\w+)=(\S*)", said))

    @property
    def state(self) -> str:
        return self.fields()["JobState"]

    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def output(self) -> str:
        path = self.cluster.directory / f"disttorch-{self.number}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        limit = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < limit, f"waited {timeout} s for {what}; {self.fields()}\n{self.output}"
            time.sleep(0.1)

    def says(self, pattern: str) -> None:
        """Waits until the job has written something."""

        def found() -> bool:
            state = self.state  # before the look: what a job that has ended was to write is there
            if re.search(pattern, self.output):
                return True
            assert state not in ENDED, f"{state} before it wrote {pattern}:\n{self.output}"
            return False

        self.until(found, pattern)

    def ends(self, state: str = "COMPLETED", *codes: int) -> str:
        """Waits for the end, which must be this one, with one of these exit codes; returns the output."""
        self.until(self.has_ended, "the end of the job")
        found = self.fields()
        assert found["JobState"] == state, self.output
        assert int(found["ExitCode"].split(":")[0]) in (codes or (0,)), self.output
        return self.output

    def is_back(self, restarts: int) -> None:
        """Waits until the job stands in the queue again, and lets it start at once rather than after two minutes.

        Slurm waits for so long so that nothing is left of the attempt before. Its credential is revoked, which is noted in
        whole seconds: one that was given in the same second would count as revoked, too.
        """
        self.until(
            lambda: (f := self.fields())["JobState"] == "PENDING" and f["Restarts"] == str(restarts),
            f"restart {restarts}",
        )
        directory = Path(self.cluster.environ["SLURM_CONF"]).parent
        self.until(lambda: not testbed.steps(directory, self.number), "the end of the attempt before")
        time.sleep(2)
        self.cluster.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def processes(self) -> list[int]:
        """Those that carry this job's mark: the batch shell, dlaunch, mpiexec, its daemons, the ranks."""
        return process.carrying(f"TEST_JOB={self.mark}")


class Cluster:
    """Slurm as a user sees it who has activated this environment and stands in `directory`."""

    def __init__(self, configuration: str, directory: Path):
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not _SCRUBBED.match(name)}
        self.environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{testbed.PATH}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SLURM_CONF": configuration,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            **testbed.files_of_open_mpi(directory),
        }
        self.jobs: list[Job] = []

    def run(self, *command: str, **environ: str) -> str:
        done = subprocess.run(
            command, cwd=self.directory, env={**self.environ, **environ}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, script: str, *arguments: object, options: tuple[str, ...] = (), **environ: str) -> Job:
        """Submits slurm/`script` with its arguments."""
        return self.sbatch(*options, str(ROOT / "slurm" / script), *map(str, arguments), **environ)

    def sbatch(self, *arguments: str, **environ: str) -> Job:
        mark = uuid.uuid4().hex
        said = self.run("sbatch", "--parsable", *arguments, TEST_JOB=mark, **environ)
        self.jobs.append(Job(self, said.strip(), mark))
        return self.jobs[-1]

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


@pytest.fixture
def cluster(slurm_conf: str, tmp_path: Path) -> Iterator[Cluster]:
    """A `Cluster` in the test's temporary directory; its jobs end with the test."""
    cluster = Cluster(slurm_conf, tmp_path)
    yield cluster
    for job in cluster.jobs:
        if job.state not in ENDED:
            with contextlib.suppress(AssertionError):  # it may have ended meanwhile
                cluster.run("scancel", job.number)
    for job in cluster.jobs:
        job.until(job.has_ended, "its cancellation")
