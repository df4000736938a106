"""Post-local SGD (Lin et al., "Don't use large mini-batches, use local SGD", ICLR 2020) as a communication hook.

First gradients are averaged over all ranks, later only over some, such as a node's, and the models of all from time to time
(`algorithms.model_averaging`).
"""

from __future__ import annotations

from typing import Any

from ....futures import Future
from ...buckets import GradBucket
from ...groups import joined
from .default_hooks import mean

__all__ = ["PostLocalSGDState", "post_localSGD_hook"]


class PostLocalSGDState:
    """What `post_localSGD_hook` keeps.

    Parameters
    ----------
    process_group : ProcessGroup or None
        Over which gradients are averaged first; the world unless given.
    subgroup : ProcessGroup or None
        Over which they are averaged later; the ranks of this node unless given.
    start_localSGD_iter : int
        Backward passes before that.
    post_local_gradient_allreduce : bool
        Whether they are averaged later at all.

    Attributes
    ----------
    iter : int
        Backward passes so far.
    """

    def __init__(
        self,
        process_group: Any,
        subgroup: Any,
        start_localSGD_iter: int,
        post_local_gradient_allreduce: bool = True,
    ):
        self.process_group = process_group
        self.subgroup = subgroup
        self.start_localSGD_iter = start_localSGD_iter
        self.post_local_gradient_allreduce = post_local_gradient_allreduce
        self.iter = 0

    def maybe_increase_iter(self, bucket: GradBucket) -> None:
        """Count a backward pass when its last bucket comes."""
        if bucket.is_last():
            self.iter += 1


def post_localSGD_hook(state: PostLocalSGDState, bucket: GradBucket) -> Future:
    """The mean over all ranks in the first backward passes, and over the subgroup's ranks in the others.

    From then on the ranks' models differ, and are to be averaged from time to time.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(2, 1))
    >>> state = PostLocalSGDState(process_group=None, subgroup=None, start_localSGD_iter=100)
    >>> model.register_comm_hook(state, post_localSGD_hook)
    >>> model(disttorch.ones(1, 2)).sum().backward()
    >>> state.iter
    1
    >>> dist.destroy_process_group()
    """
    begins = state.iter < state.start_localSGD_iter
    state.maybe_increase_iter(bucket)
    if begins:
        return mean(state.process_group, bucket.buffer())
    if not state.post_local_gradient_allreduce:
        future = Future()
        future.set_result(bucket.buffer())
        return future
    if state.subgroup is None:
        group = joined(state.process_group)
        assert group is not None
        state.subgroup = group.communicator.node()
    return mean(state.subgroup, bucket.buffer())


#: Ranks of different subgroups are not to wait for each other.
post_localSGD_hook.synchronizes = False  # type: ignore[attr-defined]
