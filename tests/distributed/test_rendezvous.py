"""Ranks that nobody started together meet by a URL, by a store, or by torchrun's variables; as PyTorch's tutorials do it."""

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

import disttorch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from datetime import timedelta
import disttorch
import disttorch.distributed as dist

rank, size = int(sys.argv[1]), int(sys.argv[2])
{start}
assert (dist.get_rank(), dist.get_world_size()) == (rank, size), (dist.get_rank(), dist.get_world_size())
for _ in range(2):
    x = disttorch.arange(1000.0) + rank
    dist.all_reduce(x)
    assert x.tolist() == [size * i + sum(range(size)) for i in range(1000)]
    found = [None] * size
    dist.all_gather_object(found, rank)
    assert found == list(range(size))
    even = dist.new_group(range(0, size, 2))
    if rank % 2 == 0:
        dist.barrier(even)
dist.destroy_process_group()
{after}
print("well")
"""

STARTS = {
    "tcp": "dist.init_process_group('gloo', init_method='tcp://127.0.0.1:{port}', rank=rank, world_size=size)",
    "tcp in the URL": "dist.init_process_group(init_method=f'tcp://127.0.0.1:{port}?rank={{rank}}&world_size={{size}}')",
    "file": "dist.init_process_group('gloo', init_method='file://{file}', rank=rank, world_size=size, timeout=timedelta(seconds=60))",
    "store": "dist.init_process_group('gloo', store=dist.TCPStore('127.0.0.1', {port}, size, rank == 0), rank=rank, world_size=size)",
    "file store": "dist.init_process_group('gloo', store=dist.FileStore('{file}', size), rank=rank, world_size=size)",
    "address in the environment": (
        "os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='{port}')\ndist.init_process_group('gloo', rank=rank, world_size=size)"
    ),
    "all in the environment": (
        "os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='{port}', RANK=str(rank), WORLD_SIZE=str(size))\n"
        "dist.init_process_group('gloo', init_method='env://')"
    ),
    "tcp backend": "dist.init_process_group('tcp', init_method='tcp://127.0.0.1:{port}', rank=rank, world_size=size)",
}


def clean_environment():
    ours = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "PMI_", "PMIX_", "OMPI_", "MPI_LOCAL", "SLURM_", "DISTTORCH_", "TORCH")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def run(program, size, where=None):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(size)],
            env=clean_environment(), cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        return [(*process.communicate(timeout=120), process.returncode) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize(("way", "size"), [*((way, 3) for way in STARTS), ("tcp", 1), ("store", 1)])
def test_ranks_meet(way, size, port, tmp_path):
    program = PROGRAM.format(start=STARTS[way].format(port=port, file=tmp_path / "meeting"), after="")
    for out, errors, code in run(program, size):
        assert code == 0, errors
        assert out == "well\n"


def test_a_store_serves_one_group_after_another(port):
    again = """
dist.init_process_group('gloo', store=store, rank=rank, world_size=size)
dist.barrier()
dist.destroy_process_group()
"""
    start = f"store = dist.TCPStore('127.0.0.1', {port}, size, rank == 0)\n"
    start += "dist.init_process_group('gloo', store=store, rank=rank, world_size=size)"
    for out, errors, code in run(PROGRAM.format(start=start, after=again), 2):
        assert code == 0, errors
        assert out == "well\n"


@pytest.mark.parametrize("way", ["tcp", "file", "all in the environment"])
def test_groups_meet_at_one_place_one_after_another(way, port, tmp_path):
    """Whichever rank is the first to leave and to come again."""
    start = STARTS[way].format(port=port, file=tmp_path / "meeting")
    again = "dist.barrier()\ndist.destroy_process_group()\n"
    for out, errors, code in run(PROGRAM.format(start=(start + "\n" + again) * 15 + start, after=""), 2):
        assert code == 0, errors
        assert out == "well\n"
    assert not list(tmp_path.iterdir())


def test_calls_are_compared_with_detailed_debugging(port, tmp_path):
    program = """
import sys
import collectives, disttorch
import disttorch.distributed as dist
dist.set_debug_level(dist.DebugLevel.DETAIL)
rank = int(sys.argv[1])
dist.init_process_group('gloo', init_method='tcp://127.0.0.1:PORT', rank=rank, world_size=2)
dist.all_reduce(disttorch.ones(3))
try:
    dist.all_reduce(disttorch.ones(3 + rank))
except collectives.CollectiveMismatchError as error:
    print(error)
"""
    for out, errors, code in run(program.replace("PORT", str(port)), 2, tmp_path):  # where they leave their flight records
        assert code == 0, errors
        assert "rank 0: all_reduce(sum) of float32 [3]" in out
        assert "rank 1: all_reduce(sum) of float32 [4]" in out


def test_rendezvous_gives_a_store(port):
    found = []
    both_done = threading.Barrier(2, timeout=60)  # the first holds the store

    def meet(url, rank):
        store, got, size = next(dist.rendezvous(url, rank, 2, timeout=timedelta(seconds=60)))
        store.set(f"from {rank}", str(rank))
        found.append((got, size, store.get(f"from {1 - rank}")))
        both_done.wait()

    url = f"tcp://127.0.0.1:{port}"
    threads = [threading.Thread(target=meet, args=(url, rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(0, 2, b"1"), (1, 2, b"0")]


def test_a_handler_of_ones_own():
    dist.register_rendezvous_handler("own", lambda url, **options: iter([(url, 3, options["timeout"])]))
    assert next(dist.rendezvous("own://place", 1, 2, timeout=5)) == ("own://place?rank=1&world_size=2", 3, 5)
    with pytest.raises(RuntimeError, match="own:// already registered"):
        dist.register_rendezvous_handler("own", None)


BAD = [
    ("tcp://127.0.0.1", 0, 1, ValueError, "tcp:// rendezvous: host or port number missing"),
    ("tcp://127.0.0.1:1", -1, 1, ValueError, "rank parameter missing"),
    ("tcp://127.0.0.1:1", 0, -1, ValueError, "world size parameter missing"),
    ("tcp://127.0.0.1:1", 2, 2, ValueError, "rank 2 is no rank of 2"),
    ("tcp://127.0.0.1:1?rank=0", 0, 2, AssertionError, "rank is given twice"),
    ("tcp://127.0.0.1:1?rank=x&world_size=2", -1, -1, ValueError, "rank is 'x', not a number"),
    ("file://?rank=0&world_size=2", -1, -1, ValueError, "path missing"),
    ("pigeon://there", 0, 2, RuntimeError, "No rendezvous handler for pigeon://"),
    ("env://", 0, 2, ValueError, "environment variable MASTER_ADDR expected, but not set"),
    ("env://", -1, 2, ValueError, "environment variable RANK expected, but not set"),
    (3, 0, 2, RuntimeError, "`url` must be a string"),
]


@pytest.mark.parametrize(("url", "rank", "size", "error", "message"), BAD, ids=[b[4] for b in BAD])
def test_bad_urls(url, rank, size, error, message, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(error, match=message):
        next(dist.rendezvous(url, rank, size))


def test_stores_are_those_of_pytorch(port):
    store = dist.HashStore()
    assert isinstance(store, dist.Store)
    part = dist.PrefixStore("part", store)
    part.set("key", "value")
    assert store.get("part/key") == part.get("key") == b"value"
    with pytest.raises(dist.DistStoreError):
        store.wait(["never"], timedelta(milliseconds=10))
    with pytest.raises(dist.DistNetworkError):
        dist.TCPStore("127.0.0.1", port, 2, False, timedelta(milliseconds=200))
    assert issubclass(dist.DistStoreError, dist.DistError)
    assert issubclass(dist.DistBackendError, RuntimeError)
