"""Gradients kept small: by the norm of all of them together, or each element by itself.

On the CPU gradients that lie side by side in one buffer, as those of DistributedDataParallel do, are handled as one array. On a GPU
all of them are one kernel's, and the host does not wait for the norm.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from ...autograd.variable import Tensor, bump_version, wrap
from ...backend import NAMESPACES, cpu, namespace
from ...backend import dtypes as dt
from ...backend.layout import is_dense

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p._grad for p in _as_list(parameters) if p._grad is not None]


def _runs(tensors: list[Tensor]) -> list[Any]:
    """The tensors' arrays, those that lie side by side in one block of memory as one vector."""
    arrays = [t._array for t in tensors]
    if len(arrays) < 2 or any(a.__class__ is not arrays[0].__class__ for a in arrays) or NAMESPACES[arrays[0].__class__] is not cpu:
        return arrays
    runs: list[list[Any]] = []
    end = -1
    for a in sorted(arrays, key=lambda a: a.__array_interface__["data"][0]):
        start = a.__array_interface__["data"][0]
        joins = runs and start == end and a.base is not None and is_dense(a) and a.size
        last = runs[-1][-1] if runs else None
        if joins and last.base is a.base and last.dtype == a.dtype and is_dense(last):  # type: ignore[union-attr]
            runs[-1].append(a)
        else:
            runs.append([a])
        end = start + a.nbytes
    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _joined(run: list[Any]) -> Any:
    first = run[0]
    return cpu.restride(first, (sum(a.size for a in run),), (first.itemsize,), 0)


def _by_device(tensors: list[Tensor]) -> dict[Any, list[Any]]:
    """The tensors' arrays by the device that they lie on."""
    found: dict[Any, list[Any]] = {}
    for t in tensors:
        array = t._array
        found.setdefault(NAMESPACES[array.__class__].device_of(array), []).append(array)
    return found


def _total_norm(tensors: list[Tensor], p: float) -> Any:
    """The norm of all elements, on the device of the first tensor."""
    groups = list(_by_device(tensors).items())
    where, arrays = groups[0]
    xp = NAMESPACES[arrays[0].__class__]
    if xp is cpu and len(groups) == 1:
        return xp.total_norm(_runs(tensors) if p != 0 else arrays, p)
    norms = []
    for device, arrays in groups:
        there = NAMESPACES[arrays[0].__class__]
        with there.on(device):
            norm = there.total_norm(arrays, p)
        norms.append(norm if device == where else there.move(norm, where))
    if len(norms) == 1:
        return norms[0]
    with xp.on(where):  # of counts of arrays the sum is all of them
        return xp.sum(xp.stack(norms)) if p == 0 else xp.total_norm(norms, p)


def _scaled(xp: Any, g: Any, *, total: Any, limit: Any) -> tuple:
    return (g * xp.minimum(limit / (total + 1e-6), 1.0),)


def _bounded(xp: Any, g: Any, *, bound: Any) -> tuple:
    return (xp.clip(g, -bound, bound),)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all elements of all tensors together; as ``torch.nn.utils.get_total_norm``.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
        On one device.
    norm_type : float
        The p of the p-norm; may be infinite. With 0, as in PyTorch, the number of tensors that are not all 0.
    error_if_nonfinite : bool
        Whether a norm that is infinite or nan is an error.
    foreach : bool, optional
        Accepted as in PyTorch.

    Returns
    -------
    Tensor
        Without dimensions; float32 for half types, 0 for no tensors at all.

    Raises
    ------
    RuntimeError
        If the norm is not finite and that is an error.
    """
    given = _as_list(tensors)
    p = float(norm_type)
    if not given:
        return wrap(cpu.zeros((), dt.get_default_dtype().numpy))
    total = _total_norm(given, p)
    xp = NAMESPACES[total.__class__]
    if error_if_nonfinite and not bool(xp.isfinite(total)):
        raise RuntimeError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite ({float(total)}), so it cannot be clipped. To "
            "disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return wrap(xp.asarray(total))


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale gradients in place by ``max_norm / (total_norm + 1e-6)``, where that is below 1.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
    max_norm : float
    total_norm : Tensor
        As `get_total_norm` returns it, or reduced over all ranks.
    foreach : bool, optional
        Accepted as in PyTorch.
    """
    total = total_norm._array
    xp = NAMESPACES[total.__class__]
    gradients = _gradients(parameters)
    if xp is cpu and float(max_norm) / (float(total) + 1e-6) >= 1.0:
        return  # on a GPU to look would mean to wait
    for device, arrays in _by_device(gradients).items():
        there = NAMESPACES[arrays[0].__class__]
        if there is cpu:
            factor = cpu.minimum(float(max_norm) / (namespace(total).to_host(total) + 1e-6), 1.0)
            for a in _runs([g for g in gradients if NAMESPACES[g._array.__class__] is cpu]):
                a *= cpu.asarray(factor, dtype=a.dtype)
        else:
            limits = {"total": total if xp is there and xp.device_of(total) == device else xp.move(total, device), "limit": float(max_norm)}
            with there.on(device):
                there.elementwise_(_scaled, (arrays,), limits)
    for gradient in gradients:
        bump_version(gradient)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place, so that their norm together is at most `max_norm`; as ``torch.nn.utils.clip_grad_norm_``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient do not count.
    max_norm : float
    norm_type : float
        The p of the p-norm; may be infinite.
    error_if_nonfinite : bool
        Whether a norm that is infinite or nan is an error.
    foreach : bool, optional
        Accepted as in PyTorch.

    Returns
    -------
    Tensor
        The norm as it was before.

    Raises
    ------
    RuntimeError
        If the norm is not finite and that is an error.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.nn.Parameter(disttorch.zeros(2))
    >>> w.grad = disttorch.tensor([3.0, 4.0])
    >>> disttorch.nn.utils.clip_grad_norm_([w], 1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6000, 0.8000])
    """
    parameters = _as_list(parameters)
    total = get_total_norm(_gradients(parameters), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """`clip_grad_norm_` under its name of old."""
    warnings.warn("`nn.utils.clip_grad_norm` is now deprecated in favor of `nn.utils.clip_grad_norm_`.", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Keep each element of all gradients within [-clip_value, clip_value]; as ``torch.nn.utils.clip_grad_value_``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient do not count.
    clip_value : float
    foreach : bool, optional
        Accepted as in PyTorch.
    """
    bound = float(clip_value)
    gradients = _gradients(parameters)
    for device, arrays in _by_device(gradients).items():
        xp = NAMESPACES[arrays[0].__class__]
        if xp is cpu:
            for a in _runs([g for g in gradients if NAMESPACES[g._array.__class__] is cpu]):
                a[...] = xp.clip(a, xp.scalar(-bound, a.dtype), xp.scalar(bound, a.dtype))
        else:
            with xp.on(device):
                xp.elementwise_(_bounded, (arrays,), {"bound": bound})
    for gradient in gradients:
        bump_version(gradient)
