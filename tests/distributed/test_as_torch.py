"""Scripts that were written for PyTorch's distributed package, run as they are on several ranks."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.distributed.test_rendezvous import clean_environment

ROOT = Path(__file__).resolve().parents[2]

SCRIPTS = {
    "collectives and groups": """
import torch
import torch.distributed as dist
from torch.distributed import ReduceOp
from torch.distributed.elastic.multiprocessing.errors import record


@record
def main():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    x = torch.full((2,), rank + 1.0)
    dist.all_reduce(x, op=ReduceOp.SUM)
    gathered = [torch.empty(1) for _ in range(size)]
    dist.all_gather(gathered, torch.tensor([float(rank)]))
    first = dist.new_group([0])
    if first != dist.GroupMember.NON_GROUP_MEMBER:
        dist.barrier(group=first)
    work = dist.isend(x, (rank + 1) % size)
    y = torch.empty(2)
    dist.irecv(y, src=(rank - 1) % size).wait()
    work.wait()
    objects = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    if rank == 0:
        print(x.tolist(), [int(g.item()) for g in gathered], y.tolist(), [o["rank"] for o in objects], dist.get_backend())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
""",
    "gradients, meshes and futures": """
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol
import torch.distributed.nn.functional as F
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import ProcessGroup, _get_default_group
from torch.futures import Future

dist.init_process_group(backend="cpu:gloo")
mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("dp", "tp"))
assert isinstance(mesh, DeviceMesh)
assert isinstance(_get_default_group(), ProcessGroup)
x = torch.ones(2, requires_grad=True)
(F.all_reduce(x) ** 2).sum().backward()
y = funcol.all_gather_tensor(x.detach() + dist.get_rank(), 0, mesh["tp"])
future: Future = dist.all_reduce(torch.ones(1), async_op=True).get_future().then(lambda f: f.value()[0] * 2)
z = future.wait()
if dist.get_rank() == 0:
    print(x.grad.tolist(), y.tolist(), z.item())
dist.destroy_process_group()
""",
    "ranks by spawn": """
import os
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(rank, size, port):
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", port
    dist.init_process_group("gloo", rank=rank, world_size=size)
    x = torch.tensor([rank + 1.0])
    dist.all_reduce(x)
    if rank == 0:
        print(x.item())
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(run, args=(3, os.environ["FREE_PORT"]), nprocs=3)
""",
}
EXPECTED = {
    "collectives and groups": "[3.0, 3.0] [0, 1] [3.0, 3.0] [0, 1] gloo",
    "gradients, meshes and futures": "[8.0, 8.0] [1.0, 1.0, 2.0, 2.0] 4.0",
    "ranks by spawn": "6.0",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name, port, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[name])
    command = [sys.executable, "-m", "launcher", "-n", "2", "--as-torch", script]
    if name == "ranks by spawn":
        command = [sys.executable, "-m", "disttorch.as_torch", script]
    environment = (clean_environment() if name == "ranks by spawn" else dict(os.environ)) | {
        "PYTHONPATH": str(ROOT), "FREE_PORT": str(port),
    }  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert EXPECTED[name] in ended.stdout


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", ["collectives and groups", "gradients, meshes and futures"])
def test_pytorch_prints_the_same(name, port, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[name])
    environment = clean_environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script],
            env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert EXPECTED[name] in said[0][0], said
