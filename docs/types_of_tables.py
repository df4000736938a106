"""Writes what Tensor's methods and the package's functions take and return, for type checkers and editors: methods.pyi in
disttorch/autograd/, and disttorch/functions.pyi.

    python docs/types_of_tables.py            # writes the files
    python docs/types_of_tables.py --check    # exit code 1 if the files are not what would be written

Both come from tables, where a type checker does not see them. What is written is what Python's own `inspect` says of them.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import disttorch
from disttorch import Tensor
from disttorch.backend.dtypes import PUBLIC_DTYPES
from disttorch.ops import FAMILIES, FUNCTIONS

PACKAGE = Path(disttorch.__file__).parent
HEAD = '''\
"""{what}, which come from tables. `python docs/types_of_tables.py` writes this file."""
# ruff: noqa

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

{imports}

'''
#: The interpreter's own.
LEFT_OUT = {"__annotations__", "__dict__", "__module__", "__slots__", "__weakref__"}
#: What every object has, here with other results.
COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
UNARY = {"abs", "invert", "neg", "pos"}
OPERATORS = UNARY | set("add and div eq floordiv ge gt le lshift lt matmul mod mul ne or pow rshift sub truediv xor".split())
CONVERSIONS = {"__float__": "builtins.float", "__int__": "builtins.int", "__complex__": "builtins.complex", "__iter__": "Iterator[Tensor]"}
#: What takes ``out=`` beyond what its signature says; see disttorch/ops/public.py.
TAKE_OUT = {name for family in FAMILIES for name in getattr(family, "OUT", "").split()}
SAMPLE = disttorch.ones(2, 2)
KNOWN = {"Any", "Callable", "Iterable", "Iterator", "None", "Sequence", "Tensor"}


def files() -> dict[Path, str]:
    """The files' texts, by their places."""
    return {PACKAGE / "autograd" / "methods.pyi": _methods(), PACKAGE / "functions.pyi": _functions()}


def _methods() -> str:
    imports = {"from disttorch.autograd.variable import Tensor"}
    own = {n for n in dir(Tensor) if n[0] != "_" or (n.startswith("__") and n not in dir(object))}
    lines = ["class Methods:"]
    for name in sorted((own - LEFT_OUT) | COMPARISONS):
        attribute = inspect.getattr_static(Tensor, name)
        if isinstance(attribute, property):
            found = _property(name, attribute, imports)
        else:
            found = [_method(name, attribute, imports)] if callable(attribute) else [f"{name}: Any"]
        lines += [f"    {line}" for line in found]
    return HEAD.format(what="The methods of Tensor", imports="\n".join(sorted(imports))) + "\n".join(lines) + "\n"


def _functions() -> str:
    imports = {"from disttorch.autograd.variable import Tensor", "from disttorch.backend.dtypes import dtype as _dtype"}
    lines = [f"{name}: _dtype" for name in sorted(PUBLIC_DTYPES)]
    for name, function in sorted(FUNCTIONS.items()):
        lines.append(f"def {name}({_parameters(function, [], imports)}) -> {_result(function, imports)}: ...")
    return HEAD.format(what="The package's functions and dtypes", imports="\n".join(sorted(imports))) + "\n".join(lines) + "\n"


def _property(name: str, attribute: property, imports: set[str]) -> list[str]:
    returned = _returned(attribute.fget, imports)
    if returned == "Any":  # made from a table
        kind = type(getattr(SAMPLE, name, None))
        if kind.__module__ == "builtins" and kind is not type(None):
            returned = f"builtins.{kind.__name__}"
        elif kind is Tensor:
            returned = "Tensor"
        elif kind.__module__.startswith("disttorch"):
            imports.add(f"from {kind.__module__} import {kind.__name__} as _{kind.__name__}")
            returned = f"_{kind.__name__}"
    lines = ["@property", f"def {name}(self) -> {returned}: ..."]
    return lines if attribute.fset is None else [*lines, f"@{name}.setter", f"def {name}(self, value: Any) -> None: ..."]


def _method(name: str, function: Callable[..., Any], imports: set[str]) -> str:
    if name.startswith("__") and {name[2:-2], name[3:-2]} & OPERATORS:
        ignored = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
        return f"def {name}(self{'' if name[2:-2] in UNARY else ', other: Any'}) -> Tensor: ...{ignored}"
    returned = CONVERSIONS.get(name) or _result(function, imports)
    return f"def {name}({_parameters(function, ['self'], imports)}) -> {returned}: ..."


def _parameters(function: Callable[..., Any], first: list[str], imports: set[str]) -> str:
    """A signature's parameters, the first of which may go by other names."""
    written, star, before = list(first), False, None
    parameters = inspect.signature(function).parameters
    found = [p for p in list(parameters.values())[len(first) :] if p.name[0] != "_"]
    if function.__name__ in TAKE_OUT and "out" not in parameters:
        out = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Any")
        found.insert(len(found) - any(p.kind is p.VAR_KEYWORD for p in found), out)
    for p in found:
        if before is p.POSITIONAL_ONLY != p.kind:
            written.append("/")
        if p.kind is p.KEYWORD_ONLY and not star:
            written.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        sign = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else " = ..."
        written.append(f"{sign}{p.name}: {_type(p.annotation, function, imports)}{default}")
        before = p.kind
    return ", ".join(written + ["/"] * (before is inspect.Parameter.POSITIONAL_ONLY))


def _result(function: Callable[..., Any], imports: set[str]) -> str:
    is_elementwise = list(inspect.signature(function).parameters)[1:] == ["other", "out"]
    return "Tensor" if is_elementwise else _returned(function, imports)


def _returned(function: Any, imports: set[str]) -> str:
    return _type(inspect.signature(function).return_annotation, function, imports)


def _type(annotation: Any, function: Any, imports: set[str]) -> str:
    """An annotation in the file's words, where a method `int` would hide the type of that name."""
    if not isinstance(annotation, str):
        return "Any"

    def word(match: re.Match[str]) -> str:
        name = match[0]
        if name in KNOWN:
            return name
        if inspect.isclass(getattr(builtins, name, None)):
            return f"builtins.{name}"
        imports.add(f"from {inspect.unwrap(function).__globals__[name].__module__} import {name} as _{name}")
        return f"_{name}"

    return re.sub(r"[A-Za-z_]\w*", word, annotation)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(any(path.read_text() != text for path, text in files().items()))
    for path, text in files().items():
        path.write_text(text)
