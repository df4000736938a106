"""Every kernel test runs twice: with the plain implementations and with the CPU's own; a third time with CUDA's on the stand-in for a
GPU, where that is installed (``-p tests.stand_in.plugin --device=stand-in``).
"""

import sys
from typing import Any

import numpy as np
import pytest

from disttorch.backend import cpu, for_device
from disttorch.backend.namespace import Namespace

#: the stand-in's module has no file
STAND_IN = "cupy" in sys.modules and not hasattr(sys.modules["cupy"], "__file__")


class OnDevice:
    """The CUDA world for tests that have NumPy's arrays: they go to the device and come back, also what was changed in place."""

    def __init__(self, world: Any):
        self.world = world

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.world, name)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            sent: list[tuple[np.ndarray, Any]] = []
            result = value(*(self._sent(each, sent) for each in args), **{key: self._sent(each, sent) for key, each in kwargs.items()})
            for here, there in sent:
                if here.flags.writeable:
                    here[...] = there.get()
            return self._back(result)

        return call

    def _sent(self, value: Any, sent: list[tuple[np.ndarray, Any]]) -> Any:
        if isinstance(value, np.ndarray):
            for here, there in sent:
                if here is value:
                    return there
            sent.append((value, self.world.array(value)))
            return sent[-1][1]
        if isinstance(value, (list, tuple)):
            parts = [self._sent(each, sent) for each in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, dict):
            return {key: self._sent(each, sent) for key, each in value.items()}
        return value

    def _back(self, value: Any) -> Any:
        if isinstance(value, self.world.ndarray):
            return value.get()
        if isinstance(value, (list, tuple)):
            parts = [self._back(each) for each in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, dict):
            return {key: self._back(each) for key, each in value.items()}
        return value


@pytest.fixture(params=["plain", "fast", *(["stand-in"] if STAND_IN else [])])
def xp(request: pytest.FixtureRequest) -> Any:
    """The namespace under test."""
    if request.param == "stand-in":
        return OnDevice(for_device("cuda")[0])
    return Namespace("cpu", np) if request.param == "plain" else cpu


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
