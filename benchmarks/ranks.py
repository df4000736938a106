"""What benchmarks of several ranks share: the job whose ranks run the benchmark's file again, and what its rank 0 prints."""

import json
import os
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def results_of_a_job(file, ranks, arguments):
    """The results that rank 0 of a job prints, one by one as they come; its ranks run `file` with ``--rank-of-a-job``."""
    path = os.pathsep.join(filter(None, (os.path.dirname(HERE), os.environ.get("PYTHONPATH"))))
    job = subprocess.Popen(
        [sys.executable, "-m", "launcher", "-n", str(ranks), "--oversubscribe", "--threads", "1",
         os.path.abspath(file), "--rank-of-a-job", *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    for line in job.stdout:
        yield json.loads(line)
    if job.wait():
        sys.exit(job.returncode)


def write(path, results):
    """Write all results as JSON, if there is to be a file."""
    if path:
        with open(path, "w") as file:
            json.dump(results, file, indent=1)


def free_port():
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
