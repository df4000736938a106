"""Finds in our sources every name and argument that they take from other packages, and looks whether the packages have them.

The walk follows imports, assignments (``nccl = cupy.cuda.nccl``, ``self._cupy = cupy``), calls of classes
(``event = cupy.cuda.Event()``) and with-blocks; of everything else it knows nothing and says nothing. An unknown name or argument is a
`Mistake`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.stand_in.record import parameters

__all__ = ["Instance", "Mistake", "mistakes", "names_taken"]


class Mistake(NamedTuple):
    """Where, and what is wrong."""

    place: str
    text: str


class Instance:
    """Something of a class, of which there is no example."""

    def __init__(self, kind: type):
        self.kind = kind


class Unknown:
    """Anything else."""


UNKNOWN = Unknown()


def _returned(cupy: Any) -> dict[Any, Any]:
    """What some functions give."""
    return {
        cupy.cuda.get_current_stream: Instance(cupy.cuda.Stream),
        cupy.get_default_memory_pool: Instance(cupy.cuda.MemoryPool),
        cupy.get_default_pinned_memory_pool: Instance(cupy.cuda.PinnedMemoryPool),
        cupy.cuda.alloc: Instance(cupy.cuda.MemoryPointer),
        cupy.cuda.alloc_pinned_memory: Instance(cupy.cuda.PinnedMemoryPointer),
        **{
            getattr(cupy, name): Instance(cupy.ndarray)
            for name in "array asarray ascontiguousarray empty empty_like full ones zeros zeros_like arange concatenate".split()
        },
    }


class Walk(ast.NodeVisitor):
    """One file."""

    def __init__(self, place: str, packages: tuple[str, ...], hints: Mapping[str, Any], returned: Mapping[Any, Any]):
        self.place, self.packages, self.returned = place, packages, returned
        self.hints = hints
        self.scopes: list[dict[str, Any]] = [dict(hints)]
        self.mistakes: list[Mistake] = []
        self.taken: set[str] = set()

    def say(self, node: ast.AST, text: str) -> None:
        self.mistakes.append(Mistake(f"{self.place}:{getattr(node, 'lineno', 0)}", text))

    # What names stand for --------------------------------------------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] in self.packages:
                module = self._module(node, alias.name)
                top = module if alias.asname else importlib.import_module(alias.name.split(".")[0])
                self.scopes[-1][alias.asname or alias.name.split(".")[0]] = top

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or (node.module or "").split(".")[0] not in self.packages:
            return
        module = self._module(node, node.module or "")
        for alias in node.names:
            found = getattr(module, alias.name, UNKNOWN)
            if found is UNKNOWN:
                try:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    self.say(node, f"{node.module} has no {alias.name}")
            self.taken.add(f"{node.module}.{alias.name}")
            self.scopes[-1][alias.asname or alias.name] = found

    def _module(self, node: ast.AST, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self.say(node, f"there is no module {name} ({error})")
            return UNKNOWN

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts):
                pairs = list(zip(target.elts, node.value.elts))
            for name, value in pairs:
                self._bind(name, self.what(value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if node.value is not None:
            self._bind(node.target, self.what(node.value))

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, self.what(item.context_expr))
        for statement in node.body:
            self.visit(statement)

    def _bind(self, target: ast.AST, value: Any) -> None:
        text = ast.unparse(target)
        if isinstance(target, (ast.Name, ast.Attribute)):
            scope = self.scopes[0] if isinstance(target, ast.Attribute) else self.scopes[-1]
            if value is UNKNOWN and not isinstance(target, ast.Attribute):
                if text not in self.hints:
                    scope[text] = UNKNOWN
            elif value is not UNKNOWN:
                scope[text] = value

    def _function(self, node: Any) -> None:
        outer = [*getattr(node, "decorator_list", ()), *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        for each in outer:
            self.visit(each)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.scopes.append({argument.arg: UNKNOWN for argument in arguments if argument.arg not in self.scopes[0]})
        for statement in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(statement)
        self.scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def what(self, node: ast.AST) -> Any:
        """What an expression stands for."""
        if isinstance(node, ast.Name):
            return self._known(node.id)
        if isinstance(node, ast.Attribute):
            known = self._known(ast.unparse(node))
            if known is not UNKNOWN:
                return known
            return self._attribute(self.what(node.value), node.attr)
        if isinstance(node, ast.Call):
            called = self.what(node.func)
            if isinstance(called, type):
                return Instance(called)
            try:
                return self.returned.get(called, UNKNOWN)
            except TypeError:
                return UNKNOWN
        if isinstance(node, ast.IfExp):
            found = [each for each in (self.what(node.body), self.what(node.orelse)) if each is not UNKNOWN]
            return found[0] if len(found) == 1 else UNKNOWN
        return UNKNOWN

    def _known(self, text: str) -> Any:
        for scope in reversed(self.scopes):
            if text in scope:
                return scope[text]
        return UNKNOWN

    @staticmethod
    def _attribute(owner: Any, name: str) -> Any:
        if isinstance(owner, Instance):
            found = inspect.getattr_static(owner.kind, name, UNKNOWN)
            return getattr(owner.kind, name) if callable(found) or isinstance(found, (staticmethod, classmethod)) else UNKNOWN
        return UNKNOWN if owner is UNKNOWN else getattr(owner, name, UNKNOWN)

    # What is wrong ---------------------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self.what(node.value)
        if owner is UNKNOWN or isinstance(node.ctx, ast.Store):
            return
        kind = owner.kind if isinstance(owner, Instance) else owner
        if isinstance(kind, (type, types.ModuleType)) and self._is_theirs(kind):
            self.taken |= {f"{kind.__module__ if isinstance(kind, type) else kind.__name__}.{node.attr}", ast.unparse(node)}
            has = hasattr(kind, node.attr) or (isinstance(owner, Instance) and node.attr in INSTANCES.get(kind.__name__, ()))
            if not has:
                self.say(node, f"{kind.__name__} has no {node.attr} ({ast.unparse(node)})")

    def _is_theirs(self, kind: Any) -> bool:
        module = kind.__module__ if isinstance(kind, type) else kind.__name__
        return module.split(".")[0] in (*self.packages, "cupy_backends")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self.what(node.func)
        if called is UNKNOWN or isinstance(called, Instance):
            return
        problem = refused(called, [ast.unparse(a) for a in node.args if not isinstance(a, ast.Starred)],
                          [k.arg for k in node.keywords if k.arg], any(isinstance(a, ast.Starred) for a in node.args)
                          or any(k.arg is None for k in node.keywords))  # fmt: skip
        if problem:
            self.say(node, f"{ast.unparse(node.func)}: {problem}")


INSTANCES = {"Stream": ("ptr", "device_id"), "Event": ("ptr",), "Device": ("id",), "Graph": ("graph",), "RawKernel": ("attributes",)}
"""Attributes that only objects have, not their classes."""


def refused(function: Any, positional: list[str], keywords: list[str], open_ended: bool = False) -> str:
    """Why a function does not take such arguments; empty where it does, or does not say what it takes."""
    taken = _parameters(function)
    if taken is None:
        return ""
    kinds = {name: kind for name, kind, _ in taken}
    free_keywords = "VAR_KEYWORD" in kinds.values()
    for name in keywords:
        if kinds.get(name) in (None, "POSITIONAL_ONLY", "VAR_POSITIONAL", "VAR_KEYWORD") and not free_keywords:
            return f"no argument {name!r}; it takes {', '.join(kinds)}"
    places = [name for name, kind, _ in taken if kind in ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")]
    if len(positional) > len(places) and "VAR_POSITIONAL" not in kinds.values():
        return f"{len(positional)} arguments by place; it takes {', '.join(places)}"
    twice = set(places[: len(positional)]) & set(keywords)
    if twice:
        return f"argument {twice.pop()!r} twice"
    missing = [name for name, kind, default in taken if not default and kind not in ("VAR_POSITIONAL", "VAR_KEYWORD")]
    missing = [name for name in missing if name not in keywords and name not in places[: len(positional)]]
    return f"argument {missing[0]!r} is missing" if missing and not open_ended else ""


def _parameters(function: Any) -> Any:
    if type(function).__name__ == "ufunc":
        by_place = [[f"x{n}", "POSITIONAL_ONLY", False] for n in range(function.nin)]
        results = [["out", "POSITIONAL_OR_KEYWORD", True]] + [[f"out{n}", "POSITIONAL_ONLY", True] for n in range(1, function.nout)]
        return [*by_place, *results, *([name, "KEYWORD_ONLY", True] for name in ("dtype", "casting", "where"))]
    if isinstance(function, type):
        text = (function.__init__.__doc__ or "") if function.__init__ is not object.__init__ else ""
        found = parameters(function)
        if found is None or text.startswith(f"{function.__name__}.__init__("):
            from tests.stand_in.record import signature_of_text

            found = signature_of_text(text.split("\n")[0]) or signature_of_text((function.__doc__ or "").split("\n")[0])
        return found
    if not callable(function):
        return None
    return parameters(function)


def mistakes(
    files: Mapping[str, str], packages: tuple[str, ...], hints: Callable[[str], Mapping[str, Any]] = lambda place: {}
) -> tuple[list[Mistake], set[str]]:
    """What is wrong in sources, and all names that they take.

    Parameters
    ----------
    files : mapping of str to str
        Texts by name.
    packages : tuple of str
        The packages that are looked at.
    hints : callable
        What expressions of a file stand for that the walk cannot find out, as ``{"self._comm": Instance(NcclCommunicator)}``.
    """
    returned = _returned(importlib.import_module("cupy")) if "cupy" in packages else {}
    found: list[Mistake] = []
    taken: set[str] = set()
    for place, text in files.items():
        walk = Walk(place, packages, hints(place), returned)
        walk.visit(ast.parse(text))
        found += walk.mistakes
        taken |= walk.taken
    return found, taken


def names_taken(text: str, root: str) -> Iterator[tuple[int, str, ast.Call | None]]:
    """Names that a source takes from a variable, as ``xp.where``: line, dotted path, and the call if it is called."""
    tree = ast.parse(text)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            path = ast.unparse(node)
            if path.startswith(f"{root}.") and path.replace(".", "").replace("_", "").isalnum():
                yield node.lineno, path[len(root) + 1 :], calls.get(id(node))


def texts(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """The texts of files, by their paths below a folder."""
    return {str(file.relative_to(folder)): file.read_text() for pattern in patterns for file in sorted(folder.glob(pattern))}
