"""Every operation on the device: results and derivatives in each dtype, beside the CPU's in float64."""

import pytest

from tests.gpu import inputs

CASES = [("operations", dtype, name) for dtype in inputs.DTYPES for name in inputs.operations()]


@pytest.mark.skipif(not CASES, reason="PyTorch is not installed, whose sample inputs these are")
@pytest.mark.parametrize("piece", CASES, ids=[f"{name}-{dtype}" for _, dtype, name in CASES])
def test_operation(piece, outcome):
    outcome(piece)
