"""Compiles the CUDA sources beside this file when a kernel is first used on a device, and launches kernels.

Kernels take pointers, ``long long``, ``double`` and structures, and nothing else: CuPy passes arrays as the first, Python's int and
float as the next two, and NumPy arrays of one element as the last, so that no argument can have the wrong width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cupy

from .. import capturing

__all__ = ["ELEMENTS", "OPTIONS", "VARIANTS", "compiled", "declare", "function", "launch", "options", "text_of"]

SOURCES = Path(__file__).parent / "sources"
#: the names of element types in the sources, which are those of dtypes
ELEMENTS = ("float16", "bfloat16", "float32", "float64")
OPTIONS = ("--std=c++17",)

#: source -> the combinations of macros with which it may be compiled; tests compile them all for several architectures
VARIANTS: dict[str, list[dict[str, Any]]] = {}
_functions: dict[tuple, Any] = {}


def declare(source: str, variants: Iterable[dict[str, Any]]) -> None:
    """Say with which macros a source will be compiled."""
    VARIANTS[source] = list(variants)


def text_of(source: str) -> str:
    """A source with what all sources have in common before it."""
    return f'{(SOURCES / "common.cuh").read_text()}\n#line 1 "{source}"\n{(SOURCES / source).read_text()}'


def options(macros: dict[str, Any]) -> tuple[str, ...]:
    """The compiler's options that define macros."""
    return (*OPTIONS, *(f"-D{name}={value}" for name, value in macros.items()))


def function(source: str, name: str, **macros: Any) -> Any:
    """A kernel for the current device.

    Parameters
    ----------
    source : str
        A file in sources/.
    name : str
        The kernel's name in it.
    **macros
        What is defined for it, in the order of the source's declaration.

    Raises
    ------
    RuntimeError
        If it cannot be compiled; with the source, the options and the compiler's messages.
    """
    key = (cupy.cuda.runtime.getDevice(), source, name, *macros.values())
    try:
        return _functions[key]
    except KeyError:
        pass
    if macros not in VARIANTS[source]:
        raise ValueError(f"{source} is not declared to be compiled with {macros}")
    _functions[key] = made = compiled(source, text_of(source), name, options(macros))
    return made


def compiled(source: str, text: str, name: str, options: tuple[str, ...]) -> Any:
    """A kernel of a text of CUDA C++; `source` is what errors call it.

    Raises
    ------
    RuntimeError
        If it cannot be compiled.
    """
    try:
        with capturing.may_call_the_driver():  # to load it
            return cupy.RawModule(code=text, options=options, backend="nvrtc").get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        raise RuntimeError(
            f"the CUDA kernel {name} of {source} cannot be compiled with {' '.join(options)} for device "
            f"{cupy.cuda.runtime.getDevice()}:\n{error.get_message()}"
        ) from error


def launch(kernel: Any, grid: int | tuple[int, ...], block: int | tuple[int, ...], args: tuple, shared: int = 0) -> None:
    """Queue a kernel in the current stream.

    Parameters
    ----------
    kernel : kernel
        As `function` returns it.
    grid, block : int or tuple of int
    args : tuple
        Arrays, None for a null pointer, int for ``long long``, float for ``double``, NumPy arrays of one element for structures.
    shared : int
        Bytes of dynamic shared memory of a block.
    """
    kernel((grid,) if grid.__class__ is int else grid, (block,) if block.__class__ is int else block, args, shared_mem=shared)
