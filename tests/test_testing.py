"""assert_close against PyTorch's: the same verdict; and what is said of it."""

import numpy as np
import pytest

import disttorch

NAN, INF = float("nan"), float("inf")
CASES = [
    "t([1.0, 2.0]), t([1.0, 2.1])",
    "t([1.0, 2.0]), t([1.0, 2.000001])",
    "t([1.0, 2.0]), t([1.0, 2.1]), rtol=0.1, atol=0",
    "t([1.0, 2.0]), t([1.0, 2.1]), rtol=0, atol=0",
    "m.ones(2), m.zeros(2), rtol=1e-3",
    "m.ones(2), m.zeros(2), atol=1e-3",
    "t(1.0), t(2.0)",
    "t([[1, 2], [3, 4]]), t([[1, 2], [9, 4]])",
    "t(3), t(4)",
    "t([True, True]), t([True, False])",
    "t([255], dtype=m.uint8), t([1], dtype=m.uint8)",
    "m.ones(2).half(), m.ones(2).half() * 1.01",
    "m.ones(2).bfloat16(), m.ones(2).bfloat16() * 1.01",
    "m.ones(2).double(), m.ones(2).double() + 1e-6",
    "m.ones(2) * 1j, m.ones(2) * 2j",
    "m.zeros(0), m.zeros(0)",
    "m.ones(2), m.ones(3)",
    "m.ones(2), m.ones(2).double()",
    "m.ones(2), m.ones(2).double(), check_dtype=False",
    "m.ones(2, 3).t(), m.ones(3, 2), check_stride=True",
    "m.ones(2, 3).t(), m.ones(3, 2)",
    "t([NAN]), t([NAN])",
    "t([NAN]), t([NAN]), equal_nan=True",
    "t([1.0, INF]), t([1.0, 2.0])",
    "m.nn.Parameter(m.ones(2)), m.ones(2)",
    "m.nn.Parameter(m.ones(2)), m.ones(2), allow_subclasses=False",
    "m.ones(2, 2), m.eye(2), msg='mine'",
    "m.ones(2, 2), m.eye(2), msg=lambda text: 'mine: ' + text",
    "1, 2",
    "1, 1.0",
    "1, 1.0, check_dtype=False",
    "1.0, 1.00000001",
    "1j, 1.1j",
    "INF, INF",
    "INF, 1.0",
    "1.0, INF",
    "NAN, NAN",
    "NAN, NAN, equal_nan=True",
    "True, False",
    "None, None",
    "None, 1",
    "np.float32(1), np.float32(2)",
    "np.float64(1), 1.0",
    "np.ones(2), np.ones(2) * 2",
    "np.ones(2), m.ones(2)",
    "(1, 2), [1, 2]",
    "[1], [1, 2]",
    "[1, {'a': m.ones(2)}], [1, {'a': m.zeros(2)}]",
    "{'a': [1, 2]}, {'a': [1, 3]}",
    "{'a': 1, 'b': 2}, {'b': 1, 'c': 2}",
    "'a', 'a'",
    "m.ones(1), [1.0]",
    "t(1), 1",
    "object(), object()",
]


def verdict(library, case):
    names = {"m": library, "t": library.tensor, "np": np, "NAN": NAN, "INF": INF, "close": library.testing.assert_close}
    try:
        return eval(f"close({case})", names), ""
    except (AssertionError, TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_pytorchs(case):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.testing")
    assert verdict(disttorch, case)[0] == verdict(torch, case)[0]


SAID = [
    ("t([[1.0, 2.0], [3.0, 4.0]]), t([[1.0, 2.0], [3.5, 4.0]])", "1 of 4 elements differ (25.0%)"),
    ("t([[1.0, 2.0], [3.0, 4.0]]), t([[1.0, 2.0], [3.5, 4.0]])", "largest absolute difference: 0.5 at (1, 0), 3.0 instead of 3.5"),
    ("t([1.0, 8.0]), t([2.0, 10.0])", "largest relative difference: 0.5 at (0,), 1.0 instead of 2.0"),
    ("t([1.0]), t([2.0]), rtol=0.125, atol=0.25", "(allowed: 0.25 + 0.125 * |expected|)"),
    ("t([True, True]), t([True, False])", "1 of 2 elements differ"),
    ("t(1.0), t(2.0)", "actual is 1.0, expected 2.0; they differ by 1.0, 0.5 of it"),
    ("1, 0", "actual is 1, expected 0; they differ by 1 ("),
    ("m.ones(2), m.ones(3)", "the shapes differ: actual has [2], expected [3]"),
    ("m.ones(2), m.ones(2).double()", "the dtypes differ: actual has disttorch.float32, expected disttorch.float64"),
    ("m.ones(2, 3).t(), m.ones(3, 2), check_stride=True", "the strides differ: actual has (1, 3), expected (2, 1)"),
    ("[1, {'a': m.ones(2)}], [1, {'a': m.zeros(2)}]", "at [1]['a']: 2 of 2"),
    ("{'a': 1, 'b': 2}, {'b': 1, 'c': 2}", "only expected has ['c'], only actual ['a']"),
    ("[1], [1, 2]", "the sequences have 1 items and 2"),
    ("None, 1", "actual is None, expected 1"),
    ("m.ones(2), m.zeros(2), rtol=1e-3", "atol is not given"),
    ("'a', 'a'", "cannot compare str with str"),
    ("m.ones(2, 2), m.eye(2), msg=lambda text: 'mine: ' + text", "mine: 2 of 4"),
]


@pytest.mark.parametrize(("case", "words"), SAID)
def test_what_is_said(case, words):
    assert words in verdict(disttorch, case)[1]
