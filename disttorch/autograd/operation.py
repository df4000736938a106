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
from typing import Any, NamedTuple

from ..backend import NAMESPACES
from ..backend.dtypes import DIFFERENTIABLE, DTYPES
from .grad_mode import ANOMALY, recording
from .graph import Edge, OperationNode, Pick
from .variable import Tensor, bump_version, wrap
from .views import set_history, view_of

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
        "_plans", "backward", "extras", "forward", "inputs", "is_single", "is_view", "name", "needed_by", "node_name", "recompute",
        "results", "saved_names", "shape_names",
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
        self.is_single = results == 1 and not self.extras
        self.is_view = is_view
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        unknown = set(rules) - set(self.inputs)
        if unknown:
            raise TypeError(f"operation {name}: rules for {sorted(unknown)}, but the inputs are {self.inputs}")
        self.saved_names = (*self.inputs, "out", *self.extras)
        # for each input: which of saved_names its rule reads
        self.needed_by: list[set[str]] = []
        # shapes of inputs that are read elsewhere than in an input's own rule, where the edge knows its shape
        self.shape_names: set[str] = set()
        self._plans: dict[tuple[bool, ...], _Plan | None] = {}
        #: ``backward(g, saved, xp, params, edges)``: the gradients of the inputs; None where `edges` has None
        self.backward = self._compile(gradients, [rules.get(i) for i in self.inputs])

    def _compile(self, joint: Callable[..., Any] | None, rules: list[Callable[..., Any] | None]) -> Callable[..., Sequence[Any]]:
        """All rules as one function, with their names resolved once and for all."""
        if joint is not None:
            call, needed = self._call("joint", joint, None)
            self.needed_by = [needed] * len(self.inputs)
            return eval(f"lambda g, saved, xp, params, edges: {call}", {"joint": joint})
        calls, known = [], {}
        for i, rule in enumerate(rules):
            if rule is None:
                self.needed_by.append(set())
                calls.append("None")
                continue
            known[f"rule{i}"] = rule
            call, needed = self._call(f"rule{i}", rule, i)
            self.needed_by.append(needed)
            # with one input there is only a node if it asks for a gradient
            calls.append(call if len(rules) == 1 else f"None if edges[{i}] is None else {call}")
        return eval(f"lambda g, saved, xp, params, edges: ({''.join(c + ', ' for c in calls)})", known)

    def _call(self, known_as: str, rule: Callable[..., Any], number: int | None) -> tuple[str, set[str]]:
        """The call of a rule as text, and what it reads of what is saved."""
        arguments, needed = [], set()
        for name in inspect.signature(rule).parameters:
            if name in ("g", "xp"):
                arguments.append(name)
            elif name == "needs":
                arguments.append("tuple([e is not None for e in edges])")
            elif name in self.saved_names:
                arguments.append(f"saved[{self.saved_names.index(name)}]")
                needed.add(name)
            elif number is not None and name == self.inputs[number] + "_shape":
                arguments.append(f"edges[{number}].shape")
            else:
                if name.removesuffix("_shape") in self.inputs:
                    self.shape_names.add(name)
                arguments.append(f"params[{name!r}]")
        return f"{known_as}({', '.join(arguments)})", needed

    def plan(self, edges: tuple[Edge | None, ...]) -> _Plan | None:
        """What is to be saved where these inputs ask for a gradient; None for nothing. Found once for each combination."""
        which = tuple([e is not None for e in edges])
        try:
            return self._plans[which]
        except KeyError:
            needed = set().union(*(names for asks, names in zip(which, self.needed_by) if asks))
            plan = None
            if needed:
                plan = _Plan(
                    tuple(i for i, n in enumerate(self.inputs) if n in needed),
                    "out" in needed,
                    tuple(i for i, n in enumerate(self.extras) if n in needed),
                    len(self.saved_names),
                )
            self._plans[which] = plan
            return plan

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
            arguments = {k: v for k, v in node.params.items() if k not in self.shape_names}
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
    if len(inputs) == 1 and operation.is_single:
        (x,) = inputs
        a = x._array  # type: ignore[union-attr]
        out = operation.forward(NAMESPACES[a.__class__], a, **params)
        if operation.is_view and (out.base is a or (out.base is not None and (out.base is a.base or _is_view_of(out, a)))):
            return view_of(operation, x, out, params)  # type: ignore[arg-type]
        if out.__class__ is not a.__class__:
            out = _as_array(out)
        result = wrap(out)
        if x._node is not None:  # type: ignore[union-attr]
            mode = recording.get()
            if mode:
                record(operation, inputs, (a,), result, (), params, mode)
        return result
    arrays = [None if t is None else t._array for t in inputs]
    first = arrays[0].__class__
    for array in arrays:
        if array.__class__ is not first and array is not None:
            refuse_devices(operation, inputs)
    out = operation.forward(NAMESPACES[first], *arrays, **params)
    extras: tuple = ()
    if operation.is_single:
        results = wrap(out if out.__class__ is first else _as_array(out))
    else:
        count = operation.results
        if operation.extras:
            out, extras = (out[0] if count == 1 else out[:count]), tuple(out[count:])
        results = wrap(_as_array(out)) if count == 1 else tuple([wrap(_as_array(o)) for o in out])
    mode = recording.get()
    if mode:
        for t in inputs:
            if t is not None and t._node is not None:
                record(operation, inputs, arrays, results, extras, params, mode)
                break
    return results


def _as_array(out: Any) -> Any:
    """A library's scalar as an array."""
    xp = NAMESPACES[out.__class__]
    return out if out.__class__ is xp.ndarray else xp.asarray(out)


def _is_view_of(out: Any, a: Any) -> bool:
    return NAMESPACES[a.__class__].shares_memory(out, a)


_new = object.__new__


class _Plan(NamedTuple):
    """What an operation saves: which inputs, whether its result, which extras, and how many places there are."""

    inputs: tuple[int, ...]
    out: bool
    extras: tuple[int, ...]
    places: int


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
    node = _new(OperationNode)
    several = operation.results != 1
    if several:
        node.shape = tuple([r._array.shape for r in result])
        node.dtype = tuple([r._array.dtype for r in result])
    else:
        out = result._array
        if out.dtype not in DIFFERENTIABLE:
            return
        node.shape = out.shape
        node.dtype = out.dtype
    node.operation = operation
    node.edges = edges = tuple([None if t is None else t._node for t in inputs])
    if operation.shape_names:
        params = {**params, **{f"{n}_shape": a.shape for n, a in zip(operation.inputs, arrays) if a is not None}}
    node.params = params
    plan = operation.plan(edges)
    if plan is None:
        node.saved = node.versions = ()
        node.stamp = 0
    else:
        _save(node, plan, inputs, arrays, result, extras)
    if mode == ANOMALY:
        node.note_place()
    if not several:
        result._node = node
        return
    for i, r in enumerate(result):
        if r._array.dtype in DIFFERENTIABLE:
            r._node = Pick(node, i)


def _save(
    node: OperationNode, plan: _Plan, inputs: Sequence[Tensor | None], arrays: Sequence[Any], result: Any, extras: tuple
) -> None:
    versions = []
    saved: list[Any] = [None] * plan.places
    stamp = 0
    for i in plan.inputs:
        tensor = inputs[i]
        if tensor is not None:
            saved[i] = array = arrays[i]
            if array is tensor._array:  # a copy in another dtype cannot be changed by anyone
                version = tensor._version
                if version is None:
                    tensor._version = version = [0]
                versions.append(version)
                stamp += version[0]
    after_inputs = plan.places - len(node.operation.extras)
    if plan.out:
        saved[after_inputs - 1] = result._array
        version = _version_of(result)
        versions.append(version)
        stamp += version[0]
    for i in plan.extras:
        saved[after_inputs + i] = extras[i]
    node.saved = tuple(saved)
    node.versions = versions or NEVER_CHANGED
    node.stamp = stamp


#: so that what has been released can be told from what was never saved
NEVER_CHANGED = ([0],)


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
    before = before_overwriting(operation, inputs, arrays)
    out = operation.forward(xp, *arrays, **params)
    extras: tuple = ()
    if operation.extras:
        out, *rest = out
        extras = tuple(rest)
    write(operation.name, x, out)
    finish_in_place(operation, inputs, before, extras, params)
    return x


def check_in_place(name: str, x: Tensor, others: Sequence[Tensor | None] = ()) -> None:
    """Refuse an in-place change of memory that is read-only or overlaps itself, or that the graph could not follow."""
    if not getattr(x._array.flags, "writeable", True):
        raise RuntimeError(
            f"{name}_: more than one element of the written-to tensor of shape {list(x._array.shape)} and strides "
            f"{list(x._array.strides)} bytes refers to a single memory location, or the memory is read-only; clone() it first"
        )
    if not recording.get():
        return
    origin = x if x._view is None else x._view[0]
    if origin._node is not None and not origin._node.edges and not isinstance(origin._node, OperationNode):
        kind = "a leaf Variable that requires grad" if origin is x else "a view of a leaf Variable that requires grad"
        raise RuntimeError(f"{name}_: {kind} is being used in an in-place operation; do it under no_grad()")
    if x._array.dtype not in DIFFERENTIABLE and any(o is not None and o._node is not None for o in others):
        raise RuntimeError(f"{name}_: a result that requires grad cannot be put into a tensor of dtype {DTYPES[x._array.dtype]}")


def before_overwriting(operation: Operation, inputs: Sequence[Tensor | None], arrays: Sequence[Any]) -> Sequence[Any]:
    """The arrays that the graph may keep of an operation in place: copies of what rules read and the change overwrites."""
    if not recording.get():
        return arrays
    x = inputs[0]
    assert x is not None
    needed: set[str] = set()
    for t, names in zip(inputs, operation.needed_by):
        if t is not None and t._node is not None:
            needed |= names
    kept = list(arrays)
    for i, (name, t) in enumerate(zip(operation.inputs, inputs)):
        if name in needed and t is not None and (t is x or (t._version is not None and t._version is x._version)):
            kept[i] = NAMESPACES[arrays[i].__class__].array(arrays[i])
    return kept


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
    """Record an operation whose result has been written into its first input's memory; `arrays` by `before_overwriting`."""
    x = inputs[0]
    assert x is not None
    mode = recording.get()
    if mode and any(t is not None and t._node is not None for t in inputs):
        result = wrap(x._array)
        result._version = x._version if x._version is not None else _version_of(x)
        record(operation, inputs, arrays, result, extras, params, mode)
        if result._node is not None:
            set_history(x, result._node)
