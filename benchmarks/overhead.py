"""What one operation costs beside its arithmetic: microseconds a call on tiny arrays.

    python benchmarks/overhead.py [--repetitions N] [-k PART] [--json FILE]

Each line is one expression on arrays of a few elements, so what is measured is the way from the user's line to the array
library and back. The columns are NumPy (the floor: what the arithmetic costs us anyway), disttorch and, where it is
installed, PyTorch. "grad" lines have operands that require a gradient, so that every call also records a node.
"forward and backward" lines compute an operation and its gradients, with ``y.backward(g)``.
"50 multiply-adds" is a chain of 50 times ``y = y * w + b``, forward and backward, for the whole chain.

The libraries are measured in turn within each repetition, so that a busy machine slows all of them alike, and the best
repetition counts. The last column is disttorch's time over PyTorch's: below 1 we are faster. One thread is used.
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

import disttorch  # noqa: E402

SIZE = 4
DEPTH = 50

#: name -> expression of x, y (SIZE, SIZE), in every library
EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "x + y": lambda x, y: x + y,
    "x * y": lambda x, y: x * y,
    "x * 2.0": lambda x, y: x * 2.0,
    "x.exp()": lambda x, y: x.exp(),
    "x.sum()": lambda x, y: x.sum(),
    "x.sum(1)": lambda x, y: x.sum(1),
    "x.mean()": lambda x, y: x.mean(),
    "x[0]": lambda x, y: x[0],
    "x[1:3]": lambda x, y: x[1:3],
    "x[0, 1:]": lambda x, y: x[0, 1:],
    "x.reshape(-1)": lambda x, y: x.reshape(-1),
    "x.transpose(0, 1)": lambda x, y: x.transpose(0, 1),
    "x @ y": lambda x, y: x @ y,
    "x.max(1)": lambda x, y: x.max(1),
}
#: name -> expression of a library, x and y (SIZE, SIZE) and SIZE labels, in those that have gradients
WITH_BACKWARD: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "x + y": lambda m, x, y, labels: x + y,
    "x * y": lambda m, x, y, labels: x * y,
    "x / y": lambda m, x, y, labels: x / y,
    "x * 2.0": lambda m, x, y, labels: x * 2.0,
    "x ** 2": lambda m, x, y, labels: x**2,
    "x.exp()": lambda m, x, y, labels: x.exp(),
    "x.tanh()": lambda m, x, y, labels: x.tanh(),
    "relu(x)": lambda m, x, y, labels: m.relu(x),
    "gelu(x)": lambda m, x, y, labels: m.nn.functional.gelu(x),
    "x.sum(1)": lambda m, x, y, labels: x.sum(1),
    "x.mean()": lambda m, x, y, labels: x.mean(),
    "x.max(1)": lambda m, x, y, labels: x.max(1)[0],
    "x @ y": lambda m, x, y, labels: x @ y,
    "linear(x, y)": lambda m, x, y, labels: m.nn.functional.linear(x, y),
    "x[1:3]": lambda m, x, y, labels: x[1:3],
    "x[labels]": lambda m, x, y, labels: x[labels],
    "x.reshape(-1)": lambda m, x, y, labels: x.reshape(-1),
    "x.transpose(0, 1)": lambda m, x, y, labels: x.transpose(0, 1),
    "cat((x, y))": lambda m, x, y, labels: m.cat((x, y)),
    "where(x > y, x, y)": lambda m, x, y, labels: m.where(x > y, x, y),
    "softmax(x, 1)": lambda m, x, y, labels: m.softmax(x, 1),
    "layer_norm(x)": lambda m, x, y, labels: m.nn.functional.layer_norm(x, (SIZE,)),
    "cross_entropy(x, labels)": lambda m, x, y, labels: m.nn.functional.cross_entropy(x, labels),
    "embedding(labels, x)": lambda m, x, y, labels: m.nn.functional.embedding(labels, x),
}
IN_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "x.exp()": lambda x, y: numpy.exp(x),
    "x.max(1)": lambda x, y: (x.max(1), x.argmax(1)),
}


def chain(ones: Any, w: Any, b: Any) -> None:
    """50 multiply-adds, forward and backward."""
    y = ones
    for _ in range(DEPTH):
        y = y * w + b
    y.sum().backward()


def cases(with_torch: Any) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each line of the table a function without arguments for each library."""
    a, b = (numpy.random.default_rng(i).random((SIZE, SIZE), numpy.float32) for i in range(2))
    libraries = {"disttorch": disttorch} | ({"torch": with_torch} if with_torch else {})
    table: dict[str, dict[str, Callable[[], Any]]] = {}
    for name, expression in EXPRESSIONS.items():
        in_numpy = IN_NUMPY.get(name, expression)
        table[name] = {"numpy": lambda f=in_numpy: f(a, b)}
        table[name + " grad"] = {"numpy": table[name]["numpy"]}
        for library, module in libraries.items():
            x, y = module.tensor(a), module.tensor(b)
            table[name][library] = lambda f=expression, x=x, y=y: f(x, y)
            x, y = module.tensor(a, requires_grad=True), module.tensor(b, requires_grad=True)
            table[name + " grad"][library] = lambda f=expression, x=x, y=y: f(x, y)
    for name, there in WITH_BACKWARD.items():
        line = table[name + ", forward and backward"] = {}
        for library, module in libraries.items():
            x, y = (module.tensor(v, requires_grad=True) for v in (a, b))
            labels = module.tensor(numpy.arange(SIZE)[::-1].copy())
            g = module.ones_like(there(module, x, y, labels)).detach()
            line[library] = lambda f=there, m=module, x=x, y=y, labels=labels, g=g: f(m, x, y, labels).backward(g)
    last = f"{DEPTH} multiply-adds, forward and backward"
    table[last] = {}
    for library, module in libraries.items():
        start, w, c = module.tensor(a), module.tensor(b, requires_grad=True), module.tensor(a, requires_grad=True)
        table[last][library] = lambda start=start, w=w, c=c: chain(start, w, c)
    return table


def measure(table: dict[str, dict[str, Callable[[], Any]]], repetitions: int) -> dict[str, dict[str, float]]:
    """Microseconds a call, the best of all repetitions, the libraries in turn."""
    best: dict[str, dict[str, float]] = {}
    for name, functions in table.items():
        number = 5 if "multiply-adds" in name else 200
        best[name] = dict.fromkeys(functions, float("inf"))
        for _ in range(repetitions):
            for library, function in functions.items():
                seconds = timeit.timeit(function, number=number) / number
                best[name][library] = min(best[name][library], seconds * 1e6)
    return best


def load_torch() -> Any:
    """PyTorch with one thread, or None."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    return torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repetitions", type=int, default=60, help="how often each line is measured; the best counts (60)"
    )
    parser.add_argument("-k", default="", metavar="PART", help="only lines that contain this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    arguments = parser.parse_args()
    table = {name: line for name, line in cases(load_torch()).items() if arguments.k in name}
    figures = measure(table, arguments.repetitions)
    print(f"{'microseconds a call':<40} {'numpy':>8} {'disttorch':>10} {'torch':>8} {'ratio':>6}")
    for name, row in figures.items():
        texts = [f"{row[library]:.2f}" if library in row else "" for library in ("numpy", "disttorch", "torch")]
        ratio = f"{row['disttorch'] / row['torch']:.2f}" if "torch" in row else ""
        print(f"{name:<40} {texts[0]:>8} {texts[1]:>10} {texts[2]:>8} {ratio:>6}")
    ratios = [r["disttorch"] / r["torch"] for n, r in figures.items() if "forward and backward" in n and "torch" in r]
    if ratios:
        print(f"forward and backward: at or under PyTorch's in {sum(r <= 1 for r in ratios)} of {len(ratios)} lines")
    if arguments.json:
        arguments.json.write_text(json.dumps({"unit": "microseconds a call", "lines": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
