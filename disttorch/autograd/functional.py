"""Jacobians, Hessians and their products with vectors; as ``torch.autograd.functional``.

`func` (``torch.func``) is the newer face of the same; there functions come out, here values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backend import NAMESPACES
from .differentiate import grad
from .forward_ad import alias_of, leaf_on, push_forward
from .grad_mode import enable_grad
from .node import AccumulateGrad
from .several_devices import computes_with_arrays
from .variable import Tensor, wrap

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _as_tuple(value: Any, name: str, what: str) -> tuple[bool, tuple[Tensor, ...]]:
    """Whether it was a tuple, and as one."""
    values = (value,) if not isinstance(value, (tuple, list)) else tuple(value)
    for i, v in enumerate(values):
        if not isinstance(v, Tensor):
            where = "" if not isinstance(value, (tuple, list)) else f" at index {i}"
            raise TypeError(
                f"The {what} given to {name} must be either a Tensor or a tuple of Tensors but the given {what}{where} has type {type(v)}."
            )
    return isinstance(value, (tuple, list)), values


def _prepared(inputs: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    """What the function is called with and differentiated by."""
    return [alias_of(x) if create_graph and x._node is not None else leaf_on(x._array) for x in inputs]


def _call(name: str, func: Callable, given: Any, create_graph: bool) -> tuple[bool, list[Tensor], bool, tuple[Tensor, ...]]:
    were_tuple, inputs = _as_tuple(given, name, "inputs")
    sources = _prepared(inputs, create_graph)
    returned = func(*sources)
    was_tuple, outputs = _as_tuple(returned, name, "outputs of the user-provided function")
    return were_tuple, sources, was_tuple, outputs


def _check_outputs(outputs: Sequence[Tensor], sources: Sequence[Tensor], strict: bool) -> None:
    if not strict:
        return
    for i, o in enumerate(outputs):
        if o._node is None:
            raise RuntimeError(
                f"Output {i} of the user-provided function does not require gradients. The outputs must be computed in a differentiable "
                "manner from the input when running in strict mode."
            )


@computes_with_arrays
def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return wrap(NAMESPACES[like._array.__class__].zeros(shape, like._array.dtype))


def _finish(value: Tensor, create_graph: bool) -> Tensor:
    return value if create_graph else value.detach()


def _shaped(values: Sequence[Any], was_tuple: bool) -> Any:
    return tuple(values) if was_tuple else values[0]


def _checked_vectors(name: str, v: Any, like: Sequence[Tensor], like_is_tuple: bool, of_what: str) -> tuple[Tensor | None, ...]:
    if v is None:
        if len(like) != 1 or like[0]._array.size != 1:
            raise RuntimeError(f"The vector v can only be None if {of_what} is a single Tensor with a single element.")
        return (wrap(NAMESPACES[like[0]._array.__class__].ones_like(like[0]._array)),)
    _, vectors = _as_tuple(v, name, "v")
    if len(vectors) != len(like):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got {len(vectors)}.")
    for i, (one, other) in enumerate(zip(vectors, like)):
        if one._array.shape != other._array.shape:
            where = f"Entry {i} in v" if like_is_tuple else "v"
            raise RuntimeError(f"{where} has invalid size: should be {other.shape} but got {one.shape}.")
    return vectors


def _gradients(
    outputs: Sequence[Tensor], sources: Sequence[Tensor], vectors: Sequence[Any], create_graph: bool, batched: bool = False
) -> list[Tensor | None]:
    pairs = [(o, v) for o, v in zip(outputs, vectors) if o._node is not None]
    if not pairs:
        return [None] * len(sources)
    return list(
        grad(
            [o for o, _ in pairs], sources, [v for _, v in pairs], retain_graph=True, create_graph=create_graph, allow_unused=True,
            is_grads_batched=batched,
        )
    )  # fmt: skip


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of a function; as ``torch.autograd.functional.jacobian``.

    Parameters
    ----------
    func : callable
        Takes tensors, returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple of Tensor
    create_graph : bool
        Record the computation, for derivatives of the result.
    strict : bool
        Whether a result that does not depend on an input is an error, not zeros.
    vectorize : bool
        Whether all rows, or columns, are computed at once.
    strategy : "reverse-mode" or "forward-mode"
        By rows, or (with `vectorize`) by columns.

    Returns
    -------
    Tensor or tuple
        Of shape (*output.shape, *input.shape); for several outputs, inputs or both a tuple, or a tuple of tuples, of
        which the first index is the output.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.autograd.functional.jacobian(lambda x: x**2, disttorch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs than inputs, '
            '"forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode" and create_graph:
        raise NotImplementedError(
            'autograd.functional.jacobian: `create_graph=True` and `strategy="forward-mode"` are not supported together (yet). Please '
            'either set `create_graph=False` or `strategy="reverse-mode"`.'
        )
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError(
            "Computing Jacobian using forward-AD or forward-over-reverse Hessian is only implemented for `vectorize=True`."
        )
    if strict and vectorize:
        raise RuntimeError(
            "autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together. Please either set "
            "`strict=False` or `vectorize=False`."
        )
    with enable_grad():
        were_tuple, sources, was_tuple, outputs = _call("jacobian", func, inputs, create_graph)
        _check_outputs(outputs, sources, strict)
        if strategy == "forward-mode":
            blocks = _columns(outputs, sources)
        else:
            blocks = [_rows(o, i, sources, create_graph, strict, vectorize) for i, o in enumerate(outputs)]
    return _shaped([_shaped([_finish(b, create_graph) for b in row], were_tuple) for row in blocks], was_tuple)


@computes_with_arrays
def _unit_vectors(x: Tensor) -> Tensor:
    xp = NAMESPACES[x._array.__class__]
    n = x._array.size
    return wrap(xp.reshape(xp.eye_of((n, n), x._array.dtype), (n, *x._array.shape)))


def _rows(output: Tensor, number: int, sources: list[Tensor], create_graph: bool, strict: bool, vectorize: bool) -> list[Tensor]:
    """The blocks of one output, one for each input."""
    n = output._array.size
    units = _unit_vectors(output)
    if vectorize and n:
        rows = _gradients([output], sources, [units], create_graph, batched=True)
        return [
            _zeros((*output.shape, *s.shape), s) if r is None else r.reshape((*output.shape, *s.shape)) for r, s in zip(rows, sources)
        ]
    per_row = [_gradients([output], sources, [units[k]], create_graph) for k in range(n)]
    blocks = []
    for i, s in enumerate(sources):
        parts = []
        for row in per_row:
            g = row[i]
            if g is None and strict:
                raise RuntimeError(
                    f"Output {number} of the user-provided function is independent of input {i}. This is not allowed in strict mode."
                )
            if g is not None and strict and create_graph and g._node is None:
                raise RuntimeError(
                    f"The jacobian of the user-provided function is independent of input {i}. This is not allowed in strict mode when "
                    "create_graph=True."
                )
            parts.append(_zeros(s.shape, s) if g is None else g)
        shape = (*output.shape, *s.shape)
        blocks.append(NAMESPACES[Tensor].stack(parts, 0).reshape(shape) if parts else _zeros(shape, s))
    return blocks


def _columns(outputs: Sequence[Tensor], sources: list[Tensor]) -> list[list[Tensor]]:
    """All blocks by forward mode: for each input the columns of all outputs at once."""
    asking = [o for o in outputs if o._node is not None]
    probes = [leaf_on(NAMESPACES[o._array.__class__].zeros_like(o._array)) for o in asking]
    pulled = grad(asking, sources, probes, create_graph=True, allow_unused=True) if asking else [None] * len(sources)
    blocks: list[list[Tensor]] = [[] for _ in outputs]
    for s, g in zip(sources, pulled):
        columns: Sequence[Tensor | None] = [None] * len(probes)
        if g is not None and g._node is not None and s._array.size:
            columns = grad([g], probes, [_unit_vectors(s)], retain_graph=True, allow_unused=True, is_grads_batched=True)
        known = iter(columns)
        for row, o in zip(blocks, outputs):
            column = next(known) if o._node is not None else None
            shape = (*o.shape, *s.shape)
            row.append(_zeros(shape, o) if column is None else column.movedim(0, -1).reshape(shape))
    return blocks


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function that returns one element; as ``torch.autograd.functional.hessian``.

    Parameters
    ----------
    func, inputs, create_graph, strict, vectorize
        As in `jacobian`.
    outer_jacobian_strategy : "reverse-mode" or "forward-mode"
        How the Jacobian of the gradient is computed.

    Returns
    -------
    Tensor, or tuple of tuples
        Of shape (*input.shape, *other_input.shape).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.autograd.functional.hessian(lambda x: (x**3).sum(), disttorch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    were_tuple, values = _as_tuple(inputs, "hessian", "inputs")
    if outer_jacobian_strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')

    def gradient(*sources: Tensor) -> tuple[Tensor, ...]:
        returned = func(*sources)
        was_tuple, outputs = _as_tuple(returned, "hessian", "outputs of the user-provided function")
        if was_tuple or outputs[0]._array.size != 1:
            if was_tuple:
                raise RuntimeError("The function given to hessian should return a single Tensor")
            raise RuntimeError("The Tensor returned by the function given to hessian should contain a single element")
        _check_outputs(outputs, sources, strict)
        found = _gradients([outputs[0].reshape(())], sources, [None], create_graph=True)
        for i, g in enumerate(found):
            if strict and g is None:
                raise RuntimeError(
                    f"Output 0 of the user-provided function is independent of input {i}. This is not allowed in strict mode."
                )
            if strict and g is not None and g._node is None:
                raise RuntimeError(
                    f"While computing the hessian, found that the jacobian of the user-provided function with respect to input {i} is "
                    "independent of the input. This is not allowed in strict mode. You should ensure that your function is twice "
                    "differentiable and that the jacobian depends on the inputs (this would be violated by a linear function for example)."
                )
        return tuple(_zeros(s.shape, s) if g is None else g for g, s in zip(found, sources))

    blocks = jacobian(gradient, values, create_graph, strict, vectorize, outer_jacobian_strategy)
    return blocks if were_tuple else blocks[0][0]


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The value, and the product of a vector with the Jacobian; as ``torch.autograd.functional.vjp``.

    Parameters
    ----------
    func, inputs, create_graph, strict
        As in `jacobian`.
    v : Tensor or tuple of Tensor, optional
        Shaped like the outputs; may be absent if there is one element.

    Returns
    -------
    value, product
        The product is shaped like the inputs.
    """
    with enable_grad():
        were_tuple, sources, was_tuple, outputs = _call("vjp", func, inputs, create_graph)
        _check_outputs(outputs, sources, strict)
        vectors = _checked_vectors("vjp", v, outputs, was_tuple, "the user-provided function returns")
        found = _gradients(outputs, sources, vectors, create_graph)
    products = _filled(found, sources, strict, create_graph)
    return _shaped([_finish(o, create_graph) for o in outputs], was_tuple), _shaped(products, were_tuple)


def _filled(found: Sequence[Tensor | None], like: Sequence[Tensor], strict: bool, create_graph: bool) -> list[Tensor]:
    products = []
    for i, (g, s) in enumerate(zip(found, like)):
        if g is None and strict:
            raise RuntimeError(f"The output of the user-provided function is independent of input {i}. This is not allowed in strict mode.")
        products.append(_zeros(s.shape, s) if g is None else _finish(g, create_graph))
    return products


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The value, and the product of the Jacobian with a vector; as ``torch.autograd.functional.jvp``.

    Parameters
    ----------
    func, inputs, create_graph, strict
        As in `jacobian`.
    v : Tensor or tuple of Tensor, optional
        Shaped like the inputs; may be absent if there is one element.

    Returns
    -------
    value, product
        The product is shaped like the outputs.
    """
    with enable_grad():
        were_tuple, values = _as_tuple(inputs, "jvp", "inputs")
        vectors = _checked_vectors("jvp", v, values, were_tuple, "the input to the user-provided function")
        _, sources, was_tuple, outputs = _call("jvp", func, inputs, create_graph)
        _check_outputs(outputs, sources, strict)
        own = [s._node for s in sources if s._node is not None and s._node.__class__ is AccumulateGrad]
        pushed = push_forward(outputs, sources, own)(vectors, create_graph)
    products = [_zeros(o.shape, o) if t is None else _finish(t, create_graph) for t, o in zip(pushed, outputs)]
    return _shaped([_finish(o, create_graph) for o in outputs], was_tuple), _shaped(products, was_tuple)


def _of_hessian(name: str, func: Callable, inputs: Any, v: Any, create_graph: bool, strict: bool, forward: bool) -> tuple[Any, Any]:
    with enable_grad():
        were_tuple, values = _as_tuple(inputs, name, "inputs")
        vectors = _checked_vectors(name, v, values, were_tuple, "the input to the user-provided function")
        _, sources, was_tuple, outputs = _call(name, func, inputs, create_graph)
        if was_tuple:
            raise RuntimeError(f"The function given to {name} should return a single Tensor")
        if outputs[0]._array.size != 1:
            raise RuntimeError(f"The Tensor returned by the function given to {name} should contain a single element")
        _check_outputs(outputs, sources, strict)
        found = _gradients([outputs[0].reshape(())], sources, [None], create_graph=True)
        pairs = [(g, t) for g, t in zip(found, vectors) if g is not None and g._node is not None]
        if strict and len(pairs) < len(sources):
            i = next(k for k, g in enumerate(found) if g is None or g._node is None)
            raise RuntimeError(
                f"While computing the hessian, found that the jacobian of the user-provided function with respect to input {i} is "
                "independent of the input. This is not allowed in strict mode."
            )
        products: Sequence[Tensor | None] = [None] * len(sources)
        if pairs and not forward:
            products = grad(
                [g for g, _ in pairs], sources, [t for _, t in pairs], retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        elif pairs:
            own = [s._node for s in sources if s._node is not None and s._node.__class__ is AccumulateGrad]
            known = [g if g is not None else _zeros(s.shape, s) for g, s in zip(found, sources)]
            products = push_forward(known, sources, own)(vectors, create_graph)
    return _finish(outputs[0], create_graph), _shaped(_filled(products, sources, strict, create_graph), were_tuple)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The value, and the product of a vector with the Hessian; as ``torch.autograd.functional.vhp``."""
    return _of_hessian("vhp", func, inputs, v, create_graph, strict, forward=False)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The value, and the product of the Hessian with a vector; as ``torch.autograd.functional.hvp``.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([1.0, 2.0])
    >>> disttorch.autograd.functional.hvp(lambda x: (x**3).sum(), x, disttorch.ones(2))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _of_hessian("hvp", func, inputs, v, create_graph, strict, forward=True)
