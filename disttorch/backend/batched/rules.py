"""The families of functions, and what each does with the hidden dimension.

A family is a function of the world and a name that makes the batched function: ``RULES[name](world, name)``. Where values
come from inside of batched arrays, `values` hide their samples in dimension 0 if `hides` says so. What is in no family and no
plain kernel is computed sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .array import BatchedArray

__all__ = ["RULES", "Module", "sample_by_sample"]


def _dims(axis: Any) -> Any:
    """Dimensions that the program names, behind the hidden one."""
    if axis is None:
        return None
    if isinstance(axis, (tuple, list)):
        return tuple(_dims(a) for a in axis)
    return axis + 1 if axis >= 0 else axis


def _padded_to(value: Any, ndim: int) -> Any:
    """(samples, *shape) with dimensions of size 1 behind the samples, until the program sees `ndim`."""
    missing = ndim - (value.ndim - 1)
    return value.reshape((value.shape[0],) + (1,) * missing + value.shape[1:]) if missing > 0 else value


def _spread(world: Any, value: Any, hidden: bool, size: int) -> Any:
    """A value with a dimension of samples, also where it is the same for all."""
    return value if hidden else world.world_of(value).broadcast_to(value, (size, *value.shape))


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "ndim")


def sample_by_sample(world: Any, name: str, find: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """The function of each sample in turn, and the results side by side."""
    find = find or (lambda inner: getattr(inner, name))

    def function(*args: Any, **kwargs: Any) -> Any:
        flat, rebuild = _flatten((args, kwargs))
        level, size, values, hides = world.split(flat)
        if not level:
            plain_args, plain_kwargs = rebuild(values)
            return world.make(find(world.world_of(*values))(*plain_args, **plain_kwargs), 0)
        results = []
        for i in range(size):
            some_args, some_kwargs = rebuild([v[i] if h else v for v, h in zip(values, hides)])
            one = [v[i] if h else v for v, h in zip(values, hides)]
            results.append(find(world.world_of(*one))(*some_args, **some_kwargs))
        return _side_by_side(world, results, level)

    return function


def _flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """What stands in nested tuples, lists and dicts, and a function that puts others in their places."""
    leaves: list[Any] = []

    def walk(node: Any) -> Callable[[list[Any]], Any]:
        if isinstance(node, (tuple, list)):
            parts = [walk(n) for n in node]
            kind = type(node) if type(node) in (tuple, list) else tuple
            return lambda values: kind([p(values) for p in parts])
        if isinstance(node, dict):
            named = {k: walk(n) for k, n in node.items()}
            return lambda values: {k: p(values) for k, p in named.items()}
        number = len(leaves)
        leaves.append(node)
        return lambda values: values[number]

    return leaves, walk(tree)


def _side_by_side(world: Any, results: list[Any], level: int) -> Any:
    first = results[0]
    if isinstance(first, tuple):
        parts = [_side_by_side(world, [r[i] for r in results], level) for i in range(len(first))]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if not hasattr(first, "dtype"):
        if any(r != first for r in results):
            raise RuntimeError("vmap: a result that is no tensor differs between samples")
        return first
    inner = world.world_of(*results)
    arrays = [r if isinstance(r, BatchedArray) else world.base.asarray(r) for r in results]
    if len({tuple(a.shape) for a in arrays}) > 1:
        raise RuntimeError(
            f"vmap: the result's shape differs between samples: {sorted({tuple(a.shape) for a in arrays})}; no tensor can hold that"
        )
    return world.make(inner.stack(arrays, axis=0), level)


# --- elementwise -----------------------------------------------------------------------------------------------------


def _elementwise(world: Any, name: str) -> Callable[..., Any]:
    """All arrays broadcast against each other."""

    def function(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        names = list(kwargs)
        level, size, values, hides = world.split((*args, *kwargs.values()))
        if level:
            ndim = max([getattr(v, "ndim", 0) - h for v, h in zip(values, hides)])
            values = [_padded_to(v, ndim) if h else v for v, h in zip(values, hides)]
        called = getattr(world.world_of(*values), name)
        count = len(args)
        result = world.make(called(*values[:count], **dict(zip(names, values[count:]))), level)
        if out is not None:
            world.copyto(out, result)
            return out
        return result

    return function


_ELEMENTWISE = """
    abs absolute add angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor cbrt ceil clip
    conjugate copysign cos cosh deg2rad divide equal erf erfc exp exp2 expm1 float_power floor floor_divide fmax fmin fmod frac frexp
    gcd gelu gelu_backward greater greater_equal heaviside hypot integer_power invert isfinite isinf isnan isneginf isposinf lcm ldexp
    left_shift less less_equal log log10 log1p log2 log_add_exp logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
    logit maximum minimum multiply nan_to_num negative nextafter not_equal positive power rad2deg reciprocal relu remainder
    replace_nonfinite right_shift rint round sgn sigmoid sign signbit silu sin sinc sinh softplus sqrt square subtract tan tanh
    to_complex trunc where xlog1py xlogy
"""


# --- along dimensions -------------------------------------------------------------------------------------------------


def _reduction(world: Any, name: str) -> Callable[..., Any]:
    """``f(a, axis=None, ...)``: over some dimensions or all."""

    def function(a: Any, axis: Any = None, *rest: Any, **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if level:
            ndim = value.ndim - 1
            axis = () if not ndim else tuple(range(1, ndim + 1)) if axis is None else _dims(axis)
        result = world.make(getattr(world.world_of(value), name)(value, axis, *rest, **options), level)
        if level and not result.ndim and name in _ACROSS:
            result.across = name
        return result

    return function


_ACROSS = ("any", "all", "min", "max", "amin", "amax")


def _arg_extreme(world: Any, name: str) -> Callable[..., Any]:
    """``f(a, axis=None, keepdims=False)``, one dimension or the flattened array."""

    def function(a: Any, axis: int | None = None, out: Any = None, keepdims: bool = False) -> Any:
        level, size, (value,), _ = world.split((a,))
        found = getattr(world.world_of(value), name)
        if not level:
            return world.make(found(value, axis, keepdims=keepdims), 0)
        ndim = value.ndim - 1
        if axis is None or not ndim:
            result = found(value.reshape((size, -1)), 1)
            return world.make(result.reshape((size,) + (1,) * ndim) if keepdims else result, level)
        return world.make(found(value, _dims(axis), keepdims=keepdims), level)

    return function


def _with_axis(arrays: int, at: int, default: Any = -1, axis_name: str = "axis") -> Callable[[Any, str], Callable[..., Any]]:
    """Functions of some arrays of one shape, then other arguments, of which number `at` is the dimension."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            level, size, values, hides = world.split((*args, *options.values()))
            found = getattr(world.world_of(*values), name)
            if not level:
                return world.make(found(*values[: len(args)], **dict(zip(options, values[len(args) :]))), 0)
            values = list(values[: len(args)])
            named = axis_name in options
            axis = options[axis_name] if named else args[at] if len(args) > at else default
            for i in range(arrays):
                values[i] = _spread(world, values[i], hides[i], size)
            ndim = values[0].ndim - 1
            flat = axis is None or not ndim
            if flat:
                values[:arrays] = [v.reshape((size, -1)) for v in values[:arrays]]
            shifted = 1 if flat else _dims(axis)
            if named or len(args) <= at:
                result = found(*values, **{**options, axis_name: shifted})
            else:
                values[at] = shifted
                result = found(*values, **options)
            if flat and not ndim:
                result = result.reshape((size,)) if result.size == size else result
            return world.make(result, level)

        return function

    return family


def _reshape(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shape: Any) -> Any:
        level, size, (value,), _ = world.split((a,))
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if level:
            if -1 in shape and not value.size:  # what is left of nothing cannot be inferred through the samples
                known = 1
                for n in shape:
                    known *= n if n != -1 else 1
                shape = tuple((a.size // known if known else 0) if n == -1 else n for n in shape)
            shape = (size, *shape)
        return world.make(world.world_of(value).reshape(value, shape), level)

    return function


def _broadcast_to(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shape: Any) -> Any:
        level, size, (value,), _ = world.split((a,))
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if level:
            value, shape = _padded_to(value, len(shape)), (size, *shape)
        return world.make(world.world_of(value).broadcast_to(value, shape), level)

    return function


def _broadcast_arrays(world: Any, name: str) -> Callable[..., Any]:
    def function(*arrays: Any) -> Any:
        ndim = max(a.ndim for a in arrays)
        shape = [1] * ndim
        for a in arrays:
            for i, n in enumerate(a.shape, ndim - a.ndim):
                shape[i] = n if shape[i] == 1 else shape[i]
        return tuple(world.broadcast_to(a, tuple(shape)) for a in arrays)

    return function


def _rearranged(arguments: Callable[..., tuple]) -> Callable[[Any, str], Callable[..., Any]]:
    """Functions of one array whose other arguments say dimensions: `arguments` says them for the array with its samples."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(a: Any, *args: Any, **options: Any) -> Any:
            level, _, (value,), _ = world.split((a,))
            if level:
                args, options = arguments(value.ndim - 1, *args, **options), {}
            return world.make(getattr(world.world_of(value), name)(value, *args, **options), level)

        return function

    return family


def _axes(axis: Any) -> tuple[int, ...]:
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)


def _new_dims(ndim: int, axis: Any) -> tuple:
    total = ndim + len(_axes(axis))
    return (tuple((a % total) + 1 for a in _axes(axis)),)


def _flat_or_dims(ndim: int, axis: Any = None) -> tuple:
    return (tuple(range(1, ndim + 1)) if axis is None else _dims(axis),)


def _pad(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, width: Any, mode: str = "constant", **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if level:
            if isinstance(width, int):
                width = ((width, width),) * (value.ndim - 1)
            elif not isinstance(width[0], (tuple, list)):
                width = (tuple(width),) * (value.ndim - 1)
            width = ((0, 0), *width)
        return world.make(world.world_of(value).pad(value, width, mode, **options), level)

    return function


def _joined(world: Any, name: str) -> Callable[..., Any]:
    """concatenate and stack."""

    def function(arrays: Any, axis: int = 0) -> Any:
        level, size, values, hides = world.split(arrays)
        if level:
            values = [_spread(world, v, h, size) for v, h in zip(values, hides)]
        return world.make(getattr(world.world_of(*values), name)(tuple(values), axis=_dims(axis) if level else axis), level)

    return function


def _roll(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shift: Any, axis: Any = None) -> Any:
        if axis is None:
            return world.reshape(world.roll(world.reshape(a, (-1,)), shift, 0), a.shape)
        level, _, (value,), _ = world.split((a,))
        return world.make(world.world_of(value).roll(value, shift, _dims(axis) if level else axis), level)

    return function


# --- copies, and arrays made anew -----------------------------------------------------------------------------------


def _copied(world: Any, name: str) -> Callable[..., Any]:
    """array, asarray, ascontiguousarray: ``f(a, dtype=None)``; of what is no array, an array for all samples."""

    def function(a: Any, dtype: Any = None, **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if dtype is not None:
            options["dtype"] = dtype
        return world.make(getattr(world.world_of(value), name)(value, **options), level)

    return function


def _made(world: Any, name: str) -> Callable[..., Any]:
    """zeros, arange and so on: the same for all samples."""

    def function(*args: Any, **options: Any) -> Any:
        level, _, values, _ = world.split((*args, *options.values()))
        if level:
            return sample_by_sample(world, name)(*args, **options)
        return world.make(getattr(world.base, name)(*values[: len(args)], **dict(zip(options, values[len(args) :]))), 0)

    return function


def _made_like(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, *args: Any, **options: Any) -> Any:
        level, _, (value, *values), _ = world.split((a, *args))
        return world.make(getattr(world.world_of(value), name)(value, *values, **options), level)

    return function


def _astype(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, dtype: a.astype(dtype)


def _copyto(world: Any, name: str) -> Callable[..., Any]:
    def copyto(target: Any, source: Any, casting: str = "same_kind") -> None:
        level, _, values, hides = world.split((target, source))
        if level and not hides[0]:
            raise RuntimeError(
                "vmap: a tensor that is the same for all samples cannot be changed in place to values that differ between them; use "
                "the operation that returns a new tensor"
            )
        to, value = values
        if hides[1]:
            value = _padded_to(value, to.ndim - 1)
        world.world_of(to, value).copyto(to, value, casting=casting)

    return copyto


# --- products --------------------------------------------------------------------------------------------------------


def _matmul(world: Any, name: str) -> Callable[..., Any]:
    def matmul(a: Any, b: Any) -> Any:
        level, size, (x, y), (x_hides, y_hides) = world.split((a, b))
        inner = world.world_of(x, y)
        if not level:
            return world.make(inner.matmul(x, y), 0)
        x_ndim, y_ndim = x.ndim - x_hides, y.ndim - y_hides
        if x_hides and not y_hides and y_ndim <= 2 and x_ndim >= 1:
            # the samples are more rows of one product
            return world.make(inner.matmul(x, y), level) if x_ndim > 1 or y_ndim == 2 else world.make(inner.matmul(x, y), level)
        if x_ndim == 1:
            x = x.reshape((*x.shape[:-1], 1, x.shape[-1]))
        if y_ndim == 1:
            y = y.reshape((*y.shape, 1))
        ndim = max(x_ndim, y_ndim, 2)
        x = _padded_to(x, ndim) if x_hides else x
        y = _padded_to(y, ndim) if y_hides else y
        result = inner.matmul(x, y)
        shape = result.shape
        if x_ndim == 1:
            shape = (*shape[:-2], shape[-1])
        if y_ndim == 1:
            shape = shape[:-1]
        return world.make(result if shape == result.shape else result.reshape(shape), level)

    return matmul


def _linear(world: Any, name: str) -> Callable[..., Any]:
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        level, _, values, hides = world.split((x, weight, bias))
        if level and (hides[1] or hides[2]):
            product = world.matmul(x, world.swapaxes(weight, 0, 1))
            return product if bias is None else product + bias
        return world.make(world.world_of(*values).linear(*values), level)

    return linear


def _einsum(world: Any, name: str) -> Callable[..., Any]:
    def einsum(subscripts: str, *arrays: Any, **options: Any) -> Any:
        level, _, values, hides = world.split(arrays)
        if level:
            letter = next(c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts)
            inputs, _, output = subscripts.replace(" ", "").partition("->")
            inputs = ",".join(letter + part if h else part for part, h in zip(inputs.split(","), hides))
            subscripts = f"{inputs}->{letter}{output}"
        return world.make(world.world_of(*values).einsum(subscripts, *values, **options), level)

    return einsum


def _tensordot(world: Any, name: str) -> Callable[..., Any]:
    def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
        if isinstance(axes, int):
            axes = (tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes)))
        left, right = ([d % x.ndim for d in _axes(side)] for x, side in zip((a, b), axes))
        free_a, free_b = ([d for d in range(x.ndim) if d not in side] for x, side in ((a, left), (b, right)))
        shape = tuple(a.shape[d] for d in free_a) + tuple(b.shape[d] for d in free_b)
        count = 1
        for d in left:
            count *= a.shape[d]
        rows = world.reshape(world.transpose(a, (*free_a, *left)), (-1 if count else _size(a, free_a), count))
        columns = world.reshape(world.transpose(b, (*right, *free_b)), (count, -1 if count else _size(b, free_b)))
        return world.reshape(world.matmul(rows, columns), shape)

    return tensordot


def _size(a: Any, dims: list[int]) -> int:
    n = 1
    for d in dims:
        n *= a.shape[d]
    return n


def _dot(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, b: world.sum(world.multiply(a, b)) if a.ndim == b.ndim == 1 else world.matmul(a, b)


def _outer(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, b: world.multiply(world.reshape(a, (-1, 1)), world.reshape(b, (1, -1)))


def _leading(world: Any, name: str) -> Callable[..., Any]:
    """Functions of matrices with any dimensions before them: samples are one more of those."""

    def function(*args: Any, **options: Any) -> Any:
        level, size, values, hides = world.split(args)
        if level:
            ndim = max([v.ndim - h for v, h in zip(values, hides) if _is_array(v)])
            values = [_padded_to(_spread(world, v, h, size), ndim) if _is_array(v) else v for v, h in zip(values, hides)]
        return world.make(getattr(world.world_of(*values), name)(*values, **options), level)

    return function


class Module:
    """The functions of ``xp.linalg`` and ``xp.fft``."""

    def __init__(self, world: Any, name: str):
        self._world, self._name = world, name

    def __getattr__(self, name: str) -> Any:
        inner = getattr(getattr(self._world.base, self._name), name)
        if isinstance(inner, type) or not callable(inner):
            return inner
        module = self._name
        found = sample_by_sample(self._world, name, lambda xp: getattr(getattr(xp, module), name))
        setattr(self, name, found)
        return found


# --- samples (N, C, *spatial) of convolutions and pools --------------------------------------------------------------


def _folded(arrays: int, shape_at: int | None = None) -> Callable[[Any, str], Callable[..., Any]]:
    """Functions that treat each of N alike: samples are more of them. Argument `shape_at` is the shape of a result."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            level, size, values, hides = world.split(args)
            if level:
                if any(hides[arrays:]):
                    return sample_by_sample(world, name)(*args, **options)
                for i in range(arrays):
                    spread = _spread(world, values[i], hides[i], size)
                    values[i] = spread.reshape((size * spread.shape[1], *spread.shape[2:]))
                if shape_at is not None:
                    values[shape_at] = (size * values[shape_at][0], *values[shape_at][1:])
            result = getattr(world.world_of(*values), name)(*values, **options)
            if level:
                result = _unfolded(result, size)
            return world.make(result, level)

        return function

    return family


def _unfolded(result: Any, size: int) -> Any:
    if isinstance(result, tuple):
        return tuple(_unfolded(r, size) for r in result)
    return result.reshape((size, result.shape[0] // size, *result.shape[1:])) if _is_array(result) else result


def _into_channels(world: Any, x: Any, hidden: bool, size: int) -> Any:
    """(N, samples * C, *spatial) of (samples, N, C, *spatial): each sample's channels are a group."""
    x = _spread(world, x, hidden, size)
    x = world.world_of(x).swapaxes(x, 0, 1)
    return x.reshape((x.shape[0], size * x.shape[2], *x.shape[3:]))


def _out_of_channels(world: Any, out: Any, size: int) -> Any:
    out = out.reshape((out.shape[0], size, out.shape[1] // size, *out.shape[2:]))
    return world.world_of(out).swapaxes(out, 0, 1)


def _convolution(world: Any, name: str) -> Callable[..., Any]:
    fold = _folded(1)(world, name)

    def convolution(x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        level, size, (a, w), (a_hides, w_hides) = world.split((x, weight))
        if not w_hides:
            return fold(x, weight, stride, padding, dilation, groups)
        out = world.world_of(a, w).convolution(
            _into_channels(world, a, a_hides, size), w.reshape((size * w.shape[1], *w.shape[2:])), stride, padding, dilation, groups * size
        )
        return world.make(_out_of_channels(world, out, size), level)

    return convolution


def _convolution_input(world: Any, name: str) -> Callable[..., Any]:
    fold = _folded(1, shape_at=2)(world, name)

    def convolution_input(
        g: Any, weight: Any, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        level, size, (a, w), (a_hides, w_hides) = world.split((g, weight))
        if not w_hides:
            return fold(g, weight, x_shape, stride, padding, dilation, groups)
        out = world.world_of(a, w).convolution_input(
            _into_channels(world, a, a_hides, size), w.reshape((size * w.shape[1], *w.shape[2:])),
            (x_shape[0], size * x_shape[1], *x_shape[2:]), stride, padding, dilation, groups * size,
        )  # fmt: skip
        return world.make(_out_of_channels(world, out, size), level)

    return convolution_input


def _convolution_weight(world: Any, name: str) -> Callable[..., Any]:
    def convolution_weight(
        g: Any, x: Any, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        level, size, (a, b), hides = world.split((g, x))
        inner = world.world_of(a, b)
        if not level:
            return world.make(inner.convolution_weight(a, b, weight_shape, stride, padding, dilation, groups), 0)
        out = inner.convolution_weight(
            _into_channels(world, a, hides[0], size), _into_channels(world, b, hides[1], size),
            (size * weight_shape[0], *weight_shape[1:]), stride, padding, dilation, groups * size,
        )  # fmt: skip
        return world.make(out.reshape((size, *weight_shape)), level)

    return convolution_weight


def _normalized(world: Any, name: str) -> Callable[..., Any]:
    """layer_norm and rms_norm: over the last dimensions; with a scale of each sample, after the normalization."""
    from ..kernels import PLAIN

    def function(*args: Any, **options: Any) -> Any:
        level, _, values, hides = world.split(args)
        if any(hides[1:]) or not level:
            return PLAIN[name](world, *args, **options)
        return world.make(getattr(world.world_of(*values), name)(*values, **options), level)

    return function


# --- indexing kernels ---------------------------------------------------------------------------------------------------


def _scatter_add(world: Any, name: str) -> Callable[..., Any]:
    def scatter_add(source: Any, index: Any, shape: Any, axis: int) -> Any:
        level, size, (values, at), hides = world.split((source, index))
        if level:
            values, at = _spread(world, values, hides[0], size), _spread(world, at, hides[1], size)
            shape, axis = (size, *shape), axis % len(shape) + 1
        return world.make(world.world_of(values, at).scatter_add(values, at, shape, axis), level)

    return scatter_add


def _diagonal_backward(world: Any, name: str) -> Callable[..., Any]:
    def diagonal_backward(g: Any, shape: Any, offset: int, dim1: int, dim2: int) -> Any:
        level, size, (value,), _ = world.split((g,))
        if level:
            dim1, dim2, shape = dim1 % len(shape) + 1, dim2 % len(shape) + 1, (size, *shape)
        return world.make(world.world_of(value).diagonal_backward(value, shape, offset, dim1, dim2), level)

    return diagonal_backward


def _table(family: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), family)


RULES: dict[str, Callable[[Any, str], Callable[..., Any]]] = {
    **_table(_elementwise, _ELEMENTWISE),
    **_table(_reduction, "sum mean prod max min amax amin any all std var logsumexp"),
    **_table(_arg_extreme, "argmax argmin"),
    **_table(_with_axis(1, 1, None), "cumsum cumprod"),
    **_table(_with_axis(1, 1), "sort argsort softmax log_softmax"),
    **_table(_with_axis(1, 1, axis_name="dims"), "fft_c2c"),
    **_table(_with_axis(1, 1, axis_name="dim"), "fft_r2c fft_c2r"),
    **_table(_with_axis(2, 2), "take_along_axis gather softmax_backward log_softmax_backward"),
    **_table(_with_axis(3, 3), "scatter"),
    **_table(_with_axis(1, 2), "argpartition diff"),
    **_table(_with_axis(1, 2, None), "repeat"),
    "scatter_add": _scatter_add,
    "diagonal_backward": _diagonal_backward,
    "reshape": _reshape,
    "broadcast_to": _broadcast_to,
    "broadcast_arrays": _broadcast_arrays,
    "ravel": lambda world, name: lambda a: world.reshape(a, (-1,)),
    "transpose": _rearranged(lambda n, axes=None: ((0, *(d % n + 1 for d in (axes or reversed(range(n))))),)),
    "swapaxes": _rearranged(lambda n, axis1, axis2: (_dims(axis1), _dims(axis2))),
    "moveaxis": _rearranged(lambda n, source, destination: (_dims(source), _dims(destination))),
    "expand_dims": _rearranged(_new_dims),
    "squeeze": lambda world, name: lambda a, axis=None: world.reshape(
        a, tuple(n for i, n in enumerate(a.shape) if n != 1 or (axis is not None and i not in [d % a.ndim for d in _axes(axis)]))
    ),
    "flip": _rearranged(_flat_or_dims),
    "tril": _rearranged(lambda n, k=0: (k,)),
    "triu": _rearranged(lambda n, k=0: (k,)),
    "diagonal": _rearranged(lambda n, offset=0, axis1=0, axis2=1: (offset, axis1 % n + 1, axis2 % n + 1)),
    "trace": lambda world, name: lambda a, offset=0, axis1=0, axis2=1: world.sum(world.diagonal(a, offset, axis1, axis2), -1),
    "roll": _roll,
    "pad": _pad,
    "concatenate": _joined,
    "stack": _joined,
    **_table(_copied, "array asarray ascontiguousarray"),
    **_table(_made, "zeros ones empty full arange eye eye_of linspace logspace tri scalar from_host"),
    **_table(_made_like, "zeros_like ones_like empty_like full_like"),
    "astype": _astype,
    "copyto": _copyto,
    "matmul": _matmul,
    "linear": _linear,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "dot": _dot,
    "outer": _outer,
    **_table(_leading, "lu_factor permutation solve_triangular cholesky solve inv eig eigh svd matrix_exp ldl_factor"),
    "ldl_solve": sample_by_sample,
    "convolution": _convolution,
    "convolution_input": _convolution_input,
    "convolution_weight": _convolution_weight,
    **_table(_folded(1), "max_pool avg_pool"),
    "max_pool_backward": _folded(2, shape_at=2),
    "max_pool_gather": _folded(2),
    "avg_pool_backward": _folded(1, shape_at=1),
    **_table(_normalized, "layer_norm rms_norm"),
}
