"""vmap: a function of one sample becomes one of many, computed at once.

Inside, tensors hide the dimension of the samples (backend/batched), and every operation takes it along: nothing is run once a
sample where an array expression exists. Gradients inside are each sample's own; of what is outside, the sum over the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..autograd.batching import batch_tensor, unbatch_tensor
from ..autograd.variable import Tensor
from ..backend.batched import levels, new_level
from ..ops.shape import cat
from ..utils._pytree import Structure, flatten, flatten_prefix

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that maps `func` over a dimension of its arguments; as ``torch.func.vmap``.

    Parameters
    ----------
    func : callable
        Takes and returns tensors, or nested tuples, lists and dicts of them; sees one sample.
    in_dims : int, None or nested
        Which dimension of each positional argument to map over; None for what is the same for all samples. Nested like the
        arguments, or one for all that is nested below. Keyword arguments are the same for all.
    out_dims : int, None or nested
        Where the dimension of the samples shall be in the results.
    randomness : "error", "same" or "different"
        What random functions do: refuse, draw the same numbers for all samples, or others for each.
    chunk_size : int, optional
        How many samples are computed at once; all unless given.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If `in_dims`, `out_dims` do not fit the arguments and results, or sizes differ.
    RuntimeError
        Where a sample's values would decide what is computed (``if``, ``.item()``, bool masks as indices), and for random
        functions unless allowed.

    Examples
    --------
    >>> import disttorch
    >>> x, y = disttorch.ones(3, 5), disttorch.ones(3, 5)
    >>> disttorch.func.vmap(disttorch.dot)(x, y)
    tensor([5., 5., 5.])

    Gradients of each sample:

    >>> w = disttorch.tensor([1.0, 2.0])
    >>> samples = disttorch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> loss = lambda w, x: (w @ x) ** 2
    >>> disttorch.func.vmap(disttorch.func.grad(loss), in_dims=(None, 0))(w, samples)
    tensor([[ 2.,  0.],
            [ 0., 36.]])
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if not (chunk_size is None or chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure, dims, size = _arguments(func, in_dims, args)
        if chunk_size is None or chunk_size >= size:
            results, nested = _run(func, leaves, dims, size, structure, out_dims, randomness, kwargs)
            return nested(results)
        parts = []
        for start in range(0, size, chunk_size):
            count = min(chunk_size, size - start)
            some = [x if d is None else x.narrow(d, start, count) for x, d in zip(leaves, dims)]
            parts.append(_run(func, some, dims, count, structure, out_dims, randomness, kwargs))
        nested = parts[0][1]
        out = _out_dims(func, out_dims, nested)
        joined = [
            column[0] if d is None else cat(column, d) for d, column in zip(out, zip(*(results for results, _ in parts)))
        ]
        return nested(joined)

    return mapped


def _name(func: Any) -> str:
    return getattr(func, "__name__", repr(func))


def _arguments(func: Any, in_dims: Any, args: tuple) -> tuple[list[Any], Structure, list[int | None], int]:
    """The arguments' leaves, their nesting, and which dimension of each is mapped; how many samples there are."""
    where = f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>)"
    if not isinstance(in_dims, (int, list, tuple)) and in_dims is not None:
        raise ValueError(
            f"{where}: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"{where}: got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a function with no inputs."
        )
    leaves, structure = flatten(args)
    found = flatten_prefix(in_dims, structure)
    if found is None:
        raise ValueError(
            f"{where}: in_dims is not compatible with the structure of inputs. in_dims has {in_dims!r} but inputs have {structure!r}."
        )
    dims: list[int | None] = []
    sizes = []
    for x, d in zip(leaves, found):
        if d is None:
            dims.append(None)
            continue
        if not isinstance(d, int):
            raise ValueError(f"{where}: Got in_dim={d} for an input but in_dim must be either an integer dimension or None.")
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{where}: Got in_dim={d} for an input but the input is of type {type(x).__name__}. We cannot vmap over non-Tensor "
                "arguments, please use None as the respective in_dim"
            )
        if not -x.ndim <= d < x.ndim:
            raise ValueError(
                f"{where}: Got in_dim={d} for some input, but that input is a Tensor of dimensionality {x.ndim} so expected in_dim to "
                f"satisfy -{x.ndim} <= in_dim < {x.ndim}."
            )
        dims.append(d % x.ndim)
        sizes.append(x._array.shape[d])
    if not sizes:
        raise ValueError(f"{where}: at least one input has to be mapped over, but in_dims is None for all")
    if len(set(sizes)) > 1:
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the mapped dimension"
        )
    if not sizes[0]:
        raise ValueError(f"{where}: the mapped dimension has size 0, so the results' shapes are unknown")
    return leaves, structure, dims, sizes[0]


def _out_dims(func: Any, out_dims: Any, nested: Structure) -> list[int | None]:
    # one tensor returned, and one dimension given as a tuple
    found = flatten_prefix(out_dims[0] if isinstance(out_dims, tuple) and len(out_dims) == 1 and nested.count == 1 else out_dims, nested)
    if found is None or any(d is not None and not isinstance(d, int) for d in found):
        raise ValueError(
            f"vmap({_name(func)}, ..., out_dims={out_dims}): out_dims is not compatible with the structure of outputs. out_dims has "
            f"{out_dims!r} but outputs have {nested!r}."
        )
    return found


def _run(
    func: Any, leaves: list[Any], dims: list[int | None], size: int, structure: Structure, out_dims: Any, randomness: str, kwargs: dict
) -> tuple[list[Tensor], Structure]:
    level = new_level(size, randomness)
    outer = levels.set((*levels.get(), level))
    try:
        samples = [x if d is None else batch_tensor(x, d, level.number) for x, d in zip(leaves, dims)]
        results, nested = flatten(func(*structure(samples), **kwargs))
    finally:
        levels.reset(outer)
    finished = []
    for result, d in zip(results, _out_dims(func, out_dims, nested)):
        if not isinstance(result, Tensor):
            raise ValueError(
                f"vmap({_name(func)}, ...): `{_name(func)}` must only return Tensors, got type {type(result).__name__}"
            )
        finished.append(_leave(func, result, d, level.number, size))
    return finished, nested


def _leave(func: Any, result: Tensor, d: int | None, level: int, size: int) -> Tensor:
    if d is None:
        inside = result._array
        while hasattr(inside, "level"):
            if inside.level == level:
                raise ValueError(
                    f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is None: the result differs "
                    "between samples"
                )
            inside = inside.value
        return result
    ndim = result._array.ndim + 1
    if not -ndim <= d < ndim:
        raise IndexError(
            f"vmap({_name(func)}, ...): out_dim {d} is out of range for a result of {ndim} dimensions, the samples' among them"
        )
    return unbatch_tensor(result, d % ndim, level, size)
