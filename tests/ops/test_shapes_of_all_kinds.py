"""Strided views, splitting, joining, diagonals, rearranging, and views put back: against NumPy and finite differences."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

START = np.random.default_rng(21).permutation(24).reshape(2, 3, 4) * 0.31 - 3.3
OTHER = np.random.default_rng(22).permutation(24).reshape(2, 3, 4) * 0.29 - 3.1
PAIRS = np.random.default_rng(23).standard_normal((3, 2))


def windows(a, dimension, size, step):
    """All windows, by NumPy's own function."""
    return np.lib.stride_tricks.sliding_window_view(a, size, dimension)[(slice(None),) * dimension + (slice(None, None, step),)]


def strided(a, size, stride, offset=0):
    return np.array([a.reshape(-1)[offset + np.dot(i, stride).astype(int)] for i in np.ndindex(*size)]).reshape(size)


def replaced(a, index, value):
    a = a.copy()
    a[index] = value
    return a


def complex_of(a):
    return a[..., 0] + 1j * a[..., 1]


# name, of x (2, 3, 4) and y of the same shape, the same in NumPy, whether the result is a view of x
CASES = [
    ("as_strided", lambda x, y: x.as_strided((2, 2), (3, 1), 1), lambda a, b: strided(a, (2, 2), (3, 1), 1), True),
    (
        "as_strided overlapping",
        lambda x, y: x.as_strided((3, 3), (1, 1)),
        lambda a, b: strided(a, (3, 3), (1, 1)),
        True,
    ),
    ("as_strided stretched", lambda x, y: x.as_strided((3, 2), (0, 1)), lambda a, b: strided(a, (3, 2), (0, 1)), True),
    ("as_strided of a part", lambda x, y: x[1].as_strided((2,), (2,)), lambda a, b: a[1].reshape(-1)[[0, 2]], True),
    (
        "as_strided of a transpose",
        lambda x, y: x.mT.as_strided((2, 2), (2, 5)),
        lambda a, b: strided(a, (2, 2), (2, 5)),
        True,
    ),
    (
        "as_strided of an expanded tensor",
        lambda x, y: x[0, 0].expand(3, 4).as_strided((4,), (1,)),
        lambda a, b: a[0, 0],
        True,
    ),
    ("unfold", lambda x, y: x.unfold(2, 3, 1), lambda a, b: windows(a, 2, 3, 1), True),
    ("unfold in steps", lambda x, y: x.unfold(1, 2, 2), lambda a, b: windows(a, 1, 2, 2), True),
    ("unfold with gaps", lambda x, y: x.unfold(-1, 1, 3), lambda a, b: windows(a, 2, 1, 3), True),
    ("unfold of a transpose", lambda x, y: x.mT.unfold(0, 2, 1), lambda a, b: windows(a.swapaxes(1, 2), 0, 2, 1), True),
    ("squeeze of several", lambda x, y: x[:1, :, :1].squeeze((0, -1, 1)), lambda a, b: a[0, :, 0], True),
    ("squeeze of none", lambda x, y: x[:1].squeeze(()), lambda a, b: a[:1], True),
    ("adjoint", lambda x, y: x.adjoint(), lambda a, b: a.swapaxes(1, 2), True),
    ("H", lambda x, y: x[0].H, lambda a, b: a[0].T, True),
    ("mH", lambda x, y: x.mH, lambda a, b: a.swapaxes(1, 2), True),
    ("tensor_split", lambda x, y: x.tensor_split(3, 2)[0], lambda a, b: np.array_split(a, 3, 2)[0], True),
    ("tensor_split at", lambda x, y: x.tensor_split((1, -1), -1)[1], lambda a, b: a[..., 1:-1], True),
    ("hsplit", lambda x, y: x.hsplit(3)[2], lambda a, b: np.hsplit(a, 3)[2], True),
    ("vsplit", lambda x, y: x.vsplit([1])[1], lambda a, b: np.vsplit(a, [1])[1], True),
    ("dsplit", lambda x, y: x.dsplit(2)[1], lambda a, b: np.dsplit(a, 2)[1], True),
    ("unsafe_chunk", lambda x, y: x.unsafe_chunk(2, 1)[1], lambda a, b: a[:, 2:], True),
    ("sum_to_size", lambda x, y: x.sum_to_size(3, 1), lambda a, b: a.sum((0, 2))[:, None], False),
    ("atleast_1d", lambda x, y: disttorch.atleast_1d(x[0, 0, 0]), lambda a, b: a[0, 0, :1], True),
    ("atleast_2d", lambda x, y: disttorch.atleast_2d(x[0, 0]), lambda a, b: a[0, :1], True),
    ("atleast_3d", lambda x, y: disttorch.atleast_3d(x[0]), lambda a, b: np.atleast_3d(a[0]), True),
    ("hstack", lambda x, y: disttorch.hstack((x, y)), lambda a, b: np.hstack((a, b)), False),
    (
        "hstack of vectors",
        lambda x, y: disttorch.hstack((x[0, 0], y[0, 0, 0])),
        lambda a, b: np.hstack((a[0, 0], b[0, 0, 0])),
        False,
    ),
    ("vstack", lambda x, y: disttorch.vstack((x[0, 0], y[0])), lambda a, b: np.vstack((a[0, 0], b[0])), False),
    ("dstack", lambda x, y: disttorch.dstack((x[0], y[0])), lambda a, b: np.dstack((a[0], b[0])), False),
    (
        "column_stack",
        lambda x, y: disttorch.column_stack((x[0, 0], y[0].T)),
        lambda a, b: np.column_stack((a[0, 0], b[0].T)),
        False,
    ),
    ("stack in front", lambda x, y: disttorch.stack((x, y)), lambda a, b: np.stack((a, b)), False),
    (
        "stack within",
        lambda x, y: disttorch.stack((x.mT, y.mT), 1),
        lambda a, b: np.stack((a.swapaxes(1, 2), b.swapaxes(1, 2)), 1),
        False,
    ),
    (
        "stack of numbers",
        lambda x, y: disttorch.stack((x[0, 0, 0], y[1, 1, 1])),
        lambda a, b: np.stack((a[0, 0, 0], b[1, 1, 1])),
        False,
    ),
    (
        "block_diag",
        lambda x, y: disttorch.block_diag(x[0], y[0, 0], x[1, 2, 3]),
        lambda a, b: replaced(
            replaced(replaced(np.zeros((5, 9)), np.s_[:3, :4], a[0]), np.s_[3:4, 4:8], b[0, 0]), np.s_[4, 8], a[1, 2, 3]
        ),
        False,
    ),
    (
        "cartesian_prod",
        lambda x, y: disttorch.cartesian_prod(x[0, 0], y[0, 0]),
        lambda a, b: np.array([[i, j] for i in a[0, 0] for j in b[0, 0]]),
        False,
    ),
    (
        "combinations",
        lambda x, y: disttorch.combinations(x[0, 0], 3),
        lambda a, b: a[0, 0][[[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]],
        False,
    ),
    ("diag of a vector", lambda x, y: x[0, 0].diag(-1), lambda a, b: np.diag(a[0, 0], -1), False),
    ("diag of a matrix", lambda x, y: disttorch.diag(x[0], 1), lambda a, b: np.diag(a[0], 1), False),
    ("diagflat", lambda x, y: x[0].diagflat(1), lambda a, b: np.diagflat(a[0], 1), False),
    ("diag_embed", lambda x, y: x.diag_embed(), lambda a, b: a[..., None] * np.eye(4), False),
    (
        "diag_embed elsewhere",
        lambda x, y: x[0].diag_embed(1, 0, -1),
        lambda a, b: np.stack([np.diag(r, 1) for r in a[0]], 1),
        False,
    ),
    ("fliplr", lambda x, y: x.fliplr(), lambda a, b: a[:, ::-1], False),
    ("flipud", lambda x, y: x.flipud(), lambda a, b: a[::-1], False),
    ("flip nothing", lambda x, y: x.flip(()), lambda a, b: a, False),
    *[(f"rot90 {k}", lambda x, y, k=k: x.rot90(k, (1, 2)), lambda a, b, k=k: np.rot90(a, k, (1, 2)), False) for k in (0, 1, 2, -1)],
    ("roll flat", lambda x, y: x.roll(-3), lambda a, b: np.roll(a, -3), False),
    ("repeat_interleave", lambda x, y: x.repeat_interleave(2), lambda a, b: np.repeat(a, 2), False),
    (
        "repeat_interleave by counts",
        lambda x, y: x.repeat_interleave(disttorch.tensor([2, 0, 3]), 1),
        lambda a, b: np.repeat(a, [2, 0, 3], 1),
        False,
    ),
    ("tile", lambda x, y: x.tile(2, 1, 1, 2), lambda a, b: np.tile(a, (2, 1, 1, 2)), False),
    (
        "constant_pad_nd",
        lambda x, y: disttorch.constant_pad_nd(x, (1, 2, 0, 1), 0.5),
        lambda a, b: np.pad(a, ((0, 0), (0, 1), (1, 2)), constant_values=0.5),
        False,
    ),
    (
        "constant_pad_nd, negative",
        lambda x, y: disttorch.constant_pad_nd(x, (-1, 1, 2, -1)),
        lambda a, b: np.pad(a[:, :2, 1:], ((0, 0), (2, 0), (0, 1))),
        False,
    ),
    (
        "diagonal_scatter",
        lambda x, y: x.diagonal_scatter(y[:, :, 0], 0, 1, 2),
        lambda a, b: replaced(a, np.s_[:, np.arange(3), np.arange(3)], b[:, :, 0]),
        False,
    ),
    (
        "select_scatter",
        lambda x, y: x.select_scatter(y[:, 0], 1, -1),
        lambda a, b: replaced(a, np.s_[:, -1], b[:, 0]),
        False,
    ),
    (
        "slice_scatter",
        lambda x, y: x.slice_scatter(y[..., :2], 2, 0, None, 2),
        lambda a, b: replaced(a, np.s_[..., ::2], b[..., :2]),
        False,
    ),
    (
        "as_strided_scatter",
        lambda x, y: x.as_strided_scatter(y[0, 0, :2], (2,), (3,), 1),
        lambda a, b: replaced(a.reshape(-1), [1, 4], b[0, 0, :2]).reshape(a.shape),
        False,
    ),
    ("view_copy", lambda x, y: disttorch.view_copy(x, (4, 6)), lambda a, b: a.reshape(4, 6), False),
    ("unfold_copy", lambda x, y: disttorch.unfold_copy(x, 1, 2, 1), lambda a, b: windows(a, 1, 2, 1), False),
    ("unbind_copy", lambda x, y: disttorch.unbind_copy(x, 2)[1], lambda a, b: a[..., 1], False),
    (
        "split_with_sizes_copy",
        lambda x, y: disttorch.split_with_sizes_copy(x, [1, 3], -1)[1],
        lambda a, b: a[..., 1:],
        False,
    ),
]  # fmt: skip
IDS = [c[0] for c in CASES]


@pytest.fixture
def xy():
    return disttorch.tensor(START, requires_grad=True), disttorch.tensor(OTHER, requires_grad=True)


@pytest.mark.parametrize(("name", "function", "formula", "is_view"), CASES, ids=IDS)
def test_values_and_memory(name, function, formula, is_view, xy):
    result, expected = function(*xy), formula(START, OTHER)
    assert tuple(result.shape) == expected.shape
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-13)
    assert np.shares_memory(result.detach().numpy(), xy[0].detach().numpy()) is is_view


@pytest.mark.parametrize(("name", "function", "formula", "is_view"), CASES, ids=IDS)
def test_derivatives(name, function, formula, is_view, xy):
    assert gradcheck(function, xy)
    # of the square, so that the second derivative is not zero
    assert gradgradcheck(lambda x, y: function(x, y) ** 2, xy)


VIEWS = [c for c in CASES if c[3] and "stretched" not in c[0] and "expanded" not in c[0] and "overlapping" not in c[0]]


@pytest.mark.parametrize(("name", "function", "formula", "is_view"), VIEWS, ids=[c[0] for c in VIEWS])
def test_changes_in_place_through_views(name, function, formula, is_view, xy):
    """What a view shows is replaced by its product; the base, and its gradient, follow."""

    def changed(x, y):
        base = x * 1.0
        function(base, y).mul_(y[0, 0, 0])
        return base

    if name.startswith("unfold") and "steps" not in name and "gaps" not in name:
        pytest.skip("a place is changed once for each window that shows it")
    places = formula(np.arange(24).reshape(START.shape), OTHER).astype(int)
    expected = START.copy().reshape(-1)
    expected[places.reshape(-1)] *= OTHER[0, 0, 0]
    np.testing.assert_allclose(changed(*xy).detach().numpy().reshape(-1), expected, rtol=1e-13)
    assert gradcheck(changed, xy)
    assert gradgradcheck(changed, xy)


@pytest.mark.parametrize("turn", [lambda x: x, lambda x: x.transpose(0, 2), lambda x: x.permute(1, 2, 0)], ids=["C", "swapped", "turned"])
def test_changes_through_views_where_the_base_lies_otherwise_in_memory(turn):
    x = disttorch.tensor(START, requires_grad=True)

    def changed(x):
        base = turn(x) * 1.0  # which keeps the order of dimensions in memory
        flat = base.as_strided((24,), (1,))
        flat[3:9:2] = flat[10:13] * 2
        return base * x.sum()

    assert gradcheck(changed, x)
    assert gradgradcheck(changed, x)


def test_a_strided_view_may_reach_beyond_the_part_it_is_taken_of():
    x = disttorch.tensor(START)
    whole = x[1].as_strided((24,), (1,), 0)
    np.testing.assert_array_equal(whole.numpy(), START.reshape(-1))
    whole[0] = 9.0
    assert x[0, 0, 0].item() == 9.0


def test_complex_numbers_as_pairs():
    z = disttorch.view_as_complex(disttorch.tensor(PAIRS))
    np.testing.assert_array_equal(z.numpy(), complex_of(PAIRS))
    pairs = disttorch.view_as_real(z)
    np.testing.assert_array_equal(pairs.numpy(), PAIRS)
    pairs[0, 1] = 7.0
    assert z[0].item().imag == 7.0 and pairs._base is z._base
    x = disttorch.tensor(PAIRS, requires_grad=True)
    for function in (
        lambda x: disttorch.view_as_real(disttorch.view_as_complex(x) * (2 + 3j)),
        lambda x: disttorch.view_as_real((disttorch.view_as_complex(x) ** 2).conj()),
        lambda x: disttorch.view_as_real(disttorch.view_as_complex(x).exp())[:, 1],
    ):
        assert gradcheck(function, x)
        assert gradgradcheck(function, x)


def test_the_same_bytes_as_another_dtype():
    x = disttorch.tensor([1.5, -2.0, 3.25, 0.0])
    for name in ("int32", "int16", "uint8", "float64", "complex64"):
        d = getattr(disttorch, name)
        seen = x.view(d)
        np.testing.assert_array_equal(seen.numpy(), x.numpy().view(d.numpy))
        assert seen.data_ptr() == x.data_ptr()
    bits = x.view(disttorch.int32)
    bits[3] = 0x3F800000
    assert x[3].item() == 1.0
    b = disttorch.ones(4, dtype=disttorch.bfloat16)
    assert b.view(disttorch.int16).tolist() == [0x3F80] * 4 and b.as_strided((2, 3), (1, 1)).shape == (2, 3)


IN_PLACE = [
    ("squeeze_", lambda x: x[:1].squeeze_(0), (3, 4)),
    ("unsqueeze_", lambda x: x.unsqueeze_(-1), (2, 3, 4, 1)),
    ("transpose_", lambda x: x.transpose_(0, 2), (4, 3, 2)),
    ("swapaxes_", lambda x: x.swapaxes_(0, 1), (3, 2, 4)),
    ("t_", lambda x: x[0].t_(), (4, 3)),
    ("as_strided_", lambda x: x.as_strided_((2, 2), (1, 5)), (2, 2)),
]


@pytest.mark.parametrize(("name", "change", "shape"), IN_PLACE, ids=[c[0] for c in IN_PLACE])
def test_tensors_that_change_their_own_shape(name, change, shape):
    x = disttorch.tensor(START, requires_grad=True)

    def function(x):
        base = x * 1.0
        row = base[1]  # taken before, and still right afterwards
        changed = change(base)
        assert tuple(changed.shape) == shape
        changed.mul_(2)
        return (changed**2).sum() + (row**3).sum() + (base**2).sum()

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)
    with pytest.raises(RuntimeError, match="leaf"):
        getattr(x, name)(*{"transpose_": (0, 1), "swapaxes_": (0, 1), "as_strided_": ((1,), (1,)), "unsqueeze_": (0,)}.get(name, ()))


def test_resize():
    x = disttorch.arange(6)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]] and x.resize_(6).tolist() == [0, 1, 2, 3, 4, 5]
    address = x.data_ptr()
    assert x.resize_((3, 3)).shape == (3, 3) and x.reshape(-1)[:6].tolist() == [0, 1, 2, 3, 4, 5] and x.data_ptr() != address
    y = disttorch.arange(6).reshape(2, 3).t()
    assert y.resize_(6).tolist() == [0, 1, 2, 3, 4, 5]  # in the order of memory
    assert disttorch.zeros(4).resize_as_(disttorch.zeros(2, 1)).shape == (2, 1)
    with pytest.raises(RuntimeError, match="require grad"):
        disttorch.zeros(2, requires_grad=True).resize_(3)


def test_where_tensors_lie():
    x = disttorch.zeros(4, 6)
    part = x[1:, 2::2]
    assert part.storage_offset() == 8 and part.stride() == (6, 2) and part.stride(-1) == 2 and not part.is_contiguous()
    assert part.untyped_storage() == x.untyped_storage() and part.untyped_storage().nbytes() == 96
    assert part.untyped_storage().data_ptr() == x.data_ptr() != part.data_ptr()
    assert x.is_set_to(x[:]) and not x.is_set_to(x.t()) and x.t().dim_order() == (1, 0)
    images = disttorch.zeros(2, 3, 4, 5)
    assert not images.is_contiguous(memory_format=disttorch.channels_last)
    assert images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).is_contiguous(memory_format=disttorch.channels_last)
    assert images.to(memory_format=disttorch.channels_last).dim_order() == (0, 2, 3, 1)
    y = disttorch.zeros(2).set_(x, 3, (2, 2), (6, 1))
    y.fill_(1)
    assert x.sum().item() == 4 and x[0, 3].item() == x[1, 4].item() == 1
    strange = np.lib.stride_tricks.as_strided(np.arange(20.0), (3, 2), (40, 16))  # an array with gaps, of another's memory
    assert disttorch.from_numpy(strange).as_strided((2,), (5,)).tolist() == [0.0, 5.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.as_strided((3, 9), (9, 1)), RuntimeError, "out of bounds for storage of size 192"),
        (lambda x: x.as_strided((2,), (-1,)), RuntimeError, "Negative strides"),
        (lambda x: x.as_strided((2,), (1, 1)), RuntimeError, "mismatch in length"),
        (lambda x: x.unfold(0, 3, 1), RuntimeError, "size at|maximum size.*2 but size is 3"),
        (lambda x: x.unfold(0, 1, 0), RuntimeError, "step"),
        (lambda x: x.mT.view(24), RuntimeError, "not compatible"),
        (lambda x: x[..., :3].view(disttorch.complex128), RuntimeError, "divisible by 2"),
        (lambda x: x.mT.view(disttorch.float32), RuntimeError, "must be 1"),
        (lambda x: disttorch.view_as_complex(x), RuntimeError, "last dimension of size 2"),
        (lambda x: x.reshape(-1)[1:3].view(disttorch.complex128), RuntimeError, "storage_offset.. must be divisible by 2"),
        (lambda x: disttorch.view_as_complex(x.reshape(-1)[1:3]), RuntimeError, "storage_offset divisible by 2"),
        (lambda x: disttorch.view_as_real(x), RuntimeError, "complex"),
        (lambda x: x.tensor_split(0), RuntimeError, "larger than 0"),
        (lambda x: x.hsplit(2), RuntimeError, "not divisible"),
        (lambda x: x[0, 0].vsplit(2), RuntimeError, "at least 2"),
        (lambda x: x.split_with_sizes([1, 2]), RuntimeError, "sum exactly to 2"),
        (lambda x: disttorch.cat([x, 1]), TypeError, "element 1"),
        (lambda x: disttorch.stack(x), TypeError, "tuple of Tensors"),
        (lambda x: disttorch.block_diag(x), RuntimeError, "2 or fewer"),
        (lambda x: x.diag(), RuntimeError, "3D"),
        (lambda x: x.rot90(1, (0, 0)), RuntimeError, "different"),
        (lambda x: x.roll((1, 2), 0), RuntimeError, "align"),
        (lambda x: x.repeat_interleave(disttorch.tensor([1, 2]), 1), RuntimeError, "2 repeats and size 3"),
        (lambda x: x.repeat_interleave(-1), RuntimeError, "non-negative"),
        (lambda x: disttorch.constant_pad_nd(x, (1,)), RuntimeError, "even"),
        (lambda x: disttorch.constant_pad_nd(x, (-3, -2)), RuntimeError, "negative output size"),
        (lambda x: x.select_scatter(x, 0, 0), RuntimeError, r"src size = \[2, 3, 4\], slice size = \[3, 4\]"),
        (lambda x: x.sum_to_size(2), RuntimeError, "not expandable"),
        (lambda x: x[0].expand(5, 3, 4).add_(1), RuntimeError, "single memory location"),
        (lambda x: disttorch.cat([x, x], out=x), RuntimeError, "single memory location"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.tensor(START))


def test_a_part_of_an_expanded_tensor_that_shows_no_place_twice_can_be_changed():
    row = disttorch.zeros(3)
    row.expand(4, 3)[2].add_(1)
    assert row.tolist() == [1.0, 1.0, 1.0]
    fixed = np.zeros(3)
    fixed.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        disttorch.from_numpy(fixed).expand(2, 3)[0].add_(1)
