"""All-reduce within a node: ours, raw mpi4py, PyTorch's gloo where it is installed, and a plain copy of the array as the limit.

    python benchmarks/collectives.py [--ranks 2 4] [--sizes 1K 256K 64M] [--json FILE]

For each number of ranks one job is started, in which all contenders take turns, size by size and round by round, so that
whatever else the machine does hits all of them. A figure is the best round's mean, of the slowest rank. float32, sum, in microseconds.

- ours: an ordinary NumPy array; "in place": one from `Communicator.allocate`, as DistributedDataParallel's buckets are
- mpi4py: MPI.Allreduce in place, on the same array
- copy: numpy.copyto of the array into another, on all ranks at once
"""

import argparse
import importlib.util
import json
import os
import sys
import time
import timeit

from ranks import HERE, free_port, results_of_a_job, write

# This file has the package's name, and would be found first.
sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != HERE]

UNITS = {"K": 1 << 10, "M": 1 << 20}
SIZES = ["1K", "4K", "16K", "64K", "256K", "1M", "4M", "16M", "64M", "256M"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", type=size, nargs="+", default=SIZES, help="such as 64K or 1M")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.02, help="that a round of one contender takes, about")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--rank-of-a-job", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def size(text):
    if not (text[:-1].isdecimal() and text[-1] in UNITS):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 64K or 1M")
    return text


def nbytes(text):
    return int(text[:-1]) * UNITS[text[-1]]


def contenders(world, comm, gloo, count):
    """Name and function of each, on arrays of its own; all write sums that stay small."""
    import numpy as np
    from mpi4py import MPI

    # Written, so that each has memory of its own: of new zeros the system shows one page again and again, and a copy would read none.
    ours, theirs, source, target = (np.full(count, 0, np.float32) for _ in range(4))
    inside = world.allocate(count)
    functions = {
        "ours": lambda: world.all_reduce(ours),
        "in place": lambda: world.all_reduce(inside),
        "mpi4py": lambda: comm.Allreduce(MPI.IN_PLACE, theirs),
    }
    if gloo is not None:
        torch, dist = gloo
        tensor = torch.zeros(count)
        functions["gloo"] = lambda: dist.all_reduce(tensor)
    functions["copy"] = lambda: np.copyto(target, source)
    return functions


def noting(world):
    """Seconds that the number, the flight record and the board of one call take; it moves nothing, and concerns one rank."""
    import numpy as np

    import collectives

    call, array, op = world._call, np.zeros(256, np.float32), collectives.REDUCTIONS["sum"]
    before = world._seq
    taken = min(timeit.repeat(lambda: call("all_reduce", array, op), number=200, repeat=200)) / 200
    world._seq = before  # as if nothing had been called
    return taken


def measure(options):
    """One rank of a job: seconds of each contender for each size, the slowest rank's."""
    from mpi4py import MPI

    import collectives

    world = collectives.connect()
    comm = MPI.COMM_WORLD
    gloo = None
    if importlib.util.find_spec("torch"):
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        port = comm.bcast(free_port() if comm.rank == 0 else None)
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=comm.rank, world_size=comm.size)
        gloo = torch, dist
    if comm.rank == 0:
        print(f"# {world.describe()}; {MPI.Get_library_version().splitlines()[0]}", file=sys.stderr)
        print(f"# noting a call (number, record, board): {1e6 * noting(world):.2f} us", file=sys.stderr)
    for text in options.sizes:
        functions = contenders(world, comm, gloo, nbytes(text) // 4)
        repeats = {}
        for name, function in functions.items():
            function()
            comm.Barrier()
            begun = time.perf_counter()
            function()
            once = comm.allreduce(time.perf_counter() - begun, MPI.MAX)
            repeats[name] = max(1, min(2000, int(options.seconds / once)))
        best = dict.fromkeys(functions, float("inf"))
        for _ in range(options.rounds):
            for name, function in functions.items():
                comm.Barrier()
                begun = time.perf_counter()
                for _ in range(repeats[name]):
                    function()
                taken = (time.perf_counter() - begun) / repeats[name]
                best[name] = min(best[name], comm.allreduce(taken, MPI.MAX))
        if comm.rank == 0:
            print(json.dumps({"ranks": comm.size, "size": text, "seconds": best}), flush=True)


def main():
    options = parse()
    if options.rank_of_a_job:
        measure(options)
        return
    results = []
    print(f"{'ranks':>5} {'size':>5} {'ours':>10} {'in place':>10} {'mpi4py':>10} {'gloo':>10} {'copy':>10}   "
          f"{'mpi4py / in place':>17} {'in place / copy':>15}")  # fmt: skip
    for ranks in options.ranks:
        own = ["--rounds", options.rounds, "--seconds", options.seconds, "--sizes", *options.sizes]
        for result in results_of_a_job(__file__, ranks, own):
            results.append(result)
            us = {name: 1e6 * value for name, value in result["seconds"].items()}
            print(
                f"{ranks:>5} {result['size']:>5} "
                + " ".join(f"{us[name]:10.1f}" if name in us else f"{'-':>10}" for name in ("ours", "in place", "mpi4py", "gloo", "copy"))
                + f"   {us['mpi4py'] / us['in place']:17.1f} {us['in place'] / us['copy']:15.2f}",
                flush=True,
            )
    write(options.json, results)


if __name__ == "__main__":
    main()
