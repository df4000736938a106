"""One module on a device: results, gradients of inputs and parameters, and the state afterwards, beside the CPU's in float64."""

from __future__ import annotations

import traceback
import warnings
from copy import deepcopy
from typing import Any

import torch

import disttorch
from tests.gpu.agreement import check, map_tensors, to_device, to_host, widened
from tests.parity import modules as parity
from tests.parity.exceptions import RANDOM_MODULES
from tests.parity.translate import ours, tensors_in


class Refused(Exception):
    """The CPU cannot do it either."""


class Run:
    """A module called once: its results, and the gradients of a fixed combination of them."""

    def __init__(self, module: Any, call: Any, place: Any):
        self.module = module
        placed: dict[int, Any] = {}
        copied, args, kwargs, memo = call.inputs()
        args, kwargs = map_tensors(args, place, placed), map_tensors(kwargs, place, placed)
        leaves = [placed.get(id(t), t) for t in memo.values() if isinstance(t, disttorch.Tensor) and t.requires_grad]
        del copied
        found = module(*args, **kwargs)
        self.results = tensors_in(found, disttorch.Tensor)
        asked = [(f"input {i}", t) for i, t in enumerate(leaves)]
        asked += [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.labels = [label for label, _ in asked]
        outs = [t for t in self.results if t.requires_grad]
        torch.manual_seed(1)
        entering = [ours(torch.randn(tuple(t.shape), dtype=torch.float64).bfloat16()).to(t.device, t.dtype) for t in outs]
        self.gradients = (
            disttorch.autograd.grad(outs, [t for _, t in asked], entering, allow_unused=True) if outs and asked else []
        )


def check_module(name: str, dtype: str, where: Any) -> dict[str, Any]:
    """All of PyTorch's and our sample inputs of a module, in training and in evaluation; as `operations.check_operation`."""
    outcome: dict[str, Any] = {"compared": 0, "same_dtype": 0, "failures": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for training in (True, False):
            for call in parity.calls(name, getattr(torch, dtype), training):
                try:
                    agrees = check_call(call, dtype, training, where)
                except Refused:
                    continue
                except Exception as problem:
                    shown = "" if isinstance(problem, AssertionError) else traceback.format_exc(limit=-3)
                    mode = "training" if training else "evaluation"
                    outcome["failures"].append(f"{call} in {mode}\n{type(problem).__name__}: {problem}\n{shown}".strip())
                    agrees = True
                outcome["compared"] += 1
                outcome["same_dtype"] += not agrees
    return outcome


def check_call(call: Any, dtype: str, training: bool, where: Any) -> bool:
    """Compare one module in one mode; returns whether all of it agrees with float64."""
    try:
        module = call.make(getattr(torch, dtype))[1].train(training)
        if not call.has_forward:
            raise Refused("nothing to compute")
        if any(type(v).__name__.startswith("Uninitialized") for v in module.state_dict().values()):
            _, args, kwargs, _ = call.inputs()
            module(*args, **kwargs)  # the first call of a lazy module makes its parameters
        wide_module, device_module = deepcopy(module).double(), deepcopy(module).to(where)
        narrow = Run(module, call, lambda t: t)
    except Exception as problem:
        raise Refused from problem
    try:
        wide: Run | None = Run(wide_module, call, widened)
    except Exception:
        wide = None
    device = Run(device_module, call, to_device(where))
    if any(t.device.type != where.type for t in device.results):
        raise AssertionError("a result is not on the device")
    values = call.name not in RANDOM_MODULES
    agrees = compare("result", device.results, narrow.results, wide and wide.results, dtype, values)
    if not values:
        return agrees
    state, expected = device.module.state_dict(), narrow.module.state_dict()
    tensors = [k for k, v in expected.items() if isinstance(v, disttorch.Tensor)]
    exact = [wide.module.state_dict()[k] for k in tensors] if wide else None
    agrees &= compare("state", [state[k] for k in tensors], [expected[k] for k in tensors], exact, dtype, True)
    for i, (label, found, cpus) in enumerate(zip(device.labels, device.gradients, narrow.gradients)):
        if found is None and cpus is None:
            continue
        some = found if cpus is None else cpus
        found, cpus = (disttorch.zeros_like(to_host(some)) if g is None else g for g in (found, cpus))
        reference = wide.gradients[i] if wide else None
        agrees &= check(f"gradient of {label}", found.cpu(), cpus, reference, dtype, of_largest=True)
    return agrees


def compare(what: str, found: list[Any], narrow: list[Any], wide: list[Any] | None, dtype: str, values: bool) -> bool:
    if len(found) != len(narrow):
        raise AssertionError(f"{len(found)} tensors instead of {len(narrow)}")
    references = wide if wide is not None and len(wide) == len(narrow) else [None] * len(narrow)
    triples = enumerate(zip(found, narrow, references))
    agree = [check(f"{what} {i}", f.detach().cpu(), n, w, dtype, of_largest=True, values=values) for i, (f, n, w) in triples]
    return all(agree)
