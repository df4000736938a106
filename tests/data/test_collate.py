"""What a batch is, by what a sample is: compared with NumPy, and with PyTorch where it is installed."""

from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import default_collate, default_convert

Point = namedtuple("Point", "x y")

NUMBERS = [
    # samples, dtype of the batch
    ([1, 2, 3], "int64"),
    ([1.5, 2.5], "float64"),
    ([True, False], "bool"),
    ([np.float32(1), np.float32(2)], "float32"),
    ([np.int16(1), np.int16(2)], "int16"),
    ([np.bool_(True), np.bool_(False)], "bool"),
    ([np.arange(6.0).reshape(2, 3)] * 2, "float64"),
    ([np.zeros((2, 0), np.uint8)] * 3, "uint8"),
    ([np.array(5), np.array(6)], "int64"),
    ([np.arange(6, dtype=np.int32).reshape(2, 3).T] * 2, "int32"),
]


def test_where_scripts_take_it_from():
    from disttorch.utils.data._utils.collate import default_collate as found

    assert found is torch.utils.data._utils.collate.default_collate is default_collate


@pytest.mark.parametrize(("samples", "dtype"), NUMBERS)
def test_numbers_and_arrays(samples, dtype):
    batch = default_collate(samples)
    assert batch.dtype is getattr(torch, dtype)
    np.testing.assert_array_equal(batch.numpy(), np.stack([np.asarray(s) for s in samples]))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "uint16", "complex128"])
def test_tensors(shape, dtype):
    samples = [torch.full(shape, i).to(dtype=getattr(torch, dtype)) for i in range(3)]
    batch = default_collate(samples)
    assert (batch.shape, batch.dtype) == ((3, *shape), getattr(torch, dtype))
    np.testing.assert_array_equal(
        batch.numpy().astype(complex), np.stack([s.numpy() for s in samples]).astype(complex)
    )


def test_the_batch_has_its_own_memory():
    sample = torch.zeros(2)
    batch = default_collate([sample])
    batch.fill_(7)
    assert sample.tolist() == [0, 0]


def test_gradients_go_through():
    x = torch.ones(2, requires_grad=True)
    default_collate([x, 2 * x]).sum().backward()
    assert x.grad.tolist() == [3, 3]


def as_plain(value):
    """Batches of both libraries as types, numbers and texts."""
    if hasattr(value, "tolist"):
        return str(value.dtype).split(".")[-1], value.tolist()
    if hasattr(value, "items"):
        return type(value).__name__, [(k, as_plain(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [as_plain(v) for v in value]
    return value


NESTED = [
    ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], {"a": [1, 2], "b": ["x", "y"]}),
    ([(1, "x"), (2, "y")], [[1, 2], ("x", "y")]),
    ([[1, [2.5]], [3, [4.5]]], [[1, 3], [[2.5, 4.5]]]),
    ([Point(1, 2), Point(3, 4)], Point([1, 3], [2, 4])),
    ([b"x", b"y"], [b"x", b"y"]),
    ([{"p": (Point(1, "s"),)}], {"p": [Point([1], ("s",))]}),
    ([{}, {}], {}),
    ([(), ()], []),
]


def numbers(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return Point(*map(numbers, value)) if isinstance(value, Point) else tuple(map(numbers, value))
    return [numbers(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("samples", "expected"), NESTED)
def test_nested(samples, expected):
    batch = default_collate(samples)
    assert numbers(batch) == expected
    assert type(batch) is type(expected)


@pytest.mark.parametrize("samples", [s for s, _ in NUMBERS] + [s for s, _ in NESTED])
def test_as_pytorch(samples):
    theirs = pytest.importorskip("torch.utils.data")
    assert as_plain(default_collate(samples)) == as_plain(theirs.default_collate(samples))


@pytest.mark.parametrize("kind", [OrderedDict, lambda items: defaultdict(list, items)])
def test_mappings_keep_their_type(kind):
    sample = kind({"a": 1})
    batch = default_collate([sample, sample])
    assert type(batch) is type(sample)
    assert batch["a"].tolist() == [1, 1]
    assert sample["a"] == 1
    assert getattr(batch, "default_factory", None) is getattr(sample, "default_factory", None)


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([[1, 2], [1]], RuntimeError, "sample 0 has length 2 and sample 1 length 1"),
        ([torch.ones(2), torch.ones(3)], RuntimeError, r"got \[2\] at entry 0 and \[3\] at entry 1"),
        ([torch.ones(2), np.ones(2)], TypeError, "expected Tensor as element 1 in argument 0 of stack.., but got ndarray"),
        ([None, None], TypeError, "found NoneType"),
        ([np.array(["a"]), np.array(["b"])], TypeError, "found an array of <U1"),
        ([object()], TypeError, "found object"),
    ],
)
def test_what_is_refused(samples, error, message):
    with pytest.raises(error, match=message):
        default_collate(samples)


def test_convert():
    sample = {"x": np.ones(2, np.float32), "n": 3, "s": "text", "t": (np.float64(2), Point(np.arange(2), None))}
    converted = default_convert(sample)
    assert converted["x"].dtype is torch.float32
    assert (converted["n"], converted["s"]) == (3, "text")
    assert converted["t"][0].item() == 2.0
    assert isinstance(converted["t"], list)
    assert converted["t"][1].x.tolist() == [0, 1]
    assert converted["t"][1].y is None
    words = np.array(["a"])
    assert default_convert(words) is words
