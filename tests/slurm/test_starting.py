"""The batch scripts that start ranks, submitted as they are to a Slurm of two nodes."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist.py"
SCRIPTS = sorted(path.name for path in (ROOT / "slurm").glob("*.sbatch"))
CLOTHING = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
QUICK = ("--images", 2048, "--epochs", 2)

# What each rank sees, in a file of its own: lines of several ranks may run into each other in the job's output.
SEES = """
import json, os, sys
import disttorch
import disttorch.distributed as dist
dist.init_process_group()
rank, size = dist.get_rank(), dist.get_world_size()
total = disttorch.tensor(float(rank))
dist.all_reduce(total)
names = ("SLURMD_NODENAME", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MASTER_ADDR")
with open(f"saw.{rank}.json", "w") as file:
    json.dump({"rank": rank, "size": size, "total": total.item(), "arguments": sys.argv[1:]}
              | {name: os.environ.get(name) for name in names}, file)
dist.destroy_process_group()
"""


@pytest.fixture(scope="session")
def vendor():
    """Whose MPI this environment has."""
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    return MPI.get_vendor()[0]


def saw(cluster):
    """What the ranks of the latest job saw, sorted by rank; they must be all ranks of one world."""
    found = sorted((json.loads(p.read_text()) for p in cluster.directory.glob("saw.*.json")), key=lambda s: s["rank"])
    size = len(found)
    assert [(s["rank"], s["size"]) for s in found] == [(rank, size) for rank in range(size)]
    assert {s["total"] for s in found} == {sum(range(size))}
    return found


def column(found, name):
    return [s[name] for s in found]


def accuracy(output):
    return float(re.findall(r"test accuracy ([0-9.]+)", output)[-1])


@pytest.mark.parametrize("script", SCRIPTS)
def test_says_how_it_is_used(script):
    ended = subprocess.run(["bash", ROOT / "slurm" / script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"slurm/{script} " in ended.stderr
    assert ended.stderr.startswith("usage: sbatch ")


def test_the_readme_tells_of_every_script():
    text = (ROOT / "slurm" / "README.md").read_text()
    assert [script for script in SCRIPTS if f"`{script}`" not in text] == []


def test_dlaunch_on_two_nodes(cluster):
    cluster.write("sees.py", SEES)
    job = cluster.submit("cpu.sbatch", "sees.py", "--lr", "two words", options=("--cpus-per-task=2",))
    assert job.ends() == ""
    found = saw(cluster)
    assert column(found, "SLURMD_NODENAME") == ["n1", "n1", "n2", "n2"]
    assert column(found, "LOCAL_RANK") == ["0", "1", "0", "1"]
    assert column(found, "OMP_NUM_THREADS") == ["2"] * 4
    assert column(found, "MASTER_ADDR") == ["n1"] * 4
    assert column(found, "arguments") == [["--lr", "two words"]] * 4
    assert sorted(p.name for p in cluster.directory.glob("dlaunch-*")) == []


def test_mpiexec_on_two_nodes(cluster):
    cluster.write("sees.py", SEES)
    options = ("--nodes=2", "--ntasks-per-node=2", "--output=disttorch-%j.out")
    cluster.sbatch(*options, "--wrap=exec mpiexec -n 4 python sees.py").ends()
    assert column(saw(cluster), "SLURMD_NODENAME") == ["n1", "n1", "n2", "n2"]


def test_srun_on_two_nodes(cluster, vendor):
    cluster.write("sees.py", SEES)
    job = cluster.submit("srun.sbatch", "sees.py", "--lr", "two words", options=("--cpus-per-task=2",))
    if vendor == "Open MPI":
        if not slurm_has_pmix(cluster):
            said = job.ends("FAILED", 1)
            assert "mpi4py loads Open MPI, so srun gets --mpi=pmix" in said
            assert "srun.sbatch: this Slurm starts no ranks with --mpi=pmix; srun's own message is above." in said
            return
        assert "srun gets --mpi=pmix" in job.ends()
    else:
        assert "srun gets --mpi=pmi2" in job.ends()
    found = saw(cluster)
    assert column(found, "SLURMD_NODENAME") == ["n1", "n1", "n2", "n2"]
    assert column(found, "OMP_NUM_THREADS") == ["2"] * 4
    assert column(found, "arguments") == [["--lr", "two words"]] * 4


def slurm_has_pmix(cluster):
    tried = subprocess.run(
        ["srun", "--mpi=pmix", "--ntasks=1", "true"],
        env=cluster.environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return tried.returncode == 0


def test_the_wrong_mpi_type_is_said_to_be_wrong(cluster, vendor):
    """Each process would train the whole model alone; without a type, or with another MPI's."""
    cluster.write("sees.py", SEES)
    for kind in ("none", *(["pmi2"] if vendor == "Open MPI" else [])):
        said = cluster.submit("srun.sbatch", "sees.py", MPI_TYPE=kind).ends(
            "FAILED", 1, 143
        )  # srun's is the ranks' highest
        assert re.search(r"LaunchError: the environment says rank \d of 4 \(.*\), but MPI says rank 0 of 1\.", said)
        assert "every process is alone in its world. Start it with its own mpiexec" in said
        assert f"`srun --mpi={'pmix' if vendor == 'Open MPI' else 'pmi2'}`, or with dlaunch" in said
        assert list(cluster.directory.glob("saw.*.json")) == []


@pytest.mark.parametrize(("script", "nodes"), [("gpu.sbatch", ["n1"]), ("gpu-multinode.sbatch", ["n1", "n2"])])
def test_every_rank_sees_all_gpus_of_its_node(cluster, script, nodes):
    cluster.write("sees.py", SEES)
    size = ("--ntasks-per-node=2", "--cpus-per-task=2")
    assert cluster.submit(script, "sees.py", options=("--gpus-per-node=2", *size)).ends() == ""
    found = saw(cluster)
    assert column(found, "SLURMD_NODENAME") == [node for node in nodes for _ in range(2)]
    assert column(found, "LOCAL_RANK") == ["0", "1"] * len(nodes)
    assert column(found, "CUDA_VISIBLE_DEVICES") == ["0,1"] * 2 * len(nodes)


@pytest.mark.parametrize("script", ["gpu.sbatch", "gpu-multinode.sbatch"])
def test_more_ranks_than_gpus_are_refused(cluster, script):
    size = ("--gpus-per-node=2", "--ntasks-per-node=4", "--cpus-per-task=1")
    said = cluster.submit(script, "sees.py", options=size).ends("FAILED", 2)
    assert said == f"{script}: 4 ranks a node, but 2 GPUs: give --ntasks-per-node and --gpus-per-node the same number\n"


@CLOTHING
def test_an_array_is_a_sweep(cluster):
    cluster.write("sweep.txt", "    --lr 1e-3\n--lr 4e-3 --batch-size 64\n")
    arguments = ("sweep.txt", EXAMPLE, *QUICK, "--checkpoint", "runs/%a.safetensors")
    job = cluster.submit("array.sbatch", *arguments, options=("--array=1-3",))
    first, second, third = (type(job)(cluster, f"{job.number}_{element}", job.mark) for element in (1, 2, 3))
    assert "array.sbatch: sweep.txt has no line 3; it has 2 lines, counted from 1\n" == third.ends("FAILED", 2)
    for element, setting in ((first, "--lr 1e-3"), (second, "--lr 4e-3 --batch-size 64")):
        said = element.ends()
        number = element.number[-1]
        assert re.match(rf"element {number} of job \d+: .*--checkpoint runs/{number}.safetensors {setting}\n", said), (
            said
        )
        assert "1 rank(s) on cpu" in said
        assert 0.5 < accuracy(said) < 1
    assert accuracy(first.output) != accuracy(second.output)
    runs = sorted((cluster.directory / "runs").iterdir())
    assert [run.name for run in runs] == ["1.safetensors", "2.safetensors"]
    assert runs[0].read_bytes() != runs[1].read_bytes()


def test_an_array_over_a_file_with_an_empty_line_and_no_newline_at_its_end(cluster):
    cluster.write("sweep.txt", "\n--lr 1")
    cluster.write("says.py", "import sys\nprint(sys.argv[1:])\n")
    job = cluster.submit("array.sbatch", "sweep.txt", "says.py", "--epochs", "2", options=("--array=1-3",))
    first, second, third = (type(job)(cluster, f"{job.number}_{element}", job.mark) for element in (1, 2, 3))
    assert first.ends().endswith("\n['--epochs', '2']\n")
    assert second.ends().endswith("\n['--epochs', '2', '--lr', '1']\n")
    assert "array.sbatch: sweep.txt has no line 3; it has 2 lines, counted from 1\n" == third.ends("FAILED", 2)


@CLOTHING
def test_the_example_learns_on_two_nodes_by_dlaunch_and_by_srun_alike(cluster, vendor):
    jobs = [cluster.submit("cpu.sbatch", EXAMPLE, *QUICK, "--checkpoint", "dlaunch.safetensors")]
    if vendor != "Open MPI" or slurm_has_pmix(cluster):
        jobs.append(cluster.submit("srun.sbatch", EXAMPLE, *QUICK, "--checkpoint", "srun.safetensors"))
    for job in jobs:
        said = job.ends()
        assert "Fashion-MNIST from /usr/share/datasets/fashion-mnist" in said
        assert "4 rank(s) on cpu" in said
        assert 0.5 < accuracy(said) < 1
    # The sums over the ranks may be taken in another order, so not to the bit.
    assert accuracy(jobs[0].output) == pytest.approx(accuracy(jobs[-1].output), abs=0.02)
