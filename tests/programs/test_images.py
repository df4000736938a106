"""Programs of images, written for PyTorch, learn what they shall."""

import pytest

from tests.programs.running import IMAGES, check_ours


@pytest.mark.parametrize("name", IMAGES)
def test_program(name, tmp_path):
    check_ours(name, tmp_path)
