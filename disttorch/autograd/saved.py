"""What happens to tensors that the graph saves for backward: hooks that pack and unpack them.

They are kept elsewhere (`save_on_cpu`), compressed, recomputed (``utils.checkpoint``), or copied before they are changed in
place (`allow_mutation_on_saved_tensors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

from ..backend import NAMESPACES, as_device
from .grad_mode import decorated, no_grad, saved_hooks, use_saved_hooks
from .variable import Tensor, wrap

__all__ = [
    "BEFORE_WRITING",
    "Packed",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "save_on_cpu",
    "saved_tensors_hooks",
]


class Packed:
    """What a node saved, as the innermost hooks packed it."""

    __slots__ = ("items", "unpack_hook")

    def __init__(self, arrays: Sequence[Any]):
        pack, self.unpack_hook = saved_hooks.get()[-1]
        before = use_saved_hooks(())
        try:
            with no_grad():
                self.items = [_packed(pack, a) for a in arrays]
        finally:
            use_saved_hooks(before)

    def unpack(self) -> list[Any]:
        """The arrays."""
        return [_unpacked(self.unpack_hook, item) for item in self.items]


def _packed(pack: Callable[[Tensor], Any], saved: Any) -> tuple[str, Any]:
    if saved.__class__ is tuple:  # the results of an operation that has several
        return "tuple", [_packed(pack, part) for part in saved]
    return ("array", pack_one(pack, wrap(saved))) if saved.__class__ in NAMESPACES else ("other", saved)


def _unpacked(unpack: Callable[[Any], Tensor], item: tuple[str, Any]) -> Any:
    kind, packed = item
    if kind == "tuple":
        return tuple([_unpacked(unpack, part) for part in packed])
    return unpack_one(unpack, packed)._array if kind == "array" else packed


def pack_one(pack: Callable[[Tensor], Any], tensor: Tensor) -> Any:
    """What the hook makes of a tensor.

    Raises
    ------
    RuntimeError
        If it changes the tensor in place.
    """
    if tensor._version is None:
        tensor._version = [0]
    before = tensor._version[0]
    packed = pack(tensor)
    if tensor._version[0] != before:
        raise RuntimeError(
            "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook can not be modified"
        )
    return packed


def unpack_one(unpack: Callable[[Any], Tensor], packed: Any) -> Tensor:
    """The tensor that the hook makes of what was packed.

    Raises
    ------
    TypeError
        If it is none.
    """
    tensor = unpack(packed)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"Output of saved tensor unpack_hook expected to be a Tensor but got result of type {type(tensor).__name__}")
    return tensor


class saved_tensors_hooks:
    """Pack what is saved for backward while the with-block runs, and unpack it when it is needed.

    As ``torch.autograd.graph.saved_tensors_hooks``; also a decorator. The innermost block's hooks are called.

    Parameters
    ----------
    pack_hook : callable
        Takes each tensor that is saved and returns any object.
    unpack_hook : callable
        Takes that object and returns a tensor of the same contents.

    Raises
    ------
    RuntimeError
        Inside `disable_saved_tensors_hooks`.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([1.0, 2.0], requires_grad=True)
    >>> with disttorch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), disttorch.from_numpy):
    ...     y = x.exp()
    >>> y.sum().backward()
    >>> bool((x.grad == y).all())
    True
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]):
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._before: list[tuple] = []

    def __enter__(self) -> Any:
        hooks = saved_hooks.get()
        if hooks and hooks[0].__class__ is str:
            raise RuntimeError(hooks[0])
        self._before.append(use_saved_hooks((*hooks, (self.pack_hook, self.unpack_hook))))

    def __exit__(self, *exception: Any) -> None:
        use_saved_hooks(self._before.pop())

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: self)


class save_on_cpu(saved_tensors_hooks):
    """Keep what is saved for backward in the host's memory; as ``torch.autograd.graph.save_on_cpu``.

    Parameters
    ----------
    pin_memory : bool
        Whether to use page-locked memory, which is copied to and from while the GPU computes and the host goes on.
    device_type : str
        The device whose tensors are moved.
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda"):
        def pack(tensor: Tensor) -> tuple:
            xp = NAMESPACES[tensor._array.__class__]
            where = xp.device_of(tensor._array)
            copy = xp.array(tensor._array) if where.type == "cpu" else xp.move(tensor._array, as_device("cpu"), pin_memory)
            return where, copy

        def unpack(packed: tuple) -> Tensor:
            where, array = packed
            return wrap(array if where.type == "cpu" else NAMESPACES[array.__class__].move(array, where, pin_memory))

        super().__init__(pack, unpack)


class disable_saved_tensors_hooks:
    """Forbid `saved_tensors_hooks` while the with-block runs.

    Parameters
    ----------
    error_message : str
        Of the RuntimeError that setting hooks raises.
    """

    def __init__(self, error_message: str):
        self.error_message = error_message
        self._before: list[tuple] = []

    def __enter__(self) -> None:
        hooks = saved_hooks.get()
        if hooks and hooks[0].__class__ is not str:
            raise RuntimeError(self.error_message)
        self._before.append(hooks)
        saved_hooks.set((self.error_message,))  # nothing is to be packed, so the mode stays as it is

    def __exit__(self, *exception: Any) -> None:
        saved_hooks.set(self._before.pop())

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: self)


#: called with a tensor that is about to be changed in place
BEFORE_WRITING: list[Callable[[Tensor], None]] = []


class _Kept:
    """A saved array; replaced by a copy before its memory is changed."""

    __slots__ = ("__weakref__", "array")

    def __init__(self, array: Any):
        self.array = array


class _Copies:
    """What `allow_mutation_on_saved_tensors` knows: which saved arrays lie in a memory."""

    def __init__(self) -> None:
        self._by_memory: dict[int, list[Any]] = {}

    def pack(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor._array)
        self._by_memory.setdefault(memory_of(tensor._array), []).append(ref(kept))
        return kept

    def unpack(self, kept: _Kept) -> Tensor:
        return wrap(kept.array)

    def before_writing(self, tensor: Tensor) -> None:
        for weak in self._by_memory.pop(memory_of(tensor._array), ()):
            kept = weak()
            if kept is not None:
                kept.array = NAMESPACES[kept.array.__class__].array(kept.array)

    def clear(self) -> None:
        """Forget what was saved; nothing of it will be copied any more."""
        self._by_memory.clear()


def memory_of(array: Any) -> int:
    """What all views of one memory have in common."""
    xp = NAMESPACES.get(array.__class__)
    if xp is not None and xp.name == "cuda":
        return xp.memory_id(array)
    while getattr(array, "base", None) is not None:
        array = array.base
    return id(array)


class allow_mutation_on_saved_tensors:
    """Let tensors that backward needs be changed in place: the graph keeps a copy of what was there before.

    As ``torch.autograd.graph.allow_mutation_on_saved_tensors``. A with-block for forward and backward.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.ones(2, requires_grad=True)
    >>> with disttorch.autograd.graph.allow_mutation_on_saved_tensors():
    ...     b = x.clone()
    ...     out = (b * b).sum()
    ...     _ = b.mul_(5)
    ...     out.backward()
    >>> x.grad
    tensor([2., 2.])
    """

    def __enter__(self) -> _Copies:
        self._copies = _Copies()
        self._hooks = saved_tensors_hooks(self._copies.pack, self._copies.unpack)
        self._hooks.__enter__()
        BEFORE_WRITING.append(self._copies.before_writing)
        return self._copies

    def __exit__(self, *exception: Any) -> None:
        BEFORE_WRITING.remove(self._copies.before_writing)
        self._hooks.__exit__()
        self._copies.clear()

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, type(self))
