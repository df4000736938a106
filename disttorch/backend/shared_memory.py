"""Memory that processes share: what a fork inherits, and what other processes are sent as a descriptor.

A block is a memfd: it has no name, so nothing is left behind when processes are killed, and it is not limited by the size of
/dev/shm. It lives as long as an array of any process is on it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy

from .layout import is_dense, strides_like

__all__ = ["OnBlock", "for_pickle", "is_shared", "shared"]

_ALIGNMENT = 64  # a cache line, and the widest vector register


class Block(mmap.mmap):
    """Mapped shared memory, and the descriptor under which others can map it, too."""

    descriptor: int


def shared(arrays: Sequence[Any]) -> list[Any]:
    """Copies of arrays in one block, so that a model needs one descriptor and not one for each parameter.

    Raises
    ------
    OSError
        If there are too many open files.
    """
    begins, end = [], 0
    for a in arrays:
        begins.append(end)
        end += -(-a.nbytes // _ALIGNMENT) * _ALIGNMENT
    descriptor = os.memfd_create("disttorch-shared", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, max(end, 1))
    block = _mapped(descriptor)
    copies = []
    for a, begin in zip(arrays, begins):
        copy = numpy.ndarray(a.shape, a.dtype, block, begin, strides_like(a, a.itemsize) if is_dense(a) else None)
        copy[...] = a
        copies.append(copy)
    return copies


def is_shared(root: Any) -> bool:
    """Whether an array that is no view of another one lies in shared memory."""
    return _mapping(root) is not None


def _mapping(root: Any) -> Any:
    base = getattr(root.base, "obj", root.base)  # a memoryview may be between
    return base if isinstance(base, mmap.mmap) else None


def _mapped(descriptor: int) -> Block:
    _let_blocks_travel()
    block = Block(descriptor, os.fstat(descriptor).st_size)
    block.descriptor = descriptor
    weakref.finalize(block, os.close, descriptor).atexit = False
    return block


class OnBlock:
    """An array on a block, on its way in a pickle: multiprocessing sends the block's descriptor, elsewhere it is the array itself."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce__(self) -> tuple:
        return _itself, (self.array,)


def _itself(array: Any) -> Any:
    return array


def for_pickle(a: Any) -> Any:
    """What stands for an array in a pickle: itself, or an `OnBlock`."""
    return OnBlock(a) if a.size and isinstance(_mapping(_root(a)), Block) else a


@cache
def _let_blocks_travel() -> None:
    """Teach multiprocessing to send what lies in a block without copying it, once there is one."""
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.register(Block, _reduce_block)
    ForkingPickler.register(OnBlock, _reduce_array)


def _reduce_block(block: Block) -> tuple:
    from multiprocessing.reduction import DupFd

    return _received, (DupFd(block.descriptor),)


def _received(descriptor: Any) -> Block:
    return _mapped(descriptor.detach())


def _reduce_array(passed: OnBlock) -> tuple:
    a = passed.array
    block = _mapping(_root(a))
    begin = numpy.frombuffer(block, numpy.uint8, 1).__array_interface__["data"][0]
    return _array, (block, a.dtype, a.shape, a.strides, a.__array_interface__["data"][0] - begin, a.flags.writeable)


def _array(block: Block, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool) -> Any:
    a = numpy.ndarray(shape, dtype, block, offset, strides)
    a.flags.writeable = writeable
    return a


def _root(a: Any) -> Any:
    while isinstance(a.base, numpy.ndarray):
        a = a.base
    return a
