"""Every kernel test runs twice: with the plain implementations and with the CPU's own; a third time with CUDA's on the device of the run,
if it has one: a GPU or the stand-in for it (``-p tests.stand_in.plugin --device=stand-in``).
"""

from typing import Any

import numpy as np
import pytest

from disttorch.backend import cpu, for_device
from disttorch.backend.namespace import Namespace


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The worlds that `xp` stands for."""
    if "world" in metafunc.fixturenames:
        device = metafunc.config.getoption("--device", default="cpu")
        metafunc.parametrize("world", ["plain", "fast", *([device] if device != "cpu" else [])])


@pytest.fixture
def xp(world: str) -> Any:
    """The namespace under test."""
    if world not in ("plain", "fast"):
        return OnDevice(for_device("cuda")[0])
    return Namespace("cpu", np) if world == "plain" else cpu


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
