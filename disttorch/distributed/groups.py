"""ProcessGroup: some of a job's ranks, or all; which groups there are, and who is who in them."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import collectives

from ..autograd.variable import Tensor
from ..backend import namespace
from .backend import BackendConfig

__all__ = [
    "GroupMember",
    "ProcessGroup",
    "check_tensor",
    "check_tensors",
    "communicator_for",
    "communicator_of",
    "get_backend",
    "get_backend_config",
    "get_global_rank",
    "get_group_rank",
    "get_node_local_rank",
    "get_pg_count",
    "get_process_group_ranks",
    "get_rank",
    "get_world_size",
    "group",
    "groups",
    "is_initialized",
    "joined",
    "member",
    "seconds_of",
    "within",
]


class ProcessGroup:
    """Some of a job's ranks, or all; as ``torch.distributed.ProcessGroup``.

    Made by `init_process_group` and `new_group`. Besides what stands here it has the collectives as methods, with the
    names that PyTorch has there (``allreduce``, ``allgather``, ...); they return a `Work`.

    Parameters
    ----------
    communicator : collectives.Communicator
    ranks : list of int
        Its members, as numbers in the world.
    config : BackendConfig
        What was asked for; says of which devices tensors are carried.
    description : str
    """

    def __init__(
        self,
        communicator: collectives.Communicator,
        ranks: list[int],
        config: BackendConfig,
        description: str = "default_pg",
    ):
        self.communicator = communicator
        self.ranks = ranks
        self.config = config
        self.group_name = communicator.name
        self.group_desc = description
        self.store: Any = None
        """The store in which the ranks met, where the program gave one."""
        self.barriers = 0
        """How many times `monitored_barrier` has been called here."""
        self.coalescing: list[Any] | None = None
        """The works of a with-block of `_coalescing_manager`, while one is open."""
        self._lane: collectives.Communicator | None = None
        self._more_lanes: list[collectives.Communicator] = []

    @property
    def lane(self) -> collectives.Communicator:
        """The same ranks once more, for what runs beside the program's own collectives; every rank asks for it.

        Gradients are reduced while backward computes, and backward may call collectives itself (SyncBatchNorm does). In a
        communicator of their own the reductions cannot be taken for those, wherever on a rank they begin.
        """
        if self._lane is None:
            self._lane = self._same_ranks()
        return self._lane

    def another_lane(self) -> collectives.Communicator:
        """One more `lane`, new with each call, for what must not be taken for what others do in the first."""
        self._more_lanes.append(self._same_ranks())
        return self._more_lanes[-1]

    def _same_ranks(self) -> collectives.Communicator:
        made = self.communicator if self.size() == 1 else self.communicator.split(0, self.rank())
        assert made is not None
        return made

    def rank(self) -> int:
        """This process's number in the group."""
        return self.communicator.rank

    def size(self) -> int:
        """How many members there are."""
        return self.communicator.size

    def name(self) -> str:
        """The backend's name, as `get_backend`."""
        return next(iter(self.config.device_backend_map.values()))

    @property
    def communicators(self) -> dict[str, collectives.Communicator]:
        """What carries the tensors of each kind of device that the group has a backend for."""
        return dict.fromkeys(self.config.device_backend_map, self.communicator)

    _get_backend_name = name

    def set_timeout(self, timeout: timedelta) -> None:
        """How long collectives of this group may wait from now on."""
        seconds = seconds_of("set_timeout", timeout)
        assert seconds is not None
        for communicator in (self.communicator, self._lane, *self._more_lanes):
            if communicator is not None:
                communicator.timeout = seconds

    def shutdown(self) -> None:
        """Complete what is under way and give the group's resources back; every member calls."""
        for lane in (self._lane, *self._more_lanes):
            if lane is not None:
                lane.close()
        self.communicator.close()

    def abort(self) -> None:
        """End the whole job, all ranks, at once."""
        self.communicator.abort(1)

    def __repr__(self) -> str:
        return f"<ProcessGroup {self.group_name}: rank {self.rank()} of {self.size()} over {self.communicator.transport}>"


#: All groups that this process is a member of, the world first.
groups: list[ProcessGroup] = []


class _World(type):
    @property
    def WORLD(cls) -> ProcessGroup | None:
        """The group of all ranks; None before `init_process_group`."""
        return groups[0] if groups else None


class group(metaclass=_World):
    """Where ``group.WORLD`` is found: the group of all ranks, None before `init_process_group`."""


class GroupMember(metaclass=_World):
    """``GroupMember.NON_GROUP_MEMBER``: what `new_group` returns to the ranks that are no members."""

    NON_GROUP_MEMBER = -100


def is_initialized() -> bool:
    """Whether `init_process_group` has been called."""
    return bool(groups)


def _get_default_group() -> ProcessGroup:
    if not groups:
        raise ValueError("Default process group has not been initialized, please make sure to call init_process_group.")
    return groups[0]


def joined(given: Any) -> ProcessGroup | None:
    """The group that is meant, the world where none is given; None where this rank is no member.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    if given is None:
        return _get_default_group()
    if isinstance(given, ProcessGroup):
        return given
    if isinstance(given, int) and given == GroupMember.NON_GROUP_MEMBER:
        return None
    raise ValueError(f"Invalid process group specified: {given!r}")


def member(name: str, given: Any) -> ProcessGroup | None:
    """As `joined`, for a function that does nothing where this rank is no member, and warns of it."""
    found = joined(given)
    if found is None:
        rank = groups[0].rank() if groups else -1
        warnings.warn(f"Running {name} on global rank {rank} which does not belong to the given group.", stacklevel=3)
    return found


def communicator_of(given: Any) -> collectives.Communicator | None:
    """The communicator of a group, of the world if None; None where this rank is no member."""
    found = joined(given)
    return None if found is None else found.communicator


def get_rank(group: Any = None) -> int:
    """This process's number in a group, -1 where it is no member. As ``torch.distributed.get_rank``."""
    found = joined(group)
    return -1 if found is None else found.rank()


def get_world_size(group: Any = None) -> int:
    """How many members a group has, -1 where this process is none. As ``torch.distributed.get_world_size``."""
    found = joined(group)
    return -1 if found is None else found.size()


def _registered(group: Any) -> ProcessGroup:
    found = joined(group)
    if found is None or found not in groups:
        raise ValueError("Invalid process group specified: it was destroyed already, or this rank is no member")
    return found


def get_backend(group: Any = None) -> str:
    """The name of a group's backend, as it was asked for; as ``torch.distributed.get_backend``.

    What carries the arrays is ``group.communicator.transport``.
    """
    return _registered(group).name()


def get_backend_config(group: Any = None) -> str:
    """A group's backend for each kind of device: ``"cpu:gloo,cuda:nccl"``."""
    return repr(_registered(group).config)


def get_pg_count() -> int:
    """How many groups there are that this process is a member of."""
    return len(groups)


def get_process_group_ranks(group: Any) -> list[int]:
    """A group's members as numbers in the world."""
    return list(_registered(group).ranks)


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """A rank of the world as a number in a group.

    Raises
    ------
    ValueError
        If it is no member.
    """
    ranks = _registered(group).ranks
    if global_rank not in ranks:
        raise ValueError(f"Global rank {global_rank} is not part of group {group}, whose members are {ranks}")
    return ranks.index(global_rank)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """A number in a group as a rank of the world.

    Raises
    ------
    ValueError
        If the group has no such member.
    """
    ranks = _registered(group).ranks
    if not 0 <= group_rank < len(ranks):
        raise ValueError(f"Group rank {group_rank} is not part of group {group}, which has {len(ranks)} members")
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
    return int(fallback_rank)


def _set_pg_timeout(timeout: timedelta, group: Any = None) -> None:
    """How long collectives of a group, the world unless given, may wait from now on."""
    _registered(group).set_timeout(timeout)


def seconds_of(name: str, timeout: Any) -> float | None:
    """A timeout in seconds.

    Raises
    ------
    TypeError
        If it is no timedelta.
    ValueError
        If it is not longer than nothing.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, timedelta):
        raise TypeError(f"{name}: Expected timeout argument to be of type datetime.timedelta, got {timeout}")
    if timeout <= timedelta(0):
        raise ValueError(f"{name}: timeout must be longer than nothing, got {timeout}")
    return timeout.total_seconds()


def within(name: str, group: ProcessGroup, timeout: timedelta | float | None) -> AbstractContextManager[None]:
    """A with-block whose collectives in a group may take that long, a float in seconds, also where they are waited for behind it."""
    if timeout is None:
        return nullcontext()
    return group.communicator.within(seconds_of(name, timedelta(seconds=timeout) if isinstance(timeout, float) else timeout))


def check_tensor(name: str, argument: str, value: Any) -> Tensor:
    """Refuse what is no tensor, in PyTorch's words."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{argument}` of {name} to be of type Tensor, not {type(value).__name__}"
        )
    return value


def check_tensors(name: str, argument: str, values: Any) -> list[Tensor]:
    """Refuse what is no list of tensors, in PyTorch's words."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{argument}` of {name} to be of type list[Tensor], not {type(values).__name__}"
        )
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"Invalid function argument. Expected parameter `{argument}` of {name} to be of type list[Tensor], but element {i} is of "
                f"type {type(value).__name__}"
            )
    return list(values)


def communicator_for(name: str, group: ProcessGroup, *tensors: Tensor) -> collectives.Communicator:
    """A group's communicator, if it carries these tensors.

    Raises
    ------
    RuntimeError
        If nothing carries tensors on their device.
    ValueError
        If they are on several devices, or of several dtypes.
    """
    first = tensors[0]
    kind = namespace(first._array).name
    for tensor in tensors[1:]:
        if tensor._array.dtype != first._array.dtype:
            raise ValueError(f"{name}: Invalid usage of tensors with different dtypes: Found {first.dtype} and {tensor.dtype}")
        if namespace(tensor._array).name != kind:
            raise ValueError(f"{name}: the tensors are on different devices, {first.device} and {tensor.device}")
    if kind not in group.config.device_backend_map:
        raise RuntimeError(f"{name}: No backend type associated with device type {kind}; the group has {group.config}")
    return group.communicator
