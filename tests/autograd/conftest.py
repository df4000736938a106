"""The fixtures that the specifications of differentiation share."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch, where it is installed."""
    return pytest.importorskip("torch")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
