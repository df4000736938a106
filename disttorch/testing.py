"""Comparing tensors in tests; as ``torch.testing``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .backend import NAMESPACES, cpu
from .backend import dtypes as dt
from .ops.comparison import isclose
from .tensor import Tensor

__all__ = ["assert_close"]

#: relative and absolute tolerance; 0 for every other dtype
_TOLERANCES: dict[dt.dtype, tuple[float, float]] = {
    dt.float16: (1e-3, 1e-5),
    dt.bfloat16: (1.6e-2, 1e-5),
    dt.float32: (1.3e-6, 1e-5),
    dt.float64: (1e-7, 1e-7),
    dt.complex64: (1.3e-6, 1e-5),
    dt.complex128: (1e-7, 1e-7),
}
_NUMBERS: dict[type, dt.dtype] = {bool: dt.bool_, int: dt.int64, float: dt.float64, complex: dt.complex128}
Message = str | Callable[[str], str] | None


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Message = None,
) -> None:
    """Raise unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere; as ``torch.testing.assert_close``.

    Parameters
    ----------
    actual, expected : Tensor, array, number, None, or sequences and mappings of these
    allow_subclasses : bool
        Whether tensors may be of different classes of which one is derived from the other.
    rtol, atol : float, optional
        Both or none; by the dtype unless given, and 0 where that is none of floating point.
    equal_nan : bool
        Whether NaN is close to NaN.
    check_device, check_dtype, check_stride : bool
        Whether these must be the same, too; where they need not, values are compared on `actual`'s device, as the promoted dtype.
    check_layout : bool
        Accepted: there is one layout.
    msg : str or callable, optional
        Instead of the message, or to make another one of it.

    Raises
    ------
    AssertionError
        It says how many elements differ, and where most.
    ValueError
        If one of the tolerances is given alone.
    TypeError
        If there is something that cannot be compared.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.testing.assert_close(disttorch.tensor([1.0, 2.0]), disttorch.tensor([1.0, 2.000001]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError(f"assert_close: rtol and atol go together, and {'rtol' if rtol is None else 'atol'} is not given")
    checks = {"device": check_device, "dtype": check_dtype, "stride": check_stride, "subclasses": allow_subclasses}
    _compare(actual, expected, (rtol, atol), equal_nan, checks, msg, "")


def _compare(actual: Any, expected: Any, given: Any, equal_nan: bool, checks: dict[str, bool], msg: Message, place: str) -> None:
    def fail(message: str) -> None:
        if place:
            message = f"at {place}: {message}"
        raise AssertionError(msg(message) if callable(msg) else msg or message)

    def below(key: Any) -> Any:
        return _compare(actual[key], expected[key], given, equal_nan, checks, msg, f"{place}[{key!r}]")

    actual, expected = _as_number(actual), _as_number(expected)
    if isinstance(actual, (str, bytes)) or isinstance(expected, (str, bytes)):
        raise _cannot(actual, expected)
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        missing, more = expected.keys() - actual.keys(), actual.keys() - expected.keys()
        if missing or more:
            fail(f"the mappings have different keys: only expected has {sorted(missing, key=str)}, only actual {sorted(more, key=str)}")
        for key in actual:
            below(key)
    elif isinstance(actual, Sequence) and isinstance(expected, Sequence):
        if len(actual) != len(expected):
            fail(f"the sequences have {len(actual)} items and {len(expected)}")
        for index in range(len(actual)):
            below(index)
    elif actual is None or expected is None:
        if actual is not expected:
            fail(f"one of the two is None: actual is {actual!r}, expected {expected!r}")
    elif isinstance(actual, bool) and isinstance(expected, bool):
        if actual is not expected:
            fail(f"actual is {actual}, expected {expected}")
    elif type(actual) in _NUMBERS and type(expected) in _NUMBERS:
        _compare_numbers(actual, expected, given, equal_nan, checks, fail)
    else:
        _compare_tensors(actual, expected, given, equal_nan, checks, fail)


def _as_number(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    is_scalar = type(value) in NAMESPACES and not isinstance(value, (Tensor, cpu.ndarray)) and hasattr(value, "item")
    return value.item() if is_scalar else value


def _cannot(actual: Any, expected: Any) -> TypeError:
    return TypeError(f"assert_close cannot compare {type(actual).__name__} with {type(expected).__name__}")


def _compare_numbers(actual: Any, expected: Any, given: Any, equal_nan: bool, checks: dict[str, bool], fail: Callable) -> None:
    if checks["dtype"] and type(actual) is not type(expected):
        fail(f"actual is of type {type(actual).__name__}, expected of {type(expected).__name__}")
    rtol, atol = _tolerances(given, _NUMBERS[type(actual)], _NUMBERS[type(expected)])
    if isinstance(actual, complex) or isinstance(expected, complex):
        close = actual == expected or abs(actual - expected) <= atol + rtol * abs(expected)
    else:
        close = actual == expected or (float("-inf") < expected < float("inf") and abs(actual - expected) <= atol + rtol * abs(expected))
    if not close and not (equal_nan and actual != actual and expected != expected):
        fail(_of_a_scalar(actual, expected, rtol, atol))


def _compare_tensors(actual: Any, expected: Any, given: Any, equal_nan: bool, checks: dict[str, bool], fail: Callable) -> None:
    from .ops.creation import as_tensor

    kinds = type(actual), type(expected)
    related = issubclass(kinds[0], kinds[1]) or issubclass(kinds[1], kinds[0])
    if not related or not (checks["subclasses"] or kinds[0] is kinds[1]) or isinstance(actual, (Mapping, Sequence)):
        raise _cannot(actual, expected)
    try:
        actual, expected = (t.detach() if isinstance(t, Tensor) else as_tensor(t) for t in (actual, expected))
    except (TypeError, ValueError, RuntimeError) as error:
        raise _cannot(actual, expected) from error
    if actual.shape != expected.shape:
        fail(f"the shapes differ: actual has {list(actual.shape)}, expected {list(expected.shape)}")
    for name in ("device", "dtype", "stride"):
        of_each = [getattr(t, name)() if name == "stride" else getattr(t, name) for t in (actual, expected)]
        if checks[name] and of_each[0] != of_each[1]:
            fail(f"the {name}s differ: actual has {of_each[0]}, expected {of_each[1]}")
    rtol, atol = _tolerances(given, actual.dtype, expected.dtype)
    expected = expected.to(actual.device)
    common = dt.promote_types(actual.dtype, expected.dtype)
    actual, expected = actual.to(common), expected.to(common)
    close = isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan)
    if bool(close.all()):
        return
    if not actual.ndim:
        fail(_of_a_scalar(actual.item(), expected.item(), rtol, atol))
    fail(_of_elements(actual, expected, close, rtol, atol))


def _tolerances(given: Any, *dtypes: dt.dtype) -> tuple[float, float]:
    if given[0] is not None:
        return given
    each = [_TOLERANCES.get(d, (0.0, 0.0)) for d in dtypes]
    return max(r for r, _ in each), max(a for _, a in each)


def _within(rtol: float, atol: float) -> str:
    return f"(allowed: {atol} + {rtol} * |expected|)"


def _of_a_scalar(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    absolute = abs(actual - expected)
    relative = f", {absolute / abs(expected)} of it" if expected else ""
    return f"actual is {actual}, expected {expected}; they differ by {absolute}{relative} {_within(rtol, atol)}"


def _of_elements(actual: Tensor, expected: Tensor, close: Tensor, rtol: float, atol: float) -> str:
    count = int((~close).sum())
    if actual.dtype is dt.bool_:
        actual, expected = actual.to(dt.int64), expected.to(dt.int64)
    absolute = (actual - expected).abs()
    lines = [f"{count} of {close.numel()} elements differ ({count / close.numel():.1%}) {_within(rtol, atol)}"]
    for name, difference in (("absolute", absolute), ("relative", absolute / expected.abs())):
        difference = difference.masked_fill(close, 0)
        flat = int(difference.argmax())
        index: list[int] = []
        for size in reversed(difference.shape):
            flat, i = divmod(flat, size)
            index.insert(0, i)
        at = tuple(index)
        lines.append(f"largest {name} difference: {difference[at].item()} at {at}, {actual[at].item()} instead of {expected[at].item()}")
    return "\n".join(lines)
