"""Function: operations whose derivative the user writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..backend import NAMESPACES
from ..backend.batched import BatchedArray, levels
from ..backend.dtypes import DIFFERENTIABLE
from .batching import batch_tensor, unbatch_tensor
from .grad_mode import SAVED_HOOKS, enable_grad, no_grad, recording, saved_hooks, use_saved_hooks
from .node import AccumulateGrad, Node, Pick
from .saved import pack_one, unpack_one
from .variable import Tensor, bump_version, wrap
from .views import set_history

__all__ = ["Function", "FunctionCtx", "VmapInfo", "forward_mode", "once_differentiable"]

#: whether a pull-back is being computed only for its own derivative, the push-forward
forward_mode: ContextVar[bool] = ContextVar("disttorch.forward_mode", default=False)


class FunctionCtx(Node):
    """What forward and backward of a `Function` share, and its node in the graph; attributes may be set freely.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        Which arguments of forward ask for a gradient.
    """

    __slots__ = ()

    returns_fresh_arrays = False
    edges: tuple[Node | None, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True
    _function: type[Function]
    _takes: tuple[bool, ...]
    _to_save: tuple[Tensor | None, ...] = ()
    _saved: list[_Saved | None] | None = None
    _to_save_for_forward: tuple[Tensor | None, ...] | None = None
    _saved_for_forward: list[_Saved | None] | None = None
    _in_jvp = False
    _dirty: tuple[Tensor, ...] = ()
    _not_differentiable: tuple[Tensor, ...] = ()

    def name(self) -> str:
        return f"{self._function.__name__}Backward"

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward; a change of them in place until then is noticed."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"save_for_backward can only save tensors, but argument is of type {type(t).__name__}")
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `Function.jvp`, which finds them in `saved_tensors`."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"save_for_forward can only save tensors, but argument is of type {type(t).__name__}")
        self._to_save_for_forward = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept; in `Function.jvp`, what `save_for_forward` did."""
        if self._in_jvp and self._saved_for_forward is not None:
            return tuple(None if s is None else s.unpack(self) for s in self._saved_for_forward)
        if self._saved is None:
            if self._to_save:  # asked for before forward has ended
                return self._to_save
            raise RuntimeError(
                "trying to backward through the graph a second time: the saved tensors were freed by the first backward; call it "
                "with retain_graph=True"
            )
        return tuple(None if s is None else s.unpack(self) for s in self._saved)

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs forward changed in place; they must be among its results."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which results have no gradient."""
        self._not_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (as it does unless set) or None for results that no gradient reached."""
        self.materialize_grads = bool(value)

    def propagate(self, gradient: Any, create_graph: bool) -> Sequence[Any]:
        parts = gradient if gradient.__class__ is list else [gradient]
        tensors = [g if create_graph or g is None else wrap(_as_array(g)) for g in parts]
        with enable_grad() if create_graph else no_grad():
            if create_graph and forward_mode.get() and self._function.jvp is not Function.jvp:
                returned = _ByPushForward.apply(self, *tensors)
            else:
                returned = self._function._pull_back()(self, *tensors)
        results = returned if isinstance(returned, tuple) else (returned,)
        extra = results[len(self._takes) :]
        if len(results) < len(self._takes) or any(r is not None for r in extra):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {len(self._takes)}, got {len(results)})"
            )
        gradients = []
        for i, (is_tensor, result) in enumerate(zip(self._takes, results)):
            if not is_tensor:
                if result is not None:
                    raise RuntimeError(
                        f"function {self.name()} returned a gradient different from None at position {i + 1}, but the corresponding "
                        "forward input was not a Tensor"
                    )
                continue
            if result is not None and not isinstance(result, Tensor):
                raise TypeError(f"function {self.name()} returned a {type(result).__name__} at position {i + 1}, not a Tensor or None")
            gradients.append(result if create_graph or result is None else result._array)
        return gradients

    def release(self) -> None:
        if self._saved:
            self._saved = None
            self._to_save = ()

    def _keep(self, outputs: Sequence[Any]) -> None:
        numbers = {id(o): i for i, o in enumerate(o for o in outputs if isinstance(o, Tensor))}
        self._saved = [None if t is None else _Saved(t, numbers.get(id(t)), self) for t in self._to_save]
        self._to_save = ()
        if self._to_save_for_forward is not None:
            kept = self._to_save_for_forward
            self._saved_for_forward = [None if t is None else _Saved(t, numbers.get(id(t)), self) for t in kept]
            self._to_save_for_forward = None


class _Saved:
    """A tensor that was saved. A result is kept without its node, which would keep itself alive through it."""

    __slots__ = ("node", "number", "packed", "stamp", "tensor", "unpack_hook", "version")

    def __init__(self, tensor: Tensor, number: int | None, node: FunctionCtx):
        if tensor._version is None:
            tensor._version = [0]
        self.version = tensor._version
        self.stamp = self.version[0]
        self.number = number
        self.tensor: Tensor | None = tensor if number is None else wrap(tensor._array)
        self.unpack_hook: Callable | None = None
        if recording.get() & SAVED_HOOKS or saved_hooks.get():
            hooks = saved_hooks.get()
            if hooks and hooks[-1].__class__ is tuple:
                self.node = tensor._node if number is None else None
                before = use_saved_hooks(())
                try:
                    with no_grad():
                        self.packed = pack_one(hooks[-1][0], wrap(tensor._array))
                finally:
                    use_saved_hooks(before)
                self.unpack_hook = hooks[-1][1]
                self.tensor = None

    def unpack(self, node: FunctionCtx) -> Tensor:
        if self.unpack_hook is not None:
            edge = self.node if self.number is None else Pick(node, self.number)
            return wrap(unpack_one(self.unpack_hook, self.packed)._array, edge)
        assert self.tensor is not None
        if self.version[0] != self.stamp:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor of shape "
                f"{list(self.tensor._array.shape)} that {node.name()} saved was changed {self.version[0] - self.stamp} time(s) since"
            )
        return self.tensor if self.number is None else wrap(self.tensor._array, Pick(node, self.number))


def _as_array(g: Any) -> Any:
    xp = NAMESPACES[g.__class__]
    return g if g.__class__ is xp.ndarray else xp.asarray(g)


class Function:
    """An operation with a derivative of one's own; as ``torch.autograd.Function``.

    Subclasses define the static methods ``forward(ctx, *args)`` and ``backward(ctx, *grad_outputs)``, or ``forward(*args)``
    with ``setup_context(ctx, inputs, output)``, and are called by ``apply``.

    Notes
    -----
    https://docs.pytorch.org/docs/stable/notes/extending.html

    Examples
    --------
    >>> import disttorch
    >>> class Cube(disttorch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x * x
    >>> x = disttorch.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the results from arrays or anything else; what it does is not recorded."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> Any:
        """Save for backward, where forward does not take ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradient of each argument of forward, None for those that are no tensors."""
        raise NotImplementedError("You must implement the backward function to use autograd with a custom autograd.Function.")

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Return the tangent of each result; optional, for forward mode."""
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple, *args: Any) -> Any:
        """Return the results for many samples and where their dimension is; optional, for `func.vmap`.

        Without it, forward and backward are run on tensors that hide the samples' dimension, as with `generate_vmap_rule`.
        """
        raise NotImplementedError(
            "To use autograd.Function with vmap, you must either override the vmap staticmethod or set generate_vmap_rule=True."
        )

    #: Accepted as in PyTorch: a rule for vmap need not be generated, as operations have theirs.
    generate_vmap_rule = False

    @classmethod
    def _pull_back(cls) -> Callable:
        return cls.vjp if cls.backward is Function.backward and cls.vjp is not Function.vjp else cls.backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Compute the function and put it into the graph."""
        if levels.get() and cls.vmap is not Function.vmap:
            found = _over_samples(cls, args, kwargs)
            if found is not None:
                return found[0]
        ctx = FunctionCtx()
        ctx._function = cls
        mode = recording.get()
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._node is not None for a in args)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                returned = cls.forward(ctx, *args, **kwargs)
            else:
                returned = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, returned)
        outputs = returned if isinstance(returned, tuple) else (returned,)
        for t in ctx._dirty:
            bump_version(t)
        if mode and any(ctx.needs_input_grad):
            outputs = _record(ctx, args, outputs, mode)
        return outputs if isinstance(returned, tuple) else outputs[0]


class VmapInfo(NamedTuple):
    """What `Function.vmap` is told: how many samples there are, and how `func.vmap` shall treat random functions."""

    batch_size: int
    randomness: str


def _over_samples(cls: type[Function], args: tuple, kwargs: dict) -> tuple[Any] | None:
    """The function's own rule for vmap, if an argument hides samples of the innermost level."""
    level = levels.get()[-1]
    in_dims = tuple(
        0 if isinstance(a, Tensor) and isinstance(a._array, BatchedArray) and a._array.level == level.number else None for a in args
    )
    if all(d is None for d in in_dims):
        return None
    # what asks for a gradient gets one of each sample
    in_dims = tuple(0 if isinstance(a, Tensor) and a._node is not None else d for a, d in zip(args, in_dims))
    plain = [a if d is None else unbatch_tensor(a, 0, level.number, level.size) for a, d in zip(args, in_dims)]
    outer = levels.set(levels.get()[:-1])
    try:
        returned, out_dims = cls.vmap(VmapInfo(level.size, level.randomness), in_dims, *plain, **kwargs)
    finally:
        levels.reset(outer)
    if not isinstance(returned, tuple):
        return (returned if out_dims is None else batch_tensor(returned, out_dims, level.number),)
    where = out_dims if isinstance(out_dims, tuple) else (out_dims,) * len(returned)
    return (tuple(r if d is None else batch_tensor(r, d, level.number) for r, d in zip(returned, where)),)


class _ByPushForward(Function):
    """The pull-back of a function whose derivative the user has given as a push-forward too."""

    @staticmethod
    def forward(ctx: Any, node: FunctionCtx, *gradients: Tensor | None) -> Any:
        ctx.node = node
        returned = node._function._pull_back()(node, *gradients)
        ctx.single = not isinstance(returned, tuple)
        ctx.set_materialize_grads(node.materialize_grads)
        return returned

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        node = ctx.node
        given = iter(tangents)
        arguments = [next(given, None) if takes else None for takes in node._takes]
        node._in_jvp = True
        try:
            pushed = node._function.jvp(node, *arguments)
        finally:
            node._in_jvp = False
        return (None, *(pushed if isinstance(pushed, tuple) else (pushed,)))


def once_differentiable(fn: Callable) -> Callable:
    """Decorate a backward that cannot be differentiated itself: doing so is an error then, not a wrong result.

    As ``torch.autograd.function.once_differentiable``.
    """

    @functools.wraps(fn)
    def wrapper(ctx: Any, *gradients: Any) -> Any:
        recorded = bool(recording.get()) and any(isinstance(g, Tensor) and g._node is not None for g in gradients)
        with no_grad():
            returned = fn(ctx, *gradients)
        if not recorded:
            return returned
        outputs = returned if isinstance(returned, tuple) else (returned,)
        asking = [g for g in gradients if isinstance(g, Tensor)]
        refused = tuple(_refuse(o, asking) if isinstance(o, Tensor) else o for o in outputs)
        return refused if isinstance(returned, tuple) else refused[0]

    return wrapper


def _refuse(output: Tensor, sources: Sequence[Tensor]) -> Tensor:
    return _NotTwice.apply(output, *sources)


class _NotTwice(Function):
    """Passes its first argument on; what it may have been computed of asks for a gradient that there is not."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, *sources: Tensor) -> Tensor:
        return wrap(output._array)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def _record(ctx: FunctionCtx, args: tuple, outputs: tuple, mode: int) -> tuple:
    """Make the context the node that the results come from."""
    ctx._takes = tuple(isinstance(a, Tensor) for a in args)
    ctx.edges = tuple(a._node for a in args if isinstance(a, Tensor))
    tensors = [o for o in outputs if isinstance(o, Tensor)]
    ctx.shape = tuple(t._array.shape for t in tensors)
    ctx.dtype = tuple(t._array.dtype for t in tensors)
    ctx._keep(outputs)
    if mode > 1:
        ctx.note(mode)
    results: list[Any] = []
    number = 0
    for o in outputs:
        if not isinstance(o, Tensor):
            results.append(o)
            continue
        edge = Pick(ctx, number)
        number += 1
        if any(o is t for t in ctx._not_differentiable) or o._array.dtype not in DIFFERENTIABLE:
            results.append(o)
        elif any(o is t for t in ctx._dirty):
            if o._node.__class__ is AccumulateGrad:
                raise RuntimeError(f"{ctx.name()}: a leaf Variable that requires grad is being used in an in-place operation.")
            set_history(o, edge)
            results.append(o)
        elif any(o is a for a in args) or o._node is not None:
            results.append(wrap(o._array, edge))  # what was there before keeps its own history
        else:
            o._node = edge
            results.append(o)
    return tuple(results)
