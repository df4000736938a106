"""How a gamma-distributed number follows the distribution's shape parameter when its probability is held fixed."""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import narrow

__all__ = ["log_gamma_slope"]

#: up to which draw the series is summed, and its terms: at 8 the last is 1e-19 of the first, and the sum loses four digits at most
SERIES_ENDS, SERIES_TERMS = 8.0, 48


@kernel
def log_gamma_slope(xp: Any, a: Any, log_x: Any) -> Any:
    """The derivative of log(x) by a, where x is the quantile of the gamma distribution of shape a at a fixed probability.

    With P the regularized lower incomplete gamma function it is ``-(dP/da) / (x dP/dx)`` (Figurnov, Mohamed and Mnih, "Implicit
    Reparameterization Gradients", NeurIPS 2018). Small x: the series of P, differentiated term by term, so that a draw may be far
    too small for a floating-point number. Beyond: a difference of fourth order of P, or of 1 - P above the mean, of which nothing
    cancels in the tail.
    """
    dtype = log_x.dtype
    a, log_x = xp.asarray(a, dtype="float64"), xp.asarray(log_x, dtype="float64")
    x = xp.exp(log_x)
    small = x <= SERIES_ENDS
    near = xp.where(small, x, xp.ones_like(x))
    log_near = xp.where(small, log_x, xp.zeros_like(x))
    term, psi = 1.0 / a, xp.digamma(a) + 1.0 / a
    total = term * (log_near - psi)
    for n in range(1, SERIES_TERMS):
        psi = psi + 1.0 / (a + n)
        term = term * near / (a + n)
        total = total + term * (log_near - psi)

    far = xp.where(small, xp.full_like(x, SERIES_ENDS), x)
    log_far = xp.log(far)
    h = xp.minimum(0.2 * a, 0.004 * xp.sqrt(xp.maximum(a, xp.ones_like(a))))
    above = far > a
    density = xp.exp(a * log_far - far - xp.lgamma(a))  # x dP/dx

    def part(shift: float) -> Any:
        return xp.where(above, -xp.igammac(a + shift * h, far), xp.igamma(a + shift * h, far))

    rise = (8.0 * (part(1.0) - part(-1.0)) - (part(2.0) - part(-2.0))) / (12.0 * h)
    return narrow(xp, xp.where(small, -total, -rise / density), dtype)
