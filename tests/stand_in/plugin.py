"""Runs tests with tensors made on the stand-in for a GPU: ``pytest -p tests.stand_in.plugin --device=stand-in tests/ops``.

Tests are written for the CPU and say nothing of devices. Here the default device is ``cuda``, and what they compare comes back to the
host on its way: ``Tensor.numpy``, NumPy's conversions and ``from_numpy`` are patched for the run, the product is as it is. Tests that are
about the CPU are left out: by ``@pytest.mark.cpu_only("why")``, or by the list in `left_out`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from tests import stand_in
from tests.stand_in.left_out import why_left_out

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=["cpu", "stand-in", "cuda"], default="cpu", help="where tensors are made; cuda: on a real GPU"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if early_config.known_args_namespace.device == "stand-in":
        stand_in.install()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") != "cpu":
        import disttorch

        disttorch.set_default_device("cuda")  # also while tests are collected: many make their tensors at the top of a file
        _patch()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        return
    for item in items:
        mark = item.get_closest_marker("cpu_only")
        reason = why_left_out(item.nodeid) if mark is None else mark.args[0]
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if item.config.getoption("--device") == "cpu":
        return (yield)
    import disttorch

    disttorch.set_default_device("cuda")
    try:
        result = yield
        if item.config.getoption("--device") == "stand-in":
            stand_in.check()
        return result
    finally:
        stand_in.state.failures.clear()


class _View:
    """A view of the memory of an array of the device, which keeps it: tests ask which tensors share memory, too."""

    def __init__(self, array: Any):
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        values = self.array._a
        return {"shape": values.shape, "strides": values.strides, "typestr": f"|V{values.itemsize}", "version": 3,
                "data": (values.__array_interface__["data"][0], False)}  # fmt: skip

    def values(self) -> np.ndarray:
        return np.asarray(self).view(self.array.dtype)


def _patch() -> None:
    import disttorch

    disttorch.backends.cudnn.allow_tf32 = False  # tests of float32 are exact to its rounding

    tensor: Any = disttorch.Tensor
    numpy_of, array_of = tensor.numpy, tensor.__array__
    from_numpy = disttorch.from_numpy

    def on_host(self: Any) -> Any:
        if not self.is_cuda:
            return self
        stand_in.synchronize()
        on_memory = from_numpy(_View(self._array).values())
        return on_memory.requires_grad_() if self.requires_grad else on_memory

    def numpy(self: Any, *args: Any, **kwargs: Any) -> Any:
        return numpy_of(on_host(self), *args, **kwargs)

    def __array__(self: Any, *args: Any, **kwargs: Any) -> Any:
        return array_of(on_host(self), *args, **kwargs)

    def on_default_device(array: Any) -> Any:
        return from_numpy(array).to(disttorch.get_default_device())

    start = disttorch.Generator.__init__

    def begin(self: Any, device: Any = None) -> None:
        start(self, disttorch.get_default_device() if device is None else device)

    set_state = disttorch.Generator.set_state

    def go_to(self: Any, new_state: Any) -> Any:
        return set_state(self, new_state.cpu() if isinstance(new_state, tensor) else new_state)

    disttorch.Generator.__init__, disttorch.Generator.set_state = begin, go_to  # type: ignore[method-assign]
    disttorch.get_rng_state = lambda: disttorch.cuda.get_rng_state()
    disttorch.set_rng_state = lambda state: disttorch.cuda.set_rng_state(state.cpu())
    tensor.numpy, tensor.__array__ = numpy, __array__
    disttorch.from_numpy = on_default_device
