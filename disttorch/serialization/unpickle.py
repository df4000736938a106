"""Reads a pickle without running anything: its instructions are carried out here, on plain values only.

Python's own unpickler calls whatever a pickle names. This one knows a table of names, each with the function that makes the
value, and refuses every other name before anything is made; attributes are set of nothing but plain objects (objects.py).
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .container import FileError

__all__ = ["Name", "Unfinished", "unpickle"]


class Name(NamedTuple):
    """A name in a pickle that may be called: what it is called, and what calling it makes."""

    name: str
    make: Callable[..., Any] | None = None


class Unfinished:
    """A value that the pickle completes by a BUILD instruction."""

    def build(self, state: Any) -> None:
        """Take the state that the pickle has for it."""
        raise NotImplementedError


_MARK = object()
# instructions whose argument, decoded by pickletools, is the value itself
_LITERALS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT
    """.split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def unpickle(file: Any, where: str, known: Mapping[str, Any], stored: Callable[[Any], Any] | None = None) -> Any:
    """The value of one pickle.

    Parameters
    ----------
    file : file object
        Read from where it is to the end of the pickle.
    where : str
        What the pickle is called in messages.
    known : mapping of str to object
        The values of the names that may be there, ``"module.name"``; a `Name` may also be called.
    stored : callable, optional
        The value for a persistent id.

    Raises
    ------
    FileError
        If the pickle is damaged, or has a name that is not known.
    """
    try:
        return _Machine(where, known, stored).run(file)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, NotImplementedError) as error:
        raise FileError(f"is damaged: {where} cannot be read ({error!r})") from error


class _Machine:
    def __init__(self, where: str, known: Mapping[str, Any], stored: Callable[[Any], Any] | None):
        self.where, self.known, self.stored = where, known, stored
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        stack, memo = self.stack, self.memo
        arg: Any
        for opcode, arg, _ in pickletools.genops(file):
            name = opcode.name
            if name in _LITERALS:
                stack.append(arg)
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[arg])
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[arg] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name == "MARK":
                stack.append(_MARK)
            elif name in _TUPLES:
                count = _TUPLES[name]
                self.need(count)
                stack[-count:] = [tuple(stack[-count:])]
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name == "STOP":
                (value,) = stack
                return value
            else:
                step = getattr(self, name.lower(), None) if name in _STEPS else None
                if step is None:
                    raise FileError(f"is refused: {self.where} has the instruction {name}, which no saved tensors need; nothing was run")
                step(arg)
        raise FileError(f"is truncated: {self.where} ends before its pickle does")

    def need(self, count: int) -> None:
        if len(self.stack) < count or any(v is _MARK for v in self.stack[-count:]):
            raise ValueError("too few values on the stack")

    def pop(self) -> Any:
        self.need(1)
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    # --- instructions, by the names that pickletools has for them ------------------------------------------------------

    def proto(self, arg: int) -> None:
        if arg > 5:
            raise ValueError(f"pickle protocol {arg}")

    def frame(self, arg: Any) -> None:
        pass

    def tuple(self, arg: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def list(self, arg: Any) -> None:
        self.stack.append(self.since_mark())

    def dict(self, arg: Any) -> None:
        values = self.since_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def frozenset(self, arg: Any) -> None:
        self.stack.append(frozenset(self.since_mark()))

    def append(self, arg: Any) -> None:
        value = self.pop()
        _exactly(self.stack[-1], list).append(value)

    def appends(self, arg: Any) -> None:
        values = self.since_mark()
        _exactly(self.stack[-1], list).extend(values)

    def additems(self, arg: Any) -> None:
        values = self.since_mark()
        _exactly(self.stack[-1], set).update(values)

    def setitem(self, arg: Any) -> None:
        value, key = self.pop(), self.pop()
        _exactly(self.stack[-1], dict)[key] = value

    def setitems(self, arg: Any) -> None:
        values = self.since_mark()
        _exactly(self.stack[-1], dict).update(zip(values[::2], values[1::2], strict=True))

    def global_(self, full: str) -> None:
        name = full.replace(" ", ".", 1)
        if name not in self.known:
            raise FileError(
                f"is refused: {self.where} names {name!r}, which load does not make. It makes tensors, parameters, numbers, "
                "texts and plain containers of them; with weights_only=False, or for classes that "
                "serialization.add_safe_globals was given, also objects that are their attributes and nothing else. It never runs code "
                "from a file; save a state_dict() instead. Nothing was run"
            )
        self.stack.append(self.known[name])

    def stack_global(self, arg: Any) -> None:
        name, module = self.pop(), self.pop()
        self.global_(f"{_exactly(module, str)} {_exactly(name, str)}")

    def reduce(self, arg: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or function.make is None:
            raise FileError(f"is refused: {self.where} calls {getattr(function, 'name', function)!r}; nothing was run")
        self.stack.append(function.make(*_exactly(arguments, tuple)))

    newobj = reduce

    def build(self, arg: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Unfinished):
            target.build(state)
        elif type(target) is OrderedDict and isinstance(state, dict):  # a module's state_dict, with notes on the side
            if "_metadata" in state:
                target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        else:
            raise FileError(f"is refused: {self.where} sets attributes of a {type(target).__name__}; nothing was run")

    def binpersid(self, arg: Any) -> None:
        if self.stored is None:
            raise ValueError("a persistent id, where there is no storage")
        self.stack.append(self.stored(self.pop()))


def _exactly(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} is expected, not {type(value).__name__}")
    return value


setattr(_Machine, "global", _Machine.global_)
_STEPS = frozenset(
    """
    PROTO FRAME TUPLE LIST DICT FROZENSET APPEND APPENDS ADDITEMS SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
    """.split()
)
