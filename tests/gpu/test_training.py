"""The example on the GPU, to its accuracy."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.gpu.pool import ROOT

EXAMPLE = ROOT / "examples" / "fashion_mnist.py"
NOWHERE = ["--site", "http://127.0.0.1:9/"]  # nothing listens on the discard port


@pytest.mark.real
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_example_learns_on_the_gpu(tmp_path, ranks):
    """Fashion-MNIST where it is installed or was downloaded, else the handwritten digits beside the example."""
    pytest.importorskip("tqdm", reason="tqdm, whose progress bar the example has, is not installed")
    command = [sys.executable, str(EXAMPLE), "--device", "cuda"]
    if ranks > 1:
        command = [sys.executable, "-m", "launcher", "-n", str(ranks), "--engine", "plain", "--oversubscribe", *command[1:]]
    data = os.environ.get("FASHION_MNIST")
    command += ["--data", data] if data else NOWHERE
    is_there = bool(data) or os.path.isdir("/usr/share/datasets/fashion-mnist")
    epochs = 3 if is_there else 12
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    ended = subprocess.run(
        [*command, "--epochs", str(epochs), "--checkpoint", str(tmp_path / "c.safetensors")],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
    assert f"{ranks} rank(s) on cuda" in ended.stdout
    found = [float(a) for a in re.findall(r"test accuracy ([0-9.]+)", ended.stdout)]
    on_fashion = "Fashion-MNIST from" in ended.stdout
    assert found[-1] >= (0.89 if on_fashion else 0.93), ended.stdout


def test_a_synthetic_dataset_of_fashion_mnists_shape_is_learned(device, is_real):
    """Classes that a linear classifier separates in the clean, under noise: nearly all of them are told apart in the end.

    60 times the noise's standard error between two classes' means leaves a Bayes error below 1e-6.
    """
    import disttorch as torch
    from disttorch import nn

    count, tested, epochs, batch = (20000, 2000, 2, 128) if is_real else (512, 128, 4, 64)
    rng = np.random.default_rng(0)
    prototypes = rng.uniform(0, 255, (10, 28, 28))
    labels = rng.integers(0, 10, count + tested)
    images = np.clip(prototypes[labels] + rng.normal(0, 80, (count + tested, 28, 28)), 0, 255).astype(np.uint8)[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 49, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images[:count]), torch.from_numpy(labels[:count]))
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, pin_memory=True)

    def normalised(x):
        return (x.to(device, non_blocking=True).float() - 127) / 90

    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(normalised(x)), y.to(device, non_blocking=True))
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        guesses = [model(normalised(x)).argmax(1).cpu().numpy() for x in torch.from_numpy(images[count:]).split(500)]
    accuracy = float((np.concatenate(guesses) == labels[count:]).mean())
    assert accuracy > (0.99 if is_real else 0.9), accuracy
