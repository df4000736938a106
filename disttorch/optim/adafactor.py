"""Adafactor (Shazeer & Stern, arXiv:1804.04235), whose second moments of a matrix are one row and one column."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import namespace
from ..backend.dtypes import DTYPES, finfo
from .optimizer import Optimizer
from .options import Params, computed, non_negative, number, zeros_like

__all__ = ["Adafactor"]


class Adafactor(Optimizer):
    """Adafactor; as ``torch.optim.Adafactor``.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        The largest relative step; step t takes at most ``1 / sqrt(t)``.
    beta2_decay : float
        The second moment of step t forgets ``t ** beta2_decay``.
    eps : (float or None, float)
        The smallest root of a second moment (by default the dtype's eps), and the smallest size of a parameter that a step is
        relative to.
    d : float
        A step's root mean square is clipped to this.
    weight_decay : float
        How much of a parameter, times the learning rate, is taken off in a step.
    foreach : bool, optional
        Accepted as in PyTorch.
    maximize : bool
        Ascend instead.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.ones(1, requires_grad=True)
    >>> (w * w).sum().backward()
    >>> disttorch.optim.Adafactor([w], lr=0.25).step()
    >>> w
    tensor([0.7500], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        non_negative("learning rate", lr)
        if not beta2_decay <= 0.0:
            raise ValueError(f"Invalid beta2_decay value: {beta2_decay}, it should be at most 0")
        if eps[0] is not None:
            non_negative("epsilon1 value", eps[0])
        non_negative("epsilon2 value", eps[1])
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be at least 1, not {d}")
        non_negative("weight_decay value", weight_decay)
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, computed(defaults, capturable=True))

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if param.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        if param.ndim < 2:
            return {"step": number(0.0, param, group), "variance": zeros_like(param)}
        a = param._array
        xp = namespace(a)
        with xp.on(xp.device_of(a)):
            rows, columns = xp.zeros((*a.shape[:-1], 1), a.dtype), xp.zeros((*a.shape[:-2], 1, a.shape[-1]), a.dtype)
        return {"step": number(0.0, param, group), "row_var": wrap(rows), "col_var": wrap(columns)}

    def update(self, xp: Any, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        p, g = param._array, grad._array
        if group["maximize"]:
            g = -g
        step, lr, (eps1, eps2) = float(state["step"]), float(group["lr"]), group["eps"]
        eps1 = finfo(DTYPES[p.dtype]).eps if eps1 is None else eps1
        forget = step ** group["beta2_decay"]
        size = xp.maximum(_root_mean_square(xp, p), eps2) * min(lr, 1 / step**0.5)
        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        if "variance" in state:
            variance = state["variance"]._array
            variance += (g * g - variance) * forget
            second = variance
        else:
            rows, columns = state["row_var"]._array, state["col_var"]._array
            squares = g * g
            rows += (xp.mean(squares, axis=-1, keepdims=True) - rows) * forget
            columns += (xp.mean(squares, axis=-2, keepdims=True) - columns) * forget
            second = rows * columns / xp.maximum(xp.mean(rows, axis=-2, keepdims=True), eps1)
        update = g / xp.sqrt(xp.maximum(second, eps1 * eps1))
        scale = size / xp.maximum(_root_mean_square(xp, update) / group["d"], 1.0)
        p -= update * xp.asarray(scale, dtype=p.dtype)


def _root_mean_square(xp: Any, a: Any) -> Any:
    """Without dimensions, where the array lies: the host does not wait for it; float32 for half types."""
    return xp.sqrt(xp.sum_of_squares(a) / max(a.size, 1))
