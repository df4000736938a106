"""`make_graphed_callables`: functions and modules whose forward and backward passes are CUDA graphs, inside a network that is none.

Each becomes one node of the autograd graph. Its forward pass copies the arguments to where they were in the capture and replays; so does
its backward pass with the gradients of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..amp.autocast_mode import is_autocast_cache_enabled, is_autocast_enabled
from ..autograd import Function, no_grad
from ..autograd import grad as gradients
from ..autograd.variable import Tensor, wrap
from ..backend import namespace
from ._room import room
from .graphs import CUDAGraph, graph
from .streams import Stream, StreamContext

__all__ = ["make_graphed_callables"]


def make_graphed_callables(
    callables: Any, sample_args: Any, num_warmup_iters: int = 3, allow_unused_input: bool = False, pool: Any = None
) -> Any:
    """Modules or functions that do the same by CUDA graphs; as ``torch.cuda.make_graphed_callables``.

    Parameters
    ----------
    callables : Module or function, or tuple of them
        A module is changed: its forward pass replays in the mode (training or evaluation) that it is in now, and is its own in the other.
        Several are called in the order of the tuple; they share memory.
    sample_args : tuple of Tensor, or tuple of such tuples
        Arguments as they will come, in shape, dtype, device and whether they ask for gradients; nested in lists, tuples and dicts if
        they are. They become the graphs' inputs.
    num_warmup_iters : int
        How often each is called before it is captured.
    allow_unused_input : bool
        Whether an argument that asks for a gradient need not have a part in the results.
    pool : tuple, optional
        The memory that the graphs use; see `graph_pool_handle`.

    Returns
    -------
    The callables.

    Raises
    ------
    RuntimeError
        Under autocast with its cache, which would keep results of a capture; or if a module has hooks, or buffers that ask for gradients.
    TypeError
        If an argument is no tensor.

    Notes
    -----
    No second derivatives. Results lie in the graphs' memory: the next call overwrites them.
    """
    if is_autocast_enabled() and is_autocast_cache_enabled():
        raise RuntimeError("make_graphed_callables does not support the autocast caching. Please set `cache_enabled=False`.")
    single = not isinstance(callables, tuple)
    parts = [_Part(c, args) for c, args in zip((callables,) if single else callables, (sample_args,) if single else sample_args)]
    pool = room("graphs").new_handle() if pool is None else pool
    room("devices").synchronize()
    with StreamContext(Stream()):
        for part in parts:
            for _ in range(num_warmup_iters):
                part.warm_up(allow_unused_input)
    room("devices").synchronize()
    # forward in the order of the calls, then backward in the other: what one leaves in the memory, the next must not overwrite
    for part in parts:
        part.capture_forward(pool)
    for part in reversed(parts):
        part.capture_backward(pool, allow_unused_input)
    graphed = tuple([part.replacement() for part in parts])
    return graphed[0] if single else graphed


class _Part:
    """One callable, its graphs, and the tensors at their ends."""

    def __init__(self, function: Any, args: Any):
        self.function, self.args = function, args
        self.is_module = hasattr(function, "forward") and hasattr(function, "named_parameters")
        arguments = list(_leaves(args))
        for argument in arguments:
            if not isinstance(argument, Tensor):
                raise TypeError(
                    f"make_graphed_callables: sample_args for each callable must contain only tensors, not {type(argument).__name__}"
                )
        if self.is_module:
            _check_module(function)
        self.count = len(arguments)
        self.inputs = (*arguments, *(function.parameters() if self.is_module else ()))
        self.asking = tuple([t for t in self.inputs if t.requires_grad])
        self.outputs: tuple[Tensor, ...] = ()
        self.shape: Any = None
        self.grad_outputs: tuple[Tensor | None, ...] = ()
        self.grad_inputs: tuple[Tensor | None, ...] = (None,) * len(self.inputs)
        self.forward_graph, self.backward_graph = CUDAGraph(), CUDAGraph()

    def warm_up(self, allow_unused: bool) -> None:
        outputs = [o for o in _leaves(self.function(*self.args)) if o.requires_grad]
        if outputs and self.asking:
            gradients(outputs, self.asking, [_empty_like(o) for o in outputs], allow_unused=allow_unused)

    def capture_forward(self, pool: Any) -> None:
        with graph(self.forward_graph, pool=pool):
            self.shape = self.function(*self.args)
        self.outputs = tuple(_leaves(self.shape))

    def capture_backward(self, pool: Any, allow_unused: bool) -> None:
        self.grad_outputs = tuple([_empty_like(o) if o.requires_grad else None for o in self.outputs])
        outputs = [o for o in self.outputs if o.requires_grad]
        if not (outputs and self.asking):
            return
        with graph(self.backward_graph, pool=pool):
            found = gradients(outputs, self.asking, [g for g in self.grad_outputs if g is not None], allow_unused=allow_unused)
        each = iter(found)
        self.grad_inputs = tuple([next(each) if t.requires_grad else None for t in self.inputs])
        # the graph of the results has done its work: only their memory is needed
        self.outputs = tuple([o.detach().requires_grad_(o.requires_grad) for o in self.outputs])

    def replacement(self) -> Any:
        node, parameters = _node_of(self), self.inputs[self.count :]

        def replayed(*args: Any) -> Any:
            return _rebuilt(self.shape, iter(node.apply(*_leaves(args), *parameters)))

        self.shape = _without_tensors(self.shape)
        if not self.is_module:
            return replayed
        module, original, training = self.function, self.function.forward, self.function.training

        def forward(*args: Any, **options: Any) -> Any:
            return replayed(*args, **options) if module.training == training else original(*args, **options)

        module.forward = forward
        return module


def _node_of(part: _Part) -> type[Function]:
    class Graphed(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
            for there, given in zip(part.inputs[: part.count], inputs):
                _put(there, given)
            part.forward_graph.replay()
            results = tuple([o.detach() for o in part.outputs])
            ctx.mark_non_differentiable(*[r for r, o in zip(results, part.outputs) if not o.requires_grad])
            return results

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            for there, given in zip(part.grad_outputs, grads):
                if there is not None:
                    _put(there, given)
            part.backward_graph.replay()
            return tuple([None if g is None else g.detach() for g in part.grad_inputs])

    return Graphed


def _put(there: Tensor, given: Tensor) -> None:
    """Copy an argument to where the graph reads it, unless it is there."""
    if there.data_ptr() != given.data_ptr() or there._array.shape != given._array.shape:
        with no_grad():
            there.detach().copy_(given)


def _empty_like(t: Tensor) -> Tensor:
    return wrap(namespace(t._array).empty_like(t._array))


def _check_module(module: Any) -> None:
    hooks = vars(module).get("_hooks")  # its own, not those of all modules
    if hooks is not None and any(vars(hooks).values()):
        raise RuntimeError(
            "Modules must not have hooks registered at the time they are passed. However, registering hooks on modules after passing them "
            "through make_graphed_callables is allowed."
        )
    if any(b.requires_grad for b in module.buffers()):
        raise RuntimeError("make_graphed_callables: only parameters may be trainable. All buffers must have requires_grad=False.")


# Tensors nested in lists, tuples and dicts


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    else:
        yield value


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_mapped(v, leaf) for v in value])
    if isinstance(value, (list, tuple)):
        return type(value)([_mapped(v, leaf) for v in value])
    if isinstance(value, dict):
        return type(value)({k: _mapped(v, leaf) for k, v in value.items()})
    return leaf(value)


def _without_tensors(value: Any) -> Any:
    return _mapped(value, lambda leaf: None)


def _rebuilt(shape: Any, leaves: Iterator[Any]) -> Any:
    return _mapped(shape, lambda leaf: next(leaves))
