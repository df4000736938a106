"""Whole Jacobians and Hessians: all rows, or all columns, at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..autograd.several_devices import computes_with_arrays
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES
from ..utils._pytree import flatten
from .transforms import Run
from .vmap import vmap

__all__ = ["hessian", "jacfwd", "jacrev"]


@computes_with_arrays
def _basis(like: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor (n, *shape), where n counts the elements of all of them: the unit vectors of the space of all."""
    total = sum(x.numel() for x in like)
    start = 0
    basis = []
    for x in like:
        xp = NAMESPACES[x._array.__class__]
        size = x._array.size
        block = xp.eye_of((total, max(size, 1)), x._array.dtype)
        if start:
            block = xp.roll(block, start, 0)
            block = xp.tril(block, -start)
        block = xp.reshape(block[:, :size], (total, *x._array.shape))
        basis.append(wrap(block))
        start += size
    return basis


def jacrev(
    func: Callable[..., Any],
    argnums: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `func`, row by row in reverse mode; as ``torch.func.jacrev``.

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int
        Which arguments to differentiate by.
    has_aux : bool
        Whether `func` returns (value, anything else).
    chunk_size : int, optional
        How many rows are computed at once; all unless given.

    Returns
    -------
    callable
        Returns, for each result of `func` and each argument, a tensor of shape ``(*result.shape, *argument.shape)``, nested
        like the results and inside of that like the arguments.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.func.jacrev(disttorch.sin)(disttorch.zeros(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @wraps(func)
    def function(*args: Any, **kwargs: Any) -> Any:
        run = Run("jacrev", func, argnums, args, kwargs, has_aux)

        def row(*cotangents: Tensor) -> Any:
            return flatten(run.pull_back(list(cotangents)))[0]

        rows = _mapped(row, _basis(run.outputs), chunk_size, "error", run.aliases)
        result = run.nested(
            [
                run.structure([_part(r, run.outputs, i).reshape((*o.shape, *a.shape)) for r, a in zip(rows, run.aliases)])
                for i, o in enumerate(run.outputs)
            ]
        )
        return (result, run.aux) if has_aux else result

    return function


def _mapped(function: Callable, basis: list[Tensor], chunk_size: int | None, randomness: str, empty: Sequence[Tensor]) -> list[Tensor]:
    if basis and basis[0].shape[0]:
        return vmap(function, randomness=randomness, chunk_size=chunk_size)(*basis)
    return [_without_rows(e) for e in empty]


@computes_with_arrays
def _without_rows(x: Tensor) -> Tensor:
    return wrap(NAMESPACES[x._array.__class__].zeros((0, *x._array.shape), x._array.dtype))


def _part(rows: Tensor, like: Sequence[Tensor], i: int) -> Tensor:
    """Those of the rows, for all elements of some tensors, that belong to tensor number i."""
    sizes = [x.numel() for x in like]
    return rows if len(like) == 1 else rows.narrow(0, sum(sizes[:i]), sizes[i])


def jacfwd(
    func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `func`, column by column in forward mode; as ``torch.func.jacfwd``.

    Parameters
    ----------
    func, argnums, has_aux
        As in `jacrev`.
    randomness : "error", "same" or "different"
        As in `vmap`.

    Returns
    -------
    callable
        As `jacrev` does; better where there are more results than arguments.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.func.jacfwd(lambda x: (x**2).sum())(disttorch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """

    @wraps(func)
    def function(*args: Any, **kwargs: Any) -> Any:
        run = Run("jacfwd", func, argnums, args, kwargs, has_aux)
        push = run.linear()
        columns = _mapped(lambda *tangents: push(tangents), _basis(run.aliases), None, randomness, run.outputs)
        results = []
        for o, column in zip(run.outputs, columns):
            per_argument = []
            for i, a in enumerate(run.aliases):
                turned = _part(column, run.aliases, i).movedim(0, -1)
                per_argument.append(turned.reshape((*o.shape, *a.shape)))
            results.append(run.structure(per_argument))
        result = run.nested(results)
        return (result, run.aux) if has_aux else result

    return function


def hessian(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """A function that returns the Hessian of `func`, forward over reverse; as ``torch.func.hessian``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.func.hessian(lambda x: (x**3).sum())(disttorch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)
