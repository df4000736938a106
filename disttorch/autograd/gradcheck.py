"""gradcheck and gradgradcheck: derivatives against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backend import cpu, namespace
from ..backend.dtypes import DTYPES
from .differentiate import grad
from .grad_mode import enable_grad
from .variable import Tensor, wrap

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """A derivative that does not agree with finite differences."""


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _differentiable(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor) and v._node is not None]


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """Compare the gradients of a function with central finite differences; as ``torch.autograd.gradcheck``.

    Parameters
    ----------
    func : callable
        Takes tensors, returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple
        Those that ask for a gradient should be float64: with less precision the differences are mostly rounding.
    eps : float
        Half the distance of the points between which the slope is taken.
    atol, rtol : float
        Tolerances: ``|analytical - numerical| <= atol + rtol * |numerical|``.
    raise_exception : bool
        Raise instead of returning False.
    nondet_tol : float
        How much the gradient may change between two backward passes.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        With the input, the output and both Jacobians.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.randn(3, dtype=disttorch.float64, requires_grad=True)
    >>> disttorch.autograd.gradcheck(lambda x: x.exp(), x)
    True
    """
    try:
        _check(func, _as_tuple(inputs), eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(func: Callable, inputs: tuple, eps: float, atol: float, rtol: float, nondet_tol: float) -> None:
    sources = _differentiable(inputs)
    if not sources:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True.")
    for i, s in enumerate(sources):
        if DTYPES[s._array.dtype].itemsize < 8:
            raise ValueError(f"gradcheck: input {i} is {DTYPES[s._array.dtype]}; finite differences need float64")
    with enable_grad():
        outputs = _differentiable(_as_tuple(func(*inputs)))
    if not outputs:
        raise GradcheckError("gradcheck: no result of the function requires a gradient, though an input does")
    for o, output in enumerate(outputs):
        analytical = _jacobian(output, sources)
        again = _jacobian(output, sources)
        for i, source in enumerate(sources):
            if float(abs(analytical[i] - again[i]).max(initial=0)) > nondet_tol:
                raise GradcheckError(
                    f"gradcheck: backward is not reentrant for output {o} and input {i}: two passes gave different gradients"
                )
            numerical = _slopes(func, inputs, source, o, eps)
            if not cpu.all(abs(analytical[i] - numerical) <= atol + rtol * abs(numerical)):
                raise GradcheckError(
                    f"Jacobian mismatch for output {o} with respect to input {i},\nnumerical:\n{numerical}\nanalytical:\n{analytical[i]}\n"
                )


def _jacobian(output: Tensor, sources: list[Tensor]) -> list[Any]:
    """d output / d source for each source, (source size, output size), by backward."""
    xp = namespace(output._array)
    columns: list[list[Any]] = [[] for _ in sources]
    for k in range(output._array.size):
        start = xp.zeros(output._array.shape, output._array.dtype)
        start.reshape(-1)[k] = 1
        gradients = grad(output, sources, wrap(start), retain_graph=True, allow_unused=True)
        for column, g, s in zip(columns, gradients, sources):
            column.append(
                cpu.zeros(s._array.size) if g is None else namespace(g._array).to_host(g._array).reshape(-1).astype(float)
            )
    return [cpu.stack(c, axis=1) if c else cpu.zeros((s._array.size, 0)) for c, s in zip(columns, sources)]


def _slopes(func: Callable, inputs: tuple, source: Tensor, number: int, eps: float) -> Any:
    """The same by central differences."""
    a = source._array
    if not a.flags.c_contiguous:
        raise ValueError(f"gradcheck: inputs must be contiguous; one of shape {list(a.shape)} is not")
    flat = a.reshape(-1)
    rows = []
    with enable_grad():  # the function may itself ask for gradients
        for k in range(a.size):
            before = flat[k].item()
            ends = []
            for step in (eps, -eps):
                flat[k] = before + step
                array = _differentiable(_as_tuple(func(*inputs)))[number]._array
                ends.append(namespace(array).to_host(array).reshape(-1).astype(float))
            flat[k] = before
            rows.append((ends[0] - ends[1]) / (2 * eps))
    return cpu.stack(rows, axis=0) if rows else cpu.zeros((0, _differentiable(_as_tuple(func(*inputs)))[number]._array.size))


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """Compare second derivatives with finite differences of the first; as ``torch.autograd.gradgradcheck``.

    Parameters
    ----------
    func, inputs, eps, atol, rtol, raise_exception, nondet_tol
        As in `gradcheck`.
    grad_outputs : Tensor or tuple, optional
        Gradients of the results; random unless given.
    """
    given = _as_tuple(inputs)
    with enable_grad():
        outputs = _differentiable(_as_tuple(func(*given)))
    if grad_outputs is None:
        source = cpu.random(0)
        starts = []
        for o in outputs:
            xp = namespace(o._array)
            start = wrap(xp.from_host(source.standard_normal(o._array.shape).astype(o._array.dtype)))
            starts.append(start.requires_grad_())
    else:
        starts = list(_as_tuple(grad_outputs))
    count = len(given)

    def first_derivative(*arguments: Any) -> tuple:
        inner, gradients = arguments[:count], arguments[count:]
        with enable_grad():
            sources = _differentiable(inner)
            results = _differentiable(_as_tuple(func(*inner)))
            # inputs that the function is linear in have no second derivative
            found = grad(results, sources, gradients, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        first_derivative,
        (*given, *starts),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
    )
