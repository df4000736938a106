"""What type checkers are told of the functions and methods that come from tables is what the tables hold."""

import ast
import importlib.util
from pathlib import Path

import pytest

import disttorch
from disttorch import Tensor
from disttorch.ops import FUNCTIONS

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("types_of_tables", ROOT / "docs" / "types_of_tables.py")
types = importlib.util.module_from_spec(spec)
spec.loader.exec_module(types)
WRITTEN = {path.name: path.read_text() for path in types.files()}


def test_the_files_are_true():
    for path, text in types.files().items():
        assert path.read_text() == text, "run: python docs/types_of_tables.py"


def test_every_method_and_function_is_there():
    methods = next(node for node in ast.parse(WRITTEN["methods.pyi"]).body if isinstance(node, ast.ClassDef))
    assert {n for n in dir(Tensor) if n[0] != "_"} <= {node.name for node in methods.body if isinstance(node, ast.FunctionDef)}
    functions = {node.name for node in ast.parse(WRITTEN["functions.pyi"]).body if isinstance(node, ast.FunctionDef)}
    assert functions == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("methods.pyi", "    def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]"),
        ("methods.pyi", "    def __rsub__(self, other: Any) -> Tensor: ..."),
        ("methods.pyi", "    def __iadd__(self, other: Any) -> Tensor: ..."),
        ("methods.pyi", "    def __neg__(self) -> Tensor: ..."),
        ("methods.pyi", "    def numel(self) -> builtins.int: ..."),
        ("methods.pyi", "    def shape(self) -> _Size: ..."),
        ("functions.pyi", "def cumsum(input: Tensor, dim: builtins.int, *, dtype: Any = ..., out: Any = ...) -> Tensor: ..."),
        ("functions.pyi", "def hypot(input: Any, other: Any, *, out: Tensor | None = ...) -> Tensor: ..."),
        ("functions.pyi", "float32: _dtype"),
    ],
)
def test_what_is_said(file, line):
    assert line in WRITTEN[file].splitlines()


def test_at_run_time_nothing_of_it_is_there():
    assert Tensor.__mro__ == (Tensor, object)
    assert not hasattr(disttorch, "functions")
