"""Arrays on common memory: which of them are stored, and as what views of these the others come back.

Arrays whose address ranges overlap are stored together, the largest as it is if it covers the others, else the whole
range as a flat array. Views that do not overlap, such as parameters in one flat buffer, are stored each for itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import cpu, namespace
from ..backend.dtypes import DTYPES, as_dtype, complex128, float64, uint8

__all__ = ["Place", "View", "address", "extent", "plan", "view"]


class View(NamedTuple):
    """Elements within the bytes of a stored array.

    Attributes
    ----------
    dtype : str
    shape, strides : list of int
        Strides in bytes.
    offset : int
        Bytes from the stored array's begin to the first element.
    """

    dtype: str
    shape: list[int]
    strides: list[int]
    offset: int

    def of(self, stored: Any) -> Any:
        """The view of a stored array on the CPU.

        Raises
        ------
        ValueError, TypeError
            If it would reach beyond the array.
        """
        dtype = as_dtype(self.dtype).numpy
        memory = stored.reshape(-1).view(uint8.numpy)
        array = cpu.ndarray(tuple(self.shape), dtype, buffer=memory, offset=self.offset, strides=tuple(self.strides))
        if 0 in self.strides:
            array.flags.writeable = False  # an expanded tensor, in which one element is many
        return array


class Place(NamedTuple):
    """Where an array is stored: under a name, as it is or as a view of what has that name."""

    name: str
    view: View | None


class _Range(NamedTuple):
    position: int
    begin: int
    end: int


def plan(named: list[tuple[str, Any]]) -> tuple[dict[str, Any], list[Place]]:
    """What to store of named arrays, and where each of them is then.

    Parameters
    ----------
    named : list of (str, array)
        Names are different, arrays need not be.

    Returns
    -------
    stored : dict of str to array
        In the order of the names.
    places : list of Place
        One for each array.
    """
    stored: dict[int, Any] = {}
    places: list[Place] = [Place(name, None) for name, _ in named]
    for group in _overlapping(named):
        first = min(group)
        name, begin = named[first.position][0], min(r.begin for r in group)
        carrier = _carrier(named, group)
        if len(group) == 1 or carrier is None:
            for r in group:
                stored[r.position] = named[r.position][1]
            continue
        stored[first.position] = carrier
        for r in group:
            array = named[r.position][1]
            same = (array.dtype, array.shape, array.strides) == (carrier.dtype, carrier.shape, carrier.strides)
            places[r.position] = Place(name, None if same and address(array) == begin else view(array, begin))
    result = {}
    for position in sorted(stored):
        name, array = named[position][0], stored[position]
        result[name] = _real(array)
        if array.dtype == complex128.numpy:  # the format has no such elements: they are stored as pairs of float64
            for i, place in enumerate(places):
                if place.name == name and place.view is None:
                    plain = cpu.empty(array.shape, array.dtype)
                    places[i] = Place(name, View("complex128", list(array.shape), list(plain.strides), 0))
    return result, places


def _overlapping(named: list[tuple[str, Any]]) -> list[list[_Range]]:
    """Groups of arrays whose address ranges overlap; most have one member."""
    by_memory: dict[Any, list[_Range]] = {}
    for position, (_, a) in enumerate(named):
        begin, end = extent(a)
        key = (namespace(a).name, namespace(a).storage_of(a)[0]) if a.size else ("empty", position)
        by_memory.setdefault(key, []).append(_Range(position, begin, end))
    groups: list[list[_Range]] = []
    for ranges in by_memory.values():
        reach = -1
        for r in sorted(ranges, key=lambda r: r.begin):
            if r.begin < reach:
                groups[-1].append(r)
            else:
                groups.append([r])
            reach = max(reach, r.end)
    return groups


def _carrier(named: list[tuple[str, Any]], group: list[_Range]) -> Any:
    """The array to store for a group: a member that covers all, or all its memory as a flat array; None if it has gaps
    that no element size divides.
    """
    begin, end = min(r.begin for r in group), max(r.end for r in group)
    members = [named[r.position][1] for r in sorted(group)]
    for a in members:
        if a.flags.c_contiguous and a.nbytes == end - begin:
            return a
    finest = min(members, key=lambda a: a.itemsize)
    if (end - begin) % finest.itemsize:
        return None
    count = (end - begin) // finest.itemsize
    return namespace(finest).restride(finest, (count,), (finest.itemsize,), begin - address(finest))


def view(a: Any, begin: int) -> View:
    """An array as a view of what is stored from an address on."""
    return View(DTYPES[a.dtype].name, list(a.shape), list(a.strides), address(a) - begin)


def _real(a: Any) -> Any:
    if a.dtype != complex128.numpy:
        return a
    return namespace(a).ascontiguousarray(a).reshape(-1).view(float64.numpy).reshape(*a.shape, 2)


def address(a: Any) -> int:
    """The address of an array's first element."""
    return namespace(a).address_of(a)


def extent(a: Any) -> tuple[int, int]:
    """The addresses from an array's lowest byte to behind its highest."""
    steps = [stride * (n - 1) for stride, n in zip(a.strides, a.shape)]
    first = address(a)
    return first + sum(s for s in steps if s < 0), first + sum(s for s in steps if s > 0) + a.itemsize
