"""Work: a collective under way, and collectives that are started together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import collectives

from ..autograd.variable import Tensor
from ..futures import Future
from .groups import ProcessGroup, member

__all__ = ["Work", "_coalescing_manager", "begin", "together"]


class Work:
    """A collective under way; as ``torch.distributed.Work``.

    Its tensors belong to it until it is complete: the results are in the tensors that were given.

    Parameters
    ----------
    works : sequence of collectives.Work
        What has to be complete.
    results : sequence of Tensor
        Where the results will be.
    """

    def __init__(self, works: Sequence[collectives.Work], results: Sequence[Tensor] = ()):
        self._works = list(works)
        self._results = list(results)
        self._future: Future | None = None

    def wait(self, timeout: Any = None) -> bool:
        """Return when it is complete. For tensors on GPUs over NCCL: at once, and what is computed on the current stream from now on
        comes behind it; the host waits only where there is a timeout, or TORCH_NCCL_BLOCKING_WAIT=1 is set.

        Parameters
        ----------
        timeout : timedelta or float, optional
            How long to wait at most, a float in seconds; as long as the group's timeout allows unless given. The
            collective goes on after it, and may be waited for again.

        Raises
        ------
        TimeoutError
            If it is not complete by then.
        collectives.CollectiveTimeoutError
            If the group's timeout has passed; the message names the ranks that have not come.
        collectives.CommunicationError
            If it failed.
        """
        seconds = timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout
        try:
            for work in self._works:
                work.wait(seconds or None)
        finally:
            if self._future is not None:
                self._tell(self._future)
        return True

    def synchronize(self) -> None:
        """As `wait`."""
        self.wait()

    def block_current_stream(self) -> None:
        """As `wait`: what is computed afterwards finds the results."""
        self.wait()

    def is_completed(self) -> bool:
        """Whether it is complete; lets it progress."""
        done = [work.test() for work in self._works]  # all of them, so that all progress
        if all(done) and self._future is not None:
            self._tell(self._future)
        return all(done)

    def is_success(self) -> bool:
        """Whether it is complete and went well."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> Exception | None:
        """What went wrong, once it is complete; None while it is under way or if it went well."""
        return next((error for work in self._works if (error := work.exception()) is not None), None)

    def result(self) -> list[Tensor]:
        """Wait, then return the tensors that received the results."""
        self.wait()
        return list(self._results)

    def source_rank(self) -> int:
        """After a completed receive the number in the group of the rank that sent; else an error.

        Raises
        ------
        RuntimeError
            If it is no receive, or not complete.
        """
        source = self._works[0].source if len(self._works) == 1 else None
        if source is None:
            raise RuntimeError("sourceRank() may only be called on completed work objects that correspond to a recv")
        return source

    def get_future(self) -> Future:
        """A future of the list of tensors that receive the results.

        Its callbacks are called where this work or the future is waited for, or asked whether it is complete.
        """
        if self._future is None:
            self._future = future = Future()
            if all(work.settled for work in self._works):
                self._tell(future)
            else:
                future._advance = self._advance
        return self._future

    def _advance(self, wait: bool) -> None:
        """Complete the future if the collective is complete; an error becomes the future's."""
        if not wait:
            self.is_completed()
            return
        assert self._future is not None
        try:
            for work in self._works:
                work.wait()
        except collectives.CommunicationError as error:
            self._future._settle(None, error)
        else:
            self._tell(self._future)

    def _tell(self, future: Future) -> None:
        if future._done or not all(work.settled for work in self._works):
            return
        error = self.exception()
        # Another thread may wait for the work, or for the future, and tell it at the same moment.
        future._settle(None if error is not None else list(self._results), error)

    def __repr__(self) -> str:
        return f"<Work {', '.join(repr(work)[6:-1] for work in self._works)}>"


def together(group: ProcessGroup) -> Any:
    """A with-block whose collectives go on together, within one that may be open already."""
    return nullcontext() if group.coalescing is not None else group.communicator.coalesce()


def begin(
    group: ProcessGroup,
    works: collectives.Work | Sequence[collectives.Work],
    async_op: bool,
    results: Sequence[Tensor] = (),
    finish: Callable[[], None] | None = None,
) -> Work | None:
    """What a function returns whose collectives were started: a Work where it is asynchronous, else nothing, when complete.

    Parameters
    ----------
    finish : callable, optional
        Brings the result of a single collective into the caller's tensors at completion.
    """
    if isinstance(works, collectives.Work):
        works = [works] if finish is None else [works.then(finish)]
    if not async_op and group.coalescing is None:
        for work in works:
            work.wait()
        return None
    started = Work(works, results)
    if group.coalescing is not None:
        group.coalescing.append(started)
    return started if async_op else None


class _CoalescingManager:
    """What a with-block of `_coalescing_manager` gives: the works that are under way."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def append(self, work: Work | None = None) -> None:
        """Wait for one more work."""
        if work is not None:
            self.works.append(work)

    def wait(self) -> None:
        """Return when all are complete."""
        for work in self.works:
            work.wait()


@contextmanager
def _coalescing_manager(group: Any = None, device: Any = None, async_ops: bool = False) -> Iterator[_CoalescingManager]:
    """Collectives of a group that are called in the with-block go on together; as PyTorch's function of this name.

    Parameters
    ----------
    group : ProcessGroup, optional
        The world unless given.
    device
        Accepted as in PyTorch.
    async_ops : bool
        Do not wait at the end of the block: the block's object has `wait`.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> parts = [disttorch.ones(2), disttorch.ones(3)]
    >>> with dist._coalescing_manager(async_ops=True) as together:
    ...     for part in parts:
    ...         dist.all_reduce(part)
    >>> together.wait()
    >>> dist.destroy_process_group()
    """
    manager = _CoalescingManager()
    joint = member("_coalescing_manager", group)
    if joint is None:
        yield manager
        return
    if joint.coalescing is not None:
        raise ValueError("_coalescing_manager: a block of this group is open already")
    joint.coalescing = []
    try:
        with joint.communicator.coalesce() as whole:
            yield manager
        results = [tensor for work in joint.coalescing for tensor in work._results]
        manager.append(Work([whole], results))
    finally:
        joint.coalescing = None
    if not async_ops:
        manager.wait()
