"""Writes docs/api-coverage.md: which of PyTorch's names are there, from docs/pytorch-names.txt.

    python docs/api_coverage.py            # writes the page
    python docs/api_coverage.py --check    # exit code 1 if the page is not what would be written
    python docs/api_coverage.py --forms    # where PyTorch is installed: writes docs/pytorch-forms.json

An operation has up to four forms in PyTorch: a function, a method, a twin in place (``add_``) and the argument ``out=``. Which of them
it has is in docs/pytorch-forms.json; a name counts as built when all of its forms are there.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, NAMES, FORMS = HERE / "api-coverage.md", HERE / "pytorch-names.txt", HERE / "pytorch-forms.json"
KINDS = ("function", "method", "in place", "out=")


def sections() -> dict[str, list[str]]:
    """The names by the titles of docs/pytorch-names.txt, such as "first: operations"."""
    found: dict[str, list[str]] = {}
    for line in NAMES.read_text().splitlines():
        if line.startswith(("# first", "# second")):
            found[line[2:].rpartition(" (")[0]] = here = []
        elif line and not line.startswith("#"):
            here.append(line)
    return found


def lookup(package: Any, path: str) -> Any:
    """What a dotted name is in a package; None where it is absent."""
    target: Any = package
    for part in path.split("."):
        try:
            target = getattr(target, part)
        except (AttributeError, ImportError):
            return None
    return target


def forms_of(package: Any, name: str) -> set[str]:
    """The forms that an operation has in a package."""
    found = set()
    function = lookup(package, name)
    if callable(function) and not isinstance(function, package.dtype):
        found.add("function")
        if takes_out(function):
            found.add("out=")
    if "." not in name:
        if hasattr(package.Tensor, name):
            found.add("method")
        if hasattr(package.Tensor, name + "_"):
            found.add("in place")
    elif name.startswith("nn.functional.") and callable(lookup(package, name + "_")):
        found.add("in place")
    return found


def takes_out(function: Any) -> bool:
    """Whether a function has the argument ``out=``; PyTorch's own say so in their first lines only."""
    try:
        layers = [function]
        while hasattr(layers[-1], "__wrapped__"):
            layers.append(layers[-1].__wrapped__)
        return any("out" in inspect.signature(layer, follow_wrapped=False).parameters for layer in layers)
    except (TypeError, ValueError):
        head = (function.__doc__ or "").strip().split("\n\n")[0]
        return "out=" in head or "out:" in head


def pytorchs_forms() -> dict[str, list[str]]:
    """The forms that PyTorch has of every operation in the list."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    given = {info.name: info.supports_out for info in op_db if not info.variant_test_name}
    forms = {}
    for title, names in sections().items():
        if "operations" in title:
            for name in names:
                found = forms_of(torch, name)
                if given.get(name) is not None and "function" in found:
                    found = found - {"out="} | ({"out="} if given[name] and name not in NO_OUT else set())
                forms[name] = [kind for kind in KINDS if kind in found]
    return forms


def page() -> str:
    """The text of docs/api-coverage.md."""
    import disttorch

    forms: dict[str, list[str]] = json.loads(FORMS.read_text())
    summary, details = [], []
    for title, names in sections().items():
        built, lacking = [], []
        count = there = 0
        for name in names:
            expected = set(forms.get(name) or ["name"])
            present = forms_of(disttorch, name) if forms.get(name) else ({"name"} if exists(disttorch, title, name) else set())
            missing = [k for k in (*KINDS, "name") if k in expected - present]
            count += len(expected)
            there += len(expected) - len(missing)
            if missing:
                lacking.append(f"`{name}`" if len(missing) == len(expected) else f"`{name}` ({', '.join(missing)})")
            else:
                built.append(f"`{name}`")
        tier, _, what = title.partition(": ")
        shown = f"{there} of {count}" if count != len(names) else ""
        summary.append(f"| {tier} | {what} | {len(built)} of {len(names)} | {shown} |")
        details += [f"## {what[0].upper()}{what[1:]}, {tier} tier: {len(built)} of {len(names)}", ""]
        if lacking:
            details += [*wrapped("Absent, or without the forms in parentheses: ", lacking), ""]
        if built:
            details += [*wrapped("Built: ", built), ""]
    head = f"""\
# PyTorch's names

The names of `docs/pytorch-names.txt`: the first tier is what everybody types, the second what few do. An operation has up to four
forms in PyTorch: a function, a method, a twin in place (`add_`) and the argument `out=`. Which of them it has is in
`docs/pytorch-forms.json`, and a name counts as built when all of them are there. Whether what is built does what PyTorch
{PYTORCH_VERSION} does, `python -m tests.parity.operations` and `python -m tests.parity.modules` compare.

This page is written by `python docs/api_coverage.py`.

| tier | names | built | forms |
| --- | --- | --- | --- |
"""
    return head + "\n".join(summary) + "\n\n" + "\n".join(details).rstrip() + "\n"


PYTORCH_VERSION = "2.13"
#: of which PyTorch's own description says that they take out=, and which do not
NO_OUT = {"equal"}
#: where the names of a section stand that have no prefix
PLACES = {"modules": "nn.", "optimizers": "optim.", "learning-rate schedulers": "optim.lr_scheduler.", "nn.init": "nn.init.",
          "nn.utils": "nn.utils.", "utils.data": "utils.data."}  # fmt: skip


def exists(package: Any, title: str, name: str) -> bool:
    """Whether a name without forms is there."""
    place = PLACES.get(title.partition(": ")[2], "")
    return lookup(package, name if name.startswith(place) else place + name) is not None


def wrapped(head: str, words: list[str]) -> Iterator[str]:
    """A paragraph of lines of at most 120 characters."""
    line = head + words[0]
    for word in words[1:]:
        if len(line) + len(word) + 2 > 120:
            yield line + ","
            line = word
        else:
            line += f", {word}"
    yield line


def main() -> int:
    """Write what the command line asks for; returns the exit code."""
    if sys.argv[1:] == ["--forms"]:
        lines = [f"  {json.dumps(name)}: {json.dumps(forms)}" for name, forms in pytorchs_forms().items()]
        FORMS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return 0
    if sys.argv[1:] == ["--check"]:
        return int(PAGE.read_text() != page())
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
