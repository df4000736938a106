"""Forward mode: tangents beside values; as ``torch.autograd.forward_ad``.

A pull-back is linear in its cotangents, and the pull-back of that linear function is the push-forward (J. Townsend, "A new trick
for calculating Jacobian vector products", 2017). So every operation with a derivative has forward mode, and no rule is written
twice. A dual tensor is one that records what is computed of it: inside `no_grad` it has no tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..backend import NAMESPACES
from .differentiate import grad
from .function import forward_mode
from .grad_mode import decorated, enable_grad, is_grad_enabled
from .node import AccumulateGrad, Node
from .operation import Operation, apply
from .variable import Tensor, wrap

__all__ = [
    "UnpackedDualTensor",
    "alias_of",
    "asks_elsewhere",
    "dual_level",
    "enter_dual_level",
    "exit_dual_level",
    "leaf_on",
    "make_dual",
    "push_forward",
    "unpack_dual",
]

_alias = Operation("alias", lambda xp, x: x, x=lambda g: g)


def leaf_on(array: Any) -> Tensor:
    """A leaf that asks for its gradient, on the memory of an array."""
    leaf = wrap(array)
    leaf._node = AccumulateGrad(leaf)
    return leaf


def alias_of(x: Tensor) -> Tensor:
    """A tensor with the same elements to differentiate by; it remembers the graph of `x`."""
    return apply(_alias, x) if x._node is not None and is_grad_enabled() else leaf_on(x._array)


def asks_elsewhere(outputs: Iterable[Any], own: Iterable[Node | None]) -> bool:
    """Whether outputs depend on leaves beside some of our own."""
    seen = set(own)
    stack = [o._node for o in outputs if isinstance(o, Tensor) and o._node is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.__class__ is AccumulateGrad:
            return True
        stack.extend(e for e in node.edges if e is not None)
    return False


def push_forward(
    outputs: Sequence[Tensor], sources: Sequence[Tensor], own: Sequence[Node]
) -> Callable[[Sequence[Tensor | None], bool | None], list[Tensor | None]]:
    """The product of the Jacobian with tangents, as a function of them.

    Parameters
    ----------
    outputs, sources : sequence of Tensor
        What is differentiated by what.
    own : sequence of Node
        Leaves that nobody else knows: what depends on them alone needs no graph.

    Returns
    -------
    callable
        Takes the tangents of the sources, and whether to record (where it is of use, if None); returns those of the
        outputs, None where they are zero.
    """
    asking = [o for o in outputs if o._node is not None]
    with enable_grad():
        probes = [leaf_on(NAMESPACES[o._array.__class__].zeros_like(o._array)) for o in asking]
        before = forward_mode.set(True)
        try:
            found: Sequence[Tensor | None] = (
                grad(asking, sources, probes, create_graph=True, allow_unused=True) if asking else [None] * len(sources)
            )
        finally:
            forward_mode.reset(before)
    own = [*own, *(p._node for p in probes if p._node is not None)]

    def push(tangents: Sequence[Tensor | None], create_graph: bool | None = None) -> list[Tensor | None]:
        pairs = [(g, t) for g, t in zip(found, tangents) if g is not None and g._node is not None and t is not None]
        pushed: Sequence[Tensor | None] = [None] * len(probes)
        if pairs:
            if create_graph is None:
                create_graph = is_grad_enabled() and asks_elsewhere([*(g for g, _ in pairs), *(t for _, t in pairs)], own)
            pushed = grad(
                [g for g, _ in pairs], probes, [t for _, t in pairs], retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        known = iter(pushed)
        return [next(known) if o._node is not None else None for o in outputs]

    return push


class UnpackedDualTensor(NamedTuple):
    """What `unpack_dual` returns: the value, and its tangent or None."""

    primal: Tensor
    tangent: Tensor | None


class _Level:
    """The dual tensors that were made in a block, each with its tangent."""

    def __init__(self) -> None:
        self.duals: list[tuple[Tensor, Tensor]] = []


_levels: ContextVar[tuple[_Level, ...]] = ContextVar("disttorch.dual_levels", default=())


def enter_dual_level() -> int:
    """Begin a level of forward mode; returns its number. `dual_level` is the same as a with-block.

    Raises
    ------
    RuntimeError
        If one has begun.
    """
    if _levels.get():
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    _levels.set((_Level(),))
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """End the level of forward mode; its dual tensors have no tangents any more.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    if not _levels.get():
        raise RuntimeError("Dual level must be a positive number.")
    _levels.set(())


class dual_level:
    """A level of forward mode as a with-block.

    Examples
    --------
    >>> import disttorch
    >>> import disttorch.autograd.forward_ad as fwAD
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(disttorch.tensor([1.0, 2.0]), disttorch.tensor([1.0, 0.5]))
    ...     fwAD.unpack_dual(x * x)
    UnpackedDualTensor(primal=tensor([1., 4.]), tangent=tensor([2., 2.]))
    """

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exception: Any) -> None:
        exit_dual_level()

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: self)


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """The tensor with a tangent; what is computed of it has one too. As ``torch.autograd.forward_ad.make_dual``.

    Raises
    ------
    RuntimeError
        Outside of a level, if the shapes differ, or the tensor has a tangent.
    """
    if not _levels.get():
        raise RuntimeError("Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first.")
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(f"Expected primal to be floating point or complex, but got: {tensor.dtype}")
    if not (tangent.is_floating_point() or tangent.is_complex()):
        raise ValueError(f"Expected tangent to be floating point or complex, but got: {tangent.dtype}")
    if tensor._array.shape != tangent._array.shape:
        raise RuntimeError(
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not supported. Tensor "
            f"is of size {list(tensor.shape)} while the given forward gradient is of size {list(tangent.shape)}."
        )
    current = _levels.get()[-1]
    if any(dual is tensor for dual, _ in current.duals):
        raise RuntimeError(
            "Making a dual Tensor based on a Tensor that already has a forward gradient at the same level 0 is not supported."
        )
    with enable_grad():
        dual = alias_of(tensor)
    current.duals.append((dual, tangent))
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The value and the tangent of a tensor that was computed of dual ones; as ``torch.autograd.forward_ad.unpack_dual``."""
    if not _levels.get():
        return UnpackedDualTensor(tensor, None)
    duals = _levels.get()[-1].duals
    own = [d._node for d, _ in duals if d._node is not None and d._node.__class__ is AccumulateGrad]
    primal = tensor if asks_elsewhere([tensor], own) else tensor.detach()
    for dual, tangent in duals:
        if dual is tensor:
            return UnpackedDualTensor(primal, tangent)
    if tensor._node is None or not duals:
        return UnpackedDualTensor(primal, None)
    (pushed,) = push_forward([tensor], [d for d, _ in duals], own)([t for _, t in duals], None)
    return UnpackedDualTensor(primal, pushed)
