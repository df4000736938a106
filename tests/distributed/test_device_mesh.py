"""Meshes of ranks against NumPy's arrays of their numbers."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
import disttorch.distributed._functional_collectives as funcol
from disttorch.distributed.device_mesh import DeviceMesh, init_device_mesh

pytestmark = pytest.mark.mpi(min_size=1)

#: meshes for a number of ranks
SHAPES = {1: [(1,), (1, 1)], 2: [(2,), (1, 2), (2, 1)], 3: [(3,), (3, 1)], 4: [(4,), (2, 2), (4, 1), (2, 1, 2)]}
NAMES = ("dp", "cp", "tp")


def shapes():
    size = dist.get_world_size()
    return SHAPES.get(size, [(size,), (1, size)])


def summed(group):
    x = disttorch.tensor([float(dist.get_rank())])
    dist.all_reduce(x, group=group)
    return x.item()


def line(ranks, along, place):
    index = tuple(slice(None) if d in along else i for d, i in enumerate(place))
    return ranks[index].ravel().tolist()


def test_ranks_and_groups():
    rank, size = dist.get_rank(), dist.get_world_size()
    for shape in shapes():
        ranks = np.arange(size).reshape(shape)
        names = NAMES[: len(shape)]
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        place = tuple(int(i[0]) for i in np.nonzero(ranks == rank))
        assert mesh.mesh.tolist() == ranks.tolist()
        assert mesh.mesh.dtype == disttorch.int32
        assert (mesh.ndim, mesh.shape, mesh.size(), mesh.device_type, mesh.mesh_dim_names) == (len(shape), shape, size, "cpu", names)
        assert mesh.get_rank() == rank
        assert mesh.get_coordinate() == place
        for d, name in enumerate(names):
            members = line(ranks, {d}, place)
            assert mesh.size(d) == shape[d]
            assert mesh.get_local_rank(d) == mesh.get_local_rank(name) == place[d]
            assert mesh.get_group(d) is mesh.get_group(name)
            assert dist.get_process_group_ranks(mesh.get_group(d)) == members
            assert summed(mesh.get_group(name)) == sum(members)
            part = mesh[name]
            assert part.mesh.tolist() == members
            assert part.get_group() is mesh.get_group(name)
            assert part.get_local_rank() == place[d]
            assert part.get_coordinate() == (place[d],)
            assert part.mesh_dim_names == (name,)
        assert mesh.get_all_groups() == [mesh.get_group(d) for d in range(mesh.ndim)]
        assert mesh[names] is mesh


def test_parts_of_several_dimensions_and_flattened_ones():
    rank, size = dist.get_rank(), dist.get_world_size()
    shape = (2, 1, size // 2) if size % 2 == 0 else (1, 1, size)
    ranks = np.arange(size).reshape(shape)
    place = tuple(int(i[0]) for i in np.nonzero(ranks == rank))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=NAMES)
    for names, dims in ((("dp", "cp"), (0, 1)), (("cp", "tp"), (1, 2)), (("dp", "tp"), (0, 2)), (NAMES, (0, 1, 2))):
        part = mesh[names]
        members = line(ranks, set(dims), place)
        assert part.mesh.tolist() == np.array(members).reshape([shape[d] for d in dims]).tolist()
        assert part.shape == tuple(shape[d] for d in dims)
        assert part.get_coordinate() == tuple(place[d] for d in dims)
        assert part.get_group(names[-1]) is mesh.get_group(names[-1])
        flat = part._flatten()
        assert flat.mesh_dim_names == ("_".join(names),)
        assert flat.mesh.tolist() == members
        assert dist.get_process_group_ranks(flat.get_group()) == members
        assert flat.get_local_rank() == members.index(rank)
        assert summed(flat.get_group()) == sum(members)
        assert mesh["_".join(names)].get_group() is mesh.get_group("_".join(names)) is flat.get_group()
        assert part._flatten() is flat
        assert flat._flatten("_".join(names)) is flat
    other = mesh["cp", "tp"]._flatten("mp")
    assert mesh["dp", "mp"].shape == (shape[0], shape[1] * shape[2])
    assert mesh["dp", "mp"].get_group("mp") is other.get_group()


def test_a_mesh_in_another_order_and_of_some_ranks():
    rank, size = dist.get_rank(), dist.get_world_size()
    backward = list(range(size))[::-1]
    mesh = DeviceMesh("cpu", backward)
    assert mesh.get_local_rank() == size - 1 - rank
    assert dist.get_process_group_ranks(mesh.get_group()) == backward
    first = DeviceMesh("cpu", disttorch.tensor([[0]]), mesh_dim_names=("a", "b"))
    if rank == 0:
        assert first.get_coordinate() == (0, 0)
        assert first["b"].get_group().size() == 1
    else:
        assert first.get_coordinate() is None
        assert first.mesh.tolist() == [[0]]
        with pytest.raises(RuntimeError, match=f"rank {rank} is not in the mesh"):
            first.get_group("a")


def test_meshes_of_groups():
    size = dist.get_world_size()
    world = dist.group.WORLD
    one = DeviceMesh.from_group(world, "cpu")
    assert one.get_group() is world
    assert one.mesh.tolist() == list(range(size))
    whole = init_device_mesh("cpu", (1, size), mesh_dim_names=("a", "b"))
    again = DeviceMesh.from_group(whole.get_all_groups(), "cpu", [list(range(size))], mesh_dim_names=("a", "b"))
    assert again == whole
    assert hash(again) == hash(whole)
    assert again.get_all_groups() == whole.get_all_groups()
    assert again != one
    assert again["a"] != whole["b"]
    for bad, message in (
        (lambda: DeviceMesh.from_group([], "cpu"), "at least one ProcessGroup"),
        (lambda: DeviceMesh.from_group([world, world], "cpu"), "Must pass mesh if"),
        (lambda: DeviceMesh.from_group([world, world], "cpu", [[0]]), "Must pass mesh_dim_names"),
        (lambda: DeviceMesh.from_group([world, world], "cpu", [0], mesh_dim_names=("a",)), "Expects mesh with ndim equal"),
        (lambda: DeviceMesh.from_group(world, "cpu", [99]), "Invalid mesh"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()


def test_functional_collectives_along_a_mesh():
    rank, size = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (1, size), mesh_dim_names=("a", "b"))
    x = disttorch.tensor([float(rank)])
    assert funcol.all_reduce(x, "sum", (mesh, 1)).item() == sum(range(size))
    assert funcol.all_reduce(x, "sum", mesh["a"]).item() == rank
    with pytest.raises(AssertionError, match="Only 1D mesh is supported"):
        funcol.all_reduce(x, "sum", mesh)


def test_backends_of_dimensions():
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (1, size), mesh_dim_names=("a", "b"), backend_override={"b": "mpi", 0: ("gloo", None)})
    assert [dist.get_backend(g) for g in mesh.get_all_groups()] == ["gloo", "mpi"]
    for override, message in (({"c": "gloo"}, "Found invalid keys"), ({0: "gloo", "a": "gloo"}, "redundant dim index 0 and name a")):
        with pytest.raises(RuntimeError, match=message):
            init_device_mesh("cpu", (1, size), mesh_dim_names=("a", "b"), backend_override=override)


@pytest.mark.mpi(min_size=4, max_size=4)
def test_how_meshes_are_printed():
    """As PyTorch prints them."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    assert repr(mesh) == "DeviceMesh((dp=2, tp=2), 'cpu', stride=(2, 1))"
    assert repr(mesh["dp"]) == "DeviceMesh((dp=2), 'cpu', stride=(2,))"
    assert repr(mesh["dp", "tp"]._flatten()) == "DeviceMesh((dp_tp=4), 'cpu', stride=(1,))"
    assert repr(init_device_mesh("cpu", (2, 2))) == "DeviceMesh((2, 2), 'cpu', stride=(2, 1))"


def named():
    return init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("a", "b"))


BAD = [
    (lambda: init_device_mesh("cpu", (99,)), RuntimeError, "not be bigger than default world size"),
    (lambda: init_device_mesh("cpu", (1, 1), mesh_dim_names=("a", "a")), RuntimeError, "must be unique"),
    (lambda: init_device_mesh("cpu", (1, 1), mesh_dim_names=("a",)), RuntimeError, "should have same length"),
    (lambda: init_device_mesh("cuda:0", (1,)), RuntimeError, "with index is not supported"),
    (lambda: DeviceMesh("cpu", [99]), ValueError, "must be different ranks"),
    (lambda: DeviceMesh("cpu"), TypeError, "mesh argument is required"),
    (lambda: init_device_mesh("cpu", (1,))["a"], RuntimeError, "Cannot slice a DeviceMesh without mesh_dim_names"),
    (lambda: init_device_mesh("cpu", (1,))._flatten(), RuntimeError, "Cannot flatten a DeviceMesh without mesh_dim_names"),
    (lambda: named()["c"], KeyError, "Invalid mesh_dim_names"),
    (lambda: named()["b", "a"], KeyError, "ascending order"),
    (lambda: named()["a", "a"], RuntimeError, "overlapping"),
    (lambda: named()._flatten("a"), ValueError, "a already exists"),
    (lambda: named().get_group(), RuntimeError, "`mesh_dim` needs to be specified"),
    (lambda: named().get_group("c"), KeyError, "'c' does not exist"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
