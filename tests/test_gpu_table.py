"""The README's table of what was measured on a GPU is made of the newest results, and says what has not been run."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("gpu_table", ROOT / "docs" / "gpu_table.py")
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


def test_the_readme_is_true():
    readme = table.README.read_text()
    assert readme == table.page(readme, table.newest()), "run: python docs/gpu_table.py"


def test_without_results_everything_is_said_not_to_have_been_measured():
    written = table.text(None)
    assert written.startswith("No GPU has run any of this yet. Not yet measured on a GPU: ")
    assert all(title in written for title in table.LINES.values())


def result(name, **figures):
    return {
        "name": name, "title": f"The {name}", "unit": "tokens/s", "a_step": {"count": 100, "flops": 5e12}, "errors": {},
        "seconds_a_step": figures, "peak_memory": {"disttorch eager": 2**30, "PyTorch eager": 3 * 2**30},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Two runs, of which the older one has the later name."""
    times = {"disttorch eager": 0.02, "PyTorch eager": 0.03, "disttorch captured": 0.01, "torch.compile": 0.015}
    failed = {**result("lstm"), "errors": {"process": "ended with -9: its time was over"}}
    run = {
        "command": "python3 benchmarks/gpu.py", "commit": "abc1234", "device": {"name": "NVIDIA H100"}, "driver": "580.1", "quick": False,
        "versions": {"python": "3.12.3", "torch": "2.11.0"}, "peak": {"tflops": 989, "tb_per_s": 3.35},
    }  # fmt: skip
    new = {**run, "date": "2027-02-01", "results": [{**result("gpt2"), "seconds_a_step": times}, failed]}
    (tmp_path / "gpu-a-2027-02-01.json").write_text(json.dumps(new))
    (tmp_path / "gpu-z-2027-01-01.json").write_text(json.dumps({**run, "date": "2027-01-01", "results": []}))
    return tmp_path


def test_the_newest_results_are_shown(folder):
    path = table.newest(folder)
    assert path.name == "gpu-a-2027-02-01.json"
    written = table.text(path)
    assert "| The gpt2 | 20.0 ms | 10.0 ms | 30.0 ms | 15.0 ms | 1.50 | 1.50 | 10,000 tokens/s, 51% of 989 TFLOP/s | 1.0 / 3.0 |" in written
    assert "- The lstm, process: ended with -9: its time was over" in written
    assert "`python3 benchmarks/gpu.py`" in written and "NVIDIA H100, driver 580.1, torch 2.11.0; 2027-02-01" in written
    assert "Not measured in this run: ResNet-50;" in written and "GPT-2 124M" not in written
    assert "Not yet measured" not in written


def test_torch_compile_is_its_fastest_mode(folder):
    """A small model's launches are its cost, and one of the modes saves them as our graphs do."""
    times = {"disttorch captured": 0.01, "torch.compile": 0.03, "torch.compile reduce-overhead": 0.012}
    assert "| The mlp |  | 10.0 ms |  | 12.0 ms |  | 1.20 |" in table.row({**result("mlp"), "seconds_a_step": times}, None)


def test_only_what_is_between_the_markers_changes():
    readme = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.page(readme, None) == f"before\n{table.BEGIN}\n{table.text(None)}\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="has no"):
        table.page("no markers", None)


def test_every_benchmark_has_a_line():
    source = (ROOT / "benchmarks" / "gpu_measuring.py").read_text()
    for name in ("adamw", "launch", "product", "copy"):
        assert f'"{name}' in source
    models = importlib.util.spec_from_file_location("gpu_models", ROOT / "benchmarks" / "gpu_models.py")
    module = importlib.util.module_from_spec(models)
    models.loader.exec_module(module)
    assert set(module.MODELS) <= set(table.LINES)
