"""Ranks that run out of inputs before others: they take part, with nothing, in what `DistributedDataParallel` does on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import namespace
from .algorithms.join import JoinHook
from .buffer_sync import BufferCommHookLocation

if TYPE_CHECKING:
    from .data_parallel import DistributedDataParallel

__all__ = ["DDPJoinHook", "agree"]


class DDPJoinHook(JoinHook):
    """Shadows the passes of a model on a rank that has no more inputs.

    Parameters
    ----------
    model : DistributedDataParallel
    divide_by_initial_world_size : bool
        Whether gradients are divided by the number of all ranks, or of those that have inputs.
    """

    def __init__(self, model: DistributedDataParallel, divide_by_initial_world_size: bool):
        self._model = model
        self._under_way = False
        model._divide_by_initial_world_size = divide_by_initial_world_size
        model.reducer.reductions.scale = 1.0

    def main_hook(self) -> None:
        """One forward and one backward pass of the others.

        Their backward pass may come after the forward passes of other models, so it is begun here, and completed by the next call.
        """
        model = self._model
        with model._there():
            self._complete()
            root, reduces, copies_buffers = agree(model, -1, False, False)
            if not reduces:
                return
            model.reducer.before_forward()
            if copies_buffers:
                for location in BufferCommHookLocation:
                    model._sync_buffers(location, model._buffers_to_copy(), root)
            model.reducer.begin_shadow()
            self._under_way = True
            if model.reducer.reductions.hook is not None:
                self._complete()  # a hook may take several steps, which the others take in their backward pass

    def _complete(self) -> None:
        if self._under_way:
            self._under_way = False
            self._model.reducer.end_shadow()

    def post_hook(self, is_last_joiner: bool) -> None:
        """Everyone gets the model of a rank that went on longest."""
        model = self._model
        model.reducer.reductions.scale = 1.0
        with model._there():
            self._complete()
            root, *_ = agree(model, model._communicator.rank if is_last_joiner else -1, False, False)
            model._copy_model(model.forward_sync_buffers, root)


def agree(model: DistributedDataParallel, rank: int, reduces: bool, copies_buffers: bool) -> tuple[int, bool, bool]:
    """Among ranks with and without inputs: the highest rank that has some, whether backward is reduced, buffers copied."""
    like = model.reducer.entries[0].parameter._array
    xp = namespace(like)
    mine = xp.asarray([rank, reduces, copies_buffers], dtype="int64")
    model._communicator.all_reduce(mine, "max")
    root, any_reduces, any_copies = (int(v) for v in xp.to_host(mine))
    return root, bool(any_reduces), bool(any_copies)
