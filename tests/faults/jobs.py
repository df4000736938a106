"""Starts real jobs, as users do, and sees how they end: what is said, how long it takes, and that nothing is left.

Scripts begin with `BEGINNING`: each rank tells the test where it is by files (`tell`), waits for files (`wait_for`), and
says which shared memory it has mapped, so that the test can ask for exactly that afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher import process

ROOT = Path(__file__).resolve().parents[2]
MARK = "DISTTORCH_TEST_JOB"
"""A variable that every process of a job carries, whatever started it."""
SLACK = 15.0
"""Seconds that a loaded machine of two cores may take for what should take none."""
START = 60.0
"""Seconds until all ranks of a job have started, on such a machine."""

# What a developer's shell or a batch job may have set, and launchers read.
_SCRUBBED = (
    "OMP_", "OPENBLAS_", "MKL_", "SLURM_", "MASTER_", "DISTTORCH_", "PYTHON", "PMI_", "PMIX_", "OMPI_", "PRTE_", "RANK", "WORLD_",
    "LOCAL_",
)  # fmt: skip

WAYS = {
    "dlaunch": ["-m", "launcher", "--oversubscribe"],
    "plain": ["-m", "launcher", "--oversubscribe", "--engine", "plain"],
    "mpiexec": None,
}
"""How a job is started: under the MPI of mpi4py by dlaunch, by dlaunch without an MPI, by mpiexec itself."""

BEGINNING = """\
import json, os, signal, sys, threading, time
import numpy as np
from collectives import CollectiveMismatchError, CollectiveTimeoutError, CommunicationError, connect
from collectives.environment import environment
rank, size = environment().rank, environment().world_size
def tell(name, **what):
    shm = sorted({line.split()[-1] for line in open("/proc/self/maps") if " /dev/shm/" in line})
    what.update(rank=rank, pid=os.getpid(), run=os.environ.get("DISTTORCH_RUN_DIR"), shm=shm, time=time.time())
    with open(f"{name}.{rank}.partial", "w") as file:
        json.dump(what, file)
    os.rename(f"{name}.{rank}.partial", f"{name}.{rank}.json")
def wait_for(*names):
    while not all(map(os.path.exists, names)):
        time.sleep(0.005)
"""


class Ended(NamedTuple):
    """How a job ended."""

    code: int
    out: str
    err: str
    time: float
    """Seconds since the epoch."""

    @property
    def said(self) -> str:
        """All that was written: mpiexec writes some of what it says to stdout."""
        return self.out + self.err


def line_of(script: Path, marker: str) -> str:
    """``script.py:7``, where a line of the script ends with this comment."""
    lines = [n for n, line in enumerate(script.read_text().splitlines(), 1) if line.endswith(f"# {marker}")]
    assert len(lines) == 1, f"{marker}: lines {lines}"
    return f"{script.name}:{lines[0]}"


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended stays listed until whoever inherited it takes notice."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Jobs:
    """Starts jobs in a directory of its own; `ended` is where every test sees that nothing is left.

    Parameters
    ----------
    directory : Path
    mpiexec : str
        The one of the MPI library that mpi4py loads.
    """

    def __init__(self, directory: Path, mpiexec: str):
        self.directory = directory
        self.mpiexec = mpiexec
        self.token = secrets.token_hex(8)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_SCRUBBED)}
        self.environ = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            MARK: self.token,
            # What Open MPI's mpiexec wants to be told where it runs as root, and on fewer cores than ranks.
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        }
        self.running: list[subprocess.Popen[str]] = []

    def script(self, text: str, name: str = "script.py", beginning: str = BEGINNING) -> Path:
        """A program for the ranks."""
        path = self.directory / name
        path.write_text(beginning + text)
        return path

    def start(
        self, way: str, ranks: int, script: Path, *options: object, arguments: Sequence[object] = (), prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a job; `options` are dlaunch's, `prefix` comes before the command."""
        how = WAYS[way]
        command = [self.mpiexec, "-n", str(ranks), sys.executable] if how is None else [sys.executable, *how, "-n", str(ranks)]
        job = subprocess.Popen(
            [*prefix, *command, *map(str, options), str(script), *map(str, arguments)],
            cwd=self.directory, env={**self.environ, **(environ or {})}, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.running.append(job)
        return job

    def told(self, name: str, ranks: Sequence[int] | int) -> list[dict[str, Any]]:
        """What ranks have told under a name, once they all have; sorted by rank."""
        which = range(ranks) if isinstance(ranks, int) else ranks
        paths = [self.directory / f"{name}.{rank}.json" for rank in which]
        self.until(lambda: all(path.exists() for path in paths), f"{name} of ranks {list(which)}", START)
        return [json.loads(path.read_text()) for path in paths]

    def has_told(self, name: str, rank: int) -> bool:
        """Whether a rank has told something."""
        return (self.directory / f"{name}.{rank}.json").exists()

    def go(self, name: str) -> None:
        """Let ranks go on that wait for a file."""
        (self.directory / name).touch()

    def until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for something; a job that ends meanwhile ends the wait."""
        limit = time.monotonic() + seconds
        while not condition():
            over = [job for job in self.running if job.poll() is not None and job.stderr and not job.stderr.closed]
            if over and not condition():
                raise AssertionError(f"the job ended before {what}: {over[0].communicate()}")
            assert time.monotonic() < limit, f"waited {seconds} s for {what}"
            time.sleep(0.005)

    def ended(self, job: subprocess.Popen[str], within: float, *, since: float | None = None, segments: bool = True) -> Ended:
        """Wait for a job's end; see that it came in time and that nothing of it is left.

        Parameters
        ----------
        job : Popen
        within : float
            Seconds from `since` that it may take.
        since : float, optional
            Seconds since the epoch; now, if not given.
        segments : bool, default True
            Whether what MPI had in /dev/shm must be gone. mpiexec itself leaves there what a rank had that it ended.
        """
        begun = time.time() if since is None else since
        try:
            out, err = job.communicate(timeout=max(0.1, begun + within - time.time()))
        except subprocess.TimeoutExpired:
            stacks = self._stacks()
            job.kill()
            out, err = job.communicate()
            raise AssertionError(f"the job has not ended within {within} s: {stacks}\n{out}\n{err}") from None
        ended = Ended(job.returncode, out, err, time.time())
        self.nothing_left(segments)
        return ended

    def nothing_left(self, segments: bool = True) -> None:
        """No process, no run directory, no named shared memory of any rank that has told anything."""
        told = [json.loads(path.read_text()) for path in self.directory.glob("*.[0-9]*.json")]
        left = {*process.carrying(f"{MARK}={self.token}"), *(one["pid"] for one in told)}
        limit = time.monotonic() + 2.0  # a process that was sent SIGKILL takes a moment to be gone
        while (left := {pid for pid in left if runs(pid)}) and time.monotonic() < limit:
            time.sleep(0.01)
        assert left == set(), f"left: {[(pid, _command(pid)) for pid in left]}"
        directories = {one["run"] for one in told if one.get("run")}
        assert [run for run in directories if process.carrying(f"DISTTORCH_RUN_DIR={run}")] == []
        assert [run for run in directories if os.path.exists(run)] == []
        files = {file for one in told for file in one.get("shm", ()) if os.path.exists(file)}
        if segments:
            assert files == set()
        process.unlink_segments(files)

    def end_all(self) -> None:
        """End what a failed test has left running."""
        for job in self.running:
            if job.poll() is None:
                job.send_signal(signal.SIGTERM)
                try:
                    job.communicate(timeout=10)
                except subprocess.TimeoutExpired:
                    job.kill()
                    job.communicate()
        for pid in process.carrying(f"{MARK}={self.token}"):
            process.signal_process(pid, process.start_ticks(pid), signal.SIGKILL)

    def _stacks(self) -> list[tuple[int, str, str]]:
        found = []
        for pid in process.carrying(f"{MARK}={self.token}"):
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            found.append((pid, state, _command(pid)))
        return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200]
    except OSError:
        return ""
