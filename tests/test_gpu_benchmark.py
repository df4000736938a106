"""What benchmarks/gpu.py measures is the same training in both libraries, and its results are what the README's table reads."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import disttorch
from tests.stand_in import host_cuda, session

ROOT = Path(__file__).resolve().parents[1]


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    """What measures; its folder is in front of the search path while it is imported, and no longer."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield load("benchmarks", "gpu_measuring")
    finally:
        sys.path[:] = before
        sys.modules.pop("gpu_models", None)


@pytest.mark.parametrize("name", ["gpt2", "resnet50", "mlp", "lstm"])
def test_both_libraries_train_the_same(name, benchmark):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    make = benchmark.MODELS[name][1]
    disttorch.manual_seed(0)
    model, _, draw, about = make(disttorch, "tiny")
    weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    batch = draw(np.random.default_rng(0))
    losses = []
    for library in (disttorch, torch):
        step = benchmark.training(library, make, "tiny", "cpu", weights, batch, "eager")
        losses.append([step().item() for _ in range(4)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][-1] < losses[0][0]
    assert about["count"] == (batch[0].size if batch[0].dtype.kind == "i" else len(batch[0]))


@pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))
@pytest.mark.parametrize("name", ["gpt2", "resnet50", "mlp", "lstm"])
def test_a_step_is_captured(name, benchmark):
    """On the stand-in for a GPU, which finds what a graph uses and nothing keeps."""
    with session.tensors() as torch:
        make = benchmark.MODELS[name][1]
        model, _, draw, _ = make(torch, "tiny")
        weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
        batch, clock = draw(np.random.default_rng(0)), benchmark.Clock(torch, "cuda")
        for way in ("eager", "captured"):
            step = benchmark.training(torch, make, "tiny", "cuda", weights, batch, way)
            assert clock.turn(step, 2) >= 0
            assert clock.peak(step) > 0
            step()


def test_gpt2_and_resnet50_are_as_large_as_published(benchmark):
    """124 million parameters with 50,257 tokens; 25.56 million (He et al., table 6; torchvision's documentation)."""
    sizes = {}
    for name in ("gpt2", "resnet50"):
        disttorch.manual_seed(0)
        model, _, _, about = benchmark.MODELS[name][1](disttorch, "full")
        sizes[name] = sum(p.numel() for p in model.parameters())
        assert about["flops"] > 1e12
    assert sizes["gpt2"] - (50304 - 50257) * 768 == 124_439_808
    assert sizes["resnet50"] == 25_557_032


def test_the_script_writes_what_the_table_reads(tmp_path):
    target = tmp_path / "gpu-try-2027-01-01.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick", "--json", str(target)]
    ended = subprocess.run(
        [*command, "--only", "mlp", "launch", "--seconds", "100"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 results in " in ended.stdout
    run = json.loads(target.read_text())
    assert [r["name"] for r in run["results"]] == ["mlp", "launch", "launch with gradient"]
    assert all(r["seconds_a_step"]["disttorch eager"] > 0 and not r["errors"] for r in run["results"])
    assert run["results"][0]["rounds"]["disttorch eager"] == 3
    table = load("docs", "gpu_table").text(target)
    assert "| MLP 784-512-512-10, batch 128, AdamW | " in table and "| x + y of four elements | " in table


def test_a_failure_of_one_model_is_a_line_of_the_result(tmp_path):
    """The time is over before PyTorch or a second model could begin."""
    target = tmp_path / "gpu-try-2027-01-01.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick", "--json", str(target)]
    ended = subprocess.run(
        [*command, "--only", "mlp", "lstm", "--seconds", "12"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    run = json.loads(target.read_text())
    assert run["results"][-1]["errors"] == {"process": "not begun: the time was over"}
