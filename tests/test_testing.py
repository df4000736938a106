"""assert_close against PyTorch's: the same verdict in the same words."""

import re

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


def said(library, case):
    names = {"m": library, "t": library.tensor, "np": np, "NAN": NAN, "INF": INF, "close": library.testing.assert_close}
    try:
        return eval(f"close({case})", names)
    except (AssertionError, TypeError, ValueError) as error:
        text = re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", str(error))  # the library's classes by their own names
        return type(error), text.replace("disttorch.", "torch.")


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("case", CASES)
def test_as_pytorch(case):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.testing")
    assert said(disttorch, case) == said(torch, case)
