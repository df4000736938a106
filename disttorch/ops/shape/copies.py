"""Views taken as copies (``*_copy``), and put back into a copy of what they were taken of (``*_scatter``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.variable import Tensor
from ..dims import normal_dim
from . import splitting, strided, views

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = """
    alias_copy as_strided_copy detach_copy diagonal_copy expand_copy permute_copy select_copy slice_copy
    split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy
    view_as_complex_copy view_as_real_copy view_copy
"""
BOTH = "as_strided_scatter diagonal_scatter narrow_copy select_scatter slice_scatter"
OUT = """
    alias_copy as_strided_copy as_strided_scatter detach_copy diagonal_copy diagonal_scatter expand_copy narrow_copy
    permute_copy select_copy select_scatter slice_copy slice_scatter split_copy split_with_sizes_copy squeeze_copy t_copy
    transpose_copy unbind_copy unfold_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy
"""


def slice_of(input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """A view of ``input[start:end:step]`` along a dimension."""
    if not input.ndim:
        raise RuntimeError("slice() cannot be applied to a 0-dim tensor.")
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    return input[(slice(None),) * normal_dim(dim, input.ndim, "slice") + (slice(start, end, step),)]


def _copying(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    def function(input: Tensor, *args: Any, **options: Any) -> Any:
        taken = view(input, *args, **options)
        return tuple(x.clone() for x in taken) if isinstance(taken, tuple) else taken.clone()

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"A copy of what ``{name.removesuffix('_copy')}`` is a view of; as ``torch.{name}``."
    return function


def _narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    if dim >= max(input.ndim, 1):
        raise RuntimeError(f"narrow_copy: Expected dim < {input.ndim}, but got {dim}")
    return splitting.narrow(input, dim, start, length)


alias_copy = _copying("alias_copy", lambda x: x)
as_strided_copy = _copying("as_strided_copy", strided.as_strided)
detach_copy = _copying("detach_copy", lambda x: x.detach())
diagonal_copy = _copying("diagonal_copy", views.diagonal)
expand_copy = _copying("expand_copy", views.expand)
narrow_copy = _copying("narrow_copy", _narrow)
permute_copy = _copying("permute_copy", views.permute)
select_copy = _copying("select_copy", splitting.select)
slice_copy = _copying("slice_copy", slice_of)
split_copy = _copying("split_copy", splitting.split)
split_with_sizes_copy = _copying("split_with_sizes_copy", splitting.split_with_sizes)
squeeze_copy = _copying("squeeze_copy", views.squeeze)
t_copy = _copying("t_copy", views.t)
transpose_copy = _copying("transpose_copy", views.transpose)
unbind_copy = _copying("unbind_copy", splitting.unbind)
unfold_copy = _copying("unfold_copy", strided.unfold)
unsqueeze_copy = _copying("unsqueeze_copy", views.unsqueeze)
view_as_complex_copy = _copying("view_as_complex_copy", strided.view_as_complex)
view_as_real_copy = _copying("view_as_real_copy", strided.view_as_real)
view_copy = _copying("view_copy", strided.view)


# --- put back -------------------------------------------------------------------------------------------------------


def _scattering(name: str, view: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(input: Tensor, src: Tensor, *args: Any, **options: Any) -> Tensor:
        result = input.clone()
        part = view(result, *args, **options)
        if part._array.shape != src._array.shape:
            raise RuntimeError(
                f"{name}: expected src to have a size equal to the slice of self. src size = {list(src.shape)}, "
                f"slice size = {list(part.shape)}"
            )
        part.copy_(src)
        return result

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"A copy of `input` with `src` where ``{name.removesuffix('_scatter')}`` takes its view; as ``torch.{name}``."
    return function


as_strided_scatter = _scattering("as_strided_scatter", strided.as_strided)
diagonal_scatter = _scattering("diagonal_scatter", views.diagonal)
select_scatter = _scattering("select_scatter", splitting.select)
slice_scatter = _scattering("slice_scatter", slice_of)
