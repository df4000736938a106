"""How a job ends: a rank that dies takes the others with it, one that is done waits for them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.mpi_skip  # these start jobs of their own
Run = Callable[..., subprocess.CompletedProcess[str]]

OURS = "import sys, os, threading, numpy as np\nfrom collectives import connect\nworld = connect('mpi')\n"
THEIRS = "from mpi4py import MPI\n" + OURS
# Rank 0 waits for what rank 1 never sends: a job that nobody ends would be ended by the time limit, and the test fail.
OTHERS_WAIT = "if world.rank == 0: world.recv(np.zeros(1), 1)\n"

DYING = {
    "an exception": ("raise ValueError('broken')", ["ValueError: broken", "rank 1 of 2 on", "an uncaught exception"]),
    "an exception in a thread": (
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join(); world.recv(np.zeros(1), 0)",
        ["ZeroDivisionError", "rank 1 of 2 on", "an uncaught exception in a thread"],
    ),
    "an error of communication": ("world.broadcast(np.zeros(1), 7)", ["ValueError: broadcast: root is 7"]),
    "Ctrl-C": ("raise KeyboardInterrupt", ["KeyboardInterrupt"]),
    "an exit code": ("sys.exit(3)", ["rank 1 of 2 on", "ends with exit code 3"]),
    "an exit code of 256": ("sys.exit(256)", ["ends with exit code 256"]),
    "an exit message": ("sys.exit('no data')", ["no data", "ends with exit code 1"]),
    "an argument error": ("import argparse; argparse.ArgumentParser().error('bad')", ["bad", "ends with exit code 2"]),
    "abort": ("world.abort(4)", []),
}


@pytest.mark.parametrize(("ending", "told"), DYING.values(), ids=DYING)
@pytest.mark.parametrize("start", [OURS, THEIRS], ids=["we start MPI", "the program starts MPI"])
def test_a_dying_rank_ends_the_job(run_job: Run, start: str, ending: str, told: list[str]) -> None:
    done = run_job(start + OTHERS_WAIT + ending)
    assert done.returncode != 0
    for part in told:
        assert part in done.stderr, done.stderr


GOOD = {
    "the end of the program": "world.barrier()",
    "exit code 0": "sys.exit(0)",
    "exit without a code": "sys.exit()",
    "True is no failure of ours, 0 is no message": "sys.exit(False)",
    "a caught exit code": "try:\n    sys.exit(3)\nexcept SystemExit as error:\n    assert error.code == 3",
    "an exit code changed to 0": "try:\n    sys.exit(3)\nexcept SystemExit as error:\n    error.code = 0\n    raise",
    "a thread that exits": "thread = threading.Thread(target=sys.exit, args=(3,)); thread.start(); thread.join()",
    "works that nobody waited for": (
        "work = world.all_reduce(np.ones(10**6)[::2], async_op=True); world.recv(np.zeros(1), tag=1, async_op=True)"
    ),
    "MPI finalised by the program": "from mpi4py import MPI; world.barrier(); MPI.Finalize()",
    "a closed world": "world.close(); world = connect('mpi'); world.barrier(); world.close()",
    "a child process that fails": (
        "import multiprocessing\n"
        "child = multiprocessing.get_context('fork').Process(target=sys.exit, args=(3,)); child.start(); child.join()\n"
        "assert child.exitcode == 3\n"
    ),
}


@pytest.mark.parametrize("ending", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("start", [OURS, THEIRS], ids=["we start MPI", "the program starts MPI"])
def test_a_good_end(run_job: Run, start: str, ending: str) -> None:
    done = run_job(start + ending)
    assert done.returncode == 0, done.stderr
    assert "ends the job" not in done.stderr


def test_who_waits_for_anyone_does_not_mind_who_has_left(run_job: Run) -> None:
    done = run_job(
        OURS + "if world.rank == 0:\n    print([world.recv(np.zeros(1)).source for _ in range(2)], flush=True)\n"
        "else:\n    __import__('time').sleep(2.0 * (world.rank - 1)); world.send(np.zeros(1), 0)\n", 3,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n"), done.stderr


def test_a_forked_process_has_no_part_in_the_job(run_job: Run) -> None:
    done = run_job(
        OURS + "child = os.fork()\n"
        "if child == 0:\n    raise ValueError('in the child')\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1\n"
        "world.barrier()\n"
    )
    assert done.returncode == 0, done.stderr
    assert "in the child" in done.stderr and "ends the job" not in done.stderr


def test_a_program_alone_ends_as_any_program(run_alone: Run) -> None:
    for ending, code in (("raise ValueError('broken')", 1), ("import sys; sys.exit(3)", 3), ("", 0)):
        done = run_alone(f"import collectives\ncollectives.connect('mpi')\n{ending}")
        assert done.returncode == code, done.stderr
        assert "ends the job" not in done.stderr
