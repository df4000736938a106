"""Derivatives that no other table of cases reaches, by finite differences: first and second."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(11)
#: distinct, so that order and choice do not change within a difference
X = RNG.permutation(np.linspace(-2.0, 2.0, 12)).reshape(3, 4)
SQUARE = RNG.normal(size=(2, 3, 3))
SYMMETRIC = SQUARE + SQUARE.swapaxes(-1, -2)
WITH_NAN = np.where(X > 1.5, np.nan, X)

CASES = {
    "alias": (disttorch.alias_copy, X),
    "cummax": (lambda x: disttorch.cummax(x, 1)[0], X),
    "cummin": (lambda x: disttorch.cummin(x, 0)[0], X),
    "kthvalue": (lambda x: disttorch.kthvalue(x, 2, 1)[0], X),
    "median": (lambda x: disttorch.median(x, 1)[0], X),
    "median of all": (disttorch.median, X),
    "mode": (lambda x: disttorch.mode(x, 1)[0], X),
    "nanmedian": (lambda x: disttorch.nanmedian(x.exp(), 1)[0], X),
    "nansum": (lambda x: disttorch.nansum(x * x, 1), X),
    "nan_to_num": (lambda x: disttorch.nan_to_num(x * x), X),
    "max_pool": (lambda x: disttorch.nn.functional.max_pool1d(x[None], 2) ** 2, X),
    "avg_pool": (lambda x: disttorch.nn.functional.avg_pool1d(x[None] ** 2, 2), X),
    "index": (lambda x: x[disttorch.tensor([0, 2, 0])] ** 2, X),
    "slice": (lambda x: x[1:, ::2] ** 2, X),
    "diagonal": (lambda x: x.diagonal(1) ** 2, X),
    "embedding": (lambda x: disttorch.nn.functional.embedding(disttorch.tensor([2, 0, 2]), x) ** 2, X),
    "imag": (lambda x: disttorch.complex(x, x * x).imag ** 2, X),
    "convolution": (lambda x: disttorch.nn.functional.conv1d(x[None], x[:, None, :2], groups=3), X),
    "eigvalsh": (disttorch.linalg.eigvalsh, SYMMETRIC),
    "eigvals": (lambda x: disttorch.linalg.eigvals(x).abs(), SQUARE),
    "svdvals": (disttorch.linalg.svdvals, SQUARE),
    "matrix_power": (lambda x: disttorch.linalg.matrix_power(x, 3), SQUARE),
    "matrix_power, inverse": (lambda x: disttorch.linalg.matrix_power(x + 4 * disttorch.eye(3, dtype=disttorch.float64), -2), SQUARE),
}


@pytest.mark.parametrize(("function", "array"), CASES.values(), ids=CASES)
def test_derivatives(function, array):
    def of_symmetric(x):  # the difference of one element is to be one of a symmetric matrix
        return function((x + x.mT) / 2)

    f = of_symmetric if array is SYMMETRIC else function
    x = disttorch.tensor(array, requires_grad=True)
    assert gradcheck(f, (x,))
    assert gradgradcheck(f, (x,))


ZERO = {
    "floor": disttorch.floor, "ceil": disttorch.ceil, "trunc": disttorch.trunc, "round": disttorch.round,
    "div, floor": lambda x: disttorch.div(x, 0.7, rounding_mode="floor"),
    "div, trunc": lambda x: disttorch.div(x, 0.7, rounding_mode="trunc"),
}  # fmt: skip


@pytest.mark.parametrize("function", ZERO.values(), ids=ZERO)
def test_steps_have_no_slope(function):
    x = disttorch.tensor(X, requires_grad=True)
    (slope,) = disttorch.autograd.grad(function(x).sum() + 0 * x.sum(), x, create_graph=True)
    assert not slope.any()


def test_what_is_dropped_passes_no_gradient():
    x = disttorch.ones(4, 50, dtype=disttorch.float64, requires_grad=True)
    y = disttorch.nn.functional.dropout(x, 0.25)
    (slope,) = disttorch.autograd.grad(y.sum(), x, create_graph=True)
    assert disttorch.equal(slope, y)  # x is 1: the factor of each element is the result
    assert set(np.unique(y.detach().numpy())) == {0.0, 1 / 0.75}


def test_nans_that_are_left_out_pass_no_gradient():
    x = disttorch.tensor(WITH_NAN, requires_grad=True)
    x.nansum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), ~np.isnan(WITH_NAN))
