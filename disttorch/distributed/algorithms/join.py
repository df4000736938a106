"""Join: training where some ranks run out of inputs before the others; as ``torch.distributed.algorithms.join``.

A rank whose loop has ended takes part in the others' collectives with nothing to say ("shadows" them) until all loops have
ended. What it must shadow is said by the hooks of the objects that call the collectives.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from ...ops import creation
from ..collective import all_reduce
from ..groups import get_rank
from ..work import Work

__all__ = ["Join", "JoinHook", "Joinable"]

WARN_AFTER = 1000
"""Iterations in which a rank had no inputs any more, after which it says so."""


class JoinHook:
    """What a rank without inputs does for one `Joinable`; as ``torch.distributed.algorithms.JoinHook``."""

    def main_hook(self) -> None:
        """Shadow the collectives of one training iteration; called as long as a rank has inputs."""

    def post_hook(self, is_last_joiner: bool) -> None:
        """Called once on every rank when no rank has inputs any more.

        Parameters
        ----------
        is_last_joiner : bool
            Whether this rank is one of those whose inputs lasted longest.
        """


class _JoinConfig(NamedTuple):
    """What a `Joinable` knows of the with-block that it is in."""

    enable: bool = False
    throw_on_early_termination: bool = False
    is_first_joinable: bool = False
    counting: list[Work] | None = None
    """The last work that counts the ranks with inputs, in a list that all joinables have together."""


class Joinable(ABC):
    """What calls collectives in every training iteration and can be shadowed; as ``torch.distributed.algorithms.Joinable``.

    Its class calls ``Joinable.__init__``, and `Join.notify_join_context` before the collectives of each iteration.
    """

    @abstractmethod
    def __init__(self) -> None:
        super().__init__()
        self._join_config = _JoinConfig()

    @abstractmethod
    def join_hook(self, **kwargs: Any) -> JoinHook:
        """The hook that shadows its collectives; `kwargs` are those that `Join` was given."""

    def _stand_apart(self) -> None:
        """Called on every rank before `join_hook` where one of the same class stands before it in the with-block.

        What it begins in an iteration and completes later must not be taken for what the other one does. Here nothing is.
        """
        return

    @property
    @abstractmethod
    def join_device(self) -> Any:
        """The device from which it communicates."""

    @property
    @abstractmethod
    def join_process_group(self) -> Any:
        """The group in which it communicates."""


class Join:
    """A with-block around a training loop whose number of iterations may differ from rank to rank.

    As ``torch.distributed.algorithms.Join``.

    Parameters
    ----------
    joinables : list of Joinable
        Whose collectives are shadowed, in this order: that in which the loop has them. Of several DistributedDataParallel it is the
        order of their forward passes, each one in an iteration; backward passes may come in any order, also after all forward passes,
        if none has a communication hook.
    enable : bool
        False: do nothing, for inputs that are known to be even.
    throw_on_early_termination : bool
        Instead of shadowing, let every rank raise as soon as one has no inputs any more.
    **kwargs
        For the joinables' hooks.

    Raises
    ------
    ValueError
        If there is no joinable, or they communicate in different groups.
    RuntimeError
        On all ranks, with `throw_on_early_termination`, when a rank has no inputs any more.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> from disttorch.distributed.algorithms.join import Join
    >>> dist.init_process_group("local")
    >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(1, 1))
    >>> with Join([model]):
    ...     for _ in range(2 + dist.get_rank()):
    ...         model(disttorch.ones(1, 1)).sum().backward()
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, joinables: Sequence[Joinable], enable: bool = True, throw_on_early_termination: bool = False, **kwargs: Any
    ):
        if not joinables:
            raise ValueError("The join context manager requires at least one joinable")
        self._joinables = list(joinables)
        self._enable, self._throws = enable, throw_on_early_termination
        self._group = self._joinables[0].join_process_group
        if any(j.join_process_group is not self._group for j in self._joinables):
            raise ValueError("Using join context manager with multiple process groups")
        for i, j in enumerate(self._joinables):
            if enable and any(type(before) is type(j) for before in self._joinables[:i]):
                j._stand_apart()
        self._hooks = [j.join_hook(**kwargs) for j in self._joinables]

    def __enter__(self) -> None:
        counting: list[Work] = []
        for i, j in enumerate(self._joinables):
            j._join_config = _JoinConfig(self._enable, self._throws, i == 0, counting)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if self._enable and kind is None:
                self._shadow()
        finally:
            for j in self._joinables:
                j._join_config = _JoinConfig()

    def _shadow(self) -> None:
        """Take part in the others' iterations until there are none any more."""
        rank = get_rank(self._group)
        shadowed = 0
        while _add(self._joinables[0], 0).result()[0].item():
            if self._throws:
                _add(self._joinables[0], 1).wait()
                raise RuntimeError(f"Rank {rank} exhausted all inputs.")
            shadowed += 1
            if shadowed == WARN_AFTER + 1:
                warnings.warn(
                    f"Detected uneven input skew of greater than {WARN_AFTER}. This means that rank {rank} has at least {WARN_AFTER} "
                    "fewer inputs than other currently-active ranks. This level of skew could lead to performance degradation during "
                    "training.",
                    stacklevel=4,
                )
            for hook in self._hooks:
                hook.main_hook()
        for hook in self._hooks:
            hook.post_hook(shadowed == 0)

    @staticmethod
    def notify_join_context(joinable: Joinable) -> Work | None:
        """Say that this rank has inputs; called by a `Joinable` before the collectives of each iteration.

        Returns
        -------
        Work or None
            Where `joinable` is the first of a with-block: the collective under way whose result is the number of ranks that
            have inputs. None for others, and outside of a with-block.

        Raises
        ------
        RuntimeError
            With `throw_on_early_termination`, if a rank has none any more.
        """
        if not hasattr(joinable, "_join_config"):
            raise AssertionError(f"Check that the {type(joinable)} constructor calls the ``Joinable`` constructor")
        config = joinable._join_config
        if not (config.enable and config.is_first_joinable):
            return None
        work = _add(joinable, 1)
        if config.throw_on_early_termination and _add(joinable, 0).result()[0].item():
            raise RuntimeError("Detected at least one rank that exhausted inputs. Throwing across all ranks.")
        if config.counting is not None:
            config.counting[:] = [work]
        return work


def _add(joinable: Joinable, mine: int) -> Work:
    """Begin to add up a number over the ranks."""
    number = creation.full((1,), mine, dtype="int32", device=joinable.join_device)
    work = all_reduce(number, group=joinable.join_process_group, async_op=True)
    assert work is not None
    return work
