"""How tensors print: PyTorch's texts, written down here, and compared with PyTorch itself where it is installed."""

import math
from typing import Any

import numpy as np
import pytest

import disttorch

inf, nan = math.inf, math.nan

# what is made (by either library), and its text with "torch." before dtypes
CASES: list[tuple[str, Any, str]] = [
    ("int", lambda m: m.tensor(7), "tensor(7)"),
    ("float", lambda m: m.tensor(1.5), "tensor(1.5000)"),
    ("whole float", lambda m: m.tensor(3.0), "tensor(3.)"),
    ("zero", lambda m: m.tensor(0.0), "tensor(0.)"),
    ("negative zero", lambda m: m.tensor(-0.0), "tensor(-0.)"),
    ("bool", lambda m: m.tensor(True), "tensor(True)"),
    ("infinity", lambda m: m.tensor(inf), "tensor(inf)"),
    ("nan", lambda m: m.tensor(nan), "tensor(nan)"),
    ("large", lambda m: m.tensor(1e10), "tensor(1.0000e+10)"),
    ("small", lambda m: m.tensor(1e-5), "tensor(1.0000e-05)"),
    ("long integer", lambda m: m.tensor(123456789012), "tensor(123456789012)"),
    ("ints", lambda m: m.tensor([1, -20, 300]), "tensor([  1, -20, 300])"),
    ("floats", lambda m: m.tensor([1.0, -2.5, 3.14159]), "tensor([ 1.0000, -2.5000,  3.1416])"),
    ("whole floats", lambda m: m.tensor([1.0, -20.0, 3.0]), "tensor([  1., -20.,   3.])"),
    ("zeros", lambda m: m.zeros(3), "tensor([0., 0., 0.])"),
    ("scientific", lambda m: m.tensor([1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])"),
    ("scientific by ratio", lambda m: m.tensor([0.001, 2000.5]), "tensor([1.0000e-03, 2.0005e+03])"),
    ("scientific by size", lambda m: m.tensor([1e9, 2e9]), "tensor([1.0000e+09, 2.0000e+09])"),
    ("whole and large ratio", lambda m: m.tensor([1.0, 10000.0]), "tensor([1.0000e+00, 1.0000e+04])"),
    ("whole with a small ratio", lambda m: m.tensor([1.0, 1000.0]), "tensor([   1., 1000.])"),
    ("with infinities", lambda m: m.tensor([1.0, inf, -inf, nan]), "tensor([1., inf, -inf, nan])"),
    ("fractions with nan", lambda m: m.tensor([1.5, nan]), "tensor([1.5000,    nan])"),
    ("fractions with -inf", lambda m: m.tensor([-1.5, -inf]), "tensor([-1.5000,    -inf])"),
    ("only nan", lambda m: m.tensor([nan, nan]), "tensor([nan, nan])"),
    ("bools", lambda m: m.tensor([True, False]), "tensor([ True, False])"),
    ("empty", lambda m: m.tensor([]), "tensor([])"),
    ("empty with a shape", lambda m: m.zeros(2, 0), "tensor([], size=(2, 0))"),
    ("empty ints", lambda m: m.zeros(0, dtype=m.int32), "tensor([], dtype=torch.int32)"),
    ("empty int64", lambda m: m.zeros(0, dtype=m.int64), "tensor([], dtype=torch.int64)"),
    (
        "empty with a shape and dtype",
        lambda m: m.zeros(0, 3, dtype=m.float64),
        "tensor([], size=(0, 3), dtype=torch.float64)",
    ),
    ("int32", lambda m: m.tensor([1, 2], dtype=m.int32), "tensor([1, 2], dtype=torch.int32)"),
    ("uint8", lambda m: m.tensor([1, 2], dtype=m.uint8), "tensor([1, 2], dtype=torch.uint8)"),
    ("float64", lambda m: m.tensor([1.5], dtype=m.float64), "tensor([1.5000], dtype=torch.float64)"),
    ("float16", lambda m: m.tensor([1.5, 2.25], dtype=m.float16), "tensor([1.5000, 2.2500], dtype=torch.float16)"),
    ("bfloat16", lambda m: m.tensor([1.5, 3.0], dtype=m.bfloat16), "tensor([1.5000, 3.0000], dtype=torch.bfloat16)"),
    ("complex", lambda m: m.tensor([1 + 2j, -0.5 - 1.25j]), "tensor([ 1.0000+2.0000j, -0.5000-1.2500j])"),
    ("whole complex", lambda m: m.tensor([1 + 2j, 3 - 1j]), "tensor([1.+2.j, 3.-1.j])"),
    ("complex128", lambda m: m.tensor(1.5 + 2j, dtype=m.complex128), "tensor(1.5000+2.j, dtype=torch.complex128)"),
    ("matrix", lambda m: m.tensor([[1, 2], [3, 40]]), "tensor([[ 1,  2],\n        [ 3, 40]])"),
    ("column", lambda m: m.tensor([[1.5], [2.0]]), "tensor([[1.5000],\n        [2.0000]])"),
    (
        "three dimensions",
        lambda m: m.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
        "tensor([[[1, 2],\n         [3, 4]],\n\n        [[5, 6],\n         [7, 8]]])",
    ),
    (
        "four dimensions",
        lambda m: m.zeros(2, 1, 2, 1),
        "tensor([[[[0.],\n          [0.]]],\n\n\n        [[[0.],\n          [0.]]]])",
    ),
    ("leaf", lambda m: m.tensor([1.5], requires_grad=True), "tensor([1.5000], requires_grad=True)"),
    ("result", lambda m: m.tensor([1.5], requires_grad=True) * 2, "tensor([3.], grad_fn=<MulBackward0>)"),
    ("sum", lambda m: m.ones(2, requires_grad=True).sum(), "tensor(2., grad_fn=<SumBackward0>)"),
    (
        "dtype and gradient",
        lambda m: m.ones(2, dtype=m.float64, requires_grad=True),
        "tensor([1., 1.], dtype=torch.float64, requires_grad=True)",
    ),
    (
        "lines are wrapped",
        lambda m: m.arange(30),
        "tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,\n"
        "        18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])",
    ),
    (
        "a long suffix goes to a line of its own",
        lambda m: m.full((9,), 0.5, dtype=m.float64, requires_grad=True),
        "tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000],\n"
        "       dtype=torch.float64, requires_grad=True)",
    ),
    ("the middle is left out", lambda m: m.arange(2000), "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"),
    (
        "the middle of rows is left out",
        lambda m: m.arange(4000).reshape(1000, 4),
        "tensor([[   0,    1,    2,    3],\n        [   4,    5,    6,    7],\n        [   8,    9,   10,   11],\n        ...,\n"
        "        [3988, 3989, 3990, 3991],\n        [3992, 3993, 3994, 3995],\n        [3996, 3997, 3998, 3999]])",
    ),
    (
        "the middle of both is left out",
        lambda m: m.zeros(100, 100),
        "tensor([[0., 0., 0.,  ..., 0., 0., 0.],\n        [0., 0., 0.,  ..., 0., 0., 0.],\n        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        ...,\n        [0., 0., 0.,  ..., 0., 0., 0.],\n        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.]])",
    ),
]


def in_our_name(text: str) -> str:
    return text.replace("torch.", "disttorch.")


@pytest.mark.parametrize(("name", "make", "text"), CASES, ids=[c[0] for c in CASES])
def test_text(name, make, text):
    assert repr(make(disttorch)) == in_our_name(text)
    assert str(make(disttorch)) == repr(make(disttorch))


@pytest.mark.parametrize(("name", "make", "text"), CASES, ids=[c[0] for c in CASES])
def test_the_texts_are_pytorchs(name, make, text):
    assert repr(make(pytest.importorskip("torch"))) == text


def test_many_tensors_against_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for i in range(300):
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)))
        if i % 10 == 0:
            shape = (*shape, int(rng.integers(500, 1500)))
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 9)
        if i % 3 == 0:
            values = np.round(values)
        if i % 5 == 0 and values.size:
            values.reshape(-1)[rng.integers(values.size)] = [inf, nan, -inf, 0.0][i % 4]
        dtype = ["float32", "float32", "int64", "float16", "bool", "complex64"][i % 6]
        a = np.asarray(values).astype(dtype if np.isfinite(values).all() else "float32")
        ours, theirs = repr(disttorch.from_numpy(a)), in_our_name(repr(torch.from_numpy(a)))
        if "dtype=" in ours:  # which is longer with us, and so may stand on a line of its own
            ours, theirs = (" ".join(text.split()) for text in (ours, theirs))
        assert ours == theirs, a


OPTIONS = [
    ({"precision": 2}, [1.23456, 10.0]),
    ({"sci_mode": True}, [1.5, 2.5]),
    ({"sci_mode": False}, [1e-5, 100.0]),
    ({"linewidth": 40}, list(range(20))),
    ({"threshold": 5, "edgeitems": 1}, list(range(10))),
    ({"profile": "short"}, [1.23456] * 3),
    ({"profile": "full"}, list(range(1200))),
]


@pytest.mark.parametrize(("options", "values"), OPTIONS, ids=lambda v: str(v)[:30])
def test_options_against_pytorch(options, values):
    torch = pytest.importorskip("torch")
    try:
        disttorch.set_printoptions(**options)
        torch.set_printoptions(**options)
        assert repr(disttorch.tensor(values)) == repr(torch.tensor(values))
    finally:
        disttorch.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


def test_options():
    try:
        disttorch.set_printoptions(precision=1, sci_mode=False)
        assert repr(disttorch.tensor([0.25, 1e-9])) == "tensor([0.2, 0.0])"
        disttorch.set_printoptions(profile="default", threshold=3, edgeitems=1)
        assert repr(disttorch.arange(4)) == "tensor([0,  ..., 3])"
        with pytest.raises(ValueError, match="'loud'"):
            disttorch.set_printoptions(profile="loud")
    finally:
        disttorch.set_printoptions(profile="default")
    assert repr(disttorch.tensor([0.25])) == "tensor([0.2500])"
