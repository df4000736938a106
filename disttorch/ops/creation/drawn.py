"""Tensors made at random: uniform and normal numbers, integers, permutations, and draws with given probabilities."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply, as_array
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import for_device, namespace
from ...backend.dtypes import as_dtype
from ...backend.layout import check_layout
from ..dims import as_shape
from ..random import Generator, generator_for
from .data import require_grad
from .filled import _check_size, _like, put_into

# What users find of this family, and where: see ops/public.py.
BOTH = "bernoulli multinomial"
FUNCTIONS = "binomial normal poisson rand rand_like randint randint_like randn randn_like randperm"


def _draw(
    name: str,
    size: Any,
    draw: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
    requires_grad: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    shape = as_shape(size, name)
    _check_size(name, shape)
    xp, where = for_device(device if out is None else out.device)
    source = generator_for(where, generator)
    if dtype is None:
        d = dt.get_default_dtype() if out is None else out.dtype
    else:
        d = as_dtype(dtype)
    with xp.on(where):
        return require_grad(put_into(out, wrap(as_array(draw(source, shape, d)))), requires_grad)


def _floating(name: str, what: str, draw: Any) -> Any:
    def function(
        *sizes: Any,
        size: Any = None,
        generator: Generator | None = None,
        out: Tensor | None = None,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
    ) -> Tensor:
        check_layout(layout)
        if not sizes and size is None:
            raise TypeError(f"{name}(): the size is missing")
        if dtype is not None and as_dtype(dtype).category < dt.FLOAT:
            raise NotImplementedError(f"{name} is not implemented for {as_dtype(dtype)}: its numbers are floating point")
        return _draw(
            name,
            sizes if size is None else (size,),
            draw,
            dtype=dtype,
            device=device,
            generator=generator,
            requires_grad=requires_grad,
            out=out,
        )

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A tensor of a shape with {what}; as ``torch.{name}``.

    Parameters
    ----------
    *sizes : int, or one sequence of int
    generator : Generator, optional
        The device's default generator unless given.
    dtype, device, requires_grad, out
    layout, pin_memory
        Accepted as in PyTorch.
    """
    return function


rand = _floating("rand", "numbers uniform in [0, 1)", lambda source, shape, d: source.uniform(shape, d))
randn = _floating("randn", "normally distributed numbers of mean 0 and variance 1", lambda source, shape, d: source.normal(shape, d))
rand_like, randn_like = _like("rand_like", rand), _like("randn_like", randn)


def randint(
    low: Any = 0,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Integers uniform in [low, high), low being 0 if not given; as ``torch.randint``.

    Raises
    ------
    RuntimeError
        If there are none between `low` and `high`, or the dtype does not hold them.
    """
    check_layout(layout)
    if size is None and not isinstance(high, (int, Tensor)):
        low, high, size = 0, low, high
    if high is None:
        low, high = 0, low
    if size is None or isinstance(size, int):
        raise TypeError(f"randint(): size must be a tuple of ints, got {size!r}")
    d = as_dtype(dtype) if dtype is not None else dt.int64 if out is None else out.dtype
    low, high = int(low), int(high)
    check_range(low, high, d)
    return _draw(
        "randint",
        (tuple(size),),
        lambda source, shape, d: source.integers(low, high, shape, d),
        dtype=d,
        device=device,
        generator=generator,
        requires_grad=requires_grad,
        out=out,
    )


def check_range(low: int, high: int, d: dt.dtype) -> None:
    """Refuse a range of integers that is empty, or that a dtype does not hold."""
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if d.category <= dt.INTEGER:
        least, most = (0, 1) if d is dt.bool_ else (dt.iinfo(d).min, dt.iinfo(d).max)
        if low < least or low > most:
            raise RuntimeError(f"from is out of bounds for {d}: {low}")
        if high - 1 < least or high - 1 > most:
            raise RuntimeError(f"to - 1 is out of bounds for {d}: {high - 1}")


def randint_like(
    input: Tensor,
    low: Any = 0,
    high: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """`randint` in the shape, dtype and device of another tensor; as ``torch.randint_like``."""
    if high is None:
        low, high = 0, low
    return _randint_like(
        input, low, high, generator=generator, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad,
        memory_format=memory_format, pin_memory=pin_memory,
    )  # fmt: skip


_randint_like = _like("randint_like", lambda shape, low, high, **options: randint(low, high, shape, **options))


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """The integers below n in random order; as ``torch.randperm``."""
    check_layout(layout)
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    d = as_dtype(dtype) if dtype is not None else dt.int64 if out is None else out.dtype
    if d.category <= dt.INTEGER and n and n - 1 > (1 if d is dt.bool_ else dt.iinfo(d).max):
        raise RuntimeError(f"randperm: {n - 1} cannot be converted to type {d} without overflow")
    return _draw(
        "randperm",
        (),
        lambda source, shape, d: source.permutation(n, d),
        dtype=d,
        device=device,
        generator=generator,
        requires_grad=requires_grad,
        out=out,
    )


# --- with parameters that are tensors -------------------------------------------------------------------------------

# what is drawn does not follow its parameters smoothly, so their gradients are zero
_drawn = Operation("normal", lambda xp, x, *, drawn: drawn, x=lambda g, x_shape, xp: xp.zeros(tuple(x_shape), g.dtype))
_bernoulli = Operation("bernoulli", _drawn.forward, x=lambda g, xp: xp.zeros_like(g))


def _needs_floating(name: str, x: Tensor) -> None:
    if x.dtype.category < dt.FLOAT:
        raise NotImplementedError(f"{name} is not implemented for {x.dtype}")


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Normally distributed numbers of a mean and a standard deviation, each a number or a tensor; as ``torch.normal``.

    Raises
    ------
    RuntimeError
        If a standard deviation is negative.
    TypeError
        If both are numbers and there is no size.
    """
    if isinstance(std, Tensor):
        if std.dtype.is_complex:
            raise RuntimeError("normal expects standard deviation to be non-complex")
        if std.numel() and bool((std._array < 0).any()):
            raise RuntimeError("normal expects all elements of std >= 0.0")
    elif std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if size is not None:
        made = randn(
            tuple(size) if not isinstance(size, int) else size, generator=generator, dtype=_dtype(dtype, out), layout=layout, device=device
        )
        return require_grad(put_into(out, made * std + mean), requires_grad)
    like = mean if isinstance(mean, Tensor) else std
    if not isinstance(like, Tensor):
        raise TypeError("normal(): needs a size where neither mean nor std is a Tensor")
    _needs_floating("normal", like)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        from ..shape.views import broadcast_tensors

        shape = broadcast_tensors(mean, std)[0].shape
    else:
        shape = like.shape
    made = randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    with_parameters = (made * _plain(std) + _plain(mean)).to(dtype=like.dtype)
    return put_into(out, apply(_drawn, like, drawn=with_parameters._array))


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _dtype(dtype: Any, out: Tensor | None) -> Any:
    return dtype if dtype is not None or out is None else out.dtype


def check_probability(name: str, p: float) -> None:
    """Refuse a probability that is none."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name} expects p to be in [0, 1], but got p={p}")


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None) -> Tensor:
    """1 with the probability that the input says (or `p`), else 0, in the input's dtype; as ``torch.bernoulli``.

    Raises
    ------
    RuntimeError
        If a probability is not in [0, 1].
    """
    a = input._array
    xp = namespace(a)
    if p is not None:
        check_probability("bernoulli_", p)
    else:
        _needs_floating("bernoulli", input)
        # on a GPU to look would mean to wait
        if xp.name == "cpu" and a.size and not bool(xp.all((a >= 0) & (a <= 1))):
            raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    uniform = generator_for(input.device, generator).uniform(a.shape, dt.float64 if a.dtype.itemsize == 8 else dt.float32)
    return put_into(out, apply(_bernoulli, input, drawn=(uniform < (a if p is None else p)).astype(a.dtype)))


def _counts(name: str, draw: Any, check: Any) -> Any:
    def function(*parameters: Tensor, generator: Generator | None = None) -> Tensor:
        first = parameters[0]
        xp = namespace(first._array)
        for x in parameters:
            _needs_floating(name, x)
        check(xp, *(x._array for x in parameters))
        drawn = draw(generator_for(first.device, generator), *(xp.asarray(x._array, dt.float64.numpy) for x in parameters))
        return wrap(xp.asarray(drawn).astype(first._array.dtype))

    function.__name__ = function.__qualname__ = name
    return function


def _check_rates(xp: Any, rate: Any) -> None:
    if rate.size and bool(xp.any(rate < 0)):
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")


def _check_trials(xp: Any, count: Any, p: Any) -> None:
    if p.size and not bool(xp.all((p >= 0) & (p <= 1))):
        raise RuntimeError("binomial: probabilities must be in [0, 1]")


_poisson = _counts("poisson", lambda source, rate: source.poisson(rate), _check_rates)
_binomial = _counts("binomial", lambda source, count, p: source.binomial(count, p), _check_trials)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson-distributed counts with the rates that the input says, in its dtype; as ``torch.poisson``."""
    return _poisson(input, generator=generator)


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed with probability `prob`, for each element; as ``torch.binomial``."""
    return _binomial(count, prob, generator=generator)


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Indices drawn with the probabilities that each row says, up to a factor; as ``torch.multinomial``.

    Parameters
    ----------
    input : Tensor
        (n,) or (rows, n), floating point, not negative.
    num_samples : int
    replacement : bool
        Whether an index may be drawn again.

    Raises
    ------
    RuntimeError
        If a row is negative, not finite, sums to 0, or is shorter than what must be drawn.
    """
    a = input._array
    xp = namespace(a)
    if out is not None and out.dtype is not dt.int64:
        raise RuntimeError(f"multinomial expects Long tensor out, got: {out.dtype}")
    if a.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, got shape {list(a.shape)}")
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {input.dtype}")
    if num_samples <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples, got {num_samples}")
    if not replacement and num_samples > a.shape[-1]:
        raise RuntimeError(
            f"cannot sample n_sample > prob_dist.size(-1) samples without replacement: {num_samples} > {a.shape[-1]}"
        )
    p = xp.asarray(a, dt.float64.numpy).reshape(-1, a.shape[-1])
    if not bool(xp.all(xp.isfinite(p))) or bool(xp.any(p < 0)):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if bool(xp.any(xp.sum(p, axis=1) <= 0)):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0): a row sums to 0")
    source = generator_for(input.device, generator)
    if replacement:
        edges = xp.cumsum(p, axis=1)
        u = source.uniform((p.shape[0], num_samples), dt.float64) * edges[:, -1:]
        # rows side by side on one line, so that one search serves all
        ends = edges[:, -1]
        start = xp.cumsum(ends) - ends
        line = (edges + start[:, None]).reshape(-1)
        drawn = xp.searchsorted(line, (u + start[:, None]).reshape(-1), side="right").reshape(u.shape)
        drawn = drawn - xp.arange(p.shape[0])[:, None] * p.shape[1]
        last = p.shape[1] - 1 - xp.argmax(xp.flip(p, 1) > 0, axis=1)  # rounding must not lead to an impossible index
        drawn = xp.minimum(xp.maximum(drawn, xp.zeros_like(drawn)), last[:, None])
    else:
        # the order of exponential variables divided by their rates is a draw without replacement
        keys = -xp.log1p(-source.uniform(p.shape, dt.float64)) / xp.where(p > 0, p, xp.ones_like(p))
        keys = xp.where(p > 0, keys, xp.full_like(keys, float("inf")))
        drawn = xp.argsort(keys, axis=1)[:, :num_samples]
    result = wrap(xp.ascontiguousarray(drawn).astype(dt.int64.numpy).reshape(*a.shape[:-1], num_samples))
    return put_into(out, result)


