"""Indexing in every form, assignment, gather and scatter, masks, clamp."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

START = np.random.default_rng(3).permutation(60).reshape(3, 4, 5) * 0.21 - 6.05

# the index, as NumPy takes it; arrays become tensors for the libraries
INDICES = {
    "integer": 1,
    "negative integer": -1,
    "NumPy integer": np.int64(2),
    "integers": (2, 0, -1),
    "slice": slice(1, None),
    "whole slice": slice(None),
    "step": slice(None, None, 2),
    "negative bounds": slice(-2, -1),
    "beyond the end": slice(1, 100),
    "empty slice": slice(2, 1),
    "slice of numpy integers": slice(np.int64(0), np.int64(2)),
    "slices": (slice(0, 2), slice(1, 3), slice(None, None, 3)),
    "ellipsis": (..., 1),
    "ellipsis alone": ...,
    "ellipsis in the middle": (0, ..., slice(1, 3)),
    "None": None,
    "Nones": (None, 1, None, ..., None),
    "integer and slice": (slice(None), 2, slice(1, 4)),
    "empty tuple": (),
    "list": [2, 0],
    "list with repeats": [1, 1, 1, 0],
    "negative in a list": [-1, 0],
    "empty list": [],
    "tensor": np.array([0, 2, 0]),
    "tensor of two dimensions": np.array([[0, 1], [2, 2]]),
    "int32 tensor": np.array([0, 2], np.int32),
    "tensor without dimensions": np.array(1),
    "two tensors": (np.array([0, 1, 2]), np.array([3, 1, 3])),
    "broadcast tensors": (np.array([[0], [2]]), np.array([1, 3])),
    "tensor after a slice": (slice(None), np.array([3, 0, 3])),
    "tensor between slices": (slice(1, None), np.array([[1, 2]]), slice(None, 3)),
    "tensors apart": (np.array([0, 1]), slice(None), np.array([2, 4])),
    "tensor and integer": (np.array([0, 1]), 2),
    "tensor and None": (np.array([0, 1]), None, slice(0, 2)),
    "tensor and ellipsis": (..., np.array([1, 1, 4])),
    "mask": START > 0,
    "mask of the first dimension": np.array([True, False, True]),
    "mask of the first two": START[:, :, 0] > 0,
    "mask after a slice": (slice(None), np.array([True, False, False, True])),
    "mask and integer": (np.array([True, False, True]), 1),
    "mask of nothing": np.zeros((3, 4, 5), bool),
    "two masks": (np.array([True, False, True]), np.array([False, True, True, False])),
    "list of bool": [True, False, True],
}
BASIC = [*list(INDICES)[:19], "tensor without dimensions"]


def for_library(index, module):
    if isinstance(index, np.ndarray):
        return module.tensor(index)
    if isinstance(index, tuple):
        return tuple(for_library(i, module) for i in index)
    return index


@pytest.mark.parametrize("name", INDICES)
def test_values_and_memory(name):
    x, index = disttorch.tensor(START), INDICES[name]
    result = x[for_library(index, disttorch)]
    expected = START[index if index != [] else np.array([], int)] if isinstance(index, list) else START[index]
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)
    if result.numel():
        assert np.shares_memory(result.numpy(), x.numpy()) is (name in BASIC)
    if isinstance(index, np.ndarray):
        np.testing.assert_array_equal(x[index].numpy(), expected)  # NumPy's arrays are taken too


@pytest.mark.parametrize("name", INDICES)
def test_derivatives(name):
    x = disttorch.tensor(START, requires_grad=True)
    index = for_library(INDICES[name], disttorch)
    assert gradcheck(lambda x: x[index], x)
    if x[index].numel() and name in (
        "integers",
        "list with repeats",
        "broadcast tensors",
        "mask",
        "slices",
        "tensor and None",
    ):
        assert gradgradcheck(lambda x: x[index] ** 2, x)


@pytest.mark.parametrize("name", INDICES)
def test_assignment(name):
    index = INDICES[name]
    key = np.array([], int) if isinstance(index, list) and not index else index
    part = START[key]
    for value in (7.0, np.linspace(0, 1, part.size).reshape(part.shape)):
        if np.ndim(value) and ("repeats" in name or "tensor" in name):
            continue  # with places that occur twice the order of writing is free
        expected = START.copy()
        expected[key] = value
        x = disttorch.tensor(START)
        x[for_library(index, disttorch)] = disttorch.tensor(value) if np.ndim(value) else value
        np.testing.assert_array_equal(x.numpy(), expected)
    x = disttorch.tensor(START, requires_grad=True)
    v = disttorch.tensor(2.5, dtype=disttorch.float64, requires_grad=True)

    def assign(x, v):
        y = x * 1
        y[for_library(index, disttorch)] = v
        return y * y

    repeats = "repeats" in name or name in (
        "tensor",
        "tensor of two dimensions",
        "tensor after a slice",
        "tensor and ellipsis",
    )
    assert gradcheck(assign, (x, v.detach() if repeats else v))  # PyTorch, too, gives a repeated place's gradient twice


@pytest.mark.parametrize("name", INDICES)
def test_against_pytorch(name, torch, same):
    x, theirs = disttorch.tensor(START, requires_grad=True), torch.tensor(START, requires_grad=True)
    try:
        expected = theirs[for_library(INDICES[name], torch)]
    except (IndexError, TypeError):
        return  # NumPy integers in slices
    ours = x[for_library(INDICES[name], disttorch)]
    same(ours, expected)
    (ours**2).sum().backward()
    (expected**2).sum().backward()
    same(x.grad, theirs.grad)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (3, IndexError, r"\[3, 4, 5\]"),
        (-4, IndexError, r"\[3, 4, 5\]"),
        ((0, 0, 0, 0), IndexError, "too many"),
        ((slice(None),) * 4, IndexError, "too many"),
        ([0, 3], IndexError, "3"),
        (1.5, IndexError, "float"),
        ("a", TypeError, "'a'"),
        (slice(None, None, -1), ValueError, "greater than zero"),
        ((0, slice(None, None, 0)), ValueError, "greater than zero"),
        (disttorch.tensor([0.5]), IndexError, "float32"),
        (disttorch.tensor([True, False]), IndexError, r"\[3, 4, 5\]"),
        ((disttorch.tensor([0, 1]), disttorch.tensor([0, 1, 2])), IndexError, "broadcast"),
    ],
    ids=str,
)
def test_errors(index, error, message):
    x = disttorch.tensor(START)
    with pytest.raises(error, match=message):
        x[index]
    with pytest.raises(error, match=message):
        x[index] = 1.0


def test_errors_of_assignment():
    x = disttorch.zeros(3, 4)
    with pytest.raises(RuntimeError, match=r"\[3\].*\[3, 4\]"):
        x[:2] = disttorch.ones(3)
    with pytest.raises(RuntimeError, match="memory location"):
        disttorch.zeros(1).expand(3)[0] = 1.0
    x[0] = 2
    x[1, 1:3] = [5, 6]
    x[2] = np.array([1, 2, 3, 4])
    x[:, 0] = disttorch.tensor([7, 8, 9])
    assert x.tolist() == [[7, 2, 2, 2], [8, 5, 6, 0], [9, 2, 3, 4]]


def test_an_index_of_the_whole_is_another_tensor_on_the_same_memory():
    x = disttorch.arange(3)
    y = x[:]
    assert y is not x
    y[0] = 9
    assert x.tolist() == [9, 1, 2]
    assert x[1].shape == () and x[1].item() == 1
    x[1].add_(10)
    assert x.tolist() == [9, 11, 2]


def test_iteration_membership_and_truth():
    x = disttorch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows = list(x)
    assert len(rows) == 2 and rows[1].tolist() == [3.0, 4.0] and rows[0].requires_grad
    a, b = x
    (a * b).sum().backward()
    assert x.grad.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert 3.0 in x and 5.0 not in x
    assert bool(disttorch.tensor(1)) and not disttorch.tensor([0.0]) and disttorch.tensor([[2]])
    for wrong in (x, disttorch.zeros(0)):
        with pytest.raises(RuntimeError, match="ambiguous"):
            bool(wrong)
    with pytest.raises(TypeError, match="0-d"):
        iter(disttorch.tensor(1.0))
    with pytest.raises(TypeError, match="0-d"):
        len(disttorch.tensor(1.0))
    assert list(range(5))[disttorch.tensor(2)] == 2
    with pytest.raises(TypeError, match="float32"):
        list(range(5))[disttorch.tensor(2.0)]


def grid(*rows):
    return np.array(rows)


# functions of x (3, 4, 5) that take or put by index
BY_INDEX = [
    ("gather 0", lambda m, x: x.gather(0, m.tensor(np.array([[[2, 0, 1]], [[1, 1, 1]]])))),
    ("gather 1", lambda m, x: m.gather(x, 1, m.tensor(np.array([[[3], [0], [0]]])))),
    ("gather -1", lambda m, x: x.gather(-1, m.tensor(np.tile(np.arange(5)[::-1].copy(), (3, 4, 2))))),
    ("take_along_dim", lambda m, x: m.take_along_dim(x, m.tensor(np.array([[[1], [2], [0], [1]]] * 3)), dim=2)),
    ("take_along_dim flat", lambda m, x: m.take_along_dim(x, m.tensor(np.array([1, 5, 5])))),
    ("index_select", lambda m, x: x.index_select(1, m.tensor(np.array([3, 3, 0])))),
    ("index_select -1", lambda m, x: m.index_select(x, -1, m.tensor(np.array([0])))),
    ("scatter_add", lambda m, x: x.scatter_add(0, m.tensor(np.array([[[0, 1, 2]], [[2, 2, 2]]])), (x * x)[:2, :1, :3])),
    ("scatter_add of a larger source", lambda m, x: x.scatter_add(2, m.tensor(np.array([[[0, 0]]])), x.exp())),
    ("scatter", lambda m, x: x.scatter(1, m.tensor(np.array([[[0, 1, 2]], [[3, 2, 0]]])), (x * x)[:2, :1, :3])),
    ("scatter value", lambda m, x: x.scatter(2, m.tensor(np.array([[[0], [3]]])), 1.5)),
    ("scatter value by name", lambda m, x: m.scatter(x, 2, m.tensor(np.array([[[0], [3]]])), value=-1.0)),
    ("where", lambda m, x: m.where(x > 0, x * 2, x.exp())),
    ("where with numbers", lambda m, x: m.where(x > 0, x, -1.0) + m.where(x > 0, 0.5, x)),
    ("where broadcast", lambda m, x: m.where(x[:, :1] > 0, x[0], x[:, :, :1])),
    ("where method", lambda m, x: x.where(x > 0, x * 0.1)),
    ("masked_fill", lambda m, x: x.masked_fill(x > 0, 0.25)),
    ("masked_fill by a tensor", lambda m, x: x.masked_fill(x[0] > 0, x.sum())),
    ("masked_select", lambda m, x: x.masked_select(x > 0)),
    ("masked_select broadcast", lambda m, x: m.masked_select(x, x[0, 0] > 0)),
    ("clamp", lambda m, x: x.clamp(-1, 1.5)),
    ("clamp min", lambda m, x: x.clamp(min=-1.0)),
    ("clamp max", lambda m, x: m.clamp(x, max=2)),
    ("clamp_min, clamp_max", lambda m, x: x.clamp_min(-2.0).clamp_max(2.0)),
    ("clamp by tensors", lambda m, x: x.clamp(x[0] * 0.1, x[1].abs() + 1)),
    ("clip", lambda m, x: m.clip(x, -1, 1)),
    ("topk then gather", lambda m, x: x.gather(1, x.topk(2, dim=1)[1])),
]
NAMES = [n for n, _ in BY_INDEX]


@pytest.mark.parametrize(("name", "function"), BY_INDEX, ids=NAMES)
def test_functions_by_index(name, function, torch, same):
    if name == "scatter_add of a larger source":
        pytest.skip("whose gradient PyTorch refuses")
    x, theirs = disttorch.tensor(START, requires_grad=True), torch.tensor(START, requires_grad=True)
    ours, expected = function(disttorch, x), function(torch, theirs)
    same(ours, expected)
    weights = np.random.default_rng(1).standard_normal(tuple(ours.shape))
    (ours * disttorch.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    same(x.grad, theirs.grad)


@pytest.mark.parametrize(("name", "function"), BY_INDEX, ids=NAMES)
def test_derivatives_by_index(name, function):
    x = disttorch.tensor(START[:, :, :], requires_grad=True)
    assert gradcheck(lambda x: function(disttorch, x), x)
    assert gradgradcheck(lambda x: function(disttorch, x.sin()), disttorch.tensor(START * 0.25, requires_grad=True))


def loops_gather(a, dim, index):
    out = np.empty(index.shape)
    for at in np.ndindex(index.shape):
        source = list(at)
        source[dim] = index[at]
        out[at] = a[tuple(source)]
    return out


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_gather_and_scatter_by_their_formula(dim):
    index = np.random.default_rng(dim + 1).integers(0, 3, (2, 3, 4))
    x = disttorch.tensor(START)
    np.testing.assert_array_equal(x.gather(dim, disttorch.tensor(index)).numpy(), loops_gather(START, dim, index))
    added, source = START.copy(), np.random.default_rng(9).standard_normal((2, 3, 4))
    for at in np.ndindex(index.shape):
        target = list(at)
        target[dim] = index[at]
        added[tuple(target)] += source[at]
    np.testing.assert_allclose(x.scatter_add(dim, disttorch.tensor(index), disttorch.tensor(source)).numpy(), added)


def test_nonzero():
    x = disttorch.tensor([[0, 3], [4, 0]])
    assert x.nonzero().tolist() == [[0, 1], [1, 0]]
    assert [i.tolist() for i in disttorch.nonzero(x, as_tuple=True)] == [[0, 1], [1, 0]]
    assert [i.tolist() for i in disttorch.where(x > 3)] == [[1], [0]]
    assert disttorch.tensor(3).nonzero().shape == (1, 0) and disttorch.tensor(0).nonzero().shape == (0, 0)
    assert x.nonzero().dtype is disttorch.int64


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "uint8", "bfloat16"])
def test_dtypes_of_functions_by_index(dtype):
    d = getattr(disttorch, dtype)
    x = disttorch.tensor([0, 1, 1, 0], dtype=d)
    index = disttorch.tensor([1, 3])
    for result in (
        x.gather(0, index),
        x.scatter(0, index, 1),
        x.masked_fill(x == 1, 0),
        x[index],
        x.index_select(0, index),
        disttorch.where(x == 1, x, x),
        x.masked_select(x == 1),
    ):
        assert result.dtype is d
    if dtype != "bool":
        assert x.scatter_add(0, index, x).dtype is d
        assert x.scatter_add(0, index, x).tolist() == [0, 1, 1, 1]
    assert x.scatter(0, index, 1).tolist() == [0, 1, 1, 1]


def test_scatter_of_large_integers_is_exact():
    big = 2**62 + 1
    x = disttorch.zeros(2, dtype=disttorch.int64)
    assert x.scatter(0, disttorch.tensor([1]), big).tolist() == [0, big]
    assert disttorch.full((1,), big).tolist() == [big] and x.fill_(big).tolist() == [big, big]


def test_clamp_dtypes():
    assert disttorch.tensor([1, 5]).clamp(0, 3).tolist() == [1, 3]
    assert disttorch.tensor([1, 5]).clamp(max=2.5).dtype is disttorch.float32
    assert disttorch.tensor([1.0, float("nan")]).clamp(0, 0.5).tolist()[0] == 0.5
    assert np.isnan(disttorch.tensor([float("nan")]).clamp(0, 0.5).item())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: x.gather(0, disttorch.tensor([[[3]]])),
            (RuntimeError, IndexError),
            "index 3 is out of bounds for dimension 0 with size 3",
        ),
        (lambda x: x.gather(0, disttorch.tensor([[[-1]]])), (RuntimeError, IndexError), "index -1"),
        (lambda x: x.gather(0, disttorch.tensor([0])), RuntimeError, "as many dimensions"),
        (lambda x: x.gather(0, disttorch.tensor([[[0.5]]])), RuntimeError, "int64.*float32"),
        (
            lambda x: x.gather(0, disttorch.zeros(1, 5, 1, dtype=disttorch.int64)),
            RuntimeError,
            r"\[1, 5, 1\].*\[3, 4, 5\]",
        ),
        (lambda x: x.gather(3, disttorch.tensor([[[0]]])), IndexError, "got 3"),
        (
            lambda x: x.scatter_add(0, disttorch.tensor([[[0, 0]]]), x[:1, :1, :1]),
            RuntimeError,
            r"\[1, 1, 2\].*\[1, 1, 1\]",
        ),
        (lambda x: x.scatter_add(0, disttorch.tensor([[[0]]]), x.float()), RuntimeError, "dtype"),
        (lambda x: x.index_select(0, disttorch.tensor([[0]])), IndexError, "vector"),
        (lambda x: disttorch.where(x, x, x), RuntimeError, "boolean.*float64"),
        (lambda x: x.masked_fill(x, 0.0), RuntimeError, "boolean.*float64"),
        (lambda x: x.masked_fill(x > 0, x), RuntimeError, r"0-dimension|\[3, 4, 5\]"),
        (lambda x: disttorch.where(x > 0, x[:, :3], x), RuntimeError, r"\[3, 3, 5\]"),
        (lambda x: x.clamp(), RuntimeError, "At least one"),
        (lambda x: x.masked_select(x[:, :, :2] > 0), RuntimeError, "broadcast"),
    ],
)
def test_errors_by_index(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.tensor(START))
