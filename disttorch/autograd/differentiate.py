"""backward and grad: what users call to start the engine."""

from __future__ import annotations

from typing import Any

from ..backend import NAMESPACES
from .engine import run_backward
from .graph import AccumulateGrad, Node
from .variable import Tensor, wrap

__all__ = ["backward", "grad"]


def _as_tuple(value: Any) -> tuple:
    return (value,) if value is None or isinstance(value, Tensor) else tuple(value)


def _roots(name: str, outputs: tuple, gradients: tuple, create_graph: bool) -> list[tuple[Node, Any]]:
    """The nodes to start from, each with its gradient; 1 for a result of one element where none is given."""
    if len(gradients) != len(outputs):
        if gradients != (None,):
            raise RuntimeError(f"{name}: got {len(outputs)} tensors and {len(gradients)} gradients")
        gradients = (None,) * len(outputs)
    roots = []
    for i, (output, gradient) in enumerate(zip(outputs, gradients)):
        if not isinstance(output, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(output).__name__}")
        if output._node is None:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        if gradient is None:
            if output._array.size != 1:
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, but output {i} has shape {list(output._array.shape)}"
                )
            xp = NAMESPACES[output._array.__class__]
            start: Any = xp.ones_like(output._array)
            if create_graph:
                start = NAMESPACES[Tensor].ones_like(output.detach())
        else:
            if gradient._array.shape != output._array.shape:
                raise RuntimeError(
                    f"mismatch in shape: grad_output[{i}] has a shape of {list(gradient._array.shape)} and output[{i}] has a shape of "
                    f"{list(output._array.shape)}."
                )
            start = gradient if create_graph else gradient._array
        roots.append((output._node, start))
    return roots


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of tensors to the ``.grad`` of the leaves; as ``torch.autograd.backward``.

    Parameters
    ----------
    tensors : Tensor or sequence of Tensor
        What to differentiate.
    grad_tensors : Tensor or sequence of Tensor or None, optional
        The gradients of `tensors`; may be absent for those of one element.
    retain_graph : bool, optional
        Keep the graph for another backward; the value of `create_graph` unless given.
    create_graph : bool
        Record the computation of the gradients, for derivatives of higher order.
    inputs : Tensor or sequence of Tensor, optional
        The only leaves whose ``.grad`` shall change.

    Raises
    ------
    RuntimeError
        If a tensor has no graph, a gradient has the wrong shape, or the graph was freed by an earlier backward.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([1.0, 2.0], requires_grad=True)
    >>> disttorch.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    keep = create_graph if retain_graph is None else retain_graph
    targets: tuple = ()
    if inputs is not None:
        targets = _as_tuple(inputs)
        if not targets:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
        for i, t in enumerate(targets):
            if t._node is None:
                raise RuntimeError(f"backward: input {i} does not require grad")
    roots = _roots("backward", _as_tuple(tensors), _as_tuple(grad_tensors), create_graph)
    captured = run_backward(roots, keep_graph=keep, create_graph=create_graph, capture=tuple(t._node for t in targets))
    for t in targets:
        if t._node.__class__ is not AccumulateGrad and t._node in captured and not t._retains_grad:
            AccumulateGrad(t).accumulate(captured[t._node], is_fresh=False)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of outputs with respect to inputs; as ``torch.autograd.grad``.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
    inputs : Tensor or sequence of Tensor
        Leaves, or results on the way.
    grad_outputs : Tensor or sequence of Tensor or None, optional
        The gradients of `outputs`; may be absent for those of one element.
    retain_graph, create_graph : bool
        As in `backward`.
    allow_unused : bool, optional
        Whether an input that the outputs do not depend on is no error; its gradient is None.
    materialize_grads : bool
        Zeros instead of None for such inputs.

    Returns
    -------
    tuple of Tensor or None
        One for each input; ``.grad`` of nothing changes.

    Raises
    ------
    RuntimeError
        If an input has no gradient and that is not allowed, and as in `backward`.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor(3.0, requires_grad=True)
    >>> (g,) = disttorch.autograd.grad(x**3, x, create_graph=True)
    >>> disttorch.autograd.grad(g, x)
    (tensor(18.),)
    """
    if is_grads_batched:
        raise NotImplementedError("grad: is_grads_batched is not built; call grad once for each gradient")
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, but got False.")
    sources = _as_tuple(inputs)
    for i, t in enumerate(sources):
        if t._node is None:
            raise RuntimeError(f"one of the differentiated Tensors, number {i}, does not require grad")
    roots = _roots("grad", _as_tuple(outputs), _as_tuple(grad_outputs), create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    nodes = tuple(t._node for t in sources)
    captured = run_backward(roots, keep_graph=keep, create_graph=create_graph, capture=nodes, accumulate=False)
    results: list[Tensor | None] = []
    taken = set() if create_graph else {_owner(start) for _, start in roots}
    for i, (t, node) in enumerate(zip(sources, nodes)):
        g = captured.get(node)
        if g is None and not (allow_unused or materialize_grads):
            raise RuntimeError(
                f"One of the differentiated Tensors, number {i} of shape {list(t.shape)}, appears to not have been used in the graph. "
                "Set allow_unused=True if this is the desired behavior."
            )
        if g is None:
            results.append(NAMESPACES[Tensor].zeros_like(t.detach()) if materialize_grads else None)
        else:
            results.append(g if create_graph else _own(g, taken))
    return tuple(results)


def _owner(array: Any) -> int:
    """What two arrays have in common if they are views of the same memory."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return id(array)


def _own(array: Any, taken: set[int]) -> Tensor:
    """A gradient of the engine as a tensor whose memory no other result has."""
    xp = NAMESPACES[array.__class__]
    owner = _owner(array)
    if array.__class__ is not xp.ndarray or owner in taken or not array.flags.writeable:
        return wrap(xp.array(array))
    taken.add(owner)
    return wrap(array)
