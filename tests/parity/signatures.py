"""Our functions' arguments beside PyTorch's: names, order, defaults, and what may stand in its place or must be named.

PyTorch's signatures come from Python where the function is written in Python, else from its argument parser: a call with an
unknown keyword answers with all overloads, and where there is one only, the operator's schema has it. From the command line:

    python -m tests.parity.signatures                    # every difference
    python -m tests.parity.signatures sum nn.functional  # those whose name contains a word
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import keyword
import re
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import torch

import disttorch
from tests.parity.exceptions import KEYWORDS_NOT_AGREED, NOT_IN_OURS

#: Where users find functions and classes.
PLACES = """
    . Tensor nn nn.functional nn.init nn.parameter nn.utils nn.utils.rnn nn.utils.parametrizations nn.utils.parametrize linalg fft
    special signal.windows masked optim optim.lr_scheduler optim.swa_utils utils.data utils.data.distributed utils.checkpoint
    utils.dlpack autograd autograd.functional autograd.forward_ad autograd.graph autograd.profiler func amp random distributions
    distributed distributed.nn.functional distributed.device_mesh distributed._functional_collectives
    distributed.elastic.multiprocessing.errors futures nn.parallel cuda cuda.amp backends multiprocessing profiler
""".split()

#: PyTorch's words for functions that it does not describe anywhere, as it documents them.
WRITTEN = {
    ".tensor": "(Tensor data, *, dtype = None, device = None, requires_grad = False, pin_memory = False)",
    ".as_tensor": "(Tensor data, dtype = None, device = None)",
    ".from_numpy": "(ndarray ndarray)",
    "Tensor.new_tensor": "(Tensor data, *, dtype = None, device = None, requires_grad = False)",
    "Tensor.numpy": "(*, bool force = False)",
    "Tensor.requires_grad_": "(bool requires_grad = True)",
    "Tensor.stride": "(int dim = None)",
    "Tensor.size": "(int dim = None)",
}

#: PyTorch's functions that take ``out=``; operators have it in their schemas also where the function does not.
FORMS = json.loads((Path(__file__).resolve().parents[2] / "docs" / "pytorch-forms.json").read_text())

#: NumPy's names that PyTorch's parser takes for arguments, whatever the function.
NUMPYS_NAMES = {"dim": "axis", "keepdim": "keepdims"}

POSITIONAL, NAMED, ANY = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY, (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def resolve(package: Any, place: str) -> Any:
    """A module or class of either package; None if it is not there."""
    if place == ".":
        return package
    for name in place.split("."):
        if not hasattr(package, name):
            try:
                importlib.import_module(f"{package.__name__}.{name}")
            except (ImportError, AttributeError):
                return None
        package = getattr(package, name)
    return package


def pairs() -> Iterator[tuple[str, Any, Any]]:
    """(name, ours, PyTorch's) of all that both have and that can be called, and of classes also the public methods."""
    for place in PLACES:
        ours, theirs = resolve(disttorch, place), resolve(torch, place)
        if ours is None or theirs is None:
            continue
        for name in sorted(set(dir(ours)) & set(dir(theirs))):
            mine, other = getattr(ours, name), getattr(theirs, name)
            if name.startswith("_") or not callable(mine) or not callable(other) or isinstance(other, torch.dtype):
                continue
            full = f".{name}" if place == "." else f"{place}.{name}"
            if isinstance(other, type):
                if issubclass(other, (torch.Tensor, Exception, tuple)) or name.endswith("Tensor"):
                    continue
                yield full, mine, other
                for method in sorted(set(vars(other)) & set(dir(mine)) - {"extra_repr"}):
                    if not method.startswith("_") and inspect.isfunction(vars(other)[method]) and callable(getattr(mine, method)):
                        yield f"{full}.{method}", getattr(mine, method), getattr(other, method)
            else:
                yield full, mine, other


# --- PyTorch's ----------------------------------------------------------------------------------------------------------


@cache
def schemas() -> dict[str, list[Any]]:
    """The operators that PyTorch knows, by name."""
    found: dict[str, list[Any]] = {}
    for schema in torch._C._jit_get_all_schemas():
        found.setdefault(schema.name.removeprefix("aten::"), []).append(schema)
    return found


def parsed(text: str) -> Signature:
    """A line of PyTorch's argument parser: ``(Tensor input, tuple of ints dim = None, *, Tensor out = None)``."""
    parameters, kind = [], POSITIONAL
    for part in filter(None, re.split(r", (?![^\[(]*[\])])", text.strip()[1:-1])):
        if part == "*":
            kind = NAMED
            continue
        declared, equals, default = part.partition(" = ")
        value: Any = Parameter.empty
        if equals:
            try:
                value = ast.literal_eval(default)
            except (ValueError, SyntaxError):
                value = default
        name = declared.split()[-1]
        if keyword.iskeyword(name):  # random_(from, to), which nobody can name
            name += "_"
        if not parameters and name == "self":  # the overload for a number in the place of input
            name = "input"
        parameters.append(Parameter(name, kind, default=value))
    return in_order(parameters)


def in_order(parameters: list[Parameter]) -> Signature:
    """A signature, where PyTorch may have an argument that must be given behind one that need not."""
    optional = False
    for i, p in enumerate(parameters):
        if p.kind is POSITIONAL:
            if optional and p.default is Parameter.empty:
                parameters[i] = p.replace(default="must be given")
            optional = optional or p.default is not Parameter.empty
    return Signature(parameters)


def of_schema(schema: Any, method: bool, with_out: bool) -> Signature:
    """An operator's schema as Python sees it: ``self`` is called input, and a constructor's dtype, device, ... follow."""
    parameters = []
    for i, argument in enumerate(schema.arguments):
        name = {"self": "input", "from": "from_"}.get(argument.name, argument.name)
        if i == 0 and method:
            continue
        default = argument.default_value if argument.has_default_value() else Parameter.empty
        if argument.is_out:
            default = None
        parameters.append(Parameter(name, NAMED if argument.kwarg_only else POSITIONAL, default=default))
    if with_out and not method:
        parameters.append(Parameter("out", NAMED, default=None))
    return in_order(parameters)


def overloads(name: str, function: Any) -> list[Signature]:
    """All ways in which a function of PyTorch may be called; none where nothing says it."""
    if name in WRITTEN:
        return [parsed(WRITTEN[name])]
    try:
        signature = inspect.signature(function)
        if [p.kind for p in signature.parameters.values()] != list(ANY):
            if name.startswith("Tensor."):
                signature = signature.replace(parameters=list(signature.parameters.values())[1:])
            return [signature]
    except (ValueError, TypeError):
        pass
    if hasattr(function, "__wrapped__") or inspect.isfunction(function):
        return dispatched(name)
    method = name.startswith("Tensor.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*([torch.ones(2)] if method else []), no_such_argument=1)
    except (TypeError, RuntimeError) as error:
        lines = re.findall(r"^ \* (\(.*\))$", str(error), re.MULTILINE)
        if lines:
            return [parsed(line) for line in lines]
    known = schemas().get(getattr(function, "__name__", name), ())
    known = [s for s in known if not s.arguments or not method or "Tensor" in str(s.arguments[0].type)]
    usual = [s for s in known if not any(a.is_out for a in s.arguments) and all(str(a.type) != "AnyEnumType" for a in s.arguments)]
    outs = "out=" in FORMS.get(name.removeprefix("."), ())
    wanted = [s for s in usual if "Tensor" in str([str(a.type) for a in s.arguments[:1]])][:1] or usual[:1]
    return [of_schema(s, method, outs) for s in wanted]


def is_parsed(function: Any) -> bool:
    """Whether PyTorch's own parser reads the arguments, and not Python."""
    return not isinstance(function, type) and not inspect.isfunction(function)


def dispatched(name: str) -> list[Signature]:
    """nn.functional's poolings, which are one of two functions, by return_indices."""
    function = getattr(torch.nn.functional, name.rpartition(".")[2] + "_with_indices", None)
    return [inspect.signature(function)] if function is not None else []


# --- ours ---------------------------------------------------------------------------------------------------------------


def signature_of(name: str, function: Any) -> Signature:
    """Ours, through the wrappers that add ``out=``; without a method's self."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    extra: list[Parameter] = []
    while hasattr(function, "__wrapped__"):
        outer = inspect.signature(function, follow_wrapped=False).parameters
        there = {p.name for p in (*parameters, *extra)}
        extra += [p for p in outer.values() if p.kind is NAMED and p.name not in there]
        function = function.__wrapped__
    if extra:
        at = len(parameters) - (bool(parameters) and parameters[-1].kind is Parameter.VAR_KEYWORD)
        parameters[at:at] = extra
    if name.startswith("Tensor.") and parameters[0].kind is not Parameter.VAR_POSITIONAL:
        parameters = parameters[1:]
    return Signature(parameters)


# --- compared -----------------------------------------------------------------------------------------------------------


def same_default(ours: Any, theirs: Any) -> bool:
    """Whether two defaults mean the same; a number stands for as many as are wanted."""
    if theirs is None and ours is False:  # pin_memory
        return True
    if ours is theirs or (type(ours) is type(theirs) and ours == theirs):
        return True
    if callable(ours) and callable(theirs):
        return getattr(ours, "__name__", "") == getattr(theirs, "__name__", "")
    if isinstance(theirs, (list, tuple)) and not isinstance(ours, (list, tuple)):
        return all(v == ours for v in theirs) if theirs else ours is None
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (int, float)):
        return all(v == theirs for v in ours)
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return list(ours) == list(theirs)
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return float(ours) == float(theirs)
    return str(ours).replace("disttorch", "torch") == str(theirs)


def differences(ours: Signature, theirs: list[Signature], others: dict[str, str], by_parser: bool) -> list[str]:
    """What a caller of PyTorch's function would notice.

    `others` are the other names that ours takes for arguments. PyTorch's parser takes some of NumPy's for all its functions.
    """
    mine = list(ours.parameters.values())
    rest, named_rest = (next((p for p in mine if p.kind is kind), None) for kind in ANY)
    places = [p for p in mine if p.kind in (POSITIONAL, Parameter.POSITIONAL_ONLY)]
    known = {p.name: p for p in mine if p.kind in (POSITIONAL, NAMED)}
    found = []
    lacking = NOT_IN_OURS
    wanted_as = NUMPYS_NAMES if by_parser else {}
    known.update((other, known[own]) for other, own in others.items() if own in known)
    for overload in theirs:
        place = 0
        for p in overload.parameters.values():
            if p.kind in ANY:
                continue
            where = f"{p.name}"
            if p.kind is not NAMED:
                if place < len(places) and others.get(p.name, p.name) != places[place].name and p.name not in lacking:
                    dispatches = len(theirs) > 1 and p.name in known
                    if not dispatches:
                        found.append(f"{where}: argument {place} is called {places[place].name}")
                elif place >= len(places) and rest is None and p.name not in lacking:
                    found.append(f"{where}: is not taken without its name")
                place += 1
            if p.name in lacking or p.name.startswith("_"):
                continue
            if p.name not in known and named_rest is None and p.kind is not Parameter.POSITIONAL_ONLY:
                found.append(f"{where}: is missing")
                continue
            if p.name not in known:
                continue
            if p.name in wanted_as and wanted_as[p.name] not in known and named_rest is None and rest is None:
                found.append(f"{wanted_as[p.name]}: is missing, which stands for {p.name}")
            default = known[p.name].default
            if p.default is Parameter.empty:
                continue
            if default is Parameter.empty and p.default != "must be given":
                found.append(f"{where}: must be given, default is {p.default!r}")
            elif len(theirs) == 1 and not same_default(default, p.default) and p.default != "must be given":
                found.append(f"{where}: default {default!r}, not {p.default!r}")
        for q in mine:
            taken = {others.get(p, p) for p in overload.parameters}
            takes_any = any(p.kind is Parameter.VAR_POSITIONAL for p in overload.parameters.values())
            must_be_given = q.kind is POSITIONAL and q.default is Parameter.empty
            if must_be_given and q.name not in taken and len(theirs) == 1 and not takes_any:
                found.append(f"{q.name}: must be given, but PyTorch has none such")
    for q in places:
        if q.kind is POSITIONAL and all(q.name in s.parameters and s.parameters[q.name].kind is NAMED for s in theirs):
            found.append(f"{q.name}: is taken without its name")
        must_in_theirs = all(q.name in s.parameters and s.parameters[q.name].default is Parameter.empty for s in theirs)
        if must_in_theirs and q.default is not Parameter.empty and not rest:
            found.append(f"{q.name}: need not be given, but must in PyTorch")
    return list(dict.fromkeys(found))


def compared() -> Iterator[tuple[str, list[str] | None]]:
    """(name, differences) of all pairs, without those that are meant; None where PyTorch does not say its arguments."""
    for name, mine, other in pairs():
        theirs = overloads(name, other)
        if not theirs:
            yield name, None
            continue
        try:
            signature = signature_of(name, mine)
        except (ValueError, TypeError) as error:
            yield name, [f"no signature: {error}"]
            continue
        meant = KEYWORDS_NOT_AGREED.get(name, {})
        if "*" not in meant:
            found = differences(signature, theirs, getattr(mine, "other_names", {}), is_parsed(other))
            yield name, [d for d in found if d.partition(":")[0] not in meant]


def main() -> int:
    """Print every difference of the names that contain one of the words."""
    words, count, silent, bad = sys.argv[1:], 0, [], 0
    for name, found in compared():
        if words and not any(w in name for w in words):
            continue
        count += 1
        if found is None:
            silent.append(name)
        elif found:
            bad += 1
            print(f"{name}: {'; '.join(found)}")
    print(f"{count} compared, {bad} differ; PyTorch does not say: {' '.join(silent)}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
