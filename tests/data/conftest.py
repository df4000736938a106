"""What the tests of data loading share: what a process has open, and programs run beside the test."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def children() -> set[int]:
    """The processes that this one has started and not seen the end of."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that was joined may be about to go
            found.update(map(int, (task / "children").read_text().split()))
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def shared_memory() -> int:
    """How many mappings of batches there are."""
    return Path("/proc/self/maps").read_text().count("disttorch-batch")


def files() -> set[str]:
    """Files in /dev/shm that a loader could have left; MPI jobs beside the test have theirs."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "pym-", "torch", "disttorch"))}


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No process, descriptor, mapping or file in /dev/shm is left by the test."""
    gc.collect()  # nor does what an earlier test left disturb
    before = children(), descriptors(), shared_memory(), files()
    yield
    gc.collect()  # a caught exception is in a cycle with its frames, and those have the loader
    after = children(), descriptors(), shared_memory(), files()
    # What an earlier test left may have gone meanwhile.
    assert all(now <= then for now, then in zip(after, before)), f"{after} is left, and was {before}"  # type: ignore[operator]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program in a process of its own; what is still there after the test is killed by its id."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *before: str) -> subprocess.Popen[str]:
        script = tmp_path / f"program{len(started)}.py"
        script.write_text(program)
        process = subprocess.Popen(
            [*before, sys.executable, "-W", "error", str(script)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
