"""How elements lie in memory, by PyTorch's names. Every tensor here is strided.

A memory format is accepted wherever PyTorch takes one. ``channels_last`` means no copy and changes nothing: on the CPU convolutions
choose the layout that suits them by themselves, and on a GPU they compute in the order in which the tensors lie.
"""

from __future__ import annotations

from typing import Any

from .choices import CHOICES

__all__ = ["LAYOUTS", "MEMORY_FORMATS", "check_layout", "is_expanded", "is_writeable", "layout", "memory_format"]


class _Named:
    """A constant known by its name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"{CHOICES.package}.{self.name}"

    def __reduce__(self) -> str | tuple:
        return _constant, (self.name,)


class memory_format(_Named):
    """The order of dimensions in memory, such as ``disttorch.contiguous_format``."""

    __slots__ = ()


class layout(_Named):
    """How a tensor keeps its elements: ``disttorch.strided``."""

    __slots__ = ()


MEMORY_FORMATS = {
    name: memory_format(name) for name in ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")
}
LAYOUTS = {"strided": layout("strided")}


def _constant(name: str) -> _Named:
    return MEMORY_FORMATS.get(name) or LAYOUTS[name]


def check_layout(given: object) -> None:
    """Refuse a layout that no tensor has.

    Raises
    ------
    RuntimeError
        If it is not ``strided``, or None for it.
    """
    if given is not None and given is not LAYOUTS["strided"]:
        raise RuntimeError(f"tensors here are strided; there is no layout {given!r}")


def is_expanded(array: Any) -> bool:
    """Whether some places in memory stand for several elements."""
    return any(step == 0 and n > 1 for step, n in zip(array.strides, array.shape))


def is_writeable(array: Any) -> bool:
    """Whether an array's elements can be changed one by one. CuPy's arrays have no flag that says so."""
    try:
        return array.flags.writeable
    except AttributeError:
        return not is_expanded(array)
