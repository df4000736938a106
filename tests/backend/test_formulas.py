"""Programs of traced formulas, against the same formulas on NumPy's arrays: to the last bit, as they are the same operations."""

import threading

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend.cpu_kernels import special
from disttorch.backend.cpu_kernels.formulas import BLOCK, program
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace

ARRAYS = Namespace("cpu", np)
SPECIAL = np.array([-2.5, -1.0, -0.0, 0.0, 0.3, 1.0, 2.0, 40.0, np.inf, -np.inf, np.nan])
DTYPES = [np.float32, np.float64]

FORMULAS = {
    "operators": lambda xp, a, b: -a / (b - 1.5) + a * b - 2 / b,
    "one array twice": lambda xp, a, b: a * a + (a + a) * b,
    "an array as it is": lambda xp, a, b: b,
    "a number": lambda xp, a, b: xp.ones_like(a) * 0.1,
    "an intermediate result used late": lambda xp, a, b: ((a + b) * (a - b) + xp.sqrt(xp.abs(a + b))) * (a + b),
    "selections": lambda xp, a, b: xp.where((a < b) | ~(a == a), a, xp.where(b > 0, 1.0, b)) - xp.where(a >= 1, 1.0, 0.0),
    "largest and smallest": lambda xp, a, b: xp.maximum(a, 0.25) - xp.minimum(0.5, xp.maximum(b, a)) + xp.clip(b, 0.25, 1.0),
    "masks": lambda xp, a, b: xp.asarray(a > 0, dtype=a.dtype) * b + xp.asarray((a > 0) & (b > 0), dtype=a.dtype),
    "functions": lambda xp, a, b: xp.copysign(xp.tanh(a), b) + xp.log1p(xp.exp(-xp.abs(b))) + xp.arctan2(a, b) + xp.floor(a),
    "infinity": lambda xp, a, b: xp.minimum(a, np.inf) + xp.where(a > 0, -np.inf, b),
    "what elements share": lambda xp, a, b: a * (xp.sqrt(xp.asarray(2.0, dtype=a.dtype)) / 3.0) + b,
    "kernels": lambda xp, a, b: xp.sigmoid(a) * xp.silu(b),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("size", [121, BLOCK, 2 * BLOCK + 9])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_programs_are_their_formulas(name, dtype, size):
    a, b = (np.resize(x.ravel(), size).astype(dtype) for x in np.meshgrid(SPECIAL, SPECIAL))
    made = program(FORMULAS[name], (np.dtype(dtype),) * 3, ())
    out = np.full(size, 7, dtype)
    before = a.copy(), b.copy()
    made.run(out, [a, b])
    np.testing.assert_array_equal(out, FORMULAS[name](ARRAYS, a, b))
    np.testing.assert_array_equal((a, b), before)
    made.run(out, [a, b[3]])  # an array that is one number
    np.testing.assert_array_equal(out, FORMULAS[name](ARRAYS, a, np.broadcast_to(b[3], a.shape)))


def test_half_types_are_rounded_once():
    x = np.linspace(-4, 4, 1001).astype(ml_dtypes.bfloat16)
    made = program(FORMULAS["operators"], (x.dtype,) * 3, ())
    out = np.empty_like(x)
    made.run(out, [x, x[::-1]])
    wide = x.astype(np.float32)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(out, FORMULAS["operators"](ARRAYS, wide, wide[::-1]).astype(x.dtype))


def test_a_long_formula_needs_few_buffers():
    def polynomial(xp, x):
        total = x
        for k in range(50):
            total = total * x + 1 / (k + 1)
        return total * x

    made = program(polynomial, (np.dtype(np.float32),) * 2, ())
    assert len(made.steps) == 101
    assert len(made.buffers) == 1


def wide_on_the_way(xp, x):
    return xp.asarray(xp.asarray(x, dtype="float64") * 3.0, dtype=x.dtype)


def by_value(xp, x):
    return x if x > 0 else -x


@pytest.mark.parametrize("formula", [wide_on_the_way, by_value, lambda xp, x: x / xp.sum(x)])
def test_what_has_no_program(formula):
    assert program(formula, (np.dtype(np.float32),) * 2, ()) is None


def test_threads_share_programs():
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(3 * BLOCK).astype(np.float32) for _ in range(4)]
    expected = [PLAIN["gelu"](ARRAYS, x, "none") for x in inputs]
    wrong = []

    def work(x, y):
        for _ in range(20):
            if not np.array_equal(special.gelu(x, "none"), y):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", special.__all__)
@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.bfloat16], ids=lambda d: d.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_blocks_of_special_functions(name, dtype):
    x = np.linspace(-6, 6, 70 * 1001).reshape(70, 1001).astype(dtype)
    x.reshape(-1)[: SPECIAL.size] = SPECIAL.astype(dtype)
    others = {"gelu": (x, "none"), "gelu_backward": (x.copy(), x, "tanh"), "polygamma": (x, 2), "softplus": (x, 1.5, 4.0)}
    arguments = others.get(name, (x,))
    found = getattr(special, name)(*arguments)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found.astype(float), PLAIN[name](ARRAYS, *arguments).astype(float))
