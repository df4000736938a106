"""The suites that every backend must pass, each file in a process of its own with the device selected."""

import pytest

from tests.gpu.conftest import SUITES
from tests.gpu.pool import ROOT

CASES = [
    ("suite", "", str(path.relative_to(ROOT))) for folder in SUITES for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))
]


@pytest.mark.parametrize("piece", CASES, ids=[name for *_, name in CASES])
def test_suite(piece, outcome):
    outcome(piece)
