"""Groups, operations taken together, objects, memory of the transport's own, and comparing what the ranks call."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collectives import CollectiveMismatchError, CollectiveTimeoutError, CommunicationError, Communicator, connect
from collectives.connect import world_over
from collectives.job import Settings
from collectives.shared import SharedTransport
from collectives.work import drain

pytestmark = pytest.mark.mpi


def test_subgroup_in_the_order_given(world: Communicator) -> None:
    members = list(reversed(range(0, world.size, 2)))
    group = world.subgroup(members)
    assert (group is None) == (world.rank not in members)
    if group is not None:
        assert group.ranks == members and group.rank == members.index(world.rank)
        out = np.empty((len(members), 1), np.int64)
        group.all_gather(out, np.array([world.rank]))
        assert out[:, 0].tolist() == members
        group.close()


def test_nodes(world: Communicator) -> None:
    nodes = world.job.node_of
    assert len(set(nodes)) == 1 or nodes == [rank // 2 if world.size > 2 else rank for rank in range(world.size)]
    node, across = world.node(), world.across_nodes()
    assert node.ranks == [r for r in range(world.size) if nodes[r] == nodes[world.rank]]
    mine = node.rank
    assert across.ranks == [r for r in range(world.size) if nodes[:r].count(nodes[r]) == mine]
    value = np.ones(3)
    node.all_reduce(value)
    across.all_reduce(value)
    # Where all nodes have as many ranks, that is everybody.
    if len(node.ranks) * len(across.ranks) == world.size:
        np.testing.assert_array_equal(value, world.size)
    across.close()
    node.close()


def test_names_are_the_same_on_all_ranks_of_a_group(world: Communicator) -> None:
    group = world.split(world.rank % 2)
    assert group is not None
    names = group.all_gather_object(group.name)
    assert len(set(names)) == 1 and names[0].startswith("world/")
    everyone = world.all_gather_object((world.rank % 2, group.name))
    assert len({name for color, name in everyone if color == 0} | {name for color, name in everyone if color == 1}) == min(2, world.size)
    group.close()


def test_coalesced_operations_complete_together(world: Communicator) -> None:
    arrays = [np.full(n, world.rank, np.float64) for n in (1, 1000, 100_000)]
    with world.coalesce() as group:
        for array in arrays:
            world.all_reduce(array)
    group.wait()
    for array in arrays:
        assert (array == sum(range(world.size))).all()
    with world.coalesce() as empty:
        pass
    empty.wait()
    with pytest.raises(CommunicationError, match="a block is open already"), world.coalesce(), world.coalesce():
        pass


@pytest.mark.mpi(min_size=2)
def test_calls_in_a_block_may_have_less_time_and_what_a_failed_group_left_is_not_waited_for(world: Communicator) -> None:
    group = world.split(0)
    assert group is not None
    if world.rank == 0:
        with group.within(0.2):
            works = [group.all_reduce(np.ones(2), async_op=True) for _ in range(2)]
        began = time.monotonic()
        with pytest.raises(CollectiveTimeoutError, match=r"has waited 0\.\d s \(timeout 0\.2 s\)"):
            works[0].wait()
        drain(group)
        assert 0.2 <= time.monotonic() - began < 30 < group.timeout
        assert not works[1].done()
    group.close()
    world.barrier()


def test_messages_both_ways_in_one_block(world: Communicator) -> None:
    """Large messages in a ring: with blocking calls every rank would wait for the next to receive."""
    left, right = (world.rank - 1) % world.size, (world.rank + 1) % world.size
    there, here = np.full(300_000, float(world.rank)), np.empty(300_000)
    with world.coalesce() as group:
        world.send(there, right, tag=1)
        world.recv(here, left, tag=1)
    group.wait()
    assert (here == left).all()


def test_objects_from_one_rank_to_each_and_to_one(world: Communicator) -> None:
    last = world.size - 1
    objs = [{"for": rank, "text": "x" * 1000 * rank} for rank in range(world.size)]
    assert world.scatter_object(objs if world.rank == last else None, root=last) == objs[world.rank]
    if world.rank == last:
        with pytest.raises(ValueError, match=f"must give {world.size} objects, one for each rank, got 9"):
            world.scatter_object([1] * 9, root=last)
    if world.size > 1:
        if world.rank == 0:
            world.send_object(objs[1], 1, tag=4)
        elif world.rank == 1:
            assert world.recv_object(tag=4) == (objs[1], 0)


@pytest.mark.parametrize("op", ["sum", "avg", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_arrays_in_the_transport_s_memory(world: Communicator, dtype: Any, op: str) -> None:
    """All of an allocation, a part of it, and an array that is there on one rank only."""
    size, rank = world.size, world.rank
    given = [np.random.default_rng(r).integers(0, 5, 70_000).astype(dtype) for r in range(size)]
    wide = np.stack(given).astype(np.float64)
    expected = {"sum": wide.sum(0), "avg": wide.sum(0) / size, "max": wide.max(0)}[op].astype(dtype)
    array = world.allocate(70_000, dtype)
    assert array.dtype == dtype and not array.any()
    array[:] = given[rank]
    world.all_reduce(array, op)
    np.testing.assert_allclose(array, expected, rtol=2 * np.finfo(dtype).eps)
    array[:] = given[rank]
    world.all_reduce(array[1001:60_001], op, async_op=True).wait()
    np.testing.assert_allclose(array[1001:60_001], expected[1001:60_001], rtol=2 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(array[:1001], given[rank][:1001])
    mixed = array if rank == 0 else np.empty_like(array)
    mixed[:] = given[rank]
    world.all_reduce(mixed, op)
    np.testing.assert_allclose(mixed, expected, rtol=2 * np.finfo(dtype).eps)
    rows = world.allocate((size, 30_000), dtype)
    rows[:] = rank + np.arange(size)[:, None]
    part = np.empty(30_000, dtype)
    world.reduce_scatter(part, rows, "sum")
    np.testing.assert_array_equal(part, np.full(30_000, sum(range(size)) + size * rank, dtype))


def test_memory_is_freed_with_its_last_user(world: Communicator) -> None:
    if not isinstance(world._transport, SharedTransport):
        pytest.skip("this transport has no memory of its own")

    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("memfd:collectives" in line for line in maps)

    gc.collect()  # nor does what an earlier test left disturb
    before, files = mapped(), len(os.listdir("/proc/self/fd"))
    array = world.allocate(100_000)
    assert mapped() == before + world.size
    assert len(os.listdir("/proc/self/fd")) == files  # a node has many ranks, and a process few files
    part = array[10:20]
    del array
    part[:] = world.rank
    assert part.tolist() == [world.rank] * 10  # a view keeps it
    world.barrier()
    del part
    gc.collect()
    assert mapped() == before


def test_a_closed_group_keeps_no_memory_and_no_open_file(world: Communicator) -> None:
    """Though the record of the last calls knows it still."""

    def held() -> tuple[int, int]:
        gc.collect()
        with open("/proc/self/maps") as maps:
            return sum("memfd:collectives" in line for line in maps), len(os.listdir("/proc/self/fd"))

    def once() -> None:
        group = world.split(0, world.rank)
        assert group is not None
        group.all_reduce(np.ones(10))
        group.all_reduce(np.ones(100_000))
        group.close()

    once()
    before = held()
    for _ in range(5):
        once()
    mapped, files = held()
    assert mapped <= before[0] and files <= before[1]
    world.barrier()


# Comparing calls -----------------------------------------------------------------------------------------------------

ZEROS = np.zeros(4, np.float32)
DIFFERENT: dict[str, tuple[Callable[[Communicator], Any], Callable[[Communicator], Any], str]] = {
    "operation": (lambda w: w.all_reduce(ZEROS.copy()), lambda w: w.barrier(), r"rank 0: all_reduce\(sum\).*\n.*rank 1: barrier"),
    "shape": (lambda w: w.all_reduce(ZEROS.copy()), lambda w: w.all_reduce(np.zeros((2, 2), "f4")), r"\[4\](.|\n)*\[2, 2\]"),
    "dtype": (lambda w: w.broadcast(ZEROS.copy()), lambda w: w.broadcast(np.zeros(4, "i4")), r"float32(.|\n)*int32"),
    "reduction": (lambda w: w.all_reduce(ZEROS.copy()), lambda w: w.all_reduce(ZEROS.copy(), "max"), r"\(sum\)(.|\n)*\(max\)"),
    "root": (lambda w: w.broadcast(ZEROS.copy(), 0), lambda w: w.broadcast(ZEROS.copy(), 1), r"root 0(.|\n)*root 1"),
}  # fmt: skip


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(("first", "others", "table"), DIFFERENT.values(), ids=DIFFERENT)
def test_every_rank_hears_of_different_calls(
    world: Communicator, tmp_path: Any, first: Callable[[Communicator], Any], others: Callable[[Communicator], Any], table: str
) -> None:
    group = compared(world, str(tmp_path))
    values = np.ones(3)
    group.all_reduce(values)
    assert (values == world.size).all()
    with pytest.raises(CollectiveMismatchError, match=table) as caught:
        (first if world.rank == 0 else others)(group)
    assert "number 2:" in str(caught.value) and "test_groups.py:" in str(caught.value)
    assert (tmp_path / f"rank-{world.rank}.flight.json").exists()
    with pytest.raises(CommunicationError, match="has failed before, its ranks are out of step"):
        group.barrier()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["operation", "dtype", "reduction", "root"])
def test_shared_memory_compares_always(mpi: Communicator, kind: str, tmp_path: Any) -> None:
    first, others, _ = DIFFERENT[kind]
    group = compared(mpi, str(tmp_path), "shared", None)
    with pytest.raises(CollectiveMismatchError, match=r"called different things as operation 1 of this group(.|\n)*rank 1: "):
        (first if mpi.rank == 0 else others)(group)


def compared(world: Communicator, directory: str, choice: str | None = None, debug: str | None = "mismatch") -> Communicator:
    """A world of its own with the same ranks and transport, that may fail."""
    part = world._transport.split(0, world.rank)
    assert part is not None
    settings = Settings(timeout=60.0, debug=debug)
    return world_over(part, choice or world.transport, settings, {"DISTTORCH_FLIGHT_DIR": directory})


def test_settings_come_from_arguments_then_from_the_environment() -> None:
    environ = {"DISTTORCH_TIMEOUT": "12.5", "DISTTORCH_DEBUG": "mismatch"}
    assert Settings.of(environ) == Settings(12.5, "mismatch")
    assert Settings.of(environ, 3.0, "off") == Settings(3.0, None)
    for bad, message in (({"DISTTORCH_TIMEOUT": "soon"}, "'soon' is no number"), ({"DISTTORCH_TIMEOUT": "-1"}, "positive"),
                         ({"DISTTORCH_DEBUG": "all"}, "no debug mode 'all'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Settings.of(bad)
    for wrong in ("5", True, [5]):
        with pytest.raises(TypeError, match="timeout must be a positive number of seconds"):
            connect("local", timeout=wrong)  # type: ignore[arg-type]
    assert connect("local").timeout > 0
