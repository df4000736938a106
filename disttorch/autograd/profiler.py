"""The profiler: how long each operation takes, forward and backward; as ``torch.autograd.profiler``.

While a profile runs, the functions that users call operations (those of the package, of Tensor, of ``nn.functional``, and the
optimizers' steps) are exchanged for ones that note the time, wherever a module holds them, and the engine tells of each node.
When none runs nothing is in the way.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from time import perf_counter_ns
from types import FunctionType
from typing import Any

from ..backend import NAMESPACES
from .engine import OBSERVERS
from .exchanging import Exchange
from .grad_mode import decorated
from .node import Node
from .profiler_events import EventList, FunctionEvent, FunctionEventAvg, RawEvent
from .variable import Tensor

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "begin", "end", "profile", "record_function"]

#: the profiles, and others that want to hear of operations, that are running
_running: list[Any] = []
_lock = threading.Lock()


class profile:
    """Measure all operations while the with-block runs; as ``torch.autograd.profiler.profile``.

    Parameters
    ----------
    enabled : bool
        Whether to do anything.
    record_shapes : bool
        Note the shapes of tensors among the arguments.
    with_flops : bool
        Count multiplications and additions of matrix products and convolutions.
    profile_memory : bool
        Note the bytes of the results.
    with_stack : bool
        Note from where in the program an operation was called.
    use_device : str, optional
        "cuda": wait for the GPU after each operation, so that times are those of the kernels, not of starting them.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.ones(3, requires_grad=True)
    >>> with disttorch.autograd.profiler.profile() as prof:
    ...     (x * 2).sum().backward()
    >>> sorted(e.key for e in prof.key_averages())
    ['MulBackward0', 'SumBackward0', 'backward', 'mul', 'sum']
    """

    def __init__(
        self, enabled: bool = True, *, use_cuda: bool = False, use_device: str | None = None, record_shapes: bool = False,
        with_flops: bool = False, profile_memory: bool = False, with_stack: bool = False, with_modules: bool = False,
        use_kineto: bool = False, use_cpu: bool = True, acc_events: bool = False, **options: Any,
    ):  # fmt: skip
        self.enabled = enabled
        self.record_shapes, self.with_flops = record_shapes or with_flops, with_flops
        self.profile_memory, self.with_stack = profile_memory, with_stack
        self.synchronizes = use_cuda or use_device == "cuda"
        self._raw: list[RawEvent] = []
        self._events: EventList | None = None

    def __enter__(self) -> Any:
        if self.enabled:
            begin(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.enabled:
            end(self)

    def note(
        self, name: str, start: int, end: int, args: Sequence[Any], result: Any, is_annotation: bool, given: Sequence[Any]
    ) -> None:
        """Hear of an operation that has ended."""
        self._raw.append(
            RawEvent(
                name,
                start,
                end,
                threading.get_ident(),
                [list(a._array.shape) if isinstance(a, Tensor) else [] for a in args] if self.record_shapes else None,
                _bytes_of(result) if self.profile_memory else 0,
                _stack() if self.with_stack else None,
                _count_flops(name, args, result) if self.with_flops else None,
                is_annotation,
            )
        )

    @property
    def function_events(self) -> EventList:
        """All events, in the order of their beginnings."""
        if self._events is None or len(self._events) != len(self._raw):
            self._events = EventList.of(self._raw, self.profile_memory, self.with_flops)
        return self._events

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, **options: Any) -> EventList:
        """The events by name; see `EventList.key_averages`."""
        return self.function_events.key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> FunctionEventAvg | None:
        """All events together."""
        return self.function_events.total_average()

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """A table of all events; see `EventList.table`."""
        return self.function_events.table(sort_by, row_limit, **options)

    def export_chrome_trace(self, path: Any) -> None:
        """Write the events for chrome://tracing and others that read its JSON."""
        self.function_events.export_chrome_trace(path)

    def export_stacks(self, path: Any, metric: str = "self_cpu_time_total") -> None:
        """Write call stacks with their times; needs ``with_stack=True``."""
        self.function_events.export_stacks(path, metric)

    @property
    def self_cpu_time_total(self) -> float:
        """The sum over all events, in microseconds."""
        return self.function_events.self_cpu_time_total

    def __repr__(self) -> str:
        return repr(self.function_events) if self._raw else "<unfinished profile>"

    def __str__(self) -> str:
        return self.table() if self._raw else "<unfinished profile>"


class record_function:
    """Let a part of the program be an event of its own in profiles: a with-block, or a decorator.

    Parameters
    ----------
    name : str
    args : str, optional
        Accepted as in PyTorch.

    Examples
    --------
    >>> import disttorch
    >>> with disttorch.autograd.profiler.profile() as prof:
    ...     with disttorch.autograd.profiler.record_function("my part"):
    ...         y = disttorch.ones(3) + 1
    >>> [e.name for e in prof.function_events]
    ['my part', 'ones', 'add']
    """

    def __init__(self, name: str, args: str | None = None):
        self.name, self.args = name, args
        self._starts: list[int] = []

    def __enter__(self) -> Any:
        self._starts.append(perf_counter_ns())
        return self

    def __exit__(self, *exception: Any) -> None:
        start = self._starts.pop()
        if _running:
            _note(self.name, start, perf_counter_ns(), is_annotation=True)

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: record_function(self.name, self.args))


# --- taking the time -----------------------------------------------------------------------------------------------------


def begin(observer: Any) -> None:
    """Let an observer hear of all operations from now on: of each that ends, by its method `note`; see `profile.note`."""
    with _lock:
        if not _running:
            _watch()
        _running.append(observer)


def end(observer: Any) -> None:
    """Let it hear no more."""
    with _lock:
        _running.remove(observer)
        if not _running:
            _unwatch()


def _note(
    name: str, start: int, end: int, args: Sequence[Any] = (), result: Any = None, is_annotation: bool = False, given: Sequence[Any] = ()
) -> None:
    """Tell all observers of an operation; `given` is what it reads beside the positional arguments."""
    for observer in tuple(_running):
        observer.note(name, start, end, args, result, is_annotation, given)


def _stack() -> list[str]:
    """The places in the program that led here, the innermost first."""
    return [f"{f.filename}({f.lineno}): {f.name}" for f in reversed(traceback.extract_stack()[:-3]) if __file__ != f.filename]


def _bytes_of(result: Any) -> int:
    if isinstance(result, Tensor):
        return result._array.nbytes if result._view is None else 0
    return sum(map(_bytes_of, result)) if isinstance(result, (tuple, list)) else 0


def _count_flops(name: str, args: Sequence[Any], result: Any) -> int | None:
    """Two for each multiplication with an addition."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if not isinstance(result, Tensor) or len(tensors) < 2:
        return None
    if name in ("matmul", "mm", "bmm", "mv", "dot", "linear", "__matmul__"):
        return 2 * result._array.size * tensors[0]._array.shape[-1]
    if name in ("addmm", "baddbmm") and len(tensors) > 2:
        return 2 * result._array.size * tensors[1]._array.shape[-1]
    if name.startswith("conv"):
        weight = tensors[1]._array
        at = tensors[0]._array if "transpose" in name else result._array
        return 2 * at.size * (weight.size // max(weight.shape[0], 1))
    return None


def _synchronize(result: Any) -> None:
    some = result[0] if isinstance(result, (tuple, list)) and result else result
    if isinstance(some, Tensor):
        NAMESPACES[some._array.__class__].synchronize()


def _timed(name: str, function: Callable) -> Callable:
    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = perf_counter_ns()
        result = None
        try:
            result = function(*args, **kwargs)
            if any(observer.synchronizes for observer in _running):
                _synchronize(result)
            return result
        finally:
            end = perf_counter_ns()
            if _running:
                _note(name, start, end, args, result, given=tuple(kwargs.values()))

    return timed


def _timed_step(function: Callable) -> Callable:
    @wraps(function)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = perf_counter_ns()
        try:
            return function(self, *args, **kwargs)
        finally:
            if _running:
                _note(f"Optimizer.step#{type(self).__name__}.step", start, perf_counter_ns(), is_annotation=True, given=(self,))

    return step


def _observe(node: Node, propagate: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    start, given = perf_counter_ns(), (node, getattr(node, "saved", None))  # which are released as soon as they are used
    try:
        return propagate()
    finally:
        _note(node.name(), start, perf_counter_ns(), given=given)


_exchange = Exchange()


def _operations() -> dict[int, tuple[str, Callable]]:
    """The functions that are operations: their names and themselves, by identity."""
    package = sys.modules["disttorch"]
    found: dict[int, tuple[str, Callable]] = {}
    tables = [getattr(package, "FUNCTIONS", {}), {n: f for n, f in vars(Tensor).items() if n not in _NO_OPERATIONS}]
    functional = sys.modules.get("disttorch.nn.functional")
    if functional is not None:
        tables.insert(0, {n: getattr(functional, n) for n in functional.__all__ if hasattr(functional, n)})
    for table in tables:
        for name, function in table.items():
            if isinstance(function, FunctionType):
                found.setdefault(id(function), (_operation_name(name, function), function))
    return found


#: methods that say something of a tensor or steer, and compute nothing
_NO_OPERATIONS = set(
    """
    __array__ __bool__ __contains__ __deepcopy__ __dlpack__ __dlpack_device__ __float__ __format__ __hash__ __index__ __int__ __iter__
    __len__ __reduce__ __reduce_ex__ __repr__ __setstate__ __str__ __dir__ __complex__ __getattr__ __setattr__ __new__ __init__
    data_ptr dim element_size is_complex is_contiguous is_floating_point is_signed numel numpy register_hook
    register_post_accumulate_grad_hook requires_grad_ retain_grad size stride storage_offset untyped_storage is_shared share_memory_
    get_device ndimension nelement is_set_to is_inference is_conj is_neg __cuda_array_interface__
    """.split()
)


def _operation_name(name: str, function: FunctionType) -> str:
    own = function.__name__
    return own.strip("_") if name.startswith("__") and own != "<lambda>" else name.strip("_") if name.startswith("__") else name


def _watch() -> None:
    """Exchange the operations for timed ones, wherever a module or the Tensor class holds them."""
    _exchange.put({number: (function, _timed(name, function)) for number, (name, function) in _operations().items()})
    optimizers = sys.modules.get("disttorch.optim.optimizer")
    kinds = [optimizers.Optimizer] if optimizers is not None else []
    while kinds:
        kind = kinds.pop()
        kinds.extend(kind.__subclasses__())
        if "step" in vars(kind):
            _exchange.attribute(kind, "step", _timed_step(vars(kind)["step"]))
    OBSERVERS.append(_observe)


def _unwatch() -> None:
    _exchange.undo()
    OBSERVERS.remove(_observe)


@contextmanager
def interrupted() -> Iterator[None]:
    """No operation is exchanged for one that notes the time: so that others can exchange them for good."""
    with _lock:
        if _running:
            _unwatch()
        try:
            yield
        finally:
            if _running:
                _watch()
