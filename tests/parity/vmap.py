"""Our operations under vmap beside themselves sample by sample, on PyTorch's sample inputs.

    python -m tests.parity.vmap add nn.functional.conv2d       # by name
    python -m tests.parity.vmap -k fft -v                      # by part of the name; every failure

Of each call's tensors, all, or the first alone, become two samples; with their gradients where there are any.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import disttorch
from disttorch.func import grad, vmap
from disttorch.utils._pytree import flatten
from tests.parity.exceptions import RANDOM
from tests.parity.operations import TABLE_FIRST, Case, function_of, infos, samples, swapped
from tests.parity.translate import Untranslatable

#: how many samples of an operation are tried
LIMIT = 12
#: results that have another shape for each sample, or are no function of the sample's values
NOT_MAPPED: dict[str, str] = {
    "nonzero": "the shape depends on the values",
    "argwhere": "the shape depends on the values",
    "masked_select": "the shape depends on the values",
    "unique": "the shape depends on the values",
    "unique_consecutive": "the shape depends on the values",
    "nn.functional.ctc_loss": "lengths are numbers",
    "item": "a number",
    "empty": "what is in it is not said",
    "empty_like": "what is in it is not said",
    "empty_permuted": "what is in it is not said",
    "empty_strided": "what is in it is not said",
    "new_empty": "what is in it is not said",
    "new_empty_strided": "what is in it is not said",
    "tensor_split": "the shape may depend on the values",
    "masked.median": "asks for values",
    "resize_": "changes the memory's size",
    "resize_as_": "changes the memory's size",
}


#: what vmap says of calls that have no meaning for it
REFUSED = ("random operation while in randomness error mode", "cannot be changed in place to values that differ")


def _pair(x: Any) -> Any:
    """Two samples: the tensor, and one that differs a little where that makes sense."""
    other = x * 0.9375 if x.is_floating_point() or x.is_complex() else x.clone()
    return disttorch.stack((x.detach(), other.detach()))


def _values(tree: Any) -> list[Any]:
    return [t for t in flatten(tree)[0] if isinstance(t, disttorch.Tensor)]


def _agree(what: str, one: list[Any], other: list[Any]) -> None:
    if len(one) != len(other):
        raise AssertionError(f"{what}: {len(one)} tensors instead of {len(other)}")
    for a, b in zip(one, other):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(f"{what}: {list(a.shape)} {a.dtype} instead of {list(b.shape)} {b.dtype}")
        x, y = a.detach().numpy(), b.detach().numpy()
        if x.dtype.kind in "fc":
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8, err_msg=what)
        else:
            np.testing.assert_array_equal(x, y, err_msg=what)


def check(case: Case, which: str) -> bool:
    """Compare one call; False if there is nothing to map."""
    args, kwargs, _ = case.arguments()
    leaves, structure = flatten((args, kwargs))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, disttorch.Tensor)]
    chosen = tensors if which == "all" else tensors[:1] if which == "first" else tensors[-1:]
    if not chosen or any(0 in leaves[i].shape for i in chosen):
        return False

    def call(*mapped: Any) -> list[Any]:
        again = [x.detach() if isinstance(x, disttorch.Tensor) else x for x in leaves]
        for i, x in zip(chosen, mapped):
            again[i] = x
        a, k = structure(again)
        return _values(case.function(*a, **k))

    pairs = [_pair(leaves[i]) for i in chosen]
    try:
        one_by_one = [call(*(p[k] for p in pairs)) for k in (0, 1)]
    except Exception:
        return False  # the second sample is no valid input
    if not one_by_one[0]:
        return False
    expected = [disttorch.stack(c) for c in zip(*one_by_one)]
    _agree("value", list(vmap(lambda *m: tuple(call(*m)))(*pairs)), expected)
    floating = [n for n, p in enumerate(pairs) if p.is_floating_point() or p.is_complex()]
    if not floating or not case.info.supports_autograd:
        return True

    def total(*mapped: Any) -> Any:
        parts = [o for o in call(*mapped) if o.is_floating_point() or o.is_complex()]
        return sum(((o * o.conj()).real if o.is_complex() else o * o).sum() for o in parts)

    if not any(o.is_floating_point() or o.is_complex() for o in one_by_one[0]):
        return True
    derivative = grad(total, tuple(floating))
    try:
        gradients = [derivative(*(p[k] for p in pairs)) for k in (0, 1)]
    except Exception:
        return True
    _agree("gradient", list(vmap(derivative)(*pairs)), [disttorch.stack(c) for c in zip(*gradients)])
    return True


def cases(name: str) -> Iterator[Case]:
    function = function_of(name)
    if name == "where":  # its samples' input comes first
        function = lambda x, condition, other: disttorch.where(condition, x, other)  # noqa: E731
    if function is not None and name in TABLE_FIRST:
        function = partial(swapped, function)
    for info in infos().get(name, ()):
        if function is None or torch.float64 not in info.supported_dtypes("cpu"):
            continue
        for i, sample in enumerate(samples(info, torch.float64, False)):
            if i == LIMIT:
                break
            yield Case(info, sample, function)


def run(name: str, report: Callable[[str], None]) -> tuple[int, int]:
    """How many calls were compared, and how many failed."""
    count = failed = 0
    for case in cases(name):
        for which in ("all", "first", "last"):
            try:
                count += check(case, which)
            except Untranslatable:
                continue
            except Exception as error:
                if any(reason in str(error) for reason in REFUSED):
                    continue
                failed += 1
                where = "" if isinstance(error, AssertionError) else traceback.format_exc(limit=-3)
                report(f"{case} [{which}]: {type(error).__name__}: {str(error)[:600]}\n{where}")
    return count, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-k", metavar="PART")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    names = options.names or [n for n in infos() if options.k is None or options.k in n]
    totals: Counter[str] = Counter()
    for name in names:
        if name in NOT_MAPPED or name in RANDOM:
            continue
        seen: list[str] = []
        count, failed = run(name, seen.append)
        if count or failed:
            totals["ok" if not failed else "failed"] += 1
            if failed:
                print(f"{name}: {failed} of {count + failed} failed")
                for text in seen if options.v else seen[:1]:
                    print("    " + text.replace("\n", "\n    "))
    print(dict(totals))
    return int(totals["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
