"""Checkpointing: what a part of a model would save for backward is computed again instead; as ``torch.utils.checkpoint``.

Memory for time: see Chen et al., "Training deep nets with sublinear memory cost", 2016.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any
from weakref import WeakKeyDictionary, ref

from ..autograd.differentiate import backward
from ..autograd.engine import current_pass
from ..autograd.function import Function
from ..autograd.grad_mode import enable_grad, is_grad_enabled, no_grad, saved_hooks
from ..autograd.saved import pack_one, saved_tensors_hooks, unpack_one
from ..autograd.variable import Tensor, wrap
from ..ops import autocast
from ..ops.creation import require_grad
from ..ops.random import default_generator

__all__ = [
    "CheckpointError",
    "checkpoint",
    "checkpoint_sequential",
    "noop_context_fn",
    "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
]


class CheckpointError(RuntimeError):
    """Computing a checkpointed function again gave something else than the first time."""


_early_stop: ContextVar[bool | None] = ContextVar("disttorch.checkpoint_early_stop", default=None)
_debug: ContextVar[bool | None] = ContextVar("disttorch.checkpoint_debug", default=None)

#: Around what is computed now: functions that return a context manager, which a second computation is to be in, too.
surroundings: ContextVar[tuple[Callable[[], AbstractContextManager], ...]] = ContextVar("disttorch.surroundings", default=())


class _Setting(AbstractContextManager):
    def __init__(self, variable: ContextVar, value: bool | None):
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *exception: Any) -> None:
        self._variable.reset(self._token)


def set_checkpoint_early_stop(enable: bool) -> AbstractContextManager:
    """Inside the with-block, whether recomputing stops at the last tensor that is needed; overrides ``early_stop=``."""
    return _Setting(_early_stop, enable)


def set_checkpoint_debug_enabled(enabled: bool | None) -> AbstractContextManager:
    """Inside the with-block, whether errors list all tensors of both computations; overrides ``debug=``."""
    return _Setting(_debug, enabled)


def noop_context_fn() -> tuple[AbstractContextManager, AbstractContextManager]:
    """The default ``context_fn``: nothing around the computation, nor around the second one."""
    return nullcontext(), nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[AbstractContextManager, AbstractContextManager]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call a function without keeping what it saves for backward: it is called again then. As ``torch.utils.checkpoint.checkpoint``.

    Parameters
    ----------
    function : callable
        Must compute the same again: no other effects that matter.
    *args, **kwargs
        Its arguments.
    use_reentrant : bool, optional
        Whether backward runs a backward of its own for the function; then only tensors among `args` themselves get
        gradients, and at least one of them must ask for one. Say which: without it there is a warning, and True is meant.
    context_fn : callable
        Returns two context managers, for around the first and the second call. Not with `use_reentrant`.
    determinism_check : "default" or "none"
        Whether tensors of the second call are compared with the first's in shape, dtype and device.
    debug : bool
        Whether the error of that check lists all tensors of both calls.
    early_stop : bool
        Whether the second call ends with the last tensor that is needed.
    preserve_rng_state : bool
        Whether the second call draws the same random numbers.

    Returns
    -------
    What the function returns.

    Raises
    ------
    CheckpointError
        From backward, if the second call differs from the first.
    ValueError
        For options that do not go together.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.checkpoint import checkpoint
    >>> x = disttorch.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: x.exp().sin(), x, use_reentrant=False).sum().backward()
    >>> bool((x.grad == x.exp().cos() * x.exp()).all())
    True
    """
    if use_reentrant is None:
        warnings.warn(
            "utils.checkpoint: the use_reentrant parameter should be passed explicitly. use_reentrant=False is recommended, but if you "
            "need to preserve the current default behavior, you can pass use_reentrant=True.",
            stacklevel=2,
        )
        use_reentrant = True
    if use_reentrant:
        if kwargs:
            raise ValueError(f"Unexpected keyword arguments: {','.join(kwargs)}")
        if context_fn is not noop_context_fn or debug:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
        if is_grad_enabled() and not any(isinstance(a, Tensor) and a._node is not None for a in args):
            warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)
        return _Reentrant.apply(function, preserve_rng_state, *args)
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be one of ['default', 'none'], but got {determinism_check}")
    forward_context, recompute_context = context_fn()
    if not is_grad_enabled():
        with forward_context:
            return function(*args, **kwargs)
    frame = _Frame(function, args, kwargs, recompute_context, determinism_check, debug, early_stop, preserve_rng_state)
    with saved_tensors_hooks(frame.pack, frame.unpack), forward_context:
        returned = function(*args, **kwargs)
    frame.complete = True
    return returned


# --- the random numbers of a part of the program --------------------------------------------------------------------------


class _RandomState:
    """Where the random streams are of the CPU and of the devices of some tensors."""

    def __init__(self, args: Iterable[Any]):
        devices = {"cpu": None, **{str(a.device): None for a in args if isinstance(a, Tensor)}}
        self._states = [(default_generator(d), default_generator(d).get_state()) for d in devices]

    @contextmanager
    def again(self) -> Any:
        """Go there for the length of a with-block."""
        now = [(g, g.get_state()) for g, _ in self._states]
        for generator, state in self._states:
            generator.set_state(state)
        try:
            yield
        finally:
            for generator, state in now:
                generator.set_state(state)


# --- what is saved, computed again ------------------------------------------------------------------------------------------


class _Enough(Exception):
    """The second call has computed all that was saved in the first."""


class _Place:
    """Stands in the graph for a tensor that was saved."""

    __slots__ = ("__weakref__", "meaning", "number")

    def __init__(self, number: int, meaning: tuple):
        self.number, self.meaning = number, meaning


def _meaning(t: Tensor) -> tuple:
    return tuple(t.shape), t.dtype, t.device


def _in_words(meaning: tuple) -> str:
    shape, dtype, device = meaning
    return f"{{'shape': {list(shape)}, 'dtype': {dtype}, 'device': {device}}}"


class _Frame:
    """One call of a checkpointed function."""

    def __init__(
        self, function: Callable, args: tuple, kwargs: dict, recompute_context: Any, determinism_check: str, debug: bool,
        early_stop: bool, preserve_rng_state: bool,
    ):  # fmt: skip
        self.function = function
        self.args = [_kept(a) for a in args]
        self.kwargs = {name: _kept(a) for name, a in kwargs.items()}
        self.recompute_context = recompute_context
        self.check = determinism_check == "default"
        debugging, stopping = _debug.get(), _early_stop.get()
        self.debug = debug if debugging is None else debugging
        self.early_stop = early_stop if stopping is None else stopping
        self.random = _RandomState((*args, *kwargs.values())) if preserve_rng_state else None
        self.autocast, self.surroundings = autocast.mode.get(), surroundings.get()
        self.places: list[Any] = []  # weak: what backward does not need any more is not kept
        self.complete = False
        # of each backward pass that is running: the tensors of the second call
        self.computed: WeakKeyDictionary[Any, dict[int, Tensor]] = WeakKeyDictionary()

    def pack(self, tensor: Tensor) -> _Place:
        place = _Place(len(self.places), _meaning(tensor))
        self.places.append(ref(place))
        return place

    def unpack(self, place: _Place) -> Tensor:
        try:
            here: Any = current_pass()
        except RuntimeError:  # a saved tensor is looked at outside of backward
            here = self
        if here is self:
            return self._compute()[place.number]
        tensors = self.computed.get(here)
        if tensors is None or place.number not in tensors:
            tensors = self.computed[here] = self._compute()
        return tensors.pop(place.number)

    def _compute(self) -> dict[int, Tensor]:
        """The second call: the tensors that it saves, by number."""
        found: dict[int, Tensor] = {}
        meanings: list[tuple] = []

        def pack(tensor: Tensor) -> Tensor:
            number = len(meanings)
            meanings.append(_meaning(tensor))
            if number >= len(self.places):
                return tensor
            place = self.places[number]()
            if place is not None:
                if self.check and place.meaning != meanings[-1]:
                    raise self._mismatch(meanings, number)
                found[number] = wrap(tensor._array)
            if self.early_stop and self.complete and number == len(self.places) - 1:
                raise _Enough
            return wrap(tensor._array)

        args, kwargs = [a() for a in self.args], {name: a() for name, a in self.kwargs.items()}
        with ExitStack() as stack:
            if self.random is not None:
                stack.enter_context(self.random.again())
            stack.enter_context(autocast.again(self.autocast))
            for around in self.surroundings:
                stack.enter_context(around())
            stack.enter_context(enable_grad())
            stack.enter_context(saved_tensors_hooks(pack, lambda tensor: tensor))
            stack.enter_context(self.recompute_context)
            stack.enter_context(suppress(_Enough))
            self.function(*args, **kwargs)
        if self.check and len(meanings) != len(self.places):
            raise CheckpointError(
                "disttorch.utils.checkpoint: A different number of tensors was saved during the original forward and recomputation.\n"
                f"Number of tensors saved during forward: {len(self.places)}\n"
                f"Number of tensors saved during recomputation: {len(meanings)}" + self._listing(meanings)
            )
        return found

    def _mismatch(self, meanings: list[tuple], number: int) -> CheckpointError:
        place = self.places[number]()
        return CheckpointError(
            "disttorch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the forward "
            f"pass.\ntensor at position {number}:\nsaved metadata: {_in_words(place.meaning)}\n"
            f"recomputed metadata: {_in_words(meanings[number])}" + self._listing(meanings)
        )

    def _listing(self, meanings: list[tuple]) -> str:
        if not self.debug:
            return ""
        places = [p() for p in self.places]
        first = ["(not kept)" if p is None else _in_words(p.meaning) for p in places]
        second = [_in_words(m) for m in meanings]
        lines = [f"  {i}: {one}  |  {other}" for i, (one, other) in enumerate(zip_longest(first, second, fillvalue="-"))]
        return "\nsaved during forward  |  during recomputation:\n" + "\n".join(lines)


def _kept(value: Any) -> Callable[[], Any]:
    """How to get an argument for the second call: without its history, but asking for a gradient if it did.

    Inside another checkpoint, tensors are saved as that one saves them.
    """
    if type(value) is not Tensor:
        return lambda: value
    asks = value._node is not None
    hooks = saved_hooks.get()
    if hooks and hooks[-1].__class__ is tuple:
        pack, unpack = hooks[-1]
        packed = pack_one(pack, wrap(value._array))
        return lambda: require_grad(wrap(unpack_one(unpack, packed)._array), asks)
    array = value._array
    return lambda: require_grad(wrap(array), asks)


# --- by a backward of its own ----------------------------------------------------------------------------------------------


class _Reentrant(Function):
    @staticmethod
    def forward(ctx: Any, function: Callable, preserve_rng_state: bool, *args: Any) -> Any:
        ctx.function, ctx.autocast, ctx.surroundings = function, autocast.mode.get(), surroundings.get()
        ctx.random = _RandomState(args) if preserve_rng_state else None
        ctx.arguments = [None if isinstance(a, Tensor) else a for a in args]
        ctx.at = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.at))
        with no_grad():
            return function(*args)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        arguments = list(ctx.arguments)
        for i, t in zip(ctx.at, ctx.saved_tensors):
            arguments[i] = require_grad(wrap(t._array), True) if t._node is not None else wrap(t._array)
        with ExitStack() as stack:
            stack.enter_context(enable_grad())
            stack.enter_context(autocast.again(ctx.autocast))
            if ctx.random is not None:
                stack.enter_context(ctx.random.again())
            for around in ctx.surroundings:
                stack.enter_context(around())
            returned = ctx.function(*arguments)
        outputs = returned if isinstance(returned, tuple) else (returned,)
        pairs = [(o, g) for o, g in zip(outputs, gradients) if isinstance(o, Tensor) and o._node is not None]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *(a.grad if isinstance(a, Tensor) else None for a in arguments))


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True, **kwargs: Any
) -> Any:
    """Call functions one after the other, all but the last of some segments of them checkpointed.

    As ``torch.utils.checkpoint.checkpoint_sequential``.

    Parameters
    ----------
    functions : Sequential or sequence of callable
    segments : int
        How many parts to cut them into.
    input : Tensor
        Of the first.
    use_reentrant, preserve_rng_state
        As in `checkpoint`.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.checkpoint import checkpoint_sequential
    >>> model = disttorch.nn.Sequential(*(disttorch.nn.Linear(4, 4) for _ in range(6)))
    >>> y = checkpoint_sequential(model, 3, disttorch.ones(2, 4, requires_grad=True), use_reentrant=False)
    >>> y.shape
    disttorch.Size([2, 4])
    """
    if kwargs:
        raise ValueError(f"Unexpected keyword arguments: {','.join(kwargs)}")
    children: Sequence[Callable] = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(children) // segments

    def run(start: int, stop: int) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            for child in children[start:stop]:
                x = child(x)
            return x

        return forward

    end = 0
    for start in range(0, size * (segments - 1), size) if size else ():
        end = start + size
        input = checkpoint(run(start, end), input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return run(end, len(children))(input)
