"""A job whose ranks' tensors are on GPUs: every collective, then data-parallel training; one line of JSON from rank 0.

    python -m launcher -n 2 --engine plain --oversubscribe tests/gpu/job.py --backend gloo

Where there are fewer GPUs than ranks, ranks share them.
"""

import argparse
import json
import os
import sys

import numpy as np

import disttorch as torch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.nn.parallel import DistributedDataParallel

REDUCTIONS = {"SUM": np.add, "PRODUCT": np.multiply, "MIN": np.minimum, "MAX": np.maximum}
DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool")


def given(rank, shape, dtype):
    """Small whole numbers, of which sums and products are exact in every dtype."""
    return np.random.default_rng(rank).integers(0, 2, shape).astype("bool" if dtype == "bool" else "float64")


def tensor(values, dtype, device):
    return torch.tensor(values).to(device, getattr(torch, dtype))


def same(found, expected, what):
    found = found.cpu()
    found = found.numpy() if found.dtype is torch.bool else found.double().numpy()
    if not np.array_equal(found, np.asarray(expected, found.dtype)):
        raise SystemExit(f"rank {dist.get_rank()}: {what}: {found.ravel()[:4]} instead of {np.ravel(expected)[:4]}")


def collectives(device):
    """Each operation on each dtype, on whole and on strided tensors."""
    rank, size, count = dist.get_rank(), dist.get_world_size(), 0
    for dtype in DTYPES:
        shape = (3, 1001)
        all_of_them = [given(r, shape, dtype) for r in range(size)]
        for name, function in REDUCTIONS.items():
            if dtype == "bool" and name in ("SUM", "PRODUCT"):
                continue
            t = tensor(all_of_them[rank], dtype, device)
            dist.all_reduce(t, getattr(dist.ReduceOp, name))
            same(t, function.reduce(all_of_them), f"all_reduce {name} of {dtype}")
            count += 1
        t = tensor(all_of_them[rank], dtype, device)
        dist.broadcast(t, size - 1)
        same(t, all_of_them[size - 1], f"broadcast of {dtype}")
        strided = tensor(all_of_them[rank], dtype, device).t()
        rows = torch.empty((size, *strided.shape), dtype=getattr(torch, dtype), device=device)
        dist.all_gather_into_tensor(rows.view(size * strided.shape[0], -1), strided.contiguous())
        same(rows, np.stack([a.T for a in all_of_them]), f"all_gather_into_tensor of {dtype}")
        parts = [torch.empty(shape, dtype=getattr(torch, dtype), device=device) for _ in range(size)]
        dist.all_gather(parts, tensor(all_of_them[rank], dtype, device))
        same(torch.stack(parts), np.stack(all_of_them), f"all_gather of {dtype}")
        count += 3
        if dtype == "bool":
            continue
        stacked = [np.stack([given(10 * r + s, shape, dtype) for s in range(size)]) for r in range(size)]
        mine = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        dist.reduce_scatter_tensor(mine, tensor(stacked[rank].reshape(size * 3, -1), dtype, device))
        same(mine, sum(s[rank] for s in stacked), f"reduce_scatter_tensor of {dtype}")
        exchanged = torch.empty((size * 3, shape[1]), dtype=getattr(torch, dtype), device=device)
        dist.all_to_all_single(exchanged, tensor(stacked[rank].reshape(size * 3, -1), dtype, device))
        same(exchanged, np.concatenate([s[rank] for s in stacked]), f"all_to_all_single of {dtype}")
        count += 2
    work = dist.all_reduce(torch.ones(1 << 20, device=device), async_op=True)
    work.wait()
    if size > 1:
        t = torch.full((5,), float(rank), device=device)
        if rank == 0:
            dist.send(t, 1)
        elif rank == 1:
            dist.recv(t, 0)
            same(t, np.zeros(5), "recv")
        half = dist.new_group([0])
        if rank == 0:
            t = torch.ones(3, device=device)
            dist.all_reduce(t, group=half)
            same(t, np.ones(3), "all_reduce of a group of one")
        count += 2
    dist.barrier()
    return count


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 300), nn.ReLU(), nn.BatchNorm1d(300), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 5))


def training(device, steps):
    """Ranks end with the same parameters to the bit, and near what one process computes in float64 from all of the data."""
    rank, size = dist.get_rank(), dist.get_world_size()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((steps, size, 16, 20)), rng.integers(0, 5, (steps, size, 16))
    model = network(rank).to(device)  # rank 0's parameters count
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = DistributedDataParallel(model, bucket_cap_mb=0.25)
    reference = network(0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    exact = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tensor(x[step, rank], "float32", device)), torch.tensor(y[step, rank]).to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        exact.zero_grad()
        whole = nn.functional.cross_entropy(reference(torch.tensor(x[step].reshape(-1, 20))), torch.tensor(y[step].ravel()))
        whole.backward()
        exact.step()
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    others = [torch.empty_like(flat) for _ in range(size)]
    dist.all_gather(others, flat)
    for r, other in enumerate(others):
        if not torch.equal(other, flat):
            raise SystemExit(f"rank {rank} and rank {r} have other parameters")
    wanted = np.concatenate([p.detach().numpy().ravel() for p in reference.parameters()])
    return float(np.abs(flat.cpu().double().numpy() - wanted).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="nccl")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", choices=["cuda", "cpu", "stand-in"], default="cuda", help="cpu: the job itself, without a GPU")
    options = parser.parse_args()
    device = torch.device("cpu")
    if options.device != "cpu":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        device = torch.device("cuda", torch.cuda.current_device())
    dist.init_process_group(options.backend)
    count = collectives(device)
    error = training(device, options.steps)
    if error > 2e-4:
        raise SystemExit(f"after {options.steps} steps parameters are {error:.2g} away from one process's in float64")
    if dist.get_rank() == 0:
        over = dist.group.WORLD.communicator.describe()
        print(json.dumps({"ranks": dist.get_world_size(), "collectives": count, "error": error, "over": over}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    if "stand-in" in sys.argv:
        from tests import stand_in

        stand_in.install()
    main()
