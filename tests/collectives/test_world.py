"""Over every transport: works under way, objects, groups, and errors that name the rank."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest

import collectives.objects
from collectives import CommunicationError, Communicator, connect, from_mpi, mpi_world, scaled_sum

pytestmark = pytest.mark.mpi


def test_the_world_is_mpi_s(mpi: Communicator) -> None:
    from mpi4py import MPI

    assert (mpi.rank, mpi.size) == (MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size())
    assert mpi.transport == "mpi"
    assert mpi_world.thread_level() in ("single", "funneled", "serialized", "multiple")
    assert connect("mpi", timeout=mpi.timeout) is mpi


def test_many_operations_are_under_way_at_once_and_complete_in_any_order(world: Communicator) -> None:
    arrays = [np.full(50_000, world.rank + number, np.float32) for number in range(20)]
    works = [world.all_reduce(array, async_op=True) for array in arrays]
    for number in reversed(range(20)):
        works[number].wait()
        assert (arrays[number] == sum(rank + number for rank in range(world.size))).all()


def test_asynchronous_matches_synchronous(world: Communicator) -> None:
    array = np.ones(1000)
    world.all_reduce(array, async_op=world.rank == 0).wait()
    assert (array == world.size).all()


def test_a_work_waits_for_the_others(world: Communicator) -> None:
    """The last rank joins only when the others have seen that their work is not complete."""
    last = world.size - 1
    note = np.zeros(1)
    if world.rank != last:
        work = world.barrier(async_op=True)
        for _ in range(100):
            assert not work.test()
        with pytest.raises(TimeoutError, match=r"barrier: not complete after 0\.01 s"):
            work.wait(timeout=0.01)
        world.send(note, last, tag=5)
        work.wait(timeout=60)
    else:
        for _ in range(last):
            world.recv(note, tag=5)
        world.barrier()


def test_a_work_that_nobody_holds_is_completed(world: Communicator) -> None:
    every_second = np.ones(100_000)[::2]
    world.all_reduce(every_second, async_op=True)
    gc.collect()
    np.full(1_000_000, 7.0)  # would land in a buffer that was freed early
    mine, answer = np.ones(1), np.zeros(1)
    until = time.monotonic() + world.timeout
    while every_second[-1] != world.size and time.monotonic() < until:  # any call lets works progress; these need no other rank
        message = world.send(mine, world.rank, tag=6, async_op=True)
        world.recv(answer, world.rank, tag=6)
        message.wait()
    assert (every_second == world.size).all()


def test_threads_may_wait(world: Communicator) -> None:
    if mpi_world.thread_level() != "multiple":
        pytest.skip(f"MPI grants {mpi_world.thread_level()} only")
    array = np.ones(10_000)
    work = world.all_reduce(array, async_op=True)
    threads = [threading.Thread(target=work.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert work.done() and (array == world.size).all()


def test_receive_from_anyone(world: Communicator) -> None:
    if world.rank:
        world.send(np.array([world.rank]), 0, tag=8)
    else:
        found = set()
        for _ in range(1, world.size):
            value = np.zeros(1, int)
            work = world.recv(value, tag=8)
            assert work.source == value[0]
            found.add(int(value[0]))
        assert found == set(range(1, world.size))


@pytest.mark.mpi(min_size=2)
def test_messages_of_the_program_do_not_mix_with_ours(world: Communicator) -> None:
    from mpi4py import MPI

    if world.rank == 0:
        MPI.COMM_WORLD.send("the program's", 1, tag=0)
        world.send(np.array([5.0]), 1)
    elif world.rank == 1:
        value = np.zeros(1)
        world.recv(value, 0)
        assert value[0] == 5.0
        assert MPI.COMM_WORLD.recv(source=0, tag=0) == "the program's"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("sent", "expected"), [(3, r"recv: rank 1 of \d+ expects 16 bytes with tag 9, got 12"), (5, "recv: rank 1 of .*((?i:trunc)|got 20)")]
)
def test_messages_of_another_length(world: Communicator, sent: int, expected: str) -> None:
    if world.rank == 0:
        world.send(np.zeros(sent, np.float32), 1, tag=9)
    elif world.rank == 1:
        with pytest.raises(CommunicationError, match=expected):
            world.recv(np.zeros(4, np.float32), 0, tag=9)


def test_an_open_receive_can_be_cancelled(world: Communicator) -> None:
    work = world.recv(np.zeros(1), tag=10, async_op=True)
    assert work.cancel()
    with pytest.raises(CommunicationError, match=f"recv: rank {world.rank}( of {world.size})?: cancelled"):
        work.wait()


def test_tags_beyond_mpi_s(mpi: Communicator) -> None:
    world = mpi
    with pytest.raises(ValueError, match="send: tag is 2147483648, but this MPI library allows 0 to"):
        world.send(np.zeros(1), world.rank, tag=2**31, async_op=True)


def test_tags_beyond_any_transport_s(world: Communicator) -> None:
    for call in (world.send, world.recv):
        with pytest.raises(ValueError, match=f"{call.__name__}: tag is 9223372036854775808, but .* 0 to "):
            call(np.zeros(1), world.rank, 2**63, async_op=True)


def test_factors_that_are_never_the_same_are_not_remembered(world: Communicator) -> None:
    world.all_reduce(np.ones(2), scaled_sum(0.5))
    before = len(world._texts), len(world._plans)
    for factor in range(10):
        world.all_reduce(np.ones(2), scaled_sum(factor))
    assert (len(world._texts), len(world._plans)) == before


@pytest.mark.parametrize("round_length", [5, 16 * 2**20])
def test_objects(world: Communicator, monkeypatch: pytest.MonkeyPatch, round_length: int) -> None:
    monkeypatch.setattr(collectives.objects, "ROUND", round_length)

    def object_of(rank: int) -> Any:
        return {"rank": rank, "many": list(range(100 * rank)), "array": "x" * rank}

    everyone = [object_of(rank) for rank in range(world.size)]
    last = world.size - 1
    assert world.all_gather_object(object_of(world.rank)) == everyone
    assert world.gather_object(object_of(world.rank), root=last) == (everyone if world.rank == last else None)
    assert world.broadcast_object(object_of(last) if world.rank == last else None, root=last) == object_of(last)


def test_every_rank_hears_of_an_object_that_cannot_be_pickled(world: Communicator) -> None:
    last = world.size - 1
    obj = threading.Lock() if world.rank == last else "fine"
    for call in (
        lambda: world.all_gather_object(obj),
        lambda: world.gather_object(obj, root=0),
        lambda: world.broadcast_object(obj, root=last),
    ):
        with pytest.raises(CommunicationError, match=f"object of rank {last} cannot be pickled"):
            call()
    assert world.all_gather_object(1) == [1] * world.size


def test_split(world: Communicator) -> None:
    group = world.split(world.rank % 2, key=-world.rank)
    members = [rank for rank in reversed(range(world.size)) if rank % 2 == world.rank % 2]
    assert group is not None
    assert (group.rank, group.size) == (members.index(world.rank), len(members))
    value = np.array([world.rank])
    group.all_reduce(value)
    assert value[0] == sum(members)
    only_first = world.split(0 if world.rank == 0 else None)
    assert (only_first is None) == (world.rank != 0)
    if only_first is not None:
        only_first.close()
    group.close()
    with pytest.raises(CommunicationError, match=f"barrier: rank {members.index(world.rank)}: .* closed"):
        group.barrier()


def test_a_communicator_of_the_program(mpi: Communicator) -> None:
    world = mpi
    from mpi4py import MPI

    theirs = MPI.COMM_WORLD.Split(0, -world.rank)
    ours = from_mpi(theirs)
    theirs.Free()
    assert ours.rank == world.size - 1 - world.rank
    values = np.array([float(ours.rank)])
    ours.broadcast(values, root=ours.size - 1)
    assert values[0] == world.size - 1
    ours.close()


def test_close_completes_what_is_under_way(world: Communicator) -> None:
    group = world.split(0)
    assert group is not None
    array = np.ones(10)[::-1]
    group.all_reduce(array, async_op=True)
    receive = group.recv(np.zeros(1), tag=1, async_op=True)
    group.close()
    assert (array == world.size).all()
    assert isinstance(receive.exception(), CommunicationError)


@pytest.mark.mpi(min_size=2)
def test_roots_are_checked_in_the_group(world: Communicator) -> None:
    with pytest.raises(ValueError, match=f"broadcast: root is {world.size}, but .* 0 to {world.size - 1}"):
        world.broadcast(np.zeros(1), world.size)
    if world.rank == 1:
        with pytest.raises(ValueError, match="gather: out is for the root, rank 0; on rank 1 it must be None"):
            world.gather(np.zeros((world.size, 1)), np.zeros(1), 0)
        with pytest.raises(ValueError, match="scatter: source is for the root, rank 0"):
            world.scatter(np.zeros(1), np.zeros((world.size, 1)), 0)
