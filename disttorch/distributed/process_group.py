"""Process groups: PyTorch's names over the communicators of the package `collectives`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import collectives

from ..autograd.variable import Tensor

__all__ = [
    "GroupMember",
    "ProcessGroup",
    "ReduceOp",
    "communicator_of",
    "destroy_process_group",
    "get_backend",
    "get_global_rank",
    "get_group_rank",
    "get_node_local_rank",
    "get_process_group_ranks",
    "get_rank",
    "get_world_size",
    "group",
    "init_process_group",
    "is_available",
    "is_initialized",
    "new_group",
]


class ReduceOp:
    """How values are combined; the names of the reductions of `collectives.REDUCTIONS`."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "product"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


class ProcessGroup:
    """Some of a job's ranks, or all.

    Parameters
    ----------
    communicator : collectives.Communicator
    ranks : list of int
        Its members, as numbers in the world.
    """

    def __init__(self, communicator: collectives.Communicator, ranks: list[int]):
        self.communicator = communicator
        self.ranks = ranks

    def rank(self) -> int:
        """This process's number in the group."""
        return self.communicator.rank

    def size(self) -> int:
        """How many members there are."""
        return self.communicator.size

    def name(self) -> str:
        """What carries the arrays."""
        return self.communicator.transport

    def __repr__(self) -> str:
        return f"<ProcessGroup rank {self.rank()} of {self.size()} over {self.name()}>"


class GroupMember:
    """Markers in place of a group."""

    WORLD: ProcessGroup | None = None
    NON_GROUP_MEMBER = object()


class _Group:
    @property
    def WORLD(self) -> ProcessGroup | None:
        """The group of all ranks; None before `init_process_group`."""
        return GroupMember.WORLD


group = _Group()

#: PyTorch's names of backends, and the transports that they stand for here. Its "gloo" is what carries CPU tensors.
_TRANSPORTS = {None: "auto", "": "auto", "mpi": "mpi", "gloo": "auto", "local": "local", "auto": "auto"}


def is_available() -> bool:
    """Whether distributed training is there; it always is."""
    return True


def is_initialized() -> bool:
    """Whether `init_process_group` has been called."""
    return GroupMember.WORLD is not None


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: timedelta | None = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
) -> None:
    """Join the job's other ranks; alone, be a world of one. As ``torch.distributed.init_process_group``.

    Which rank this process is, and of how many, is taken from what started it: dlaunch, mpiexec, srun.

    Parameters
    ----------
    backend : {None, "mpi", "gloo", "local"}
        What carries the arrays. None, and PyTorch's "gloo", choose by how the process was started.
    init_method : str, optional
        ``"env://"`` or absent.
    world_size, rank : int
        Checked, where given, against what started the process.
    timeout, store, group_name, pg_options, device_id
        Accepted as in PyTorch.

    Raises
    ------
    RuntimeError
        If it was called already.
    ValueError
        If the backend is none of ours, or the rank or the world's size is another one.
    collectives.LaunchError
        If the process was not started so that ranks can meet; the message says how to.
    """
    if GroupMember.WORLD is not None:
        raise RuntimeError("trying to initialize the default process group twice!")
    if init_method not in (None, "env://"):
        raise ValueError(
            f"init_method {init_method!r} is not supported: ranks meet through MPI, started by dlaunch, mpiexec or srun; leave it out"
        )
    name = backend.lower() if isinstance(backend, str) else backend
    if isinstance(name, str) and ":" in name:  # "cpu:gloo,cuda:nccl"
        name = dict(part.split(":", 1) for part in name.split(",")).get("cpu", name)
    if name not in _TRANSPORTS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(repr(t) for t in _TRANSPORTS if t)}")
    communicator = collectives.connect(_TRANSPORTS[name])
    for what, given, found in (("rank", rank, communicator.rank), ("world_size", world_size, communicator.size)):
        if given not in (-1, found):
            communicator.close()
            raise ValueError(
                f"init_process_group: {what}={given} was given, but this process was started as {what} {found}"
            )
    GroupMember.WORLD = ProcessGroup(communicator, list(range(communicator.size)))


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Leave a group; without one, the world and all groups. As ``torch.distributed.destroy_process_group``.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    world = _world()
    if group is None or group is world:
        for other in (*_groups, world):
            other.communicator.close()
        _groups.clear()
        GroupMember.WORLD = None
        return
    if group not in _groups:
        raise ValueError("destroy_process_group: this group was destroyed already, or is not of this job")
    group.communicator.close()
    _groups.remove(group)


_groups: list[ProcessGroup] = []


def new_group(
    ranks: list[int] | None = None, timeout: Any = None, backend: str | None = None, pg_options: Any = None,
    use_local_synchronization: bool = False, group_desc: str | None = None, device_id: Any = None, sort_ranks: bool = True,
) -> Any:  # fmt: skip
    """A group of some ranks; every rank of the world calls it with the same ranks. As ``torch.distributed.new_group``.

    Parameters
    ----------
    ranks : list of int, optional
        Numbers in the world; all unless given.
    timeout, backend, pg_options, use_local_synchronization, group_desc, device_id
        Accepted as in PyTorch; the group is the world's, with fewer ranks.
    sort_ranks : bool
        Whether the group counts its ranks in the order of the world, or as they are given.

    Returns
    -------
    ProcessGroup, or GroupMember.NON_GROUP_MEMBER on the other ranks

    Raises
    ------
    ValueError
        If a number is no rank's, or stands twice.
    """
    world = _world()
    members = list(world.ranks if ranks is None else ranks)
    if sort_ranks:
        members.sort()
    if len(set(members)) != len(members) or any(not 0 <= r < world.size() for r in members):
        raise ValueError(f"new_group: ranks {ranks} must be different numbers from 0 to {world.size() - 1}")
    mine = world.rank()
    made = world.communicator.split(0 if mine in members else None, members.index(mine) if mine in members else 0)
    if made is None:
        return GroupMember.NON_GROUP_MEMBER
    _groups.append(ProcessGroup(made, members))
    return _groups[-1]


def _world() -> ProcessGroup:
    if GroupMember.WORLD is None:
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    return GroupMember.WORLD


def _group(given: Any) -> ProcessGroup:
    return _world() if given is None else given


def communicator_of(given: Any) -> collectives.Communicator | None:
    """The communicator of a group, of the world if None; None where this rank is no member."""
    return None if given is GroupMember.NON_GROUP_MEMBER else _group(given).communicator


def get_rank(group: Any = None) -> int:
    """This process's number in a group, -1 where it is no member. As ``torch.distributed.get_rank``."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else _group(group).rank()


def get_world_size(group: Any = None) -> int:
    """How many members a group has, -1 where this process is none. As ``torch.distributed.get_world_size``."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else _group(group).size()


def get_backend(group: Any = None) -> str:
    """What carries a group's arrays: "mpi" or "local"."""
    return _group(group).name()


def get_process_group_ranks(group: Any) -> list[int]:
    """A group's members as numbers in the world."""
    return list(_group(group).ranks)


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """A rank of the world as a number in a group.

    Raises
    ------
    ValueError
        If it is no member.
    """
    ranks = _group(group).ranks
    if global_rank not in ranks:
        raise ValueError(f"global rank {global_rank} is not part of group {group}")
    return ranks.index(global_rank)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """A number in a group as a rank of the world.

    Raises
    ------
    ValueError
        If the group has no such member.
    """
    ranks = _group(group).ranks
    if not 0 <= group_rank < len(ranks):
        raise ValueError(f"group rank {group_rank} is not part of group {group}")
    return ranks[group_rank]


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """This process's number among those of its node, as what started it says; for choosing a GPU.

    Raises
    ------
    RuntimeError
        If nothing says so and no other number is given.
    """
    told = collectives.environment().local_rank
    if told is not None:
        return told
    if fallback_rank is None:
        raise RuntimeError(
            "LOCAL_RANK is not in the environment. Consider passing fallback_rank to allow `get_node_local_rank` to work"
        )
    return fallback_rank


def check_tensor(name: str, argument: str, value: Any) -> Tensor:
    """Refuse what is no tensor, in PyTorch's words."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{argument}` of {name} to be of type Tensor, not {type(value).__name__}"
        )
    return value
