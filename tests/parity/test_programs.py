"""The programs of tests/programs with PyTorch itself: the bounds that ours must keep are true of it."""

import pytest

pytest.importorskip("torch")

from tests.programs.running import BOUNDS, check, figures


@pytest.mark.parametrize("name", BOUNDS)
def test_program(name, tmp_path):
    found, _ = figures([], name, tmp_path)
    check(found, name)
