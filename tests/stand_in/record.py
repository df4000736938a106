"""Writes down what CuPy offers: names, arguments and types of elements, by looking at the installed package.

    python -m tests.stand_in.record

needs CuPy (it imports without a driver) and writes ``cupy_names.json``, which the stand-in goes by where there is no CuPy, and a
test compares with CuPy where there is.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["FILE", "parameters", "recorded", "signature_of_text"]

FILE = Path(__file__).with_name("cupy_names.json")
MODULES = ("cupy", "cupy.linalg", "cupy.fft", "cupyx")
CLASSES = (
    "cupy.random.Generator", "cupy.cuda.Stream", "cupy.cuda.ExternalStream", "cupy.cuda.Event", "cupy.cuda.Device", "cupy.cuda.Graph",
    "cupy.cuda.MemoryPool", "cupy.cuda.MemoryPointer", "cupy.cuda.MemoryHook", "cupy.cuda.PinnedMemoryPool", "cupy.RawModule",
    "cupy.RawKernel",
)  # fmt: skip
REDUCTIONS = {
    "sum": ("_core._routines_math", "sum_auto_dtype"),
    "prod": ("_core._routines_math", "prod_auto_dtype"),
    "amax": ("_core._routines_statistics", "amax"),
    "amin": ("_core._routines_statistics", "amin"),
    "count_nonzero": ("_sorting.count", "_count_nonzero"),
    "all": ("_core._routines_logic", "all"),
    "any": ("_core._routines_logic", "any"),
}
"""Reductions whose kernels show their types, and where CuPy has them."""
INNER = {
    "where": ("cupy._sorting.search", "_where_ufunc"),
    "clip": ("cupy._core._routines_math", "_clip"),
    "around": ("cupy._core.core", "_round_ufunc"),
    "conjugate": ("cupy._core._routines_math", "_conjugate"),
    "nan_to_num": ("cupy._math.misc", "_nan_to_num"),
    "real": ("cupy._math.arithmetic", "_real_ufunc"),
    "imag": ("cupy._math.arithmetic", "_imag_ufunc"),
    "isclose": ("cupy._logic.comparison", "_is_close"),
}
"""Elementwise functions within functions."""


def parameters(function: Any) -> list[list[Any]] | None:
    """(name, kind, whether it has a default) of each argument; None where the function does not say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return signature_of_text((function.__doc__ or "").split("\n")[0])
    return [[p.name, p.kind.name, p.default is not p.empty] for p in signature.parameters.values() if p.name != "self"]


def signature_of_text(line: str) -> list[list[Any]] | None:
    """The same from the first line of a compiled function's docstring."""
    found = re.match(r"[\w.]+\((.*)\)(?: ->.*)?$", line)
    if found is None:
        return None
    depth, parts = 0, [""]
    for character in found.group(1):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    result: list[list[Any]] = []
    kind = "POSITIONAL_OR_KEYWORD"
    for part in (part.strip() for part in parts):
        if part in ("", "/"):
            continue
        if part == "*":
            kind = "KEYWORD_ONLY"
        elif part.startswith("**"):
            result.append([part[2:], "VAR_KEYWORD", False])
        elif part.startswith("*"):
            result.append([part[1:], "VAR_POSITIONAL", False])
            kind = "KEYWORD_ONLY"
        else:
            name, _, default = part.partition("=")
            name = name.partition(":")[0].split()[-1]
            result.append([name, kind, bool(default)])
    return [each for each in result if each[0] != "self"]


def recorded() -> dict[str, Any]:
    """All of it, from the CuPy that can be imported."""
    import importlib

    cupy = importlib.import_module("cupy")
    functions: dict[str, Any] = {}
    ufuncs: dict[str, Any] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(dir(module)):
            value = getattr(module, name)
            if name.startswith("_") or inspect.ismodule(value) or not callable(value):
                continue
            if isinstance(value, cupy.ufunc):
                ufuncs[name] = list(value.types)
            elif not inspect.isclass(value):
                functions[f"{module_name}.{name}"] = parameters(value)
    methods = {}
    for name in sorted(dir(cupy.ndarray)):
        value = inspect.getattr_static(cupy.ndarray, name)
        if not name.startswith("_"):
            methods[name] = parameters(getattr(cupy.ndarray, name)) if callable(value) else None
    classes: dict[str, Any] = {}
    for full in CLASSES:
        module_name, _, class_name = full.rpartition(".")
        kind = getattr(importlib.import_module(module_name), class_name)
        found = {n: inspect.getattr_static(kind, n) for n in sorted(dir(kind)) if not n.startswith("_")}
        classes[full] = {n: parameters(getattr(kind, n)) if callable(value) else None for n, value in found.items()}
    reductions = {}
    for name, (module_name, kernel) in REDUCTIONS.items():
        operations = getattr(importlib.import_module(f"cupy.{module_name}"), kernel)._ops.ops
        reductions[name] = ["".join(t.char for t in map(_dtype, o.in_types)) + "->" + _dtype(o.out_types[0]).char for o in operations]
    return {
        "version": cupy.__version__,
        "ufuncs": ufuncs,
        "functions": functions,
        "methods": methods,
        "classes": classes,
        "inner": {name: list(getattr(importlib.import_module(where), inner).types) for name, (where, inner) in INNER.items()},
        "reductions": reductions,
    }


def _dtype(t: Any) -> Any:
    import numpy

    return numpy.dtype(t)


if __name__ == "__main__":
    text = json.dumps(recorded(), sort_keys=True, separators=(",", ":"))
    FILE.write_text(re.sub(r',(?="[\w.]+":[\[nd{])', ",\n", text) + "\n")
    print(f"wrote {FILE.name}")
