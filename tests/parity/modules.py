"""Our modules beside PyTorch's, with the inputs that PyTorch tests its own with (``torch.testing``'s ModuleInfo).

For every module, dtype and set of arguments, in training and in evaluation: the constructor's signature, the state's keys,
shapes and dtypes, the text that prints, and, with PyTorch's state loaded into ours, the results, the gradients of inputs
and parameters, the state afterwards, and the type of the error for wrong input. From the command line:

    python -m tests.parity.modules Conv2d GRU -v     # by name; every failure
    python -m tests.parity.modules -k Pool           # by part of the name; without any: all
"""

from __future__ import annotations

import argparse
import inspect
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch.testing._internal.common_modules import module_db

import disttorch
from tests.parity.exceptions import RANDOM_MODULES, SIGNATURES
from tests.parity.module_samples import SAMPLES
from tests.parity.operations import compare, vocabulary
from tests.parity.translate import DTYPES, Untranslatable, ours, tensors_in

KINDS = ("signature", "state", "repr", "train", "eval", "gradient", "state after", "error")

Report = Callable[[str, str, str], None]


@cache
def infos() -> dict[str, Any]:
    """PyTorch's descriptions of its modules by the classes' names."""
    return {info.module_cls.__name__: info for info in module_db}


def names() -> list[str]:
    """All modules of the vocabulary that there are inputs for, without ``nn.``."""
    plain = [name.removeprefix("nn.") for name in vocabulary("first: modules")]
    plain = [name for name in plain if isinstance(getattr(torch.nn, name, None), type)]
    return [name for name in dict.fromkeys([*plain, *SAMPLES]) if name in infos() or name in SAMPLES]


class Call:
    """A module's constructor and forward arguments, given to both."""

    def __init__(self, name: str, constructor: Any, forward: Any):
        self.name = name
        self.args, self.kwargs = constructor
        self.forward_args, self.forward_kwargs = forward if forward is not None else ((), {})
        self.has_forward = forward is not None

    def __str__(self) -> str:
        def short(v: Any) -> str:
            if isinstance(v, torch.Tensor):
                return f"Tensor({list(v.shape)}, {str(v.dtype)[6:]})"
            if isinstance(v, (list, tuple)):
                return f"{type(v).__name__}({', '.join(short(i) for i in v)})"
            return f"{type(v).__name__}(...)" if isinstance(v, torch.nn.Module) else repr(v)

        def listed(args: Any, kwargs: Any) -> str:
            return ", ".join([*map(short, args), *(f"{k}={short(v)}" for k, v in kwargs.items())])

        return f"{self.name}({listed(self.args, self.kwargs)})({listed(self.forward_args, self.forward_kwargs)})"

    def make(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """PyTorch's module and ours, with PyTorch's initial state."""
        theirs_made = getattr(torch.nn, self.name)(*self.args, **self.kwargs).to(dtype)
        memo: dict[int, Any] = {}
        made = getattr(disttorch.nn, self.name)(
            *(ours(a, memo) for a in self.args), **{k: ours(v, memo) for k, v in self.kwargs.items()}
        )
        return theirs_made, made.to(DTYPES[dtype])

    def inputs(self) -> tuple[tuple, list[Any], dict[str, Any], dict[int, Any]]:
        """PyTorch's leaves among the inputs (copies, that no call before has changed), and the same as ours."""
        memo: dict[int, Any] = {}
        copied = fresh((self.forward_args, self.forward_kwargs))
        args = [ours(a, memo) for a in copied[0]]
        return copied, args, {k: ours(v, memo) for k, v in copied[1].items()}, memo


def fresh(value: Any) -> Any:
    """A copy of nested values in which tensors are new leaves."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {k: fresh(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(fresh, value))
    return type(value)(map(fresh, value)) if isinstance(value, (list, tuple)) else value


def calls(name: str, dtype: torch.dtype, training: bool) -> Iterator[Call]:
    """PyTorch's own inputs of a module, then those of our table."""
    torch.manual_seed(0)
    info = infos().get(name)
    if info is not None:
        for made in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training):
            constructor, forward = made.constructor_input, made.forward_input
            yield Call(
                name, (constructor.args, constructor.kwargs), None if forward is None else (forward.args, forward.kwargs)
            )
    for constructor, forward in SAMPLES.get(name, ()):
        yield Call(name, constructor, forward(dtype))


def run(kind: str, case: Any, report: Report, body: Callable[[], None]) -> bool:
    try:
        body()
    except Untranslatable:
        return True
    except Exception as error:
        where = "" if isinstance(error, AssertionError) else traceback.format_exc(limit=-2)
        report(kind, str(case), f"{type(error).__name__}: {error}\n{where}".strip())
        return False
    report(kind, str(case), "")
    return True


def described(state: Any) -> dict[str, str]:
    """Keys of a state_dict with shapes and dtypes; of a lazy module's, what is not there yet."""

    def one(v: Any) -> str:
        if type(v).__name__.startswith("Uninitialized"):
            return type(v).__name__
        if isinstance(v, (torch.Tensor, disttorch.Tensor)):
            return f"{list(v.shape)} {str(v.dtype).partition('.')[2]}"
        return type(v).__name__

    return {k: one(v) for k, v in state.items()}


def same_state(own: Any, other: Any) -> None:
    want, got = described(other.state_dict()), described(own.state_dict())
    if list(want.items()) != list(got.items()):
        raise AssertionError(f"state_dict is {got}\ninstead of {want}")


def same_text(own: Any, other: Any) -> None:
    want, got = repr(other).replace("torch.", ""), repr(own).replace("disttorch.", "")
    if want != got:
        raise AssertionError(f"prints as {got}\ninstead of  {want}")


def signature_of(cls: type) -> list[tuple[str, str, Any]]:
    """Names, kinds and defaults of a constructor's parameters."""
    parameters = list(inspect.signature(cls).parameters.values())

    def default(p: inspect.Parameter) -> Any:
        if p.default is p.empty or isinstance(p.default, (int, float, str, bool, type(None))):
            return p.default
        return getattr(p.default, "__name__", str(p.default).replace("disttorch.", "torch."))

    return [(p.name, p.kind.name, default(p)) for p in parameters]


def check_signature(name: str) -> None:
    if name in SIGNATURES:
        return
    try:
        want = signature_of(getattr(torch.nn, name))
    except ValueError:
        return
    if [kind for _, kind, _ in want] == ["VAR_POSITIONAL", "VAR_KEYWORD"]:
        return  # Module's own, which takes nothing
    got = signature_of(getattr(disttorch.nn, name))
    if [w for w in want if w[1] != "VAR_KEYWORD"] != [g for g in got if g[1] != "VAR_KEYWORD"]:

        def shown(signature: list[tuple[str, str, Any]]) -> str:
            return ", ".join(f"{n}{'' if d is inspect.Parameter.empty else f'={d!r}'} ({k.lower()})" for n, k, d in signature)

        raise AssertionError(f"the constructor takes {shown(got)}\ninstead of {shown(want)}")


def check_call(call: Call, dtype: torch.dtype, training: bool, report: Report) -> None:
    """All comparisons of one module."""
    try:
        pair = call.make(dtype)
    except Untranslatable:
        return
    except Exception as error:
        report("state", str(call), f"it cannot be made: {type(error).__name__}: {error}\n{traceback.format_exc(limit=-2)}")
        return
    other, own = pair
    other.train(training)
    own.train(training)
    if not run("state", call, report, lambda: same_state(own, other)):
        return
    run("repr", call, report, lambda: same_text(own, other))
    if not call.has_forward:
        return
    lazy = any(type(v).__name__.startswith("Uninitialized") for v in other.state_dict().values())
    if lazy:  # the first call makes the parameters
        copied, args, kwargs, _ = call.inputs()
        with torch.no_grad():
            other(*copied[0], **copied[1])
        if not run("state", call, report, lambda: own(*args, **kwargs)) or not run(
            "state", call, report, lambda: same_state(own, other)
        ):
            return
        run("repr", call, report, lambda: same_text(own, other))
    copied, args, kwargs, memo = call.inputs()
    expected = None
    results: list[Any] = []

    def forward() -> None:
        state = {k: ours(v) for k, v in other.state_dict().items()}
        own.load_state_dict(state)
        nonlocal expected
        expected = other(*copied[0], **copied[1])
        results.append(own(*args, **kwargs))
        compare("result", expected, results[0], dtype, call.name in RANDOM_MODULES)

    try:
        deepcopy(other)(*fresh(call.forward_args), **fresh(call.forward_kwargs))
    except Exception:
        return  # PyTorch itself refuses
    if not run("train" if training else "eval", call, report, forward) or call.name in RANDOM_MODULES:
        return
    run("state after", call, report, lambda: compare_states(own, other, dtype))
    run("gradient", call, report, lambda: check_gradient(other, own, expected, results[0], copied, memo, dtype))


def compare_states(own: Any, other: Any, dtype: torch.dtype) -> None:
    same_state(own, other)
    for key, value in other.state_dict().items():
        if isinstance(value, torch.Tensor):
            compare(key, value, own.state_dict()[key], dtype)


def check_gradient(other: Any, own: Any, expected: Any, found: Any, copied: Any, memo: dict[int, Any], dtype: torch.dtype) -> None:
    """Gradients of a fixed combination of all results, at the inputs and the parameters."""
    outs = tensors_in(expected, torch.Tensor)
    pairs = [(w, g) for w, g in zip(outs, tensors_in(found, disttorch.Tensor)) if w.requires_grad]
    if not pairs:
        return
    for _, g in pairs:
        if not g.requires_grad:
            raise AssertionError("a result does not require grad")
    torch.manual_seed(1)
    weights = [torch.randn_like(w) for w, _ in pairs]
    leaves = [t for t in tensors_in(list(copied), torch.Tensor) if t.requires_grad]
    parameters = dict(other.named_parameters())
    own_parameters = dict(own.named_parameters())
    asked = leaves + [p for p in parameters.values() if p.requires_grad]
    own_asked = [memo[id(t)] for t in leaves] + [own_parameters[n] for n, p in parameters.items() if p.requires_grad]
    labels = [f"input {i}" for i in range(len(leaves))] + [n for n, p in parameters.items() if p.requires_grad]
    want = torch.autograd.grad([w for w, _ in pairs], asked, weights, allow_unused=True)
    got = disttorch.autograd.grad([g for _, g in pairs], own_asked, [ours(w) for w in weights], allow_unused=True)
    for label, leaf, own_leaf, w, g in zip(labels, asked, own_asked, want, got):
        if w is None and g is None:
            continue
        w = torch.zeros_like(leaf) if w is None else w
        g = disttorch.zeros_like(own_leaf) if g is None else g
        compare(f"gradient of {label}", w, g, dtype)


def check_errors(name: str, report: Report) -> None:
    """Wrong arguments and wrong input: ours must raise the same type."""
    info = infos().get(name)
    if info is None or info.module_error_inputs_func is None:
        return
    for training in (True, False):
        made = info.module_error_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=training)
        for wrong in made:
            constructor, forward = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
            call = Call(name, (constructor.args, constructor.kwargs), forward and (forward.args, forward.kwargs))
            expected = raised(getattr(torch.nn, name), call, lambda v: v, training)
            if expected is None:
                continue
            found = raised(getattr(disttorch.nn, name), call, ours, training)
            if isinstance(found, type(expected)):
                report("error", str(call), "")
            else:
                report("error", str(call), f"{type(found).__name__}: {found}\ninstead of {type(expected).__name__}: {expected}")


def raised(cls: type, call: Call, translate: Callable[[Any], Any], training: bool) -> Exception | None:
    """What making and calling a module raises."""
    try:
        module = cls(*map(translate, call.args), **{k: translate(v) for k, v in call.kwargs.items()})
        module.train(training)
        if call.has_forward:
            module(*map(translate, call.forward_args), **{k: translate(v) for k, v in call.forward_kwargs.items()})
    except Untranslatable:
        raise
    except Exception as error:
        return error
    return None


def check(name: str, report: Report, dtypes: list[torch.dtype] | None = None) -> None:
    """Everything about one module; `report(kind, case, failure or "")` is called for each comparison."""
    if not isinstance(getattr(disttorch.nn, name, None), type):
        report("state", name, "absent")
        return
    info = infos().get(name)
    known = [torch.float32, torch.float64] if info is None else list(info.dtypes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run("signature", name, report, lambda: check_signature(name))
        for dtype in known:
            if dtype not in DTYPES or (dtypes is not None and dtype not in dtypes):
                continue
            for training in (True, False):
                for call in calls(name, dtype, training):
                    check_call(call, dtype, training, report)
        check_errors(name, report)


def collected(name: str, dtypes: list[torch.dtype] | None) -> tuple[Counter[str], dict[str, list[tuple[str, str]]]]:
    """How often each comparison of a module came out right, and the cases and reasons where it did not."""
    passed: Counter[str] = Counter()
    failures: dict[str, list[tuple[str, str]]] = {}

    def report(kind: str, case: str, failure: str) -> None:
        if failure:
            failures.setdefault(kind, []).append((case, failure))
        else:
            passed[kind] += 1

    check(name, report, dtypes)
    return passed, failures


def main() -> int:
    """Look at some modules."""
    parser = argparse.ArgumentParser(description="Compare modules with PyTorch's.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("-k", help="names that contain this")
    parser.add_argument("--dtype", nargs="*", help="only these dtypes")
    parser.add_argument("-v", action="store_true", help="every failure, not the first of each kind")
    options = parser.parse_args()
    chosen = options.names or [n for n in names() if not options.k or options.k in n]
    dtypes = [getattr(torch, d) for d in options.dtype] if options.dtype else None
    failed = []
    for name in chosen:
        passed, failures = collected(name.removeprefix("nn."), dtypes)
        marks = " ".join(f"{k} {passed[k]}/{passed[k] + len(failures.get(k, ()))}" for k in KINDS if passed[k] or k in failures)
        print(f"{'FAIL' if failures else 'ok  '} {name}: {marks}", flush=True)
        if failures:
            failed.append(name)
        for kind, all_of_kind in failures.items():
            for case, failure in all_of_kind if options.v else all_of_kind[:1]:
                print(f"     [{kind}] {case}\n         " + failure.replace("\n", "\n         "))
    print(f"{len(chosen) - len(failed)} of {len(chosen)} modules agree" + (f"; not: {' '.join(failed)}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
