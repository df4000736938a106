"""Ranks that fail in the middle of a collective, started by dlaunch: the job ends, and the last line says whose mistake it was."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import os, sys, threading, time
import disttorch
import disttorch.distributed as dist
dist.init_process_group()
x = disttorch.ones(100_000)
dist.all_reduce(x)
"""

ENDS = [
    # what rank 1 does while rank 0 waits for it, the exit code, what the last line says
    ("raise ValueError('my own mistake')", 1, "rank 1 .* by ValueError: my own mistake; the other rank was ended"),
    ("sys.exit(7)", 7, "rank 1 .* ended with exit code 7"),
    ("raise SystemExit(7)", 7, "rank 1 .* ended with exit code 7"),
    ("os._exit(9)", 9, "rank 1 .* ended with exit code 9"),
    ("os.kill(os.getpid(), 9)", 137, r"rank 1 .* was killed by SIGKILL \(signal 9\)"),
    ("threading.Thread(target=lambda: 1 / 0).start(); time.sleep(60)", 1, "rank 1 .* by ZeroDivisionError: division by zero"),
    ("work = dist.all_reduce(x, async_op=True); raise KeyError('not waited for')", 1, "rank 1 .* by KeyError: 'not waited for'"),
]


@pytest.mark.parametrize(("last_words", "code", "said"), ENDS, ids=[e[0] for e in ENDS])
def test_the_job_ends_and_says_whose_mistake_it_was(tmp_path, last_words, code, said):
    script = tmp_path / "train.py"
    script.write_text(f"{BEGIN}if dist.get_rank() == 1:\n    {last_words}\nfor _ in range(1000):\n    dist.all_reduce(x)\ntime.sleep(60)\n")
    ended = subprocess.run(
        [sys.executable, "-m", "launcher", "-n", "2", script],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert re.match(f"dlaunch: {said}", ended.stderr.splitlines()[-1]), ended.stderr
