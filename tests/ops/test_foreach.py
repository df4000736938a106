"""Operations on each tensor of a list against PyTorch's, in place and not, with the arguments in every form they may have."""

import pytest

import disttorch
from disttorch.ops.foreach import FOREACH

CASES = [
    *(f"m._foreach_{name}(a)" for name in "abs acos asin atan ceil clone cos cosh erf erfc exp expm1 floor frac lgamma log log10".split()),
    *(f"m._foreach_{name}(a)" for name in "log1p log2 neg reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc max".split()),
    *(f"m._foreach_{name}(a, {b})" for name in "add sub mul div pow".split() for b in ("0.5", "b", "[0.5, 2]")),
    *(f"m._foreach_{name}(a, {b})" for name in "maximum minimum clamp_min clamp_max".split() for b in ("0.5", "b", "[0.5, 0.25]")),
    *(f"m._foreach_{name}(a, b, b, {v})" for name in ("addcmul", "addcdiv") for v in ("2", "value=2", "[1, 2]", "m.tensor([1.0, 2.0])")),
    *(f"m._foreach_{name}(a, b, b)" for name in ("addcmul", "addcdiv")),
    *(f"m._foreach_lerp(a, b, {w})" for w in ("0.25", "b", "[0.25, 0.5]")),
    "m._foreach_add(a, b, alpha=3)",
    "m._foreach_add(tuple(a), m.tensor(2.0))",
    "m._foreach_mul(a, m.tensor(2.0))",
    "m._foreach_pow(2.0, a)",
    "m._foreach_norm(a)",
    "m._foreach_norm(a, 1)",
    "m._foreach_norm(a, float('inf'))",
    "m._foreach_mm([a[1]], [b[1].t()])",
    "m._foreach_add(a, [b[0]])",
    "m._foreach_add([], 1)",
    "m._foreach_add([1], 1)",
    "m._foreach_add(m.ones(2, 2), 1)",
]
IN_PLACE = [c.replace("(", "_(", 1) for c in CASES if "clone" not in c and "norm" not in c and "max(a)" not in c and "_mm" not in c]
CASES += [*(c for c in IN_PLACE if "2.0, a" not in c), "m._foreach_copy_(a, b)", "m._foreach_zero_(a)"]


def result(library, case):
    generator = [[0.25, 0.5, 0.75], [[0.1, 0.9], [0.4, 0.6]]], [[0.5, 0.3, 0.8], [[0.7, 0.2], [0.3, 0.9]]]
    a, b = ([library.tensor(values) for values in part] for part in generator)
    try:
        found = eval(case, {"m": library, "a": a, "b": b})
    except (RuntimeError, TypeError) as error:
        return type(error)
    return [type(found), found is a, *([t.tolist() for t in part] for part in (found, a, b))]


@pytest.mark.parametrize("case", CASES)
def test_as_pytorch(case):
    torch = pytest.importorskip("torch")
    ours, theirs = result(disttorch, case), result(torch, case)
    if isinstance(theirs, type):
        assert ours is theirs
        return
    assert ours[:2] == theirs[:2]
    for mine, other in zip(ours[2:], theirs[2:], strict=True):
        for x, y in zip(mine, other, strict=True):
            disttorch.testing.assert_close(disttorch.tensor(x), disttorch.tensor(y))


def test_gradients_flow():
    x = disttorch.tensor([1.0, 2.0], requires_grad=True)
    (y,) = disttorch._foreach_mul([x], 3)
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_every_name_is_pytorchs():
    torch = pytest.importorskip("torch")
    assert sorted(n for n in FOREACH if not hasattr(torch, n)) == []
    assert sorted(n for n in dir(torch) if n.startswith("_foreach_") and n not in FOREACH) == ["_foreach_powsum"]
