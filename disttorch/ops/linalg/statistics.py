"""Distances between vectors and covariances between variables: products of matrices in disguise."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ..linear import matmul
from .arguments import broadcast_matrices, check_tensor
from .norms import norm_of_array, norm_rule

__all__ = ["cdist", "corrcoef", "cov"]


# --- distances -----------------------------------------------------------------------------------------------------

#: From so many vectors on PyTorch takes Euclidean distances of a matrix product, which is faster and rounds more.
MANY = 25


def _euclidean(xp: Any, x: Any, y: Any) -> Any:
    """sqrt(|x|^2 + |y|^2 - 2 x y), as one product of lengthened vectors."""
    xx, yy = xp.sum(x * x, axis=-1, keepdims=True), xp.sum(y * y, axis=-1, keepdims=True)
    left = xp.concatenate((-2 * x, xx, xp.ones_like(xx)), axis=-1)
    right = xp.concatenate((y, xp.ones_like(yy), yy), axis=-1)
    squares = xp.matmul(left, xp.swapaxes(right, -1, -2))
    return xp.sqrt(xp.maximum(squares, xp.zeros_like(squares)))


def _euclidean_rule(g: Any, x: Any, y: Any, out: Any, needs: Any, xp: Any) -> tuple:
    """Each pair pulls along x - y with g / distance, and not at all where they coincide."""
    zero = out == 0
    pull = xp.where(zero, xp.zeros_like(g), g / xp.where(zero, xp.ones_like(out), out))
    g_x = x * xp.sum(pull, axis=-1, keepdims=True) - xp.matmul(pull, y) if needs[0] else None
    if not needs[1]:
        return g_x, None
    back = xp.swapaxes(pull, -1, -2)
    return g_x, y * xp.sum(back, axis=-1, keepdims=True) - xp.matmul(back, x)


_cdist = Operation("cdist", lambda xp, x, y: _euclidean(xp, x, y), gradients=_euclidean_rule)


def _blocks(xp: Any, x: Any, y: Any) -> int:
    """How many rows of x at a time: so that the differences stay in the cache, or all on a GPU."""
    return max(1, 65536 // max(1, y.shape[-2] * y.shape[-1])) if xp.name == "cpu" else max(1, x.shape[-2])


def _p_forward(xp: Any, x: Any, y: Any, *, p: float) -> Any:
    step = _blocks(xp, x, y)
    parts = [
        norm_of_array(xp, x[..., i : i + step, None, :] - y[..., None, :, :], ord=p, dim=(x.ndim,), keepdim=False)
        for i in range(0, x.shape[-2], step)
    ]
    return parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=-2)


def _p_rule(g: Any, x: Any, y: Any, out: Any, p: float, needs: Any, xp: Any) -> tuple:
    difference = x[..., :, None, :] - y[..., None, :, :]
    pull = norm_rule(g, difference, out, p, (x.ndim,), False, xp)
    return xp.sum(pull, axis=-2) if needs[0] else None, -xp.sum(pull, axis=-3) if needs[1] else None


_cdist_p = Operation("cdist", _p_forward, gradients=_p_rule)

MODES = {
    None: "use_mm_for_euclid_dist_if_necessary",
    0: "use_mm_for_euclid_dist_if_necessary",
    1: "use_mm_for_euclid_dist",
    2: "donot_use_mm_for_euclid_dist",
}


def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | int | None = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The p-norm distance of each pair of vectors; as ``torch.cdist``.

    Parameters
    ----------
    x1, x2 : Tensor
        (..., P, M) and (..., R, M), floating point; leading dimensions broadcast.
    p : float
        At least 0, infinity too.
    compute_mode : str
        Whether Euclidean distances are computed of a matrix product: ``use_mm_for_euclid_dist_if_necessary`` (for more than 25
        vectors), ``use_mm_for_euclid_dist`` or ``donot_use_mm_for_euclid_dist``.

    Returns
    -------
    Tensor
        (..., P, R)
    """
    check_tensor("cdist", x1, x2)
    for x, which in ((x1, "X1"), (x2, "X2")):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, {which} got: {x.ndim}D")
        if not x.dtype.is_floating_point:
            raise RuntimeError(f"cdist only supports floating-point dtypes, {which} got: {x.dtype}")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}")
    if not p >= 0:
        raise RuntimeError(f"cdist only supports non-negative p values, got {p}")
    mode: Any = compute_mode if isinstance(compute_mode, str) else MODES.get(compute_mode)
    if mode not in MODES.values():
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    if x1.dtype != x2.dtype:
        wanted = dt.promote_types(x1.dtype, x2.dtype)
        x1, x2 = x1.to(dtype=wanted), x2.to(dtype=wanted)
    x1, x2 = broadcast_matrices("cdist", x1, x2)
    many = max(x1.shape[-2], x2.shape[-2]) > MANY
    if p == 2 and mode != MODES[2] and (many or mode == MODES[1]):
        return apply(_cdist, x1, x2)
    if 0 in (x1.shape[-1], x1.shape[-2]):
        return matmul(x1, x2.transpose(-2, -1)).abs()
    return apply(_cdist_p, x1, x2, p=float(p))


# --- covariances ---------------------------------------------------------------------------------------------------


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Covariances of variables in rows over observations in columns; as ``torch.cov``.

    Parameters
    ----------
    input : Tensor
        (variables, observations) or (observations,)
    correction : int
        What is taken from the number of observations before dividing.
    fweights : Tensor, optional
        How often each observation counts, integers.
    aweights : Tensor, optional
        How much each observation counts.

    Returns
    -------
    Tensor
        (variables, variables), or without dimensions for one variable.
    """
    check_tensor("cov", input)
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    if input.dtype is dt.bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = input if input.ndim == 2 else input.reshape(1, -1)
    if x._array.dtype in dt.INTEGRAL:
        x = x.to(dtype=dt.get_default_dtype())
    count = x.shape[1]
    weights = None
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if w.ndim > 1:
            raise RuntimeError(
                f"cov(): expected {name} to have one or fewer dimensions but got {name} with {w.ndim} dimensions"
            )
        if (w._array.dtype in dt.INTEGRAL) != (name == "fweights") or w.dtype.is_complex or w.dtype is dt.bool_:
            kind = "integral" if name == "fweights" else "floating point"
            raise RuntimeError(f"cov(): expected {name} to have {kind} dtype but got {name} with {w.dtype} dtype")
        if w.numel() != count:
            raise RuntimeError(
                f"cov(): expected {name} to have the same numel as there are observations in the input but got {w.numel()} != {count}"
            )
        if count and bool((w < 0).any()):
            raise RuntimeError(f"cov(): {name} cannot be negative")
        weights = w if weights is None else weights * w
    if weights is None:
        total: Any = count
        mean = x.sum(1, keepdim=True) / count
    else:
        total = weights.sum()
        if count and bool(total == 0):
            raise RuntimeError("cov(): weights sum to zero, can't be normalized")
        mean = (x * weights).sum(1, keepdim=True) / total
    centred = x - mean
    if correction == 0 or aweights is None:
        divisor = total - correction
    else:
        squares = aweights if fweights is None else fweights * aweights
        divisor = total - correction * (squares * aweights).sum() / total
    divisor = divisor.clamp(min=0) if isinstance(divisor, Tensor) else max(divisor, 0)
    weighted = centred if weights is None else centred * weights
    turned = centred.transpose(0, 1)
    product = matmul(weighted.to(dtype=centred.dtype), turned.conj() if centred.dtype.is_complex else turned)
    return (product / divisor).squeeze()


def corrcoef(input: Tensor) -> Tensor:
    """Correlation coefficients of variables in rows over observations in columns; as ``torch.corrcoef``."""
    check_tensor("corrcoef", input)
    if input.ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    c = cov(input)
    if not c.ndim:
        return c / c
    deviations = c.diagonal().real.sqrt() if c.dtype.is_complex else c.diagonal().sqrt()
    c = c / deviations.unsqueeze(1) / deviations.unsqueeze(0)
    if not c.dtype.is_complex:
        return c.clamp(-1, 1)
    return c.real.clamp(-1, 1) + 1j * c.imag.clamp(-1, 1)
