"""The directions of the house: who may import whom, and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Doors that PyTorch's names want in a room, with what is behind them higher up.
DOORS = {"nn/parallel", "optim/swa_utils"}
# The rooms of disttorch from the ground up; a room imports only rooms that stand before it. What users import side by
# side is one storey.
STOREYS = [
    {"version"},
    {"backend"},
    {"autograd"},
    {"ops"},
    {"printing"},
    {"tensor", "settings", "amp", "random"},
    {"cuda"},
    {
        "nn", "optim", "utils", "cpu", "linalg", "fft", "signal", "special", "masked", "backends", "compiler", "jit", "__config__",
        "distributions", "xpu", "mps",
    },
    {"serialization", "multiprocessing", "array_api", "transforms", "accelerator", "testing", "_C", "_dynamo", "_inductor"},
    {"func", "profiler", "futures"},
    {"distributed", "as_torch"},
    {"metrics"},
    sorted(DOORS),
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """(absolute module name, line) of everything that a file imports at its top level or anywhere in it."""
    package = path.relative_to(ROOT).with_suffix("").parts
    if package[-1] == "__init__":
        package = (*package[:-1], "")
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found.append((module, node.lineno))
            found += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(name):
    """The room of a module of disttorch; the package itself has none."""
    parts = name.split(".")[1:]
    if "/".join(parts[:2]) in DOORS:
        return "/".join(parts[:2])
    return parts[0] if parts else None


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("collectives", {"disttorch", "launcher"}),
        ("launcher", {"disttorch", "collectives", "numpy", "mpi4py"}),
        ("disttorch", {"launcher"}),
    ],
)
def test_packages_import_only_downward(package, others):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imported(path)
        if name.split(".")[0] in others
    ]
    assert not wrong


def test_rooms_import_only_rooms_below():
    wrong = []
    for path in sources("disttorch"):
        here = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        if here is None:
            continue
        assert here in LEVEL, f"{path} is in no storey"
        for name, line in imported(path):
            there = room(name) if name.startswith("disttorch") and is_module(name) else None
            if there not in (None, here) and LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    # a sampler and a metric ask for the rank only when none is given
    allowed = {"disttorch/utils/data/distributed.py"}
    assert not [w for w in wrong if w.split(":")[0] not in allowed]


def test_only_the_backend_names_array_libraries():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("disttorch")
        if "backend" not in path.parts
        for name, line in imported(path)
        if name.split(".")[0] in {"numpy", "cupy", "cupyx", "ml_dtypes", "scipy", "mpi4py"}
    ]
    assert not wrong


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "package", ["disttorch", "disttorch.distributed", "disttorch.nn", "disttorch.utils.data", "collectives", "launcher"]
)
def test_an_import_starts_nothing(package):
    program = f"""
import sys, threading
import {package}
print("mpi4py.MPI" in sys.modules, threading.active_count(), "cupy" in sys.modules)
"""
    assert run(program) == "False 1 False"


@pytest.mark.parametrize(("package", "absent"), [("launcher", "numpy"), ("collectives", "disttorch")])
def test_an_import_does_not_load(package, absent):
    assert run(f"import sys, {package}; print({absent!r} in sys.modules)") == "False"


def test_absent_names_are_said_to_be_absent():
    import disttorch

    with pytest.raises(AttributeError, match="disttorch has no 'no_such_name'"):
        disttorch.no_such_name  # noqa: B018


def test_every_public_function_has_a_docstring():
    missing = []
    for package in ("disttorch", "collectives", "launcher"):
        for path in sources(package):
            if path.parent.name == "cpu_kernels" or ("cuda" in path.parts and path.parent.name in ("kernels", "cudnn")):
                continue  # they are described where the plain kernels of the same names are
            tree = ast.parse(path.read_text())
            if not ast.get_docstring(tree) and path.read_text().strip():
                missing.append(str(path.relative_to(ROOT)))
            missing += [
                f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                for node in tree.body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ]
    assert not missing
