"""Whether cuDNN is here, and its handles: one for each thread and device, in the current stream."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import cupy
from cuda import pathfinder

from ...choices import CHOICES
from .. import capturing
from ..devices import HandedOn

__all__ = ["OfThread", "cudnn", "handle", "of_thread", "usable", "version"]

#: cuDNN 9 is the first whose graphs the frontend builds without leaving operations out.
OLDEST = 90000
#: from 9.11 on there are no kernels for compute capability 7.0
WITHOUT_VOLTA = 91100


@cache
def cudnn() -> ModuleType | None:
    """The module ``cudnn`` of nvidia-cudnn-frontend with the library behind it; None, said once, where one of them is missing."""
    try:
        # cuDNN opens these libraries by their names, and finds them if they are loaded already
        for name in ("cublas", "nvrtc"):
            with suppress(pathfinder.DynamicLibNotFoundError):
                pathfinder.load_nvidia_dynamic_lib(name)
        found = import_module("cudnn")
        number = found.backend_version()
    except (ImportError, OSError, RuntimeError) as error:  # no package, no library, or one without the functions that are asked for
        _say(str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    if number < OLDEST:
        _say(f"version {number} of cuDNN is too old, it must be {OLDEST} or later")
        return None
    return found


def _say(why: str) -> None:
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    warnings.warn(
        f"convolution and attention on CUDA are computed without cuDNN, which is slower: {why}. "
        f"To install it: pip install 'disttorch[cuda{major}]'",
        RuntimeWarning,
        stacklevel=3,
    )


def usable() -> bool:
    """Whether cuDNN may be used, is here, and knows the current device."""
    return CHOICES.cudnn and cudnn() is not None and _knows(cupy.cuda.runtime.getDevice())


@cache
def _knows(device: int) -> bool:
    """Whether cuDNN has kernels for a device; if not, it is said once."""
    found = cupy.cuda.runtime.getDeviceProperties(device)
    number = version()
    if number is None or number < WITHOUT_VOLTA or (found["major"], found["minor"]) >= (7, 5):
        return True
    _say(f"version {number} of cuDNN has no kernels for device {device} of compute capability {found['major']}.{found['minor']}")
    return False


def version() -> int | None:
    """cuDNN's version, such as 91002; None without it."""
    found = cudnn()
    return None if found is None else found.backend_version()


class OfThread:
    """A thread's handles, and its plans: neither may be used by two threads at a time.

    Attributes
    ----------
    handles : dict
        By the number of the device: the handle, and the stream it was last given.
    plans : OrderedDict
        By what they are for; see `plans`.
    """

    def __init__(self) -> None:
        self.handles: dict[int, list[Any]] = {}
        self.plans: OrderedDict[Any, Any] = OrderedDict()


_of_threads = HandedOn(OfThread, [])


def of_thread() -> OfThread:
    """The calling thread's."""
    found: OfThread = _of_threads.mine
    return found


def handle(device: int) -> Any:
    """This thread's handle for a device, which is the current one, in the current stream."""
    module = cudnn()
    assert module is not None
    stream = cupy.cuda.get_current_stream().ptr
    handles = of_thread().handles
    found = handles.get(device)
    if found is None:
        with capturing.may_call_the_driver():
            found = handles[device] = [module.create_handle(), None]
    if found[1] != stream:
        module.set_stream(handle=found[0], stream=stream)
        found[1] = stream
    return found[0]
