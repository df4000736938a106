"""Einstein's sums against NumPy's, in all of PyTorch's ways to write them."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck
from disttorch.ops.einsum import _plan

RNG = np.random.default_rng(11)

# equation, shapes
CASES = [
    ("i->i", [(3,)]), ("i->", [(3,)]), ("ij->ji", [(2, 3)]), ("ii->i", [(3, 3)]), ("ii", [(3, 3)]), ("iji->ij", [(3, 2, 3)]),
    ("iii->i", [(3, 3, 3)]), ("...ii->...i", [(2, 4, 4)]), ("ba", [(2, 3)]), ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]), ("ij,jk->ki", [(2, 3), (3, 4)]), ("ij,ij->", [(2, 3), (2, 3)]), ("i,j->ij", [(2,), (3,)]),
    ("i,j->ji", [(2,), (3,)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("bij,bjk->kib", [(2, 3, 4), (2, 4, 5)]),
    ("bi,bi->b", [(4, 3), (4, 3)]), ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)]), ("ij,kl->il", [(2, 3), (4, 5)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 3)]), ("...a,...a->...", [(2, 3, 4), (4,)]), ("a...,a...->...", [(2, 3), (2, 3)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("ab,bc,ca->", [(2, 3), (3, 4), (4, 2)]), ("i,i,i,i->", [(3,)] * 4),
    ("ab,bc,cd,de,ef,fg,gh->ah", [(2, 2)] * 7), ("ijk,jil->kl", [(2, 3, 4), (3, 2, 5)]), ("ij,k->ik", [(2, 3), (4,)]),
    ("i...,i...->i...", [(2, 3), (2, 3)]), (",ij->ij", [(), (2, 3)]), ("i,->i", [(3,), ()]), ("Ab,bA->A", [(2, 3), (3, 2)]),
    ("ij,jk->ik", [(0, 3), (3, 4)]), ("ij,jk->ik", [(2, 0), (0, 4)]), (" i j , j -> i ", [(2, 3), (3,)]),
    ("bi,bj,bij->b", [(2, 3), (2, 4), (2, 3, 4)]), ("aab,bc->ac", [(2, 2, 3), (3, 4)]),
]  # fmt: skip


def made(shapes):
    return [RNG.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize(("equation", "shapes"), CASES, ids=str)
def test_values(equation, shapes):
    arrays = made(shapes)
    found = disttorch.einsum(equation, *(disttorch.tensor(a) for a in arrays))
    expected = np.einsum(equation, *arrays)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("equation", "shapes"), [c for c in CASES if all(0 not in s for s in c[1])], ids=str)
def test_derivatives(equation, shapes):
    given = [disttorch.tensor(a, requires_grad=True) for a in made(shapes)]
    assert gradcheck(lambda *t: disttorch.einsum(equation, *t), given)
    if len(given) > 1:
        assert gradgradcheck(lambda *t: disttorch.einsum(equation, *t), given)


def test_dimensions_of_size_one_broadcast():
    a, b = made([(1, 3), (4, 3)])
    found = disttorch.einsum("ij,ij->i", disttorch.tensor(a), disttorch.tensor(b))
    np.testing.assert_allclose(found.numpy(), (a * b).sum(1), atol=1e-12)
    found = disttorch.einsum("ij,ik->jk", disttorch.tensor(a), disttorch.tensor(b))
    np.testing.assert_allclose(found.numpy(), np.einsum("ij,ik->jk", np.repeat(a, 4, 0), b), atol=1e-12)


def test_operands_as_a_list_and_numbers_for_letters():
    a, b = (disttorch.tensor(x) for x in made([(2, 3), (3, 4)]))
    expected = (a @ b).tolist()
    assert disttorch.einsum("ij,jk->ik", [a, b]).tolist() == expected
    assert disttorch.einsum(a, [0, 1], b, [1, 2], [0, 2]).tolist() == expected
    assert disttorch.einsum(a, [0, 1], b, [1, 51]).tolist() == expected
    assert disttorch.einsum(a, [..., 1], b, [1, 2], [..., 2]).tolist() == expected


def test_complex_and_whole_numbers():
    a, b = (RNG.normal(size=(3, 3)) + 1j * RNG.normal(size=(3, 3)) for _ in range(2))
    found = disttorch.einsum("ij,kj->ik", disttorch.tensor(a), disttorch.tensor(b))
    np.testing.assert_allclose(found.numpy(), a @ b.T, atol=1e-12)
    n = disttorch.arange(6).reshape(2, 3)
    assert disttorch.einsum("ij,kj->ik", n, n).tolist() == [[5, 14], [14, 50]]


def test_several_operands_are_multiplied_in_the_cheapest_order():
    # (A B) v costs 10,000 products, A (B v) 200; and the outer product of the ends would be the worst
    plan = _plan("ij,jk,k->i", ((100, 100), (100, 100), (100,)))
    assert [(p.first, p.second) for p in plan.pairs] == [(1, 2), (0, 1)]
    assert all(p.is_product for p in plan.pairs)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("ij,jk->ik", (2, 3)), RuntimeError, "1 for 2"),
        (("ij", (2, 3), (2, 3)), RuntimeError, "2 for 1"),
        (("ijk", (2, 3)), RuntimeError, r"\(3\) does not match the number of dimensions \(2\)"),
        (("i.j", (2, 3)), RuntimeError, "not part of any ellipsis"),
        (("i1", (2, 3)), RuntimeError, "invalid subscript.*'1'"),
        (("ij->k", (2, 3)), RuntimeError, "k does not appear"),
        (("ij->ii", (2, 3)), RuntimeError, "i appears more than once"),
        (("ii", (2, 3)), RuntimeError, "sizes don't match, 3 != 2"),
        (("ij,jk", (2, 3), (4, 5)), RuntimeError, "j has size 3 and, in operand 1, 4"),
        (("......", (2, 3)), RuntimeError, "already found"),
        ((), ValueError, "at least one operand"),
    ],
)
def test_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        disttorch.einsum(*arguments[:1], *(disttorch.ones(s) for s in arguments[1:]))
