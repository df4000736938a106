"""--bind: which processors a rank gets, and what it then finds."""

import os
from itertools import chain

import pytest

from launcher.binding import Topology, share, topology

# Two sockets of four cores with two hardware threads each, numbered as Linux often does.
SOCKETS = Topology(
    [[0, 8], [1, 9], [2, 10], [3, 11], [4, 12], [5, 13], [6, 14], [7, 15]],
    [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]],
)
FLAT = Topology([[0], [1], [2]], [[0, 1, 2]])

SHARES = [
    # kind, topology, ranks here, processors of each, how many share them
    ("cores", SOCKETS, 1, [list(range(16))], 1),
    ("cores", SOCKETS, 2, [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]], 1),
    ("cores", SOCKETS, 4, [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]], 1),
    ("cores", SOCKETS, 3, [[0, 1, 8, 9], [2, 3, 4, 10, 11, 12], [5, 6, 7, 13, 14, 15]], 1),
    ("cores", SOCKETS, 8, [[n, n + 8] for n in range(8)], 1),
    ("cores", SOCKETS, 16, [[n // 2 + 8 * (n % 2)] for n in range(16)], 1),
    ("cores", FLAT, 2, [[0], [1, 2]], 1),
    ("cores", FLAT, 6, [[0], [0], [1], [1], [2], [2]], 2),
    ("numa", SOCKETS, 1, [SOCKETS.nodes[0]], 1),
    ("numa", SOCKETS, 2, SOCKETS.nodes, 1),
    ("numa", SOCKETS, 4, [SOCKETS.nodes[0]] * 2 + [SOCKETS.nodes[1]] * 2, 2),
    ("numa", FLAT, 3, [[0, 1, 2]] * 3, 3),
]


@pytest.mark.parametrize(("kind", "machine", "ranks", "expected", "sharing"), SHARES)
def test_shares(kind, machine, ranks, expected, sharing):
    assert [share(kind, machine, rank, ranks) for rank in range(ranks)] == [(mine, sharing) for mine in expected]


def test_cores_are_divided_without_remainder_or_overlap():
    for ranks in range(1, 9):
        mine = [share("cores", SOCKETS, rank, ranks)[0] for rank in range(ranks)]
        assert sorted(chain(*mine)) == list(range(16))


def machine(root, nodes, siblings):
    """A /sys/devices/system that says this of a machine."""
    for number, processors in enumerate(nodes):
        (root / f"node/node{number}").mkdir(parents=True)
        (root / f"node/node{number}/cpulist").write_text(processors + "\n")
    for number, others in siblings.items():
        (root / f"cpu/cpu{number}/topology").mkdir(parents=True)
        (root / f"cpu/cpu{number}/topology/thread_siblings_list").write_text(others + "\n")
    return root


TOPOLOGIES = [
    # NUMA nodes, siblings, usable processors, cores, nodes
    (["0-1,4-5", "2-3,6-7"], {n: f"{n % 4},{n % 4 + 4}" for n in range(8)}, range(8),
     [[0, 4], [1, 5], [2, 6], [3, 7]], [[0, 1, 4, 5], [2, 3, 6, 7]]),
    # taskset, Slurm or a container left some
    (["0-1,4-5", "2-3,6-7"], {n: f"{n % 4},{n % 4 + 4}" for n in range(8)}, [1, 2, 5],
     [[1, 5], [2]], [[1, 5], [2]]),
    # the other way to number hardware threads
    (["0-3"], {n: f"{n // 2 * 2}-{n // 2 * 2 + 1}" for n in range(4)}, range(4), [[0, 1], [2, 3]], [[0, 1, 2, 3]]),
    # a memory node without processors; nothing said of cores
    (["0-1", ""], {}, range(2), [[0], [1]], [[0, 1]]),
    ([], {}, [3, 5], [[3], [5]], [[3, 5]]),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "siblings", "usable", "cores", "expected"), TOPOLOGIES)
def test_topologies(tmp_path, nodes, siblings, usable, cores, expected):
    assert topology(usable, machine(tmp_path, nodes, siblings)) == Topology(cores, expected)


def test_this_machine():
    found = topology()
    assert sorted(chain(*found.cores)) == sorted(chain(*found.nodes)) == sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize("engine", ["mpiexec", "plain"])
@pytest.mark.parametrize("kind", ["none", "cores", "numa"])
def test_ranks_find_themselves_bound(session, say, engine, kind):
    script = session.script(
        say + "say('bound', processors=sorted(os.sched_getaffinity(0)), threads=os.environ['OMP_NUM_THREADS'])\n"
    )
    job = session.run("-n", 2, "--oversubscribe", "--engine", engine, "--bind", kind, script)
    assert job.returncode == 0, job.stderr
    usable = sorted(os.sched_getaffinity(0))
    for rank, seen in enumerate(session.files("bound.*.json", 2)):
        expected, sharing = (usable, 2) if kind == "none" else share(kind, topology(), rank, 2)
        assert seen["processors"] == expected
        assert seen["threads"] == str(max(1, len(expected) // sharing))


def test_what_taskset_left_is_shared(session, say):
    script = session.script(say + "say('bound', processors=sorted(os.sched_getaffinity(0)))\n")
    one = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {one})
    try:
        job = session.run("-n", 2, "--oversubscribe", "--engine", "plain", "--bind", "cores", script)
    finally:
        os.sched_setaffinity(0, before)
    assert job.returncode == 0, job.stderr
    assert [seen["processors"] for seen in session.files("bound.*.json", 2)] == [[one], [one]]
