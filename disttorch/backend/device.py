"""Devices by PyTorch's names: "cpu", "cuda", "cuda:1"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["as_device", "device"]

_TYPES = ("cpu", "cuda")
#: PyTorch's that have a name, which programs compare with, and no tensors
_NAMED = ("meta", "mps", "xpu")
#: of the with-blocks of devices in this thread, the default devices before them
_outer: ContextVar[tuple[device, ...]] = ContextVar("disttorch.outer_devices", default=())


class device:
    """Where a tensor's elements live.

    Parameters
    ----------
    type : str or device or int
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a CUDA device's number. PyTorch's ``"meta"``, ``"mps"`` and ``"xpu"`` can be named and
        compared with; no tensor is there.
    index : int, optional
        The device's number, where `type` does not have it.

    Raises
    ------
    RuntimeError
        If there is no such kind of device, or the number is given twice or negative.

    Notes
    -----
    As a with-block, or around a function as a decorator, it is the default device meanwhile.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.device("cuda:1").index
    1
    """

    __slots__ = ("index", "type")

    def __init__(self, type: Any = "cpu", index: int | None = None):
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            type, index = "cuda", type
        kind, colon, number = str(type).partition(":")
        if kind not in _TYPES and kind not in _NAMED:
            raise RuntimeError(f"expected one of {', '.join(_TYPES)} device type at start of device string: {type!r}")
        if colon:
            if index is not None:
                raise RuntimeError(f"the device index stands twice: in {type!r} and as index={index}")
            if not number.isdigit():
                raise RuntimeError(f"invalid device string: {type!r}")
            index = int(number)
        if index is not None and index < 0:
            raise RuntimeError(f"a device index must not be negative, got {index}")
        self.type: str = kind
        self.index: int | None = index

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        from . import get_default_device, set_default_device

        before = get_default_device()
        set_default_device(self)
        _outer.set((*_outer.get(), before))
        return self

    def __exit__(self, *exception: Any) -> None:
        from . import set_default_device

        *rest, before = _outer.get()
        _outer.set(tuple(rest))
        set_default_device(before)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def on_device(*args: Any, **options: Any) -> Any:
            with self:
                return function(*args, **options)

        return on_device


def as_device(value: Any) -> device:
    """The device for a device, its name or its number."""
    return value if isinstance(value, device) else device(value)
