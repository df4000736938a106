"""Functions of two operands and operators: values against float64 formulas, derivatives against finite differences, edges
against PyTorch.
"""

import math

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-6, "float64": 1e-12}
FLOATS = ["float16", "bfloat16", "float32", "float64"]

# name, formula, interval of the first operand, interval of the second
SMOOTH_PAIRS = [
    ("add", np.add, (-2, 2), (-2, 2)),
    ("sub", np.subtract, (-2, 2), (-2, 2)),
    ("mul", np.multiply, (-2, 2), (-2, 2)),
    ("div", np.divide, (-2, 2), (0.5, 2)),
    ("pow", np.power, (0.5, 2), (-2, 2)),
    ("remainder", np.remainder, (0.1, 0.9), (1.1, 2)),
    ("fmod", np.fmod, (0.1, 0.9), (1.1, 2)),
    ("atan2", np.arctan2, (-2, 2), (0.5, 2)),
    ("hypot", np.hypot, (0.5, 2), (0.5, 2)),
    ("logaddexp", np.logaddexp, (-2, 2), (-2, 2)),
    ("copysign", np.copysign, (0.5, 2), (-2, -0.5)),
    ("maximum", np.maximum, (-2, 0), (0.1, 2)),
    ("minimum", np.minimum, (-2, 0), (0.1, 2)),
    ("fmax", np.fmax, (-2, 0), (0.1, 2)),
    ("fmin", np.fmin, (-2, 0), (0.1, 2)),
]
COMPARISONS = [
    ("eq", np.equal),
    ("ne", np.not_equal),
    ("lt", np.less),
    ("le", np.less_equal),
    ("gt", np.greater),
    ("ge", np.greater_equal),
]
LOGIC = [("logical_and", np.logical_and), ("logical_or", np.logical_or), ("logical_xor", np.logical_xor)]
BITS = [
    ("bitwise_and", np.bitwise_and),
    ("bitwise_or", np.bitwise_or),
    ("bitwise_xor", np.bitwise_xor),
    ("bitwise_left_shift", np.left_shift),
    ("bitwise_right_shift", np.right_shift),
]


def draw(low, high, shape, dtype="float64", seed=0):
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return disttorch.tensor(values, dtype=getattr(disttorch, dtype))


def wide(t):
    return t.detach().double().numpy()


def ids(rows):
    return [r[0] for r in rows]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "formula", "first", "second"), SMOOTH_PAIRS, ids=ids(SMOOTH_PAIRS))
def test_values_of_two_operands(name, formula, first, second, dtype):
    x, y = draw(*first, (3, 5), dtype), draw(*second, (5,), dtype, seed=1)
    function = getattr(disttorch, name)
    result = function(x, y)
    assert result.dtype is x.dtype and result.shape == (3, 5)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(wide(result), formula(wide(x), wide(y)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (2, 3)),
        ((2, 3), (3,)),
        ((2, 1), (1, 3)),
        ((), (2,)),
        ((2,), ()),
        ((0, 3), (1, 3)),
        ((1,), (2, 0)),
        ((), ()),
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "formula", "first", "second"), SMOOTH_PAIRS, ids=ids(SMOOTH_PAIRS))
def test_broadcasting_and_derivatives(name, formula, first, second, shapes):
    x, y = draw(*first, shapes[0]).requires_grad_(), draw(*second, shapes[1], seed=1).requires_grad_()
    function = getattr(disttorch, name)
    result = function(x, y)
    np.testing.assert_allclose(wide(result), formula(wide(x), wide(y)), rtol=1e-12)
    assert gradcheck(function, (x, y))
    if shapes == ((2, 3), (3,)):
        assert gradgradcheck(function, (x, y))
        assert gradcheck(function, (x, y.detach())) and gradcheck(function, (x.detach(), y))


@pytest.mark.parametrize(("name", "formula", "first", "second"), SMOOTH_PAIRS, ids=ids(SMOOTH_PAIRS))
def test_in_place_twins_of_two_operands(name, formula, first, second):
    if name in ("maximum", "minimum", "fmax", "fmin", "logaddexp"):
        assert not hasattr(disttorch.Tensor, name + "_")
        return
    x, y = draw(*first, (2, 3)).requires_grad_(), draw(*second, (3,), seed=1).requires_grad_()
    assert gradcheck(lambda a, b: getattr(a.clone(), name + "_")(b), (x, y))
    assert gradcheck(lambda a: getattr(a.clone(), name + "_")(1.25), (x,))
    copy = x.detach().clone()
    assert getattr(copy, name + "_")(y.detach()) is copy
    np.testing.assert_allclose(wide(copy), formula(wide(x), wide(y)), rtol=1e-12)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        getattr(disttorch.ones(3), name + "_")(disttorch.ones(2, 3))


@pytest.mark.parametrize(
    "number", [2, 1.5, True, np.float64(1.5), np.int64(2), np.float32(0.5), np.bool_(True)], ids=repr
)
@pytest.mark.parametrize(("name", "formula", "first", "second"), SMOOTH_PAIRS[:7], ids=ids(SMOOTH_PAIRS[:7]))
def test_numbers_on_the_right(name, formula, first, second, number):
    x = draw(*first, (3,), "float32")
    result = getattr(disttorch, name)(x, number)
    assert result.dtype is disttorch.float32
    np.testing.assert_allclose(wide(result), formula(wide(x), float(number)), rtol=1e-6)


OPERATORS = [
    ("+", lambda a, b: a + b),
    ("-", lambda a, b: a - b),
    ("*", lambda a, b: a * b),
    ("/", lambda a, b: a / b),
    ("//", lambda a, b: a // b),
    ("%", lambda a, b: a % b),
    ("**", lambda a, b: a**b),
    ("<", lambda a, b: a < b),
    ("<=", lambda a, b: a <= b),
    (">", lambda a, b: a > b),
    (">=", lambda a, b: a >= b),
    ("==", lambda a, b: a == b),
    ("!=", lambda a, b: a != b),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("number", [3, 2.5, np.float64(2.5), np.float32(2.5), np.int32(3)], ids=repr)
@pytest.mark.parametrize(("sign", "operate"), OPERATORS, ids=ids(OPERATORS))
def test_operators_with_numbers_on_both_sides(sign, operate, number, dtype):
    x = disttorch.tensor([1, 2, 5], dtype=getattr(disttorch, dtype))
    plain = number.item() if isinstance(number, np.generic) else number
    whole = isinstance(plain, int) and "int" in dtype
    for ours, expected in [
        (operate(x, number), operate(wide(x), float(plain))),
        (operate(number, x), operate(np.float64(plain), wide(x))),
    ]:
        assert isinstance(ours, disttorch.Tensor)
        if dtype == "uint8" and whole and sign != "/":
            expected = expected % 256
        np.testing.assert_allclose(wide(ours), expected, rtol=1e-6)
        if sign in ("<", "<=", ">", ">=", "==", "!="):
            assert ours.dtype is disttorch.bool
        elif whole and sign != "/":
            assert ours.dtype is x.dtype
        elif "int" in dtype:
            assert ours.dtype is disttorch.float32
        else:
            assert ours.dtype is x.dtype


@pytest.mark.parametrize(("sign", "operate"), OPERATORS, ids=ids(OPERATORS))
def test_operators_with_numpy_arrays_on_both_sides(sign, operate):
    x, a = disttorch.tensor([1.0, 2.0, 5.0]), np.array([3.0, 2.0, 1.0], np.float32)
    for ours, expected in [(operate(x, a), operate(x.numpy(), a)), (operate(a, x), operate(a, x.numpy()))]:
        assert isinstance(ours, disttorch.Tensor)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6)


def test_a_numpy_array_carries_its_dtype_and_the_gradient_passes():
    x = disttorch.ones(2, requires_grad=True)
    y = np.array([2.0, 3.0]) * x
    assert y.dtype is disttorch.float64
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 3.0] and x.grad.dtype is disttorch.float32


@pytest.mark.parametrize(("name", "formula"), COMPARISONS, ids=ids(COMPARISONS))
@pytest.mark.parametrize("dtype", [*FLOATS, "int64", "bool"])
def test_comparisons(name, formula, dtype):
    x = disttorch.tensor([[0, 1, 1]], dtype=getattr(disttorch, dtype))
    y = disttorch.tensor([[1], [0]], dtype=getattr(disttorch, dtype))
    result = getattr(disttorch, name)(x, y)
    assert result.dtype is disttorch.bool and not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), formula(wide(x), wide(y)))
    np.testing.assert_array_equal(getattr(x, name)(1).numpy(), formula(wide(x), 1.0))


@pytest.mark.parametrize(("name", "formula"), LOGIC, ids=ids(LOGIC))
def test_logic(name, formula):
    x, y = disttorch.tensor([0.0, 1.5, 0.0, -1.0]), disttorch.tensor([0, 0, 3, 1])
    result = getattr(disttorch, name)(x, y)
    assert result.dtype is disttorch.bool
    np.testing.assert_array_equal(result.numpy(), formula(x.numpy(), y.numpy()))


@pytest.mark.parametrize(("name", "formula"), BITS, ids=ids(BITS))
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_bits(name, formula, dtype):
    x = disttorch.tensor([5, 12, 7], dtype=getattr(disttorch, dtype))
    y = disttorch.tensor([3, 1, 2], dtype=getattr(disttorch, dtype))
    result = getattr(disttorch, name)(x, y)
    assert result.dtype is x.dtype
    np.testing.assert_array_equal(result.numpy(), formula(x.numpy(), y.numpy()))


def test_bits_of_bool_and_inversion():
    p, q = disttorch.tensor([True, True, False]), disttorch.tensor([True, False, False])
    assert (p & q).tolist() == [True, False, False] and (p | q).tolist() == [True, True, False]
    assert (p ^ q).tolist() == [False, True, False] and (~p).tolist() == [False, False, True]
    assert (~disttorch.tensor([0, 5])).tolist() == [-1, -6]
    assert disttorch.bitwise_not(p).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("floor_divide", [7, -7, 7, -7], [2, 2, -2, -2]),
        ("remainder", [7, -7, 7, -7], [2, 2, -2, -2]),
        ("fmod", [7, -7, 7, -7], [2, 2, -2, -2]),
        ("floor_divide", [7.5, -7.5, 7.5, -7.5], [2, 2, -2, -2]),
        ("remainder", [7.5, -7.5, 7.5, -7.5], [2, 2, -2, -2]),
        ("fmod", [7.5, -7.5, 7.5, -7.5], [2, 2, -2, -2]),
        ("floor_divide", [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]),
        ("remainder", [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_division_that_rounds(name, first, second):
    formula = {
        "floor_divide": lambda a, b: math.floor(a / b) if b else a / np.float64(b),
        "remainder": lambda a, b: a - b * math.floor(a / b) if b else math.nan,
        "fmod": lambda a, b: a - b * math.trunc(a / b),
    }[name]
    x, y = (
        disttorch.tensor(first),
        disttorch.tensor(second, dtype=disttorch.float32 if isinstance(first[0], float) else None),
    )
    result = getattr(disttorch, name)(x, y)
    with np.errstate(all="ignore"):
        expected = [formula(np.float64(a), b) for a, b in zip(first, second)]
    np.testing.assert_allclose(result.numpy(), expected)
    assert result.dtype is x.dtype


@pytest.mark.parametrize("mode", [None, "trunc", "floor"])
@pytest.mark.parametrize("values", [([7, -7], [2, 2]), ([7.5, -7.5], [2.0, 2.0])], ids=str)
def test_div_rounding_modes(mode, values):
    x, y = map(disttorch.tensor, values)
    result = disttorch.div(x, y, rounding_mode=mode)
    quotient = wide(x) / wide(y)
    expected = quotient if mode is None else np.trunc(quotient) if mode == "trunc" else np.floor(quotient)
    np.testing.assert_allclose(wide(result), expected)
    assert result.dtype is (disttorch.float32 if mode is None or x.is_floating_point() else disttorch.int64)
    out = disttorch.empty(2, dtype=result.dtype)
    assert disttorch.div(x, y, rounding_mode=mode, out=out) is out and out.tolist() == result.tolist()
    if mode is not None or x.is_floating_point():
        assert x.clone().div_(y, rounding_mode=mode).tolist() == result.tolist()
    with pytest.raises(RuntimeError, match="'up'"):
        disttorch.div(x, y, rounding_mode="up")


@pytest.mark.parametrize(
    ("base", "exponent"),
    [
        (0.0, 0.0),
        (0.0, 1.0),
        (0.0, 2.0),
        (0.0, 0.5),
        (0.0, -1.0),
        (2.0, 0.0),
        (-2.0, 3.0),
        (-2.0, 0.5),
        (3.0, -2.0),
        (1.0, 5.0),
    ],
)
def test_powers_and_their_gradients_at_the_edges(base, exponent, torch, same, to_torch):
    for ours_args in [
        (disttorch.tensor(base, requires_grad=True), exponent),
        (disttorch.tensor(base, requires_grad=True), disttorch.tensor(exponent, requires_grad=True)),
        (base, disttorch.tensor(exponent, requires_grad=True)),
        (disttorch.tensor(base, requires_grad=True), int(exponent)),
    ]:
        theirs_args = [to_torch(a) for a in ours_args]
        ours, theirs = ours_args[0] ** ours_args[1], theirs_args[0] ** theirs_args[1]
        same(ours, theirs, what=(base, exponent))
        ours.backward()
        theirs.backward()
        for a, b in zip(ours_args, theirs_args):
            if isinstance(a, disttorch.Tensor):
                same(a.grad, b.grad, what=f"gradient of {base} ** {exponent}")


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4])
def test_power_of_a_number_derivatives(exponent):
    x = draw(0.5, 2, (3,)).requires_grad_()
    assert gradcheck(lambda x: x**exponent, x)
    if exponent:  # x ** 0 has a gradient of zeros that depends on nothing
        assert gradgradcheck(lambda x: x**exponent, x)
    assert gradcheck(lambda x: x.clone().pow_(exponent), x)


@pytest.mark.parametrize("pair", [(1, 1), (1, 2), (math.nan, 1), (1, math.nan)], ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin"])
def test_extremes_with_ties_and_nan(name, pair, torch, same, to_torch):
    x, y = (disttorch.tensor([float(v)], requires_grad=True) for v in pair)
    a, b = to_torch(x), to_torch(y)
    ours, theirs = getattr(disttorch, name)(x, y), getattr(torch, name)(a, b)
    same(ours, theirs)
    ours.sum().backward()
    theirs.sum().backward()
    same(x.grad, a.grad, what=(name, pair))
    same(y.grad, b.grad, what=(name, pair))


def test_alpha():
    x, y = disttorch.tensor([1.0, 2.0]), disttorch.tensor([3.0, 4.0])
    assert disttorch.add(x, y, alpha=2).tolist() == [7.0, 10.0]
    assert disttorch.sub(x, y, alpha=2).tolist() == [-5.0, -6.0]
    assert disttorch.rsub(x, y, alpha=2).tolist() == [1.0, 0.0]
    assert disttorch.add(x, 3, alpha=2).tolist() == [7.0, 8.0]
    assert x.clone().add_(y, alpha=-1).tolist() == [-2.0, -2.0]
    assert x.clone().sub_(1, alpha=3).tolist() == [-2.0, -1.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: disttorch.ones(2) + disttorch.ones(3),
            RuntimeError,
            r"size of tensor a \(2\).*\(3\).*dimension 0.*\[2\] and \[3\]",
        ),
        (lambda: disttorch.ones(2, 3) * disttorch.ones(4, 1, 2), RuntimeError, r"\(3\).*\(2\).*dimension 2"),
        (lambda: disttorch.ones(2) + "a", TypeError, "str"),
        (lambda: disttorch.ones(2) + None, TypeError, "NoneType"),
        (lambda: disttorch.add(1, 2), TypeError, "Tensor"),
        (lambda: disttorch.exp(1.0), TypeError, "float"),
        (lambda: disttorch.ones(2) & disttorch.ones(2), RuntimeError, "float32"),
        (lambda: ~disttorch.ones(2), (TypeError, RuntimeError), "float32"),
        (lambda: disttorch.tensor([2, 3]) ** -1, RuntimeError, "negative"),
        (lambda: disttorch.tensor([1, 2]).add_(1.5), RuntimeError, "int64"),
        (lambda: disttorch.tensor([1, 2]).div_(2), RuntimeError, "int64"),
        (lambda: disttorch.tensor([1, 2]).exp_(), RuntimeError, "int64"),
        (lambda: disttorch.tensor([True]) - disttorch.tensor([True]), RuntimeError, "bool"),
        (lambda: -disttorch.tensor([True]), RuntimeError, "bool"),
        (lambda: disttorch.tensor([5, 1]) // 0, RuntimeError, "ZeroDivision|zero"),
        (lambda: disttorch.tensor([5, 1]) % disttorch.tensor([0, 1]), RuntimeError, "ZeroDivision|zero"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_complex_arithmetic(torch, same, to_torch):
    z = disttorch.tensor([1 + 2j, -0.5 + 0.25j, 3 - 1j])
    w = disttorch.tensor([0.5 - 1j, 2 + 0j, -1 + 1j])
    a, b = to_torch(z), to_torch(w)
    for ours, theirs in [
        (z + w, a + b),
        (z * w, a * b),
        (z / w, a / b),
        (z - 1j, a - 1j),
        (z * 2.0, a * 2.0),
        (z.abs(), a.abs()),
        (z.exp(), a.exp()),
        (z**2, a**2),
        (disttorch.tensor([1.0, 2.0, 3.0]) * 1j, torch.tensor([1.0, 2.0, 3.0]) * 1j),
        (z == w, a == b),
        (z.sum(), a.sum()),
        (z.mean(), a.mean()),
    ]:
        same(ours, theirs)
