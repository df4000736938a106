"""An operation and its derivative, declared together; and how tensors go through one.

    exp = Operation("exp", lambda xp, x: xp.exp(x), x=lambda g, out: g * out)

The forward function works on arrays of any backend through its namespace ``xp``; after the arrays come keyword-only
parameters. The rule for an input says what its gradient is. The names of a rule's own parameters say what it needs,
and so what is saved:

    g               the gradient of the result
    out             the result; of several, a tuple of them
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
from typing import Any, NoReturn

from ..backend import NAMESPACES
from ..backend.batched import BatchedArray, lifted
from ..backend.dtypes import DIFFERENTIABLE, DTYPES
from ..backend.layout import is_expanded, is_writeable
from .grad_mode import ANOMALY, recording
from .node import NEVER_CHANGED, Edge, OperationNode, Pick
from .saved import BEFORE_WRITING
from .variable import Tensor, bump_version, wrap
from .views import base_of, set_history, view_of

__all__ = ["Operation", "apply", "apply_in_place", "as_array", "in_one_world", "record", "recorded", "refuse_devices"]


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
    fills_missing : bool
        Whether, of several results, those that no gradient reached count as zeros; else the rule is given None for them.
    is_view : bool
        Whether the result shares the first input's memory (where the forward function did not have to copy).
    elementwise : bool
        Whether the rules treat all places of their arrays alike, in whatever order the dimensions are.
    gradients : callable, optional
        One rule for all inputs.
    **rules : callable
        Rules by the input's name. An input without a rule has no gradient.
    """

    __slots__ = (
        "backward", "extras", "fills_missing", "forward", "inputs", "is_elementwise", "is_plain", "is_single",
        "is_view", "name", "needed_by", "node_name", "plans", "recompute", "results", "saved_names", "shape_names",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        *,
        extras: Sequence[str] = (),
        recompute: Callable[..., tuple] | None = None,
        results: int = 1,
        fills_missing: bool = True,
        is_view: bool = False,
        elementwise: bool = False,
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
        self.fills_missing = fills_missing
        self.is_view = is_view
        self.is_elementwise = elementwise
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
        self.plans: dict[tuple[bool, ...], tuple | None] = {}
        #: ``backward(g, saved, xp, params, edges)``: the gradients of the inputs; None where `edges` has None
        self.backward = self._compile(gradients, [rules.get(i) for i in self.inputs])
        self.is_plain = not any(self.needed_by) and not self.shape_names

    def _compile(self, joint: Callable[..., Any] | None, rules: list[Callable[..., Any] | None]) -> Callable[..., Sequence[Any]]:
        """All rules as one function, with their names resolved once and for all."""
        if joint is not None:
            call, needed = self._call("joint", joint, None)
            self.needed_by = [needed] * (len(self.inputs) or 1)  # where there may be any number, one stands for all
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

    def plan(self, which: tuple[bool, ...]) -> tuple | None:
        """What to save where the inputs with a True ask for a gradient: the numbers of inputs, the place of the result or None,
        the numbers of extras, and how many places there are; None for nothing. Found once for each combination.
        """
        by_input = self.needed_by if self.inputs else self.needed_by * len(which)
        needed: set[str] = set().union(*(names for asks, names in zip(which, by_input) if asks))
        plan = None
        if needed:
            plan = (
                tuple(i for i, n in enumerate(self.inputs) if n in needed),
                len(self.inputs) if "out" in needed else None,
                tuple(i for i, n in enumerate(self.extras) if n in needed),
                len(self.saved_names),
            )
        self.plans[which] = plan
        return plan

    def wrap_saved(self, node: OperationNode, saved: Sequence[Any] | None, xp: Any) -> tuple:
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
                several = array.__class__ is tuple
                wrapped.append(
                    tuple([wrap(a, Pick(node, k) if a.dtype in DIFFERENTIABLE else None) for k, a in enumerate(array)])
                    if several
                    else wrap(array, node)
                )
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
        if operation.is_view and (out.base is a or _is_view_of(out, a)):
            return view_of(operation, x, out, params)  # type: ignore[arg-type]
        return recorded(operation, x, out, params)  # type: ignore[arg-type]
    arrays = [None if t is None else t._array for t in inputs]
    first = arrays[0].__class__
    for array in arrays:
        if array.__class__ is not first and array is not None:
            arrays = in_one_world(operation, inputs, arrays)
            first = next(a.__class__ for a in arrays if a is not None)
            break
    out = operation.forward(NAMESPACES[first], *arrays, **params)
    extras: tuple = ()
    results: Any
    if operation.is_single:
        results = wrap(out if out.__class__ is first else as_array(out))
    else:
        count = operation.results
        if operation.extras:
            out, extras = (out[0] if count == 1 else out[:count]), tuple(out[count:])
        results = wrap(as_array(out)) if count == 1 else tuple([wrap(as_array(o)) for o in out])
    mode = recording.get()
    if mode:
        for t in inputs:
            if t is not None and t._node is not None:
                record(operation, inputs, arrays, results, extras, params, mode)
                break
    return results


def recorded(operation: Operation, x: Tensor, out: Any, params: dict) -> Tensor:
    """What an operation computed of one tensor's array, as a tensor; recorded if that asks for a gradient.

    Called by `apply`; and, where microseconds count, by functions that have computed the array themselves.
    """
    a = x._array
    result = _new(Tensor)
    result._array = out if out.__class__ is a.__class__ else as_array(out)
    result._grad = result._version = result._view = result._node = None
    edge = x._node
    if edge is not None:
        mode = recording.get()
        if mode:
            if not operation.is_plain or mode & ANOMALY:
                record(operation, (x,), (a,), result, (), params, mode)
            elif out.dtype in DIFFERENTIABLE:
                result._node = node = _new(OperationNode)
                node.operation = operation
                node.edges = (edge,)
                node.shape = out.shape
                node.dtype = out.dtype
                node.params = params
                node.versions = ()
    return result


def as_array(out: Any) -> Any:
    """A library's scalar as an array."""
    return NAMESPACES[out.__class__].asarray(out)


def _is_view_of(out: Any, a: Any) -> bool:
    xp = NAMESPACES[a.__class__]
    if out.base is None:  # the array itself, where nothing was to do; or a CUDA array made on the memory of another
        return out is a or (xp.name == "cuda" and xp.memory_id(out) == xp.memory_id(a))
    return out.base is a.base or xp.shares_memory(out, a)


_new = object.__new__
UNKNOWN: Any = object()
ALONE = (True,)


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
    several = operation.results != 1
    node = _new(OperationNode)
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
    edges: tuple[Edge | None, ...]
    asking: tuple[bool, ...]
    if len(inputs) == 2 and inputs[0] is not None and inputs[1] is not None:  # the most frequent case, without loops
        node.edges = edges = (inputs[0]._node, inputs[1]._node)
        asking = (edges[0] is not None, edges[1] is not None)
    elif len(inputs) == 1:
        node.edges = edges = (inputs[0]._node,)  # type: ignore[union-attr]
        asking = ALONE
    else:
        node.edges = edges = tuple([None if t is None else t._node for t in inputs])
        asking = tuple([e is not None for e in edges])
    if operation.shape_names:
        params = {**params, **{f"{n}_shape": a.shape for n, a in zip(operation.inputs, arrays) if a is not None}}
    node.params = params
    plan = operation.plans.get(asking, UNKNOWN)
    if plan is UNKNOWN:
        plan = operation.plan(asking)
    if plan is None:
        node.versions = ()
    else:
        which, out_place, which_extras, places = plan
        versions = []
        stamp = 0
        node.saved = saved = [None] * places
        for i in which:
            tensor = inputs[i]
            if tensor is not None:
                saved[i] = array = arrays[i]
                if array is tensor._array:  # a copy in another dtype cannot be changed by anyone
                    version = tensor._version
                    if version is None:
                        tensor._version = version = [0]
                    versions.append(version)
                    stamp += version[0]
        if out_place is not None:
            saved[out_place] = tuple([r._array for r in result]) if several else result._array
            for r in result if several else (result,):
                version = r._version
                if version is None:
                    r._version = version = [0]
                versions.append(version)
                stamp += version[0]
        for i in which_extras:
            saved[places - len(extras) + i] = extras[i]
        node.versions = versions or NEVER_CHANGED
        node.stamp = stamp
    if mode > 1:
        node.note(mode)
    if not several:
        result._node = node
        return
    for i, r in enumerate(result):
        if r._array.dtype in DIFFERENTIABLE:
            r._node = Pick(node, i)


def in_one_world(operation: Operation, inputs: Sequence[Tensor | None], arrays: Sequence[Any]) -> list[Any]:
    """The inputs' arrays, which are of several classes, in one: those beside samples are the same for all samples.

    Raises
    ------
    RuntimeError
        If they are on different devices.
    """
    if any(isinstance(a, BatchedArray) for a in arrays):
        arrays = [None if a is None else lifted(a) for a in arrays]
    if len({a.__class__ for a in arrays if a is not None}) > 1:
        refuse_devices(operation.name, [NAMESPACES[t._array.__class__].device_of(t._array) for t in inputs if t is not None])
    return list(arrays)


def refuse_devices(name: str, devices: Sequence[Any]) -> NoReturn:
    """Say on which devices the tensors of an operation are.

    Raises
    ------
    RuntimeError
    """
    first, *others = dict.fromkeys(map(str, devices))
    raise RuntimeError(
        f"{name}: Expected all tensors to be on the same device, but found at least two devices, {first} and {', '.join(others)}!"
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
            arrays = in_one_world(operation, inputs, arrays)
            xp = NAMESPACES[arrays[0].__class__]
            break
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
    if BEFORE_WRITING:
        for notify in tuple(BEFORE_WRITING):
            notify(x)
    if not is_writeable(x._array) and not _made_writeable(x):
        raise RuntimeError(
            f"{name}_: more than one element of the written-to tensor of shape {list(x._array.shape)} and strides "
            f"{list(x._array.strides)} bytes refers to a single memory location, or the memory is read-only; clone() it first"
        )
    if not recording.get():
        return
    origin = base_of(x)
    if origin._node is not None and not origin._node.edges and not isinstance(origin._node, OperationNode):
        kind = "a leaf Variable that requires grad" if origin is x else "a view of a leaf Variable that requires grad"
        raise RuntimeError(f"{name}_: {kind} is being used in an in-place operation; do it under no_grad()")
    if x._array.dtype not in DIFFERENTIABLE and any(o is not None and o._node is not None for o in others):
        raise RuntimeError(f"{name}_: a result that requires grad cannot be put into a tensor of dtype {DTYPES[x._array.dtype]}")


def _made_writeable(x: Tensor) -> bool:
    """A part of an expanded view in which no place comes twice can be written to after all."""
    a = x._array
    if x._view is None or not is_writeable(base_of(x)._array) or is_expanded(a):
        return False
    a.flags.writeable = True
    return True


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
        if x._version is None:
            x._version = [0]
        result._version = x._version
        record(operation, inputs, arrays, result, extras, params, mode)
        if result._node is not None:
            set_history(x, result._node)
