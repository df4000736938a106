"""An operation and its derivative, declared together; and how tensors go through one.

    exp = Operation("exp", lambda xp, x: xp.exp(x), x=lambda g, out: g * out)

The forward function works on arrays of any backend through its namespace ``xp``; after the arrays come keyword-only
parameters. The rule for an input says what its gradient is. The names of a rule's own parameters say what it needs,
and so what is saved:

    g               the gradient of the result
    out             the result
    x, y, ...       an input, by its name in the forward function
    x_shape         an input's shape alone
    xp              the namespace
    needs           a tuple of booleans: which inputs ask for a gradient
    anything else   a parameter of the operation, or an intermediate result named in ``extras``

One function for all inputs, ``gradients=``, returns their gradients as a tuple. A rule runs on raw arrays in an
ordinary backward pass and on tensors where the gradient's own graph is asked for. It returns the gradient ``g`` itself, a
view of it, or an array that nobody else holds, never one that was saved, for the engine adds to such arrays in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..backend import NAMESPACES
from ..backend.dtypes import DIFFERENTIABLE, DTYPES
from .grad_mode import ANOMALY, recording
from .graph import Edge, Node, OperationNode, Pick
from .variable import Tensor, bump_version, wrap
from .views import register_view, set_history

__all__ = ["Operation", "apply", "apply_in_place", "record"]


class Operation:
    """A function on arrays with the rules for its derivative.

    Parameters
    ----------
    name : str
        PyTorch's name of the function.
    forward : callable
        ``forward(xp, *arrays, **parameters)``; an input may be None. Returns the result, or with `extras` a tuple of it
        and them, or with `results` > 1 a tuple of that many results (and the extras).
    extras : sequence of str
        Intermediate results of the forward function that rules need.
    recompute : callable, optional
        ``recompute(xp, *inputs, **parameters)`` returns the extras as functions of the inputs, for those that the
        inputs' second derivatives go through.
    results : int
        How many results there are; -1 if their number depends on the input.
    is_view : bool
        Whether the result shares the first input's memory (where the forward function did not have to copy).
    gradients : callable, optional
        One rule for all inputs.
    **rules : callable
        Rules by the input's name. An input without a rule has no gradient.
    """

    __slots__ = (
        "extras", "forward", "inputs", "is_view", "joint", "name", "needed_by", "node_name", "recompute", "results",
        "rules", "saved_names", "shape_names",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        *,
        extras: Sequence[str] = (),
        recompute: Callable[..., tuple] | None = None,
        results: int = 1,
        is_view: bool = False,
        gradients: Callable[..., Any] | None = None,
        **rules: Callable[..., Any],
    ):
        self.name = name
        self.node_name = "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Backward0"
        self.forward = forward
        self.extras = tuple(extras)
        self.recompute = recompute
        self.results = results
        self.is_view = is_view
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        unknown = set(rules) - set(self.inputs)
        if unknown:
            raise TypeError(f"operation {name}: rules for {sorted(unknown)}, but the inputs are {self.inputs}")
        self.saved_names = (*self.inputs, "out", *self.extras)
        by_input = [rules.get(i) for i in self.inputs]
        # for each input: which of saved_names, and of the shapes of inputs, its rule reads
        self.needed_by: list[set[str]] = []
        self.shape_names: set[str] = set()
        self.rules = tuple(self._compile(rule) for rule in by_input)
        self.joint = self._compile(gradients) if gradients else None
        if gradients:
            self.needed_by = [self.needed_by[-1]] * len(self.inputs)

    def _compile(self, rule: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """The rule as a function of (g, saved, xp, params, needs), with its names resolved once and for all."""
        if rule is None:
            self.needed_by.append(set())
            return None
        arguments = []
        needed = set()
        for name in inspect.signature(rule).parameters:
            if name in ("g", "xp", "needs"):
                arguments.append(name)
            elif name in self.saved_names:
                arguments.append(f"saved[{self.saved_names.index(name)}]")
                needed.add(name)
            else:
                if name.endswith("_shape") and name.removesuffix("_shape") in self.inputs:
                    self.shape_names.add(name)
                arguments.append(f"params[{name!r}]")
        self.needed_by.append(needed)
        return eval(f"lambda g, saved, xp, params, needs: rule({', '.join(arguments)})", {"rule": rule})

    def backward(self, g: Any, saved: tuple | None, xp: Any, params: dict, edges: tuple[Edge | None, ...]) -> Sequence[Any]:
        """The gradients of the inputs; None where `edges` has None."""
        if self.joint is not None:
            return self.joint(g, saved, xp, params, tuple(e is not None for e in edges))
        return [
            None if edge is None or rule is None else rule(g, saved, xp, params, ())
            for edge, rule in zip(edges, self.rules)
        ]

    def wrap_saved(self, node: OperationNode, saved: tuple | None, xp: Any) -> tuple:
        """What was saved as tensors that remember where they came from, so that derivatives can be differentiated."""
        if saved is None:
            return ()
        wrapped: list[Any] = []
        count = len(self.inputs)
        for i, array in enumerate(saved):
            if array is None:
                wrapped.append(None)
            elif i < count:
                wrapped.append(wrap(array, node.edges[i]))
            elif i == count:
                # a result that is no single array is never saved
                wrapped.append(wrap(array, node))
            else:
                wrapped.append(wrap(array))
        if self.recompute is not None:
            arguments = {k: v for k, v in node.params.items() if not k.endswith("_shape")}
            wrapped[count + 1 :] = self.recompute(xp, *wrapped[:count], **arguments)
        return tuple(wrapped)

    def __call__(self, *inputs: Tensor | None, **params: Any) -> Any:
        return apply(self, *inputs, **params)

    def __repr__(self) -> str:
        return f"<operation {self.name}({', '.join(self.inputs)})>"


def apply(operation: Operation, *inputs: Tensor | None, **params: Any) -> Any:
    """Compute an operation on tensors and record it.

    Parameters
    ----------
    operation : Operation
    *inputs : Tensor or None
        As many as the forward function has.
    **params
        Its other parameters.

    Returns
    -------
    Tensor or tuple of Tensor

    Raises
    ------
    RuntimeError
        If the tensors are on different devices.
    """
    arrays = [None if t is None else t._array for t in inputs]
    first = arrays[0].__class__
    for array in arrays:
        if array.__class__ is not first and array is not None:
            refuse_devices(operation, inputs)
    xp = NAMESPACES[first]
    out = operation.forward(xp, *arrays, **params)
    count = operation.results
    extras: tuple = ()
    if operation.extras:
        split = 1 if count == 1 else count
        out, extras = (out[0] if count == 1 else out[:split]), tuple(out[split:])
    if count == 1:
        if out.__class__ is not xp.ndarray and NAMESPACES[out.__class__] is xp:
            out = xp.asarray(out)  # a library's scalar; an array of another library was moved there
        result = wrap(out)
        if operation.is_view:
            register_view(result, inputs[0], operation, params)
    else:
        result = tuple(wrap(o if o.__class__ is xp.ndarray else xp.asarray(o)) for o in out)
        if operation.is_view:
            for i, r in enumerate(result):
                register_view(r, inputs[0], operation, params, i)
    mode = recording.get()
    if mode:
        for t in inputs:
            if t is not None and t._node is not None:
                record(operation, inputs, arrays, result, extras, params, mode)
                break
    return result


def record(
    operation: Operation,
    inputs: Sequence[Tensor | None],
    arrays: Sequence[Any],
    result: Any,
    extras: tuple,
    params: dict,
    mode: int = True,
) -> None:
    """Put an operation into the graph: make its node, with what the rules need, the origin of its results."""
    node = OperationNode.__new__(OperationNode)
    node.operation = operation
    node.edges = edges = tuple([None if t is None else t._node for t in inputs])
    several = operation.results != 1
    if several:
        node.shape = tuple(r._array.shape for r in result)
        node.dtype = tuple(r._array.dtype for r in result)
    else:
        out = result._array
        if out.dtype not in DIFFERENTIABLE:
            return
        node.shape = out.shape
        node.dtype = out.dtype
    node.params = params
    needed: set[str] = set()
    for edge, names in zip(edges, operation.needed_by):
        if edge is not None:
            needed |= names
    if operation.shape_names:
        node.params = {**params, **{f"{n}_shape": a.shape for n, a in zip(operation.inputs, arrays) if a is not None}}
    _save(node, needed, inputs, arrays, result, extras)
    if mode == ANOMALY:
        node.note_place()
    if not several:
        result._node = node
        return
    for i, r in enumerate(result):
        if r._array.dtype in DIFFERENTIABLE:
            r._node = Pick(node, i)


def _save(
    node: OperationNode, needed: set[str], inputs: Sequence[Tensor | None], arrays: Sequence[Any], result: Any, extras: tuple
) -> None:
    operation = node.operation
    versions = []
    saved: list[Any] = []
    if needed:
        for name, tensor, array in zip(operation.inputs, inputs, arrays):
            if name not in needed or tensor is None:
                saved.append(None)
                continue
            saved.append(array)
            if array is tensor._array:  # a copy in another dtype cannot be changed by anyone
                versions.append(_version_of(tensor))
        if "out" in needed:
            saved.append(result._array)
            versions.append(_version_of(result))
        else:
            saved.append(None)
        saved.extend(e if n in needed else None for n, e in zip(operation.extras, extras))
        if not versions:
            versions.append([0])
    node.saved = tuple(saved)
    node.versions = tuple(versions)
    node.stamp = sum([v[0] for v in versions])


def _version_of(tensor: Tensor) -> list[int]:
    version = tensor._version
    if version is None:
        version = tensor._version = [0]
    return version


def refuse_devices(operation: Operation, inputs: Sequence[Tensor | None]) -> None:
    devices = [str(NAMESPACES[t._array.__class__].device_of(t._array)) for t in inputs if t is not None]
    raise RuntimeError(
        f"{operation.name}: expected all tensors to be on the same device, but they are on {', '.join(devices)}"
    )


def apply_in_place(operation: Operation, x: Tensor, *others: Tensor | None, **params: Any) -> Tensor:
    """Compute an operation and put the result into its first input's memory, as PyTorch's ``add_`` and so on do.

    Raises
    ------
    RuntimeError
        If `x` is a leaf that asks for a gradient, or the result has another shape, or a dtype of a higher category.
    """
    inputs = (x, *others)
    arrays = [None if t is None else t._array for t in inputs]
    xp = NAMESPACES[x._array.__class__]
    for array in arrays:
        if array is not None and array.__class__ is not arrays[0].__class__:
            refuse_devices(operation, inputs)
    check_in_place(operation.name, x, others)
    out = operation.forward(xp, *arrays, **params)
    extras: tuple = ()
    if operation.extras:
        out, *rest = out
        extras = tuple(rest)
    write(operation.name, x, out)
    finish_in_place(operation, inputs, arrays, extras, params)
    return x


def check_in_place(name: str, x: Tensor, others: Sequence[Tensor | None] = ()) -> None:
    """Refuse an in-place change that the graph could not follow."""
    if not recording.get():
        return
    origin = x if x._view is None else x._view[0]
    if origin._node is not None and not origin._node.edges and not isinstance(origin._node, OperationNode):
        kind = "a leaf Variable that requires grad" if origin is x else "a view of a leaf Variable that requires grad"
        raise RuntimeError(f"{name}_: {kind} is being used in an in-place operation; do it under no_grad()")
    if x._array.dtype not in DIFFERENTIABLE and any(o is not None and o._node is not None for o in others):
        raise RuntimeError(f"{name}_: a result that requires grad cannot be put into a tensor of dtype {DTYPES[x._array.dtype]}")


def write(name: str, x: Tensor, out: Any) -> None:
    """Copy a result into a tensor's memory and note it."""
    array = x._array
    if out is not array:
        xp = NAMESPACES[array.__class__]
        if getattr(out, "shape", ()) != array.shape:
            raise RuntimeError(
                f"{name}_: output with shape {list(array.shape)} doesn't match the broadcast shape {list(out.shape)}"
            )
        source, target = DTYPES[out.dtype], DTYPES[array.dtype]
        if source.category > target.category:
            raise RuntimeError(f"{name}_: result type {source} can't be cast to the desired output type {target}")
        xp.copyto(array, out, casting="unsafe")
    bump_version(x)


def finish_in_place(
    operation: Operation, inputs: Sequence[Tensor | None], arrays: Sequence[Any], extras: tuple, params: dict
) -> None:
    """Record an operation whose result has been written into its first input's memory."""
    x = inputs[0]
    assert x is not None
    mode = recording.get()
    if mode and any(t is not None and t._node is not None for t in inputs):
        result = wrap(x._array)
        result._version = x._version if x._version is not None else _version_of(x)
        record(operation, inputs, arrays, result, extras, params, mode)
        node: Node | None = result._node
        if node is not None:
            # what was saved of x is gone: the counter that was read after the change must not hide that
            if isinstance(node, OperationNode) and node.saved and node.saved[0] is x._array:
                node.stamp -= 1
            set_history(x, node)
