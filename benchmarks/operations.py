"""Common operations at realistic sizes: milliseconds a call, disttorch beside PyTorch, on one CPU thread.

    python benchmarks/operations.py [--repetitions N] [-k PART] [--json FILE]

Each line is one expression on arrays of a size that networks and data preparation have (`overhead.py` has the tiny ones).
"forward" is the expression alone, on tensors that ask for no gradient; "and backward" is the expression with the gradients
of all its floating-point inputs, with ``y.backward(g)``. Operations without a gradient have the first figure only.

The libraries are measured in turn within each repetition, so that a busy machine slows both alike, and the best repetition
counts. "ratio" is disttorch's time over PyTorch's: below 1 we are faster. PyTorch is not needed to run this.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy  # noqa: E402 - after the number of threads is set
from overhead import load_torch  # noqa: E402

import disttorch  # noqa: E402

#: Each repetition of a line calls it as often as fits into this time.
SECONDS = 0.02
generator = numpy.random.default_rng(0)


def normal(*shape: int) -> Any:
    return generator.standard_normal(shape, numpy.float32)


def integers(high: int, *shape: int) -> Any:
    return generator.integers(high, size=shape)


MILLION = normal(1000, 1000)
ROWS = normal(10000, 64)
IMAGES = normal(16, 64, 32, 32)
PICTURES = normal(8, 3, 64, 64)
TABLE = normal(1000, 128)
GRID = numpy.clip(normal(8, 64, 64, 2), -1.1, 1.1)
LETTERS = normal(65, 128)
PLACES = integers(10000, 10000)
EVERYWHERE = integers(10000, 10000, 64)
MASK = MILLION > 0
SMALL = [normal(8) for _ in range(1000)]
CLASSES = integers(1000, 128)
SENTENCES = integers(1000, 32, 128)

#: name -> (expression of a library, its nn.functional and tensors; the tensors' arrays)
WITH_GRADIENT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # elementwise
    "add 1000x1000": (lambda m, F, x, y: x + y, (MILLION, MILLION)),
    "mul, row broadcast": (lambda m, F, x, y: x * y, (MILLION, MILLION[0])),
    "exp": (lambda m, F, x: x.exp(), (MILLION,)),
    "sigmoid": (lambda m, F, x: x.sigmoid(), (MILLION,)),
    "tanh": (lambda m, F, x: x.tanh(), (MILLION,)),
    "clamp": (lambda m, F, x: x.clamp(-1, 1), (MILLION,)),
    "where": (lambda m, F, c, x, y: m.where(c, x, y), (MASK, MILLION, MILLION.T.copy())),
    "masked_fill": (lambda m, F, c, x: x.masked_fill(c, -1.0), (MASK, MILLION)),
    "relu": (lambda m, F, x: F.relu(x), (MILLION,)),
    "leaky_relu": (lambda m, F, x: F.leaky_relu(x), (MILLION,)),
    "elu": (lambda m, F, x: F.elu(x), (MILLION,)),
    "silu": (lambda m, F, x: F.silu(x), (MILLION,)),
    "gelu": (lambda m, F, x: F.gelu(x), (MILLION,)),
    "hardswish": (lambda m, F, x: F.hardswish(x), (MILLION,)),
    "softplus": (lambda m, F, x: F.softplus(x), (MILLION,)),
    # reductions and scans
    "sum": (lambda m, F, x: x.sum(), (MILLION,)),
    "sum dim=0": (lambda m, F, x: x.sum(0), (MILLION,)),
    "mean dim=1": (lambda m, F, x: x.mean(1), (MILLION,)),
    "var dim=1": (lambda m, F, x: x.var(1), (MILLION,)),
    "norm": (lambda m, F, x: x.norm(), (MILLION,)),
    "max dim=1": (lambda m, F, x: x.max(1)[0], (MILLION,)),
    "logsumexp dim=1": (lambda m, F, x: x.logsumexp(1), (MILLION,)),
    "cumsum dim=1": (lambda m, F, x: x.cumsum(1), (MILLION,)),
    "cumsum dim=0": (lambda m, F, x: x.cumsum(0), (MILLION,)),
    # shapes
    "stack of 1000 times 8": (lambda m, F, *parts: m.stack(parts), tuple(SMALL)),
    "cat dim=1": (lambda m, F, x, y: m.cat((x, y), 1), (MILLION, MILLION)),
    "contiguous of transpose": (lambda m, F, x: x.t().contiguous(), (MILLION,)),
    "permute, 4-d, contiguous": (lambda m, F, x: x.permute(0, 2, 3, 1).contiguous(), (IMAGES,)),
    "pad reflect": (lambda m, F, x: F.pad(x, (1, 1, 1, 1), "reflect"), (IMAGES,)),
    "pad constant": (lambda m, F, x: F.pad(x, (1, 1, 1, 1)), (IMAGES,)),
    "tril": (lambda m, F, x: x.tril(), (MILLION,)),
    # indexing
    "index_select": (lambda m, F, i, x: x.index_select(0, i), (PLACES, ROWS)),
    "x[i]": (lambda m, F, i, x: x[i], (PLACES, ROWS)),
    "x[mask]": (lambda m, F, c, x: x[c], (MASK, MILLION)),
    "index_add 10000x64": (lambda m, F, i, x, y: x.index_add(0, i, y), (PLACES, ROWS, ROWS)),
    "gather dim=0": (lambda m, F, i, x: x.gather(0, i), (EVERYWHERE, ROWS)),
    "gather dim=1": (lambda m, F, i, x: x.gather(1, i), (EVERYWHERE % 64, ROWS)),
    "scatter_add dim=0": (lambda m, F, i, x, y: x.scatter_add(0, i, y), (EVERYWHERE, ROWS, ROWS)),
    "scatter_add dim=1": (lambda m, F, i, x, y: x.scatter_add(1, i, y), (EVERYWHERE % 64, ROWS, ROWS)),
    "scatter_reduce amax dim=0": (lambda m, F, i, x, y: x.scatter_reduce(0, i, y, "amax"), (EVERYWHERE, ROWS, ROWS)),
    "embedding, 1000 words": (lambda m, F, i, x: F.embedding(i, x), (SENTENCES, TABLE)),
    "embedding, 65 words": (lambda m, F, i, x: F.embedding(i, x), (SENTENCES % 65, LETTERS)),
    # products
    "matmul 512": (lambda m, F, x, y: x @ y, (MILLION[:512, :512].copy(), MILLION[:512, :512].copy())),
    "bmm 64 of 64x64": (lambda m, F, x, y: m.bmm(x, y), (normal(64, 64, 64), normal(64, 64, 64))),
    "linear 128x512x512": (
        lambda m, F, x, w, b: F.linear(x, w, b),
        (normal(128, 512), normal(512, 512), normal(512)),
    ),
    "einsum i,j->ij": (lambda m, F, x, y: m.einsum("i,j->ij", x, y), (MILLION[0], MILLION[1])),
    "einsum bhqd,bhkd->bhqk": (
        lambda m, F, x, y: m.einsum("bhqd,bhkd->bhqk", x, y),
        (normal(8, 4, 64, 32), normal(8, 4, 64, 32)),
    ),
    # sorting
    "sort": (lambda m, F, x: x.sort(1)[0], (MILLION,)),
    "topk 5 of 1000": (lambda m, F, x: x.topk(5)[0], (MILLION,)),
    # nn
    "softmax dim=1": (lambda m, F, x: F.softmax(x, 1), (MILLION,)),
    "log_softmax dim=1, 4-d": (lambda m, F, x: F.log_softmax(x, 1), (IMAGES,)),
    "cross_entropy 128x1000": (lambda m, F, i, x: F.cross_entropy(x, i), (CLASSES, normal(128, 1000))),
    "mse_loss": (lambda m, F, x, y: F.mse_loss(x, y), (MILLION, MILLION[::-1].copy())),
    "layer_norm 4096x256": (
        lambda m, F, x, w, b: F.layer_norm(x, (256,), w, b),
        (normal(4096, 256), normal(256), normal(256)),
    ),
    "batch_norm, training": (
        lambda m, F, x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        (IMAGES, normal(64), normal(64)),
    ),
    "group_norm": (lambda m, F, x, w, b: F.group_norm(x, 8, w, b), (IMAGES, normal(64), normal(64))),
    "conv2d 64 to 64, 3x3": (lambda m, F, x, w: F.conv2d(x, w, padding=1), (IMAGES, normal(64, 64, 3, 3))),
    "conv1d 16 to 32, 3": (lambda m, F, x, w: F.conv1d(x, w, padding=1), (normal(8, 16, 128), normal(32, 16, 3))),
    "max_pool2d 2": (lambda m, F, x: F.max_pool2d(x, 2), (IMAGES,)),
    "avg_pool2d 2": (lambda m, F, x: F.avg_pool2d(x, 2), (IMAGES,)),
    "adaptive_avg_pool2d 1": (lambda m, F, x: F.adaptive_avg_pool2d(x, 1), (IMAGES,)),
    "adaptive_avg_pool2d 7": (lambda m, F, x: F.adaptive_avg_pool2d(x, 7), (IMAGES,)),
    "adaptive_max_pool2d 7": (lambda m, F, x: F.adaptive_max_pool2d(x, 7), (IMAGES,)),
    "interpolate bilinear x2": (
        lambda m, F, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
        (PICTURES,),
    ),
    "grid_sample": (lambda m, F, x, y: F.grid_sample(x, y, align_corners=False), (PICTURES, GRID)),
    "attention 8x4x128x32": (
        lambda m, F, q, k, v: F.scaled_dot_product_attention(q, k, v),
        tuple(normal(8, 4, 128, 32) for _ in range(3)),
    ),
}
#: The same without a gradient.
FORWARD_ONLY: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "x.copy_(y)": (lambda m, F, x, y: x.copy_(y), (MILLION, MILLION.T.copy())),
    "x > 0": (lambda m, F, x: x > 0, (MILLION,)),
    "argmax dim=1": (lambda m, F, x: x.argmax(1), (MILLION,)),
    "argmax dim=0": (lambda m, F, x: x.argmax(0), (MILLION,)),
    "argmax dim=1, 4-d": (lambda m, F, x: x.argmax(1), (IMAGES,)),
    "argsort": (lambda m, F, x: x.argsort(1), (MILLION,)),
    "sort, 1 million": (lambda m, F, x: x.sort()[0], (MILLION.reshape(-1),)),
    "topk 100 of 1 million": (lambda m, F, x: x.topk(100)[0], (MILLION.reshape(-1),)),
    "unique of 640000": (lambda m, F, i: m.unique(i), (EVERYWHERE,)),
    "bincount of 640000": (lambda m, F, i: m.bincount(i), (EVERYWHERE.reshape(-1),)),
    "nonzero": (lambda m, F, c: c.nonzero(), (MASK,)),
    "one_hot 128, 1000": (lambda m, F, i: F.one_hot(i, 1000), (CLASSES,)),
    "to float64": (lambda m, F, x: x.double(), (MILLION,)),
    "zeros 8": (lambda m, F: m.zeros(8), ()),
    "full 8": (lambda m, F: m.full((8,), 2.0), ()),
    "arange 8": (lambda m, F: m.arange(8), ()),
    "tril 8x8": (lambda m, F, x: x.tril(), (normal(8, 8),)),
    "eye 8": (lambda m, F: m.eye(8), ()),
    "randn 1 million": (lambda m, F: m.randn(1000, 1000), ()),
    "rand 1 million": (lambda m, F: m.rand(1000, 1000), ()),
    "rand 8": (lambda m, F: m.rand(8), ()),
    "randn 8": (lambda m, F: m.randn(8), ()),
    "randint 100000": (lambda m, F: m.randint(0, 1000, (100000,)), ()),
    "randperm 100000": (lambda m, F: m.randperm(100000), ()),
    "dropout, 1 million": (lambda m, F, x: F.dropout(x, 0.5), (MILLION,)),
}


def with_backward(expression: Callable[..., Any], m: Any, tensors: list[Any]) -> Callable[[], Any]:
    """A function that computes an expression and the gradients of its inputs, which do not add up."""
    leaves = [t for t in tensors if t.requires_grad]
    g = m.ones_like(expression(m, m.nn.functional, *tensors)).detach()

    def both() -> None:
        for leaf in leaves:
            leaf.grad = None
        expression(m, m.nn.functional, *tensors).backward(g)

    return both


def cases(part: str, with_torch: Any) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each line of the table whose name contains `part` a function without arguments for each library."""
    libraries = {"disttorch": disttorch} | ({"torch": with_torch} if with_torch else {})
    table: dict[str, dict[str, Callable[[], Any]]] = {}
    for names, differentiable in ((WITH_GRADIENT, True), (FORWARD_ONLY, False)):
        for name, (expression, arrays) in names.items():
            if part not in name:
                continue
            forward, backward = table[name], table[name + ", and backward"] = {}, {}
            for library, m in libraries.items():
                tensors = [m.tensor(a) for a in arrays]
                forward[library] = lambda f=expression, m=m, t=tensors: f(m, m.nn.functional, *t)
                if differentiable:
                    leaves = [m.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
                    backward[library] = with_backward(expression, m, leaves)
    return {name: line for name, line in table.items() if line}


def measure(line: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Milliseconds a call, the best of all repetitions, the libraries in turn."""
    number: dict[str, int] = {}
    for library, function in line.items():
        function()
        number[library] = max(1, int(SECONDS / timeit.timeit(function, number=1)))
    best = dict.fromkeys(line, float("inf"))
    for _ in range(repetitions):
        for library, function in line.items():
            best[library] = min(best[library], timeit.timeit(function, number=number[library]) / number[library] * 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10, help="how often each line is measured; the best counts (10)")
    parser.add_argument("-k", default="", metavar="PART", help="only lines that contain this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    print(f"{'milliseconds a call':<45} {'disttorch':>10} {'torch':>10} {'ratio':>6}")
    for name, line in cases(arguments.k, load_torch()).items():
        row = figures[name] = measure(line, arguments.repetitions)
        other = f"{row['torch']:>10.4f} {row['disttorch'] / row['torch']:>6.2f}" if "torch" in row else ""
        print(f"{name:<45} {row['disttorch']:>10.4f} {other}", flush=True)
    ratios = [row["disttorch"] / row["torch"] for row in figures.values() if "torch" in row]
    if ratios:
        print(f"at or under PyTorch's time in {sum(r <= 1 for r in ratios)} of {len(ratios)} lines")
    if arguments.json:
        arguments.json.write_text(json.dumps({"unit": "milliseconds a call", "lines": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
