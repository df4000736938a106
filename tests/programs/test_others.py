"""Programs of graphs, agents, distributions and second derivatives, written for PyTorch, learn what they shall."""

import pytest

from tests.programs.running import BOUNDS, HERE, OTHERS, check_ours


@pytest.mark.parametrize("name", OTHERS)
def test_program(name, tmp_path):
    check_ours(name, tmp_path)


def test_every_program_is_listed():
    assert sorted(p.stem for p in (HERE / "scripts").glob("*.py")) == sorted(BOUNDS)
