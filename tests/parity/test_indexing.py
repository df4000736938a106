"""x[...] and x[...] = y beside PyTorch's, with indices of all kinds put together at random: values, memory, gradients, errors."""

import random
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import disttorch

SHAPE = (3, 4, 2, 5)
WHAT = (
    "int slice slice step ellipsis none tensor tensor matrix scalar list mask mask2 bool bytes nested numpy range mask_scalar".split()
)


def draw(rng: random.Random) -> tuple[Any, Any]:
    """One index, for ours and for theirs."""
    parts: list[tuple[Any, Any]] = []
    dim = 0
    ellipses = 0
    while dim < len(SHAPE) and len(parts) < 5 and (not parts or rng.random() < 0.75):
        kind, n = rng.choice(WHAT), SHAPE[dim]
        if kind == "int":
            parts.append((rng.randrange(-n, n),) * 2)
        elif kind in ("slice", "step"):
            bounds = [rng.choice([None, rng.randrange(-n - 1, n + 2)]) for _ in range(2)]
            parts.append((slice(*bounds, rng.choice([None, 2, 3]) if kind == "step" else None),) * 2)
        elif kind == "ellipsis":
            if ellipses:
                continue
            ellipses += 1
            parts.append((..., ...))
            dim = rng.randrange(dim, len(SHAPE))
            # what comes after the ellipsis is counted from the end: only whole indices that fit any dimension
            parts.append((slice(None),) * 2)
            break
        elif kind == "none":
            parts.append((None, None))
            continue
        elif kind in ("bool", "mask_scalar"):
            flag = rng.random() < 0.8
            parts.append((flag, flag) if kind == "bool" else (disttorch.tensor(flag), torch.tensor(flag)))
            continue
        elif kind in ("tensor", "matrix", "numpy"):
            shape = {"tensor": (3,), "numpy": (3,), "matrix": (2, 3)}[kind]
            a = np.array([rng.randrange(-n, n) for _ in range(int(np.prod(shape)))]).reshape(shape)
            a = a.astype(rng.choice([np.int64, np.int32]))
            parts.append((a, a) if kind == "numpy" else (disttorch.tensor(a), torch.tensor(a)))
        elif kind == "scalar":
            i = rng.randrange(-n, n)
            parts.append((disttorch.tensor(i), torch.tensor(i)))
        elif kind == "list":
            values = [rng.randrange(-n, n) for _ in range(3)]
            parts.append((values, values))
        elif kind == "nested":
            values = [[rng.randrange(-n, n)] for _ in range(2)]
            parts.append((values, values))
        elif kind == "range":
            parts.append((range(min(n, 3)),) * 2)
        else:
            dims = 2 if kind == "mask2" and dim + 2 <= len(SHAPE) else 1
            a = np.array([rng.random() < 0.6 for _ in range(int(np.prod(SHAPE[dim : dim + dims])))]).reshape(SHAPE[dim : dim + dims])
            a = a.astype(np.uint8) if kind == "bytes" else a
            parts.append((disttorch.tensor(a), torch.tensor(a)))
            dim += dims - 1
        dim += 1
    if len(parts) == 1 and rng.random() < 0.5:
        return parts[0]
    return tuple(p[0] for p in parts), tuple(p[1] for p in parts)


def text(index: Any) -> str:
    return repr(index).replace("\n", " ")


@pytest.mark.parametrize("seed", range(12))
def test_random_indices(seed):
    rng = random.Random(seed)
    taken = 0
    for _ in range(60):
        mine, theirs = draw(rng)
        values = np.random.default_rng(rng.randrange(1000)).standard_normal(SHAPE)
        x, y = disttorch.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = y[theirs]
            except (IndexError, ValueError, TypeError) as error:
                with pytest.raises((IndexError, ValueError, TypeError)):
                    x[mine]
                assert "unreachable" not in str(error)
                continue
            taken += 1
            result = x[mine]
            assert tuple(result.shape) == tuple(expected.shape), text(theirs)
            np.testing.assert_array_equal(result.detach().numpy(), expected.detach().numpy(), err_msg=text(theirs))
            weights = np.random.default_rng(1).standard_normal(tuple(expected.shape))
            (expected * torch.tensor(weights)).sum().backward()
            (result * disttorch.tensor(weights)).sum().backward()
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12, err_msg=text(theirs))
            if result._view is not None and result.numel():
                assert np.shares_memory(result.detach().numpy(), x.detach().numpy())
                assert result.stride() == expected.stride() or 1 in result.shape, text(theirs)
            # assignment, with a value that is broadcast; repeated places would be a matter of luck
            p, q = disttorch.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
            filler = np.random.default_rng(2).standard_normal(tuple(expected.shape)[1:])
            v, w = disttorch.tensor(filler, requires_grad=True), torch.tensor(filler, requires_grad=True)
            bytes_too = any(getattr(p, "dtype", None) is torch.uint8 for p in (theirs if isinstance(theirs, tuple) else (theirs,)))
            number = rng.random() < 0.3 and not bytes_too  # PyTorch fills by masks of bool only
            a, b = p * 1, q * 1
            b[theirs] = 2.5 if number else w
            a[mine] = 2.5 if number else v
            if not repeats(theirs) or number:
                np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy(), err_msg=text(theirs))
                (b * b).sum().backward()
                (a * a).sum().backward()
                for mine_grad, their_grad in ((p.grad, q.grad), (v.grad, w.grad)):
                    mine_grad = 0.0 if mine_grad is None else mine_grad.numpy()
                    their_grad = 0.0 if their_grad is None else their_grad.numpy()
                    np.testing.assert_allclose(mine_grad, their_grad, rtol=1e-12, atol=1e-14, err_msg=text(theirs))
    assert taken > 30


def repeats(index: Any) -> bool:
    """Whether a place may come twice."""
    counts = torch.zeros(SHAPE, dtype=torch.int64)
    numbers = torch.arange(counts.numel()).reshape(SHAPE)[index].reshape(-1)
    return bool((torch.bincount(numbers, minlength=1) > 1).any())


ODD = [
    1.0, "a", slice(None, None, -1), (0, 0, 0, 0, 0), 3, (slice(None), 4), [[0, 1], [1, 2]], [[0, 1]], [slice(None), 0], [None], [],
    [True, False, True], [True, False], (..., ...), (..., 0), [1.0], (0, ...), True, False, (True, 0), (0, False), (), None, -4,
]  # fmt: skip


@pytest.mark.parametrize("index", ODD, ids=repr)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_odd_indices(index):
    values = np.arange(12.0).reshape(3, 4)
    try:
        expected = torch.tensor(values)[index]
    except Exception as error:
        with pytest.raises(type(error)):
            disttorch.tensor(values)[index]
    else:
        np.testing.assert_array_equal(disttorch.tensor(values)[index].numpy(), expected.numpy())


TENSORS = [
    np.array([1.0, 0.0]), np.array([5]), np.array([-4]), np.array([True, False]), np.zeros((0,), np.int64), np.zeros((2, 0), np.int64),
    np.zeros((3, 4), bool), np.ones((3, 3), bool), np.array([1, 0, 1], np.uint8), np.array(1, np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("index", TENSORS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_odd_tensors_as_indices(index):
    values = np.arange(12.0).reshape(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = torch.tensor(values)[torch.tensor(index)]
        except Exception as error:
            with pytest.raises(type(error)):
                disttorch.tensor(values)[disttorch.tensor(index)]
        else:
            np.testing.assert_array_equal(disttorch.tensor(values)[disttorch.tensor(index)].numpy(), expected.numpy())


ASSIGNED = [
    (0, lambda m: m.ones(3)), (0, lambda m: m.ones(1, 1, 4)), (0, lambda m: m.ones(2, 4)), ([0], lambda m: m.ones(4, dtype=m.int64)),
    ([0], lambda m: m.tensor(1)), ([0], lambda m: m.tensor(1.0, dtype=m.float64)), (0, lambda m: m.ones(4, dtype=m.float64)),
    (0, lambda m: "a"), (0, lambda m: None), (0, lambda m: 1j), (0, lambda m: True), (3, lambda m: 1.0), ((0, [0, 1]), lambda m: 5.0),
    ([0, 1], lambda m: m.ones(1, 2, 4)), (..., lambda m: 2), (False, lambda m: 2.0), (slice(0, 0), lambda m: m.ones(4)),
]  # fmt: skip


@pytest.mark.parametrize(("index", "value"), ASSIGNED, ids=[str(i) for i in range(len(ASSIGNED))])
def test_what_can_be_assigned(index, value):
    theirs, ours = torch.zeros(3, 4), disttorch.zeros(3, 4)
    try:
        theirs[index] = value(torch)
    except Exception as error:
        with pytest.raises(type(error)):
            ours[index] = value(disttorch)
    else:
        ours[index] = value(disttorch)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
