"""DeviceMesh: the ranks of a job as the elements of an array, with a process group along each of its dimensions.

A mesh of 2 by 4 ranks with the dimensions "dp" and "tp" has the groups {0, 4}, {1, 5}, ... along "dp" and {0, 1, 2, 3},
{4, 5, 6, 7} along "tp"; every rank is in one of each. Parts of a mesh share its ranks and groups: they are described by
the dimensions of the whole that each of their own is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import cuda
from ..autograd.variable import Tensor
from ..ops.creation import tensor as as_tensor
from .backend import BackendConfig
from .groups import (
    ProcessGroup,
    _get_default_group,
    get_node_local_rank,
    get_process_group_ranks,
    get_rank,
    get_world_size,
    is_initialized,
)
from .mesh_layout import Layout
from .process_group import _split, init_process_group

__all__ = ["DeviceMesh", "init_device_mesh"]


class DeviceMesh:
    """Ranks of a job as an array; as ``torch.distributed.device_mesh.DeviceMesh``.

    Every rank of the world makes the same meshes in the same order, also those that are in none of them.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        Where the tensors of its users live; with "cuda" each rank takes a GPU, unless it has chosen one.
    mesh : Tensor or nested list of int
        Ranks of the world, none twice.
    mesh_dim_names : tuple of str, optional
        A name for each dimension.
    backend_override : tuple, optional
        For each dimension a pair of the backend of its groups (None: the world's) and options, accepted as in PyTorch.

    Raises
    ------
    TypeError
        If there is no mesh.
    RuntimeError
        If the mesh is larger than the world.
    ValueError
        If a number is no rank's or stands twice, or there are not as many names or backends as dimensions.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> mesh = dist.DeviceMesh("cpu", [[0]], mesh_dim_names=("dp", "tp"))
    >>> mesh["tp"].get_group().size(), mesh.get_coordinate(), mesh
    (1, (0, 0), DeviceMesh((dp=1, tp=1), 'cpu', stride=(1, 1)))
    >>> dist.destroy_process_group()
    """

    _whole: DeviceMesh
    _groups: list[ProcessGroup | None]

    def __init__(
        self,
        device_type: str,
        mesh: Any = None,
        *,
        mesh_dim_names: Sequence[str] | None = None,
        backend_override: Sequence[tuple[str | None, Any]] | None = None,
        _init_backend: bool = True,
    ):
        if mesh is None:
            raise TypeError("DeviceMesh: the mesh argument is required")
        given = mesh if isinstance(mesh, Tensor) else as_tensor(mesh)
        self._layout = Layout(tuple(given.shape), tuple(given.flatten().tolist()))
        #: For each dimension those of the whole mesh that it is made of.
        self._dims: tuple[tuple[int, ...], ...] = tuple((d,) for d in range(given.ndim))
        self._device_type = device_type
        self._names = _checked_names(mesh_dim_names, given.ndim)
        self._whole = self
        self._flattened: dict[str, DeviceMesh] = {}
        if not is_initialized():
            init_process_group()
        world = get_world_size()
        ranks = self._layout.ranks
        if len(ranks) > world:
            raise RuntimeError(f"Mesh should not be bigger than default world size {world}, but found {len(ranks)} ranks!")
        if len(set(ranks)) != len(ranks) or any(not 0 <= r < world for r in ranks):
            raise ValueError(f"DeviceMesh: {self.mesh.tolist()} must be different ranks from 0 to {world - 1}")
        if backend_override is not None and len(backend_override) != self.ndim:
            raise ValueError(
                "backend_override should have the same length as the number of mesh dimensions, but got "
                f"{len(backend_override)} and {self.ndim}."
            )
        if _init_backend:
            _choose_gpu(device_type)
            backends = [None] * self.ndim if backend_override is None else [backend for backend, _ in backend_override]
            self._groups = [self._form(d, backend) for d, backend in zip(self._dims, backends)]

    @classmethod
    def _part(cls, whole: DeviceMesh, dims: Sequence[tuple[int, ...]], names: Sequence[str]) -> DeviceMesh:
        new = cls.__new__(cls)
        new.__dict__.update(whole.__dict__)
        new._dims, new._names, new._whole, new._flattened = tuple(dims), tuple(names), whole, {}
        return new

    # --- who is where ---------------------------------------------------------------------------------------------------

    @property
    def device_type(self) -> str:
        """Where the tensors of its users live."""
        return self._device_type

    @property
    def mesh_dim_names(self) -> tuple[str, ...] | None:
        """The dimensions' names."""
        return self._names

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions' sizes."""
        return tuple(self._layout.size(dims) for dims in self._dims)

    def size(self, mesh_dim: int | None = None) -> int:
        """The number of ranks, or the size of a dimension."""
        return math.prod(self.shape) if mesh_dim is None else self.shape[mesh_dim]

    @property
    def mesh(self) -> Tensor:
        """The ranks of the world; of a part of a mesh that part which this rank is in."""
        own = self._layout.place(get_rank()) or (0,) * len(self._layout.sizes)
        return as_tensor(self._layout.line(tuple(d for dims in self._dims for d in dims), own)).reshape(self.shape).int()

    def get_rank(self) -> int:
        """This process's rank in the world."""
        return get_rank()

    def get_coordinate(self) -> tuple[int, ...] | None:
        """This rank's index in each dimension; None if it is not in the mesh."""
        place = self._layout.place(get_rank())
        return None if place is None else tuple(self._layout.index(dims, place) for dims in self._dims)

    def get_local_rank(self, mesh_dim: int | str | None = None) -> int:
        """This rank's index in a dimension, which is its rank in that dimension's group.

        Raises
        ------
        RuntimeError
            If there are several dimensions and none is given.
        """
        return get_rank(self.get_group(mesh_dim))

    # --- groups ---------------------------------------------------------------------------------------------------------

    def _form(self, dims: tuple[int, ...], backend: str | None) -> ProcessGroup | None:
        """The group along dimensions of the whole mesh that this rank is in; every rank of the world calls."""
        world = _get_default_group()
        lines = list(self._layout.lines(dims))
        if len(lines) == 1 and lines[0] == world.ranks and backend is None:
            return world
        mine = get_rank()
        color = next((i for i, line in enumerate(lines) if mine in line), None)
        config = world.config if backend is None else BackendConfig(backend)
        members = [] if color is None else lines[color]
        name = "mesh_" + "_".join(self._names[d] if self._names else f"dim_{d}" for d in dims)
        made = _split(world, members, color is not None, color or 0, config, None, name)
        return made if color is not None else None

    def get_group(self, mesh_dim: int | str | None = None) -> ProcessGroup:
        """The group of the ranks along a dimension through this one.

        Parameters
        ----------
        mesh_dim : int or str, optional
            A dimension, or the name of a flattened one; may be absent where there is one dimension only.

        Raises
        ------
        RuntimeError
            If there are several dimensions and none is given, or this rank is not in the mesh.
        KeyError
            If there is no dimension of that name.
        """
        if mesh_dim is None:
            if self.ndim > 1:
                raise RuntimeError(
                    f"Found the DeviceMesh have {self.ndim} dimensions. Optional kwarg `mesh_dim` needs to be specified when "
                    "device_mesh.ndim > 1."
                )
            mesh_dim = 0
        if isinstance(mesh_dim, str) and mesh_dim in self._whole._flattened:
            return self._whole._flattened[mesh_dim].get_group()
        found = self._group_of(self._dims[self._number(mesh_dim)])
        if found is None:
            raise RuntimeError(f"DeviceMesh: rank {get_rank()} is not in the mesh {self}")
        return found

    def _group_of(self, dims: tuple[int, ...]) -> ProcessGroup | None:
        if not hasattr(self, "_groups"):
            raise RuntimeError("DeviceMesh process groups not initialized!")
        for mesh in self._whole._flattened.values():
            if mesh._dims == (dims,):
                return mesh._groups[0]
        return self._whole._groups[dims[0]]

    def get_all_groups(self) -> list[ProcessGroup]:
        """The groups along all dimensions."""
        return [self.get_group(d) for d in range(self.ndim)]

    def _number(self, dim: int | str) -> int:
        if not isinstance(dim, str):
            return range(self.ndim)[dim]
        if self._names is None or dim not in self._names:
            raise KeyError(f"Mesh dimension '{dim}' does not exist. Available mesh dimensions are: mesh_dim_names={self._names}")
        return self._names.index(dim)

    # --- parts ----------------------------------------------------------------------------------------------------------

    def __getitem__(self, mesh_dim_names: str | tuple[str, ...]) -> DeviceMesh:
        """The mesh of some dimensions only, through this rank.

        Parameters
        ----------
        mesh_dim_names : str or tuple of str
            In the mesh's order; of the whole mesh also names of flattened dimensions.

        Raises
        ------
        RuntimeError
            If the dimensions have no names, or overlap.
        KeyError
            If there is no dimension of a name, or their order is another one.
        """
        if self._names is None:
            raise RuntimeError("Cannot slice a DeviceMesh without mesh_dim_names!")
        wanted = (mesh_dim_names,) if isinstance(mesh_dim_names, str) else tuple(mesh_dim_names)
        if wanted == self._names:
            return self
        known = dict(zip(self._names, self._dims))
        if self._whole is self:
            known |= {name: mesh._dims[0] for name, mesh in self._flattened.items()}
        if any(name not in known for name in wanted):
            raise KeyError(f"Invalid mesh_dim_names {wanted} specified. Valid mesh_dim_names are {list(known)}.")
        dims = [known[name] for name in wanted]
        joined = [d for part in dims for d in part]
        if len(set(joined)) != len(joined):
            raise RuntimeError(f"Slicing overlapping dim_names {wanted} is not allowed.")
        if joined != sorted(joined):
            raise KeyError(f"Invalid mesh_dim_names {wanted} specified. Mesh dim indices should be in ascending order.")
        return DeviceMesh._part(self._whole, dims, wanted)

    def _flatten(self, mesh_dim_name: str | None = None, backend_override: Any = None) -> DeviceMesh:
        """A mesh of one dimension of all ranks of this one, with a group; every rank of the world calls.

        Parameters
        ----------
        mesh_dim_name : str, optional
            Its name, under which the whole mesh knows it from then on; the dimensions' names joined by "_" unless given.
        backend_override : str or tuple, optional
            As an entry of ``backend_override`` of `init_device_mesh`.

        Raises
        ------
        RuntimeError
            If the dimensions have no names.
        ValueError
            If the name is taken.
        """
        if self._names is None:
            raise RuntimeError("Cannot flatten a DeviceMesh without mesh_dim_names!")
        name = mesh_dim_name or "_".join(self._names)
        if self.ndim == 1 and name in self._names:
            return self
        whole, dims = self._whole, tuple(d for part in self._dims for d in part)
        if name in (whole._names or ()):
            raise ValueError(f"{name} already exists for submesh of the {whole}. Please specify another valid mesh_dim_name.")
        if name not in whole._flattened:
            flat = DeviceMesh._part(whole, [dims], [name])
            backend = backend_override if isinstance(backend_override, str) or backend_override is None else backend_override[0]
            flat._groups = [whole._form(dims, backend)]
            whole._flattened[name] = flat
        if whole._flattened[name]._dims != (dims,):
            raise ValueError(f"Flatten mesh with mesh_dim_name {name} has been created before, Please specify another valid mesh_dim_name.")
        return whole._flattened[name]

    @staticmethod
    def from_group(
        group: ProcessGroup | Sequence[ProcessGroup],
        device_type: str,
        mesh: Any = None,
        *,
        mesh_dim_names: Sequence[str] | None = None,
    ) -> DeviceMesh:
        """A mesh along whose dimensions there are groups already.

        Parameters
        ----------
        group : ProcessGroup or list of ProcessGroup
            This rank's group along each dimension.
        device_type : str
        mesh : Tensor or nested list of int
            The ranks; may be absent with one group.
        mesh_dim_names : tuple of str
            May be absent with one group.

        Raises
        ------
        ValueError
            If something is missing or does not fit together.
        """
        if isinstance(group, ProcessGroup):
            ranks = get_process_group_ranks(group)
            if mesh is not None and (mesh.tolist() if isinstance(mesh, Tensor) else list(mesh)) != ranks:
                raise ValueError(f"Invalid mesh {mesh} for ProcessGroup with ranks {ranks}")
            mesh, groups = ranks, [group]
        else:
            groups = list(group)
            if not groups:
                raise ValueError("Expects at least one ProcessGroup to be passed")
            if mesh is None:
                raise ValueError("Must pass mesh if passing multiple ProcessGroups")
            if mesh_dim_names is None:
                raise ValueError("Must pass mesh_dim_names if passing multiple ProcessGroups")
        new = DeviceMesh(device_type, mesh, mesh_dim_names=mesh_dim_names, _init_backend=False)
        if new.ndim != len(groups):
            raise ValueError(
                f"Expects mesh with ndim equal to number of ProcessGroups but got mesh {new.mesh.tolist()} and {len(groups)} ProcessGroups"
            )
        new._groups = list(groups)
        return new

    # --- as a value -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> DeviceMesh:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def _key(self) -> tuple:
        return self._layout, self._dims, self._names, self._device_type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceMesh) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        names = self._names
        sizes = f"({', '.join(f'{name}={size}' for name, size in zip(names, self.shape))})" if names else f"{self.shape}"
        strides = tuple(self._layout.stride(dims) for dims in self._dims)
        return f"DeviceMesh({sizes}, '{self._device_type}', stride={strides})"


def _checked_names(names: Sequence[str] | None, ndim: int) -> tuple[str, ...] | None:
    if not names:
        return None
    if len(names) != ndim or len(set(names)) != ndim:
        raise ValueError(f"mesh_dim_names {tuple(names)} must be {ndim} different names, one for each dimension")
    return tuple(names)


def _choose_gpu(device_type: str) -> None:
    """Give this rank a GPU of its own, where it still has the first one, which every process starts with."""
    if device_type == "cuda" and cuda.is_available() and cuda.current_device() == 0:
        cuda.set_device(get_node_local_rank(get_rank()) % cuda.device_count())


def init_device_mesh(
    device_type: str,
    mesh_shape: Sequence[int],
    *,
    mesh_dim_names: Sequence[str] | None = None,
    backend_override: dict[int | str, Any] | None = None,
) -> DeviceMesh:
    """A `DeviceMesh` of the ranks 0, 1, ... in their order; as ``torch.distributed.device_mesh.init_device_mesh``.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        Without a number.
    mesh_shape : tuple of int
        How many ranks there are along each dimension; the last varies fastest.
    mesh_dim_names : tuple of str, optional
        A name for each dimension.
    backend_override : dict, optional
        The backend of a dimension's groups, by its number or name: a name, or a pair of a name and options.

    Raises
    ------
    RuntimeError
        If the device type has a number, there are not as many different names as dimensions, or the mesh is larger than the world.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> dist.init_device_mesh("cpu", (1, 1), mesh_dim_names=("dp", "tp"))["dp"].mesh
    tensor([0], dtype=disttorch.int32)
    >>> dist.destroy_process_group()
    """
    if mesh_dim_names is not None:
        if len(set(mesh_dim_names)) != len(mesh_dim_names):
            raise RuntimeError(f"Each mesh_dim_name must be unique. Found repeated mesh_dim_name in mesh_dim_names {mesh_dim_names}")
        if len(mesh_shape) != len(mesh_dim_names):
            raise RuntimeError(
                "mesh_shape and mesh_dim_names should have same length! Found len(mesh_dim_names): "
                f"{len(mesh_dim_names)} and len(mesh_shape):{len(mesh_shape)}."
            )
    if not device_type.isalpha():
        raise RuntimeError(f"Device type with index is not supported but got {device_type}. Pass device.type.")
    overrides = None
    if backend_override is not None:
        overrides = _overrides(dict(backend_override), tuple(mesh_shape), tuple(mesh_dim_names or ()))
    ranks = as_tensor(list(range(math.prod(mesh_shape)))).reshape(tuple(mesh_shape))
    return DeviceMesh(device_type, ranks, mesh_dim_names=mesh_dim_names, backend_override=overrides)


def _overrides(given: dict[int | str, Any], shape: tuple[int, ...], names: tuple[str, ...]) -> list[tuple[str | None, Any]]:
    found: list[tuple[str | None, Any]] = []
    for number in range(len(shape)):
        keys = [key for key in (number, *names[number : number + 1]) if key in given]
        if len(keys) > 1:
            raise RuntimeError(f"Found redundant dim index {number} and name {names[number]} in backend_override")
        value = given.pop(keys[0]) if keys else None
        found.append(value if isinstance(value, tuple) else (value, None))
    if given:
        raise RuntimeError(
            f"Found invalid keys in backend_override: got {list(given)}, expected integers in range [0, {len(shape)}) or one of {names}"
        )
    return found
