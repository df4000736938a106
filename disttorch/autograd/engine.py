"""The engine: walks the graph from results to leaves, each node once, as soon as its whole gradient has arrived.

It does not recurse (a graph may be 100,000 nodes deep), keeps all state in local variables (several threads may run
backward at once), and lets go of gradients and saved arrays as it passes. It works on raw arrays, or on tensors where
the gradient's own graph is asked for; the code is the same, as the rules are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from ..backend import IN_ONE_ORDER, NAMESPACES
from ..backend.batched import BatchedArray
from ..backend.layout import is_expanded
from .batching import in_current_levels
from .grad_mode import is_anomaly_check_nan_enabled, is_anomaly_enabled, mode_of, recording
from .node import AccumulateGrad, Node, Pick
from .variable import Tensor, wrap

__all__ = ["OBSERVERS", "Pass", "current_pass", "queue_callback", "run_backward"]

#: Around each node's rules while there are any: ``observer(node, propagate)`` returns what ``propagate()`` returns.
OBSERVERS: list[Callable[[Node, Callable[[], Sequence[Any]]], Sequence[Any]]] = []

#: Where there are several GPUs: adds two gradients on the device that they lie on.
add_there: Callable[[Any, Any], Any] | None = None


class Pass:
    """One backward pass that is running.

    Attributes
    ----------
    nodes : collection of Node
        Those that gradients may reach.
    callbacks : list of callable
        What is called when it has ended.
    is_whole : bool
        Whether every leaf that it reaches gets its gradient; not so where certain gradients were asked for.
    outer : Pass or None
        The pass in whose rules, or hooks, this one was started.
    """

    __slots__ = ("__weakref__", "callbacks", "is_whole", "nodes", "outer")

    nodes: Collection[Node]
    callbacks: list[Callable[[], None]]
    is_whole: bool
    outer: Pass | None


_pass: ContextVar[Pass | None] = ContextVar("disttorch.backward_pass", default=None)


def current_pass() -> Pass:
    """The backward pass that is running in this thread.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    running = _pass.get()
    if running is None:
        raise RuntimeError("no backward pass is running in this thread")
    return running


def queue_callback(callback: Callable[[], None]) -> None:
    """Call a function when the backward pass that is running in this thread has ended.

    Raises
    ------
    RuntimeError
        If none is running.
    """
    running = _pass.get()
    if running is None:
        raise RuntimeError("queue_callback: no backward pass is running in this thread")
    running.callbacks.append(callback)


def run_backward(
    roots: Sequence[tuple[Node, Any]],
    *,
    keep_graph: bool = False,
    create_graph: bool = False,
    capture: Sequence[Node] = (),
    accumulate: bool = True,
) -> dict[Node, Any]:
    """Send gradients from the roots to the leaves.

    Parameters
    ----------
    roots : sequence of (Node, gradient)
        Gradients are arrays, or tensors if `create_graph`.
    keep_graph : bool
        Keep what nodes saved, for another pass.
    create_graph : bool
        Record the computation of the gradients.
    capture : sequence of Node
        Nodes whose gradient is returned. Only nodes on the way to them are visited.
    accumulate : bool
        Whether accumulators add to ``.grad``; with `capture`, only those that are captured do.

    Returns
    -------
    dict of Node to gradient
        Of those captured nodes that any gradient reached.
    """
    outer, before = _pass.get(), recording.get()
    running = Pass()
    running.callbacks = []
    running.outer = outer
    running.is_whole = accumulate and not capture
    _pass.set(running)
    # what no_grad and enable_grad do, without the price of a with-block
    recording.set(mode_of(True) if create_graph else 0)
    try:
        captured = _walk(running, roots, keep_graph, create_graph, capture, accumulate)
        for node, gradient in captured.items():
            if isinstance(gradient._array if create_graph else gradient, BatchedArray):
                captured[node] = in_current_levels(gradient)
        for callback in running.callbacks:
            callback()
        return captured
    finally:
        _pass.set(outer)
        recording.set(before)


def _walk(
    running: Pass,
    roots: Sequence[tuple[Node, Any]],
    keep_graph: bool,
    create_graph: bool,
    capture: Sequence[Node],
    accumulate: bool,
) -> dict[Node, Any]:
    waiting_for = _count_consumers([node for node, _ in roots])
    needed = _nodes_towards(capture, waiting_for) if capture else None
    running.nodes = waiting_for if needed is None else needed
    observed = is_anomaly_enabled() or OBSERVERS
    captured: dict[Node, Any] = {}
    gradients: dict[Node, Any] = {}
    fresh: set[Node] = set()  # nodes whose gradient in `gradients` is an array that we alone hold
    ready: list[Node] = []
    add = add_there
    for node, gradient in roots:
        if node in gradients:
            gradient = summed(gradients[node], gradient) if add is None else add(gradients[node], gradient)
        gradients[node] = gradient
        waiting_for[node] -= 1
        if not waiting_for[node]:
            ready.append(node)

    while ready:
        node = ready.pop()
        gradient = gradients.pop(node, None)
        results: Sequence[Any] | None = None
        if gradient is not None and (needed is None or node in needed):
            kind = node.__class__
            if kind is AccumulateGrad and isinstance(gradient._array if create_graph else gradient, BatchedArray):
                gradient = in_current_levels(gradient)
            if node.hooks is not None or node.node_pre_hooks is not None:
                gradient = _run_hooks(node, gradient, create_graph)
                fresh.discard(node)
            is_captured = capture and node in capture
            if is_captured:
                captured[node] = gradient
            if kind is AccumulateGrad:
                if accumulate and (not capture or is_captured):
                    node.accumulate(gradient, node in fresh)  # type: ignore[attr-defined]
            elif kind is Pick:
                _collect(gradients, node, gradient)  # type: ignore[arg-type]
            elif needed is None or not needed.isdisjoint(node.edges):
                if gradient.__class__ is list:
                    _fill_missing(node, gradient)
                results = _observe(node, gradient, create_graph) if observed else node.propagate(gradient, create_graph)
                if not keep_graph:
                    node.release()
                if node.node_hooks is not None:
                    results = _run_node_hooks(node, results, gradient, create_graph)
        edges = node.edges
        if results is None:
            results = (None,) * len(edges)
        is_fresh = not create_graph and node.returns_fresh_arrays
        previous = gradient
        for edge, result in zip(edges, results):
            if edge is None:
                continue
            if result is not None:
                array = result._array if create_graph else result
                if array.dtype is not edge.dtype or array.shape != edge.shape:
                    result = _fit(node, edge, result, create_graph)
                sum_so_far = gradients.get(edge)
                if sum_so_far is None:
                    gradients[edge] = result
                    if is_fresh and result is not gradient and result is not previous and result.base is None:
                        fresh.add(edge)
                elif add is None and edge in fresh and result.ndim:
                    sum_so_far += result
                else:
                    gradients[edge] = summed(sum_so_far, result) if add is None else add(sum_so_far, result)
                    if not create_graph:
                        fresh.add(edge)
                previous = result
            still = waiting_for[edge] - 1
            waiting_for[edge] = still
            if not still:
                ready.append(edge)
    return captured


def summed(a: Any, b: Any) -> Any:
    """The sum of two gradients, which lies in memory as they do."""
    return NAMESPACES[a.__class__].add(a, b) if a.__class__ in IN_ONE_ORDER else a + b


def _count_consumers(roots: Iterable[Node]) -> dict[Node, int]:
    """For each node that can be reached: how many edges, and roots, lead to it."""
    count: dict[Node, int] = {}
    stack = []
    for root in roots:
        if root in count:
            count[root] += 1
        else:
            count[root] = 1
            stack.append(root)
    while stack:
        for edge in stack.pop().edges:
            if edge is not None:
                if edge in count:
                    count[edge] += 1
                else:
                    count[edge] = 1
                    stack.append(edge)
    return count


def _nodes_towards(targets: Sequence[Node], reachable: dict[Node, int]) -> set[Node]:
    """The nodes from which a target can be reached."""
    consumers: dict[Node, list[Node]] = {}
    for node in reachable:
        for edge in node.edges:
            if edge is not None:
                consumers.setdefault(edge, []).append(node)
    needed: set[Node] = set()
    stack = list(targets)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(consumers.get(node, ()))
    return needed


def _collect(gradients: dict[Node, Any], pick: Pick, gradient: Any) -> None:
    node = pick.edges[0]
    assert node is not None
    parts = gradients.get(node)
    if parts is None:
        parts = gradients[node] = [None] * len(node.shape)
    parts[pick.index] = gradient if parts[pick.index] is None else summed(parts[pick.index], gradient)


def _fill_missing(node: Node, gradients: list) -> None:
    """Zeros for those results of a node that no gradient reached."""
    if getattr(node, "materialize_grads", True):
        some = next(g for g in gradients if g is not None)
        xp = NAMESPACES[some.__class__]
        for i, g in enumerate(gradients):
            if g is None:
                gradients[i] = xp.zeros(node.shape[i], node.dtype[i])


def _fit(node: Node, edge: Node, gradient: Any, create_graph: bool) -> Any:
    """A gradient in the shape and dtype of the input that it is for: broadcasting is undone by a sum."""
    xp = NAMESPACES[gradient.__class__]
    wanted = edge.shape
    shape = tuple(gradient.shape)
    if shape != wanted:
        extra = len(shape) - len(wanted)
        stretched = tuple(
            i for i in range(len(shape)) if i < extra or (wanted[i - extra] == 1 and shape[i] != 1)
        )
        summed = tuple(1 if i in stretched else n for i, n in enumerate(shape))
        if extra < 0 or summed[extra:] != wanted:
            raise RuntimeError(
                f"{node.name()} returned a gradient of shape {list(shape)} for an input of shape {list(wanted)}; "
                "it can only be summed to it over dimensions that were broadcast"
            )
        gradient = xp.reshape(xp.sum(gradient, axis=stretched, keepdims=True), wanted)
    array = gradient._array if create_graph else gradient
    if array.dtype != edge.dtype:
        if array.dtype.kind == "c" and edge.dtype.kind != "c":
            gradient = gradient.real
        if not create_graph and is_expanded(array):  # it stays so: converted is what there is of it in memory
            held = array[tuple([slice(None, 1) if s == 0 else slice(None) for s in array.strides])]
            return xp.broadcast_to(xp.astype(held, edge.dtype), array.shape)
        gradient = xp.astype(gradient, edge.dtype)
    return gradient


def _run_hooks(node: Node, gradient: Any, create_graph: bool) -> Any:
    """Hooks see and may replace the gradient of the node's result, as a tensor."""
    several = gradient.__class__ is list
    if node.hooks and not several:
        for hook in tuple(node.hooks.values()):
            replaced = hook(gradient if create_graph else _as_tensor(gradient))
            if replaced is not None:
                if not isinstance(replaced, Tensor):
                    raise TypeError(f"a gradient hook must return a Tensor or None, not {type(replaced).__name__}")
                if replaced._array.shape != node.shape:
                    raise RuntimeError(
                        f"a hook on the result of {node.name()} changed the gradient's shape from {list(node.shape)} to "
                        f"{list(replaced._array.shape)}"
                    )
                gradient = replaced if create_graph else replaced._array
    if node.node_pre_hooks:
        parts = gradient if several else [gradient]
        for hook in tuple(node.node_pre_hooks.values()):
            replaced = hook(tuple(g if create_graph or g is None else _as_tensor(g) for g in parts))
            if replaced is not None:
                parts = [g if create_graph or g is None else g._array for g in replaced]
        gradient = parts if several else parts[0]
    return gradient


def _run_node_hooks(node: Node, results: Sequence[Any], gradient: Any, create_graph: bool) -> Sequence[Any]:
    def tensors(values: Iterable[Any]) -> tuple:
        return tuple(v if create_graph or v is None else _as_tensor(v) for v in values)

    outputs = tensors(gradient if gradient.__class__ is list else [gradient])
    for hook in tuple((node.node_hooks or {}).values()):
        replaced = hook(tensors(results), outputs)
        if replaced is not None:
            results = [g if create_graph or g is None else g._array for g in replaced]
            if len(results) != len(node.edges):
                raise RuntimeError(f"a hook on {node.name()} returned {len(results)} gradients for {len(node.edges)} inputs")
    return results


def _as_tensor(array: Any) -> Tensor:
    xp = NAMESPACES[array.__class__]
    return wrap(array if array.__class__ is xp.ndarray else xp.asarray(array))


def _observe(node: Node, gradient: Any, create_graph: bool) -> Sequence[Any]:
    """A node's rules under anomaly mode and a profiler."""

    def propagate() -> Sequence[Any]:
        return node.propagate(gradient, create_graph)

    for observer in tuple(OBSERVERS):
        propagate = _around(observer, node, propagate)
    if not is_anomaly_enabled():
        return propagate()
    try:
        results = propagate()
        if is_anomaly_check_nan_enabled():
            _look_for_nan(node, results, create_graph)
        return results
    except Exception as error:
        if node.recorded_at:
            warnings.warn(
                f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n{''.join(node.recorded_at)}",
                stacklevel=2,
            )
        else:
            warnings.warn(
                f"Error detected in {node.name()}. No forward pass information available. Enable detect anomaly during forward pass "
                f"for more information. ({type(error).__name__})",
                stacklevel=2,
            )
        raise


def _around(observer: Callable, node: Node, propagate: Callable[[], Sequence[Any]]) -> Callable[[], Sequence[Any]]:
    return lambda: observer(node, propagate)


def _look_for_nan(node: Node, results: Iterable[Any], create_graph: bool) -> None:
    for i, result in enumerate(results):
        if result is None:
            continue
        array = result._array if create_graph else result
        xp = NAMESPACES[array.__class__]
        if xp.any(xp.isnan(array)):
            where = "".join(node.recorded_at or ()) or "  (recorded before anomaly detection was switched on)\n"
            raise RuntimeError(f"Function '{node.name()}' returned nan values in its {i}th output. It was computed here:\n{where}")
