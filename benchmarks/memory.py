"""Peak memory of a training step: resident memory above what the process had before, in MB.

    python benchmarks/memory.py [--model mlp|gpt] [--library disttorch|torch]

Without options each model is trained in each library, PyTorch where it is installed, in a process of its own: a few steps of
forward, backward and AdamW. What counts is the largest resident memory during the steps (VmHWM, reset before them) less
what was resident when model, optimizer state and data were there: activations, gradients, and whatever else a step needs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def mlp(m: Any) -> tuple[Any, Any, Any]:
    """Ten layers of 1024 with ReLU, a batch of 2048."""
    nn = m.nn
    layers = [part for _ in range(10) for part in (nn.Linear(1024, 1024), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(1024, 10))
    return model, m.randn(2048, 1024), m.randint(0, 10, (2048,))


def gpt(m: Any) -> tuple[Any, Any, Any]:
    """Four blocks, 256 wide, 8 heads; 16 sequences of 256 tokens of a vocabulary of 1000."""
    nn, functional = m.nn, m.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(256), nn.LayerNorm(256)
            self.qkv, self.out = nn.Linear(256, 768), nn.Linear(256, 256)
            self.mlp = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = (part.view(b, t, 8, 32).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(256, dim=2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(1000, 256), nn.Embedding(256, 256)
            self.blocks = nn.Sequential(*[Block() for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 1000, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.tokens(x) + self.places(m.arange(x.shape[1]))
            return self.head(self.norm(self.blocks(x))).view(-1, 1000)

    return GPT(), m.randint(0, 1000, (16, 256)), m.randint(0, 1000, (16 * 256,))


MODELS = {"mlp": mlp, "gpt": gpt}


def resident(field: str) -> float:
    """Megabytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(model_name: str, library: str) -> dict[str, float]:
    """Train in this process and watch its memory."""
    m = importlib.import_module(library)
    if library == "torch":
        m.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    m.manual_seed(0)
    model, x, y = MODELS[model_name](m)
    optimizer = m.optim.AdamW(model.parameters(), lr=1e-4)
    for p in model.parameters():  # the state is there before, for it is no memory of a step's own
        p.grad = m.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    small = m.nn.functional.cross_entropy(model(x[:2]), y[: (2 if model_name == "mlp" else 512)])
    small.backward()  # libraries' buffers
    optimizer.zero_grad()
    del small
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        optimizer.zero_grad()
        loss = m.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return {"before": before, "peak": resident("VmHWM") - before, "loss": float(loss.item())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--library", choices=("disttorch", "torch"))
    options = parser.parse_args()
    if options.model and options.library:
        print(json.dumps(measure(options.model, options.library)))
        return
    print(f"{'MB of a training step':<24} {'disttorch':>10} {'torch':>8} {'ratio':>6}")
    for model_name in [options.model] if options.model else MODELS:
        peaks = {}
        for library in [options.library] if options.library else ("disttorch", "torch"):
            command = [sys.executable, __file__, "--model", model_name, "--library", library]
            environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode == 0:
                peaks[library] = json.loads(done.stdout.splitlines()[-1])["peak"]
            elif "No module named 'torch'" not in done.stderr:
                raise SystemExit(done.stderr)
        texts = [f"{peaks[library]:.0f}" if library in peaks else "" for library in ("disttorch", "torch")]
        ratio = f"{peaks['disttorch'] / peaks['torch']:.2f}" if len(peaks) == 2 else ""
        print(f"{model_name:<24} {texts[0]:>10} {texts[1]:>8} {ratio:>6}")


if __name__ == "__main__":
    main()
