"""Every kernel test runs twice: with the plain implementations and with the CPU's own."""

from typing import Any

import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.namespace import Namespace


@pytest.fixture(params=["plain", "fast"])
def xp(request: pytest.FixtureRequest) -> Any:
    """The namespace under test."""
    return Namespace("cpu", np) if request.param == "plain" else cpu


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
