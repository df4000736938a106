"""Data-parallel training of models with ten million parameters, ours beside PyTorch's DistributedDataParallel over gloo.

    python benchmarks/ddp.py [--ranks 2] [--rounds 6] [--json FILE]

One job, in whose ranks both libraries train the same model from the same weights on the same batches, in turns, with one
thread a rank. A figure is the best of several rounds: samples a second over all ranks. "hidden" is the share of the
communication's time in which backward went on (`DistributedDataParallel.communication_times`).
"""

import argparse
import importlib.util
import itertools
import json
import os
import sys
import time

from ranks import HERE, free_port, results_of_a_job, write

# A file beside this one has the name of a package, and would be found first.
sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != HERE]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5, help="that a round of one library takes, about")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--rank-of-a-job", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def mlp(torch):
    """784 - 2048 - 2048 - 2048 - 10: 10.0 million parameters."""
    nn = torch.nn
    sizes = (784, 2048, 2048, 2048)
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(2048, 10))


def gpt(torch):
    """Five blocks 384 wide, 6 heads, a vocabulary of 2000: 10.5 million parameters."""
    nn, functional = torch.nn, torch.nn.functional
    width, heads = 384, 6

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x):
            b, t, c = x.shape
            q, k, v = (part.view(b, t, heads, c // heads).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(c, dim=2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(2000, width), nn.Embedding(128, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(5)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2000, bias=False)

        def forward(self, x):
            x = self.tokens(x) + self.places(torch.arange(x.shape[1]))
            return self.head(self.norm(self.blocks(x))).view(-1, 2000)

    return GPT()


def images(count):
    return lambda rng: (rng.standard_normal((count, 784)).astype("float32"), rng.integers(0, 10, count))


def tokens(count):
    return lambda rng: (rng.integers(0, 2000, (count, 128)), rng.integers(0, 2000, count * 128))


# Model, samples a rank, and what draws them; a sample is an image, or a sequence of 128 tokens. The smaller the batch, the
# more the communication counts.
MODELS = {
    "MLP, 64 images a rank": (mlp, 64, images(64)),
    "GPT, 1 x 128 tokens a rank": (gpt, 1, tokens(1)),
    "GPT, 4 x 128 tokens a rank": (gpt, 4, tokens(4)),
}


def trainer(torch, make, weights, batch):
    """The model under DistributedDataParallel, and a function that trains it for some steps."""
    module = make(torch)
    with torch.no_grad():
        for parameter, w in zip(module.parameters(), weights):
            parameter.copy_(torch.tensor(w))
    model = torch.nn.parallel.DistributedDataParallel(module)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x, y = (torch.tensor(values) for values in batch)

    def run(count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return model, run


def measure(options):
    """One rank of the job."""
    import numpy as np
    from mpi4py import MPI

    import disttorch
    import disttorch.nn.parallel

    comm = MPI.COMM_WORLD
    disttorch.distributed.init_process_group()
    libraries = {"disttorch": disttorch}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        port = comm.bcast(free_port() if comm.rank == 0 else None)
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=comm.rank, world_size=comm.size)
        libraries["PyTorch"] = torch
    for title, (make, samples, draw) in MODELS.items():
        disttorch.manual_seed(0)
        weights = [p.detach().numpy().copy() for p in make(disttorch).parameters()]
        batch = draw(np.random.default_rng(1 + comm.rank))
        trainers = {name: trainer(library, make, weights, batch) for name, library in libraries.items()}
        losses = {name: run(3) for name, (_, run) in trainers.items()}
        if max(losses.values()) - min(losses.values()) > 1e-3 * max(losses.values()):
            raise SystemExit(f"{title}: after three steps the losses differ: {losses}")
        counts = {}
        for name, (_, run) in trainers.items():
            comm.Barrier()
            begun = time.perf_counter()
            run(2)
            once = comm.allreduce(time.perf_counter() - begun, MPI.MAX) / 2
            counts[name] = max(2, int(options.seconds / once))
        best = dict.fromkeys(trainers, float("inf"))
        times = []
        for _ in range(options.rounds):
            for name, (model, run) in trainers.items():
                comm.Barrier()
                begun = time.perf_counter()
                run(counts[name])
                seconds = comm.allreduce((time.perf_counter() - begun) / counts[name], MPI.MAX)
                best[name] = min(best[name], seconds)
                if name == "disttorch":
                    times.append(model.communication_times)
        total, exposed = (float(np.median([getattr(t, kind) for t in times])) for kind in ("total", "exposed"))
        if comm.rank == 0:
            print(json.dumps({
                "model": title,
                "parameters": sum(int(w.size) for w in weights),
                "samples_per_second": {name: comm.size * samples / seconds for name, seconds in best.items()},
                "communication_seconds": total, "exposed_seconds": exposed, "hidden": 1 - exposed / total if total else None,
            }), flush=True)  # fmt: skip


def main():
    options = parse()
    if options.rank_of_a_job:
        measure(options)
        return
    results = []
    print(f"{'samples a second, ' + str(options.ranks) + ' ranks of 1 thread':<40} {'disttorch':>10} {'PyTorch':>10} {'ratio':>6} "
          f"{'communication':>14} {'hidden':>7}")  # fmt: skip
    for result in results_of_a_job(__file__, options.ranks, ["--rounds", options.rounds, "--seconds", options.seconds]):
        results.append(result)
        rates = result["samples_per_second"]
        theirs = rates.get("PyTorch")
        print(
            f"{result['model'] + ', ' + format(result['parameters'] / 1e6, '.1f') + ' M':<40} {rates['disttorch']:10.1f} "
            + (f"{theirs:10.1f} {rates['disttorch'] / theirs:6.2f} " if theirs else f"{'-':>10} {'-':>6} ")
            + f"{1e3 * result['communication_seconds']:11.2f} ms {100 * result['hidden']:6.0f}%",
            flush=True,
        )
    write(options.json, results)


if __name__ == "__main__":
    main()
