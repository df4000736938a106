"""A stand-in for CuPy and a GPU, for machines that have none: NumPy behind CuPy's names, and the order of everything checked.

In a test::

    from tests import stand_in

    @pytest.fixture
    def cupy():
        with stand_in.installed() as cupy:      # sys.modules has cupy, cupyx, cupy.cuda, ... until the end of the block
            yield cupy

or for a whole run of pytest, with tensors made there by default::

    pytest -p tests.stand_in.plugin --device=stand-in tests/ops

What it finds that NumPy would not:

- names, arguments and types of elements that CuPy has not (``cupy_names.json`` is written from the real CuPy by ``record.py``), NumPy's
  arrays as operands, and hidden copies to the host;
- memory read before it is ready, or used again before its last use is over, where streams are not ordered by events (`order`);
- memory outside of a block, or of a block that was freed; uninitialised memory is NaN;
- waiting for the device where nothing may: within a capture, or `no_synchronisation`;
- pinned memory read before a copy to it, or changed before a copy from it, is done.

Operations run at once, in the calling thread; a stream that a test holds (`held`), or in which NCCL waits for another rank, queues them.
Kernels that our sources bring themselves are compiled for the host by ``host_cuda``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import devices, driver, graphs, memory, modules, streams
from .devices import BUS, set_count, total_memory
from .operations import count_calls
from .order import OrderError, host, lock, state
from .streams import CUDARuntimeError, delayed, gate, held

__all__ = [
    "BUS", "CUDARuntimeError", "OrderError", "calls", "check", "delayed", "gate", "held", "install", "installed", "no_synchronisation",
    "reset", "set_count", "synchronize", "total_memory", "turned",
]  # fmt: skip

BACKEND = "disttorch.backend.cuda"


def install() -> Any:
    """Put it in place for good, before anything imports CuPy; the module ``cupy``."""
    return sys.modules["cupy"] if "cupy" in modules.MODULES else modules.put_in_place()


@contextmanager
def installed(devices: int = 1) -> Iterator[Any]:
    """It is there within the with-block; what it has seen is checked at the end."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("cupy", "cupyx", "cuda", "cudnn")}
    already = "cupy" in modules.MODULES and sys.modules.get("cupy") is modules.MODULES["cupy"]
    if not already:
        for name in before:
            del sys.modules[name]
        modules.put_in_place()
    set_count(devices)
    try:
        yield sys.modules["cupy"]
        check()
    finally:
        reset()
        if not already:
            for name in modules.MODULES:
                sys.modules.pop(name, None)
            modules.MODULES.clear()
            sys.modules.update(before)
            driver.take_away()
            forget_backend()


def forget_backend() -> None:
    """Let ``disttorch`` import its CUDA backend afresh when it needs it next, and make its streams of random numbers anew."""
    backend = sys.modules.get(BACKEND)
    for name in [name for name in sys.modules if name == BACKEND or name.startswith(f"{BACKEND}.")]:
        del sys.modules[name]
    package = sys.modules.get("disttorch.backend")
    if package is not None and getattr(package, "cuda", None) is backend is not None:
        del package.cuda
    random = sys.modules.get("disttorch.ops.random")
    for where in [where for where in getattr(random, "_generators", ()) if where.type == "cuda"]:
        del random._generators[where]  # type: ignore[union-attr]


def synchronize() -> None:
    """Wait for all devices."""
    for number in range(devices.count()):
        devices.synchronize_device(number)


def check() -> None:
    """Wait for everything, and raise what was found where nothing could be raised.

    Raises
    ------
    OrderError
    """
    synchronize()
    if state.failures:
        failures, state.failures = state.failures, []
        raise OrderError("; ".join(failures))


def reset() -> None:
    """One device, its default stream the current one, nothing forbidden, nothing counted."""
    with lock:
        devices.set_count(1)
        devices.total_memory.clear()
        devices.BUS.clear()
        devices.select(0)
        state.failures, state.forbid_synchronisation, state.calls = [], "", None
        state.turned = None
        for capture in list(graphs.open_captures):
            for line in capture.lines:
                line.capture = None
        graphs.open_captures.clear()
        memory.set_allocator(memory.default_pool.malloc)
        memory.lose_abandoned()
        streams._local.__dict__.clear()


@contextmanager
def no_synchronisation(why: str = "and it must not here") -> Iterator[None]:
    """Within the with-block the host must not wait for the device, nor copy anything from it."""
    state.forbid_synchronisation = why
    try:
        yield
    finally:
        state.forbid_synchronisation = ""


@contextmanager
def turned() -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Within the with-block, the names and shapes of what laid images out in another order of dimensions than it read them in."""
    state.turned = []
    try:
        yield state.turned
    finally:
        state.turned = None


@contextmanager
def calls() -> Iterator[list[str]]:
    """The names of all that is launched within the with-block, as a list."""
    try:
        yield count_calls()
    finally:
        state.calls = None


_ = host
