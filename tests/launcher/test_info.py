"""What `dlaunch info` finds on hosts that the tests make up, and on this one."""

import json
import os
import platform
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from launcher import info
from launcher.inventory import blas, gpu, host, mpi, packages, slurm
from launcher.inventory.probe import ProbeError, ask, say, size
from launcher.mpi import find_mpi
from launcher.processor import gains_by_avx512

ROOT = Path(__file__).resolve().parents[2]


def tree(root, files):
    """Writes files, named by their path below a root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def program(directory, name, text):
    """Makes a shell script; returns an environment whose PATH has it alone."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)
    return {"PATH": str(directory)}


# Asking -----------------------------------------------------------------------------------------------------------------

ASKED = [
    # program, what is answered, or words of the error
    ("print('{\"a\": 1}')", {"a": 1}, None),
    ("print('chatter'); print('[2]')", [2], None),
    ("import nowhere", None, "ModuleNotFoundError: No module named 'nowhere'"),
    ("import os; os.kill(os.getpid(), 11)", None, "killed by SIGSEGV"),
    ("raise SystemExit(3)", None, "exit code 3"),
    ("pass", None, "it printed nothing"),
    ("print('hello')", None, "it printed 'hello'"),
    ("import time; time.sleep(60)", None, "no answer in 1 s"),
]


@pytest.mark.parametrize(("text", "answer", "error"), ASKED, ids=[row[0] for row in ASKED])
def test_ask(plain_environ, text, answer, error):
    patience = 1.0 if "sleep" in text else 30.0
    if error is None:
        assert ask(sys.executable, text, plain_environ, patience) == answer
        return
    with pytest.raises(ProbeError) as caught:
        ask(sys.executable, text, plain_environ, patience)
    assert str(caught.value) == error


def test_say_names_a_program_that_is_not_there(plain_environ):
    with pytest.raises(ProbeError, match="/nowhere/nvidia-smi: No such file"):
        say(["/nowhere/nvidia-smi"], plain_environ)


# Processors -------------------------------------------------------------------------------------------------------------

# Two sockets of two cores with two hardware threads each, as Linux numbers them.
TWO_SOCKETS = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu avx2\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/devices/system/node/node0/cpulist": "0-1,4-5\n",
    "sys/devices/system/node/node1/cpulist": "2-3,6-7\n",
    "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       16777216 kB\n",
    "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:       16777216 kB\n",
    **{f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)},
}
PLACEMENTS = [
    # ranks, bind, usable, environment, lines
    (2, "none", range(8), {}, ["ranks 0, 1  4 threads each, on processors 0-7, shared by 2 ranks"]),
    (2, "cores", range(8), {}, ["rank 0  4 threads, on processors 0, 1, 4, 5", "rank 1  4 threads, on processors 2, 3, 6, 7"]),
    (4, "cores", range(8), {}, [
        "rank 0  2 threads, on processors 0, 4", "rank 1  2 threads, on processors 1, 5", "rank 2  2 threads, on processors 2, 6",
        "rank 3  2 threads, on processors 3, 7"]),
    (4, "numa", range(8), {}, [
        "ranks 0, 1  2 threads each, on processors 0, 1, 4, 5, shared by 2 ranks",
        "ranks 2, 3  2 threads each, on processors 2, 3, 6, 7, shared by 2 ranks"]),
    (1, "none", [2, 3], {}, ["rank 0  2 threads, on processors 2, 3"]),
    (2, "none", range(8), {"OMP_NUM_THREADS": "3"}, ["ranks 0, 1  3 threads each, on processors 0-7, shared by 2 ranks"]),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "bind", "usable", "environ", "lines"), PLACEMENTS)
def test_placement(tmp_path, ranks, bind, usable, environ, lines):
    found = host.processors(ranks, bind, environ, set(usable), tree(tmp_path, TWO_SOCKETS))
    rows = [f"{name}  {value}" for name, value in host.processor_rows(found)]
    assert [row for row in rows if row.startswith("rank")] == lines
    assert rows[0] == "processor  Example 9000"


def test_processors_and_nodes(tmp_path):
    found = host.processors(1, "none", {}, {0, 1, 4, 5, 2}, tree(tmp_path, TWO_SOCKETS))
    assert host.processor_rows(found)[1:4] == [
        ("processors", "5 of 8 usable: 0-2, 4, 5; 3 cores"),
        ("NUMA node 0", "processors 0, 1, 4, 5; 16 GiB"),
        ("NUMA node 1", "processor 2; 16 GiB"),
    ]


def test_a_host_of_which_the_kernel_says_nothing(tmp_path):
    found = host.processors(1, "none", {}, {0, 1}, tmp_path)
    assert [name for name, _ in host.processor_rows(found)] == ["processor", "processors", "NUMA node not known", "rank 0"]
    assert host.memory_rows(host.memory(tmp_path)) == [("memory", "not known"), ("/dev/shm", "No such file or directory")]


def test_many_kinds_of_ranks_are_not_all_listed(tmp_path):
    found = host.processors(64, "cores", {}, set(range(64)), tmp_path)
    rows = host.processor_rows(found)
    assert rows[-1] == ("", "and 56 ranks more, likewise")


QUOTAS = [
    # files, processors' time, bytes of memory
    ({}, None, None),
    ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, 1.5, None),
    ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, None, None),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
      "sys/fs/cgroup/a/cpu.max": "200000 100000\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}, 2.0, 1 << 30),
    # in a container: the path is the host's, the files are at the top
    ({"proc/self/cgroup": "0::/../docker/f00\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, None),
    ({"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n",
      "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2147483648\n"},
     3.0, 2 << 30),
    ({"proc/self/cgroup": "4:memory:/\n3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("files", "quota", "limit"), QUOTAS)
def test_limits_of_containers(tmp_path, files, quota, limit):
    tree(tmp_path, files)
    assert host.processors(1, "none", {}, {0}, tmp_path)["quota"] == quota
    assert host.memory(tmp_path)["limit"] == limit


def test_ranks_start_no_more_threads_than_a_container_may_run(tmp_path):
    tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "500000 100000\n"})

    def threads(ranks, bind="none", environ=None):
        return {rank["threads"] for rank in host.processors(ranks, bind, environ or {}, set(range(64)), tmp_path)["ranks"]}

    assert (threads(1), threads(2), threads(2, "cores"), threads(8)) == ({"5"}, {"2"}, {"2"}, {"1"})
    assert threads(2, environ={"OMP_NUM_THREADS": "9"}) == {"9"}


def test_memory(tmp_path):
    tree(tmp_path, {"proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  4194304 kB\n", "dev/shm/file": ""})
    found = host.memory(tmp_path)
    shm = os.statvfs(tmp_path)
    assert found["shm"]["size"] == shm.f_frsize * shm.f_blocks
    assert host.memory_rows(found)[0] == ("memory", "8 GiB, 4 GiB available")


def test_memory_and_limits_of_this_host():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) << 10
    assert host.memory()["total"] == total
    shell = subprocess.run(["/bin/sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout.strip()
    assert str(host.limits()["open files"] or "unlimited") == shell


def situation(**changes):
    """What `host.remarks` is told, of a host about which there is nothing to say."""
    found = {
        "processors": {"ranks": [{"threads": "2"}] * 2, "usable": [0, 1, 2, 3], "quota": None},
        "memory": {"shm": {"size": 8 << 30, "free": 8 << 30}, "shm_error": None},
        "limits": {"locked memory": 8 << 20},
        "fabrics": [],
    }
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found


REMARKS = [
    # situation, words of the only remark, or none
    (situation(), None),
    (situation(processors={"ranks": [{"threads": "1"}] * 8}), "8 ranks share 4 processors"),
    (situation(processors={"quota": 3.0}), "quota (3 processors) is less than the threads that the ranks start (4)"),
    (situation(processors={"quota": 3.0}), "dlaunch --threads 1 fits"),
    (situation(processors={"quota": 1.5, "ranks": [{"threads": "1,4"}] * 2}), "the threads that the ranks start (2)"),
    (situation(processors={"quota": 4.0}), None),
    (situation(memory={"shm": {"size": 64 << 20, "free": 0}}), "/dev/shm has 64 MiB"),
    (situation(memory={"shm": None, "shm_error": "No such file or directory"}), "/dev/shm: No such file or directory"),
    (situation(fabrics=["mlx5_0"]), "Locked memory is limited to 8 MiB, and mlx5_0"),
    (situation(fabrics=["mlx5_0"], limits={"locked memory": None}), None),
]


@pytest.mark.parametrize(("found", "words"), REMARKS)
def test_remarks(found, words):
    remarks = host.remarks(found)
    assert len(remarks) == (words is not None)
    assert not remarks or words in remarks[0]


# GPUs -------------------------------------------------------------------------------------------------------------------

SMI = """case "$1" in
*compute_cap*) echo '0, NVIDIA H200, GPU-aa, 143771, 143000, 570.86.15, 9.0'
echo '1, NVIDIA H200, GPU-bb, 143771, [N/A], 570.86.15, 9.0';;
esac"""
OLD_SMI = """case "$1" in
*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;;
*) echo '0, Tesla K80, GPU-cc, 11441, 11000, 450.80.02';;
esac"""
KERNEL = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": (
        "Model: \t\t NVIDIA A100\nIRQ:   \t\t 42\nGPU UUID: \t GPU-dd\nDevice Minor: \t 3\n"
    ),
}
# Stands in for the driver's library in the process that asks it.
DRIVER = """
import ctypes, sys
class Driver:
    def __getattr__(self, name):
        return getattr(self, "_" + name)
    def _cuInit(self, flags): return 0
    def _cuDeviceGetCount(self, number): number._obj.value = 1; return 0
    def _cuDriverGetVersion(self, number): number._obj.value = 13010; return 0
    def _cuDeviceGet(self, device, index): device._obj.value = index; return 0
    def _cuDeviceGetName(self, name, length, device): name.value = b"NVIDIA B200"; return 0
    def _cuDeviceTotalMem_v2(self, memory, device): memory._obj.value = 180 << 30; return 0
    def _cuDeviceGetAttribute(self, value, attribute, device): value._obj.value = {75: 10, 76: 3}[attribute]; return 0
    def _cuGetErrorName(self, status, text): text._obj.value = b"CUDA_ERROR_NO_DEVICE"; return 0
real = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: Driver() if name == "libcuda.so.1" else real(name, *rest, **more)
"""
NO_DEVICE = DRIVER.replace("def _cuInit(self, flags): return 0", "def _cuInit(self, flags): return 100")

GPUS = [
    # nvidia-smi, driver's library, kernel's files, lines
    (SMI, None, {}, [
        "GPU 0: NVIDIA H200, 140.4 GiB (139.6 GiB free), compute capability 9.0",
        "GPU 1: NVIDIA H200, 140.4 GiB, compute capability 9.0", "driver: 570.86.15"]),
    (SMI, DRIVER, {}, [
        "GPU 0: NVIDIA H200, 140.4 GiB (139.6 GiB free), compute capability 9.0",
        "GPU 1: NVIDIA H200, 140.4 GiB, compute capability 9.0", "driver: 570.86.15, runs CUDA up to 13.1"]),
    (OLD_SMI, None, {}, ["GPU 0: Tesla K80, 11.2 GiB (10.7 GiB free)", "driver: 450.80.02"]),
    (None, DRIVER, KERNEL, ["GPU 0: NVIDIA B200, 180 GiB, compute capability 10.3", "driver: 535.129.03, runs CUDA up to 13.1"]),
    (None, None, KERNEL, ["GPU 3: NVIDIA A100", "driver: 535.129.03"]),
    ("echo 'No devices were found'", NO_DEVICE, {}, ["GPUs: none (cuInit: CUDA_ERROR_NO_DEVICE)"]),
    ("echo 'NVIDIA-SMI has failed' >&2; exit 9", NO_DEVICE, {}, [
        "GPUs: none (nvidia-smi: NVIDIA-SMI has failed; cuInit: CUDA_ERROR_NO_DEVICE)"]),
]  # fmt: skip


@pytest.mark.parametrize(("smi", "driver", "kernel", "lines"), GPUS)
def test_gpus(tmp_path, smi, driver, kernel, lines):
    environ = program(tmp_path / "bin", "nvidia-smi", smi) if smi else {"PATH": str(tmp_path)}
    environ["PYTHONPATH"] = str(tmp_path)
    # Without a stand-in there is none, whatever this host has.
    (tmp_path / "sitecustomize.py").write_text(driver or DRIVER.replace('Driver() if name', '1 / 0 if name'))
    found = gpu.probe(environ, tree(tmp_path, kernel))
    rows = [f"{name}: {value}" for name, value in gpu.rows(found, 1)]
    assert [row for row in rows if not row.startswith("rank")] == lines


@pytest.mark.parametrize(
    ("visible", "ranks", "lines"),
    [
        (None, 2, [("ranks", "rank r takes GPU r, 0 to 1")]),
        (None, 3, [("ranks", "3 ranks, 2 GPUs: not one for each (dlaunch -n 2)")]),
        ("1", 1, [("CUDA_VISIBLE_DEVICES", "1: 1 of 2 may be used"), ("rank 0", "takes GPU 0 of these")]),
        ("", 1, [("CUDA_VISIBLE_DEVICES", "(empty): 0 of 2 may be used"), ("rank 0", "gets none")]),
    ],
)
def test_gpus_of_the_ranks(tmp_path, visible, ranks, lines):
    environ = program(tmp_path, "nvidia-smi", SMI)
    if visible is not None:
        environ["CUDA_VISIBLE_DEVICES"] = visible
    assert gpu.rows(gpu.probe(environ, tmp_path), ranks)[-len(lines) :] == lines


# Packages ---------------------------------------------------------------------------------------------------------------

CUPY = """
__version__ = "14.0.0"
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError): pass
        @staticmethod
        def runtimeGetVersion(): return 12090
        @staticmethod
        def getDeviceCount(): {}
"""
LOADED = [
    # module, its text, name, the line of the report
    ("cupy", CUPY.format("return 2"), "CuPy", "14.0.0 for CUDA 12.9, sees 2 GPUs"),
    ("cupy", CUPY.format("raise cuda.runtime.CUDARuntimeError('no driver')"), "CuPy", "14.0.0 for CUDA 12.9, sees 0 GPUs (no driver)"),
    ("cudnn", "__version__ = '1.15.0'\n", "cuDNN frontend", "1.15.0"),
    ("ml_dtypes", "import os; os.kill(os.getpid(), 4)\n", "ml_dtypes", "does not load: killed by SIGILL"),
    ("mpi4py", "raise ImportError('built for another Python')\n", "mpi4py", "does not load: ImportError: built for another Python"),
]


@pytest.mark.parametrize(("module", "text", "name", "line"), LOADED)
def test_packages_are_loaded_elsewhere(tmp_path, plain_environ, module, text, name, line):
    (tmp_path / f"{module}.py").write_text(text)
    environ = {**plain_environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    [package] = [package for package in packages.PACKAGES if package.name == name]
    answer = packages._ask(package, environ, sys.executable)
    [(_, said)] = [row for row in packages.rows({**_nothing_installed(), name: answer}) if row[0] == name]
    assert said.startswith(line) if line[0].isdigit() else said.endswith(line)


def _nothing_installed():
    return {package.name: {"installed": None, "version": None, "error": "no"} for package in packages.PACKAGES}


def test_versions_are_those_that_are_loaded(plain_environ):
    import ml_dtypes
    import mpi4py
    import numpy

    import disttorch

    found = packages.probe(plain_environ)
    for name, module in (("numpy", numpy), ("mpi4py", mpi4py), ("ml_dtypes", ml_dtypes), ("disttorch", disttorch)):
        assert found[name]["version"] == module.__version__ and found[name]["error"] is None
    assert packages.own_version() == disttorch.__version__


def test_every_missing_package_has_a_command():
    assert [what for what, _, needed in packages.missing(_nothing_installed()) if needed] == [
        "disttorch (tensors and training)", "numpy (arrays of the CPU)", "ml_dtypes (bfloat16)", "mpi4py (MPI from Python)",
    ]  # fmt: skip
    extras, readme = (ROOT / "pyproject.toml").read_text(), (ROOT / "README.md").read_text()
    for _, install, _ in packages.missing(_nothing_installed()):
        if install != "pip install disttorch":
            extra = re.search(r"\[(.+)\]", install)[1]
            assert f"\n{extra} = [" in extras and f"[{extra}]" in readme, extra


# BLAS -------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="core types of other processors have other names")
@pytest.mark.parametrize("core", ["Nehalem", "Sandybridge"])
@pytest.mark.parametrize("by", ["the library itself", "threadpoolctl"])
def test_kernels_are_those_that_openblas_was_told(tmp_path, plain_environ, core, by):
    path = plain_environ["PYTHONPATH"]
    if by == "threadpoolctl":
        pytest.importorskip("threadpoolctl")
    else:  # also where it is installed
        (tmp_path / "threadpoolctl.py").write_text("raise ImportError\n")
        path = f"{tmp_path}:{path}"
    found = blas.probe({**plain_environ, "PYTHONPATH": path, "OPENBLAS_CORETYPE": core})
    assert (found["kernels"], found["name"], found["by"]) == (core, "openblas", by)
    assert Path(found["path"]).is_file()
    assert found["version"].startswith("0.")


def test_threadpoolctl_is_asked_where_it_is_installed(tmp_path, plain_environ):
    (tmp_path / "threadpoolctl.py").write_text(
        "def threadpool_info():\n"
        "    return [{'user_api': 'openmp'}, {'user_api': 'blas', 'internal_api': 'mkl', 'version': '2025.1', 'num_threads': 4,\n"
        "             'filepath': '/opt/libmkl_rt.so'}]\n"
    )
    found = blas.probe({**plain_environ, "PYTHONPATH": str(tmp_path)})
    assert blas.rows(found) == [("NumPy's BLAS", "MKL 2025.1 (/opt/libmkl_rt.so)")]


def test_kernels_without_avx512_are_remarked_upon(tmp_path):
    flags = "flags\t: fpu avx2 avx512f avx512bw avx512cd avx512dq avx512vl\n"
    files = tree(tmp_path, {"new": flags, "old": "flags\t: fpu avx2\n", "zen4": f"vendor_id\t: AuthenticAMD\ncpu family\t: 25\n{flags}"})
    said = {name: gains_by_avx512(files / name) for name in ("new", "old", "zen4", "none")}
    assert said == {"new": True, "old": False, "zen4": False, "none": None}
    found = {"error": None, "name": "openblas", "version": "0.3.30", "path": None, "kernels": "Haswell", "threads": 8, "avx512": True}
    assert "this processor has AVX-512, and these kernels do not use it" in dict(blas.rows(found))["kernels"]
    assert "AVX-512" not in dict(blas.rows({**found, "avx512": False}))["kernels"]


# MPI --------------------------------------------------------------------------------------------------------------------


def test_mpi_is_the_one_that_dlaunch_uses(plain_environ):
    expected = find_mpi("auto", plain_environ)
    found = mpi.probe(plain_environ)
    assert (found["flavour"], found["mpiexec"], found["library"]) == (expected.engine.name, expected.mpiexec, expected.library)
    assert found["error"] is None
    assert found["cuda"] is False, "the MPIs that pip installs are built without CUDA"


CUDA = [
    # flavour, what it says, whether it is CUDA-aware
    ("Open MPI", "mca:opal:base:param:opal_built_with_cuda_support:value:true", True),
    ("Open MPI", "mca:mpi:base:param:mpi_built_with_cuda_support:value:false", False),
    ("Open MPI", "package:Open MPI", None),
    ("MPICH", "MPICH Version: 4.2\nMPICH configure:\t--with-device=ch4:ucx --with-cuda=/usr/local/cuda\n", True),
    ("MPICH", "MPICH Version: 4.2\nMPICH configure:\t--with-device=ch4:ofi --with-cuda=no\n", False),
    ("MPICH", "MPICH Version: 4.2\nMPICH configure:\t--with-device=ch4:ofi\n", False),
    ("MPICH", "MPI VERSION    : CRAY MPICH version 8.1.28", False),
    ("Intel MPI", "Intel(R) MPI Library 2021.11 for Linux* OS", None),
]


@pytest.mark.parametrize(("flavour", "said", "aware"), CUDA)
def test_cuda_aware(monkeypatch, flavour, said, aware):
    monkeypatch.setattr(mpi, "say", lambda command, environ: said)
    monkeypatch.setattr(mpi, "ask", lambda python, text, environ: said)
    found, why = mpi._cuda(flavour, "/opt/bin/mpiexec", {}, "python")
    assert found is aware and why


def test_cray_takes_gpu_arrays_where_it_is_told_to(monkeypatch):
    monkeypatch.setattr(mpi, "ask", lambda python, text, environ: "CRAY MPICH version 8.1.28")
    assert mpi._cuda("MPICH", "mpiexec", {"MPICH_GPU_SUPPORT_ENABLED": "1"}, "python")[0] is True


# Slurm ------------------------------------------------------------------------------------------------------------------

ALLOCATION = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "8",
    "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_CPUS_PER_TASK": "6", "SLURM_JOB_PARTITION": "gpu", "SLURM_GPUS_ON_NODE": "4",
}  # fmt: skip
SRUNS = [
    # srun, environment, flavour, lines
    (None, {}, "MPICH", ["Slurm: not here: neither an allocation nor srun"]),
    ("printf 'MPI plugin types are...\\n\\tcray_shasta\\n\\tnone\\n\\tpmi2\\n'", {}, "MPICH", [
        "Slurm: not inside an allocation", "srun --mpi: cray_shasta, none, pmi2; MPICH is started with --mpi=pmi2"]),
    ("printf 'srun: MPI types are...\\nsrun: pmi2\\nsrun: none\\n' >&2", ALLOCATION, "Open MPI", [
        "Slurm: job 77, partition gpu", "nodes: 2 (n[1-2])", "tasks: 8, 4(x2) a node, 6 processors each, 4 GPUs on this node",
        "srun --mpi: pmi2, none; none of them starts Open MPI, which needs pmix: dlaunch starts it through mpiexec"]),
    ("printf 'MPI plugin types are...\\n\\tnone\\n\\tpmix\\nspecific pmix plugin versions available: pmix_v4\\n'", {}, "Open MPI", [
        "Slurm: not inside an allocation", "srun --mpi: none, pmix; Open MPI is started with --mpi=pmix"]),
    ("echo 'srun: fatal: no configuration' >&2; exit 1", {"SLURM_JOB_ID": "5"}, None, [
        "Slurm: job 5", "nodes: ? (not named)", "tasks: not given (sbatch --ntasks)",
        "srun --mpi: not known: srun: fatal: no configuration"]),
    ("echo", {}, None, ["Slurm: not inside an allocation", "srun --mpi: not known: srun --mpi=list names none"]),
]  # fmt: skip


@pytest.mark.parametrize(("srun", "environ", "flavour", "lines"), SRUNS)
def test_slurm(tmp_path, srun, environ, flavour, lines):
    path = program(tmp_path, "srun", srun) if srun else {"PATH": str(tmp_path)}
    found = slurm.probe({**path, **environ})
    assert [f"{name}: {value}" for name, value in slurm.rows(found, flavour)] == lines


# The whole --------------------------------------------------------------------------------------------------------------


def run(*arguments, python=sys.executable, **environ):
    text = "import sys; from launcher import info; code = info.main(sys.argv[1:])\n"
    text += "print('numpy' in sys.modules, file=sys.stderr); sys.exit(code)"
    return subprocess.run(
        [python, "-c", text, *arguments], env=environ, capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )


def test_the_report_of_this_host(plain_environ):
    done = run("-n", "2", **plain_environ)
    assert (done.returncode, done.stderr) == (0, "False\n"), "NumPy is not loaded into the process that reports"
    lines = done.stdout.splitlines()
    table = [line for line in lines[: lines.index("Memory and limits")] if line.startswith("  ")]
    columns = {len(line) - len(line[2:].partition("  ")[2].lstrip()) for line in table}
    assert len(columns) == 1, "values stand below each other"
    titles = [line for line in lines if line and line[0] != " "]
    assert titles[1:4] == ["Python", "Packages", "MPI"]
    assert "Processors, for dlaunch -n 2 --bind none on this host" in titles


def test_json(plain_environ):
    done = run("--json", "-n", "3", "--bind", "cores", **plain_environ)
    found = json.loads(done.stdout)
    assert [rank["local_rank"] for rank in found["processors"]["ranks"]] == [0, 1, 2]
    assert found["mpi"]["mpiexec"] == find_mpi("auto", plain_environ).mpiexec
    assert found["packages"]["numpy"]["version"]
    assert found["processors"]["usable"] == sorted(os.sched_getaffinity(0))


def test_an_environment_with_nothing_in_it(tmp_path, plain_environ):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare/bin/python")
    done = run("-n", "1", python=python, **{**plain_environ, "PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    for line in (
        f"MPI             none: {python} has no mpi4py; pip install \"disttorch[mpich]\" brings it with an MPI",
        "NumPy's BLAS    not known: ModuleNotFoundError: No module named 'numpy'",
        "numpy           not installed",
        "disttorch       disttorch",
        "Slurm           not here",
    ):
        assert f"  {line}" in done.stdout
    missing = done.stdout.split("Missing, and what brings it\n")[1].splitlines()
    assert [line.split()[0] for line in missing][:4] == ["disttorch", "numpy", "ml_dtypes", "mpi4py"]
    assert all("pip install" in line for line in missing)


def test_mpi4py_without_an_mpi(plain_environ):
    done = run("--json", **{**plain_environ, "MPI4PY_LIBMPI": "/nowhere/libmpi.so"})
    found = json.loads(done.stdout)
    assert found["mpi"]["mpiexec"] is None and "finds no MPI library" in found["mpi"]["error"]
    assert found["packages"]["mpi4py"]["version"], "the package itself is there"
    assert found["missing"][-1]["what"] == "MPI (ranks and messages between them)"


def test_the_ranks_start_without_a_core_type_for_an_older_processor(monkeypatch, plain_environ):
    seen = {}
    monkeypatch.setattr(info, "weaker_core_type", lambda environ: "left out" if "OPENBLAS_CORETYPE" in environ else None)
    monkeypatch.setattr(info, "core_type_variables", lambda environ: {})
    monkeypatch.setattr(packages, "probe", lambda environ: _nothing_installed())
    monkeypatch.setattr(blas, "probe", lambda environ: seen.update(environ) or {"error": "not asked"})
    found = info.gather(1, "none", {**plain_environ, "OPENBLAS_CORETYPE": "Nehalem", "PMI_RANK": "0"})
    assert found["remarks"][0] == "left out"
    assert seen["PATH"] == plain_environ["PATH"]
    assert not {"OPENBLAS_CORETYPE", "PMI_RANK"} & set(seen)


def test_gpu_packages_are_those_for_the_driver(tmp_path):
    found = {
        "packages": _nothing_installed(), "gpus": {"cuda": 13010, "devices": [{}]}, "mpi": {"error": None},
    }  # fmt: skip
    commands = {thing["what"].split()[0]: thing for thing in info._missing(found)}
    assert commands["CuPy"] == {"what": "CuPy (arrays of the GPU)", "install": 'pip install "disttorch[cuda13]"', "note": ""}
    found["gpus"] = {"cuda": 12080, "devices": []}
    commands = {thing["what"].split()[0]: thing for thing in info._missing(found)}
    assert commands["CuPy"]["install"] == 'pip install "disttorch[cuda12]"'
    assert commands["CuPy"]["note"] == " (only for a GPU, and none is seen here)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["-n", "0"], "at least 1; got '0'"), (["--bind", "sockets"], "sockets"), (["extra"], "extra"), (["--jso"], "--jso")],
)
def test_wrong_calls(capsys, arguments, said):
    assert info.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dlaunch info: ") and said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MiB"), (3 << 39, "1.5 TiB")])
def test_sizes(number, text):
    assert size(number) == text
