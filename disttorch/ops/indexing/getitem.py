"""``x[...]`` and ``x[...] = y`` in NumPy's forms, with PyTorch's meaning: integers and slices are taken first, as views."""

from __future__ import annotations

import operator
from typing import Any

from ...autograd.batching import lift_tensor
from ...autograd.grad_mode import recording
from ...autograd.operation import apply, check_in_place
from ...autograd.variable import Tensor, bump_version, wrap
from ...autograd.views import AssignedView, set_history, view_of
from ...backend import NAMESPACES, namespace
from ...backend import dtypes as dt
from ...backend.batched import BatchedArray
from ...backend.dtypes import DIFFERENTIABLE, DTYPES
from ..taking import index_op, select_op, slice_op

# These two are Tensor's operators (tensor/operators.py); index_put and its kin read an index as they do.
__all__ = ["advanced_index", "getitem", "setitem"]

WHOLE = slice(None)
BOOL, UINT8, INT32, INT64 = dt.bool_.numpy, dt.uint8.numpy, dt.PUBLIC_DTYPES["int32"].numpy, dt.int64.numpy

def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]`` with integers, slices, ``...``, None (views), integer and bool tensors, lists (copies).

    Raises
    ------
    IndexError
        If the index does not fit the shape.
    """
    kind = index.__class__
    if kind is int:
        try:
            # a view also where only one element is left
            return view_of(select_op, input, input._array[index, ...], {"index": (index, ...)})
        except IndexError as error:
            raise _refused(input, error) from None
    if kind is slice and _is_plain(index):
        try:
            return view_of(slice_op, input, input._array[index], {"index": index})
        except IndexError as error:
            raise _refused(input, error) from None
    if kind is tuple:
        ellipses = 0
        for part in index:
            if part is Ellipsis:
                ellipses += 1
            elif part.__class__ is not int and part is not None and not (part.__class__ is slice and _is_plain(part)):
                ellipses = 2  # as good as: the index must be read part by part
                break
        if ellipses < 2:  # NumPy refuses two
            try:
                if not ellipses:
                    index = (*index, ...)
                return view_of(slice_op, input, input._array[index], {"index": index})
            except IndexError as error:
                raise _refused(input, error) from None
    basic, special = _read(input, index)
    try:
        if not special:
            return view_of(slice_op, input, input._array[basic], {"index": basic})
        taken = input if _takes_all(basic) else view_of(slice_op, input, input._array[basic], {"index": basic})
        if any(isinstance(array, BatchedArray) for _, array in special):
            taken = lift_tensor(taken)
        return apply(index_op, taken, index=advanced_index(taken, special))
    except IndexError as error:
        raise _refused(input, error) from None


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``, recorded: the gradient of what was overwritten is zero.

    Raises
    ------
    IndexError
        If the index does not fit the shape.
    RuntimeError
        If the value does not broadcast to what is indexed.
    TypeError
        If the value is no number, tensor or array.
    """
    a = input._array
    basic, special = _read(input, index)
    source = value if isinstance(value, Tensor) else _as_source(input, value)
    check_in_place("setitem", input, (source,))
    if special and isinstance(value, Tensor) and source._array.dtype != a.dtype and not _is_number_for_mask(source, special):
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {input.dtype} for the destination and {source.dtype} "
            "for the source."
        )
    array = source._array
    if array.__class__ is not a.__class__:
        if source.device != input.device:
            source = source.to(device=input.device)  # recorded: the gradient goes back to where the value was
            array = source._array
        else:
            array = NAMESPACES[array.__class__].move(array, input.device)
    if array.dtype.kind == "c" and a.dtype.kind != "c":
        array = array.real
    try:
        if special:
            part = a if _takes_all(basic) else a[basic]
            where = advanced_index(wrap(part), special)
            part[where] = array
        else:
            where = None
            a[basic] = array
    except IndexError as error:
        raise _refused(input, error) from None
    except ValueError:
        raise RuntimeError(
            f"shape mismatch: value of shape {list(source.shape)} cannot be broadcast to the indexed part of a tensor of shape "
            f"{list(a.shape)}"
        ) from None
    bump_version(input)
    if recording.get() and (source._node is not None or input._node is not None) and a.dtype in DIFFERENTIABLE:
        _record_assignment(input, basic, where, source)


def _as_source(input: Tensor, value: Any) -> Tensor:
    d = DTYPES[input._array.dtype]
    if isinstance(value, (bool, int, float, complex)):
        if isinstance(value, complex) and not d.is_complex:
            raise RuntimeError(f"value {value!r} cannot be converted to {d} without overflow")
        xp = namespace(input._array)
        return wrap(xp.asarray(xp.scalar(value, input._array.dtype)))
    if not hasattr(value, "__array__") and not hasattr(value, "__len__"):
        raise TypeError(f"can't assign a {type(value).__name__} to a {d} tensor")
    from ..creation import as_tensor

    try:
        return as_tensor(value)
    except TypeError:
        raise TypeError(f"can't assign a {type(value).__name__} to a {d} tensor") from None


def _is_number_for_mask(source: Tensor, special: list) -> bool:
    """A tensor without dimensions where a mask says is converted, as by masked_fill."""
    return not source._array.ndim and all(array.dtype == BOOL for _, array in special)


def _record_assignment(input: Tensor, basic: Any, where: Any, source: Tensor) -> None:
    path: tuple = () if where is not None and _takes_all(basic) else ((slice_op, {"index": basic}),)
    part = input._array if not path else input._array[basic]
    if where is not None:
        path, part = (*path, (index_op, {"index": where})), part[where]
    value = source.to(dtype=DTYPES[input._array.dtype])
    extra = value.ndim - part.ndim
    if extra > 0:  # leading dimensions of size 1 may be more than there are
        value = value.reshape(value.shape[extra:])
    set_history(input, AssignedView(input, path, value.expand(part.shape)._node))


# --- an index read --------------------------------------------------------------------------------------------------


def _is_plain(part: slice) -> bool:
    """Whether a slice goes from integer to integer by steps of 1."""
    start, stop = part.start, part.stop
    return part.step is None and (start is None or start.__class__ is int) and (stop is None or stop.__class__ is int)


def _takes_all(basic: tuple) -> bool:
    return all(p is Ellipsis or (p.__class__ is slice and p == WHOLE) for p in basic)


def _read(input: Tensor, index: Any) -> tuple[tuple, list[tuple[int, Any]]]:
    """An index as a basic one, which makes a view, and (dimension of that view, integer or bool array) for the rest."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if isinstance(index, list) and len(index) < 32 and any(_is_part(i) for i in index):
        parts = list(index)  # PyTorch takes such a list for a tuple
    a = input._array
    xp = namespace(a)
    basic: list[Any] = []
    special: list[tuple[int, Any]] = []
    place = 0  # in the view
    for number, part in enumerate(parts):
        kind = part.__class__
        if kind is slice:
            basic.append(part if _is_plain(part) else _bounds(part))
            place += 1
        elif part is None:
            basic.append(None)
            place += 1
        elif part is Ellipsis:
            if basic.count(Ellipsis):
                basic.append(WHOLE)  # a second one stands for one dimension at most
                if a.ndim - _dimensions(parts) < 0:
                    basic.pop()
                continue
            basic.append(Ellipsis)
            place += max(0, a.ndim - _dimensions(parts))
        elif kind is bool:
            basic.append(None)
            special.append((place, xp.asarray([0][: int(part)], INT64)))
            place += 1
        elif isinstance(part, Tensor) or hasattr(part, "__array__") or isinstance(part, (list, tuple, range)):
            array = _index_array(part, xp, input)
            if array.ndim or (array.dtype != BOOL and isinstance(array, BatchedArray)):  # samples may have different numbers
                special.append((place, array))
                if array.dtype == BOOL:
                    _check_mask(array, a, number, parts)
                    basic.extend([WHOLE] * array.ndim)
                    place += array.ndim
                else:
                    basic.append(WHOLE)
                    place += 1
            elif array.dtype == BOOL:
                basic.append(None)
                special.append((place, xp.asarray([0][: int(array)], INT64)))
                place += 1
            else:
                basic.append(int(array))
        elif hasattr(part, "__index__"):
            basic.append(part.__index__())
        elif isinstance(part, (str, bytes)):
            raise TypeError(f"a tensor cannot be indexed by {part!r}")
        else:
            raise IndexError(
                "only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices "
                f"(got {type(part).__name__})"
            )
    if not basic.count(Ellipsis):
        basic.append(Ellipsis)
    if _dimensions(parts) > a.ndim:
        raise IndexError(f"too many indices for tensor of dimension {a.ndim}")
    return tuple(basic), special


def _is_part(value: Any) -> bool:
    """Whether a value in a list says that the list is meant as a tuple."""
    return value is None or value is Ellipsis or isinstance(value, (slice, list, tuple, range)) or bool(getattr(value, "ndim", 0))


def _dimensions(parts: list) -> int:
    """How many dimensions of the tensor an index names."""
    count = 0
    for part in parts:
        if part is None or part is Ellipsis or part.__class__ is bool:
            continue
        dtype = getattr(part, "dtype", None)
        if dtype is not None and str(dtype).rpartition(".")[2] in ("bool", "uint8"):
            count += part.ndim
        elif isinstance(part, list) and _holds_bools(part):
            count += _depth(part)
        else:
            count += 1
    return count


def _holds_bools(values: Any) -> bool:
    while isinstance(values, (list, tuple)) and values:
        values = values[0]
    return isinstance(values, bool)


def _depth(values: Any) -> int:
    depth = 0
    while isinstance(values, (list, tuple)):
        depth, values = depth + 1, values[0] if values else None
    return depth


def _bounds(part: slice) -> slice:
    start, stop, step = (
        None if v is None else (int(v) if isinstance(v, Tensor) else operator.index(v)) for v in (part.start, part.stop, part.step)
    )
    if step is not None and step <= 0:
        raise ValueError(f"step must be greater than zero, got {step}; see flip()")
    return slice(start, stop, step)


def _index_array(part: Any, xp: Any, input: Tensor) -> Any:
    """An integer or bool array of the tensor's world."""
    if isinstance(part, Tensor):
        array = part._array
    elif part.__class__ in NAMESPACES:
        array = part
    else:
        if hasattr(part, "__array__"):
            array = xp.asarray(part)
        else:
            plain = _plain_list(part)
            array = xp.array(plain) if plain else xp.zeros((0,), INT64)
            if array.dtype.kind == "f":
                array = array.astype(INT64)  # as PyTorch makes an index of a list
    if array.dtype == UINT8:
        array = array.astype(BOOL)
    if array.dtype not in dt.INTEGRAL:
        raise IndexError(f"tensors used as indices must be integers or bool, not {DTYPES[array.dtype]}")
    if array.__class__ is not input._array.__class__ and not isinstance(array, BatchedArray):
        array = NAMESPACES[array.__class__].move(array, input.device)
    return array


def _plain_list(values: Any) -> Any:
    return [v.tolist() if isinstance(v, Tensor) else _plain_list(v) if isinstance(v, (list, tuple, range)) else v for v in values]


def _check_mask(mask: Any, a: Any, number: int, parts: list) -> None:
    before = _dimensions(parts[:number])
    if Ellipsis in [p for p in parts[:number] if p.__class__ is type(Ellipsis)]:
        before += a.ndim - _dimensions(parts)
    shape = tuple(a.shape[before : before + mask.ndim])
    if shape != tuple(mask.shape):
        raise IndexError(
            f"The shape of the mask {list(mask.shape)} at index {number} does not match the shape of the indexed tensor "
            f"{list(a.shape)} at index {before}"
        )


def advanced_index(input: Tensor, special: list[tuple[int, Any]]) -> Any:
    """(dimension, array) pairs as the array library's index: arrays, and whole slices before and between them."""
    if len(special) == 1 and special[0][0] == 0:
        array = special[0][1]
        # a mask of one dimension among others is taken faster as integers
        return array if array.dtype != BOOL or array.ndim == input._array.ndim else namespace(array).nonzero(array)
    parts: list[Any] = []
    for place, array in special:
        parts.extend([WHOLE] * (place - len(parts)))
        parts.extend(namespace(array).nonzero(array) if array.dtype == BOOL else [array])
    return tuple(parts)


def _refused(x: Tensor, error: Exception) -> IndexError:
    text = str(error)
    if "out of bounds" in text:
        return IndexError(f"{text}; the tensor's shape is {list(x.shape)}")
    if "too many indices" in text:
        return IndexError(f"too many indices for tensor of dimension {x.ndim}")
    return IndexError(f"cannot index a tensor of shape {list(x.shape)}: {error}")
