"""Our operations beside PyTorch's, with the sample inputs that PyTorch tests its own with (``torch.testing``'s OpInfo).

For every operation, dtype and sample: values, dtypes, shapes, gradients, gradients of gradients, the method, the twin in
place, ``out=``, and the type of the error for wrong input. From the command line, for a look at some operations:

    python -m tests.parity.operations add linalg.svd            # by name
    python -m tests.parity.operations -k fft --dtype float64 -v # by part of the name; every failure
"""

from __future__ import annotations

import argparse
import inspect
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db

import disttorch
from tests.parity.exceptions import COUNT_ONLY, INEXACT, NOT_AGREED, NOT_COMPARED, POLES, RANDOM, TIES
from tests.parity.structured import adapted, of_structured
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
        return partial(on_a_copy, target) if name.endswith("_") else target
    twin = getattr(disttorch.Tensor, name if name.endswith("_") else name + "_", None)
    return method_of(name) or (partial(on_a_copy, twin) if twin is not None else None)


def on_a_copy(twin: Callable[..., Any], x: Any, *args: Any, **options: Any) -> Any:
    """A function that PyTorch has in place only, as its tests call it."""
    return twin(x.clone(), *args, **options)


def method_of(name: str) -> Callable[..., Any] | None:
    """The method of a name, an attribute such as ``.T`` as a function; None where there is none."""
    found = getattr(disttorch.Tensor, name, None)
    return found.fget if isinstance(found, property) else found


def swapped(function: Callable[..., Any], first: Any, second: Any, *rest: Any, **options: Any) -> Any:
    """A function's call with its first two arguments exchanged."""
    return function(second, first, *rest, **options)


class Case:
    """One call, given to both."""

    def __init__(self, info: Any, sample: Any, function: Callable[..., Any], with_gradient: bool = False):
        self.info, self.sample, self.with_gradient = info, sample, with_gradient
        self.op, self.plain, self.function = info.op, function, self.adapted(function)
        if with_gradient:
            self.op = of_structured(info, info.op)

    def adapted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Our function or method as the samples call it."""
        function = adapted(self.info, function)
        return of_structured(self.info, function) if self.with_gradient else function

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

    @property
    def drops(self) -> bool:
        """Whether attention drops weights at random."""
        if "attention" not in self.info.name:
            return False
        given = inspect.signature(self.function).bind(self.sample.input, *self.sample.args, **self.sample.kwargs).arguments
        return given.get("dropout_p", 0) > 0 and given.get("training", True)

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
        yield sample.transform(own_leaf)


def own_leaf(value: Any) -> Any:
    """A leaf that is a view gets no gradient of its own in PyTorch: a copy does."""
    is_lost = isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf and value._is_view()
    return value.detach().clone().requires_grad_() if is_lost else value


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
            # the wider of the operation's and the result's: a gradient may be of a less precise input
            loose = max((TOLERANCES.get(d, {}) for d in (dtype, w.dtype)), key=lambda t: t.get("atol", 0.0))
            if w.dtype not in TOLERANCES:
                loose = {"rtol": 0, "atol": 0}
            w = w.detach().resolve_conj().resolve_neg()
            if name.startswith("grad") and loose and w.numel():
                # a gradient is a sum, often of larger numbers than itself: as exact as the largest of its tensor
                size = w.abs()[w.isfinite()].max().item() if w.isfinite().any() else 1.0
                loose = {**loose, "atol": loose["atol"] * max(1.0, size)}
            torch.testing.assert_close(g, w, equal_nan=True, **loose, msg=lambda m: f"{name}: {m}")


def check_case(case: Case, dtype: torch.dtype, report: Callable[[str, Case, str], None], kinds: Collection[str]) -> None:
    """All comparisons of one call."""
    info, sample = case.info, case.sample
    process = sample.output_process_fn_grad or (lambda x: x)
    if info.name in TIES:
        process = elements_at(sample, TIES[info.name], info.name == "argsort")
    elif info.name in INEXACT:
        process = torch.Tensor.float
    elif info.name in POLES:
        process = with_poles
    count_only = info.name in RANDOM or info.name in COUNT_ONLY or case.drops
    grad = dtype in (torch.float64, torch.complex128) and info.supports_autograd and not count_only
    try:
        expected = case.op(sample.input, *sample.args, **sample.kwargs)
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
    closer: list[bool] = []  # whether our rounding is better than PyTorch's, so that the numbers are not compared again

    def value() -> None:
        result.append(case.function(*args, **kwargs))
        found = ours_processed(result[0], process)
        try:
            compare("value", processed, found, dtype, count_only)
        except AssertionError:
            if not is_closer(case, processed, found, dtype, process):
                raise
            closer.append(True)

    if not run("value", value):
        return
    if grad and "gradient" in kinds:
        leaves = [t for t in tensors_in([sample.input, sample.args, sample.kwargs], torch.Tensor) if t.requires_grad]
        outs = [t for t in tensors_in(expected, torch.Tensor) if t.requires_grad]
        if leaves and outs:
            run("gradient", lambda: check_gradient(case, expected, result[0], leaves, memo, process, dtype, kinds))
    count_only = count_only or bool(closer)
    own_method = method_of(info.name)
    if info.get_method() is not None and own_method is not case.plain and "method" in kinds:
        if own_method is None:
            report("method", case, f"AttributeError: Tensor.{info.name} is absent")
        else:
            run(
                "method",
                lambda: compare(
                    "method", processed, ours_processed(case.adapted(own_method)(*args, **kwargs), process), dtype, count_only
                ),
            )
    if info.get_inplace() is not None and "in place" in kinds:
        check_in_place(case, dtype, report, run, count_only)
    if (
        info.supports_out
        and isinstance(expected, torch.Tensor)
        and not any(t.requires_grad for t in tensors_in([sample.input, sample.args, sample.kwargs], torch.Tensor))
        and "out=" in kinds
    ):
        target = disttorch.empty(expected.shape, dtype=DTYPES[expected.dtype])

        def with_out() -> None:
            returned = case.function(*args, **kwargs, out=target)
            if returned is not target:
                raise AssertionError("out= was not returned")
            compare("out=", processed, ours_processed(target, process), dtype, count_only)

        run("out=", with_out)


def is_closer(case: Case, expected: Any, found: Any, dtype: torch.dtype, process: Callable[[Any], Any]) -> bool:
    """Whether, in less than double precision, our result is at least as near to that of float64 as PyTorch's."""
    wide = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64, torch.complex64: torch.complex128}
    if dtype not in wide:
        return False
    exact = case.sample.transform(lambda v: v.to(wide[dtype]) if isinstance(v, torch.Tensor) and v.dtype is dtype else v)
    truth = tensors_in(process(case.op(exact.input, *exact.args, **exact.kwargs)), torch.Tensor)
    want, got = tensors_in(expected, torch.Tensor), tensors_in(theirs(found), torch.Tensor)
    if [(t.shape, t.dtype) for t in want] != [(t.shape, t.dtype) for t in got]:
        return False

    def error(of: list[torch.Tensor]) -> float:
        return max(
            float(torch.nan_to_num((o.to(t.dtype) - t).abs(), nan=float("inf")).max())
            for o, t in zip(of, truth)
            if o.numel()
        )

    return error(got) <= error(want)


def with_poles(result: torch.Tensor) -> torch.Tensor:
    """Huge numbers as the infinities that they stand for."""
    huge = result.detach().abs() > 1e12
    return result.masked_fill(huge, float("inf")) if huge.any() else result


def elements_at(sample: Any, place: int, returns_indices: bool) -> Callable[[Any], Any]:
    """What stands in the input at the indices of a result, instead of the indices."""
    dim = sample.kwargs.get("dim", sample.args[place] if len(sample.args) > place else -1)

    def process(result: Any) -> Any:
        if isinstance(result, torch.Tensor):
            return chosen(result) if returns_indices else result
        return result[0], chosen(result[1])

    def chosen(result: torch.Tensor) -> torch.Tensor:
        source = sample.input.detach()
        if not source.ndim:
            return result
        keeps = result.ndim == source.ndim
        return source.gather(dim, result if keeps else result.unsqueeze(dim))

    return process


def ours_processed(found: Any, process: Callable[[Any], Any]) -> Any:
    """What PyTorch's test takes of a result (singular vectors have no sign of their own), of ours."""
    return Processed(process(theirs(found)))


class Processed(tuple):
    """PyTorch tensors already, in a shape that `theirs` leaves alone."""

    def __new__(cls, value: Any) -> Any:
        return value


def check_gradient(
    case: Case,
    expected: Any,
    found: Any,
    leaves: list[torch.Tensor],
    memo: dict[int, Any],
    process: Any,
    dtype: torch.dtype,
    kinds: Collection[str],
) -> None:
    """Gradients of a fixed combination of the results, and of their gradients. Where a result is not unique, the combination
    is of what PyTorch's test takes of it, and enters our graph as gradients of our results."""
    outs = [t for t in tensors_in(process(expected), torch.Tensor) if t.requires_grad]
    torch.manual_seed(1)
    weights = [torch.randn_like(t) for t in outs]
    second = case.info.supports_gradgrad and "gradgrad" in kinds
    want = torch.autograd.grad(outs, leaves, weights, allow_unused=True, create_graph=second)

    asks = [t.requires_grad for t in tensors_in(expected, torch.Tensor)]
    own_outs = [t for t, wanted in zip(tensors_in(found, disttorch.Tensor), asks) if wanted]
    raw = rebuild(found, iter(asks))
    raw_outs = [t for t in tensors_in(raw, torch.Tensor) if t.requires_grad]
    processed = [t for t in tensors_in(process(raw), torch.Tensor) if t.requires_grad]
    entering = torch.autograd.grad(processed, raw_outs, weights, allow_unused=True)
    pairs = [(o, ours(e)) for o, e in zip(own_outs, entering) if e is not None and o.requires_grad]
    if not pairs:
        raise AssertionError("gradient: no result requires grad")
    own_leaves = [memo[id(t)] for t in leaves]
    got = disttorch.autograd.grad(
        [o for o, _ in pairs], own_leaves, [e for _, e in pairs], allow_unused=True, create_graph=second
    )
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
        disttorch.autograd.grad([g for g, _ in live], own_leaves, [w for _, w in live], allow_unused=True)
        if live
        else [None] * len(leaves)
    )
    size = max((w.abs()[w.isfinite()].max().item() for w in want_2 if w is not None and w.isfinite().any()), default=0.0)
    for i, (w, g) in enumerate(zip(want_2, got_2)):
        w = torch.zeros_like(leaves[i]) if w is None else w
        g = disttorch.zeros_like(own_leaves[i]) if g is None else g
        rounding = 512 * torch.finfo(w.dtype).eps * size
        if bool((w.abs() <= rounding).all()) and bool((theirs(g).abs() <= rounding).all()):
            continue  # zero but for rounding, beside the other inputs'
        # where PyTorch's second derivative does not exist, ours may
        compare(f"gradgrad of input {i}", w, ours(torch.where(w.isnan(), w, theirs(g))), dtype)


def rebuild(found: Any, asks: Iterator[bool]) -> Any:
    """Our results as PyTorch's leaves; `asks` says of each tensor whether PyTorch's requires grad."""
    if isinstance(found, disttorch.Tensor):
        return theirs(found).requires_grad_(next(asks))
    if isinstance(found, (list, tuple)):
        return tuple(rebuild(v, asks) for v in found)
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
    own = (
        partial(case.function, inplace=True)
        if info.name.startswith("nn.functional.")
        else getattr(disttorch.Tensor, name, None)
    )
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
            report(
                "error",
                case,
                f"{type(error).__name__}: {error}\ninstead of {expected.__name__}: {error_input.error_regex}",
            )
        else:
            report("error", case, f"no error instead of {expected.__name__}: {error_input.error_regex}")


def check(
    name: str,
    report: Callable[[str, Any, str], None],
    dtypes: list[torch.dtype] | None = None,
    kinds: Collection[str] = KINDS,
) -> None:
    """Everything about one operation; `report(kind, case, failure or "")` is called for each comparison."""
    function = function_of(name)
    if name == "where":  # torch.where(condition, input, other), but the samples' input comes first
        function = lambda x, condition, other, **options: disttorch.where(condition, x, other, **options)  # noqa: E731
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
                grad = (
                    dtype in (torch.float64, torch.complex128)
                    and info.supports_autograd
                    and dtype in info.supported_backward_dtypes("cpu")
                )
                for sample in samples(info, dtype, grad):
                    if (name, info.variant_test_name) in NOT_COMPARED:
                        continue
                    in_place = partial(on_a_copy, getattr(disttorch.Tensor, name + "_", None))
                    case = Case(info, sample, in_place if info.variant_test_name == "in_place" else function, grad)
                    try:
                        check_case(case, dtype, report, kinds)
                    except Exception:
                        report("value", case, f"not compared: {traceback.format_exc()}")
            if "error" in kinds and dtypes is None:
                check_errors(info, function, report)


def _count(passed: Counter[str], failures: dict[str, list[tuple[Any, str]]], kind: str, case: Any, failure: str) -> None:
    if failure:
        failures.setdefault(kind, []).append((case, failure))
    else:
        passed[kind] += 1


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
    names = options.names or [
        n for n in vocabulary(options.section) if n in infos() and (not options.k or options.k in n)
    ]
    dtypes = [getattr(torch, d) for d in options.dtype] if options.dtype else None
    failed = []
    for name in names:
        passed, failures = Counter[str](), dict[str, list[tuple[Any, str]]]()
        report = partial(_count, passed, failures)
        check(name, report, dtypes, set(options.kind) | {"value"})
        for kind in [k for k in failures if (name, k) in NOT_AGREED]:
            del failures[kind]
        marks = " ".join(
            f"{k} {passed[k]}/{passed[k] + len(failures.get(k, ()))}" for k in KINDS if passed[k] or k in failures
        )
        print(f"{'FAIL' if failures else 'ok  '} {name}: {marks}", flush=True)
        if failures:
            failed.append(name)
        for kind, all_of_kind in failures.items():
            for case, failure in all_of_kind if options.v else all_of_kind[:1]:
                print(f"     [{kind}] {case}\n         " + failure.replace("\n", "\n         "))
    print(
        f"{len(names) - len(failed)} of {len(names)} operations agree"
        + (f"; not: {' '.join(failed)}" if failed else "")
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
