"""One operation on a device: results, and derivatives of first and second order, beside the CPU's in float64."""

from __future__ import annotations

import itertools
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import disttorch
from tests.gpu.agreement import check, map_tensors, to_device, to_host, widened
from tests.parity import operations as parity
from tests.parity.exceptions import COUNT_ONLY, NOT_COMPARED, POLES, RANDOM, TIES
from tests.parity.translate import ours, tensors_in

#: The most samples of one operation, variant and dtype, spread over PyTorch's list.
SAMPLES = 8
#: Dtypes in which gradients are compared.
FLOATS = ("float16", "bfloat16", "float32", "float64")


class Refused(Exception):
    """The CPU cannot do it either."""


class Run:
    """One sample on one device in one dtype: the call, its results and its leaves."""

    def __init__(self, case: Any, place: Callable[[Any], Any], where: Any):
        args, kwargs, memo = case.arguments()
        placed: dict[int, Any] = {}
        args = [moved(a, where) for a in map_tensors(args, place, placed)]
        kwargs = {k: where if k == "device" else moved(v, where) for k, v in map_tensors(kwargs, place, placed).items()}
        self.leaves = [placed.get(id(t), t) for t in memo_tensors(memo) if t.requires_grad]
        before = disttorch.get_default_device()
        disttorch.set_default_device(where)
        try:
            self.found = case.function(*args, **kwargs)
        finally:
            disttorch.set_default_device(before)


def memo_tensors(memo: dict[Any, Any]) -> list[Any]:
    """The tensors that a translation made, in its order."""
    return [t for t in memo.values() if isinstance(t, disttorch.Tensor)]


def moved(value: Any, where: Any) -> Any:
    """An argument that names a device, for another one."""
    if isinstance(value, disttorch.Generator):
        return disttorch.Generator(where).manual_seed(value.initial_seed())
    return where if isinstance(value, disttorch.device) or (isinstance(value, str) and value == "cpu") else value


def check_operation(name: str, dtype: str, where: Any) -> dict[str, Any]:
    """All samples of an operation.

    Returns
    -------
    dict
        ``compared``: how many; ``same_dtype``: how many of them agree with the CPU in the same dtype only; ``failures``: texts.
    """
    outcome: dict[str, Any] = {"compared": 0, "same_dtype": 0, "failures": []}
    function = parity.function_of(name)
    if name == "where":  # torch.where(condition, input, other), but the samples' input comes first
        function = lambda x, condition, other, **options: disttorch.where(condition, x, other, **options)  # noqa: E731
    if name in parity.TABLE_FIRST:
        function = partial(parity.swapped, function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in parity.infos()[name]:
            if (name, info.variant_test_name) in NOT_COMPARED:
                continue
            in_place = partial(parity.on_a_copy, getattr(disttorch.Tensor, name + "_", None))
            called = in_place if info.variant_test_name == "in_place" else function
            for case in cases(info, dtype, called):
                try:
                    agrees = check_case(case, dtype, where)
                except Refused:
                    continue
                except Exception as problem:
                    shown = "" if isinstance(problem, AssertionError) else traceback.format_exc(limit=-4)
                    outcome["failures"].append(f"{case}\n{type(problem).__name__}: {problem}\n{shown}".strip())
                    agrees = True
                outcome["compared"] += 1
                outcome["same_dtype"] += not agrees
    return outcome


def cases(info: Any, dtype: str, function: Callable[..., Any]) -> Iterator[Any]:
    """Calls in a dtype, spread over PyTorch's list; none where PyTorch has no samples in it."""
    wanted = getattr(torch, dtype)
    if wanted not in info.supported_dtypes("cpu") | info.supported_dtypes("cuda"):
        return
    grad = (
        dtype in FLOATS
        and info.supports_autograd
        and info.name not in RANDOM | COUNT_ONLY
        and wanted in info.supported_backward_dtypes("cpu") | info.supported_backward_dtypes("cuda")
    )
    made = list(itertools.islice(drawn(info, wanted, grad), parity.LIMIT))
    for sample in made[:: max(1, -(-len(made) // SAMPLES))]:
        yield parity.Case(info, sample, function, grad)


def drawn(info: Any, dtype: torch.dtype, grad: bool) -> Iterator[Any]:
    """PyTorch's samples as far as its CPU side can make them in this dtype."""
    try:
        yield from parity.samples(info, dtype, grad)
    except (RuntimeError, NotImplementedError, ValueError):
        return


def check_case(case: Any, dtype: str, where: Any) -> bool:
    """Compare one call; returns whether all of it agrees with float64."""
    try:
        narrow = Run(case, lambda t: t, disttorch.device("cpu"))
    except Exception as problem:
        raise Refused from problem
    try:
        wide: Run | None = Run(case, widened, disttorch.device("cpu"))
    except Exception:
        wide = None  # a function of half types only, or of the dtype itself
    device = Run(case, to_device(where), where)
    elsewhere = {t.device.type for t in tensors_in(device.found, disttorch.Tensor)} - {where.type}
    if elsewhere:
        raise AssertionError(f"a result on {', '.join(elsewhere)}, of arguments on {where}")
    values = not (case.info.name in RANDOM or case.info.name in COUNT_ONLY or case.drops)
    process = processing(case)
    agrees = compare_results(case, device.found, narrow.found, wide and wide.found, process, dtype, values)
    if case.with_gradient and values and narrow.leaves:
        agrees &= compare_gradients(case, device, narrow, wide, process, dtype)
    return agrees


def processing(case: Any) -> Callable[[Any], Any]:
    """What of a result is unique, as PyTorch's tests take it."""
    info, sample = case.info, case.sample
    if info.name in TIES:
        return parity.elements_at(sample, TIES[info.name], info.name == "argsort")
    if info.name in POLES:
        return parity.with_poles
    return sample.output_process_fn_grad or (lambda result: result)


def processed(found: Any, process: Callable[[Any], Any]) -> list[Any]:
    """The unique part of a result, as tensors of ours on the CPU."""
    result = process(parity.theirs(to_host(found)))
    return [ours(t.detach()) for t in tensors_in(result, torch.Tensor)]


def compare_results(case: Any, found: Any, narrow: Any, wide: Any, process: Any, dtype: str, values: bool) -> bool:
    mine, theirs_here = processed(found, process), processed(narrow, process)
    if not theirs_here:
        if not same_numbers(found, narrow):
            raise AssertionError(f"{found!r} instead of {narrow!r}")
        return True
    if len(mine) != len(theirs_here):
        raise AssertionError(f"{len(mine)} tensors instead of {len(theirs_here)}")
    exact: list[Any] = [None] * len(mine)
    if wide is not None and values:
        computed = processed(wide, process)
        exact = computed if len(computed) == len(mine) else exact
    triples = enumerate(zip(mine, theirs_here, exact))
    agree = [check(f"result {i}", m, n, w, dtype, values=values) for i, (m, n, w) in triples]
    return all(agree)


def same_numbers(found: Any, expected: Any) -> bool:
    """Plain results, such as truth values and sizes."""
    if isinstance(expected, float):
        return abs(found - expected) <= 1e-4 * max(1.0, abs(expected)) or found == expected or (found != found) == (expected != expected)
    return found == expected


def compare_gradients(case: Any, device: Run, narrow: Run, wide: Run | None, process: Any, dtype: str) -> bool:
    """Gradients of a fixed combination of the results; in float64 also those of a combination of these."""
    second = dtype == "float64" and case.info.supports_gradgrad
    try:
        expected = gradients(narrow, process, second)
    except Exception as problem:
        raise Refused from problem
    reference = gradients(wide, process, False) if wide is not None else [[None] * len(expected[0])]
    found = gradients(device, process, second)
    agrees = True
    for order, (f, n) in enumerate(zip(found, expected)):
        w = reference[order] if order < len(reference) else n
        for i, (mine, cpus, exact) in enumerate(zip(f, n, w)):
            if cpus is None and mine is None:
                continue
            some = cpus if cpus is not None else mine
            mine, cpus = (disttorch.zeros_like(to_host(some)) if t is None else t for t in (mine, cpus))
            label = f"{'gradient' if order == 0 else 'second derivative'} of input {i}"
            agrees &= check(label, mine.detach().cpu(), cpus, exact, dtype, of_largest=True)
    return agrees


def gradients(run: Run, process: Callable[[Any], Any], second: bool) -> list[list[Any]]:
    """Derivatives of first order, and of second where asked for; each as one tensor or None for each leaf."""
    results = [t for t in tensors_in(run.found, disttorch.Tensor) if t.requires_grad]
    if not results:
        return [[None] * len(run.leaves)]
    raw = parity.rebuild(to_host(run.found), iter([t.requires_grad for t in tensors_in(run.found, disttorch.Tensor)]))
    raw_results = [t for t in tensors_in(raw, torch.Tensor) if t.requires_grad]
    unique = [t for t in tensors_in(process(raw), torch.Tensor) if t.requires_grad]
    entering = torch.autograd.grad(unique, raw_results, weights(unique), allow_unused=True)
    pairs = [(r, ours(e).to(r.device)) for r, e in zip(results, entering) if e is not None]
    first = disttorch.autograd.grad(
        [r for r, _ in pairs], run.leaves, [e for _, e in pairs], allow_unused=True, create_graph=second
    )
    if not second or process(raw) is not raw:
        return [list(first)]
    again = [g for g in first if g is not None and g.requires_grad]
    if not again:
        return [list(first)]
    entering_again = [ours(w).to(g.device) for g, w in zip(again, weights([parity.theirs(to_host(g)) for g in again]))]
    return [list(first), list(disttorch.autograd.grad(again, run.leaves, entering_again, allow_unused=True))]


def weights(results: list[Any]) -> list[Any]:
    """What a fixed combination of results multiplies them with: the same numbers in every dtype, as far as bfloat16 has them."""
    torch.manual_seed(1)
    drawn = [torch.randn(t.shape, dtype=torch.float64).bfloat16() for t in results]
    return [w.to(t.dtype) for w, t in zip(drawn, results)]

