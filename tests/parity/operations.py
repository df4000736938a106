"""Our operations beside PyTorch's, with the sample inputs that PyTorch tests its own with (``torch.testing``'s OpInfo).

For every operation, dtype and sample: values, dtypes, shapes, gradients, gradients of gradients, the method, the twin in
place, ``out=``, and the type of the error for wrong input. From the command line, for a look at some operations:

    python -m tests.parity.operations add linalg.svd            # by name
    python -m tests.parity.operations -k fft --dtype float64 -v # by part of the name; every failure
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db

import disttorch
from tests.parity.exceptions import COUNT_ONLY, NOT_COMPARED, RANDOM
from tests.parity.translate import DTYPES, Untranslatable, ours, tensors_in, theirs

NAMES = Path(__file__).parents[2] / "docs" / "pytorch-names.txt"
KINDS = ("value", "gradient", "gradgrad", "method", "in place", "out=", "error")
#: PyTorch's samples of these have the table, which is differentiated, before the indices
TABLE_FIRST = ("nn.functional.embedding", "nn.functional.embedding_bag")
#: in float16 and bfloat16 a sum in another order is another number
TOLERANCES: dict[torch.dtype, dict[str, float]] = {
    torch.float16: {"rtol": 5e-3, "atol": 5e-3},
    torch.bfloat16: {"rtol": 4e-2, "atol": 4e-2},
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
    torch.complex64: {"rtol": 1e-4, "atol": 2e-5},
    torch.float64: {"rtol": 1e-6, "atol": 1e-7},
    torch.complex128: {"rtol": 1e-6, "atol": 1e-7},
}
#: the most samples of one operation and dtype; some have thousands
LIMIT = 120


@cache
def vocabulary(section: str = "") -> list[str]:
    """The names of the sections whose title begins with `section` ("first: operations")."""
    names, here = [], True
    for line in NAMES.read_text().splitlines():
        if line.startswith("#"):
            here = line.removeprefix("# ").startswith(section)
        elif line and here:
            names.append(line)
    return names


@cache
def infos() -> dict[str, list[Any]]:
    """PyTorch's descriptions of an operation (one for each variant) by its name."""
    found: dict[str, list[Any]] = {}
    for info in op_db:
        found.setdefault(info.name, []).append(info)
    return found


def function_of(name: str, package: Any = disttorch, tensor: type | None = None) -> Callable[..., Any] | None:
    """The function of the package, or the method, of a dotted name; None where it is absent."""
    target: Any = package
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            target = None
            break
    if callable(target) and not isinstance(target, disttorch.dtype):
        return target
    return method_of(name)


def method_of(name: str) -> Callable[..., Any] | None:
    """The method of a name, an attribute such as ``.T`` as a function; None where there is none."""
    found = getattr(disttorch.Tensor, name, None)
    return found.fget if isinstance(found, property) else found


def swapped(function: Callable[..., Any], first: Any, second: Any, *rest: Any, **options: Any) -> Any:
    """A function's call with its first two arguments exchanged."""
    return function(second, first, *rest, **options)


class Case:
    """One call, given to both."""

    def __init__(self, info: Any, sample: Any, function: Callable[..., Any]):
        self.info, self.sample, self.function = info, sample, function

    def __str__(self) -> str:
        def short(v: Any) -> str:
            if isinstance(v, torch.Tensor):
                return f"Tensor({list(v.shape)}, {str(v.dtype)[6:]}{', grad' if v.requires_grad else ''})"
            if isinstance(v, (list, tuple)):
                return f"{type(v).__name__}({', '.join(short(i) for i in v)})"
            return repr(v)

        s = self.sample
        args = [short(s.input), *(short(a) for a in s.args), *(f"{k}={short(v)}" for k, v in s.kwargs.items())]
        return f"{self.info.name}{'.' + self.info.variant_test_name if self.info.variant_test_name else ''}({', '.join(args)})"

    def arguments(self) -> tuple[list[Any], dict[str, Any], dict[int, Any]]:
        memo: dict[int, Any] = {}
        args = [ours(a, memo) for a in (self.sample.input, *self.sample.args)]
        return args, {k: ours(v, memo) for k, v in self.sample.kwargs.items()}, memo


def samples(info: Any, dtype: torch.dtype, requires_grad: bool) -> Iterator[Any]:
    torch.manual_seed(0)
    made = info.sample_inputs("cpu", dtype, requires_grad=requires_grad)
    for i, sample in enumerate(made):
        if i == LIMIT:
            return
        yield sample


def compare(name: str, expected: Any, found: Any, dtype: torch.dtype, count_only: bool = False) -> None:
    """Raise AssertionError unless nested results agree in structure, dtype, shape and value."""
    want, got = tensors_in(expected, torch.Tensor), tensors_in(theirs(found), torch.Tensor)
    if not want:
        plain = theirs(found)
        if isinstance(expected, float):
            torch.testing.assert_close(torch.tensor(plain), torch.tensor(expected), equal_nan=True, check_dtype=False)
        elif plain != expected:
            raise AssertionError(f"{name}: {plain!r} instead of {expected!r}")
        return
    if len(want) != len(got):
        raise AssertionError(f"{name}: {len(got)} tensors instead of {len(want)}")
    for w, g in zip(want, got):
        if w.dtype != g.dtype:
            raise AssertionError(f"{name}: dtype {g.dtype} instead of {w.dtype}")
        if w.shape != g.shape:
            raise AssertionError(f"{name}: shape {list(g.shape)} instead of {list(w.shape)}")
        if not count_only:
            loose = TOLERANCES.get(dtype) or TOLERANCES.get(w.dtype, {})
            if w.dtype not in TOLERANCES:
                loose = {"rtol": 0, "atol": 0}
            w = w.detach().resolve_conj().resolve_neg()
            torch.testing.assert_close(g, w, equal_nan=True, **loose, msg=lambda m: f"{name}: {m}")


def check_case(case: Case, dtype: torch.dtype, report: Callable[[str, Case, str], None], kinds: set[str]) -> None:
    """All comparisons of one call."""
    info, sample = case.info, case.sample
    process = sample.output_process_fn_grad or (lambda x: x)
    count_only = info.name in RANDOM or info.name in COUNT_ONLY
    grad = dtype in (torch.float64, torch.complex128) and info.supports_autograd and not count_only
    try:
        expected = info.op(sample.input, *sample.args, **sample.kwargs)
    except Exception:
        return  # PyTorch itself refuses; wrong input has its own table
    try:
        args, kwargs, memo = case.arguments()
    except Untranslatable:
        return
    except Exception as error:
        report("value", case, f"its arguments cannot be made: {type(error).__name__}: {error}")
        return
    if any(t.layout != torch.strided or t.dtype not in DTYPES for t in tensors_in(expected, torch.Tensor)):
        return  # sparse, complex32
    processed = process(expected)

    def run(kind: str, body: Callable[[], None]) -> bool:
        try:
            body()
        except Untranslatable:
            return True
        except Exception as error:
            where = "" if isinstance(error, AssertionError) else traceback.format_exc(limit=-2)
            report(kind, case, f"{type(error).__name__}: {error}\n{where}".strip())
            return False
        report(kind, case, "")
        return True

    result: list[Any] = []

    def value() -> None:
        result.append(case.function(*args, **kwargs))
        found = ours_processed(result[0], process)
        try:
            compare("value", processed, found, dtype, count_only)
        except AssertionError:
            if not is_closer(case, processed, found, dtype, process):
                raise

    if not run("value", value):
        return
    if grad and "gradient" in kinds:
        leaves = [t for t in tensors_in([sample.input, sample.args, sample.kwargs], torch.Tensor) if t.requires_grad]
        outs = [t for t in tensors_in(expected, torch.Tensor) if t.requires_grad]
        if leaves and outs:
            run("gradient", lambda: check_gradient(case, expected, result[0], leaves, memo, process, dtype, kinds))
    own_method = method_of(info.name)
    if info.get_method() is not None and own_method is not case.function and "method" in kinds:
        if own_method is None:
            report("method", case, f"AttributeError: Tensor.{info.name} is absent")
        else:
            run("method", lambda: compare("method", processed, ours_processed(own_method(*args, **kwargs), process), dtype, count_only))
    if info.get_inplace() is not None and "in place" in kinds:
        check_in_place(case, dtype, report, run, count_only)
    if info.supports_out and isinstance(expected, torch.Tensor) and not any(t.requires_grad for t in tensors_in([sample.input, sample.args, sample.kwargs], torch.Tensor)) and "out=" in kinds:
        target = disttorch.empty(expected.shape, dtype=DTYPES[expected.dtype])

        def with_out() -> None:
            returned = case.function(*args, **kwargs, out=target)
            if returned is not target:
                raise AssertionError("out= was not returned")
            compare("out=", processed, ours_processed(target, process), dtype, count_only)

        run("out=", with_out)


def is_closer(case: Case, expected: Any, found: Any, dtype: torch.dtype, process: Callable[[Any], Any]) -> bool:
    """Whether, in a half type, our result is at least as near to that of float64 as PyTorch's, which rounds after every step."""
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    exact = case.sample.transform(lambda v: v.double() if isinstance(v, torch.Tensor) and v.dtype is dtype else v)
    truth = tensors_in(process(case.info.op(exact.input, *exact.args, **exact.kwargs)), torch.Tensor)
    want, got = tensors_in(expected, torch.Tensor), tensors_in(theirs(found), torch.Tensor)
    if [(t.shape, t.dtype) for t in want] != [(t.shape, t.dtype) for t in got]:
        return False

    def error(of: list[torch.Tensor]) -> float:
        return max(float(torch.nan_to_num((o.double() - t).abs(), nan=float("inf")).max()) for o, t in zip(of, truth) if o.numel())

    return error(got) <= error(want)


def ours_processed(found: Any, process: Callable[[Any], Any]) -> Any:
    """What PyTorch's test takes of a result (singular vectors have no sign of their own), of ours."""
    return Processed(process(theirs(found)))


class Processed(tuple):
    """PyTorch tensors already, in a shape that `theirs` leaves alone."""

    def __new__(cls, value: Any) -> Any:
        return value


def check_gradient(
    case: Case, expected: Any, found: Any, leaves: list[torch.Tensor], memo: dict[int, Any], process: Any, dtype: torch.dtype, kinds: set[str]
) -> None:
    """Gradients of a fixed combination of the results, and of their gradients. Where a result is not unique, the combination
    is of what PyTorch's test takes of it, and enters our graph as gradients of our results."""
    outs = [t for t in tensors_in(process(expected), torch.Tensor) if t.requires_grad]
    torch.manual_seed(1)
    weights = [torch.randn_like(t) for t in outs]
    second = case.info.supports_gradgrad and "gradgrad" in kinds
    want = torch.autograd.grad(outs, leaves, weights, allow_unused=True, create_graph=second)

    own_outs = [t for t in tensors_in(found, disttorch.Tensor) if t.is_floating_point() or t.is_complex()]
    raw = rebuild(found)
    raw_outs = [t for t in tensors_in(raw, torch.Tensor) if t.requires_grad]
    processed = [t for t in tensors_in(process(raw), torch.Tensor) if t.requires_grad]
    entering = torch.autograd.grad(processed, raw_outs, weights, allow_unused=True)
    pairs = [(o, ours(e)) for o, e in zip(own_outs, entering) if e is not None and o.requires_grad]
    if not pairs:
        raise AssertionError("gradient: no result requires grad")
    own_leaves = [memo[id(t)] for t in leaves]
    got = disttorch.autograd.grad([o for o, _ in pairs], own_leaves, [e for _, e in pairs], allow_unused=True, create_graph=second)
    for i, (w, g) in enumerate(zip(want, got)):
        if w is None and g is None:
            continue
        w = torch.zeros_like(leaves[i]) if w is None else w
        g = disttorch.zeros_like(own_leaves[i]) if g is None else g
        compare(f"gradient of input {i}", w, g, dtype)
    if not second:
        return
    want_1 = [w for w in want if w is not None and w.requires_grad]
    if not want_1 or process(expected) is not expected:
        return  # a second derivative through a choice of sign would compare the choice
    got_1 = [g for w, g in zip(want, got) if w is not None and w.requires_grad and g is not None]
    weights = [torch.randn_like(t) for t in want_1]
    try:
        want_2 = torch.autograd.grad(want_1, leaves, weights, allow_unused=True)
    except RuntimeError:
        return  # PyTorch has no second derivative
    live = [(g, ours(w.detach())) for g, w in zip(got_1, weights) if g.requires_grad]
    got_2 = (
        disttorch.autograd.grad([g for g, _ in live], own_leaves, [w for _, w in live], allow_unused=True) if live else [None] * len(leaves)
    )
    for i, (w, g) in enumerate(zip(want_2, got_2)):
        w = torch.zeros_like(leaves[i]) if w is None else w
        g = disttorch.zeros_like(own_leaves[i]) if g is None else g
        compare(f"gradgrad of input {i}", w, g, dtype)


def rebuild(found: Any) -> Any:
    """Our results as PyTorch's leaves."""
    if isinstance(found, disttorch.Tensor):
        t = theirs(found)
        return t.requires_grad_() if t.is_floating_point() or t.is_complex() else t
    if isinstance(found, (list, tuple)):
        return tuple(rebuild(v) for v in found)
    return found


def check_in_place(case: Case, dtype: torch.dtype, report: Any, run: Any, count_only: bool) -> None:
    info, sample = case.info, case.sample
    if not isinstance(sample.input, torch.Tensor) or sample.broadcasts_input:
        return
    name = getattr(info.get_inplace(), "__name__", info.name + "_")
    target = sample.input.detach().clone()
    plain = torch.no_grad()
    try:
        with plain:
            expected = info.get_inplace()(target, *sample.args, **sample.kwargs)
    except Exception:
        return
    own = partial(case.function, inplace=True) if info.name.startswith("nn.functional.") else getattr(disttorch.Tensor, name, None)
    if own is None:
        report("in place", case, f"AttributeError: Tensor.{name} is absent")
        return

    def body() -> None:
        args, kwargs, _ = case.arguments()
        with disttorch.no_grad():
            x = args[0].detach().clone()
            returned = own(x, *args[1:], **kwargs)
        if returned is not x:
            raise AssertionError("in place: did not return its tensor")
        compare("in place", expected, x, dtype, count_only)

    run("in place", body)


def check_errors(info: Any, function: Callable[..., Any], report: Callable[[str, Any, str], None]) -> None:
    """Wrong input: ours must raise the same type."""
    if info.error_inputs_func is None:
        return
    for error_input in info.error_inputs("cpu"):
        sample = error_input.sample_input
        case = Case(info, sample, function)
        try:
            info.op(sample.input, *sample.args, **sample.kwargs)
        except Exception as error:
            expected: type | tuple = type(error)
        else:
            continue
        try:
            args, kwargs, _ = case.arguments()
        except (Untranslatable, AttributeError, ValueError):
            continue  # nothing that we, or NumPy (more than 64 dimensions), could be given
        try:
            function(*args, **kwargs)
        except expected:
            report("error", case, "")
        except Exception as error:
            report("error", case, f"{type(error).__name__}: {error}\ninstead of {expected.__name__}: {error_input.error_regex}")
        else:
            report("error", case, f"no error instead of {expected.__name__}: {error_input.error_regex}")


def check(name: str, report: Callable[[str, Any, str], None], dtypes: list[torch.dtype] | None = None, kinds: set[str] = set(KINDS)) -> None:
    """Everything about one operation; `report(kind, case, failure or "")` is called for each comparison."""
    function = function_of(name)
    if function is None:
        report("value", name, "absent")
        return
    if name in TABLE_FIRST:
        function = partial(swapped, function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in infos()[name]:
            for dtype in sorted(info.supported_dtypes("cpu") & set(DTYPES), key=str):
                if dtypes is not None and dtype not in dtypes:
                    continue
                grad = dtype in (torch.float64, torch.complex128) and info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
                for sample in samples(info, dtype, grad):
                    if (name, info.variant_test_name) in NOT_COMPARED:
                        continue
                    case = Case(info, sample, function)
                    try:
                        check_case(case, dtype, report, kinds)
                    except Exception:
                        report("value", case, f"not compared: {traceback.format_exc()}")
            if "error" in kinds and dtypes is None:
                check_errors(info, function, report)


def main() -> int:
    """Look at some operations."""
    parser = argparse.ArgumentParser(description="Compare operations with PyTorch's.")
    parser.add_argument("names", nargs="*")
    parser.add_argument("-k", help="names that contain this")
    parser.add_argument("--section", default="", help='such as "first: operations"')
    parser.add_argument("--dtype", nargs="*", help="only these dtypes")
    parser.add_argument("--kind", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("-v", action="store_true", help="every failure, not the first of each kind")
    options = parser.parse_args()
    names = options.names or [n for n in vocabulary(options.section) if n in infos() and (not options.k or options.k in n)]
    dtypes = [getattr(torch, d) for d in options.dtype] if options.dtype else None
    failed = []
    for name in names:
        passed: Counter[str] = Counter()
        failures: dict[str, list[tuple[Any, str]]] = {}

        def report(kind: str, case: Any, failure: str) -> None:
            if failure:
                failures.setdefault(kind, []).append((case, failure))
            else:
                passed[kind] += 1

        check(name, report, dtypes, set(options.kind) | {"value"})
        marks = " ".join(f"{k} {passed[k]}/{passed[k] + len(failures.get(k, ()))}" for k in KINDS if passed[k] or k in failures)
        print(f"{'FAIL' if failures else 'ok  '} {name}: {marks}", flush=True)
        if failures:
            failed.append(name)
        for kind, all_of_kind in failures.items():
            for case, failure in all_of_kind if options.v else all_of_kind[:1]:
                print(f"     [{kind}] {case}\n         " + failure.replace("\n", "\n         "))
    print(f"{len(names) - len(failed)} of {len(names)} operations agree" + (f"; not: {' '.join(failed)}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
