"""What benchmarks/gpu.py measures is the same training in both libraries, and its results are what the README's table reads."""

import argparse
import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
import types
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
def gpu(benchmark):
    """The script itself."""
    sys.modules["gpu_measuring"] = benchmark
    try:
        yield load("benchmarks", "gpu")
    finally:
        sys.modules.pop("gpu_measuring")


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
        batch, result = draw(np.random.default_rng(0)), {"first_losses": {}, "peak_memory": {}, "errors": {}}
        for way in ("eager", "captured"):
            clock, step, times, seconds = benchmark.prepared(
                result, f"disttorch {way}", benchmark.Clock(torch, "cuda"), way, make, "tiny", weights, batch
            )
            assert times >= 2 and seconds[0] >= 0
            assert clock.turn(step, 2) >= 0
        eager, captured = result["first_losses"].values()
        assert captured[:3] == [None] * 3
        assert captured[3:] == pytest.approx(eager[3:], rel=1e-3)
        assert eager[-1] < eager[0]
        benchmark.check_losses(result)
        assert not result["errors"]


@pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))
def test_the_peak_of_memory_is_a_steps_own(benchmark):
    """Not what another variant keeps; and a captured step takes its memory when it is captured, as much as an eager one takes."""
    with session.tensors() as torch:
        make = benchmark.MODELS["gpt2"][1]
        model, _, draw, _ = make(torch, "tiny")
        weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
        batch, result = draw(np.random.default_rng(0)), {"first_losses": {}, "peak_memory": {}}
        kept = []
        for column, way in (("first", "eager"), ("again", "eager"), ("captured", "captured")):
            kept.append(benchmark.prepared(result, column, benchmark.Clock(torch, "cuda"), way, make, "tiny", weights, batch))
        peaks = result["peak_memory"]
        # a stream's first product takes the workspace of cuBLAS, of some MB, and keeps it
        workspace = peaks["first"] - peaks["again"]
        assert workspace > 2**20 > peaks["again"] > 4 * sum(w.nbytes for w in weights.values())
        assert peaks["captured"] - workspace == pytest.approx(peaks["again"], rel=0.1)


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "losses", "alike"),
    [
        ("disttorch eager", [7.0, 6.9, 6.8, 6.7, 6.6, 6.5], True),
        ("disttorch eager", [7.0, 6.9, 6.6, 6.7, 6.6, 6.5], False),
        ("disttorch eager", [7.0, NAN, NAN, NAN, NAN, NAN], False),
        ("disttorch captured", [None, None, None, 6.7, 6.6, 6.7], True),
        ("disttorch captured", [None, None, None, 6.7, 6.7, 7.0], False),
        ("torch.compile", [7.0, 6.9, 6.8, 6.7, 6.6, NAN], False),
    ],
)
def test_different_losses_are_an_error(column, losses, alike, benchmark):
    result = {"first_losses": {column: losses, "PyTorch eager": [7.0, 6.9, 6.8, 6.7, 6.6, 6.5]}, "errors": {}}
    benchmark.check_losses(result)
    assert list(result["errors"]) == ([] if alike else [f"losses of {column}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "backend='inductor' raised:\nInductorError: RuntimeError: Failed to find C compiler.\n\nSet TORCHDYNAMO_VERBOSE=1 for more",
            "RuntimeError: backend='inductor' raised: InductorError: RuntimeError: Failed to find C compiler.",
        ),
        (
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs\nCompile with `TORCH_USE_CUDA_DSA`\n",
            "RuntimeError: CUDA error: out of memory",
        ),
        ("", "RuntimeError:"),
    ],
)
def test_an_error_says_what_has_happened_and_not_how_to_learn_more(text, said, benchmark):
    assert benchmark.reason(RuntimeError(text)) == said


def test_a_library_that_fails_costs_its_own_figures(benchmark, monkeypatch, capsys):
    class Broken:
        def ones(self, *args, **options):
            raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(benchmark, "libraries", lambda result, device: {"disttorch": Broken(), "PyTorch": disttorch})
    options = argparse.Namespace(device="cpu", without=["launch with gradient: disttorch eager"])
    benchmark.measure_launch(options)
    said = [json.loads(line.removeprefix("RESULT ")) for line in capsys.readouterr().out.splitlines()]
    last = {r["name"]: r for r in said}
    assert last["launch"]["errors"] == {"disttorch eager": "RuntimeError: no kernel image is available"}
    assert not last["launch with gradient"]["errors"]
    assert all(list(r["seconds_a_step"]) == ["PyTorch eager"] and "under_way" not in r for r in last.values())
    assert "disttorch eager" in {r.get("under_way") for r in said}


@pytest.mark.parametrize("problem", ["no CUDA device", "import"])
def test_a_pytorch_that_cannot_be_used_is_said(problem, benchmark, monkeypatch):
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.util.spec_from_loader("torch", None)
    torch.__version__, torch.cuda = "2.13.0+cpu", types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    if problem == "import":
        monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: torch.__spec__)
        monkeypatch.setitem(sys.modules, "torch", None)
    result = {"errors": {}}
    assert list(benchmark.libraries(result, "cuda")) == ["disttorch"]
    assert problem in result["errors"]["PyTorch"]


def test_where_a_process_ends_with_a_library_another_goes_on_without_it(gpu, tmp_path, monkeypatch):
    """As after an illegal access to memory, upon which a device answers nothing any more to that process."""
    script = tmp_path / "gpu.py"
    script.write_text(
        "import json, os, signal, sys\n"
        "result = {'name': 'mlp', 'title': 'MLP', 'seconds_a_step': {}, 'errors': {}}\n"
        "def say(**more): print('RESULT ' + json.dumps({**result, **more}), flush=True)\n"
        "for column in ('ours', 'theirs', 'captured', 'compiled'):\n"
        "    if f'mlp: {column}' in sys.argv:\n"
        "        continue\n"
        "    say(under_way=column)\n"
        "    if column == 'ours':\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if column == 'captured':\n"
        "        result['errors'][column] = 'an illegal memory access'\n"
        "        say(under_way=column)\n"
        "        os._exit(1)\n"
        "    result['seconds_a_step'][column] = 1.5\n"
        "    say()\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    (found,) = gpu.run_one("mlp", 60, argparse.Namespace(device="cpu", quick=True))
    assert found["seconds_a_step"] == {"theirs": 1.5, "compiled": 1.5}
    assert found["errors"] == {"ours": "ended with -11: ", "captured": "an illegal memory access"}
    assert "under_way" not in found


def test_what_was_measured_before_stays_in_the_file(gpu, tmp_path):
    def result(name, *columns):
        return {"name": name, "title": name, "seconds_a_step": dict.fromkeys(columns, 0.5), "errors": {}}

    target = tmp_path / "gpu-try-2027-01-01.json"
    run = {"command": "gpu.py --only mlp lstm", "date": "2027-01-01", "commit": "abc", "quick": False}
    again = {**run, "command": "gpu.py --only gpt2 lstm"}
    assert gpu.earlier(target, run) is None
    gpu.write(target, {**run, "seconds": 20, "results": [result("mlp", "ours"), result("lstm", "ours")]})
    both = gpu.joined(gpu.earlier(target, again), {**again, "seconds": 30, "results": [result("gpt2", "ours"), result("lstm")]})
    assert both["command"] == "gpu.py --only mlp lstm; gpu.py --only gpt2 lstm"
    assert both["seconds"] == 50
    assert {r["name"]: len(r["seconds_a_step"]) for r in both["results"]} == {"mlp": 1, "lstm": 1, "gpt2": 1}
    assert gpu.earlier(target, {**again, "commit": "other"}) is None
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_without_git_the_commit_is_not_known(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.commit() == "unknown"


def test_the_loss_is_compiled_with_the_model(benchmark, monkeypatch):
    """As whoever compiles a training step does; the graph is whole."""
    torch = pytest.importorskip("torch", reason="PyTorch's compiler is looked at")
    graphs, original = [], torch.compile

    def seen(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    monkeypatch.setattr(torch, "compile", lambda function, mode: original(function, backend=seen))
    model, _, draw, _ = benchmark.MODELS["gpt2"][1](torch, "tiny")
    weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    step = benchmark.training(torch, benchmark.MODELS["gpt2"][1], "tiny", "cpu", weights, draw(np.random.default_rng(0)), "compile")
    assert step().item() > step().item()
    assert len(graphs) == 1
    assert any("cross_entropy" in target for target in graphs[0])


def test_ended_from_outside_it_ends_what_it_has_started(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--only", "lstm"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as script:
        children, begun, measuring = Path(f"/proc/{script.pid}/task/{script.pid}/children"), time.monotonic(), []
        while not measuring and time.monotonic() < begun + 60:
            time.sleep(0.01)
            with contextlib.suppress(OSError):  # a child that has ended meanwhile
                measuring = [c for c in children.read_text().split() if b"--measure" in Path(f"/proc/{c}/cmdline").read_bytes()]
        script.terminate()
        assert script.wait(20) == 128 + signal.SIGTERM
        assert measuring and not Path(f"/proc/{measuring[0]}").exists()
