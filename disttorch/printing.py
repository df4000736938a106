"""How tensors print, by PyTorch's rules: four digits, aligned columns, the middle of large tensors left out."""

from __future__ import annotations

import math
from typing import Any

from .autograd.graph import AccumulateGrad
from .autograd.variable import Tensor
from .backend import dtypes as dt
from .backend import get_default_device, namespace
from .backend.dtypes import DTYPES

__all__ = ["set_printoptions", "tensor_repr"]


class Options:
    """What `set_printoptions` sets."""

    precision = 4
    threshold = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print; as ``torch.set_printoptions``.

    Parameters
    ----------
    precision : int
        Digits after the point; 4.
    threshold : int
        Elements above which the middle is left out; 1000.
    edgeitems : int
        Elements left at each end then; 3.
    linewidth : int
        Characters a line; 80.
    profile : {"default", "short", "full"}
    sci_mode : bool
        Whether to use the scientific notation; None decides by the values.

    Raises
    ------
    ValueError
        For another profile.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, not {profile!r}")
        for name, value in _PROFILES[profile].items():
            setattr(Options, name, value)
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(Options, name, value)
    Options.sci_mode = sci_mode


class _Format:
    """One format for all the numbers that are shown."""

    def __init__(self, values: list[Any], floating: bool):
        self.floating = floating
        self.scientific = False
        self.whole = True
        if not floating:
            self.width = max((len(str(v)) for v in values), default=1)
            return
        sizes = [abs(v) for v in values if v != 0 and math.isfinite(v)]
        self.whole = all(v == math.ceil(v) for v in values if math.isfinite(v))
        if sizes:
            high, low = max(sizes), min(sizes)
            self.scientific = high / low > 1000 or high > 1e8 or (not self.whole and low < 1e-4)
        if Options.sci_mode is not None and sizes:
            self.scientific = Options.sci_mode
        # zeros, NaN and infinities do not count: PyTorch aligns by the others
        self.width = max((len(self._text(v)) for v in values if v != 0 and math.isfinite(v)), default=1)

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if not math.isfinite(value):
            return str(value)
        if self.scientific:
            return f"{value:.{Options.precision}e}"
        if self.whole:
            return f"{value:.0f}."
        return f"{value:.{Options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


class _ComplexFormat:
    def __init__(self, values: list[complex]):
        self.real = _Format([v.real for v in values], True)
        self.imaginary = _Format([abs(v.imag) for v in values], True)
        self.width = self.real.width + self.imaginary.width + 2

    def __call__(self, value: complex) -> str:
        sign = "-" if math.copysign(1, value.imag) < 0 else "+"
        return f"{self.real(value.real)}{sign}{self.imaginary(abs(value.imag)).strip()}j"


def _shown(a: Any, summarize: bool) -> list:
    """The values that are printed, flat."""
    if a.ndim == 0:
        return [a.item()]
    edge = Options.edgeitems
    if not summarize or a.shape[0] <= 2 * edge:
        parts = list(a)
    else:
        parts = [*a[:edge], *a[-edge:]]
    if a.ndim == 1:
        return [p.item() for p in parts]
    return [v for p in parts for v in _shown(p, summarize)]


def _vector(a: Any, indent: int, summarize: bool, form: Any) -> str:
    edge = Options.edgeitems
    per_line = max(1, (Options.linewidth - indent) // (form.width + 2))
    if summarize and a.shape[0] > 2 * edge:
        texts = [form(v.item()) for v in a[:edge]] + [" ..."] + [form(v.item()) for v in a[-edge:]]
    else:
        texts = [form(v.item()) for v in a]
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _block(a: Any, indent: int, summarize: bool, form: Any) -> str:
    if a.ndim == 0:
        return form(a.item())
    if a.ndim == 1:
        return _vector(a, indent, summarize, form)
    edge = Options.edgeitems
    if summarize and a.shape[0] > 2 * edge:
        parts = [_block(p, indent + 1, summarize, form) for p in a[:edge]]
        parts.append("...")
        parts += [_block(p, indent + 1, summarize, form) for p in a[-edge:]]
    else:
        parts = [_block(p, indent + 1, summarize, form) for p in a]
    return "[" + ("," + "\n" * (a.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def tensor_repr(tensor: Tensor, prefix: str = "tensor(") -> str:
    """The text of a tensor: its values, and what is not the default of dtype, device and gradient."""
    xp = namespace(tensor._array)
    a = xp.to_host(tensor._array)
    d = DTYPES[a.dtype]
    suffixes = []
    if tensor.device.type != get_default_device().type:
        suffixes.append(f"device='{tensor.device}'")
    defaults = (dt.get_default_dtype(), dt.int64, dt.bool_, dt.get_default_dtype().to_complex())
    if a.size == 0:
        text = "[]"
        if a.ndim != 1:
            suffixes.append(f"size={tuple(a.shape)}")
        if d is not dt.get_default_dtype():
            suffixes.append(f"dtype={d}")
    else:
        if d not in defaults:
            suffixes.append(f"dtype={d}")
        summarize = a.size > Options.threshold
        values = _shown(a, summarize)
        form = _ComplexFormat(values) if d.is_complex else _Format(values, d.is_floating_point)
        text = _block(a, len(prefix), summarize, form)
        if a.ndim == 0:
            text = text.strip()
    node = tensor._node
    if node.__class__ is AccumulateGrad:
        suffixes.append("requires_grad=True")
    elif node is not None:
        suffixes.append(f"grad_fn={node}")
    full = text
    for suffix in suffixes:
        last = len(full) - full.rfind("\n") - 1 + (len(prefix) if "\n" not in full else 0)
        if last + len(suffix) + 3 > Options.linewidth:
            full += ",\n" + " " * len(prefix) + suffix
        else:
            full += ", " + suffix
    return prefix + full + ")"
