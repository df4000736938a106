"""grad, vjp, jvp and linearize: functions in, functions out.

A transformed function is run on aliases of its arguments, which are what it is differentiated by. They remember the arguments'
own graph, so transforms nest, and ``backward`` goes through them. Where nothing outside asks for a gradient, what is returned
has no graph, and the pass runs on plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from ..autograd.differentiate import grad as gradients_of
from ..autograd.forward_ad import alias_of, asks_elsewhere, leaf_on, push_forward
from ..autograd.grad_mode import enable_grad, is_grad_enabled
from ..autograd.node import AccumulateGrad, Node
from ..autograd.variable import Tensor
from ..ops.creation import zeros_like
from ..utils._pytree import Structure, flatten, tree_map

__all__ = ["grad", "grad_and_value", "jvp", "linearize", "value_and_grad", "vjp"]

def finished(tree: Any, own: Sequence[Node], recorded: bool) -> Any:
    """Results without the graph that only leads to our own aliases."""

    def without(x: Any) -> Any:
        if not isinstance(x, Tensor) or x._node is None or (recorded and asks_elsewhere((x,), own)):
            return x
        return x.detach()

    return tree_map(without, tree)


def own_leaves(aliases: Iterable[Tensor]) -> list[Node]:
    """The leaves that were made here."""
    return [a._node for a in aliases if a._node.__class__ is AccumulateGrad and a._node is not None]


class Run:
    """A function run on aliases of its arguments.

    Attributes
    ----------
    aliases, structure
        Of the arguments to differentiate by.
    outputs, nested
        The tensors that the function returned, and how they were nested.
    aux
        What else it returned.
    recorded : bool
        Whether what is outside asks for gradients at all.
    """

    def __init__(self, name: str, func: Callable[..., Any], argnums: Any, args: tuple, kwargs: dict, has_aux: bool):
        self.name = name
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        for n in numbers:
            if not -len(args) <= n < len(args):
                raise RuntimeError(f"{name}: got argnum={n}, but only {len(args)} positional inputs")
        numbers = tuple(n % len(args) for n in numbers)
        chosen = args[numbers[0]] if isinstance(argnums, int) else tuple(args[n] for n in numbers)
        leaves, self.structure = flatten(chosen)
        for x in leaves:
            if not isinstance(x, Tensor):
                raise ValueError(f"{name}: expected the inputs to differentiate by to be Tensors, got {type(x).__name__}")
            if not (x.is_floating_point() or x.is_complex()):
                raise RuntimeError(f"{name}: only floating-point and complex tensors can be differentiated by, got {x.dtype}")
        self.recorded = is_grad_enabled()
        with enable_grad():
            self.aliases = [alias_of(x) if self.recorded else leaf_on(x._array) for x in leaves]
            arguments = list(args)
            again = self.structure(self.aliases)
            for n, value in zip(numbers, (again,) if isinstance(argnums, int) else again):
                arguments[n] = value
            returned = func(*arguments, **kwargs)
        self.own = own_leaves(self.aliases)
        self.aux: Any = None
        if has_aux:
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise RuntimeError(
                    f"{name}: output of function f should be a tuple: (output, aux) if has_aux is True, got {type(returned).__name__}"
                )
            returned, aux = returned
            self.aux = finished(aux, self.own, self.recorded)
        self.outputs, self.nested = flatten(returned)
        for o in self.outputs:
            if not isinstance(o, Tensor):
                raise RuntimeError(f"{name}: expected the function to return only Tensors, got {type(o).__name__}")

    @property
    def values(self) -> Any:
        """What the function returned, without our own graph."""
        return self.nested([finished(o, self.own, self.recorded) for o in self.outputs])

    def pull_back(self, cotangents: Sequence[Tensor | None], retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        """The product of cotangents with the Jacobian, nested like the arguments."""
        pairs = [(o, c) for o, c in zip(self.outputs, cotangents) if o._node is not None]
        if create_graph is None:
            asking = any(c is not None and c._node is not None for _, c in pairs)
            create_graph = is_grad_enabled() and (asking or asks_elsewhere(self.outputs, self.own))
        if not pairs:
            return self.structure([zeros_like(a.detach()) for a in self.aliases])
        found = gradients_of(
            [o for o, _ in pairs], self.aliases, [c for _, c in pairs], retain_graph=retain_graph, create_graph=create_graph,
            allow_unused=True,
        )  # fmt: skip
        return self.structure([zeros_like(a.detach()) if g is None else g for g, a in zip(found, self.aliases)])

    def linear(self) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """The product of the Jacobian with tangents, as a function of them."""
        pushed = push_forward(self.outputs, self.aliases, self.own)

        def push(tangents: Sequence[Tensor]) -> list[Tensor]:
            return [zeros_like(o.detach()) if t is None else t for o, t in zip(self.outputs, pushed(tangents, None))]

        return push


def value_and_grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient and the value of `func`; as ``torch.func.grad_and_value``, the value first.

    Parameters
    ----------
    func, argnums, has_aux
        As in `grad`.

    Returns
    -------
    callable
        Returns (value, gradient), with `has_aux` ((value, aux), gradient).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.func.value_and_grad(lambda x: x**2)(disttorch.tensor(3.0))
    (tensor(9.), tensor(6.))
    """
    transformed = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def function(*args: Any, **kwargs: Any) -> Any:
        gradient, value = transformed(*args, **kwargs)
        return value, gradient

    return function


def grad_and_value(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns (gradient, value) of `func`, with `has_aux` (gradient, (value, aux)); as ``torch.func.grad_and_value``."""

    @wraps(func)
    def function(*args: Any, **kwargs: Any) -> Any:
        run = Run("grad", func, argnums, args, kwargs, has_aux)
        if len(run.outputs) != 1 or run.nested.parts:
            raise RuntimeError(f"grad: expected the function to return one Tensor, got {run.nested!r}")
        (output,) = run.outputs
        if output.ndim:
            raise RuntimeError(
                f"Expected f(*args) to return a scalar tensor, got tensor with {output.ndim} dims. Did you mean to use vjp or jacrev?"
            )
        gradient = run.pull_back([None], retain_graph=None)  # type: ignore[arg-type]
        return gradient, ((run.values, run.aux) if has_aux else run.values)

    return function


def grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of `func`, which returns a scalar; as ``torch.func.grad``.

    Parameters
    ----------
    func : callable
        Takes tensors, or nested tuples, lists and dicts of them.
    argnums : int or tuple of int
        Which arguments to differentiate by.
    has_aux : bool
        Whether `func` returns (value, anything else); then the gradient comes with that.

    Returns
    -------
    callable
        Its results are nested like the argument, or are a tuple of such if `argnums` is one.

    Examples
    --------
    >>> import disttorch
    >>> third = disttorch.func.grad(disttorch.func.grad(disttorch.func.grad(lambda x: x**4)))
    >>> third(disttorch.tensor(2.0))
    tensor(48.)
    """
    transformed = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def function(*args: Any, **kwargs: Any) -> Any:
        gradient, value = transformed(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return function


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of a function, and a function that multiplies cotangents with its Jacobian; as ``torch.func.vjp``.

    Parameters
    ----------
    func : callable
    *primals
        Where; tensors, or nested tuples, lists and dicts of them.
    has_aux : bool
        Whether `func` returns (value, anything else).

    Returns
    -------
    value, vjp_fn, and aux if there is one
        ``vjp_fn(cotangents)`` takes what is nested like the value and returns a tuple of what is nested like each of
        `primals`, or that of the only one.

    Examples
    --------
    >>> import disttorch
    >>> value, pull_back = disttorch.func.vjp(disttorch.sin, disttorch.zeros(2))
    >>> pull_back(disttorch.tensor([1.0, 2.0]))
    (tensor([1., 2.]),)
    """
    run = Run("vjp", func, tuple(range(len(primals))), primals, {}, has_aux)

    def vjp_fn(*cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given, structure = flatten(cotangents[0] if len(cotangents) == 1 else cotangents)
        _same_nesting("vjp", structure, run.nested, given)
        return run.pull_back(given, retain_graph, create_graph)

    return (run.values, vjp_fn, run.aux) if has_aux else (run.values, vjp_fn)


def _same_nesting(name: str, given: Structure, expected: Structure, leaves: list) -> None:
    if given != expected and not (given.count == expected.count == 1):
        raise RuntimeError(f"{name}: expected what is given to be nested like {expected!r}, got {given!r}")
    for x in leaves:
        if not isinstance(x, Tensor):
            raise RuntimeError(f"{name}: expected Tensors, got {type(x).__name__}")


def jvp(func: Callable[..., Any], primals: tuple, tangents: tuple, *, strict: bool = False, has_aux: bool = False) -> Any:
    """The value of a function, and the product of its Jacobian with tangents; as ``torch.func.jvp``.

    Parameters
    ----------
    func : callable
    primals : tuple
        Where.
    tangents : tuple
        Nested like `primals`.
    strict : bool
        Whether a result that does not depend on the inputs is an error; its tangent is zero otherwise.
    has_aux : bool
        Whether `func` returns (value, anything else).

    Returns
    -------
    value, tangents, and aux if there is one

    Notes
    -----
    Computed as the derivative of the pull-back, which is linear, so every operation with a derivative has it
    (J. Townsend, "A new trick for calculating Jacobian vector products", 2017).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.func.jvp(lambda x: x**2, (disttorch.tensor(3.0),), (disttorch.tensor(1.0),))
    (tensor(9.), tensor(6.))
    """
    if not isinstance(primals, tuple) or not primals:
        raise RuntimeError("jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    run, push = _linearized("jvp", func, primals, has_aux)
    if not isinstance(tangents, tuple):
        raise RuntimeError("jvp(f, primals, tangents): Expected primals and tangents to have the same python structure.")
    results = push(_as_tangents(run, tangents))
    if strict and any(o._node is None for o in run.outputs):
        raise RuntimeError("jvp: a result does not depend on the inputs, and strict=True")
    pair = (run.values, run.nested(results))
    return (*pair, run.aux) if has_aux else pair


def _linearized(name: str, func: Callable[..., Any], primals: tuple, has_aux: bool) -> tuple[Run, Callable[..., list[Tensor]]]:
    run = Run(name, func, tuple(range(len(primals))), primals, {}, has_aux)
    return run, run.linear()


def _as_tangents(run: Run, tangents: tuple) -> list[Tensor]:
    given, structure = flatten(tangents)
    _same_nesting(run.name, structure, run.structure, given)
    for t, x in zip(given, run.aliases):
        if t._array.shape != x._array.shape:
            raise RuntimeError(f"{run.name}: a tangent has shape {list(t.shape)}, but its primal {list(x.shape)}")
    return given


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of a function, and a function of tangents: the product with its Jacobian there; as ``torch.func.linearize``.

    Examples
    --------
    >>> import disttorch
    >>> value, push = disttorch.func.linearize(disttorch.exp, disttorch.zeros(2))
    >>> push(disttorch.tensor([1.0, 3.0]))
    tensor([1., 3.])
    """
    if not primals:
        raise RuntimeError("linearize: expected at least one primal")
    run, push = _linearized("linearize", func, primals, False)

    def jvp_fn(*tangents: Any) -> Any:
        return run.nested(push(_as_tangents(run, tangents)))

    return run.values, jvp_fn
