"""Recurrent layers and attention, ours beside PyTorch's where it is installed: milliseconds, and how many times as fast we are.

    python benchmarks/sequence.py [--threads 2] [--long]

Forward, and a training step (forward and backward), on the same inputs, in turns in one run, so that whatever else the machine
does hits both; the best of several rounds. ``--long`` adds attention over 8192 queries and keys, with the memory that it took.
"""

import argparse
import os
import time
import tracemalloc

RECURRENT = [(kind, features, hidden) for kind in ("LSTM", "GRU", "RNN") for features, hidden in ((128, 128), (128, 256), (256, 256))]
ATTENTION = [(shape, causal) for shape in ((8, 8, 128, 32), (4, 8, 512, 64)) for causal in (False, True)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--long", action="store_true")
    return parser.parse_args()


def recurrent(torch, kind, features, hidden):
    """32 sequences of 64 steps."""
    module = getattr(torch.nn, kind)(features, hidden)
    x = torch.randn(64, 32, features, requires_grad=True)
    return lambda: module(x)[0]


def attention(torch, shape, causal):
    q, k, v = (torch.randn(*shape, requires_grad=True) for _ in range(3))
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def milliseconds(function):
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def compare(name, packages, make, rounds):
    forward = [make(torch) for torch in packages]
    step = [lambda f=f: f().sum().backward() for f in forward]
    for what, functions in (("forward", forward), ("step", step)):
        best = [min(times) for times in zip(*([milliseconds(f) for f in functions] for _ in range(rounds)))]
        ratio = f"  PyTorch {best[1]:8.2f} ms, {best[1] / best[0]:.2f} times as fast" if len(best) > 1 else ""
        print(f"{name:38} {what:8}{best[0]:8.2f} ms{ratio}", flush=True)


def long(torch):
    """The memory and time of one long attention; all its weights would take 2 GiB."""
    for causal in (False, True):
        f = attention(torch, (1, 8, 8192, 64), causal)
        tracemalloc.start()
        taken = milliseconds(lambda: f().sum().backward())  # noqa: B023 - called here
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"attention (1, 8, 8192, 64){' causal' if causal else '':8} step {taken:8.0f} ms, at most {peak:.0f} MiB", flush=True)


def main():
    options = parse()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import disttorch

    packages = [disttorch]
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed; ours alone")
    else:
        torch.set_num_threads(options.threads)
        packages.append(torch)
    for kind, features, hidden in RECURRENT:
        compare(f"{kind} {features} to {hidden}", packages, lambda t, a=(kind, features, hidden): recurrent(t, *a), options.rounds)
    for shape, causal in ATTENTION:
        compare(f"attention {shape}{' causal' if causal else ''}", packages, lambda t, a=(shape, causal): attention(t, *a), options.rounds)
    if options.long:
        long(disttorch)


if __name__ == "__main__":
    main()
