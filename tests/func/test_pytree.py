"""Nestings taken apart and put together, by PyTorch's names."""

import importlib
from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

Pair = namedtuple("Pair", "a b")
NESTED = {"z": [1, (2, None)], "p": Pair(3, OrderedDict(x=4)), "d": defaultdict(list, k=5), "q": deque([6], 3), "e": []}
CASES = [
    "p.tree_flatten(NESTED)[0]",
    "p.tree_flatten(NESTED)[1].num_leaves",
    "p.tree_unflatten(range(7), p.tree_structure(NESTED))",
    "p.tree_unflatten(range(7), p.tree_structure(NESTED))['d'].default_factory",
    "p.tree_unflatten(range(6), p.tree_structure(NESTED))",
    "p.tree_leaves(NESTED, is_leaf=lambda v: isinstance(v, tuple))",
    "list(p.tree_iter([1, [2]]))",
    "p.tree_structure(NESTED) == p.tree_structure(p.tree_map(str, NESTED))",
    "p.tree_structure(NESTED) == p.tree_structure([1])",
    "p.tree_structure(1).is_leaf(), p.tree_structure([1]).is_leaf()",
    "p.tree_map(lambda a, b: (a, b), {'a': 1, 'b': [2]}, {'b': [3], 'a': 4})",
    "p.tree_map(lambda a, b: (a, b), [1], [(2, 3)])",
    "p.tree_map(max, [1], [1, 2])",
    "p.tree_map(max, [1], (1,))",
    "p.tree_map(max, {'a': 1}, {'b': 1})",
    "p.tree_map(sum, [(1, 2), (3,)], is_leaf=lambda v: isinstance(v, tuple))",
    "p.tree_map_([].append, [1])",
    "p.tree_map_only(int, lambda v: v * 2, [1, 'a', 2.0])",
    "p.tree_map_only((int, str), str, [1, 'a', 2.0])",
    "p.tree_map_only(lambda v: v == 1, str, [1, 2])",
    "p.tree_all(bool, [1, 0]), p.tree_any(bool, [1, 0])",
]


def result(library, case):
    pytree = importlib.import_module(f"{library}.utils._pytree")
    try:
        return eval(case, {"p": pytree, "NESTED": NESTED})
    except ValueError:
        return ValueError


@pytest.mark.parametrize("case", CASES)
def test_as_pytorch(case):
    pytest.importorskip("torch")
    assert result("disttorch", case) == result("torch", case)
