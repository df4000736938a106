"""Padded and packed sequences against lists of arrays."""

import copy
import pickle

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck

R = disttorch.nn.utils.rnn
RNG = np.random.default_rng(8)
LENGTHS = [2, 5, 1, 3]
PARTS = [RNG.normal(size=(n, 2)) for n in LENGTHS]


def tensors(parts=PARTS):
    return [disttorch.tensor(p) for p in parts]


def padded(parts, total, value=0.0, left=False):
    made = np.full((len(parts), total, 2), value)
    for row, part in zip(made, parts):
        row[total - len(part) if left else 0 : total if left else len(part)] = part
    return made


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(batch_first, side):
    result = R.pad_sequence(tensors(), batch_first, 7.0, side).numpy()
    np.testing.assert_array_equal(result if batch_first else result.swapaxes(0, 1), padded(PARTS, 5, 7.0, side == "left"))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("total", [None, 8])
def test_packing_and_back(batch_first, total):
    x = padded(PARTS, 5)
    packed = R.pack_padded_sequence(
        disttorch.tensor(x if batch_first else x.swapaxes(0, 1)), disttorch.tensor(LENGTHS), batch_first, enforce_sorted=False
    )
    order = [1, 3, 0, 2]
    assert packed.sorted_indices.tolist() == order and packed.batch_sizes.tolist() == [4, 3, 2, 1, 1]
    np.testing.assert_array_equal(packed.data.numpy(), [PARTS[i][t] for t in range(5) for i in order if t < LENGTHS[i]])
    back, lengths = R.pad_packed_sequence(packed, batch_first, 7.0, total)
    assert lengths.tolist() == LENGTHS and lengths.dtype is disttorch.int64
    back = back.numpy() if batch_first else back.numpy().swapaxes(0, 1)
    np.testing.assert_array_equal(back, padded(PARTS, total or 5, 7.0))


def test_sorted_sequences_stay_as_they_are():
    parts = sorted(PARTS, key=len, reverse=True)
    packed = R.pack_sequence(tensors(parts))
    assert packed.sorted_indices is None and packed.unsorted_indices is None
    for got, part in zip(R.unpack_sequence(packed), parts):
        np.testing.assert_array_equal(got.numpy(), part)


def test_gradients_go_through():
    def there_and_back(*parts):
        packed = R.pack_sequence(list(parts), enforce_sorted=False)
        return R.pad_packed_sequence(packed._replace(data=packed.data * packed.data))[0]

    assert gradcheck(there_and_back, tuple(t.requires_grad_() for t in tensors()))


def test_a_packed_sequence_can_be_converted_copied_and_pickled():
    packed = R.pack_sequence(tensors(), enforce_sorted=False)
    assert packed.double() is packed and packed.float().data.dtype is disttorch.float32
    for other in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed), packed.cpu()):
        assert type(other) is R.PackedSequence
        np.testing.assert_array_equal(other.data.numpy(), packed.data.numpy())
        assert other.unsorted_indices.tolist() == packed.unsorted_indices.tolist()


def test_unpadding_gives_views():
    x = disttorch.tensor(padded(PARTS, 5))
    parts = R.unpad_sequence(x, LENGTHS, batch_first=True)
    parts[0][0, 0] = 99.0
    assert float(x[0, 0, 0]) == 99 and [len(p) for p in parts] == LENGTHS


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: R.pack_sequence(tensors()), RuntimeError, "decreasing order"),
        (lambda: R.pack_padded_sequence(disttorch.zeros(3, 2), [3, 0]), RuntimeError, "<= 0: 0"),
        (lambda: R.pack_padded_sequence(disttorch.zeros(3, 2), [4, 1]), RuntimeError, "is 4"),
        (lambda: R.pack_padded_sequence(disttorch.zeros(3, 2), [3]), RuntimeError, "batch_size=2"),
        (lambda: R.pad_packed_sequence(R.pack_sequence([disttorch.zeros(3)]), total_length=2), ValueError, "total_length=2"),
        (lambda: R.pad_sequence([]), RuntimeError, "empty list"),
    ],
    ids=range(6),
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
