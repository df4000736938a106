"""Fourier transforms: PyTorch's eighteen of three primitives, whose derivatives are transforms again.

The transposed matrix of a transform is the transform itself, so the gradient of a complex one goes through it once more (the
graph conjugates around it); half spectra of real signals are filled up or counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import for_device
from .dims import normal_dim, normal_dims
from .public import with_out

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "ihfft2",
    "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip


# --- three primitives ----------------------------------------------------------------------------------------------


def _along(ndim: int, dim: int, part: slice) -> tuple:
    return (slice(None),) * dim + (part,) + (slice(None),) * (ndim - dim - 1)


def _r2c_rule(g: Any, x_shape: Any, dim: int, scale: float, xp: Any) -> Any:
    """The real part of the transform of the gradient with zeros for the frequencies that were not computed."""
    n = x_shape[dim]
    whole = tuple(n if d == dim else size for d, size in enumerate(x_shape))
    spread = xp.put_slice(g, whole, _along(len(x_shape), dim, slice(0, g.shape[dim])))
    return xp.fft_c2c(spread, (dim,), False, scale)


def _c2r_rule(g: Any, dim: int, n: int, scale: float, xp: Any) -> Any:
    """The half spectrum of the gradient, where all frequencies but the first (and the last for even n) stand for two."""
    half = xp.fft_r2c(g, dim, scale)
    count = half.shape[dim]
    twice = half[_along(half.ndim, dim, slice(1, count - (n % 2 == 0)))]
    if not twice.shape[dim]:
        return half
    return half + xp.put_slice(twice, tuple(half.shape), _along(half.ndim, dim, slice(1, count - (n % 2 == 0))))


_c2c = Operation(
    "fft_c2c",
    lambda xp, x, *, dims, inverse, scale: xp.fft_c2c(x, dims, inverse, scale),
    x=lambda g, dims, inverse, scale, xp: xp.fft_c2c(g, dims, inverse, scale),
)
_r2c = Operation("fft_r2c", lambda xp, x, *, dim, scale: xp.fft_r2c(x, dim, scale), x=_r2c_rule)
_c2r = Operation("fft_c2r", lambda xp, x, *, dim, n, scale: xp.fft_c2r(x, dim, n, scale), x=_c2r_rule)


# --- arguments -----------------------------------------------------------------------------------------------------

NORMS = {
    None: (0, 1),
    "backward": (0, 1),
    "ortho": (0.5, 0.5),
    "forward": (1, 0),
}


def _scale(name: str, norm: str | None, count: int, inverse: bool) -> float:
    """What to multiply by: 1 / n on the way that the norm says, 1 / sqrt(n) on both for "ortho"."""
    if norm not in NORMS:
        raise RuntimeError(f"{name}: Invalid normalization mode: {norm!r}; it is one of 'backward', 'ortho', 'forward'")
    power = NORMS[norm][inverse]
    return 1.0 if not power or not count else 1 / count**power if power == 1 else 1 / math.sqrt(count)


def _as_transformable(name: str, input: Any, to_complex: bool) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    d = input.dtype
    if d in (dt.float16, dt.bfloat16):
        raise RuntimeError(f"{name}: Unsupported dtype {d}")
    if d.category < dt.FLOAT:
        d = dt.get_default_dtype()
    return input.to(dtype=d.to_complex() if to_complex else d)


def _refuse_complex(name: str, input: Any) -> None:
    if isinstance(input, Tensor) and input.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {input.dtype}")


def _resized(name: str, x: Tensor, dims: Sequence[int], sizes: Sequence[int | None]) -> Tensor:
    """The tensor with dimensions cut, or filled up with zeros."""
    for dim, n in zip(dims, sizes):
        have = x.shape[dim]
        if n is None or n == -1:
            n = have
        if n < 1:
            raise RuntimeError(f"{name}: Invalid number of data points ({n}) specified")
        if n < have:
            x = x.narrow(dim, 0, n)
        elif n > have:
            x = apply(_pad_end, x, dim=dim, n=n)
    return x


def _pad_forward(xp: Any, x: Any, *, dim: int, n: int) -> Any:
    shape = tuple(n if d == dim else size for d, size in enumerate(x.shape))
    return xp.put_slice(x, shape, _along(x.ndim, dim, slice(0, x.shape[dim])))


_pad_end = Operation(
    "constant_pad_nd", _pad_forward, x=lambda g, x_shape, dim: g[_along(len(x_shape), dim, slice(0, x_shape[dim]))]
)


def _dims_and_sizes(name: str, x: Tensor, s: Any, dim: Any) -> tuple[list[int], list[int | None]]:
    """Which dimensions to transform, and how long to make them (None: as they are)."""
    if isinstance(dim, int):
        dim = (dim,)
    if isinstance(s, int):
        s = (s,)
    if dim and not x.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim[0]} but tensor has no dimensions")
    if dim is not None:
        dims = list(normal_dims(tuple(dim), x.ndim, name) or ()) if len(tuple(dim)) else []
        if s is not None and len(s) != len(dims):
            raise RuntimeError(
                f"{name}: When given, dim and shape arguments must have the same length, got {list(dim)} and {list(s)}"
            )
        return dims, [None] * len(dims) if s is None else list(s)
    if s is not None:
        if len(s) > x.ndim:
            raise RuntimeError(f"{name}: Got shape with {len(s)} values but input tensor only has {x.ndim} dimensions.")
        return list(range(x.ndim - len(s), x.ndim)), list(s)
    return list(range(x.ndim)), [None] * x.ndim


def _count(x: Tensor, dims: Sequence[int]) -> int:
    return math.prod(x.shape[d] for d in dims)


# --- in several dimensions -----------------------------------------------------------------------------------------


def _complex_transform(name: str, inverse: bool, input: Tensor, s: Any, dim: Any, norm: str | None) -> Tensor:
    x = _as_transformable(name, input, True)
    dims, sizes = _dims_and_sizes(name, x, s, dim)
    x = _resized(name, x, dims, sizes)
    scale = _scale(name, norm, _count(x, dims), inverse)
    if not dims:
        return x.clone() if x is input else x
    _refuse_nothing(name, x, dims)
    return apply(_c2c, x, dims=tuple(dims), inverse=inverse, scale=scale)


def _refuse_nothing(name: str, x: Tensor, dims: Sequence[int]) -> None:
    for d in dims:
        if not x.shape[d]:
            raise RuntimeError(
                f"{name}: Invalid number of data points (0) specified for dimension {d} of shape {list(x.shape)}"
            )


def _from_real(name: str, input: Tensor, s: Any, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    """rfftn, and ihfftn, which is its conjugate with the inverse's scale."""
    _refuse_complex(name, input)
    x = _as_transformable(name, input, False)
    dims, sizes = _dims_and_sizes(name, x, s, dim)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    x = _resized(name, x, dims, sizes)
    _refuse_nothing(name, x, dims)
    scale = _scale(name, norm, _count(x, dims), inverse)
    half = apply(_r2c, x, dim=dims[-1], scale=scale)
    if inverse:
        half = half.conj()
    return apply(_c2c, half, dims=tuple(dims[:-1]), inverse=inverse, scale=1.0) if len(dims) > 1 else half


def _to_real(name: str, input: Tensor, s: Any, dim: Any, norm: str | None, inverse: bool) -> Tensor:
    """irfftn, and hfftn, which takes the conjugate and has the forward scale."""
    x = _as_transformable(name, input, True)
    dims, sizes = _dims_and_sizes(name, x, s, dim)
    if not dims:
        raise RuntimeError(f"{name} must transform at least one axis")
    last = dims[-1]
    n = sizes[-1]
    n = 2 * (x.shape[last] - 1) if n is None or n == -1 else n
    if n < 1:
        raise RuntimeError(f"{name}: Invalid number of data points ({n}) specified")
    x = _resized(name, x, dims, [*sizes[:-1], n // 2 + 1])
    _refuse_nothing(name, x, dims)
    scale = _scale(name, norm, _count(x, dims[:-1]) * n, inverse)
    if len(dims) > 1:
        x = apply(_c2c, x, dims=tuple(dims[:-1]), inverse=inverse, scale=1.0)
    return apply(_c2r, x if inverse else x.conj(), dim=last, n=n, scale=scale)


_KINDS = {
    "fft": "The discrete Fourier transform",
    "ifft": "The inverse discrete Fourier transform",
    "rfft": "The Fourier transform of a real signal, of which only the frequencies from 0 up are computed",
    "irfft": "The real signal of half a spectrum: the inverse of `rfft`",
    "hfft": "The real Fourier transform of a signal that is Hermitian, given by its first half",
    "ihfft": "Half of the Hermitian signal whose Fourier transform is given: the inverse of `hfft`",
}


def _call(kind: str, name: str, input: Tensor, s: Any, dim: Any, norm: str | None) -> Tensor:
    if kind in ("fft", "ifft"):
        return _complex_transform(name, kind == "ifft", input, s, dim, norm)
    return (_from_real if kind in ("rfft", "ihfft") else _to_real)(name, input, s, dim, norm, kind[0] == "i")


def _one(kind: str) -> Any:
    def function(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
        name = f"fft.{kind}"
        if isinstance(input, Tensor):
            normal_dim(dim, input.ndim, name)
        return _call(kind, name, input, None if n is None else (n,), (dim,), norm)

    function.__name__ = function.__qualname__ = kind
    function.__doc__ = f"""{_KINDS[kind]}, along a dimension; as ``torch.fft.{kind}``.

    Parameters
    ----------
    input : Tensor
    n : int, optional
        {"The length of the result" if kind in ("irfft", "hfft") else "To which length the signal is cut or filled up with zeros first"}.
    dim : int
    norm : {{"backward", "ortho", "forward"}}, optional
        Where to divide by n: in the inverse (also None), by its square root in both, or in the forward transform.
    """
    return with_out(function)


def _two(kind: str) -> Any:
    def function(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
        return _call(kind, f"fft.{kind}2", input, s, dim, norm)

    function.__name__ = function.__qualname__ = f"{kind}2"
    function.__doc__ = f"{_KINDS[kind]}, along two dimensions; as ``torch.fft.{kind}2``. See `{kind}n`."
    return with_out(function)


def _many(kind: str) -> Any:
    def function(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
        return _call(kind, f"fft.{kind}n", input, s, dim, norm)

    function.__name__ = function.__qualname__ = f"{kind}n"
    function.__doc__ = f"""{_KINDS[kind]}, along several dimensions; as ``torch.fft.{kind}n``.

    Parameters
    ----------
    input : Tensor
    s : tuple of int, optional
        Lengths of these dimensions{" in the result" if kind in ("irfft", "hfft") else ""}; what is longer is cut, what is shorter filled
        up with zeros.
    dim : tuple of int, optional
        Which; the last len(s), or all. Half spectra are along the last of them.
    norm : {{"backward", "ortho", "forward"}}, optional
        As of `{kind}`, for the number of all elements.
    """
    return with_out(function)


fft, ifft, rfft, irfft, hfft, ihfft = map(_one, _KINDS)
fft2, ifft2, rfft2, irfft2, hfft2, ihfft2 = map(_two, _KINDS)
fftn, ifftn, rfftn, irfftn, hfftn, ihfftn = map(_many, _KINDS)


# --- frequencies ---------------------------------------------------------------------------------------------------


def _frequencies(
    name: str, indices: Any, n: int, d: float, out: Any, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    wanted = dt.get_default_dtype() if dtype is None else dt.as_dtype(dtype)
    if wanted.category < dt.FLOAT:
        raise RuntimeError(f"{name} requires a floating point or complex dtype, got {wanted}")
    xp, where = for_device(device)
    with xp.on(where):
        result = wrap(xp.asarray(indices(xp) * (1.0 / (n * d)), dtype=wanted.numpy))
    if out is not None:
        return out.copy_(result)
    return result.requires_grad_() if requires_grad else result


def fftfreq(
    n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The frequencies that `fft` of n samples at distance `d` gives: [0, 1, ..., -2, -1] / (d n); as ``torch.fft.fftfreq``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.fft.fftfreq(4)
    tensor([ 0.0000,  0.2500, -0.5000, -0.2500])
    """
    half = (n + 1) // 2
    return _frequencies(
        "fftfreq",
        lambda xp: xp.concatenate((xp.arange(half), xp.arange(-(n // 2), 0))),
        n,
        d,
        out,
        dtype,
        device,
        requires_grad,
    )


def rfftfreq(
    n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The frequencies that `rfft` of n samples at distance `d` gives: [0, 1, ..., n // 2] / (d n); as ``torch.fft.rfftfreq``."""
    return _frequencies("rfftfreq", lambda xp: xp.arange(n // 2 + 1), n, d, out, dtype, device, requires_grad)


def _shifted(name: str, input: Tensor, dim: Any, back: bool) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    dims = (dim,) if isinstance(dim, int) else range(input.ndim) if dim is None else tuple(dim)
    steps = [(input.shape[d] + 1) // 2 if back else input.shape[d] // 2 for d in dims]
    return input.roll(steps, tuple(dims)) if steps else input.clone()


def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Frequencies in ascending order, 0 in the middle, along some dimensions or all; as ``torch.fft.fftshift``."""
    return _shifted("fft.fftshift", input, dim, False)


def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The inverse of `fftshift`; as ``torch.fft.ifftshift``."""
    return _shifted("fft.ifftshift", input, dim, True)
