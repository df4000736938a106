"""Numbers that are cached as arrays belong to all who ask for them."""

import math

import numpy as np
import pytest

import disttorch
from disttorch.backend import cpu

FLOAT = np.dtype(np.float32)


def test_a_number_is_kept():
    assert cpu.scalar(2.5, FLOAT) is cpu.scalar(2.5, FLOAT)
    assert cpu.scalar(2.5, FLOAT) == 2.5
    assert cpu.scalar(2.5, np.dtype(np.float64)).dtype == np.float64


def test_zeros_keep_their_signs():
    assert [math.copysign(1, cpu.scalar(zero, FLOAT)) for zero in (0.0, -0.0, 0.0)] == [1, -1, 1]


def test_nan_is_not_kept():
    kept = len(cpu.scalars)
    assert math.isnan(cpu.scalar(float("nan"), FLOAT))
    assert len(cpu.scalars) == kept


def test_it_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        cpu.scalar(2.5, FLOAT)[...] = 3


@pytest.mark.parametrize(
    "make",
    [
        lambda x: disttorch.full((), 2.5),
        lambda x: disttorch.tensor(2.5),
        lambda x: disttorch.where(x > 9, x, 2.5),
        lambda x: x.masked_fill(x < 9, 2.5),
        lambda x: x.clamp(min=2.5),
        lambda x: x * 2.5,
        lambda x: x.new_full((), 2.5),
        lambda x: disttorch.empty(0).median(),
        lambda x: disttorch.nn.functional.threshold(x, 9.0, 2.5),
    ],
)
def test_what_users_get_is_theirs(make):
    result = make(disttorch.ones(()))
    result += 1
    assert make(disttorch.ones(())).item() == pytest.approx(result.item() - 1, nan_ok=True)
