"""The state of a model that ranks have in common: compared, and copied from one rank to the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import collectives

from ..autograd.variable import Tensor, bump_version
from ..backend import namespace
from ..backend.layout import is_dense
from ..nn.module import Module

__all__ = ["check_models", "copy_from", "copy_model", "said"]

TOGETHER = 2**20
"""Bytes up to which a tensor is sent in one message with others; larger ones are sent from where they are."""
MESSAGE = 32 * 2**20


def copy_model(communicator: collectives.Communicator, module: Module, ignored: Collection[str], with_buffers: bool, root: int) -> None:
    """Compare the ranks' models, and make that of one rank everyone's, all but parameters and buffers of certain names."""
    named = [("parameter", n, t) for n, t in module.named_parameters() if n not in ignored]
    buffers = [("buffer", n, t) for n, t in module.named_buffers() if n not in ignored]
    everything = [*named, *(buffers if with_buffers else ())]
    check_models(communicator, everything)
    copy_from(communicator, root, [t for _, _, t in everything])


def check_models(communicator: collectives.Communicator, named: Iterable[tuple[str, str, Tensor]]) -> None:
    """Refuse models that are not the same on all ranks.

    Parameters
    ----------
    communicator : collectives.Communicator
    named : iterable of (kind, name, tensor)
        The parameters and buffers.

    Raises
    ------
    RuntimeError
        On all ranks; says which rank differs from rank 0 in what.
    """
    mine = [(kind, name, str(t.dtype), tuple(t.shape), t.requires_grad, _order(t)) for kind, name, t in named]
    models = communicator.all_gather_object(mine)
    for rank, theirs in enumerate(models):
        difference = _difference(models[0], theirs)
        if difference is not None:
            raise RuntimeError(
                f"DistributedDataParallel: the models of the ranks differ: rank 0 has {difference[0]}, rank {rank} {difference[1]}"
            )


def _order(t: Tensor) -> tuple[int, ...] | None:
    """The strides of a parameter whose gradient does not lie in C order in its bucket: there ranks add up what lies in one place."""
    a = t._array
    if not t.requires_grad or a.flags.c_contiguous or not is_dense(a):
        return None
    return tuple([s // a.itemsize if n > 1 else 0 for s, n in zip(a.strides, a.shape)])


def _difference(first: list[tuple], other: list[tuple]) -> tuple[str, str] | None:
    """The first place where two models differ, in words."""

    def words(entry: tuple | None) -> str:
        if entry is None:
            return "no such parameter or buffer"
        kind, name, dtype, shape, requires_grad, order = entry
        lies = "" if order is None else f", not in C order but with strides {list(order)},"
        return f"{kind} {name!r} of {dtype} and shape {list(shape)}{lies}{'' if requires_grad or kind == 'buffer' else ' without gradient'}"

    for i in range(max(len(first), len(other))):
        a = first[i] if i < len(first) else None
        b = other[i] if i < len(other) else None
        if a != b:
            return words(a), words(b)
    return None


def copy_from(communicator: collectives.Communicator, root: int, tensors: Iterable[Tensor], *, notice: bool = True) -> None:
    """Overwrite tensors with those of one rank; small ones of one dtype in one message.

    Parameters
    ----------
    communicator : collectives.Communicator
    root : int
        The rank that keeps its own.
    tensors : iterable of Tensor
        Of the same shapes and dtypes on all ranks.
    notice : bool
        Whether graphs that have saved one of them shall notice that it changed.
    """
    if communicator.size == 1:
        return
    by_kind: dict[Any, list[Tensor]] = {}
    works = []
    for t in tensors:
        if notice and communicator.rank != root:
            bump_version(t)
        if t._array.nbytes > TOGETHER:
            works.append(communicator.broadcast(t._array, root, async_op=True))
        else:
            by_kind.setdefault((t._array.dtype, str(t.device)), []).append(t)
    for members in by_kind.values():
        for part in _messages(members):
            _copy_together(communicator, root, part)
    for work in works:
        work.wait()


def _messages(tensors: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    part: list[Tensor] = []
    size = 0
    for t in tensors:
        part.append(t)
        size += t._array.nbytes
        if size >= MESSAGE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _copy_together(communicator: collectives.Communicator, root: int, tensors: Sequence[Tensor]) -> None:
    flat = namespace(tensors[0]._array).concatenate([t._array.reshape(-1) for t in tensors])
    communicator.broadcast(flat, root)
    if communicator.rank == root:
        return
    start = 0
    for t in tensors:
        stop = start + t._array.size
        t._array[...] = flat[start:stop].reshape(t._array.shape)
        start = stop


def said(names: Sequence[str], most: int = 10) -> str:
    """Names in a message, not more than a reader wants.

    Examples
    --------
    >>> said(["a", "b", "c"], most=2)
    'a, b, ... (1 more)'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names) - most} more)"
