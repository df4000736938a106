"""backward and grad: what users call to start the engine."""

from __future__ import annotations

from typing import Any

from ..backend import NAMESPACES
from ..backend.batched import BatchedArray, batch, levels, lifted, new_level, unbatch
from ..backend.layout import is_writeable
from .batching import batch_tensor, unbatch_tensor
from .engine import run_backward
from .graph import GradientEdge
from .node import AccumulateGrad, Node, Pick
from .saved import memory_of
from .variable import Tensor, wrap

__all__ = ["backward", "grad"]


def _as_tuple(value: Any) -> tuple:
    return (value,) if value is None or isinstance(value, (Tensor, GradientEdge)) else tuple(value)


def _roots(name: str, outputs: tuple, gradients: tuple, create_graph: bool, samples: int | None = None) -> list[tuple[Node, Any]]:
    """The nodes to start from, each with its gradient; 1 for a result of one element where none is given.

    With `samples`, gradients have that many entries in a dimension before those of the outputs.
    """
    if len(gradients) != len(outputs):
        if gradients != (None,):
            raise RuntimeError(f"{name}: got {len(outputs)} tensors and {len(gradients)} gradients")
        gradients = (None,) * len(outputs)
    roots = []
    for i, (output, gradient) in enumerate(zip(outputs, gradients)):
        if isinstance(output, GradientEdge):
            roots.append((output._node, _start_at_edge(name, i, output, gradient, create_graph)))
            continue
        if not isinstance(output, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(output).__name__}")
        if output._node is None:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        if gradient is None:
            if output._array.size != 1:
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, but output {i} has shape {list(output._array.shape)}"
                )
            if output._array.dtype.kind == "c":
                raise RuntimeError(f"grad can be implicitly created only for real scalar outputs but got {output.dtype}")
            xp = NAMESPACES[output._array.__class__]
            start: Any = xp.ones_like(output._array)
            if create_graph:
                start = NAMESPACES[Tensor].ones_like(output.detach())
        else:
            given, wanted = gradient._array.shape, output._array.shape
            if samples is not None:
                if given[:1] != (samples,) or given[1:] != wanted:
                    raise RuntimeError(
                        "If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch dimension. The "
                        f"sizes of the remaining dimensions are expected to match the shape of corresponding output, but a mismatch was "
                        f"detected: grad_output[{i}] has a shape of {list(given)} and output[{i}] has a shape of {list(wanted)}."
                    )
                level = levels.get()[-1].number
                start = batch_tensor(gradient, 0, level) if create_graph else batch(gradient._array, 0, level)
            else:
                if given != wanted:
                    raise RuntimeError(
                        f"Mismatch in shape: grad_output[{i}] has a shape of {list(given)} and output[{i}] has a shape of {list(wanted)}."
                    )
                start = gradient if create_graph else gradient._array
                if output._array.__class__ is not gradient._array.__class__ and isinstance(output._array, BatchedArray):
                    start = wrap(lifted(gradient._array), gradient._node) if create_graph else lifted(gradient._array)
            if gradient._array.dtype.kind == "c" and output._array.dtype.kind != "c":
                raise RuntimeError(
                    f"For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
                    f"grad_output[{i}] has a dtype of {gradient.dtype} and output[{i}] has a dtype of {output.dtype}."
                )
        roots.append((output._node, start))
    return roots


def _start_at_edge(name: str, i: int, edge: GradientEdge, gradient: Any, create_graph: bool) -> Any:
    shape = edge._node.shape
    if gradient is None:
        raise RuntimeError(f"{name}: the gradient of output {i}, a GradientEdge of shape {list(shape)}, has to be given")
    if gradient._array.shape != shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {list(gradient._array.shape)} and output[{i}] has a shape of "
            f"{list(shape)}."
        )
    return gradient if create_graph else gradient._array


def _source_node(name: str, i: int, source: Any, roots: list[tuple[Node, Any]]) -> Node:
    """The node at which the gradient of an input arrives."""
    node = source._node
    if node is None:
        raise RuntimeError(f"{name}: One of the differentiated Tensors, number {i}, does not require grad")
    if isinstance(source, GradientEdge) and isinstance(node, Pick) and source.ownership_token is None:
        # made by hand: the graph has its own edge to that result
        seen, stack = set(), [n for n, _ in roots]
        while stack:
            here = stack.pop()
            if isinstance(here, Pick) and here.edges[0] is source.node and here.index == source.output_nr:
                return here
            if here not in seen:
                seen.add(here)
                stack.extend(e for e in here.edges if e is not None)
    return node


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
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
    grad_variables : Tensor or sequence of Tensor or None, optional
        The older name of `grad_tensors`.
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
    if levels.get():
        raise RuntimeError("backward() called inside vmap: .grad cannot be added up sample by sample; use func.grad or func.vjp")
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError("`grad_tensors` and `grad_variables` (its older name) were both given; please only use `grad_tensors`.")
        grad_tensors = grad_variables
    keep = create_graph if retain_graph is None else retain_graph
    roots = _roots("backward", _as_tuple(tensors), _as_tuple(grad_tensors), create_graph)
    if inputs is None:
        run_backward(roots, keep_graph=keep, create_graph=create_graph)
        return
    targets = _as_tuple(inputs)
    if not targets:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    nodes = tuple([_source_node("backward", i, t, roots) for i, t in enumerate(targets)])
    captured = run_backward(roots, keep_graph=keep, create_graph=create_graph, capture=nodes)
    for t, node in zip(targets, nodes):
        if node.__class__ is not AccumulateGrad and node in captured and isinstance(t, Tensor) and not t._retains_grad:
            AccumulateGrad(t).accumulate(captured[node], is_fresh=False)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of outputs with respect to inputs; as ``torch.autograd.grad``.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
    inputs : Tensor, GradientEdge, or sequence of them
        Leaves, or results on the way.
    grad_outputs : Tensor or sequence of Tensor or None, optional
        The gradients of `outputs`; may be absent for those of one element.
    retain_graph, create_graph : bool
        As in `backward`.
    only_inputs : bool
        Accepted as in PyTorch, where it has no effect either.
    is_grads_batched : bool
        Whether each of `grad_outputs` has many gradients side by side, in a first dimension; so have the results then.
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
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, but got False.")
    sources, targets, given = _as_tuple(inputs), _as_tuple(outputs), _as_tuple(grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    if not is_grads_batched:
        roots = _roots("grad", targets, given, create_graph)
        nodes = tuple([_source_node("grad", i, t, roots) for i, t in enumerate(sources)])
        captured = run_backward(roots, keep_graph=keep, create_graph=create_graph, capture=nodes, accumulate=False)
    else:
        some = next((g for g in given if g is not None), None)
        if some is None or not some._array.ndim:
            raise RuntimeError("grad: is_grads_batched=True needs grad_outputs with a first dimension that is the batch")
        samples = some._array.shape[0]
        level = new_level(samples)
        outer = levels.set((*levels.get(), level))
        try:
            roots = _roots("grad", targets, given, create_graph, samples)
            nodes = tuple([_source_node("grad", i, t, roots) for i, t in enumerate(sources)])
            captured = run_backward(roots, keep_graph=keep, create_graph=create_graph, capture=nodes, accumulate=False)
            leave = unbatch_tensor if create_graph else unbatch
            captured = {node: leave(g, 0, level.number, samples) for node, g in captured.items()}
        finally:
            levels.reset(outer)
    results: list[Tensor | None] = []
    taken = set() if create_graph else {memory_of(start) for _, start in roots}
    for i, (t, node) in enumerate(zip(sources, nodes)):
        g = captured.get(node)
        if g is None and not (allow_unused or materialize_grads):
            raise RuntimeError(
                f"One of the differentiated Tensors, number {i} of shape {list(node.shape)}, appears to not have been used in the graph. "
                "Set allow_unused=True if this is the desired behavior."
            )
        if g is None:
            if materialize_grads and not isinstance(t, Tensor):
                raise RuntimeError("materialize_grads cannot be used when the given input is a GradientEdge")
            results.append(NAMESPACES[Tensor].zeros_like(t.detach()) if materialize_grads else None)
        else:
            results.append(g if create_graph else _own(g, taken))
    return tuple(results)


def _own(array: Any, taken: set[int]) -> Tensor:
    """A gradient of the engine as a tensor whose memory no other result has."""
    xp = NAMESPACES[array.__class__]
    owner = memory_of(array)
    if array.__class__ is not xp.ndarray or owner in taken or not is_writeable(array):
        return wrap(xp.array(array))
    taken.add(owner)
    return wrap(array)
