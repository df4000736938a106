"""Plain objects beside the tensors of a checkpoint: arguments and configurations, of classes that the program has.

Such an object is its class's name and its attributes, and is made again without calling anything of the class. Classes that want to
be asked (``__reduce__``, ``__setstate__``, ``__new__``, ``__del__``), or keep no dict of attributes, are none of these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from .unpickle import Name, Unfinished

__all__ = [
    "PlainObject", "WithClasses", "add_safe_globals", "clear_safe_globals", "get_safe_globals", "is_plain", "name_of", "safe_globals",
]  # fmt: skip

_ASKED = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__getattribute__", "__setattr__", "__delattr__")
_OWN_WAYS = ("__setstate__", "__del__", "state_dict")
_allowed: list[Any] = []


def is_plain(cls: Any) -> bool:
    """Whether objects of a class are their attributes and nothing else, and the class can be found by its name."""
    if not isinstance(cls, type) or type(cls) is not type or not cls.__dictoffset__ or issubclass(cls, (BaseException, type)):
        return False
    if any(base not in (object, *_with_dict(cls)) for base in cls.__mro__):
        return False
    # frozen dataclasses have their own __setattr__, which is not called
    own = [name for name in _ASKED if getattr(cls, name, None) is not getattr(object, name, None)]
    if any(name not in ("__setattr__", "__delattr__") for name in own) or any(hasattr(cls, name) for name in _OWN_WAYS):
        return False
    return "." not in cls.__qualname__ and getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def _with_dict(cls: type) -> list[type]:
    """The classes in a class's line that were written in Python and have no slots."""
    return [base for base in cls.__mro__ if base.__flags__ & (1 << 9) and not vars(base).get("__slots__")]


def name_of(cls: type) -> str:
    """As a pickle has it."""
    return f"{cls.__module__}.{cls.__qualname__}"


class PlainObject(Unfinished):
    """An object of which the class is known and the attributes come."""

    def __init__(self, cls: type):
        self.value: Any = object.__new__(cls)
        self.complete = False

    def build(self, state: Any) -> None:
        """Take the attributes."""
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise TypeError(f"attributes of a {type(self.value).__name__}: {type(state).__name__}")
        self.value.__dict__.update(state)

    def finish(self, finished: Callable[[Any], Any]) -> Any:
        """The object, with its attributes finished."""
        if not self.complete:
            self.complete = True
            attributes = self.value.__dict__
            for name in list(attributes):
                attributes[name] = finished(attributes[name])
        return self.value


class WithClasses(dict[str, Any]):
    """A table of names, and besides these the plain classes that a file may name.

    Parameters
    ----------
    known : mapping of str to object
    any_class : bool
        Whether it may name every plain class that has been imported, and not only those of `add_safe_globals`.
    """

    def __init__(self, known: Mapping[str, Any], any_class: bool):
        super().__init__(known)
        self.classes = {called: cls for cls, called in map(_named, _allowed) if is_plain(cls)}
        self.any_class = any_class

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._class(str(name)) is not None

    def __missing__(self, name: str) -> Name:
        return Name(name, partial(PlainObject, self._class(name)))

    def _class(self, name: str) -> Any:
        if name in self.classes or not self.any_class:
            return self.classes.get(name)
        module, _, qualname = name.rpartition(".")
        cls = getattr(sys.modules.get(module), "__dict__", {}).get(qualname)
        return cls if is_plain(cls) else None


def _named(given: Any) -> tuple[Any, str]:
    """A class, or a class and another name of it in files."""
    cls, name = given if isinstance(given, tuple) else (given, None)
    return cls, name or f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', '')}"


def add_safe_globals(safe_globals: Sequence[Any]) -> None:
    """Let `load` make objects of these classes, too, where files have them; as ``torch.serialization.add_safe_globals``.

    Only plain classes (see this module) are made. Functions, and classes that `load` makes anyway, may be in the list, too.

    Parameters
    ----------
    safe_globals : list
        Of classes, or of pairs of a class and the name by which files call it.
    """
    _allowed.extend(given for given in safe_globals if given not in _allowed)


def get_safe_globals() -> list[Any]:
    """What `add_safe_globals` was given."""
    return list(_allowed)


def clear_safe_globals() -> None:
    """Take back what `add_safe_globals` was given."""
    _allowed.clear()


@contextmanager
def safe_globals(safe_globals: Sequence[Any]) -> Iterator[None]:
    """`add_safe_globals` for a block; as ``torch.serialization.safe_globals``."""
    before = get_safe_globals()
    add_safe_globals(safe_globals)
    try:
        yield
    finally:
        _allowed[:] = before
