"""Runs tests with tensors made on the stand-in for a GPU: ``pytest -p tests.stand_in.plugin --device=stand-in tests/ops``.

Tests are written for the CPU and say nothing of devices. Here the default device is ``cuda``, and what they compare comes back to the
host on its way: ``Tensor.numpy``, NumPy's conversions and ``from_numpy`` are patched for the run, the product is as it is. Tests that are
about the CPU are left out: by ``@pytest.mark.cpu_only("why")``, or by the list in `left_out`. On a GPU (``--device=cuda``) all of it is
the same, so here nothing is asked of an array that CuPy's have not.
"""

from __future__ import annotations

from collections.abc import Generator, MutableMapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from tests import stand_in
from tests.gpu.machine import OF_LIBRARIES, import_quietly
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
    if config.getoption("--device") == "cuda":
        for line in OF_LIBRARIES:
            config.addinivalue_line("filterwarnings", line)
        if find_spec("torch") is not None:
            import_quietly("torch")
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


def _seen_from_host(array: Any) -> np.ndarray:
    """An array in a copy of the memory that it lies on: one copy for each memory, since tests ask which tensors share it, too."""
    from disttorch.backend import namespace

    xp = namespace(array)
    start, size = xp.storage_of(array)
    if not array.size:
        return np.empty(array.shape, array.dtype)
    mirror = np.empty(size, np.uint8)
    with suppress(TypeError):  # CuPy's own memory, of other libraries' arrays, cannot be referred to weakly
        mirror = _mirrors.setdefault(array.data.mem, mirror)
    mirror[:] = xp.to_host(xp.restride(array, (size,), (1,), start - xp.address_of(array), np.uint8))
    return np.ndarray(array.shape, array.dtype, mirror, xp.address_of(array) - start, array.strides)


_mirrors: MutableMapping[Any, np.ndarray] = WeakKeyDictionary()


def _patch() -> None:
    import disttorch

    disttorch.backends.cudnn.allow_tf32 = False  # tests of float32 are exact to its rounding

    tensor: Any = disttorch.Tensor
    numpy_of, array_of = tensor.numpy, tensor.__array__
    from_numpy = disttorch.from_numpy

    def on_host(self: Any) -> Any:
        if not hasattr(self._array, "__cuda_array_interface__"):  # as one whose samples vmap hides, which says itself that it cannot
            return self
        disttorch.cuda.synchronize()
        on_memory = from_numpy(_seen_from_host(self._array))
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
