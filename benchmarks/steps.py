"""Whole training steps, ours beside PyTorch's where it is installed: milliseconds, and how many times as fast we are.

    python benchmarks/steps.py [--threads 2] [--json FILE]

Both train the same model from the same weights on the same batch, in turns in one run, so that whatever else the machine does
hits both. A figure is the best of several rounds.
"""

import argparse
import json
import os
import time

import memory  # beside this file: its GPT


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def images(*shape):
    """What draws a batch of images, or vectors, and their classes."""
    return lambda rng: (rng.standard_normal(shape).astype("float32"), rng.integers(0, 10, shape[0]))


def mlp(torch):
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return model, torch.optim.Adam(model.parameters()), images(128, 784)


def cnn(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, torch.optim.AdamW(model.parameters()), images(64, 1, 28, 28)


def cnn_with_norm(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), images(32, 3, 32, 32)


def gpt(torch):
    model = memory.gpt(torch)[0]
    return model, torch.optim.AdamW(model.parameters()), lambda rng: (rng.integers(0, 1000, (8, 128)), rng.integers(0, 1000, 8 * 128))


def lstm(torch):
    nn = torch.nn

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.lstm, self.head = nn.Embedding(1000, 128), nn.LSTM(128, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x):
            return self.head(self.lstm(self.embedding(x))[0][:, -1])

    model = Tagger()
    return model, torch.optim.Adam(model.parameters()), lambda rng: (rng.integers(0, 1000, (32, 64)), rng.integers(0, 10, 32))


MODELS = {
    "MLP 784-512-512-10, batch 128, Adam": mlp,
    "CNN of the Fashion-MNIST example, batch 64, AdamW": cnn,
    "CNN with batch norm and GELU, batch 32, SGD": cnn_with_norm,
    "GPT, 4 layers of 256, 8 x 128 tokens, AdamW": gpt,
    "LSTM of 128, 32 x 64 tokens, Adam": lstm,
}


def steps(torch, make, weights, inputs, labels):
    """A function that trains for some steps and returns the last loss."""
    model, optimizer, _ = make(torch)
    with torch.no_grad():
        for parameter, w in zip(model.parameters(), weights):
            parameter.copy_(torch.tensor(w))
    x, y = torch.tensor(inputs), torch.tensor(labels)

    def run(count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def main():
    args = parse()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    import numpy as np

    import disttorch

    libraries = {"disttorch": disttorch}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: only our own figures (pip install torch==2.13.0 for the comparison)")
    else:
        torch.set_num_threads(args.threads)
        libraries["PyTorch"] = torch

    rng = np.random.default_rng(0)
    figures = {}
    print(f"{'ms a step, ' + str(args.threads) + ' thread(s)':<54}" + "".join(f"{n:>12}" for n in libraries) + f"{'ratio':>8}")
    for title, make in MODELS.items():
        model, _, draw = make(disttorch)
        weights = [p.detach().numpy().copy() for p in model.parameters()]
        inputs, labels = draw(rng)
        runs = {name: steps(library, make, weights, inputs, labels) for name, library in libraries.items()}
        losses = [run(3) for run in runs.values()]
        if max(losses) - min(losses) > 1e-3 * max(losses):
            raise SystemExit(f"{title}: after three steps the losses differ: {losses}")
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(args.rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run(args.steps)
                best[name] = min(best[name], (time.perf_counter() - start) / args.steps * 1e3)
        figures[title] = best
        ratio = f"{best['PyTorch'] / best['disttorch']:8.2f}" if "PyTorch" in best else ""
        print(f"{title:<54}" + "".join(f"{v:12.2f}" for v in best.values()) + ratio)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"threads": args.threads, "ms_a_step": figures}, file, indent=1)


if __name__ == "__main__":
    main()
