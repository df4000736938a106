"""Python objects between ranks, pickled on the way: the ranks of one job trust each other."""

from __future__ import annotations

from typing import Any

from .collective import root_of
from .groups import get_global_rank, member
from .point_to_point import _other

__all__ = [
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "recv_object_list",
    "scatter_object_list",
    "send_object_list",
]


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Collect any picklable objects in a list on every rank. As ``torch.distributed.all_gather_object``.

    Parameters
    ----------
    object_list : list
        At least as long as the group; overwritten.
    obj : object
        What this rank contributes.
    group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    IndexError
        If the list is too short.
    collectives.CommunicationError
        On all ranks, if the object of one cannot be pickled.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> found = [None]
    >>> dist.all_gather_object(found, {"loss": 0.5})
    >>> found
    [{'loss': 0.5}]
    >>> dist.destroy_process_group()
    """
    joint = member("all_gather_object", group)
    if joint is None:
        return
    _check_length("all_gather_object", "object_list", object_list, joint.size())
    object_list[: joint.size()] = joint.communicator.all_gather_object(obj)


def _check_length(name: str, argument: str, given: list[Any], ranks: int) -> None:
    if len(given) < ranks:
        raise IndexError(f"{name}: {argument} has {len(given)} elements, but the group has {ranks} ranks")


def gather_object(
    obj: Any,
    object_gather_list: list[Any] | None = None,
    dst: int | None = None,
    group: Any = None,
    group_dst: int | None = None,
) -> None:
    """Collect any picklable objects in a list on one rank. As ``torch.distributed.gather_object``.

    Parameters
    ----------
    obj : object
        What this rank contributes.
    object_gather_list : list, optional
        On the rank that receives, at least as long as the group; overwritten.
    dst, group_dst : int, optional
        The rank that receives, as a rank of the world (0 unless given) or as a number in the group.
    group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    ValueError
        If that rank gives no list, or another rank one.
    """
    joint = member("gather_object", group)
    if joint is None:
        return
    root = root_of(joint, dst, group_dst, 0)
    if joint.rank() == root:
        if not object_gather_list:
            raise ValueError(f"Argument ``object_gather_list`` must be specified on destination rank ({root})")
        _check_length("gather_object", "object_gather_list", object_gather_list, joint.size())
    elif object_gather_list:
        raise ValueError(f"Argument ``object_gather_list`` must NOT be specified on non-destination ranks: {root} gathers")
    found = joint.communicator.gather_object(obj, root)
    if found is not None and object_gather_list is not None:
        object_gather_list[: joint.size()] = found


def broadcast_object_list(
    object_list: list[Any], src: int | None = None, group: Any = None, device: Any = None, group_src: int | None = None
) -> None:
    """Overwrite every rank's list with the objects of one rank. As ``torch.distributed.broadcast_object_list``.

    Parameters
    ----------
    object_list : list
        Of one length on all ranks; on the rank that gives, the picklable objects.
    src, group_src : int, optional
        The rank that gives, as a rank of the world (0 unless given) or as a number in the group.
    group : ProcessGroup, optional
        The world unless given.
    device
        Accepted as in PyTorch.

    Raises
    ------
    ValueError
        If this rank's list has another length.
    """
    joint = member("broadcast_object_list", group)
    if joint is None:
        return
    root = root_of(joint, src, group_src, 0)
    if joint.rank() == root:
        joint.communicator.broadcast_object(list(object_list), root)
    else:
        _fill("broadcast_object_list", object_list, joint.communicator.broadcast_object(None, root), root)


def _fill(name: str, object_list: list[Any], found: list[Any], source: int) -> None:
    if len(object_list) != len(found):
        raise ValueError(f"{name}: object_list has {len(object_list)} elements, but rank {source} gives {len(found)}")
    object_list[:] = found


def scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: list[Any] | None = None,
    src: int | None = None,
    group: Any = None,
    group_src: int | None = None,
) -> None:
    """Hand out a list of picklable objects from one rank. As ``torch.distributed.scatter_object_list``.

    Parameters
    ----------
    scatter_object_output_list : list
        Its first element is overwritten.
    scatter_object_input_list : list, optional
        On the rank that gives, one object for each rank; not looked at on the others.
    src, group_src : int, optional
        The rank that gives, as a rank of the world (0 unless given) or as a number in the group.
    group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    ValueError
        If there is no element to overwrite, or the rank that gives has not one object for each rank.
    """
    joint = member("scatter_object_list", group)
    if joint is None:
        return
    root = root_of(joint, src, group_src, 0)
    if not isinstance(scatter_object_output_list, list) or not scatter_object_output_list:
        raise ValueError("Expected argument scatter_object_output_list to be a list of size at least 1.")
    given = scatter_object_input_list if joint.rank() == root else None
    if joint.rank() == root and (given is None or len(given) != joint.size()):
        have = "none" if given is None else len(given)
        raise ValueError(f"scatter_object_list: source rank must provide {joint.size()} objects, one for each rank; there are {have}")
    scatter_object_output_list[0] = joint.communicator.scatter_object(given, root)


def send_object_list(
    object_list: list[Any],
    dst: int | None = None,
    group: Any = None,
    device: Any = None,
    group_dst: int | None = None,
    use_batch: bool = False,
) -> None:
    """Send a list of picklable objects to a rank. As ``torch.distributed.send_object_list``.

    Parameters
    ----------
    object_list : list
    dst, group_dst : int
        The rank that receives, another one, as a rank of the world or as a number in the group; one of the two.
    group : ProcessGroup, optional
        The world unless given.
    device, use_batch
        Accepted as in PyTorch.
    """
    joint = member("send_object_list", group)
    if joint is not None:
        root = _other(joint, root_of(joint, dst, group_dst), "destination")
        joint.communicator.send_object(list(object_list), root, 0)


def recv_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
    use_batch: bool = False,
) -> int:
    """Receive a list of objects from a rank. As ``torch.distributed.recv_object_list``.

    Parameters
    ----------
    object_list : list
        As long as the list that is sent; overwritten.
    src, group_src : int
        The rank that sends, another one, as a rank of the world or as a number in the group; one of the two.
    group : ProcessGroup, optional
        The world unless given.
    device, use_batch
        Accepted as in PyTorch.

    Returns
    -------
    int
        The rank of the world that sent; -1 where this rank is no member.
    """
    joint = member("recv_object_list", group)
    if joint is None:
        return -1
    source = _other(joint, root_of(joint, src, group_src), "source")
    _fill("recv_object_list", object_list, joint.communicator.recv_object(source, 0)[0], source)
    return get_global_rank(joint, source)
