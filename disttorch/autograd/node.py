"""Nodes: what was computed from what. A node knows its edges (the nodes its gradients go to) and what it saved.

A node says shape and dtype of its result, so that the engine, in one place, can sum a broadcast gradient back to the
shape of the input and refuse a wrong one.
"""

from __future__ import annotations

import itertools
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..backend import IN_ONE_ORDER, NAMESPACES, get_default_device
from ..backend.dtypes import COMPLEX_DTYPES
from ..backend.layout import is_dense, kept, strides_like
from .grad_mode import ANOMALY, SAVED_HOOKS
from .saved import Packed
from .variable import Tensor, bump_version, wrap

if TYPE_CHECKING:
    from .operation import Operation

__all__ = ["AccumulateGrad", "Edge", "Node", "OperationNode", "Pick", "RemovableHandle"]


class RemovableHandle:
    """What registering a hook returns; `remove` takes the hook away."""

    _ids = itertools.count()

    def __init__(self, hooks: OrderedDict):
        self._hooks = hooks
        self.id = next(self._ids)

    @classmethod
    def of(cls, hooks: OrderedDict, entry: Any, first: bool = False) -> RemovableHandle:
        """Put a hook among others, behind or before them, and return its handle."""
        handle = cls(hooks)
        hooks[handle.id] = entry
        if first:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


class Node:
    """One recorded computation.

    Attributes
    ----------
    edges : tuple of Node or None
        For each input the node that its gradient goes to; None where no gradient is asked.
    shape, dtype
        Of the result, as the array library says them; of several results, tuples of them.
    """

    __slots__ = ("__dict__", "__weakref__", "dtype", "edges", "shape")

    edges: tuple[Edge | None, ...]
    shape: Any
    dtype: Any

    # rarely there, so kept in __dict__ once set
    hooks: OrderedDict | None = None
    node_pre_hooks: OrderedDict | None = None
    node_hooks: OrderedDict | None = None
    recorded_at: list[str] | None = None
    #: results that are asked for as outputs, by `get_gradient_edge`
    _metadata: dict | None = None

    #: whether what `propagate` returns belongs to nobody else (but for the gradient itself, and views)
    returns_fresh_arrays = True

    def name(self) -> str:
        """As PyTorch names it: MulBackward0."""
        return type(self).__name__

    @property
    def metadata(self) -> dict:
        """What the user keeps with the node."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    def propagate(self, gradient: Any, create_graph: bool) -> Sequence[Any]:
        """The gradients of the inputs, in the order of `edges`."""
        raise NotImplementedError

    def release(self) -> None:
        """Forget what was saved: the graph has been used."""

    def add_hook(self, which: str, hook: Callable) -> RemovableHandle:
        """Register under one of the names hooks (on the result's gradient), node_pre_hooks, node_hooks."""
        hooks = getattr(self, which)
        if hooks is None:
            hooks = OrderedDict()
            setattr(self, which, hooks)
        return RemovableHandle.of(hooks, hook)

    def register_hook(self, fn: Callable) -> RemovableHandle:
        """Call ``fn(grad_inputs, grad_outputs)`` after this node in every backward pass."""
        return self.add_hook("node_hooks", fn)

    def register_prehook(self, fn: Callable) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before this node in every backward pass."""
        return self.add_hook("node_pre_hooks", fn)

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """(node, number of its result) for each input."""
        return tuple((e.edges[0], e.index) if isinstance(e, Pick) else (e, 0) for e in self.edges)

    def note(self, mode: int) -> None:
        """Do what the mode asks for beside recording: keep the traceback of this moment, pack what was saved."""
        if mode & ANOMALY:
            self.recorded_at = traceback.format_stack()[:-2]
        if mode & SAVED_HOOKS:
            self.pack()

    def pack(self) -> None:
        """Give what was saved to the hooks that are set."""

    def __repr__(self) -> str:
        return f"<{self.name()}>"


Edge = Node


#: The versions of saved arrays that nobody can change; and of a number, which need not be released.
NEVER_CHANGED: Sequence[list] = ([0],)
CONSTANT: Sequence[list] = ([0],)


class OperationNode(Node):
    """A node that applies the rules of an `Operation`.

    Attributes
    ----------
    saved : sequence or None
        The arrays that the rules name; None once released. Not there if `versions` is empty, as is `stamp`.
    versions : tuple of version counters
        Of the memory of what was saved.
    stamp : int
        Their sum when saved: versions only grow, so an equal sum says that nothing was changed.
    params : dict
        The operation's parameters that are not tensors.
    """

    __slots__ = ("operation", "params", "saved", "stamp", "versions")

    operation: Operation
    saved: Sequence[Any] | None
    versions: Sequence[list]
    stamp: int
    params: dict

    def name(self) -> str:
        return self.operation.node_name

    @property
    def materialize_grads(self) -> bool:
        """Whether the rule wants zeros for those of several results that no gradient reached."""
        return self.operation.fills_missing

    def propagate(self, gradient: Any, create_graph: bool) -> Sequence[Any]:
        first = next(g for g in gradient if g is not None) if gradient.__class__ is list else gradient
        if create_graph:
            where = NAMESPACES[first._array.__class__].device_of(first._array)
            if where != get_default_device():
                with where:  # a rule on tensors makes its zeros, masks and ranges on the default device
                    return self.propagate(gradient, create_graph)
        saved: Sequence[Any] | None = None
        if self.versions:
            saved = self.saved
            if saved is None:
                raise RuntimeError(
                    f"trying to backward through the graph a second time: what {self.name()} saved was freed by the first "
                    "backward; call it with retain_graph=True to go through the graph again"
                )
            if saved.__class__ is Packed:
                saved = saved.unpack()
            elif self.stamp != (self.versions[0][0] if len(self.versions) == 1 else sum([v[0] for v in self.versions])):
                raise RuntimeError(self._changed_in_place())
        if create_graph:
            xp = NAMESPACES[Tensor]
            saved = self.operation.wrap_saved(self, saved, xp)
        else:
            xp = NAMESPACES[first.__class__]
        backward = self.operation.backward
        if self.operation.is_elementwise and (in_one_order := IN_ONE_ORDER.get(first.__class__)) is not None:
            backward = in_one_order(backward)
        if self.dtype in COMPLEX_DTYPES:
            # a rule multiplies by the derivative; the gradient of a real number is the product with its conjugate
            # (https://docs.pytorch.org/docs/stable/notes/autograd.html#autograd-for-complex-numbers)
            results = backward(xp.conjugate(gradient), saved, xp, self.params, self.edges)
            return [r if r is None else xp.conjugate(r) for r in results]
        return backward(gradient, saved, xp, self.params, self.edges)

    def release(self) -> None:
        if self.versions is not CONSTANT:
            self.saved = None

    def pack(self) -> None:
        if self.versions and self.versions is not CONSTANT:
            self.saved = Packed(self.saved or ())  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        # PyTorch's names of what is saved: _saved_self, _saved_other, _saved_result
        if name.startswith("_saved_") and self.versions:
            wanted = _SAVED_AS.get(name[7:], name[7:])
            if wanted in self.operation.saved_names:
                if self.saved is None:
                    raise RuntimeError(f"{self.name()}: {name} was freed by a backward; call it with retain_graph=True")
                saved = self.saved.unpack() if isinstance(self.saved, Packed) else self.saved
                array = saved[self.operation.saved_names.index(wanted)]
                if array is not None:
                    return wrap(array)
        raise AttributeError(f"{self.name()} has no attribute {name!r}")

    def _changed_in_place(self) -> str:
        operation = self.operation
        shapes = {n: f"{getattr(a, 'shape', None)}" for n, a in zip(operation.saved_names, self.saved or ()) if a is not None}
        return (
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{self.name()} saved {', '.join(f'{n} of shape {s}' for n, s in shapes.items())} and its memory has been changed "
            f"{sum([v[0] for v in self.versions]) - self.stamp} time(s) since. Hint: detect_anomaly() shows where it was recorded"
            + (f"\nIt was recorded here:\n{''.join(self.recorded_at)}" if self.recorded_at else "")
        )


_SAVED_AS = {"self": "x", "other": "y", "result": "out"}


class Pick(Node):
    """One of several results of a node: gathers that result's gradient for it."""

    __slots__ = ("index",)
    index: int

    def __init__(self, node: Node, index: int):
        self.edges = (node,)
        self.index = index
        self.shape = node.shape[index]
        self.dtype = node.dtype[index]

    def name(self) -> str:
        return self.edges[0].name()  # type: ignore[union-attr]


class AccumulateGrad(Node):
    """Where the gradient of a leaf ends: adds it to the leaf's ``.grad``.

    It knows its leaf weakly, so a parameter is freed as soon as its last user lets go of it.

    Attributes
    ----------
    home : array or None
        Memory in which the gradient shall live, such as a slice of a flat bucket.
    lock : Lock
        Held while a gradient is added: several threads may run backward at once.
    post_hooks : OrderedDict or None
        Called with the leaf after its gradient has been added.
    """

    __slots__ = ("home", "leaf", "lock", "post_hooks")

    home: Any
    post_hooks: OrderedDict | None

    def __init__(self, leaf: Tensor):
        self.edges = ()
        self.leaf = ref(leaf)
        self.shape = leaf._array.shape
        self.dtype = leaf._array.dtype
        self.home = None
        self.lock = Lock()
        self.post_hooks = None

    def accumulate(self, gradient: Any, is_fresh: bool) -> None:
        """Add a gradient, an array or (where the gradient itself has a graph) a tensor."""
        leaf = self.leaf()
        if leaf is None:
            return
        with self.lock:
            existing = leaf._grad
            if isinstance(gradient, Tensor):
                leaf._grad = gradient if existing is None else existing + gradient
            elif existing is None:
                leaf._grad = wrap(self._settle(gradient, leaf._array, is_fresh))
            elif existing._node is not None:
                leaf._grad = wrap(existing._array + gradient)
            else:
                existing._array += gradient
                bump_version(existing)
        if self.post_hooks:
            for hook in tuple(self.post_hooks.values()):
                hook(leaf)

    def _settle(self, gradient: Any, of: Any, is_fresh: bool) -> Any:
        """The array that ``.grad`` will keep: its own, which lies as the leaf's `of` does if that is dense, or its home's memory."""
        xp = NAMESPACES[gradient.__class__]
        if self.home is not None:
            xp.copyto(self.home, gradient)
            return self.home
        if gradient.__class__ is not xp.ndarray or gradient.ndim < 2 or of.__class__ is not xp.ndarray:
            return gradient if is_fresh and gradient.__class__ is xp.ndarray and gradient.flags.c_contiguous else xp.array(gradient)
        if of.flags.c_contiguous:
            if gradient.flags.c_contiguous:
                return gradient if is_fresh else kept(xp, xp.array(gradient), of)
            return xp.ascontiguousarray(gradient)
        strides = strides_like(of, gradient.itemsize)
        if is_fresh and gradient.strides == strides:
            return gradient
        if not is_dense(of):
            return xp.ascontiguousarray(xp.array(gradient))
        made = xp.empty_strided(gradient.shape, gradient.dtype, strides)
        xp.copyto(made, gradient)
        return made


def retain_gradient(tensor: Tensor) -> None:
    """Let the engine keep the gradient of a tensor that is not a leaf in its ``.grad``."""
    weak = ref(tensor)

    def keep(gradient: Tensor) -> None:
        alive = weak()
        if alive is None:
            return
        if alive._grad is not None:
            gradient = alive._grad + gradient
        elif gradient._node is None:  # the engine goes on with this array
            gradient = wrap(NAMESPACES[gradient._array.__class__].array(gradient._array))
        alive._grad = gradient

    assert tensor._node is not None
    tensor._node.add_hook("hooks", keep)
