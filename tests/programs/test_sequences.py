"""Programs of sequences, written for PyTorch, learn what they shall."""

import pytest

from tests.programs.running import SEQUENCES, check_ours


@pytest.mark.parametrize("name", SEQUENCES)
def test_program(name, tmp_path):
    check_ours(name, tmp_path)
