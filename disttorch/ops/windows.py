"""Window functions for spectral analysis: those of ``torch.signal.windows``, and the older ones of the package itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import for_device

__all__ = [
    "bartlett", "bartlett_window", "blackman", "blackman_window", "cosine", "exponential", "gaussian", "general_cosine",
    "general_hamming", "hamming", "hamming_window", "hann", "hann_window", "kaiser", "kaiser_window", "nuttall",
]  # fmt: skip

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "bartlett_window blackman_window hamming_window hann_window kaiser_window"


def _window(
    name: str, formula: Callable[..., Any], M: int, sym: bool, dtype: Any, layout: Any, device: Any, requires_grad: bool
) -> Tensor:
    """formula(xp, n, N) at n = 0 ... M - 1, in float64, where N is the length of the symmetric window: M, or one more whose last
    value is left off.
    """
    wanted = dt.get_default_dtype() if dtype is None else dt.as_dtype(dtype)
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not None and str(layout).rpartition(".")[2] != "strided":
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if wanted.name not in ("float32", "float64"):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {wanted}")
    xp, where = for_device(device)
    with xp.on(where):
        n = xp.arange(M) * 1.0
        values = xp.ones(M, "float64") if M <= 1 else formula(xp, n, M if sym else M + 1)
        result = wrap(xp.asarray(values, dtype=wanted.numpy))
    return result.requires_grad_() if requires_grad else result


def _cosines(a: Iterable[float]) -> Callable[..., Any]:
    coefficients = list(a)

    def formula(xp: Any, n: Any, N: int) -> Any:
        total = xp.zeros_like(n)
        for i, c in enumerate(coefficients):
            total = total + (-1) ** i * c * xp.cos(2 * math.pi * i / (N - 1) * n)
        return total

    return formula


def _bartlett(xp: Any, n: Any, N: int) -> Any:
    return 1 - xp.abs(2 * n / (N - 1) - 1)


def _kaiser(beta: float) -> Callable[..., Any]:
    def formula(xp: Any, n: Any, N: int) -> Any:
        around = 2 * n / (N - 1) - 1
        root = beta * xp.sqrt(xp.maximum(1 - around * around, xp.zeros_like(n)))
        return xp.i0(root) / xp.i0(xp.full_like(n, beta))

    return formula


BLACKMAN = (0.42, 0.5, 0.08)
NUTTALL = (0.3635819, 0.4891775, 0.1365995, 0.0106411)


def _made(name: str, formula: Callable[..., Any], doc: str) -> Callable[..., Tensor]:
    def function(
        M: int,
        *,
        sym: bool = True,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Tensor:
        return _window(name, formula, M, sym, dtype, layout, device, requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{doc}; as ``torch.signal.windows.{name}``.

    Parameters
    ----------
    M : int
        How many values.
    sym : bool
        Whether the window is symmetric, for filters, or one period of a periodic one, for spectra.
    dtype, layout, device, requires_grad
        Of the result: float32 or float64.

    Raises
    ------
    ValueError
        For a negative length or another dtype.
    """
    return function


bartlett = _made("bartlett", _bartlett, "A triangle")
blackman = _made("blackman", _cosines(BLACKMAN), "0.42 - 0.5 cos + 0.08 cos 2")
cosine = _made("cosine", lambda xp, n, N: xp.sin(math.pi / N * (n + 0.5)), "Half a period of the sine")
hamming = _made("hamming", _cosines((0.54, 0.46)), "0.54 - 0.46 cos")
hann = _made("hann", _cosines((0.5, 0.5)), "0.5 - 0.5 cos")
nuttall = _made(
    "nuttall", _cosines(NUTTALL), "Four cosines with low side lobes (A. Nuttall, IEEE Trans. ASSP 29, 1981)"
)


def general_cosine(
    M: int, *, a: Iterable[float], sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """a[0] - a[1] cos + a[2] cos 2 - ...; as ``torch.signal.windows.general_cosine``."""
    if not isinstance(a, Iterable):
        raise TypeError(f"Coefficients must be a list/tuple, got {type(a).__name__}")
    a = list(a)
    if not a:
        raise ValueError("Coefficients cannot be empty")
    return _window("general_cosine", _cosines(a), M, sym, dtype, layout, device, requires_grad)


def general_hamming(
    M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """alpha - (1 - alpha) cos; as ``torch.signal.windows.general_hamming``."""
    return _window("general_hamming", _cosines((alpha, 1 - alpha)), M, sym, dtype, layout, device, requires_grad)


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """exp(-|n - center| / tau); as ``torch.signal.windows.exponential``. A symmetric window's center is its middle."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    return _window(
        "exponential",
        lambda xp, n, N: xp.exp(-xp.abs(n - ((N - 1) / 2 if center is None else center)) / tau),
        M, sym, dtype, layout, device, requires_grad,
    )  # fmt: skip


def gaussian(
    M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """exp(-((n - middle) / std)^2 / 2); as ``torch.signal.windows.gaussian``."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    return _window(
        "gaussian",
        lambda xp, n, N: xp.exp(-0.5 * ((n - (N - 1) / 2) / std) ** 2),
        M, sym, dtype, layout, device, requires_grad,
    )  # fmt: skip


def kaiser(
    M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """I0(beta sqrt(1 - x^2)) / I0(beta) for x from -1 to 1; as ``torch.signal.windows.kaiser``."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    return _window("kaiser", _kaiser(beta), M, sym, dtype, layout, device, requires_grad)


# --- the package's older names ------------------------------------------------------------------------------------


def _older(
    name: str, formula_of: Callable[..., Callable[..., Any]], defaults: dict[str, float], doc: str
) -> Callable[..., Tensor]:
    def function(
        window_length: int, periodic: bool = True, *parameters: float, dtype: Any = None, layout: Any = None, device: Any = None,
        pin_memory: bool = False, requires_grad: bool = False, **named: float,
    ) -> Tensor:  # fmt: skip
        values = {**defaults, **dict(zip(defaults, parameters)), **named}
        if len(values) > len(defaults) or len(parameters) > len(defaults):
            raise TypeError(
                f"{name}() takes {', '.join(['window_length', 'periodic', *defaults])} and no {sorted(set(named) - set(defaults))}"
            )
        wanted = dt.get_default_dtype() if dtype is None else dt.as_dtype(dtype)
        if window_length < 0:
            raise RuntimeError(f"{name} requires non-negative window_length, got window_length={window_length}")
        if wanted.category != dt.FLOAT:
            raise RuntimeError(f"{name} expects floating point dtypes, got: {wanted}")
        result = _window(name, formula_of(**values), window_length, not periodic, dt.float64, layout, device, False)
        result = result.to(dtype=wanted)
        return result.requires_grad_() if requires_grad else result

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}, periodic unless told otherwise; as ``torch.{name}``."
    return function


bartlett_window = _older("bartlett_window", lambda: _bartlett, {}, "A triangle")
blackman_window = _older("blackman_window", lambda: _cosines(BLACKMAN), {}, "0.42 - 0.5 cos + 0.08 cos 2")
hann_window = _older("hann_window", lambda: _cosines((0.5, 0.5)), {}, "0.5 - 0.5 cos")
hamming_window = _older(
    "hamming_window", lambda alpha, beta: _cosines((alpha, beta)), {"alpha": 0.54, "beta": 0.46}, "alpha - beta cos"
)
kaiser_window = _older("kaiser_window", lambda beta: _kaiser(beta), {"beta": 12.0}, "Kaiser's window")
