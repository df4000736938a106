"""Optimizers beside PyTorch's, with every combination of options that PyTorch tests its own with (``optim_db``)."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.testing._internal.common_optimizers import optim_db

import disttorch
from tests.parity.translate import Untranslatable, ours

INFOS = {info.optim_cls.__name__: info for info in optim_db}
#: Options that say how PyTorch computes, on a GPU or in a compiled graph.
ELSEWHERE = {"capturable", "fused"}


def inputs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            i for i in INFOS[name].optim_inputs_func(device="cpu", dtype=torch.float64) if not ELSEWHERE & set(i.kwargs)
        ]


def train(module, optimizer_class, kwargs, shapes, dtype="float64", steps=6, sparse=False):
    """The parameters and the loss after some steps of fitting a product of matrices."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    params = [module.tensor(a).requires_grad_() for a in arrays]
    target = module.tensor(rng.standard_normal((6, shapes[1][1])).astype(dtype))
    x = module.tensor(rng.standard_normal((6, shapes[0][0])).astype(dtype))
    optimizer = optimizer_class(params, **kwargs)

    def closure():
        optimizer.zero_grad()
        loss = ((x @ params[0]).tanh() @ params[1] - target).abs().pow(2).mean()
        loss.backward()
        if sparse:
            for p in params:
                g = p.grad.detach().clone()
                g[::2] = 0
                p.grad = g.to_sparse(1) if module is torch else g
        return loss

    losses = []
    for _ in range(steps):
        if optimizer_class.__name__ == "LBFGS":
            losses.append(float(optimizer.step(closure)))
        else:
            losses.append(float(closure()))
            optimizer.step()
    return [p.detach().numpy() for p in params], losses


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # by PyTorch's ASGD
@pytest.mark.parametrize("name", sorted(INFOS))
def test_steps(name):
    for case in inputs(name):
        kwargs = {k: v for k, v in case.kwargs.items() if k != "differentiable"}
        sparse = name == "SparseAdam"
        shapes = [(5, 4), (4, 3)]
        steps = 3 if name == "LBFGS" else 6  # of 20 iterations; rounding grows with each
        mine, my_losses = train(
            disttorch, getattr(disttorch.optim, name), ours(kwargs), shapes, steps=steps, sparse=sparse
        )
        theirs, their_losses = train(torch, getattr(torch.optim, name), kwargs, shapes, steps=steps, sparse=sparse)
        # Muon's iteration is in bfloat16, and rounds where the order of additions decides
        tolerance = {"rtol": 2e-2, "atol": 2e-4} if name == "Muon" else {"rtol": 1e-7, "atol": 1e-9}
        np.testing.assert_allclose(my_losses, their_losses, **tolerance, err_msg=str(kwargs))
        for a, b in zip(mine, theirs):
            np.testing.assert_allclose(a, b, **tolerance, err_msg=str(kwargs))


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"line_search_fn": "strong_wolfe"}, 4),
        ({"line_search_fn": "strong_wolfe", "max_iter": 4}, 15),
        ({"lr": 0.1, "max_iter": 7, "history_size": 3}, 12),
    ],
    ids=str,
)
def test_lbfgs_goes_pytorchs_way_for_many_steps(options, steps):
    shapes = [(5, 4), (4, 3)]
    mine, my_losses = train(disttorch, disttorch.optim.LBFGS, options, shapes, steps=steps)
    theirs, their_losses = train(torch, torch.optim.LBFGS, options, shapes, steps=steps)
    np.testing.assert_allclose(my_losses, their_losses, rtol=1e-5)
    for a, b in zip(mine, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(n for n in INFOS if INFOS[n].supports_complex and n != "LBFGS"))
def test_complex_parameters(name):
    rng = np.random.default_rng(0)
    start, gradients = (rng.standard_normal((n, 5, 2)) @ [1, 1j] for n in (1, 4))
    found = []
    for module in (disttorch, torch):
        p = module.tensor(start[0]).requires_grad_()
        optimizer = getattr(module.optim, name)([p], lr=0.1)
        for g in gradients:
            p.grad = module.tensor(g)
            optimizer.step()
        found.append(p.detach().numpy())
    np.testing.assert_allclose(*found, rtol=1e-10)


@pytest.mark.parametrize("name", sorted(INFOS))
def test_wrong_options(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float64)
    compared = 0
    for case in cases:
        params, kwargs = case.optimizer_error_input.params, case.optimizer_error_input.kwargs
        try:  # before PyTorch's constructor changes the groups
            mine = ours(params), ours(kwargs)
        except Untranslatable:
            continue
        try:
            INFOS[name].optim_cls(params, **kwargs)
        except Exception as error:
            expected = type(error)
        else:
            continue  # it is the step that fails
        compared += 1
        with pytest.raises(expected):
            getattr(disttorch.optim, name)(mine[0], **mine[1])
    assert compared
