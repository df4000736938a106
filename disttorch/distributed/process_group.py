"""Joining the job's other ranks, forming groups of some of them, and leaving again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from numbers import Integral
from typing import Any

import collectives
from collectives.store import PrefixStore, Store

from ..backend.device import device as Device
from .backend import Backend, BackendConfig, transport_of
from .constants import default_pg_timeout
from .debug import DebugLevel, get_debug_level
from .gpus import choose_gpu
from .groups import (
    GroupMember,
    ProcessGroup,
    _get_default_group,
    communicator_of,
    get_process_group_ranks,
    get_rank,
    get_world_size,
    groups,
    is_initialized,
    joined,
    seconds_of,
)
from .rendezvous import rendezvous

__all__ = [
    "communicator_of",
    "destroy_process_group",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_initialized",
    "new_group",
    "new_subgroups",
    "new_subgroups_by_enumeration",
    "shrink_group",
    "split_group",
]


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

    Which rank this process is, and of how many, is taken from what started it: dlaunch, mpiexec, srun, torchrun. Where
    nothing did, `rank` and `world_size` say it, and `init_method` or `store` where the ranks meet.

    Where tensors on GPUs are carried, the GPU with the number LOCAL_RANK becomes the current one of each rank (modulo how many it
    sees), unless the program has made another the current one before.

    Parameters
    ----------
    backend : str, optional
        A name of `Backend`, or one for each kind of device: ``"cpu:gloo,cuda:nccl"``. Chosen by what there is unless given.
    init_method : str, optional
        ``"env://"``, the default; ``"tcp://host:port"``, where rank 0 listens; ``"file:///path"``, a file that all
        ranks see and that is not there before. The last two want `rank` and `world_size`, also as
        ``"tcp://host:port?rank=0&world_size=2"``.
    timeout : timedelta, optional
        How long a collective may wait before it raises; half an hour unless given or set by ``dlaunch --timeout``.
    world_size, rank : int
        Must be what started the process says, where something did.
    store : Store, optional
        Where the ranks meet, in place of `init_method`; wants `rank` and `world_size`.
    device_id : device or int, optional
        This rank's GPU, or ``"cpu"``: without `backend` it chooses that device's. A GPU becomes the current one, and what its
        tensors need is made at once, by all ranks together; otherwise by the first collective on a GPU.
    group_name, pg_options
        Accepted as in PyTorch.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If it was called already, the backend is none of ours, or the rank or the world's size is another one.
    AssertionError
        If `init_method` and `store` are both given, or `store` without `rank` and `world_size`.
    RuntimeError
        If the backend carries tensors on GPUs alone, and there is none that CuPy can use, or no NCCL.
    collectives.LaunchError
        If the process was not started so that ranks can meet; the message says how to.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.get_rank(), dist.get_world_size(), dist.get_backend()
    (0, 1, 'gloo')
    >>> dist.destroy_process_group()
    """
    if groups:
        raise ValueError("trying to initialize the default process group twice!")
    if store is not None and init_method is not None:
        raise AssertionError("Cannot specify both init_method and store.")
    places = ("rank", rank, int), ("world_size", world_size, int)
    for name, value, kind in (("init_method", init_method, str), ("store", store, Store), *places):
        is_left_out = value is None and kind is not int
        if not (is_left_out or isinstance(value, Integral if kind is int else kind)):
            raise TypeError(f"init_process_group: {name} must be of type {kind.__name__}, got {value!r}")
    seconds = seconds_of("init_process_group", timeout)
    config = _config(backend, device_id)
    transport = transport_of(config)
    told = rank >= 0 and world_size > 0
    if store is not None and not told:
        raise AssertionError(f"init_process_group: with a store, rank and world_size must be given; got {rank} and {world_size}")
    url = init_method or "env://"
    by_hand = told and world_size > 1 and collectives.environment().launcher == "none" and transport in ("auto", "tcp")
    # Of a URL's store there is no more need when the ranks have met. While one keeps it, another may begin anew in it.
    meeting = store
    if store is None and (by_hand or not url.startswith("env://")):
        meeting, rank, world_size = next(rendezvous(url, rank, world_size, timeout=timeout or default_pg_timeout))
    place: dict[str, Any] = {} if meeting is None else {"store": _own_part(meeting), "rank": rank, "size": world_size}
    debug = "mismatch" if get_debug_level() is DebugLevel.DETAIL else None
    communicator = collectives.connect(transport, timeout=seconds, debug=debug, **place)
    world = ProcessGroup(communicator, list(range(communicator.size)), config)
    world.store = store
    for what, given, found in (("rank", rank, world.rank()), ("world_size", world_size, world.size())):
        if given not in (-1, found):
            world.shutdown()
            raise ValueError(
                f"init_process_group: {what}={given} was given, but this process was started as {what} {found}"
            )
    groups.append(world)
    choose_gpu(world, backend, device_id)


_parts = itertools.count()


def _own_part(store: Any) -> PrefixStore:
    """A part of a store for this process group: the same store may serve another one when this is destroyed."""
    return PrefixStore(f"process_group/{next(_parts)}", store)


def _config(backend: str | None, device_id: Any) -> BackendConfig:
    if backend is None and device_id is not None:
        return BackendConfig(Backend.default_device_backend_map[Device(device_id).type])
    return BackendConfig(backend or Backend.UNDEFINED)


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Leave a group; without one, the world and all groups. As ``torch.distributed.destroy_process_group``.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    leaving = joined(group)
    if leaving is None:
        return
    if leaving not in groups:
        raise ValueError("Invalid process group specified: it was destroyed already, or is not of this job")
    if leaving is not groups[0]:
        leaving.shutdown()
        groups.remove(leaving)
        return
    while groups:
        groups.pop().shutdown()


def new_group(
    ranks: Sequence[int] | None = None, timeout: timedelta | None = None, backend: str | None = None, pg_options: Any = None,
    use_local_synchronization: bool = False, group_desc: str | None = None, device_id: Any = None, sort_ranks: bool = True,
) -> Any:  # fmt: skip
    """A group of some ranks; every rank of the world calls it with the same ranks. As ``torch.distributed.new_group``.

    Parameters
    ----------
    ranks : list of int, optional
        Numbers in the world; all unless given.
    timeout : timedelta, optional
        How long its collectives may wait; as long as the world's unless given.
    backend : str, optional
        Must be carried as the world's tensors are; the world's unless given.
    use_local_synchronization : bool
        Not supported, as by PyTorch's "mpi": all ranks of the world form a group together. A group of one is the exception.
    group_desc : str, optional
        A name, kept as ``group.group_desc``.
    sort_ranks : bool
        Whether the group counts its ranks in the order of the world, or as they are given.
    pg_options, device_id
        Accepted as in PyTorch.

    Returns
    -------
    ProcessGroup, or GroupMember.NON_GROUP_MEMBER on the other ranks

    Raises
    ------
    ValueError
        If a number is no rank's, or stands twice, or members only are to call.
    """
    world = _get_default_group()
    seconds = seconds_of("new_group", timeout)
    members = list(range(world.size()) if ranks is None else ranks)
    if sort_ranks:
        members.sort()
    if len(set(members)) != len(members):
        raise ValueError(f"new_group: ranks list must not contain duplicate entries, got {list(members)}")
    for r in members:
        if not 0 <= r < world.size():
            raise ValueError(f"new_group: Rank {r} is out of range. Valid ranks are 0 to {world.size() - 1} (world_size={world.size()})")
    config = world.config if backend is None else BackendConfig(backend)
    if use_local_synchronization and len(members) not in (1, world.size()):
        raise ValueError(
            "new_group: use_local_synchronization=True is not supported: all ranks of the world, also those that are no members, form "
            "the group together; call it on all of them without"
        )
    if use_local_synchronization and len(members) == 1:
        if world.rank() not in members:
            return None
        alone = collectives.connect("local").subgroup([0], timeout=seconds or world.communicator.timeout)
        assert alone is not None
        return _register(alone, members, config, group_desc)
    return _split(world, members, world.rank() in members, 0, config, seconds, group_desc)


def _split(
    parent: ProcessGroup,
    members: list[int],
    belongs: bool,
    color: int,
    config: BackendConfig,
    seconds: float | None,
    description: str | None,
) -> Any:
    """Split a group: those that belong, with one color for each new group; the others get the marker."""
    missing = [kind for kind in config.device_backend_map if kind not in parent.config.device_backend_map]
    if missing and len(missing) == len(config.device_backend_map):
        raise ValueError(f"backend {config}: the group that it is split from has {parent.config}")
    key = members.index(groups[0].rank()) if belongs else 0
    made = parent.communicator.split(color if belongs else None, key, timeout=seconds)
    return GroupMember.NON_GROUP_MEMBER if made is None else _register(made, members, config, description)


def _register(
    communicator: collectives.Communicator, members: list[int], config: BackendConfig, description: str | None
) -> ProcessGroup:
    groups.append(ProcessGroup(communicator, members, config, description or "undefined"))
    return groups[-1]


def new_subgroups(
    group_size: int | None = None, group: ProcessGroup | None = None, timeout: timedelta | None = None,
    backend: str | None = None, pg_options: Any = None, group_desc: str | None = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """Groups of equal size of ranks that follow each other; as ``torch.distributed.new_subgroups``.

    Parameters
    ----------
    group_size : int, optional
        Members of each; as many as ranks are on a node unless given, which must then be the same on all nodes.
    group : ProcessGroup, optional
        Whose members to divide; the world's unless given.
    timeout, backend, pg_options, group_desc
        As for `new_group`.

    Returns
    -------
    this rank's group, list of all (GroupMember.NON_GROUP_MEMBER for the others)

    Raises
    ------
    ValueError
        If the size does not divide the number of ranks.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> dist.new_subgroups(1)[0].size()
    1
    >>> dist.destroy_process_group()
    """
    if group_size is None:
        here = _get_default_group().communicator.node()
        group_size = here.size
        here.close()
    if group_size <= 0:
        raise ValueError(f"The arg 'group_size' ({group_size}) must be positive")
    ranks = get_process_group_ranks(group)
    if len(ranks) < group_size:
        raise ValueError(f"The arg 'group_size' ({group_size}) must not exceed the world size ({len(ranks)})")
    if len(ranks) % group_size:
        raise ValueError(f"The world size ({len(ranks)}) must be divisible by '{group_size=}'")
    parts = [ranks[i : i + group_size] for i in range(0, len(ranks), group_size)]
    return new_subgroups_by_enumeration(parts, timeout, backend, pg_options, group_desc)


def new_subgroups_by_enumeration(
    ranks_per_subgroup_list: Sequence[Sequence[int]], timeout: timedelta | None = None, backend: str | None = None,
    pg_options: Any = None, group_desc: str | None = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """Groups of the ranks that are listed; as ``torch.distributed.new_subgroups_by_enumeration``.

    Every rank of the world calls it with the same lists, in which a rank stands once at most.

    Returns
    -------
    this rank's group (None if it is in no list), list of all (GroupMember.NON_GROUP_MEMBER for the others)

    Raises
    ------
    ValueError
        If there are no lists, or a rank is in two.
    """
    if not ranks_per_subgroup_list:
        raise ValueError("The arg 'ranks_per_subgroup_list' cannot be empty")
    seen: dict[int, Sequence[int]] = {}
    for ranks in ranks_per_subgroup_list:
        for r in ranks:
            if r in seen:
                raise ValueError(f"Rank {r} has appeared in both subgroup {list(seen[r])} and {list(ranks)}")
            seen[r] = ranks
    made = [new_group(ranks, timeout, backend, pg_options, group_desc=group_desc) for ranks in ranks_per_subgroup_list]
    return next((g for g in made if isinstance(g, ProcessGroup)), None), made


def split_group(
    parent_pg: ProcessGroup | None = None, split_ranks: list | None = None, timeout: timedelta | None = None,
    pg_options: Any = None, group_desc: str | None = None, backend: str | None = None,
) -> ProcessGroup | None:  # fmt: skip
    """Divide a group in one step; as ``torch.distributed.split_group``. Every member of the parent calls.

    Parameters
    ----------
    parent_pg : ProcessGroup, optional
        The world unless given.
    split_ranks : list of list of int
        Numbers *in the parent*, none twice.
    timeout, pg_options, group_desc, backend
        As for `new_group`.

    Returns
    -------
    ProcessGroup, or None on ranks that are in no list

    Raises
    ------
    ValueError
        If there are no lists, a number is no rank's of the parent, or stands twice.
    """
    if not split_ranks:
        raise ValueError("split_ranks cannot be None or empty")
    parent = joined(parent_pg)
    if parent is None:
        raise ValueError(f"split_group: global rank {get_rank()} is not part of the parent group")
    listed = [r for ranks in split_ranks for r in ranks]
    if len(set(listed)) != len(listed) or any(not 0 <= r < parent.size() for r in listed):
        raise ValueError(f"split_group: split_ranks {split_ranks} must be different numbers from 0 to {parent.size() - 1}")
    config = parent.config if backend is None else BackendConfig(backend)
    seconds = seconds_of("split_group", timeout)
    color = next((i for i, ranks in enumerate(split_ranks) if parent.rank() in ranks), None)
    members = [] if color is None else [parent.ranks[r] for r in split_ranks[color]]
    made = _split(parent, members, color is not None, color or 0, config, seconds, group_desc)
    return None if color is None else made


def shrink_group(
    ranks_to_exclude: list[int], group: ProcessGroup | None = None, shrink_flags: int = 0, pg_options: Any = None
) -> ProcessGroup:
    """Refused: what is left of a job when ranks are lost is started again, by ``dlaunch --restarts``.

    Raises
    ------
    TypeError
        Always, as PyTorch does where a backend cannot shrink a group.
    """
    backend = joined(group)
    raise TypeError(
        f"shrink_group: {backend and backend.communicator.transport!r} cannot go on without ranks {ranks_to_exclude}; new_group forms a "
        "smaller group while all ranks are there, and dlaunch starts a job again whose ranks were lost"
    )
