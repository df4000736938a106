"""Arithmetic beyond the four operations, complex numbers, comparisons: values against NumPy, derivatives, dtypes, errors."""

import math

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(8)
INF, NAN = math.inf, math.nan


def real(*shape, low=-2.0, high=2.0):
    return disttorch.tensor(RNG.uniform(low, high, shape), requires_grad=True)


def complex_(*shape):
    return disttorch.tensor(RNG.normal(size=shape) + 1j * RNG.normal(size=shape), requires_grad=True)


# name, call, NumPy's formula, operands (broadcast)
SMOOTH = [
    ("lerp", disttorch.lerp, lambda a, b, w: a + w * (b - a), [real(2, 3), real(3), real(2, 1)]),
    ("lerp by a number", lambda a, b: disttorch.lerp(a, b, 0.75), lambda a, b: a + 0.75 * (b - a), [real(3), real(2, 3)]),
    ("addcmul", lambda a, b, c: disttorch.addcmul(a, b, c, value=0.5), lambda a, b, c: a + 0.5 * b * c, [real(2, 3), real(3), real(1, 3)]),
    (
        "addcdiv",
        lambda a, b, c: disttorch.addcdiv(a, b, c, value=-2),
        lambda a, b, c: a - 2 * b / c,
        [real(2, 3), real(3), real(2, 1, low=1)],
    ),
    ("logaddexp2", disttorch.logaddexp2, np.logaddexp2, [real(2, 3), real(3)]),
    ("ldexp", disttorch.ldexp, lambda a, b: a * 2**b, [real(2, 3), real(3)]),
    ("float_power", disttorch.float_power, lambda a, b: a**b, [real(2, 3, low=0.3), real(3)]),
    ("clamp", lambda a, b, c: disttorch.clamp(a, b, c), np.clip, [real(2, 3, low=-4, high=4), real(3, high=-1), real(2, 1, low=1)]),
    ("clamp from below", lambda a, b: disttorch.clamp(a, min=b), np.maximum, [real(2, 3), real(3)]),
    ("clamp from above", lambda a, b: disttorch.clamp_max(a, b), np.minimum, [real(2, 3), real(3)]),
    ("clamp by numbers", lambda a: disttorch.clip(a, -1, 1), lambda a: np.clip(a, -1, 1), [real(2, 3)]),
    ("nan_to_num", disttorch.nan_to_num, np.nan_to_num, [real(4)]),
    ("frexp", lambda a: disttorch.frexp(a).mantissa, lambda a: np.frexp(a)[0], [real(4, low=1.1, high=1.9)]),
    ("complex", disttorch.complex, lambda a, b: a + 1j * b, [real(2, 3), real(3)]),
    ("polar", disttorch.polar, lambda a, b: a * np.exp(1j * b), [real(2, 3, low=0.5), real(3)]),
    ("real", disttorch.real, np.real, [complex_(3)]),
    ("imag", disttorch.imag, np.imag, [complex_(3)]),
    ("angle", disttorch.angle, np.angle, [complex_(5)]),
    ("angle of real", disttorch.angle, np.angle, [real(5)]),
    ("sgn", disttorch.sgn, lambda a: a / abs(a), [complex_(5)]),
    ("conj_physical", disttorch.conj_physical, np.conj, [complex_(5)]),
    ("logaddexp of complex", disttorch.logaddexp, lambda a, b: np.log(np.exp(a) + np.exp(b)), [complex_(3), complex_(2, 3)]),
    ("abs of complex", disttorch.abs, np.abs, [complex_(5)]),
    ("div to floor", lambda a, b: disttorch.div(a, b, rounding_mode="floor"), np.floor_divide, [real(4), real(4)]),
]


@pytest.mark.parametrize(("name", "call", "formula", "operands"), SMOOTH, ids=[s[0] for s in SMOOTH])
def test_values_and_derivatives(name, call, formula, operands):
    arrays = [o.detach().numpy() for o in operands]
    result = call(*operands)
    np.testing.assert_allclose(result.detach().numpy(), formula(*arrays), rtol=1e-12, atol=1e-12)
    assert result.requires_grad and gradcheck(call, tuple(operands))
    if name not in ("real", "imag", "angle of real", "div to floor", "nan_to_num"):  # linear, or steps
        assert gradgradcheck(call, tuple(operands))


INTEGERS = [
    ("gcd", np.gcd), ("lcm", np.lcm), ("bitwise_and", np.bitwise_and),
    ("floor_divide", np.floor_divide), ("remainder", np.remainder), ("fmod", np.fmod),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
@pytest.mark.parametrize(("name", "formula"), INTEGERS, ids=[i[0] for i in INTEGERS])
def test_integers(name, formula, dtype):
    a, b = RNG.integers(1, 60, 20).astype(dtype), RNG.integers(1, 9, 20).astype(dtype)
    if dtype[0] == "i":
        a, b = a * RNG.choice([-1, 1], 20).astype(dtype), b * RNG.choice([-1, 1], 20).astype(dtype)
    found = getattr(disttorch, name)(disttorch.tensor(a), disttorch.tensor(b)).numpy()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, formula(a, b))


def test_division_of_integers_by_rounding():
    a, b = disttorch.tensor([7, -7, 7, -7]), disttorch.tensor([2, 2, -2, -2])
    assert disttorch.div(a, b, rounding_mode="trunc").tolist() == [3, -3, -3, 3]
    assert disttorch.div(a, b, rounding_mode="floor").tolist() == [3, -4, -4, 3]
    large = disttorch.tensor([2**53 + 1])
    assert disttorch.div(large, 1, rounding_mode="trunc").item() == 2**53 + 1  # not by way of floating point
    with pytest.raises(RuntimeError, match="ZeroDivision"):
        disttorch.div(a, 0, rounding_mode="trunc")
    assert disttorch.fmod(disttorch.tensor([-7.0]), 3).item() == -1.0 and (disttorch.tensor([-7.0]) % 3).item() == 2.0


def test_integer_powers():
    base, exponent = disttorch.tensor([2, 1, -1, -1, 0, 5]), disttorch.tensor([-1, -3, -3, -4, 2, 2])
    assert (base**exponent).tolist() == [0, 1, -1, 1, 0, 25]
    assert (2 ** disttorch.tensor([0, 3])).tolist() == [1, 8]


def test_special_operands():
    x = disttorch.tensor([-1.0, 0.0, 2.0, NAN])
    np.testing.assert_array_equal(disttorch.heaviside(x, disttorch.full((4,), 0.5)).tolist(), [0.0, 0.5, 1.0, 0.0])
    replaced = disttorch.nan_to_num(disttorch.tensor([NAN, INF, -INF, 1.0]), 0.5, 9.0)
    assert replaced.tolist() == [0.5, 9.0, disttorch.finfo(disttorch.float32).min, 1.0]
    assert disttorch.nextafter(disttorch.tensor(1.0), disttorch.tensor(2.0)).item() == 1 + 2.0**-23
    parts = disttorch.frexp(disttorch.tensor([6.0, -0.25, 0.0]))
    assert parts.mantissa.tolist() == [0.75, -0.5, 0.0] and parts.exponent.tolist() == [3, -1, 0]
    assert parts.exponent.dtype is disttorch.int32
    np.testing.assert_array_equal(disttorch.clamp(disttorch.tensor([1.0, NAN]), 2, 1).tolist(), [1.0, NAN])
    assert disttorch.isreal(disttorch.tensor([1 + 0j, 1j])).tolist() == [True, False]
    assert disttorch.isposinf(disttorch.tensor([INF, -INF, NAN])).tolist() == [True, False, False]
    assert disttorch.isneginf(disttorch.tensor([1, 2])).tolist() == [False, False]
    assert disttorch.square(disttorch.tensor([True])).dtype is disttorch.int64


def test_parts_of_complex_numbers_are_views():
    z = disttorch.tensor([1 + 2j, 3 + 4j])
    z.real.mul_(10)
    z.imag = disttorch.tensor([0.0, 1.0])
    assert z.tolist() == [10 + 0j, 30 + 1j]
    leaf = disttorch.tensor([1 + 2j, 3 + 4j], requires_grad=True)
    w = leaf * 1
    w.real.mul_(3)
    (w.real.sum() + w.imag.sum() * 5).backward()
    assert leaf.grad.tolist() == [3 + 5j, 3 + 5j]
    with pytest.raises(RuntimeError, match="non-complex"):
        disttorch.imag(disttorch.ones(1))


CLOSE = [
    ([1.0, 2.0], [1.0, 2.00001], {}, [True, True]),
    ([1.0, NAN], [1.1, NAN], {"equal_nan": True}, [False, True]),
    ([INF, -INF, INF], [INF, INF, 1.0], {}, [True, False, False]),
    ([100, 200], [101, 250], {"atol": 1, "rtol": 0}, [True, False]),
]


@pytest.mark.parametrize(("a", "b", "options", "expected"), CLOSE)
def test_isclose(a, b, options, expected):
    a, b = disttorch.tensor(a), disttorch.tensor(b)
    assert disttorch.isclose(a, b, **options).tolist() == expected
    assert disttorch.allclose(a, b, **options) is all(expected)


def test_equal_and_isin():
    assert disttorch.equal(disttorch.ones(2), disttorch.ones(2)) is True
    assert disttorch.equal(disttorch.ones(2), disttorch.ones(1, 2)) is False
    assert disttorch.equal(disttorch.ones(0), disttorch.ones(0)) is True
    x = disttorch.tensor([[1, 2], [3, 4]], dtype=disttorch.int8)
    assert disttorch.isin(x, disttorch.tensor([2, 3], dtype=disttorch.int8)).tolist() == [[False, True], [True, False]]
    assert disttorch.isin(2, x).item() is True and disttorch.isin(x, 4, invert=True).tolist() == [[True, True], [True, False]]


def test_out_is_resized_if_empty_and_with_a_warning_otherwise():
    out = disttorch.empty(0)
    assert disttorch.add(disttorch.ones(2), 1, out=out) is out and out.tolist() == [2.0, 2.0]
    with pytest.warns(UserWarning, match=r"shape \[2\].*\[3\]"):
        disttorch.add(disttorch.ones(3), 1, out=out)
    assert out.tolist() == [2.0, 2.0, 2.0]


IN_PLACE = [
    ("lerp_", (disttorch.ones(3), 0.5)),
    ("addcmul_", (disttorch.ones(3), disttorch.ones(3))),
    ("addcdiv_", (disttorch.ones(3), disttorch.ones(3))),
    ("clamp_", (0.5, 1.0)),
    ("clip_", (0.5,)),
    ("nan_to_num_", ()),
    ("ldexp_", (disttorch.ones(3),)),
    ("heaviside_", (disttorch.ones(3),)),
    ("xlogy_", (disttorch.ones(3),)),
    ("sgn_", ()),
    ("sinc_", ()),
    ("logit_", (0.1,)),
    ("lgamma_", ()),
    ("digamma_", ()),
    ("erfinv_", ()),
    ("i0_", ()),
    ("igamma_", (disttorch.ones(3),)),
    ("polygamma_", (1,)),
    ("cumsum_", (0,)),
    ("cumprod_", (0,)),
]


@pytest.mark.parametrize(("name", "arguments"), IN_PLACE, ids=[i[0] for i in IN_PLACE])
def test_in_place_twins(name, arguments):
    x = disttorch.tensor([0.25, 0.5, 0.75])
    expected = getattr(x, name[:-1])(*arguments)
    assert getattr(x, name)(*arguments) is x
    np.testing.assert_allclose(x.numpy(), expected.numpy(), rtol=1e-6)


ERRORS = [
    (lambda: disttorch.ones(2, dtype=disttorch.int64).add_(0.5), RuntimeError, "can't be cast"),
    (lambda: disttorch.ones(2, dtype=disttorch.int64).sqrt_(), RuntimeError, "can't be cast"),
    (lambda: disttorch.ones(2).mul_(1j), RuntimeError, "can't be cast"),
    (lambda: disttorch.maximum(disttorch.ones(2), 1), TypeError, "int"),
    (lambda: disttorch.eq(1, disttorch.ones(2)), TypeError, "int"),
    (lambda: disttorch.rsub(1, disttorch.ones(2)), TypeError, "int"),
    (lambda: disttorch.lerp(disttorch.ones(2), disttorch.ones(2).double(), 0.5), RuntimeError, "float64"),
    (lambda: disttorch.lerp(disttorch.ones(2), disttorch.ones(3), 0.5), RuntimeError, r"\(2\).*\(3\)"),
    (lambda: disttorch.addcdiv(*[disttorch.ones(2, dtype=disttorch.int64)] * 3), RuntimeError, "integer division"),
    (lambda: disttorch.heaviside(disttorch.ones(1), disttorch.ones(1).double()), RuntimeError, "float64"),
    (lambda: disttorch.clamp(disttorch.ones(2)), RuntimeError, "At least one"),
    (lambda: disttorch.clamp(disttorch.ones(2) * 1j, 0), RuntimeError, "complex"),
    (lambda: disttorch.complex(disttorch.ones(1), disttorch.ones(1).double()), RuntimeError, "float64"),
    (lambda: disttorch.complex(disttorch.ones(1).half(), disttorch.ones(1).half()), RuntimeError, "float16"),
    (lambda: disttorch.isclose(disttorch.ones(1), disttorch.ones(1), rtol=-1), RuntimeError, "-1"),
    (lambda: disttorch.isclose(disttorch.ones(1), disttorch.ones(1).int()), RuntimeError, "int32"),
    (lambda: disttorch.sign(disttorch.ones(1) * 1j), RuntimeError, "sgn"),
    (lambda: disttorch.frexp(disttorch.tensor([1])), RuntimeError, "int64"),
    (lambda: disttorch.div(disttorch.ones(1), 2, rounding_mode="up"), RuntimeError, "'up'"),
    (lambda: disttorch.Tensor.__radd__(2, disttorch.ones(1)), TypeError, "int"),
    (lambda: disttorch.ones(2, dtype=disttorch.bool) - disttorch.ones(2, dtype=disttorch.bool), RuntimeError, "bool"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
