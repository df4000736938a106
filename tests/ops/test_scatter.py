"""Values put, added, multiplied and reduced at places, and taken from there: against loops over NumPy arrays and finite differences."""

import itertools

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(5)
X = RNG.permutation(12).reshape(3, 4) * 0.37 - 2.05
SOURCE = RNG.permutation(20).reshape(5, 4) * 0.23 - 2.2
INDEX = np.array([[0, 2, 1, 1], [0, 0, 1, 2], [2, 2, 1, 0], [0, 1, 1, 2], [2, 2, 2, 2]])
ROWS = np.array([0, 2, 0, 0, 2])
MODES = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}


def reduced(x, source, index, mode, include_self, axis=0):
    """What stands at a place, and all that comes to it, in a list each."""
    lists = [[v] if include_self else [] for v in x.reshape(-1)]
    numbers = np.arange(x.size).reshape(x.shape)
    for place in itertools.product(*map(range, index.shape)):
        target = list(place)
        target[axis] = index[place]
        lists[numbers[tuple(target)]].append(source[place])
    return np.array([MODES[mode](v) if v else x.reshape(-1)[i] for i, v in enumerate(lists)]).reshape(x.shape)


@pytest.fixture
def xs():
    return disttorch.tensor(X, requires_grad=True), disttorch.tensor(SOURCE, requires_grad=True)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_scatter_reduce(mode, include_self, xs):
    index = disttorch.tensor(INDEX)
    function = lambda x, s: x.scatter_reduce(0, index, s, mode, include_self=include_self)  # noqa: E731
    np.testing.assert_allclose(function(*xs).detach().numpy(), reduced(X, SOURCE, INDEX, mode, include_self), rtol=1e-12)
    assert gradcheck(function, xs)
    assert gradgradcheck(function, xs)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("mode", ["prod", "mean", "amax", "amin"])
def test_index_reduce(mode, include_self, xs):
    index = disttorch.tensor(ROWS)
    function = lambda x, s: x.index_reduce(0, index, s, mode, include_self=include_self)  # noqa: E731
    wide = np.broadcast_to(ROWS[:, None], SOURCE.shape)
    np.testing.assert_allclose(function(*xs).detach().numpy(), reduced(X, SOURCE, wide, mode, include_self), rtol=1e-12)
    assert gradcheck(function, xs)
    assert gradgradcheck(function, xs)


@pytest.mark.parametrize("zeros", [(0,), (0, 1), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("zero_in_x", [False, True])
def test_the_gradient_of_a_product_with_zeros(zeros, zero_in_x):
    """Not a quotient: the product of all others."""
    x = disttorch.tensor([0.0 if zero_in_x else 1.3, 0.7], dtype=disttorch.float64, requires_grad=True)
    values = np.array([1.5, -0.8, 1.1, 2.3])
    values[list(zeros)] = 0
    s = disttorch.tensor(values, requires_grad=True)
    index = disttorch.tensor([0, 0, 0, 1])
    assert gradcheck(lambda x, s: x.scatter_reduce(0, index, s, "prod"), (x, s))


def at_rows(x, values, rows=ROWS, how="add"):
    x = x.copy()
    for i, r in enumerate(rows):
        x[r] = values[i] if how == "put" else x[r] + values[i]
    return x


ONCE = np.array([2, 0])
CASES = [
    (
        "scatter_add",
        lambda x, s: x.scatter_add(0, disttorch.tensor(INDEX), s),
        lambda x, s: reduced(x, s, INDEX, "sum", True),
    ),
    (
        "scatter_add along the last dimension, a part of the source",
        lambda x, s: x.scatter_add(1, disttorch.tensor([[0, 0], [3, 1]]), s),
        lambda x, s: reduced(x, s, np.array([[0, 0], [3, 1]]), "sum", True, 1),
    ),
    (
        "scatter",
        lambda x, s: x.scatter(1, disttorch.tensor([[3, 0], [1, 2]]), s),
        lambda x, s: np.array([[s[0, 1], *x[0, 1:3], s[0, 0]], [x[1, 0], s[1, 0], s[1, 1], x[1, 3]], x[2]]),
    ),
    (
        "scatter of a number",
        lambda x, s: x.scatter(0, disttorch.tensor([[1, 1, 0, 2]]), 7.5) * s[0, 0],
        lambda x, s: np.where(np.arange(3)[:, None] == np.array([1, 1, 0, 2]), 7.5, x) * s[0, 0],
    ),
    (
        "scatter, add",
        lambda x, s: x.scatter(0, disttorch.tensor(INDEX), s, reduce="add"),
        lambda x, s: reduced(x, s, INDEX, "sum", True),
    ),
    (
        "scatter, multiply",
        lambda x, s: x.scatter(0, disttorch.tensor(INDEX), s, reduce="multiply"),
        lambda x, s: reduced(x, s, INDEX, "prod", True),
    ),
    ("index_add", lambda x, s: x.index_add(0, disttorch.tensor(ROWS), s), at_rows),
    (
        "index_add with alpha",
        lambda x, s: x.index_add(0, disttorch.tensor(ROWS), s, alpha=-2),
        lambda x, s: at_rows(x, -2 * s),
    ),
    (
        "index_add of columns",
        lambda x, s: x.index_add(-1, disttorch.tensor([1, 1]), s[:3, :2]),
        lambda x, s: at_rows(x.T, s[:3, :2].T, [1, 1]).T,
    ),
    (
        "index_copy",
        lambda x, s: x.index_copy(0, disttorch.tensor(ONCE), s[:2]),
        lambda x, s: at_rows(x, s, ONCE, "put"),
    ),
    (
        "index_fill",
        lambda x, s: x.index_fill(1, disttorch.tensor([1, -1, 1]), s[0, 0]),
        lambda x, s: np.where(np.array([0, 1, 0, 1], bool), s[0, 0], x),
    ),
    (
        "index_put",
        lambda x, s: x.index_put((disttorch.tensor([0, 2]), disttorch.tensor([3, 1])), s[0, :2]),
        lambda x, s: np.array([[*x[0, :3], s[0, 0]], x[1], [x[2, 0], s[0, 1], *x[2, 2:]]]),
    ),
    (
        "index_put, accumulated and broadcast",
        lambda x, s: x.index_put((disttorch.tensor([0, 2, 0]),), s[0], accumulate=True),
        lambda x, s: at_rows(x, [s[0]] * 3, [0, 2, 0]),
    ),
    (
        "index_put of a mask",
        lambda x, s: x.index_put((disttorch.tensor([True, False, True]), None), s[:2]),
        lambda x, s: np.array([s[0], x[1], s[1]]),
    ),
    (
        "put",
        lambda x, s: x.put(disttorch.tensor([[0, 5], [-1, 2]]), s[0].reshape(2, 2)),
        lambda x, s: np.array([s[0, 0], x[0, 1], s[0, 3], x[0, 3], x[1, 0], s[0, 1], *x.reshape(-1)[6:11], s[0, 2]]).reshape(3, 4),
    ),
    (
        "put, accumulated",
        lambda x, s: x.put(disttorch.tensor([1, 1, 1]), s[0, :3], accumulate=True),
        lambda x, s: x + np.array([0, s[0, :3].sum(), *[0] * 10]).reshape(3, 4),
    ),
    (
        "gather",
        lambda x, s: s.gather(1, disttorch.tensor([[3, 0], [1, 1]])),
        lambda x, s: np.array([[s[0, 3], s[0, 0]], [s[1, 1]] * 2]),
    ),
    (
        "gather in front",
        lambda x, s: s.gather(0, disttorch.tensor(INDEX)),
        lambda x, s: np.take_along_axis(s, INDEX, 0),
    ),
    (
        "gather of a transpose",
        lambda x, s: s.T.gather(1, disttorch.tensor([[4], [0]])),
        lambda x, s: np.array([[s[4, 0]], [s[0, 1]]]),
    ),
    (
        "take_along_dim, broadcast and from the end",
        lambda x, s: x.take_along_dim(disttorch.tensor([[-1], [0], [2]]), 1),
        lambda x, s: np.take_along_axis(x, np.array([[-1], [0], [2]]), 1),
    ),
    (
        "take_along_dim, flat",
        lambda x, s: x.take_along_dim(disttorch.tensor([7, 0])),
        lambda x, s: x.reshape(-1)[[7, 0]],
    ),
    ("take", lambda x, s: x.take(disttorch.tensor([[0, -1], [5, 5]])), lambda x, s: x.reshape(-1)[[[0, -1], [5, 5]]]),
    ("index_select", lambda x, s: s.index_select(1, disttorch.tensor([3, 3, 0])), lambda x, s: s[:, [3, 3, 0]]),
    ("masked_select", lambda x, s: s.masked_select(disttorch.tensor(INDEX > 1)), lambda x, s: s[INDEX > 1]),
    (
        "masked_fill",
        lambda x, s: x.masked_fill(disttorch.tensor([True, False, False, True]), s[0, 0]),
        lambda x, s: np.where([1, 0, 0, 1], s[0, 0], x),
    ),
    (
        "masked_scatter",
        lambda x, s: x.masked_scatter(disttorch.tensor([[True], [False], [True]]), s),
        lambda x, s: np.array([s[0], x[1], s[1]]),
    ),
    ("where", lambda x, s: disttorch.where(disttorch.tensor(X > 0), x, s[:3]), lambda x, s: np.where(X > 0, x, s[:3])),
    (
        "where with a number",
        lambda x, s: disttorch.where(disttorch.tensor(X > 0), 2, x),
        lambda x, s: np.where(X > 0, 2, x),
    ),
    ("fill", lambda x, s: x.fill(s[0, 0]), lambda x, s: np.full_like(x, s[0, 0])),
]  # fmt: skip
IDS = [c[0] for c in CASES]


@pytest.mark.parametrize(("name", "function", "formula"), CASES, ids=IDS)
def test_values_and_derivatives(name, function, formula, xs):
    np.testing.assert_allclose(function(*xs).detach().numpy(), formula(X, SOURCE), rtol=1e-12)
    assert gradcheck(function, xs)
    assert gradgradcheck(lambda x, s: function(x, s) ** 2, xs)


TWINS = [
    ("scatter_add_", lambda x, s: x.scatter_add_(0, disttorch.tensor(INDEX), s)),
    ("scatter_", lambda x, s: x.scatter_(1, disttorch.tensor([[3, 0], [1, 2]]), s)),
    ("scatter_reduce_", lambda x, s: x.scatter_reduce_(0, disttorch.tensor(INDEX), s, "prod")),
    ("index_add_", lambda x, s: x.index_add_(0, disttorch.tensor(ROWS), s)),
    ("index_copy_", lambda x, s: x.index_copy_(0, disttorch.tensor(ONCE), s[:2])),
    ("index_fill_", lambda x, s: x.index_fill_(1, disttorch.tensor([1]), 2.0)),
    ("index_put_", lambda x, s: x.index_put_((disttorch.tensor([0, 0]),), s[:2], accumulate=True)),
    ("put_", lambda x, s: x.put_(disttorch.tensor([3]), s[0, :1])),
    ("masked_fill_", lambda x, s: x.masked_fill_(disttorch.tensor(X > 0), 1.0)),
    ("masked_scatter_", lambda x, s: x.masked_scatter_(disttorch.tensor(X > 0), s)),
]


@pytest.mark.parametrize(("name", "function"), TWINS, ids=[t[0] for t in TWINS])
def test_twins_in_place(name, function, xs):
    def changed(x, s):
        base = x * 1.0
        view = base.T
        assert function(base, s) is base
        return view * base.T

    plain = getattr(disttorch.Tensor, name[:-1])
    assert plain is not None and gradcheck(changed, xs)
    with pytest.raises(RuntimeError, match="leaf"):
        function(*xs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_added_in_float32(dtype):
    d = getattr(disttorch, dtype)
    x = disttorch.zeros(2, dtype=d).index_add(0, disttorch.zeros(3000, dtype=disttorch.int64), disttorch.ones(3000, dtype=d))
    assert x.tolist() == [disttorch.tensor(3000.0).to(d).item(), 0.0]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "complex64"])
def test_other_dtypes(dtype):
    d = getattr(disttorch, dtype)
    x = disttorch.tensor([0, 1, 0], dtype=d)
    added = x.scatter_add(0, disttorch.tensor([0, 0, 1]), disttorch.tensor([1, 1, 1], dtype=d))
    assert added.dtype is d and added.tolist() == ([True, True, False] if dtype == "bool" else [2, 2, 0])
    assert disttorch.tensor([7, 9], dtype=disttorch.int32).scatter_reduce(
        0, disttorch.tensor([0, 0]), disttorch.tensor([1, 1], dtype=disttorch.int32), "mean"
    ).tolist() == [3, 9]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, i: x.scatter_reduce(0, i, x, "median"), RuntimeError, "'median'"),
        (lambda x, i: x.scatter(0, i, x, reduce="max"), RuntimeError, "'max'"),
        (lambda x, i: x.scatter(0, i, "a"), TypeError, "str"),
        (lambda x, i: x.scatter_add(0, i, x.float()), RuntimeError, "float64 and disttorch.float32"),
        (lambda x, i: x.scatter_add(0, i + 3, x), RuntimeError, "index 5 is out of bounds for dimension 0 with size 3"),
        (lambda x, i: x.gather(0, i.float()), RuntimeError, "float32"),
        (lambda x, i: x.gather(0, i[0]), RuntimeError, r"\[4\] and \[3, 4\]"),
        (lambda x, i: x.index_add(0, i, x), IndexError, "vector"),
        (lambda x, i: x.index_add(0, i[0], x), RuntimeError, r"source of shape \[3, 4\]"),
        (lambda x, i: x.index_copy(0, i[0, :3], x[0]), IndexError, "does not fit"),
        (lambda x, i: x.index_fill(0, i[0], disttorch.ones(2)), RuntimeError, "0-dim"),
        (lambda x, i: x.index_select(0, disttorch.tensor([3])), IndexError, "3 out of range"),
        (lambda x, i: x.index_put((i, i, i), x), IndexError, "too many indices"),
        (lambda x, i: x.index_put((i[0],), x.float()), RuntimeError, "dtypes match"),
        (lambda x, i: x.put(i, x[0]), RuntimeError, "source.numel"),
        (lambda x, i: x.take(disttorch.tensor([12])), IndexError, "index 12 on a tensor of 12"),
        (lambda x, i: x.masked_fill(i, 0), RuntimeError, "boolean"),
        (lambda x, i: x.masked_scatter(x > -9, x[0]), RuntimeError, "12 true elements"),
        (lambda x, i: disttorch.where(i, x), TypeError, "both"),
        (lambda x, i: disttorch.where(x > 0, x, disttorch.ones(5)), RuntimeError, r"\[5\]"),
        (lambda x, i: x.nonzero_static(size=-1), RuntimeError, "-1"),
        (lambda x, i: disttorch.unravel_index(x, (3, 4)), ValueError, "integer"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.tensor(X), disttorch.tensor(INDEX[:3]))


def test_where_elements_are():
    x = disttorch.tensor([[0, 5], [7, 0]])
    assert x.nonzero().tolist() == x.argwhere().tolist() == [[0, 1], [1, 0]]
    assert [i.tolist() for i in disttorch.where(x > 0)] == [[0, 1], [1, 0]]
    assert x.nonzero_static(size=3, fill_value=-2).tolist() == [[0, 1], [1, 0], [-2, -2]] and x.nonzero_static(size=1).tolist() == [[0, 1]]
    assert [i.tolist() for i in disttorch.unravel_index(disttorch.tensor([0, 7, 11]), (3, 4))] == [[0, 1, 2], [0, 3, 3]]
    assert disttorch.tril_indices(3, 2, -1).tolist() == np.array(np.tril_indices(3, -1, 2)).tolist()
    assert disttorch.triu_indices(2, 3, 1).tolist() == np.array(np.triu_indices(2, 1, 3)).tolist()
