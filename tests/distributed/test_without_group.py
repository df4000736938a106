"""What is said where there is no process group, or it cannot be made."""

import subprocess
import sys

import pytest

CASES = [
    ("dist.get_rank()", "ValueError: Default process group has not been initialized"),
    ("dist.all_reduce(disttorch.ones(1))", "ValueError: Default process group has not been initialized"),
    ("dist.destroy_process_group()", "ValueError: Default process group has not been initialized"),
    ("dist.init_process_group('smoke')", "ValueError: backend 'smoke' is not one of"),
    (
        "dist.init_process_group(init_method='tcp://127.0.0.1:1')",
        "ValueError: init_method 'tcp://127.0.0.1:1' is not supported",
    ),
    ("dist.init_process_group(world_size=4)", "world_size=4 was given, but this process was started as world_size 1"),
    (
        "disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(1, 1))",
        "ValueError: Default process group has not been initialized",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[c[0] for c in CASES])
def test_says_what_is_missing(call, message):
    program = f"import disttorch, disttorch.distributed as dist\nassert not dist.is_initialized()\n{call}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert message in ended.stderr


def test_world_of_one_and_again():
    program = """
import disttorch, disttorch.distributed as dist
for backend in (None, "gloo", "local", "cpu:gloo,cuda:nccl"):
    dist.init_process_group(backend)
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "local")
    dist.destroy_process_group()
assert dist.get_node_local_rank() == 0
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
