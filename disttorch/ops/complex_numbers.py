"""Complex numbers: their parts, their sign, and tensors made of two real ones.

The graph conjugates gradients on the way into and out of a rule whose result is complex (`OperationNode.propagate`), so a
rule of a holomorphic function is the one of calculus; where the result is real, the rule gives the gradient itself.
"""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import COMPLEX_DTYPES, DTYPES
from .elementwise import IN_PLACE, unary
from .operands import expect_tensors, promoted, write_out

# What users find of this family, and where: see ops/public.py.
BOTH = "angle conj conj_physical isreal sgn"
FUNCTIONS = "complex imag polar real"

_conj = unary(
    "conj_physical", "conjugate", lambda g, xp: xp.conjugate(g), to_float=False, doc="re - im j, computed at once"
)
angle = unary(
    "angle",
    "angle",
    # of a real number it is a step
    lambda g, x, xp: xp.where(x == 0, xp.zeros_like(x), g * 1j * x / _square(xp, x)) if _is_complex(x) else xp.zeros_like(g),
    in_place=False,
    doc="the argument of a complex number; of a real one 0, or pi if it is negative",
)
sgn = unary(
    "sgn",
    "sgn",
    # PyTorch's gradient of x / |x| is (g - real(g * conj(out)) * out) / |x|
    lambda g, x, out, xp: _sgn_rule(g, x, out, xp) if _is_complex(x) else xp.zeros_like(g),
    to_float=False,
    doc="x / abs(x), and 0 for 0; of real numbers the sign",
)


def _is_complex(x: Any) -> bool:
    return x.dtype.is_complex if isinstance(x, Tensor) else x.dtype in COMPLEX_DTYPES


def _square(xp: Any, x: Any) -> Any:
    square = x.real * x.real + x.imag * x.imag
    return xp.where(square == 0, xp.ones_like(square), square)


def _sgn_rule(g: Any, x: Any, out: Any, xp: Any) -> Any:
    size = xp.abs(x)
    along = (g * out).real * xp.conjugate(out)
    return xp.where(size == 0, xp.zeros_like(g), (g - along) / xp.where(size == 0, xp.ones_like(size), size))


def _with_real_as_is(in_place: Any) -> Any:
    def conj_physical_(input: Tensor) -> Tensor:
        """`conj_physical` in place."""
        return in_place(input) if input._array.dtype in COMPLEX_DTYPES else input

    return conj_physical_


# Views, so that a change of x.real changes x
IN_PLACE["conj_physical_"] = _with_real_as_is(IN_PLACE["conj_physical_"])
_real = Operation("real", lambda xp, x: x.real, is_view=True, x=lambda g: g)
_imag = Operation("imag", lambda xp, x: x.imag, is_view=True, x=lambda g: g * 1j)


def real(input: Tensor) -> Tensor:
    """The real part, a view; of real tensors, themselves. As ``torch.real``."""
    return apply(_real, input) if input._array.dtype in COMPLEX_DTYPES else input


def imag(input: Tensor) -> Tensor:
    """The imaginary part, a view; as ``torch.imag``.

    Raises
    ------
    RuntimeError
        For real tensors.
    """
    if input._array.dtype not in COMPLEX_DTYPES:
        raise RuntimeError(f"imag is not implemented for tensors with non-complex dtypes, got {DTYPES[input._array.dtype]}")
    return apply(_imag, input)


def conj(input: Tensor) -> Tensor:
    """re - im j; real tensors as they are. As ``torch.conj``, but computed at once."""
    return _conj(input) if input._array.dtype in COMPLEX_DTYPES else input


def conj_physical(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """re - im j; real tensors as they are. As ``torch.conj_physical``."""
    result = conj(input)
    return result if out is None else write_out("conj_physical", result, out)


def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part is 0, elementwise; as ``torch.isreal``."""
    a = input._array
    xp = namespace(a)
    return wrap(xp.asarray(a.imag == 0 if a.dtype in COMPLEX_DTYPES else xp.ones(a.shape, dt.bool_.numpy)))


_complex = Operation(
    "complex",
    lambda xp, real, imag: xp.to_complex(real, imag),
    # the graph has conjugated g
    real=lambda g: g.real,
    imag=lambda g: -g.imag,
)
_polar = Operation(
    "polar",
    lambda xp, abs, angle: xp.to_complex(abs * xp.cos(angle), abs * xp.sin(angle)),
    abs=lambda g, angle, xp: g.real * xp.cos(angle) - g.imag * xp.sin(angle),
    angle=lambda g, abs, angle, xp: -abs * (g.real * xp.sin(angle) + g.imag * xp.cos(angle)),
)


def _check_parts(name: str, x: Tensor, y: Tensor) -> list[Tensor]:
    expect_tensors(name, x, y)
    if x._array.dtype is not y._array.dtype:
        raise RuntimeError(f"{name}(): expected object of scalar type {x.dtype} but got scalar type {y.dtype} for second argument")
    if x._array.dtype not in dt.FLOATING or x.dtype.itemsize < 4:
        raise RuntimeError(f"{name}(): expected both inputs to be float32 or float64 tensors but got {x.dtype} and {y.dtype}")
    return promoted(name, x, y)


def _into(name: str, result: Tensor, out: Tensor | None) -> Tensor:
    if out is None:
        return result
    if out._array.dtype != result._array.dtype:
        raise RuntimeError(f"{name}(): expected object of scalar type {result.dtype} but got scalar type {out.dtype} for argument 'out'")
    return write_out(name, result, out)


def complex(real: Tensor, imag: Tensor, *, out: Tensor | None = None) -> Tensor:
    """A complex tensor of its real and its imaginary part; as ``torch.complex``.

    Parameters
    ----------
    real, imag : Tensor
        float32, for complex64, or float64, for complex128; broadcast with each other.

    Raises
    ------
    RuntimeError
        For other dtypes, or two different ones.
    """
    return _into("complex", apply(_complex, *_check_parts("complex", real, imag)), out)


def polar(abs: Tensor, angle: Tensor, *, out: Tensor | None = None) -> Tensor:
    """A complex tensor of absolute values and angles; as ``torch.polar``.

    Parameters
    ----------
    abs, angle : Tensor
        Floating point, of one dtype.
    """
    return _into("polar", apply(_polar, *_check_parts("polar", abs, angle)), out)
