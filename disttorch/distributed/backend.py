"""Backends: PyTorch's names of what carries tensors, and the transports of `collectives` that they stand for here."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, ClassVar

from ..backend.device import device as Device
from ..cuda import is_available as gpu_is_available

__all__ = [
    "Backend",
    "BackendConfig",
    "get_default_backend_for_device",
    "is_available",
    "is_backend_available",
    "is_gloo_available",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "is_ucc_available",
    "is_xccl_available",
    "transport_of",
]

#: For each backend the transport that joins the ranks, and the kinds of device whose tensors it carries. What PyTorch's
#: "gloo" does is done by whatever suits how the ranks were started. Tensors on GPUs go over NCCL where each rank has a GPU
#: of its own, by way of the host's memory elsewhere.
_BACKENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "auto": ("auto", ("cpu", "cuda")),
    "gloo": ("auto", ("cpu", "cuda")),
    "hierarchical": ("hierarchical", ("cpu", "cuda")),
    "local": ("local", ("cpu", "cuda")),
    "mpi": ("mpi", ("cpu", "cuda")),
    "nccl": ("auto", ("cuda",)),
    "shared": ("shared", ("cpu", "cuda")),
    "tcp": ("tcp", ("cpu", "cuda")),
}


class Backend(str):
    """A backend's name in lower case; as ``torch.distributed.Backend``.

    Attributes
    ----------
    GLOO, MPI, NCCL : str
        PyTorch's. GLOO, the default for the CPU, chooses the transport by how the ranks were started.
    AUTO, LOCAL, SHARED, HIERARCHICAL, TCP : str
        Our transports by their own names: "shared" within a node, "hierarchical" shared within and MPI across nodes.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.Backend("GLOO") == dist.Backend.GLOO
    True
    """

    UNDEFINED = "undefined"
    GLOO = "gloo"
    NCCL = "nccl"
    UCC = "ucc"
    MPI = "mpi"
    XCCL = "xccl"
    AUTO = "auto"
    LOCAL = "local"
    SHARED = "shared"
    HIERARCHICAL = "hierarchical"
    TCP = "tcp"

    backend_list: ClassVar[list[str]] = list(_BACKENDS)
    default_device_backend_map: ClassVar[dict[str, str]] = {"cpu": GLOO, "cuda": NCCL}
    backend_capability: ClassVar[dict[str, list[str]]] = {name: list(kinds) for name, (_, kinds) in _BACKENDS.items()}

    def __new__(cls, name: str) -> Any:
        if not isinstance(name, str):
            raise ValueError(f"Backend: a name is wanted, not {name!r}")
        return name.lower()


class BackendConfig:
    """Which backend carries the tensors of which kind of device; as ``torch.distributed.BackendConfig``.

    Parameters
    ----------
    backend : str
        One name, for all kinds of device that it carries; or pairs: ``"cpu:gloo,cuda:nccl"``. "undefined": the
        default of each kind of device that there is.

    Raises
    ------
    ValueError
        If a name is none of ours, a kind of device is there twice, or its tensors are not carried by that backend.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.BackendConfig("cpu:mpi,cuda:nccl").get_device_backend_map()
    {'cpu': 'mpi', 'cuda': 'nccl'}
    """

    def __init__(self, backend: str):
        name = Backend(backend)
        found: dict[str, str] = {}
        if name == Backend.UNDEFINED:
            found["cpu"] = Backend.GLOO
            if is_nccl_available() and gpu_is_available():
                found["cuda"] = Backend.NCCL
        elif ":" in name:
            for pair in name.split(","):
                kind, _, one = (part.strip() for part in pair.partition(":"))
                if kind in found:
                    raise ValueError(f"backend {backend!r} names the device type {kind!r} twice")
                found[kind] = _checked(one, backend)
        else:
            found = dict.fromkeys(Backend.backend_capability[_checked(name, backend)], name)
        for kind, one in found.items():
            if kind not in Backend.backend_capability[one]:
                can = ", ".join(name for name, (_, kinds) in _BACKENDS.items() if kind in kinds) or "none"
                raise ValueError(f"backend {backend!r}: {one!r} does not carry tensors on {kind!r}; for them there are: {can}")
        self.device_backend_map = found

    def get_device_backend_map(self) -> dict[str, str]:
        """The name of a backend for each kind of device."""
        return self.device_backend_map

    def __repr__(self) -> str:
        return ",".join(f"{kind}:{name}" for kind, name in self.device_backend_map.items())


def _checked(name: str, given: str) -> str:
    if name not in Backend.backend_list:
        raise ValueError(f"backend {given!r} is not one of {', '.join(repr(b) for b in Backend.backend_list)}")
    return name


def transport_of(config: BackendConfig) -> str:
    """The transport that joins the ranks.

    Raises
    ------
    RuntimeError
        If tensors on GPUs only are to be carried and there is no GPU, or no NCCL.
    ValueError
        If the backends of the kinds of device ask for different transports.
    """
    names = list(dict.fromkeys(config.device_backend_map.values()))
    if names == ["nccl"] and not (is_nccl_available() and gpu_is_available()):
        raise RuntimeError(
            "Distributed package doesn't have NCCL built in: backend 'nccl' carries tensors on GPUs, and there is no GPU here that CuPy "
            "can use; 'gloo' carries the CPU's"
        )
    wanted = {_BACKENDS[name][0] for name in names if name != "nccl"} or {"auto"}
    if len(wanted) > 1:
        raise ValueError(f"backend {config}: one transport joins the ranks, and these are {' and '.join(sorted(wanted))}")
    return wanted.pop()


def is_available() -> bool:
    """Whether distributed training is there; it always is."""
    return True


def is_gloo_available() -> bool:
    """Whether there is what PyTorch's "gloo" stands for: a backend for the CPU's tensors. There always is."""
    return True


def is_mpi_available() -> bool:
    """Whether mpi4py is installed; that there is an MPI library for it shows when it is loaded."""
    return find_spec("mpi4py") is not None


def is_nccl_available() -> bool:
    """Whether CuPy is installed, by which NCCL is called; whether there is a GPU says ``cuda.is_available()``."""
    return find_spec("cupy") is not None


def is_ucc_available() -> bool:
    """False: there is no such backend here."""
    return False


def is_xccl_available() -> bool:
    """False: there is no such backend here."""
    return False


def is_backend_available(backend: str) -> bool:
    """Whether a backend, or each of a list such as ``"cpu:gloo,cuda:nccl"``, can be used here.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.is_backend_available("gloo"), dist.is_backend_available("carrier pigeon")
    (True, False)
    """
    try:
        names = set(BackendConfig(backend).device_backend_map.values())
    except ValueError:
        return False
    return all({"nccl": is_nccl_available, "mpi": is_mpi_available}.get(name, is_gloo_available)() for name in names)


def is_torchelastic_launched() -> bool:
    """Whether torchrun started this process (TORCHELASTIC_RUN_ID is set)."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def get_default_backend_for_device(device: Any) -> str:
    """The backend that carries a device's tensors unless another is asked for.

    Raises
    ------
    ValueError
        If there is none.
    """
    kind = Device(device).type
    if kind not in Backend.default_device_backend_map:
        raise ValueError(f"Default backend not registered for device : {device}")
    return Backend.default_device_backend_map[kind]
