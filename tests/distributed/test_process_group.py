"""Groups: who is in them, how they are formed and left, and what is said of what cannot be."""

from datetime import timedelta

import pytest

import disttorch
import disttorch.distributed as dist

pytestmark = pytest.mark.mpi(min_size=1)


def summed(group, value):
    x = disttorch.tensor([float(value)])
    dist.all_reduce(x, group=group)
    return x.item()


def test_the_world():
    rank, size = dist.get_rank(), dist.get_world_size()
    world = dist.group.WORLD
    assert world is dist.GroupMember.WORLD
    assert isinstance(world, dist.ProcessGroup)
    assert (world.rank(), world.size()) == (rank, size)
    assert dist.get_process_group_ranks(None) == dist.get_process_group_ranks(world) == list(range(size))
    assert dist.get_group_rank(world, size - 1) == dist.get_global_rank(world, size - 1) == size - 1
    assert dist.is_available()
    assert dist.is_initialized()
    assert world.group_desc == "default_pg"
    assert world.name() == dist.get_backend() == "gloo"
    assert dist.get_backend_config().startswith("cpu:gloo")


@pytest.mark.parametrize("backend", [None, "gloo"])
def test_groups(backend):
    rank, size = dist.get_rank(), dist.get_world_size()
    before = dist.get_pg_count()
    even = dist.new_group(list(range(0, size, 2)), backend=backend, group_desc="even")
    x = disttorch.full((1,), float(rank))
    if rank % 2:
        assert even == dist.GroupMember.NON_GROUP_MEMBER
        assert dist.get_rank(even) == dist.get_world_size(even) == -1
        assert dist.get_pg_count() == before
        with pytest.warns(UserWarning, match=f"Running all_reduce on global rank {rank} which does not belong"):
            assert dist.all_reduce(x, group=even) is None
        assert x.item() == rank
        dist.destroy_process_group(even)
        with pytest.raises(ValueError, match="Invalid process group specified"):
            dist.get_backend(even)
    else:
        dist.all_reduce(x, group=even)
        assert dist.get_pg_count() == before + 1
        assert even.group_desc == "even"
        assert dist.get_rank(even) == rank // 2
        assert dist.get_process_group_ranks(even) == list(range(0, size, 2))
        assert x.item() == sum(range(0, size, 2))
        last = dist.get_global_rank(even, dist.get_world_size(even) - 1)
        dist.broadcast(x.fill_(rank), src=last, group=even)  # src is a rank of the world
        assert x.item() == last
        dist.broadcast(x.fill_(rank), group_src=0, group=even)
        assert x.item() == 0
        with pytest.raises(ValueError, match="Global rank 1 is not part of group"):
            dist.get_group_rank(even, 1)
        dist.destroy_process_group(even)
        with pytest.raises(ValueError, match="destroyed already"):
            dist.destroy_process_group(even)


NON_MEMBERS_DO_NOTHING = {
    "all_reduce": lambda g, x: dist.all_reduce(x, group=g),
    "all_reduce_coalesced": lambda g, x: dist.all_reduce_coalesced([x], group=g),
    "reduce": lambda g, x: dist.reduce(x, 0, group=g),
    "broadcast": lambda g, x: dist.broadcast(x, 0, group=g),
    "barrier": lambda g, x: dist.barrier(g),
    "monitored_barrier": lambda g, x: dist.monitored_barrier(g),
    "all_gather": lambda g, x: dist.all_gather([x], x, group=g),
    "all_gather_coalesced": lambda g, x: dist.all_gather_coalesced([[x]], [x], group=g),
    "all_gather_single": lambda g, x: dist.all_gather_single(x, x, group=g),
    "reduce_scatter": lambda g, x: dist.reduce_scatter(x, [x], group=g),
    "reduce_scatter_tensor": lambda g, x: dist.reduce_scatter_tensor(x, x, group=g),
    "gather": lambda g, x: dist.gather(x, group=g),
    "scatter": lambda g, x: dist.scatter(x, group=g),
    "all_to_all": lambda g, x: dist.all_to_all([x], [x], group=g),
    "all_to_all_single": lambda g, x: dist.all_to_all_single(x, x, group=g),
    "send": lambda g, x: dist.send(x, 0, group=g),
    "isend": lambda g, x: dist.isend(x, 0, group=g),
    "irecv": lambda g, x: dist.irecv(x, 0, group=g),
    "all_gather_object": lambda g, x: dist.all_gather_object([], 1, group=g),
    "gather_object": lambda g, x: dist.gather_object(1, group=g),
    "broadcast_object_list": lambda g, x: dist.broadcast_object_list([1], group=g),
    "scatter_object_list": lambda g, x: dist.scatter_object_list([1], group=g),
    "send_object_list": lambda g, x: dist.send_object_list([1], 0, group=g),
}


@pytest.mark.parametrize("name", NON_MEMBERS_DO_NOTHING)
def test_non_members_do_nothing(name):
    x = disttorch.ones(1)
    with pytest.warns(UserWarning, match=f"Running {name} on global rank"):
        assert NON_MEMBERS_DO_NOTHING[name](dist.GroupMember.NON_GROUP_MEMBER, x) is None
    assert x.item() == 1
    assert not x._version


def test_receiving_where_one_is_no_member():
    with pytest.warns(UserWarning, match="Running recv"):
        assert dist.recv(disttorch.ones(1), 0, group=dist.GroupMember.NON_GROUP_MEMBER) == -1
    with pytest.warns(UserWarning, match="Running recv_object_list"):
        assert dist.recv_object_list([1], 0, group=dist.GroupMember.NON_GROUP_MEMBER) == -1


def test_the_order_of_ranks_in_a_group():
    rank, size = dist.get_rank(), dist.get_world_size()
    backward = list(range(size))[::-1]
    group = dist.new_group(backward, sort_ranks=False)
    assert dist.get_rank(group) == size - 1 - rank
    assert dist.get_process_group_ranks(group) == backward
    assert dist.new_group(backward).rank() == rank
    found = [disttorch.empty(1) for _ in range(size)]
    dist.all_gather(found, disttorch.tensor([float(rank)]), group=group)
    assert [f.item() for f in found] == backward
    dist.destroy_process_group(group)


def test_timeouts():
    world = dist.group.WORLD
    group = dist.new_group(timeout=timedelta(seconds=77))
    assert group.communicator.timeout == 77
    assert dist.new_group().communicator.timeout == world.communicator.timeout
    group.set_timeout(timedelta(minutes=2))
    assert group.communicator.timeout == 120
    dist.distributed_c10d._set_pg_timeout(timedelta(minutes=3), group)
    assert group.communicator.timeout == 180
    assert summed(group, 1) == dist.get_world_size()


def test_a_group_of_one_needs_nobody_else():
    rank = dist.get_rank()
    mine = dist.new_group([0], use_local_synchronization=True)
    if rank == 0:
        assert (mine.rank(), mine.size(), summed(mine, 5)) == (0, 1, 5)
        dist.destroy_process_group(mine)
    else:
        assert mine is None


def test_subgroups():
    rank, size = dist.get_rank(), dist.get_world_size()
    for n in (n for n in range(1, size + 1) if size % n == 0):
        own, all_ = dist.new_subgroups(n)
        assert len(all_) == size // n
        first = rank // n * n
        assert dist.get_process_group_ranks(own) == list(range(first, first + n))
        assert all_[rank // n] is own
        assert summed(own, rank) == sum(range(first, first + n))
        for group in all_:
            dist.destroy_process_group(group)
    own, all_ = dist.new_subgroups()  # all ranks of these tests are on one node
    assert own.size() == size
    assert len(all_) == 1


def test_subgroups_by_enumeration():
    rank, size = dist.get_rank(), dist.get_world_size()
    lists = [list(range(0, size, 2)), list(range(1, size - 1, 2))]
    lists = [ranks for ranks in lists if ranks]
    own, all_ = dist.new_subgroups_by_enumeration(lists)
    mine = next((ranks for ranks in lists if rank in ranks), None)
    assert len(all_) == len(lists)
    assert (own is None) == (mine is None)
    if mine:
        assert dist.get_process_group_ranks(own) == mine
        assert summed(own, rank) == sum(mine)


def test_splitting():
    rank, size = dist.get_rank(), dist.get_world_size()
    parent = dist.new_group(list(range(size))[::-1], sort_ranks=False)
    lists = [[0], list(range(1, size))] if size > 1 else [[0]]
    own = dist.split_group(parent, lists, group_desc="part")
    expected = [size - 1 - r for r in next(ranks for ranks in lists if parent.rank() in ranks)]
    assert dist.get_process_group_ranks(own) == expected
    assert own.group_desc == "part"
    assert summed(own, rank) == sum(expected)
    left_out = dist.split_group(None, [[size - 1]])
    assert (left_out is None) == (rank != size - 1)


BAD = [
    (dist.init_process_group, ValueError, "twice"),
    (lambda: dist.new_group([0, 0]), ValueError, "duplicate entries"),
    (lambda: dist.new_group([99]), ValueError, "Rank 99 is out of range"),
    (lambda: dist.new_group(timeout=3), TypeError, "of type datetime.timedelta"),
    (lambda: dist.new_group(backend="smoke"), ValueError, "backend 'smoke' is not one of"),
    (lambda: dist.new_subgroups(0), ValueError, r"'group_size' \(0\) must be positive"),
    (lambda: dist.new_subgroups(99), ValueError, r"\(99\) must not exceed the world size"),
    (lambda: dist.new_subgroups_by_enumeration([]), ValueError, "cannot be empty"),
    (lambda: dist.new_subgroups_by_enumeration([[0], [0]]), ValueError, "Rank 0 has appeared in both"),
    (lambda: dist.split_group(None, []), ValueError, "split_ranks cannot be None or empty"),
    (lambda: dist.split_group(None, [[0], [0]]), ValueError, "must be different numbers"),
    (lambda: dist.shrink_group([0]), TypeError, "cannot go on without ranks"),
    (lambda: dist.destroy_process_group(5), ValueError, "Invalid process group specified"),
    (lambda: dist.get_world_size("world"), ValueError, "Invalid process group specified"),
    (lambda: dist.get_global_rank(dist.group.WORLD, 99), ValueError, "Group rank 99 is not part of group"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.mpi(min_size=3)
def test_what_only_members_would_call():
    with pytest.raises(ValueError, match="use_local_synchronization=True is not supported"):
        dist.new_group([0, 1], use_local_synchronization=True)


@pytest.mark.mpi(min_size=2)
def test_the_size_of_subgroups_must_divide():
    size = dist.get_world_size()
    if size == 2:
        with pytest.raises(ValueError, match="must not exceed"):
            dist.new_subgroups(3)
    else:
        with pytest.raises(ValueError, match="must be divisible by"):
            dist.new_subgroups(size - 1)


def test_tensors_on_devices_that_a_group_does_not_carry():
    only_gpus = dist.new_group()
    only_gpus.config = dist.BackendConfig("nccl")
    with pytest.raises(RuntimeError, match="No backend type associated with device type cpu; the group has cuda:nccl"):
        dist.all_reduce(disttorch.ones(1), group=only_gpus)
    dist.destroy_process_group(only_gpus)
