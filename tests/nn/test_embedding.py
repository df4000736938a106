"""Embeddings and bags of them against loops over rows, and the kernel that adds rows against its specification."""

import ml_dtypes
import numpy as np
import pytest

import disttorch
from disttorch.backend.cpu_kernels import CPU_KERNELS
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace

F, nn = disttorch.nn.functional, disttorch.nn
RNG = np.random.default_rng(5)
TABLE = RNG.normal(size=(7, 3))
BAGS = [[4, 1, 1], [], [2, 6, 0, 1], [5]]
FLAT = np.array([i for bag in BAGS for i in bag])
STARTS = np.array([0, 3, 3, 7])


def reduced(rows, mode):
    if not len(rows):
        return np.zeros(3)
    return {"sum": rows.sum(0), "mean": rows.mean(0), "max": rows.max(0)}[mode]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 1, -7])
def test_bags_with_offsets(mode, padding_idx):
    result = F.embedding_bag(
        disttorch.tensor(FLAT), disttorch.tensor(TABLE), disttorch.tensor(STARTS), mode=mode, padding_idx=padding_idx
    )
    left_out = None if padding_idx is None else padding_idx % 7
    expected = [reduced(TABLE[[i for i in bag if i != left_out]], mode) for bag in BAGS]
    np.testing.assert_allclose(result.numpy(), expected)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_the_last_offset_ends_the_last_bag(mode):
    starts = disttorch.tensor([0, 3, 3, 6])
    result = F.embedding_bag(disttorch.tensor(FLAT), disttorch.tensor(TABLE), starts, mode=mode, include_last_offset=True)
    np.testing.assert_allclose(result.numpy(), [reduced(TABLE[b], mode) for b in ([4, 1, 1], [], [2, 6, 0])])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_no_bags_and_only_empty_ones(mode):
    table = disttorch.tensor(TABLE, requires_grad=True)
    empty = disttorch.tensor(np.zeros(0, np.int64))
    assert F.embedding_bag(empty, table, empty, mode=mode).shape == (0, 3)
    result = F.embedding_bag(empty, table, disttorch.tensor([0, 0]), mode=mode)
    result.sum().backward()
    assert not result.detach().numpy().any() and not table.grad.numpy().any()


def test_a_bag_of_nothing_but_padding_is_zero_in_every_mode():
    for mode in ("sum", "mean", "max"):
        result = F.embedding_bag(disttorch.tensor([[2, 2], [2, 3]]), disttorch.tensor(TABLE), mode=mode, padding_idx=2)
        np.testing.assert_allclose(result.numpy(), [[0, 0, 0], TABLE[3]])


def test_the_first_of_equal_maxima_has_the_gradient():
    table = disttorch.ones(3, 2, requires_grad=True)
    F.embedding_bag(disttorch.tensor([[2, 0, 1]]), table, mode="max").sum().backward()
    assert table.grad.tolist() == [[0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("layer", ["Embedding", "EmbeddingBag"])
def test_a_frequent_row_has_its_mean_gradient(layer):
    made = getattr(nn, layer)(4, 2, scale_grad_by_freq=True, **({"mode": "sum"} if layer == "EmbeddingBag" else {}))
    made(disttorch.tensor([[0, 2, 2], [2, 3, 0]])).sum().backward()
    np.testing.assert_allclose(made.weight.grad.numpy()[:, 0], [1, 0, 1, 1])


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_rows_that_are_looked_up_are_made_shorter(norm_type):
    for look_up in (lambda w: F.embedding(disttorch.tensor([1, 3, 1]), w, max_norm=0.5, norm_type=norm_type),
                    lambda w: F.embedding_bag(disttorch.tensor([[1, 3]]), w, max_norm=0.5, norm_type=norm_type)):  # fmt: skip
        table = disttorch.tensor(TABLE)
        look_up(table)
        norms = np.linalg.norm(table.numpy(), norm_type, axis=1)
        np.testing.assert_allclose(norms[[1, 3]], 0.5, rtol=1e-6)
        np.testing.assert_array_equal(table.numpy()[[0, 2, 4, 5, 6]], TABLE[[0, 2, 4, 5, 6]])


def test_pretrained_bags_are_frozen():
    table = disttorch.tensor(TABLE)
    frozen = nn.EmbeddingBag.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.data_ptr() == table.data_ptr()
    assert nn.EmbeddingBag.from_pretrained(table, freeze=False).weight.requires_grad
    assert not nn.EmbeddingBag(5, 3, padding_idx=-1).weight[4].detach().numpy().any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(("count", "width"), [(0, 3), (5, 0), (40, 1), (700, 130), (3, 70000)])
def test_rows_are_added_as_the_specification_says(dtype, count, width):
    g = RNG.normal(size=(count, width)).astype(dtype)
    index = RNG.integers(0, 9, count)
    fast = CPU_KERNELS["add_rows"](g, index, 9)
    class Plain(Namespace):
        @staticmethod
        def add_at(a, where, values):
            np.add.at(a, where, values)
    plain = PLAIN["add_rows"](Plain("cpu", np), g, index, 9)
    exact = np.zeros((9, width))
    for i, row in zip(index, g.astype(np.float64)):
        exact[i] += row
    assert fast.dtype == plain.dtype == np.dtype(dtype)
    unit = float(ml_dtypes.finfo(dtype).eps)
    for result in (fast, plain):
        np.testing.assert_allclose(result.astype(np.float64), exact, rtol=8 * unit, atol=100 * max(unit, 1e-7) * (unit < 1e-5) + unit)
