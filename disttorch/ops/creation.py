"""Making tensors: from data, filled, in sequences, at random."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

from ..autograd.graph import AccumulateGrad
from ..autograd.variable import Tensor, wrap
from ..backend import cpu, for_device, namespace
from ..backend import dtypes as dt
from ..backend.dtypes import DIFFERENTIABLE, as_dtype
from .dims import as_shape
from .random import Generator, generator_for

# What users find of this family, and where: see ops/public.py.
BOTH = "bernoulli multinomial"
FUNCTIONS = """
    arange as_tensor asarray empty empty_like eye from_dlpack from_numpy full full_like linspace meshgrid normal
    ones ones_like rand rand_like randint randint_like randn randn_like randperm scalar_tensor tensor zeros zeros_like
"""

# --- from data ----------------------------------------------------------------------------------------------------


def require_grad(tensor: Tensor, requires_grad: bool) -> Tensor:
    """Let a leaf ask for its gradient, or stop asking.

    Raises
    ------
    RuntimeError
        If its dtype has no gradient, or it is no leaf.
    """
    if requires_grad:
        if tensor._array.dtype not in DIFFERENTIABLE:
            raise RuntimeError(f"only Tensors of floating point and complex dtype can require gradients, not {tensor.dtype}")
        if tensor._node is None:
            tensor._node = AccumulateGrad(tensor)
    elif tensor._node is not None:
        if tensor._node.__class__ is not AccumulateGrad:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a subgraph "
                "that doesn't require differentiation use var_no_grad = var.detach()."
            )
        tensor._node = None
    return tensor


def _is_plain(data: Any) -> bool:
    """Whether data is nested lists of Python's numbers only."""
    while isinstance(data, (list, tuple)):
        if not data:
            return True
        data = data[0]
    return type(data) in (bool, int, float, complex)  # NumPy's float64 is a float too, but has a dtype to keep


def _host_array(data: Any, dtype: Any, copy: bool) -> Any:
    """Data of any kind that NumPy takes as a NumPy array of one of our dtypes."""
    if isinstance(data, (list, tuple)) and _has_tensors(data):
        data = _without_tensors(data)
    wanted = None if dtype is None else as_dtype(dtype)
    try:
        array = cpu.array(data) if copy else cpu.asarray(data)
        if wanted is None and _is_plain(data):
            if array.dtype.kind == "f" or not array.size:
                wanted = dt.get_default_dtype()
            elif array.dtype.kind == "c":
                wanted = dt.get_default_dtype().to_complex()
        target = (as_dtype(array.dtype) if wanted is None else wanted).numpy
    except ValueError as error:
        raise ValueError(f"tensor(): the data is not a rectangular block of numbers: {error}") from None
    return array if array.dtype == target else array.astype(target)


def _has_tensors(data: Any) -> bool:
    return builtins.any(isinstance(d, Tensor) or (isinstance(d, (list, tuple)) and _has_tensors(d)) for d in data)


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(d) for d in data]
    return data.tolist() if isinstance(data, Tensor) else data


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A tensor with a copy of data; as ``torch.tensor``.

    Parameters
    ----------
    data : number, nested lists of numbers, array or Tensor
    dtype : dtype, optional
        Otherwise that of the data; of Python floats the default dtype.
    device : device or str, optional
        Otherwise that of the data.
    requires_grad : bool

    Raises
    ------
    TypeError
        If the data has a type that no tensor can have.
    ValueError
        If nested lists differ in length.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    if isinstance(data, Tensor):
        result = data.detach().clone().to(device=device, dtype=dtype)
    elif hasattr(data, "__cuda_array_interface__") or hasattr(data, "__cupy_get_ndarray__"):
        xp, where = for_device("cuda" if device is None else device)
        array = xp.array(data)
        result = wrap(array if dtype is None else array.astype(as_dtype(dtype).numpy))
    else:
        xp, where = for_device(device)
        result = wrap(xp.from_host(_host_array(data, dtype, copy=True), where.index))
    return require_grad(result, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor on data, without a copy where that is possible; as ``torch.as_tensor``."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if hasattr(data, "__cuda_array_interface__"):
        return tensor(data, dtype=dtype, device=device)
    xp, where = for_device(device)
    return wrap(xp.from_host(_host_array(data, dtype, copy=False), where.index))


asarray = as_tensor


def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of a NumPy array; as ``torch.from_numpy``.

    Raises
    ------
    TypeError
        If it is no NumPy array, or its dtype is not one of ours.
    """
    if not isinstance(ndarray, cpu.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    as_dtype(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise ValueError(f"from_numpy: the array has the other byte order ({ndarray.dtype}); use disttorch.tensor to copy it")
    return wrap(cpu.asarray(ndarray))


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of an array of another library, by the DLPack protocol; as ``torch.from_dlpack``.

    Parameters
    ----------
    ext_tensor : object with ``__dlpack__`` and ``__dlpack_device__``

    Raises
    ------
    RuntimeError
        If the array is on a kind of device that no backend has.

    Examples
    --------
    >>> import disttorch, numpy
    >>> disttorch.from_dlpack(numpy.arange(3))
    tensor([0, 1, 2])
    """
    kind, index = ext_tensor.__dlpack_device__()
    # the numbers of https://dmlc.github.io/dlpack/latest/c_api.html#c.DLDeviceType
    name = {1: "cpu", 3: "cpu", 2: f"cuda:{index}", 13: f"cuda:{index}"}.get(int(kind))
    if name is None:
        raise RuntimeError(f"from_dlpack: no backend has arrays on DLPack device type {int(kind)}")
    xp, _ = for_device(name)
    return wrap(xp.from_dlpack(ext_tensor))


def scalar_tensor(value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor without dimensions, floating point unless a dtype is given; as ``torch.scalar_tensor``."""
    return full((), value, dtype=dt.get_default_dtype() if dtype is None else dtype, device=device)


# --- filled ---------------------------------------------------------------------------------------------------------


def _make(name: str, size: Any, dtype: Any, device: Any, requires_grad: bool, *fill: Any) -> Tensor:
    shape = as_shape(size, name)
    if builtins.any(n < 0 for n in shape):
        raise RuntimeError(f"{name}: trying to create tensor with negative dimension: {list(shape)}")
    xp, where = for_device(device)
    d = (dt.get_default_dtype() if dtype is None else as_dtype(dtype)).numpy
    with xp.on(where):
        array = getattr(xp, name)(shape, *fill, dtype=d)
    return require_grad(wrap(array), requires_grad)


def _filled(name: str, what: str) -> Any:
    def function(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
        if "size" in options:
            size = (options.pop("size"),)
        out = options.pop("out", None)
        _ignore(name, options)
        result = _make(name, size, dtype, device, requires_grad)
        return result if out is None else out.copy_(result)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A tensor of a shape {what}; as ``torch.{name}``.

    Parameters
    ----------
    *size : int, or one sequence of int
    dtype : dtype, optional
        The default dtype unless given.
    device : device or str, optional
    requires_grad : bool
    """
    return function


def _ignore(name: str, options: dict) -> None:
    """PyTorch's options that have no meaning here, but are no mistakes."""
    for option in ("layout", "pin_memory", "memory_format"):
        options.pop(option, None)
    if options:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(options))!r}")


zeros = _filled("zeros", "filled with 0")
ones = _filled("ones", "filled with 1")
empty = _filled("empty", "with whatever its memory held")


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: Tensor | None = None
) -> Tensor:
    """A tensor of a shape filled with a value; as ``torch.full``. Its dtype is the value's unless given."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    if dtype is None:
        dtype = dt.result_of([(as_dtype(type(value)), 0)])
    result = _make("full", (size,) if isinstance(size, int) else (tuple(size),), dtype, device, requires_grad, value)
    return result if out is None else out.copy_(result)


def _like(name: str, maker: Any) -> Any:
    def function(
        input: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any
    ) -> Tensor:
        generator = options.pop("generator", None)
        _ignore(name, options)
        extra = {} if generator is None else {"generator": generator}
        return maker(
            input._array.shape, *args, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad, **extra
        )

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{name.removesuffix('_like')}` in the shape, dtype and device of another tensor; as ``torch.{name}``."
    return function


zeros_like, ones_like = _like("zeros_like", zeros), _like("ones_like", ones)
empty_like, full_like = _like("empty_like", empty), _like("full_like", full)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A matrix with ones on the diagonal; as ``torch.eye``."""
    return _make("eye_of", (n, n if m is None else m), dtype, device, requires_grad)


# --- sequences ------------------------------------------------------------------------------------------------------


def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Numbers from `start` (0 if only one is given) up to, but not including, `end`; as ``torch.arange``.

    Raises
    ------
    RuntimeError
        If the step is zero or leads away from the end.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) / step < 0:
        raise RuntimeError(f"upper bound and lower bound inconsistent with step sign: arange({start}, {end}, {step})")
    if dtype is None:
        dtype = dt.int64 if builtins.all(isinstance(v, int) for v in (start, end, step)) else dt.get_default_dtype()
    xp, where = for_device(device)
    count = math.ceil((end - start) / step)
    with xp.on(where):
        array = xp.arange(count) * step + start
    return require_grad(wrap(array.astype(as_dtype(dtype).numpy)), requires_grad)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included; as ``torch.linspace``."""
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, got {steps}")
    xp, where = for_device(device)
    d = (dt.get_default_dtype() if dtype is None else as_dtype(dtype)).numpy
    with xp.on(where):
        array = xp.linspace(float(start), float(end), steps).astype(d)
    return require_grad(wrap(array), requires_grad)


# --- at random ------------------------------------------------------------------------------------------------------


def _draw(
    name: str, size: Any, dtype: Any, device: Any, generator: Generator | None, requires_grad: bool, draw: Any
) -> Tensor:
    shape = as_shape(size, name)
    xp, where = for_device(device)
    source = generator_for(where, generator)
    d = dt.get_default_dtype() if dtype is None else as_dtype(dtype)
    return require_grad(wrap(xp.asarray(draw(source, shape, d))), requires_grad)


def _random(name: str, what: str, draw: Any) -> Any:
    def function(
        *size: Any,
        generator: Generator | None = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        **options: Any,
    ) -> Tensor:
        if "size" in options:
            size = (options.pop("size"),)
        _ignore(name, options)
        if dtype is not None and as_dtype(dtype).category < dt.FLOAT:
            raise RuntimeError(f"{name}: floating point numbers cannot have the dtype {dtype}")
        return _draw(name, size, dtype, device, generator, requires_grad, draw)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A tensor of a shape with {what}; as ``torch.{name}``.

    Parameters
    ----------
    *size : int, or one sequence of int
    generator : Generator, optional
        The device's default generator unless given.
    dtype, device, requires_grad
    """
    return function


rand = _random("rand", "numbers uniform in [0, 1)", lambda source, shape, d: source.uniform(shape, d))
randn = _random("randn", "normally distributed numbers of mean 0 and variance 1", lambda source, shape, d: source.normal(shape, d))
rand_like, randn_like = _like("rand_like", rand), _like("randn_like", randn)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers uniform in [low, high), low being 0 if not given; as ``torch.randint``.

    Raises
    ------
    RuntimeError
        If there are none between `low` and `high`.
    """
    if size is None:
        low, high, size = 0, low, high
    if size is None or isinstance(size, int):
        raise TypeError(f"randint(): size must be a tuple of ints, got {size!r}")
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    d = dt.int64 if dtype is None else as_dtype(dtype)
    return _draw(
        "randint", (tuple(size),), d, device, generator, requires_grad, lambda source, shape, d: source.integers(low, high, shape, d)
    )


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`randint` in the shape, dtype and device of another tensor; as ``torch.randint_like``."""
    if high is None:
        low, high = 0, low
    return randint(low, high, input._array.shape, dtype=dtype or input.dtype, device=device or input.device)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The integers below n in random order; as ``torch.randperm``."""
    d = dt.int64 if dtype is None else as_dtype(dtype)
    return _draw("randperm", (), d, device, generator, False, lambda source, shape, d: source.permutation(n, d))


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Normally distributed numbers of a mean and a standard deviation, each a number or a tensor; as ``torch.normal``."""
    if size is None:
        like = mean if isinstance(mean, Tensor) else std
        if not isinstance(like, Tensor):
            raise TypeError("normal(): needs a size where neither mean nor std is a Tensor")
        other = std if like is mean else mean
        shape = (like + other).shape if isinstance(other, Tensor) else like.shape
        return randn(shape, generator=generator, dtype=like.dtype, device=like.device) * std + mean
    return randn(size, generator=generator, dtype=dtype, device=device) * std + mean


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that the input says (or `p`), else 0, in the input's dtype; as ``torch.bernoulli``."""
    uniform = rand(input.shape, generator=generator, dtype=dt.float32, device=input.device)
    return (uniform < (input if p is None else p)).to(dtype=input.dtype)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the probabilities that each row says, up to a factor; as ``torch.multinomial``.

    Parameters
    ----------
    input : Tensor
        (n,) or (rows, n), not negative.
    num_samples : int
    replacement : bool
        Whether an index may be drawn again.

    Raises
    ------
    RuntimeError
        If a row is negative, not finite, sums to 0, or has fewer positive entries than must be drawn.
    """
    a = input._array
    xp = namespace(a)
    if a.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: prob_dist must be 1 or 2 dim, got shape {list(a.shape)}")
    p = xp.asarray(a, dt.float64.numpy).reshape(-1, a.shape[-1])
    if not bool(xp.all(xp.isfinite(p))) or bool(xp.any(p < 0)) or bool(xp.any(xp.sum(p, axis=1) <= 0)):
        raise RuntimeError("multinomial: probability tensor contains inf, nan or an element < 0, or a row that sums to 0")
    if not replacement and bool(xp.any(xp.sum(p > 0, axis=1) < num_samples)):
        raise RuntimeError(f"multinomial: cannot draw {num_samples} samples without replacement from so few positive probabilities")
    source = generator_for(input.device, generator)
    if replacement:
        edges = xp.cumsum(p, axis=1)
        u = source.uniform((p.shape[0], num_samples), dt.float64) * edges[:, -1:]
        drawn = xp.sum(u[:, :, None] >= edges[:, None, :], axis=2)
    else:
        # the order of exponential variables divided by their rates is a draw without replacement
        keys = -xp.log1p(-source.uniform(p.shape, dt.float64)) / xp.where(p > 0, p, xp.ones_like(p))
        keys = xp.where(p > 0, keys, xp.full_like(keys, float("inf")))
        drawn = xp.argsort(keys, axis=1)[:, :num_samples]
    return wrap(xp.ascontiguousarray(drawn).astype(dt.int64.numpy).reshape(*a.shape[:-1], num_samples))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate tensors of a grid from one-dimensional tensors; as ``torch.meshgrid``."""
    parts: Sequence[Tensor] = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    n = len(parts)
    shape = [p.numel() for p in parts]
    grids = [p.reshape([-1 if j == i else 1 for j in range(n)]).expand(shape) for i, p in enumerate(parts)]
    return tuple(g.transpose(0, 1) for g in grids) if indexing == "xy" and n > 1 else tuple(grids)
