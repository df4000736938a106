"""What tests/gpu runs on a GPU is run here on the stand-in, in part; and its processes outlive an operation that breaks one."""

import ast
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import inputs
from tests.gpu.pool import Piece, Pool, passed, pieces
from tests.stand_in import host_cuda
from tests.stand_in.arrays import ndarray

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


def run_on_stand_in(*arguments, **variables):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.stand_in.plugin", "--device=stand-in"]
    env = {**os.environ, "DISTTORCH_GPU_PROCESSES": "1", **variables}
    ended = subprocess.run([*command, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@needs_compiler
@pytest.mark.parametrize("name", ["amp", "streams", "graphs", "libraries"])
def test_the_tests_of_the_device_are_sound(name):
    code, text = run_on_stand_in(f"tests/gpu/test_{name}.py")
    assert code == 0, text[-6000:]
    assert "tests/gpu on Stand-in for a GPU (compute capability 9.0" in text


@needs_compiler
def test_operations_modules_and_suites_are_compared_by_other_processes():
    if not inputs.are_here():
        pytest.skip("PyTorch is not installed, whose sample inputs these are")
    chosen = ["test_operation[matmul-float32]", "test_operation[cumsum-float32]", "test_module[LayerNorm-float32]"]
    chosen += ["test_suite[tests/backend/test_softmax.py]"]
    code, text = run_on_stand_in("tests/gpu", "-k", " or ".join(chosen))
    assert code == 0, text[-6000:]
    assert "4 passed" in text and "0 not reached" in text and " 0 tests of other suites" not in text


def test_what_the_pool_computes_is_waited_for_last():
    code, text = run_on_stand_in("tests/gpu", "--collect-only")
    assert code == 0, text[-3000:]
    files = [line.partition("::")[0] for line in text.splitlines() if "::" in line]
    order = [Path(file).name for file, _ in itertools.groupby(files)]
    assert order[0] == "test_streams.py" and order[-3:] == ["test_modules.py", "test_operations.py", "test_suites.py"]


@needs_compiler
def test_runs_on_a_gpu_are_those_on_the_stand_in():
    """The stand-in passes for a GPU, and lacks cuDNN: that is said once, and every kernel is tested on the device."""
    program = "import sys; from tests import stand_in; stand_in.install(); sys.modules['cudnn'] = None; import pytest; "
    program += "sys.exit(pytest.main(sys.argv[1:]))"
    chosen = ["tests/gpu/test_amp.py", "tests/backend/test_convolution.py", "tests/optim/test_swa_utils.py"]
    command = [sys.executable, "-c", program, "-v", "-p", "no:cacheprovider", "-p", "tests.stand_in.plugin", "--device=cuda", *chosen]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    assert ended.stdout.count("computed without cuDNN") == 1 and "1 warning" in ended.stdout
    assert "[cuda-" in ended.stdout or "-cuda]" in ended.stdout


def test_what_pytorch_says_when_it_is_imported_is_no_error(tmp_path):
    if not inputs.are_here():
        pytest.skip("PyTorch is not installed, whose sample inputs these are")
    (tmp_path / "pynvml.py").write_text("import warnings\nwarnings.warn('The pynvml package is deprecated.', FutureWarning)\n")
    code, text = run_on_stand_in("tests/gpu/test_modules.py", "--collect-only", PYTHONPATH=str(tmp_path))
    assert code == 0 and "tests collected" in text, text[-3000:]


RUN_ON_A_GPU = ["tests/stand_in/plugin.py", "tests/backend/conftest.py"]
RUN_ON_A_GPU += [str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "gpu").glob("*.py")]


@pytest.mark.parametrize("name", RUN_ON_A_GPU)
def test_nothing_is_asked_of_an_array_that_only_the_stand_ins_have(name):
    asked = {node.attr for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Attribute)}
    assert not asked & {slot for slot in ndarray.__slots__ if slot.startswith("_") and not slot.startswith("__")}


def test_what_is_not_reached_in_time_is_said():
    if not inputs.are_here():
        pytest.skip("PyTorch is not installed, whose sample inputs these are")
    code, text = run_on_stand_in("tests/gpu/test_operations.py", "-k", "test_operation[add-float32]", DISTTORCH_GPU_SECONDS="0")
    assert code == 0, text[-3000:]
    assert "1 skipped" in text and "1 not reached" in text


FAKE = """#!{python}
import json, os, sys
names = sys.argv[5 : sys.argv.index("--device")]
for name in names:
    print(json.dumps({{"begun": name}}), flush=True)
    if name == "crash":
        print("Segmentation fault", file=sys.stderr, flush=True)
        os._exit(139)
    failures = ["lost"] if name == "lost" else []
    print(json.dumps({{"name": name, "seconds": 0.1, "compared": 3, "same_dtype": 1, "failures": failures}}), flush=True)
    if name == "lost":
        os._exit(17)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A process that breaks at some names, in the place of the one that compares."""
    program = tmp_path / "python"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_broken_process_costs_one_name(fake):
    pool = Pool("cuda", time.time() + 60, [Piece("operations", "float32", ["a", "crash", "b", "lost", "c"])], 2)
    found = {name: pool.outcome("operations", "float32", name) for name in ("a", "crash", "b", "lost", "c")}
    assert all(o.reached for o in found.values())
    assert [name for name, o in found.items() if not o.failures] == ["a", "b", "c"]
    assert "ended with 139 in this" in found["crash"].failures[0] and "Segmentation fault" in found["crash"].failures[0]
    assert found["lost"].failures == ["lost"] and found["c"].compared == 3
    pool.end()


def test_nothing_is_begun_when_the_time_is_over(fake):
    pool = Pool("cuda", time.time() - 1, [Piece("operations", "float32", ["a"])], 1)
    assert not pool.outcome("operations", "float32", "a").reached


def test_all_names_are_cut_into_pieces():
    names = [f"n{i}" for i in range(150)]
    cut = pieces("operations", ["float32", "float64"], names)
    assert sorted(n for p in cut if p.dtype == "float64" for n in p.names) == sorted(names)
    assert max(len(p.names) for p in cut) <= 64
    assert passed("...\n12 passed, 3 skipped in 4.2s") == 12
    assert passed("nothing") == 0
