"""Functions of one operand: values against float64 formulas, derivatives against finite differences, edges against
PyTorch.
"""

import math

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-6, "float64": 1e-12}
FLOATS = ["float16", "bfloat16", "float32", "float64"]
vector_erf, vector_erfc = np.vectorize(math.erf, [float]), np.vectorize(math.erfc, [float])

# name, formula, an interval on which the function is smooth
SMOOTH = [
    ("exp", np.exp, -2, 2),
    ("exp2", np.exp2, -2, 2),
    ("expm1", np.expm1, -2, 2),
    ("log", np.log, 0.2, 4),
    ("log2", np.log2, 0.2, 4),
    ("log10", np.log10, 0.2, 4),
    ("log1p", np.log1p, -0.5, 3),
    ("sqrt", np.sqrt, 0.2, 4),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 0.2, 4),
    ("reciprocal", lambda x: 1 / x, 0.3, 3),
    ("square", lambda x: x * x, -2, 2),
    ("sin", np.sin, -3, 3),
    ("cos", np.cos, -3, 3),
    ("tan", np.tan, -1, 1),
    ("asin", np.arcsin, -0.8, 0.8),
    ("acos", np.arccos, -0.8, 0.8),
    ("atan", np.arctan, -3, 3),
    ("sinh", np.sinh, -2, 2),
    ("cosh", np.cosh, -2, 2),
    ("tanh", np.tanh, -2, 2),
    ("asinh", np.arcsinh, -3, 3),
    ("acosh", np.arccosh, 1.3, 4),
    ("atanh", np.arctanh, -0.8, 0.8),
    ("deg2rad", np.deg2rad, -180, 180),
    ("rad2deg", np.rad2deg, -3, 3),
    ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), -4, 4),
    ("erf", vector_erf, -2, 2),
    ("erfc", vector_erfc, -2, 2),
    ("neg", np.negative, -3, 3),
    ("positive", np.positive, -3, 3),
    ("abs", np.abs, 0.3, 3),
    ("sign", np.sign, 0.3, 3),
    ("floor", np.floor, 0.2, 0.8),
    ("ceil", np.ceil, 0.2, 0.8),
    ("trunc", np.trunc, 0.2, 0.8),
    ("round", np.rint, 0.6, 0.9),
    ("frac", lambda x: x - np.trunc(x), 0.2, 0.8),
    ("relu", lambda x: np.maximum(x, 0), 0.3, 3),
]
KEEP_INTEGERS = {"neg", "positive", "abs", "sign", "floor", "ceil", "trunc", "round", "relu", "square"}
TESTS = [
    ("isnan", np.isnan),
    ("isinf", np.isinf),
    ("isfinite", np.isfinite),
    ("signbit", np.signbit),
    ("logical_not", np.logical_not),
]


def draw(low, high, shape, dtype="float64", seed=0):
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return disttorch.tensor(values, dtype=getattr(disttorch, dtype))


def wide(t):
    return t.detach().double().numpy()


def ids(rows):
    return [r[0] for r in rows]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_values_of_one_operand(name, formula, low, high, dtype):
    x = draw(low, high, (3, 5), dtype)
    result = getattr(disttorch, name)(x)
    assert result.dtype is x.dtype and result.shape == x.shape
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(wide(result), formula(wide(x)), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(wide(getattr(x, name)()), wide(result))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)], ids=str)
@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_shapes_of_one_operand(name, formula, low, high, shape):
    x = draw(low, high, shape).requires_grad_()
    result = getattr(disttorch, name)(x)
    assert result.shape == shape and isinstance(result.shape, disttorch.Size)
    result.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_integers_become_the_default_dtype_where_the_function_is_not_whole(
    name, formula, low, high, dtype, torch, same, to_torch
):
    if name == "frac" or (dtype == "bool" and name in KEEP_INTEGERS):
        pytest.skip("PyTorch refuses, or keeps a dtype of its own for bool")
    x = disttorch.tensor([1, 1, 0, 1], dtype=getattr(disttorch, dtype))
    theirs = getattr(torch, name)(to_torch(x))
    same(getattr(disttorch, name)(x), theirs, what=(name, dtype))


@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_integer_dtypes(name, formula, low, high):
    x = disttorch.tensor([1, 2], dtype=disttorch.int32)
    if name == "frac":
        pytest.skip("PyTorch has no frac of integers")
    assert getattr(disttorch, name)(x).dtype is (disttorch.int32 if name in KEEP_INTEGERS else disttorch.float32)


@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_derivatives_of_one_operand(name, formula, low, high):
    x = draw(low, high, (2, 3)).requires_grad_()
    assert gradcheck(getattr(disttorch, name), x)
    if name not in ("sign", "floor", "ceil", "trunc", "round"):  # whose gradient does not depend on anything
        assert gradgradcheck(getattr(disttorch, name), x)


@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_in_place_twins_of_one_operand(name, formula, low, high):
    if name == "positive":
        assert not hasattr(disttorch.Tensor, "positive_")
        return
    leaf = draw(low, high, (2, 3)).requires_grad_()
    expected = getattr(disttorch, name)(leaf)
    (wanted,) = disttorch.autograd.grad(expected.sum(), leaf)
    x = leaf * 1
    address = x.data_ptr()
    assert getattr(x, name + "_")() is x and x.data_ptr() == address
    np.testing.assert_array_equal(wide(x), wide(expected))
    (found,) = disttorch.autograd.grad(x.sum(), leaf)
    np.testing.assert_allclose(wide(found), wide(wanted), rtol=1e-12)
    assert gradcheck(lambda v: getattr(v.clone(), name + "_")(), leaf)


@pytest.mark.parametrize(("name", "formula", "low", "high"), SMOOTH, ids=ids(SMOOTH))
def test_out(name, formula, low, high):
    if name in ("positive", "relu"):
        pytest.skip("has no out= in PyTorch")
    x, out = draw(low, high, (4,)), disttorch.empty(4, dtype=disttorch.float64)
    assert getattr(disttorch, name)(x, out=out) is out
    np.testing.assert_allclose(out.numpy(), formula(x.numpy()), rtol=1e-12)
    with pytest.raises(RuntimeError, match="automatic differentiation"):
        getattr(disttorch, name)(x.requires_grad_(), out=out)


EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 1e30, -1e30, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ids(SMOOTH))
def test_edges_and_their_gradients(name, dtype, torch, same, to_torch):
    # where PyTorch turns NaN into a number (sign, and the gradients of abs and relu), we let it through
    edges = EDGES[:-1] if name in ("sign", "abs", "relu") else EDGES
    x = disttorch.tensor(edges, dtype=getattr(disttorch, dtype), requires_grad=True)
    theirs = to_torch(x)
    with np.errstate(all="ignore"):
        ours, wanted = getattr(disttorch, name)(x), getattr(torch, name)(theirs)
        if name in ("sin", "cos", "tan"):  # beyond 1e30 the libraries' argument reductions differ in float32
            ours, wanted = ours[:8], wanted[:8]
        same(ours, wanted, what=name)
        ours.backward(disttorch.ones_like(ours))
        wanted.backward(torch.ones_like(wanted))
    same(x.grad, theirs.grad, what=f"gradient of {name}", factor=10)


@pytest.mark.parametrize(("name", "formula"), TESTS, ids=ids(TESTS))
@pytest.mark.parametrize("dtype", [*FLOATS, "int64", "bool", "uint8"])
def test_tests(name, formula, dtype):
    values = EDGES if "float" in dtype else [0, 1, 2, 1]
    x = disttorch.tensor(values, dtype=getattr(disttorch, dtype))
    result = getattr(disttorch, name)(x)
    assert result.dtype is disttorch.bool and not result.requires_grad
    host = wide(x) if "float" in dtype else x.numpy()
    np.testing.assert_array_equal(result.numpy(), formula(host))


@pytest.mark.parametrize("decimals", [-1, 0, 1, 2])
def test_round_to_decimals(decimals):
    values = [0.5, 1.5, 2.5, -0.25, 13.375, 1234.5678]
    np.testing.assert_allclose(
        disttorch.tensor(values).round(decimals=decimals).numpy(),
        np.round(np.array(values, np.float32), decimals),
        rtol=1e-6,
    )


def test_large_and_strided_operands():
    a = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    x = disttorch.from_numpy(a)
    np.testing.assert_allclose(x.t().exp().numpy(), np.exp(a.T), rtol=1e-6)
    np.testing.assert_allclose((x[::2, ::3] * x[1::2, ::3]).numpy(), a[::2, ::3] * a[1::2, ::3], rtol=1e-6)
    np.testing.assert_allclose(x.flip(0).sigmoid().numpy(), 1 / (1 + np.exp(-a[::-1].astype(float))), rtol=1e-5)
