"""What is said where there is no process group, or it cannot be made; and what works without one."""

import json
import subprocess
import sys

import pytest

import disttorch
import disttorch.distributed as dist
from disttorch.distributed.elastic.multiprocessing.errors import record

NO_GROUP = "ValueError: Default process group has not been initialized"
CASES = [
    ("dist.get_rank()", NO_GROUP),
    ("dist.all_reduce(disttorch.ones(1))", NO_GROUP),
    ("dist.destroy_process_group()", NO_GROUP),
    ("dist.new_group([0])", NO_GROUP),
    ("disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(1, 1))", NO_GROUP),
    ("dist.init_process_group('smoke')", "ValueError: backend 'smoke' is not one of"),
    ("dist.init_process_group('cpu:nccl')", "ValueError: backend 'cpu:nccl': 'nccl' does not carry tensors on 'cpu'"),
    ("dist.init_process_group('cpu:gloo,cpu:mpi')", "ValueError: backend 'cpu:gloo,cpu:mpi' names the device type 'cpu' twice"),
    ("dist.init_process_group('cpu:tcp,cuda:mpi')", "ValueError: backend cpu:tcp,cuda:mpi: one transport joins the ranks"),
    ("dist.init_process_group(timeout=5)", "TypeError: init_process_group: Expected timeout argument to be of type datetime.timedelta"),
    ("dist.init_process_group(init_method='tcp://127.0.0.1:1')", "ValueError: Error initializing torch.distributed using tcp://"),
    ("dist.init_process_group(init_method='smoke://')", "RuntimeError: No rendezvous handler for smoke://"),
    ("dist.init_process_group(world_size=4)", "world_size=4 was given, but this process was started as world_size 1"),
    ("dist.init_process_group(rank=1, world_size=2)", "environment variable MASTER_ADDR expected, but not set"),
    ("dist.init_process_group(init_method=5)", "TypeError: init_process_group: init_method must be of type str, got 5"),
    ("dist.init_process_group(rank='0', world_size=1)", "TypeError: init_process_group: rank must be of type int, got '0'"),
    ("dist.init_process_group(store=3, rank=0, world_size=1)", "TypeError: init_process_group: store must be of type Store, got 3"),
    ("dist.init_process_group(store=dist.HashStore())", "AssertionError: init_process_group: with a store, rank and world_size must"),
    ("dist.init_process_group(store=dist.HashStore(), init_method='env://')", "AssertionError: Cannot specify both init_method and store"),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[c[0] for c in CASES])
def test_says_what_is_missing(call, message):
    program = f"import disttorch, disttorch.distributed as dist\nassert not dist.is_initialized()\n{call}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 1
    assert message in ended.stderr


@pytest.mark.skipif(disttorch.cuda.is_available(), reason="there is a GPU")
def test_nccl_without_a_gpu():
    program = "import disttorch.distributed as dist\ndist.init_process_group('nccl')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 1
    assert "RuntimeError: Distributed package doesn't have NCCL built in: backend 'nccl' carries tensors on GPUs" in ended.stderr


def test_world_of_one_and_again():
    program = """
import disttorch, disttorch.distributed as dist
for backend, name in (
    (None, "gloo"), ("gloo", "gloo"), ("GLOO", "gloo"), (dist.Backend.GLOO, "gloo"), ("local", "local"), ("cpu:gloo,cuda:nccl", "gloo"),
):
    dist.init_process_group(backend)
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, name)
    assert dist.group.WORLD.communicator.transport == "local"
    dist.destroy_process_group()
assert dist.group.WORLD is None
dist.init_device_mesh("cpu", (1,))  # which makes the world where there is none
assert dist.is_initialized()
assert dist.get_node_local_rank() == 0
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=180, check=False).returncode == 0


AVAILABLE = {"gloo": True, "GLOO": True, "mpi": True, "local": True, "cpu:gloo": True, "smoke": False, "cpu:gloo,cuda:smoke": False}


@pytest.mark.parametrize(("backend", "there"), AVAILABLE.items())
def test_which_backends_there_are(backend, there):
    assert dist.is_backend_available(backend) is there


def test_backends_by_name():
    assert dist.Backend("MPI") == dist.Backend.MPI == "mpi"
    assert dist.get_default_backend_for_device("cpu") == "gloo"
    assert dist.get_default_backend_for_device("cuda:1") == "nccl"
    assert repr(dist.BackendConfig("gloo")) == "cpu:gloo,cuda:gloo"
    with pytest.raises(ValueError, match="a name is wanted"):
        dist.Backend(3)
    assert dist.is_gloo_available()
    assert dist.is_mpi_available()
    assert not dist.is_ucc_available()
    assert not dist.is_xccl_available()


def test_reductions_by_name():
    op = dist.ReduceOp
    assert [str(o) for o in (op.SUM, op.AVG, op.PREMUL_SUM)] == ["RedOpType.SUM", "RedOpType.AVG", "RedOpType.PREMUL_SUM"]
    assert repr(op.BXOR) == "<RedOpType.BXOR: 7>"
    assert (op.BXOR.name, op.BXOR.value, op.PREMUL_SUM(0.5).name) == ("BXOR", 7, "PREMUL_SUM")
    assert op(op.SUM) == op.SUM == op.RedOpType.SUM == dist.reduce_op.SUM
    assert isinstance(op.SUM, op)
    assert dist._make_nccl_premul_sum(2.0).factor == op.PREMUL_SUM(2.0).factor == 2.0
    assert op.PREMUL_SUM(2.0).op == op.PREMUL_SUM
    assert [dist.supports_complex(o) for o in (op.SUM, op.AVG, op.MAX, op.PRODUCT, op.BAND)] == [True, True, False, False, False]
    with pytest.raises(TypeError, match="is none of"):
        op("median")
    with pytest.raises(TypeError, match="takes no factor"):
        op.SUM(3)


def test_debug_levels(monkeypatch):
    assert dist.get_debug_level() is dist.DebugLevel.OFF
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "detail")
    dist.set_debug_level_from_env()
    assert dist.get_debug_level() is dist.DebugLevel.DETAIL
    dist.set_debug_level(dist.DebugLevel.INFO)
    assert dist.get_debug_level() is dist.DebugLevel.INFO
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "loud")
    with pytest.raises(ValueError, match="must be `OFF`, `INFO`, or `DETAIL`"):
        dist.set_debug_level_from_env()
    monkeypatch.delenv("TORCH_DISTRIBUTED_DEBUG")
    dist.set_debug_level_from_env()
    assert dist.get_debug_level() is dist.DebugLevel.OFF


def test_launched_by_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not dist.is_torchelastic_launched()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    assert dist.is_torchelastic_launched()
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert dist.get_node_local_rank() == 2


def test_recorded_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))

    @record
    def main(x):
        """Divides."""
        return 1 / x

    assert main.__doc__ == "Divides."
    assert main(2) == 0.5
    assert not (tmp_path / "error.json").exists()
    with pytest.raises(ZeroDivisionError):
        main(0)
    said = json.loads((tmp_path / "error.json").read_text())["message"]
    assert said["message"] == "ZeroDivisionError: division by zero"
    assert "return 1 / x" in said["extraInfo"]["py_callstack"]
    assert int(said["extraInfo"]["timestamp"]) > 1.7e9


def test_names_of_pytorch():
    """Everything that PyTorch lists for users, but for what belongs to its C++ side and to compilers."""
    torch_distributed = pytest.importorskip("torch.distributed")
    left_out = {
        # types of the C++ side
        "GroupName", "ProcessGroupGloo", "ProcessGroupMPI", "ProcessGroupNCCL", "ProcessGroupUCC", "ProcessGroupXCCL",
    }  # fmt: skip
    theirs = set(torch_distributed.distributed_c10d.__all__)
    theirs |= {"TCPStore", "FileStore", "HashStore", "init_device_mesh", "DeviceMesh", "breakpoint", "QueueEmptyError"}
    assert theirs - left_out <= set(dist.__all__)
    assert all(hasattr(dist, name) for name in dist.__all__)
