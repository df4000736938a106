"""Function: operations whose derivative the user writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import NAMESPACES
from ..backend.dtypes import DIFFERENTIABLE
from .grad_mode import ANOMALY, enable_grad, no_grad, recording
from .graph import AccumulateGrad, Node, Pick
from .variable import Tensor, bump_version, wrap
from .views import set_history

__all__ = ["Function", "FunctionCtx"]


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
    _dirty: tuple[Tensor, ...] = ()
    _not_differentiable: tuple[Tensor, ...] = ()

    @property
    def name(self) -> str:
        return f"{self._function.__name__}Backward"

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward; a change of them in place until then is noticed."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"save_for_backward can only save tensors, but argument is of type {type(t).__name__}")
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Accepted as in PyTorch; there is no forward-mode differentiation."""

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept."""
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
            returned = self._function.backward(self, *tensors)
        results = returned if isinstance(returned, tuple) else (returned,)
        extra = results[len(self._takes) :]
        if len(results) < len(self._takes) or any(r is not None for r in extra):
            raise RuntimeError(
                f"function {self.name} returned an incorrect number of gradients (expected {len(self._takes)}, got {len(results)})"
            )
        gradients = []
        for i, (is_tensor, result) in enumerate(zip(self._takes, results)):
            if not is_tensor:
                if result is not None:
                    raise RuntimeError(
                        f"function {self.name} returned a gradient different from None at position {i + 1}, but the corresponding "
                        "forward input was not a Tensor"
                    )
                continue
            if result is not None and not isinstance(result, Tensor):
                raise TypeError(f"function {self.name} returned a {type(result).__name__} at position {i + 1}, not a Tensor or None")
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


class _Saved:
    """A tensor that was saved. A result is kept without its node, which would keep itself alive through it."""

    __slots__ = ("number", "stamp", "tensor", "version")

    def __init__(self, tensor: Tensor, number: int | None, node: FunctionCtx):
        if tensor._version is None:
            tensor._version = [0]
        self.version = tensor._version
        self.stamp = self.version[0]
        self.number = number
        self.tensor = tensor if number is None else wrap(tensor._array)

    def unpack(self, node: FunctionCtx) -> Tensor:
        if self.version[0] != self.stamp:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor of shape "
                f"{list(self.tensor._array.shape)} that {node.name} saved was changed {self.version[0] - self.stamp} time(s) since"
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

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Compute the function and put it into the graph."""
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


def _record(ctx: FunctionCtx, args: tuple, outputs: tuple, mode: int) -> tuple:
    """Make the context the node that the results come from."""
    ctx._takes = tuple(isinstance(a, Tensor) for a in args)
    ctx.edges = tuple(a._node for a in args if isinstance(a, Tensor))
    tensors = [o for o in outputs if isinstance(o, Tensor)]
    ctx.shape = tuple(t._array.shape for t in tensors)
    ctx.dtype = tuple(t._array.dtype for t in tensors)
    ctx._keep(outputs)
    if mode == ANOMALY:
        ctx.note_place()
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
                raise RuntimeError(f"{ctx.name}: a leaf Variable that requires grad is being used in an in-place operation.")
            set_history(o, edge)
            results.append(o)
        elif any(o is a for a in args) or o._node is not None:
            results.append(wrap(o._array, edge))  # what was there before keeps its own history
        else:
            o._node = edge
            results.append(o)
    return tuple(results)
