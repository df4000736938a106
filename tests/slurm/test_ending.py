"""How jobs end: saved and put back before the time limit and by preemption, given up, failed, cancelled."""

import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist.py"
CLOTHING = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
LEARNS = ("--images", 2048, "--epochs", 3)  # 16 steps an epoch
ON_EACH_NODE = ("--ntasks-per-node=1",)

# Counts to a number, one in a twentieth of a second; on SIGUSR1 and SIGTERM it notes where it is and ends.
COUNTS = """
import os, signal, sys, time
from pathlib import Path
rank, last = int(os.environ["RANK"]), int(sys.argv[1])
asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: asked.append(signal.Signals(number).name))
checkpoint = Path(f"count.{rank}")
count = int(checkpoint.read_text()) if checkpoint.exists() else 0
os.write(1, f"rank {rank} begins at {count}\\n".encode())
while count < last:
    count += 1
    time.sleep(0.05)
    if asked:
        break
checkpoint.write_text(str(count))
os.write(1, f"rank {rank} ends at {count}, asked by {sorted(set(asked))}\\n".encode())
"""

STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
os.write(1, f"rank {os.environ['RANK']} begins at 0\\n".encode())
time.sleep(600)
"""


def example(cluster):
    """The example, which does not begin its second epoch before it is asked to stop, as long as there is a file `hold`."""
    from tests.examples.test_fashion_mnist import held

    (cluster.directory / "hold").touch()
    return cluster.write("fashion_mnist.py", held(EXAMPLE.read_text(), epoch=2))


def goes_on(cluster, job, said="asked to stop"):
    """Waits until it has been asked, and lets the next attempt run through."""
    job.says(said)
    (cluster.directory / "hold").unlink()


def both_begin(job, attempt=1):
    """Waits until both ranks have begun, in an attempt of the job."""
    job.says(rf"(?s)(rank \d begins at.*){{{2 * attempt}}}")


@pytest.fixture(scope="module")
def warned(slurm_conf, tmp_path_factory):
    """A job that Slurm itself warns of its time limit: begun long before it is looked at, since Slurm looks rarely, and after the
    test that has jobs preempted.
    """
    from tests.slurm.conftest import Cluster

    cluster = Cluster(slurm_conf, tmp_path_factory.mktemp("warned"))
    cluster.write("counts.py", COUNTS)
    # Two minutes before the end of three: the ranks have begun by then, also where the machine is busy.
    options = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2", "--time=3")
    job = cluster.submit("preemptible.sbatch", "counts.py", 100_000, options=options)
    yield job
    if job.state in ("RUNNING", "PENDING"):
        cluster.run("scancel", job.number)


@pytest.fixture(scope="module")
def undisturbed(slurm_conf, tmp_path_factory):
    """The checkpoint file of the example where nothing happens to it."""
    from tests.slurm.conftest import Cluster

    cluster = Cluster(slurm_conf, tmp_path_factory.mktemp("undisturbed"))
    cluster.submit("cpu.sbatch", EXAMPLE, *LEARNS, "--checkpoint", "c.safetensors", options=ON_EACH_NODE).ends()
    return (cluster.directory / "c.safetensors").read_bytes()


@CLOTHING
def test_sigusr1_saves_and_requeues_and_the_network_is_the_same(cluster, undisturbed):
    arguments = (example(cluster), *LEARNS, "--checkpoint", "c.safetensors", "--resume")
    job = cluster.submit("preemptible.sbatch", *arguments, options=ON_EACH_NODE)
    job.says("epoch 1: test accuracy")
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)  # what `--signal=B:USR1@120` does
    goes_on(cluster, job)
    job.is_back(1)
    said = job.ends()
    assert re.search(r"attempt 1 of at most 20, on n\[1-2\]\n", said)
    assert "there is no c.safetensors yet: begins with epoch 1\n" in said
    stopped = re.search(r"asked to stop: saved (\d+) of 16 steps of epoch (\d) in c.safetensors\n", said)
    assert stopped, said
    assert "saved before the time limit in attempt 1: goes back into the queue\n" in said
    assert "attempt 2 of at most 20" in said
    assert f"continues after epoch {int(stopped[2]) - 1} and {stopped[1]} steps of c.safetensors\n" in said
    assert "ended with exit code 0 in attempt 2\n" in said
    assert (cluster.directory / "c.safetensors").read_bytes() == undisturbed


@CLOTHING
def test_preemption_requeues_and_the_network_is_the_same(cluster, undisturbed):
    arguments = (example(cluster), *LEARNS, "--checkpoint", "c.safetensors", "--resume")
    job = cluster.submit("preemptible.sbatch", *arguments, options=ON_EACH_NODE)
    job.says("epoch 1: test accuracy")
    cluster.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", "true")
    # Slurm ends the daemons of Open MPI's mpiexec, too, with what the ranks wrote last.
    goes_on(cluster, job, said="preempted in attempt 1")
    job.is_back(1)
    said = job.ends()
    assert "preempted in attempt 1: goes back into the queue\n" in said
    assert re.search(r"continues after epoch [12]( and \d0 steps)? of c.safetensors\n", said)
    assert "ended with exit code 0 in attempt 2\n" in said
    assert (cluster.directory / "c.safetensors").read_bytes() == undisturbed


def test_attempts_are_limited(warned, cluster):
    cluster.write("counts.py", COUNTS)
    options = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2")
    job = cluster.submit("preemptible.sbatch", "counts.py", 100_000, options=options, MAX_ATTEMPTS="2")
    for attempt in (1, 2):
        both_begin(job, attempt)
        cluster.run("scancel", "--batch", "--signal=USR1", job.number)
        job.is_back(attempt)
    said = job.ends("FAILED", 1)
    assert said.splitlines()[-1].endswith("this would be attempt 3, and MAX_ATTEMPTS=2: gives up")
    counted = [int(count) for count in re.findall(r"rank 0 (?:begins|ends) at (\d+)", said)]
    assert counted[0] == 0 < counted[1] == counted[2] < counted[3]


@pytest.mark.parametrize("signals", [(), ("USR1",)])
def test_a_script_that_fails_is_not_put_back(cluster, signals):
    cluster.write(
        "fails.py", COUNTS.replace("checkpoint.write_text(str(count))", "raise OSError(28, 'the disk is full')")
    )
    options = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2")
    job = cluster.submit("preemptible.sbatch", "fails.py", 100_000 if signals else 3, options=options)
    if signals:
        both_begin(job)
        cluster.run("scancel", "--batch", "--signal=USR1", job.number)
    said = job.ends("FAILED", 1)
    assert "by OSError: [Errno 28] the disk is full" in said
    assert said.splitlines()[-1].endswith("ended with exit code 1 in attempt 1")


@pytest.mark.parametrize(
    ("script", "text"), [("cpu.sbatch", COUNTS), ("preemptible.sbatch", COUNTS), ("srun.sbatch", COUNTS), ("cpu.sbatch", STUBBORN)],
    ids=["cpu", "preemptible", "srun", "cpu, ranks that ignore it"],
)  # fmt: skip
def test_scancel_leaves_no_process(cluster, script, text):
    cluster.write("script.py", text.replace("RANK", "SLURM_PROCID") if script == "srun.sbatch" else text)
    environ = {"MPI_TYPE": "pmi2"} if script == "srun.sbatch" else {}
    job = cluster.submit(script, "script.py", 100_000, options=ON_EACH_NODE, **environ)
    both_begin(job)
    assert len(job.processes()) > 2
    cluster.run("scancel", job.number)
    job.until(lambda: job.state == "CANCELLED", "the cancellation")
    job.until(lambda: not job.processes(), f"the end of {job.processes()}", 60)
    time.sleep(0.2)
    assert job.processes() == []
    assert job.fields()["Restarts"] == "0"


# Rank 1 never comes to the second all_reduce.
STUCK = """
import os, time
import disttorch
import disttorch.distributed as dist
dist.init_process_group()
x = disttorch.ones(8)
dist.all_reduce(x)
os.write(1, f"rank {dist.get_rank()} begins at {x[0].item()}\\n".encode())
if dist.get_rank() == 1:
    time.sleep(600)
dist.all_reduce(x)
"""


def test_a_stuck_job_says_where_it_is(cluster):
    cluster.write("stuck.py", STUCK)
    job = cluster.submit("cpu.sbatch", "stuck.py", options=ON_EACH_NODE, DLAUNCH="dlaunch --log-dir logs")
    both_begin(job)
    time.sleep(11)  # the doctor does not call a rank stuck that has waited for less than ten seconds
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)
    flight = cluster.directory / f"flight-{job.number}"
    job.until(lambda: len(list(flight.glob("rank-*.flight.json"))) == 2, "the flight records")
    assert job.state == "RUNNING"
    said = cluster.run("dlaunch", "doctor", str(flight))
    assert re.search(r"^Rank 1 .*all_reduce.* rank 0 ", said, re.MULTILINE), said
    assert "stuck.py:10" in said  # where rank 1 is
    assert [(cluster.directory / "logs" / f"rank-{rank}.out").read_text() for rank in range(2)] == [
        f"rank {rank} begins at 2.0\n" for rank in range(2)
    ]


def test_slurm_warns_of_the_time_limit(warned):
    """The `#SBATCH --signal` line itself: Slurm sends SIGUSR1, and the job goes back into the queue."""
    warned.says("goes back into the queue")
    warned.until(lambda: int(warned.fields()["Restarts"]) > 0, "its restart")  # which may be over by now
    said = warned.output
    assert re.search(r"rank 0 ends at \d+, asked by \['SIGUSR1'\]", said)
    print(said)
    assert re.search(r"rank 1 ends at \d+, asked by \['SIGUSR1'\]", said)
    assert "saved before the time limit in attempt 1: goes back into the queue\n" in said
