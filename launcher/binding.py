"""``--bind``: each rank gets cores of its own, the same way under every engine.

The supervisor binds itself before it starts the script, which inherits that, with all threads that it makes.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

KINDS = ("none", "cores", "numa")


class Topology(NamedTuple):
    """The processors that the ranks of a host may use.

    Attributes
    ----------
    cores : list of list of int
        One list for each core: the numbers of its hardware threads. Cores of one NUMA node stand together.
    nodes : list of list of int
        One list for each NUMA node: the numbers of all its hardware threads.
    """

    cores: list[list[int]]
    nodes: list[list[int]]


def share(kind: str, topology: Topology, local_rank: int, local_world_size: int) -> tuple[list[int], int]:
    """The processors of one rank, and how many ranks share them.

    Parameters
    ----------
    kind : str
        "cores": the host's cores are divided among its ranks, hardware threads of a core staying together as long as
        there is a core for every rank. "numa": a rank gets all of one NUMA node; ranks are dealt to the nodes in
        blocks, and if there are fewer ranks than nodes each has one node.
    topology : Topology
        Of this host.
    local_rank, local_world_size : int
        The rank's place on it.

    Examples
    --------
    >>> two_sockets = Topology([[0, 4], [1, 5], [2, 6], [3, 7]], [[0, 1, 4, 5], [2, 3, 6, 7]])
    >>> share("cores", two_sockets, 1, 2)
    ([2, 3, 6, 7], 1)
    >>> share("numa", two_sockets, 3, 4)
    ([2, 3, 6, 7], 2)
    >>> share("cores", two_sockets, 5, 8)
    ([6], 1)
    """
    if kind == "numa":
        nodes = len(topology.nodes)
        own = local_rank * nodes // local_world_size
        sharing = sum(other * nodes // local_world_size == own for other in range(local_world_size))
        return sorted(topology.nodes[own]), sharing
    parts = topology.cores
    if local_world_size > len(parts):
        parts = [[processor] for core in topology.cores for processor in core]
    first = local_rank * len(parts) // local_world_size
    if local_world_size <= len(parts):
        end = (local_rank + 1) * len(parts) // local_world_size
        return sorted(processor for part in parts[first:end] for processor in part), 1
    sharing = sum(other * len(parts) // local_world_size == first for other in range(local_world_size))
    return sorted(parts[first]), sharing


def topology(usable: Collection[int] | None = None, root: Path = Path("/sys/devices/system")) -> Topology:
    """What the kernel says of the processors on which this process may run.

    Where it says nothing, as in some containers, every processor is a core and all are one NUMA node.
    """
    usable = os.sched_getaffinity(0) if usable is None else set(usable)
    nodes = []
    for path in sorted(root.glob("node/node[0-9]*"), key=lambda path: int(path.name[4:])):
        here = _numbers(path / "cpulist") & usable
        if here:
            nodes.append(sorted(here))
    elsewhere = usable - {processor for node in nodes for processor in node}
    if elsewhere:
        nodes.append(sorted(elsewhere))
    cores = []
    for node in nodes:
        left = set(node)
        for processor in node:
            if processor in left:
                siblings = _numbers(root / f"cpu/cpu{processor}/topology/thread_siblings_list") & left | {processor}
                left -= siblings
                cores.append(sorted(siblings))
    return Topology(cores, nodes)


def bind(kind: str, local_rank: int, local_world_size: int) -> tuple[int, int]:
    """Binds this process; returns how many processors it may use now and how many ranks share them."""
    if kind == "none":
        return len(os.sched_getaffinity(0)), local_world_size
    processors, sharing = share(kind, topology(), local_rank, local_world_size)
    os.sched_setaffinity(0, processors)
    return len(processors), sharing


def _numbers(path: Path) -> set[int]:
    """The kernel's list of numbers "0-3,8"; none where the file is absent."""
    try:
        text = path.read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(low), int(high or low) + 1))
    return found
