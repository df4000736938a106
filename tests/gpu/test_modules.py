"""Every module on the device, in training and in evaluation: results, gradients and state, beside the CPU's in float64."""

import pytest

from tests.gpu import inputs

CASES = [("modules", dtype, name) for dtype in ("float32", "bfloat16", "float16", "float64") for name in inputs.modules()]


@pytest.mark.skipif(not CASES, reason="PyTorch is not installed, whose sample inputs these are")
@pytest.mark.parametrize("piece", CASES, ids=[f"{name}-{dtype}" for _, dtype, name in CASES])
def test_module(piece, outcome):
    outcome(piece)
