"""What is around the tensors, as JSON, and back: `KINDS` is the table of what can be saved.

None, bools, ints, finite floats, strings and lists are JSON's own; everything else is an object with one key, its kind.
"""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, device, namespace
from ..backend.dtypes import DTYPES, as_dtype, dtype
from ..ops.creation import require_grad
from ..ops.dims import Size
from .container import FileError
from .rebuild import as_parameter, is_parameter
from .sharing import View, plan

__all__ = ["Located", "decode", "encode", "unsupported"]

_VERSION = 1
_PLAIN = (type(None), bool, int, str)


def encode(obj: Any) -> tuple[str | None, dict[str, Any]]:
    """An object's structure, and the arrays to store with it by name. A dict of CPU tensors by name has no structure.

    Raises
    ------
    TypeError
        If something in the object cannot be saved; the message names its place.
    """
    walk = _Walk()
    tree = walk.encode(obj, "obj", ())
    stored, places = plan([(leaf.name, leaf.array) for leaf in walk.leaves])
    for leaf, place in zip(walk.leaves, places):
        leaf.node["tensor"] = place.name
        if place.view is not None:
            leaf.node["view"] = list(place.view)
    if type(obj) is dict and obj and _is_plain(obj, tree["dict"]):
        return None, stored
    return json.dumps({"version": _VERSION, "structure": tree}, allow_nan=False, separators=(",", ":")), stored


def _is_plain(obj: dict, items: list) -> bool:
    """Whether a file that says nothing about its structure gives the same dict of tensors."""
    return all(type(key) is str and tree == {"tensor": key} for (key, _), (_, tree) in zip(obj.items(), items)) and all(
        type(value) is Tensor for value in obj.values()
    )


def decode(text: str, located: Located) -> Any:
    """The object that a structure describes, with its tensors.

    Raises
    ------
    FileError
        If the structure is damaged, or from a newer version.
    """
    try:
        outer = json.loads(text)
        if outer["version"] != _VERSION:
            raise FileError(f"has a structure of format {outer['version']}; this version of disttorch knows {_VERSION}")
        return _decode(outer["structure"], located)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise FileError(f"is damaged: the structure around its tensors cannot be read ({error!r})") from error


class Located:
    """A file's arrays as tensors, each brought once to where it shall be.

    Parameters
    ----------
    arrays : dict of str to array
        On the CPU.
    locate : callable
        From a tensor on the CPU and the device that it was saved from to the tensor there.
    """

    def __init__(self, arrays: dict[str, Any], locate: Callable[[Tensor, str], Tensor]) -> None:
        self.arrays = arrays
        self.locate = locate
        self.moved: dict[tuple[str, str], Tensor] = {}
        self.objects: dict[int, Tensor] = {}

    def array(self, name: str, view: View | None = None) -> Any:
        """What is stored under a name, or a view of it, on the CPU."""
        if name not in self.arrays:
            raise FileError(f"is damaged: there is no tensor {name!r}")
        return self.arrays[name] if view is None else view.of(self.arrays[name])

    def tensor(self, name: str, view: View | None = None, saved_from: str = "cpu") -> Tensor:
        """The same as a tensor where it shall be; views of one name share memory there too."""
        host = self.array(name, view)
        key = name, saved_from
        if key not in self.moved:
            self.moved[key] = self.locate(wrap(self.arrays[name]), saved_from)
        base = self.moved[key]
        if view is None:
            # one tensor for each that was saved: they may be used differently, on common memory
            return wrap(base._array)
        if isinstance(base._array, cpu.ndarray) and base._array is self.arrays[name]:
            return wrap(host)
        return _view_there(base, view)


def _view_there(base: Tensor, view: View) -> Tensor:
    """A view of a tensor that was moved; that it is within its bounds was seen on the CPU."""
    d = as_dtype(view.dtype).numpy
    flat = base._array.reshape(-1).view(as_dtype("uint8").numpy)
    whole = flat[: flat.size // d.itemsize * d.itemsize].view(d)
    return wrap(namespace(whole).restride(whole, tuple(view.shape), tuple(view.strides), view.offset))


# --- encoding ---------------------------------------------------------------------------------------------------------


class _Leaf(NamedTuple):
    name: str
    array: Any
    node: dict[str, Any]


class _Walk:
    """One walk through an object: the tensors met, by names that are theirs alone."""

    def __init__(self) -> None:
        self.leaves: list[_Leaf] = []
        self.names: set[str] = {"__metadata__"}
        self.inside: set[int] = set()
        self.tensors: dict[int, dict[str, Any]] = {}

    def encode(self, obj: Any, place: str, keys: tuple) -> Any:
        if type(obj) in _PLAIN or (type(obj) is float and math.isfinite(obj)):
            return obj
        kind = _KIND_OF.get(type(obj)) or next((k for k in KINDS if isinstance(obj, k.broadly)), None)
        if kind is None:
            raise TypeError(unsupported(obj, place))
        if id(obj) in self.inside:
            raise TypeError(f"save: {place} contains itself")
        self.inside.add(id(obj))
        try:
            node = kind.encode(self, obj, place, keys)
        finally:
            self.inside.discard(id(obj))
        return node if kind.name in ("list", "tensor", "array", "scalar") else {kind.name: node}

    def items(self, obj: dict, place: str, keys: tuple) -> list:
        pairs = []
        for key, value in obj.items():
            inner = f"{place}[{key!r}]"
            pairs.append([self.encode(key, f"{inner} (the key)", (*keys, "key")), self.encode(value, inner, (*keys, key))])
        return pairs

    def elements(self, obj: Any, place: str, keys: tuple) -> list:
        return [self.encode(value, f"{place}[{i}]", (*keys, i)) for i, value in enumerate(obj)]

    def leaf(self, array: Any, keys: tuple, more: dict[str, Any]) -> dict:
        name = wanted = ".".join(str(key) for key in keys).encode("utf-8", "backslashreplace").decode() or "tensor"
        count = 1
        while name in self.names:
            count += 1
            name = f"{wanted}#{count}"
        self.names.add(name)
        node = {"tensor": name, **more}
        self.leaves.append(_Leaf(name, array, node))
        return node


def unsupported(obj: Any, place: str) -> str:
    """The message for something that cannot be saved: what it is, where, and what to do."""
    hint = ""
    if callable(getattr(obj, "state_dict", None)):
        hint = "; save its state_dict() instead"
    elif isinstance(obj, (dict, list, tuple)):
        hint = f"; convert it to a plain {next(t.__name__ for t in (dict, list, tuple) if isinstance(obj, t))}"
    elif callable(obj):
        hint = "; functions and classes belong into the program"
    name = type(obj).__qualname__
    what = "a function" if name in ("function", "builtin_function_or_method") else f"of type {name}"
    known = ", ".join([*(k.name for k in KINDS), *(t.__name__ for t in _PLAIN)])
    return f"save: {place} is {what}, which cannot be saved{hint}. What can be saved: {known}"


def _tensor_out(walk: _Walk, obj: Tensor, place: str, keys: tuple) -> dict:
    if id(obj) in walk.tensors:
        node = walk.tensors[id(obj)]
        node.setdefault("object", len(walk.leaves))  # the same Tensor again, to be one Tensor when loaded
        return node
    more: dict[str, Any] = {}
    if str(obj.device) != "cpu":
        more["device"] = str(obj.device)
    if obj.requires_grad:
        more["requires_grad"] = True
    if is_parameter(obj):
        more["parameter"] = True
    node = walk.tensors[id(obj)] = walk.leaf(obj._array, keys, more)
    return node


def _array_out(walk: _Walk, obj: Any, place: str, keys: tuple) -> dict:
    native = obj.dtype.newbyteorder("=")
    if native not in DTYPES:
        raise TypeError(f"save: {place} is an array of {obj.dtype}, which no tensor can have")
    return walk.leaf(obj.astype(native, copy=False), keys, {"array": True})


def _scalar_out(walk: _Walk, obj: Any, place: str, keys: tuple) -> dict:
    return walk.leaf(cpu.asarray(obj), keys, {"scalar": True})


# --- decoding ---------------------------------------------------------------------------------------------------------


def _decode(tree: Any, located: Located) -> Any:
    if isinstance(tree, list):
        return [_decode(value, located) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return _tensor_in(tree, located)
    ((name, value),) = tree.items()
    for kind in KINDS:
        if kind.name == name:
            return kind.decode(value, located)
    raise FileError(f"has a value of the kind {name!r}, which this version of disttorch does not know")


def _tensor_in(tree: dict, located: Located) -> Any:
    view = View(*tree["view"]) if "view" in tree else None
    if "array" in tree:
        return located.array(tree["tensor"], view)
    if "scalar" in tree:
        return located.array(tree["tensor"], view)[()]
    again = located.objects.get(tree.get("object", -1))
    if again is not None:
        return again
    tensor = located.tensor(tree["tensor"], view, tree.get("device", "cpu"))
    if tree.get("parameter"):
        tensor = as_parameter(tensor, bool(tree.get("requires_grad")))
    else:
        require_grad(tensor, bool(tree.get("requires_grad")))
    if "object" in tree:
        located.objects[tree["object"]] = tensor
    return tensor


def _pairs_in(tree: list, located: Located) -> list[tuple]:
    return [(_decode(key, located), _decode(value, located)) for key, value in tree]


class _Kind(NamedTuple):
    """A kind of object: its name in the file, its type, how it becomes JSON and how it is made of that again."""

    name: str
    type: Any
    encode: Callable[[_Walk, Any, str, tuple], Any]
    decode: Callable[[Any, Located], Any]
    broadly: Any = ()  # types whose subclasses are of this kind too


KINDS = (
    _Kind("tensor", Tensor, _tensor_out, _tensor_in, Tensor),
    _Kind("array", cpu.ndarray, _array_out, _tensor_in),
    _Kind("scalar", tuple(d.type for d in DTYPES), _scalar_out, _tensor_in),
    _Kind("dict", dict, _Walk.items, lambda v, located: dict(_pairs_in(v, located))),
    # a module's state_dict is an OrderedDict with notes on the side, which loading does without
    _Kind("OrderedDict", OrderedDict, _Walk.items, lambda v, located: OrderedDict(_pairs_in(v, located)), OrderedDict),
    _Kind("list", list, _Walk.elements, _decode),
    _Kind("tuple", tuple, _Walk.elements, lambda v, located: tuple(_decode(v, located))),
    _Kind("set", set, _Walk.elements, lambda v, located: set(_decode(v, located))),
    _Kind("frozenset", frozenset, _Walk.elements, lambda v, located: frozenset(_decode(v, located))),
    _Kind("Size", Size, lambda w, o, p, k: list(o), lambda v, located: Size(v)),
    _Kind("float", float, lambda w, o, p, k: repr(o), lambda v, located: float(v)),
    _Kind(
        "complex", complex,
        lambda w, o, p, k: [repr(o.real), repr(o.imag)], lambda v, located: complex(*map(float, v)),
    ),
    _Kind(
        "bytes", bytes,
        lambda w, o, p, k: base64.b64encode(o).decode(), lambda v, located: base64.b64decode(v, validate=True),
    ),
    _Kind("dtype", dtype, lambda w, o, p, k: o.name, lambda v, located: as_dtype(v)),
    _Kind("device", device, lambda w, o, p, k: str(o), lambda v, located: device(v)),
)  # fmt: skip
_KIND_OF: dict[Any, _Kind] = {
    t: kind for kind in KINDS for t in (kind.type if isinstance(kind.type, tuple) else (kind.type,))
}
