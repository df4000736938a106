"""Runs `dlaunch` on small scripts, as a user would, under whichever MPI this environment's mpi4py loads."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from launcher import process

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0  # seconds after which something hangs, on a machine with other work, too

# What a developer's shell or a batch job may have set, and the launcher reads.
_SCRUBBED = ("OMP_", "OPENBLAS_", "MKL_", "SLURM_", "MASTER_", "DISTTORCH_", "PYTHON", "PMI_", "OMPI_", "RANK", "WORLD_")


@pytest.fixture
def plain_environ() -> dict[str, str]:
    """A plain environment in which the launcher can be imported from anywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SCRUBBED)}
    return {**kept, "PYTHONPATH": str(ROOT)}


class Session:
    """Starts `dlaunch` in a directory of its own and waits for what happens there, never for a length of time."""

    def __init__(self, directory: Path, environ: dict[str, str]):
        self.directory = directory
        self.environ = environ
        self.running: list[subprocess.Popen[str]] = []

    def script(self, text: str, name: str = "script.py") -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def start(self, *arguments: object, constants: Mapping[str, float] | None = None, **environ: str) -> subprocess.Popen[str]:
        """Starts `dlaunch`; with other `constants`, such as restart.PAUSE, where a test needs more time for what it does meanwhile."""
        program = ["-m", "launcher"]
        if constants:
            lines = ["import sys", "from launcher import job, restart", "from launcher.__main__ import main"]
            lines += [f"{name} = {value}" for name, value in constants.items()]
            program = ["-c", "\n".join([*lines, "sys.exit(main())"])]
        job = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=self.directory, env={**self.environ, **environ}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.running.append(job)
        return job

    def run(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        job = self.start(*arguments, **environ)
        out, err = job.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess(job.args, job.returncode, out, err)

    def files(self, pattern: str, count: int) -> list[dict]:
        """Waits until the scripts have written so many JSON files; returns them sorted by their rank."""
        self.until(lambda: len(list(self.directory.glob(pattern))) == count, f"{count} files {pattern}")
        return sorted((json.loads(path.read_text()) for path in self.directory.glob(pattern)), key=lambda x: x["rank"])

    def ended_soon(self, seconds: float) -> None:
        """The job, which has just ended, did so within this time after the last of its scripts had told that it had started."""
        last = max(path.stat().st_mtime for path in self.directory.glob("start*.json"))
        assert time.time() - last < seconds

    def until(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> float:
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < timeout, f"waited {timeout} s for {what}"
            over = [job for job in self.running if job.poll() not in (None, 0) and job.stderr and not job.stderr.closed]
            if over and not condition():
                raise AssertionError(f"the job ended before {what}: {over[0].communicate()}")
            time.sleep(0.01)
        return time.monotonic() - begun


@pytest.fixture
def session(tmp_path: Path, plain_environ: dict[str, str]) -> Iterator[Session]:
    """A `Session` in the test's temporary directory; whatever it left running is ended by its process id."""
    session = Session(tmp_path, plain_environ)
    yield session
    for job in session.running:
        if job.poll() is None:
            job.send_signal(signal.SIGINT)
            job.send_signal(signal.SIGINT)
            try:
                job.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                job.kill()
                job.communicate()


# Scripts begin with this: `say` tells the test something, in one file a rank, whole or not at all.
SAY = """
import json, os, signal, sys, time
rank = int(os.environ["RANK"])
def say(name, **what):
    with open(f"{name}.{rank}.partial", "w") as file:
        json.dump({"rank": rank, "pid": os.getpid(), "ppid": os.getppid(), **what}, file)
    os.rename(f"{name}.{rank}.partial", f"{name}.{rank}.json")
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
"""


@pytest.fixture
def say() -> str:
    """The beginning of scripts that tell the test what they see."""
    return SAY


@pytest.fixture
def running() -> Callable[[int], bool]:
    """Whether a process runs; one that has ended stays listed until whoever inherited it takes notice."""

    def ask(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
        except (FileNotFoundError, ProcessLookupError):
            return False

    return ask


@pytest.fixture
def left_of() -> Callable[[str], list[int]]:
    """The processes that carry the mark of a job's run directory: its ranks, supervisors, mpiexec and proxies."""
    return lambda run_directory: process.carrying(f"DISTTORCH_RUN_DIR={run_directory}")
