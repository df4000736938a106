"""Making tensors from data, filled, in sequences and at random."""

import math
import pickle

import numpy as np
import pytest

import disttorch

DATA = [
    (1, "int64", ()),
    (1.5, "float32", ()),
    (True, "bool", ()),
    (1j, "complex64", ()),
    ([], "float32", (0,)),
    ([[], []], "float32", (2, 0)),
    ([1, 2], "int64", (2,)),
    ([1, 2.5], "float32", (2,)),
    ([True, False], "bool", (2,)),
    ([True, 2], "int64", (2,)),
    ([1, 1j], "complex64", (2,)),
    (((1, 2), (3, 4)), "int64", (2, 2)),
    (range(4), "int64", (4,)),
    (2**40, "int64", ()),
    (np.float64(1.5), "float64", ()),
    (np.int32(3), "int32", ()),
    (np.array([1.0, 2.0]), "float64", (2,)),
    (np.array([1, 2], np.int16), "int16", (2,)),
    ([np.float64(1.0), np.float64(2.0)], "float64", (2,)),
    ([np.array([1, 2]), np.array([3, 4])], "int64", (2, 2)),
    (np.array([1.0, 2.0], ">f4"), "float32", (2,)),
    (np.array([[1, 2]], ">i2")[:, ::-1], "int16", (1, 2)),
    (np.ones((2, 3), order="F"), "float64", (2, 3)),
    (np.bool_(True), "bool", ()),
]


@pytest.mark.parametrize(("data", "dtype", "shape"), DATA, ids=lambda v: repr(v)[:40])
def test_tensor_of_data(data, dtype, shape):
    x = disttorch.tensor(data)
    assert x.dtype.name == dtype and x.shape == shape
    np.testing.assert_array_equal(x.numpy(), np.array(data, dtype=dtype))
    assert x.numpy().dtype.isnative
    y = disttorch.as_tensor(data)
    assert y.dtype.name == dtype and y.tolist() == x.tolist()
    if dtype != "complex64":
        assert disttorch.tensor(data, dtype=disttorch.float64).tolist() == np.array(data, "float64").tolist()


@pytest.mark.parametrize(("data", "dtype", "shape"), DATA, ids=lambda v: repr(v)[:40])
def test_tensor_of_data_against_pytorch(data, dtype, shape, torch, same):
    if isinstance(data, np.ndarray) and not data.dtype.isnative:
        pytest.skip("PyTorch refuses the other byte order")
    if isinstance(data, np.ndarray) and any(s < 0 for s in data.strides):
        pytest.skip("PyTorch refuses negative strides")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(disttorch.tensor(data), torch.tensor(data))


def test_tensor_copies_and_as_tensor_does_not():
    a = np.ones(3, np.float32)
    copied, shared, viewed = disttorch.tensor(a), disttorch.as_tensor(a), disttorch.from_numpy(a)
    a[0] = 5
    assert copied[0].item() == 1 and shared[0].item() == 5 and viewed[0].item() == 5
    shared[1] = 7
    assert a[1] == 7
    t = disttorch.ones(2, requires_grad=True)
    assert disttorch.as_tensor(t) is t and disttorch.tensor(t).requires_grad is False
    assert disttorch.tensor([t.detach(), t.detach() * 2]).tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert disttorch.tensor([disttorch.tensor(1), 2]).tolist() == [1, 2]


def test_read_only_arrays_can_be_read_and_not_written():
    a = np.arange(3.0)
    a.flags.writeable = False
    x = disttorch.from_numpy(a)
    assert (x * 2).tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(RuntimeError, match="read-only"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="read-only"):
        x[0] = 1
    y = disttorch.tensor(a)
    y.add_(1)
    assert a.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: disttorch.tensor("text"), (TypeError, ValueError), "text|str|<U"),
        (lambda: disttorch.tensor([[1, 2], [3]]), ValueError, "rectangular"),
        (lambda: disttorch.tensor(None), RuntimeError, "NoneType"),
        (lambda: disttorch.tensor(["a"]), (TypeError, ValueError), "U1"),
        (lambda: disttorch.from_numpy([1]), TypeError, "list"),
        (lambda: disttorch.from_numpy(np.array(["a"])), TypeError, "U1"),
        (lambda: disttorch.from_numpy(np.ones(2, ">f4")), ValueError, "byte order"),
        (lambda: disttorch.zeros(-1), RuntimeError, "negative dimension"),
        (lambda: disttorch.zeros(2, dtype="float31"), TypeError, "float31"),
        (lambda: disttorch.zeros(2, device="tpu"), RuntimeError, "tpu"),
        (lambda: disttorch.zeros(2, device="cpu:1"), RuntimeError, "cpu:1"),
        (lambda: disttorch.zeros(1.5), TypeError, "1.5"),
        (lambda: disttorch.zeros(2, size=3, colour=1), TypeError, "colour"),
        (lambda: disttorch.arange(0, 3, 0), RuntimeError, "nonzero"),
        (lambda: disttorch.arange(3, 0), RuntimeError, "inconsistent"),
        (lambda: disttorch.linspace(0, 1, -1), RuntimeError, "-1"),
        (lambda: disttorch.randint(3, 3, (2,)), RuntimeError, "from=3 >= to=3"),
        (lambda: disttorch.randint(3, 2), TypeError, "size"),
        (lambda: disttorch.rand(2, dtype=disttorch.int64), RuntimeError, "int64"),
        (lambda: disttorch.normal(0, 1), TypeError, "size"),
        (lambda: disttorch.multinomial(disttorch.tensor([-1.0, 1.0]), 1), RuntimeError, "< 0"),
        (lambda: disttorch.multinomial(disttorch.tensor([0.0, 0.0]), 1), RuntimeError, "sums to 0"),
        (lambda: disttorch.multinomial(disttorch.tensor([0.0, 1.0]), 3), RuntimeError, "3 > 2"),
        (lambda: disttorch.multinomial(disttorch.ones(2, 2, 2), 1), RuntimeError, r"\[2, 2, 2\]"),
        (lambda: disttorch.manual_seed(2**65), RuntimeError, "64 bits"),
        (lambda: disttorch.empty(3).uniform_(2, 1), RuntimeError, "from=2 > to=1"),
        (lambda: disttorch.empty(3).normal_(0, -1), RuntimeError, "-1"),
        (lambda: disttorch.set_rng_state(disttorch.zeros(3, dtype=disttorch.uint8)), RuntimeError, "get_state"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


FILLED = [
    ("zeros", lambda m: m.zeros(2, 3)),
    ("zeros tuple", lambda m: m.zeros((2, 3))),
    ("zeros list", lambda m: m.zeros([2])),
    ("zeros empty", lambda m: m.zeros(())),
    ("zeros none", lambda m: m.zeros(0)),
    ("size", lambda m: m.ones(size=(2,))),
    ("ones int", lambda m: m.ones(2, dtype=m.int32)),
    ("full", lambda m: m.full((2, 2), 3)),
    ("full float", lambda m: m.full((2,), 1.5)),
    ("full bool", lambda m: m.full((2,), True)),
    ("full half", lambda m: m.full((2,), 3, dtype=m.float16)),
    ("eye", lambda m: m.eye(3)),
    ("eye rectangular", lambda m: m.eye(2, 3, dtype=m.int64)),
    ("arange", lambda m: m.arange(5)),
    ("arange float", lambda m: m.arange(0.5, 2.6, 0.5)),
    ("arange down", lambda m: m.arange(5, 0, -2)),
    ("arange empty", lambda m: m.arange(0)),
    ("arange dtype", lambda m: m.arange(3, dtype=m.float64)),
    ("arange half", lambda m: m.arange(0, 1, 0.25, dtype=m.float16)),
    ("linspace", lambda m: m.linspace(-1, 1, 5)),
    ("linspace one", lambda m: m.linspace(2, 3, 1)),
    ("linspace int", lambda m: m.linspace(0, 9, 4, dtype=m.int64)),
    ("zeros_like", lambda m: m.zeros_like(m.ones(2, dtype=m.float64))),
    ("ones_like dtype", lambda m: m.ones_like(m.ones(2), dtype=m.int8)),
    ("full_like", lambda m: m.full_like(m.ones(2, 2), 7)),
    ("full_like int", lambda m: m.full_like(m.tensor([1, 2]), 7)),
    ("new_zeros", lambda m: m.ones(2, dtype=m.float16).new_zeros(3)),
    ("new_ones", lambda m: m.tensor([1]).new_ones((2, 2))),
    ("new_full", lambda m: m.ones(1).new_full((2,), 5)),
    ("new_tensor", lambda m: m.ones(1, dtype=m.float64).new_tensor([1, 2])),
    ("scalar_tensor", lambda m: m.scalar_tensor(3)),
    ("out", lambda m: m.zeros(2, out=m.ones(2))),
    ("bool arange", lambda m: m.arange(2).bool()),
]


@pytest.mark.parametrize(("name", "make"), FILLED, ids=[n for n, _ in FILLED])
def test_filled_tensors_against_pytorch(name, make, torch, same):
    same(make(disttorch), make(torch), what=name)


def test_filled_tensors():
    assert disttorch.zeros(2, 3).tolist() == [[0.0] * 3] * 2 and disttorch.ones(2, dtype=disttorch.int8).tolist() == [
        1,
        1,
    ]
    assert (
        disttorch.empty(2, 5).shape == (2, 5)
        and disttorch.empty_like(disttorch.zeros(3, dtype=disttorch.int32)).dtype is disttorch.int32
    )
    assert disttorch.full((2,), 3).dtype is disttorch.int64 and disttorch.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert disttorch.arange(1, 10, 3).tolist() == [1, 4, 7] and disttorch.arange(0, 0.9, 0.3).shape == (3,)
    assert disttorch.zeros(2, requires_grad=True).requires_grad
    big = disttorch.arange(2**60, 2**60 + 3)
    assert big.tolist() == [2**60, 2**60 + 1, 2**60 + 2]


DRAWS = {
    "rand": lambda g: disttorch.rand(100, generator=g),
    "randn": lambda g: disttorch.randn(100, generator=g),
    "randint": lambda g: disttorch.randint(0, 1000, (100,), generator=g),
    "randperm": lambda g: disttorch.randperm(100, generator=g),
    "normal": lambda g: disttorch.normal(disttorch.zeros(100), disttorch.ones(100), generator=g),
    "bernoulli": lambda g: disttorch.bernoulli(disttorch.full((100,), 0.5), generator=g),
    "multinomial": lambda g: disttorch.multinomial(disttorch.ones(50), 100, replacement=True, generator=g),
    "uniform_": lambda g: disttorch.empty(100).uniform_(generator=g),
    "normal_": lambda g: disttorch.empty(100).normal_(generator=g),
    "random_": lambda g: disttorch.empty(100, dtype=disttorch.int64).random_(generator=g),
    "half": lambda g: disttorch.rand(100, dtype=disttorch.float16, generator=g),
    "double": lambda g: disttorch.randn(100, dtype=disttorch.float64, generator=g),
    "complex": lambda g: disttorch.randn(100, dtype=disttorch.complex64, generator=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_seed_gives_the_same_numbers(name):
    draw = DRAWS[name]
    first = draw(disttorch.Generator().manual_seed(3))
    again = draw(disttorch.Generator().manual_seed(3))
    other = draw(disttorch.Generator().manual_seed(4))
    assert first.tolist() == again.tolist() and first.tolist() != other.tolist()
    disttorch.manual_seed(3)
    by_default = draw(None)
    assert by_default.tolist() == first.tolist()
    assert draw(None).tolist() != first.tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_the_state_of_a_stream(name):
    draw = DRAWS[name]
    g = disttorch.Generator().manual_seed(5)
    disttorch.rand(3, generator=g)
    disttorch.randint(0, 10, (3,), dtype=disttorch.int32, generator=g)
    state = g.get_state()
    assert state.dtype is disttorch.uint8
    first = draw(g)
    assert draw(g.set_state(state)).tolist() == first.tolist()
    fresh = disttorch.Generator().set_state(disttorch.from_numpy(pickle.loads(pickle.dumps(state.numpy()))))
    assert draw(fresh).tolist() == first.tolist() and fresh.initial_seed() == 5
    state = disttorch.get_rng_state()
    first = draw(None)
    disttorch.set_rng_state(state)
    assert draw(None).tolist() == first.tolist()


def test_seeds():
    g = disttorch.manual_seed(-1)
    assert g.initial_seed() == 2**64 - 1 == disttorch.initial_seed()
    a = disttorch.seed()
    assert disttorch.initial_seed() == a and disttorch.Generator().seed() != disttorch.Generator().seed()
    assert disttorch.Generator().initial_seed() == 67280421310721


N = 100_000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_moments_and_ranges(dtype):
    d = getattr(disttorch, dtype)
    disttorch.manual_seed(0)
    u, n = disttorch.rand(N, dtype=d).double().numpy(), disttorch.randn(N, dtype=d).double().numpy()
    # five standard errors
    assert (
        0 <= u.min()
        and u.max() < 1
        and abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / N) + 2e-3
        and abs(u.var() - 1 / 12) < 3e-3
    )
    assert (
        abs(n.mean()) < 5 / math.sqrt(N) and abs(n.var() - 1) < 5 * math.sqrt(2 / N) and abs((n**4).mean() - 3) < 0.15
    )
    v = disttorch.empty(N, dtype=d).uniform_(-3, 2).double().numpy()
    assert v.min() >= -3 and v.max() <= 2 and abs(v.mean() + 0.5) < 0.03
    w = disttorch.empty(N, dtype=d).normal_(2, 0.5).double().numpy()
    assert abs(w.mean() - 2) < 0.02 and abs(w.std() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float32", "bool"])
def test_integers_cover_their_range(dtype):
    high = 2 if dtype == "bool" else 7
    x = disttorch.randint(0, high, (10_000,), dtype=getattr(disttorch, dtype))
    assert x.dtype.name == dtype
    assert np.unique(x.numpy()).astype(int).tolist() == list(range(high))
    if dtype not in ("bool", "uint8"):
        assert np.unique(disttorch.randint(-3, 1, (1000,), dtype=x.dtype).numpy()).tolist() == [-3, -2, -1, 0]
    y = disttorch.randint_like(x, 2)
    assert y.shape == x.shape and y.dtype is x.dtype and np.unique(y.numpy()).astype(int).tolist() == [0, 1]


def test_random_in_place_with_bounds():
    disttorch.manual_seed(0)
    x = disttorch.empty(1000, dtype=disttorch.int64)
    assert np.unique(x.random_(5).numpy()).tolist() == [0, 1, 2, 3, 4]
    assert np.unique(x.random_(3, 5).numpy()).tolist() == [3, 4]
    assert x.random_().max().item() > 2**60
    assert (disttorch.empty(100, dtype=disttorch.float16).random_() <= 2**11).all()
    p = disttorch.empty(10_000).bernoulli_(0.25)
    assert abs(p.mean().item() - 0.25) < 0.03 and set(p.tolist()) == {0.0, 1.0}


def test_randperm_multinomial_bernoulli():
    disttorch.manual_seed(1)
    assert sorted(disttorch.randperm(50).tolist()) == list(range(50)) and disttorch.randperm(0).shape == (0,)
    weights = disttorch.tensor([1.0, 0.0, 3.0])
    drawn = disttorch.multinomial(weights, 20_000, replacement=True)
    counts = np.bincount(drawn.numpy(), minlength=3) / 20_000
    assert counts[1] == 0 and abs(counts[2] - 0.75) < 0.02
    rows = disttorch.multinomial(disttorch.tensor([[1.0, 1, 1, 0], [0, 1, 1, 1]]), 3)
    assert rows.shape == (2, 3) and sorted(rows[0].tolist()) == [0, 1, 2] and sorted(rows[1].tolist()) == [1, 2, 3]
    p = disttorch.tensor([0.0, 1.0, 0.5])
    b = disttorch.bernoulli(p.expand(1000, 3))
    assert b[:, 0].sum().item() == 0 and b[:, 1].sum().item() == 1000 and 400 < b[:, 2].sum().item() < 600
    assert b.dtype is p.dtype


def test_normal_broadcasts_and_likes():
    assert disttorch.normal(disttorch.zeros(3, 1), disttorch.ones(4)).shape == (3, 4)
    assert disttorch.normal(5.0, disttorch.zeros(3)).tolist() == [5.0, 5.0, 5.0]
    assert disttorch.normal(2.0, 0.0, (2,)).tolist() == [2.0, 2.0]
    x = disttorch.zeros(2, 3, dtype=disttorch.float64)
    assert (
        disttorch.rand_like(x).dtype is disttorch.float64
        and disttorch.randn_like(x, dtype=disttorch.float32).dtype is disttorch.float32
    )
    assert disttorch.rand(2, requires_grad=True).requires_grad
