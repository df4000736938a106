"""Streams and events: queues whose operations are carried out at once, unless something is still to be waited for.

An operation is a function without arguments, true when it is done. It runs in the call that launches it as long as its stream is free.
Behind one that is not done (a rank that NCCL waits for, a gate that a test holds shut) a stream keeps what comes, and whoever waits
lets all streams go on.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import devices
from .driver import unsafe
from .order import Clock, Use, host, join, lock, state

__all__ = [
    "Event", "ExternalStream", "Stream", "current", "delayed", "gate", "get_current_stream", "get_elapsed_time", "held", "launching",
    "let_go_on", "name_of", "seen", "synchronising", "wait_until",
]  # fmt: skip

PATIENCE = 30.0
"""Seconds after which what is waited for does not come any more."""
_uids = itertools.count(1)
_pointers = itertools.count(0x7F00_0000_1000, 0x1000)
_local = threading.local()
_changed = threading.Condition(lock)
_names: dict[int, str] = {}


class CUDARuntimeError(RuntimeError):
    """As CuPy's: a status and the text."""

    def __init__(self, status: int, text: str = ""):
        self.status = status
        super().__init__(text)


class CUDADriverError(RuntimeError):
    """As CuPy's, of what it asks the driver itself: to load and launch kernels."""

    def __init__(self, status: int, text: str = ""):
        self.status = status
        super().__init__(text)


class Line:
    """What is behind a stream's pointer: its clock and its queue. Several `Stream` objects may stand for one."""

    by_pointer: dict[int, Line] = {}  # noqa: RUF012

    def __init__(self, pointer: int, device: int, blocking: bool, name: str):
        self.pointer, self.device, self.blocking = pointer, device, blocking
        self.uid = next(_uids)
        self.clock: Clock = {}
        self.tick = 0
        self.queue: deque[Callable[[], bool]] = deque()
        self.capture: Any = None
        self.running = False
        _names[self.uid] = name

    def advance(self) -> int:
        """The number of the next operation, which comes behind what the host has seen, and what the default stream implies."""
        join(self.clock, host)
        if self.blocking:
            for other in lines(self.device):
                if other is not self and other.blocking and (self.is_null or other.is_null):
                    join(self.clock, other.clock)
                    if other.queue and not self.queue:
                        flag = other.mark()
                        self.queue.append(flag.is_set)
        self.tick += 1
        self.clock[self.uid] = self.tick
        return self.tick

    @property
    def is_null(self) -> bool:
        return self.pointer == 0

    def mark(self) -> threading.Event:
        """A flag that is set when what is queued now is done."""
        flag = threading.Event()

        def set_it() -> bool:
            flag.set()
            return True

        self.queue.append(set_it)
        return flag

    @property
    def busy(self) -> bool:
        return bool(self.queue)

    def run(self) -> bool:
        """Carry out what can be; whether anything was."""
        moved = False
        if self.running:
            return False
        self.running = True
        try:
            while self.queue and self.queue[0]():
                self.queue.popleft()
                moved = True
        except BaseException as error:
            self.queue.clear()
            state.failures.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.running = False
        return moved


_null: dict[int, Line] = {}


def null_line(device: int) -> Line:
    try:
        return _null[device]
    except KeyError:
        made = _null[device] = Line(0, device, True, f"the default stream of device {device}")
        return made


_lines: dict[int, weakref.WeakSet[Line]] = {}


def lines(device: int) -> list[Line]:
    return [null_line(device), *_lines.get(device, ())]


def name_of(uid: int) -> str:
    """How messages call a stream."""
    return _names.get(uid, f"stream {uid}")


def let_go_on() -> None:
    """Carry out whatever any stream can."""
    with lock:
        moved = True
        while moved:
            moved = False
            for device in range(devices.count()):
                for line in lines(device):
                    moved |= line.run()
        _changed.notify_all()


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Let streams go on until something is done.

    Raises
    ------
    CUDARuntimeError
        If nothing happens any more.
    """
    deadline = time.monotonic() + PATIENCE
    with lock:
        while True:
            let_go_on()
            if done():
                return
            if time.monotonic() > deadline:
                raise CUDARuntimeError(702, f"{what} waits for what does not come ({state.failures})")
            _changed.wait(0.01)


def seen(clock: Clock) -> None:
    """The host has seen that all of a clock is done."""
    join(host, clock)
    deliver()


_deliveries: list[tuple[int, int, Callable[[], None]]] = []
_executing: list[tuple[int, int]] = []
"""Stream and number of the operation that is carried out."""


def later(action: Callable[[], None]) -> None:
    """Within an operation: what the host finds only when it has seen the operation done, such as copies into its memory."""
    _deliveries.append((*_executing[-1], action))


def deliver() -> None:
    ready = [each for each in _deliveries if host.get(each[0], 0) >= each[1]]
    if ready:
        _deliveries[:] = [each for each in _deliveries if host.get(each[0], 0) < each[1]]
        for _, _, action in ready:
            action()


def synchronising(what: str) -> None:
    """Said before the host waits for the device.

    Raises
    ------
    CUDARuntimeError
        Where it must not: while a stream is captured, or within `tests.stand_in.no_synchronisation`.
    """
    if state.forbid_synchronisation:
        raise CUDARuntimeError(0, f"{what} waits for the device, {state.forbid_synchronisation}")
    from . import graphs

    graphs.forbidden(what)


class Stream:
    """``cupy.cuda.Stream``."""

    null: Stream
    ptds: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None):
        if ptds:
            raise NotImplementedError("the stand-in has no default stream for each thread")
        self.non_blocking, self.ptds_, self.null_ = non_blocking, ptds, null
        self.priority = 0 if priority is None else priority
        if null:
            self.device_id, self.ptr = -1, 0
            return
        self.device_id, self.ptr = devices.current(), next(_pointers)
        line = self._line = Line(self.ptr, self.device_id, not non_blocking, f"stream {self.ptr:#x}")
        with lock:  # other threads may be going through the streams
            Line.by_pointer[self.ptr] = line
            _lines.setdefault(self.device_id, weakref.WeakSet()).add(line)
        weakref.finalize(self, Line.by_pointer.pop, self.ptr, None)

    @property
    def line(self) -> Line:
        if self.ptr == 0:
            return null_line(devices.current())
        try:
            return self._line
        except AttributeError:  # of a class of somebody's own, which has only the pointer
            return line_of(self.ptr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)

    def __repr__(self) -> str:
        return f"<Stream {self.ptr:#x} of the stand-in>"

    def use(self) -> Stream:
        _check_device(self)
        _set_current(self)
        return self

    def __enter__(self) -> Stream:
        _check_device(self)
        device = devices.current()
        _entered(device).append(self)
        _order_of_blocks().append(device)
        _set_current(self)
        return self

    def __exit__(self, *_: object) -> None:
        # As CuPy has it: back to the stream of the block around this one, and not to one that was made current by `use`.
        device = _order_of_blocks().pop()
        _entered(device).pop()
        _set_current(_entered(device)[-1])

    @property
    def done(self) -> bool:
        with lock:
            if self.line.capture is not None:
                raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported: Stream.done of a stream that is captured")
            let_go_on()
            if self.line.busy:
                return False
            seen(self.line.clock)
            return True

    def synchronize(self) -> None:
        synchronising("Stream.synchronize")
        with lock:
            flag = self.line.mark()
            clock = dict(self.line.clock)
            wait_until(flag.is_set, "Stream.synchronize")
            seen(clock)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        with lock:
            line = self.line
            if event.capture is not None and line.capture is None:
                event.capture.joined(line)
            elif event.capture is None and line.capture is not None and event.recorded and not event.flag.is_set():
                raise CUDARuntimeError(905, "cudaErrorStreamCaptureIsolation: a captured stream waits for an event from outside")
            join(line.clock, event.clock)
            if line.capture is None:
                _launch(line, event.flag.is_set)

    def add_callback(self, callback: Callable[[Any, int, Any], None], arg: Any) -> None:
        self.launch_host_func(lambda _: callback(self, 0, arg), None)

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        def act() -> bool:
            callback(arg)
            return True

        with lock:
            self.line.advance()
            submit(self.line, "launch_host_func", act, [])

    def begin_capture(self, mode: int | None = None) -> None:
        from . import graphs

        graphs.begin(self, mode)

    def end_capture(self) -> Any:
        from . import graphs

        return graphs.end(self)

    def is_capturing(self) -> bool:
        return self.line.capture is not None

    @property
    def is_done_capturing(self) -> bool:
        return not self.is_capturing()


class ExternalStream(Stream):
    """A stream that somebody else made, by its pointer."""

    def __init__(self, ptr: int, device_id: int = -1):
        self.ptr, self.device_id = ptr, device_id
        self.non_blocking, self.priority, self.ptds_, self.null_ = False, 0, False, False
        self._line = line_of(ptr)

    @property
    def line(self) -> Line:
        return self._line


Stream.null = Stream(null=True)


def line_of(pointer: int) -> Line:
    """The stream behind a pointer; 0 is the default stream of the current device."""
    if pointer == 0:
        return null_line(devices.current())
    try:
        return Line.by_pointer[pointer]
    except KeyError:
        raise CUDARuntimeError(400, f"cudaErrorInvalidResourceHandle: {pointer:#x} is no stream") from None


def _check_device(stream: Stream) -> None:
    if stream.device_id not in (-1, devices.current()):
        raise RuntimeError(
            f"Stream set for device {stream.device_id} cannot be used on the current device {devices.current()}"
        )


def _currents() -> dict[int, Stream]:
    """This thread's current streams, by device."""
    if not hasattr(_local, "streams"):
        _local.streams = {}
    streams: dict[int, Stream] = _local.streams
    return streams


def _set_current(stream: Stream) -> None:
    _currents()[devices.current() if stream.device_id < 0 else stream.device_id] = stream


def _entered(device: int) -> list[Stream]:
    """The streams of this thread's with-blocks on a device, the innermost last, and the default stream before all."""
    if not hasattr(_local, "entered"):
        _local.entered = {}
    entered: list[Stream] = _local.entered.setdefault(device, [Stream.null])
    return entered


def _order_of_blocks() -> list[int]:
    """The devices of this thread's with-blocks."""
    if not hasattr(_local, "blocks"):
        _local.blocks = []
    blocks: list[int] = _local.blocks
    return blocks


@contextmanager
def launching(stream: Stream) -> Iterator[None]:
    """Launch on a stream within the with-block, as functions do that are told one; nothing else changes."""
    streams, device = _currents(), devices.current()
    before = streams.get(device, Stream.null)
    streams[device] = stream
    try:
        yield
    finally:
        streams[device] = before


def get_current_stream(device_id: int = -1) -> Stream:
    return _currents().get(devices.current() if device_id < 0 else device_id, Stream.null)


def current() -> Line:
    """The stream that work goes to."""
    device = devices.current()
    streams = getattr(_local, "streams", None)
    stream = streams.get(device) if streams else None
    return null_line(device) if stream is None else stream.line


_events: weakref.WeakValueDictionary[int, Event] = weakref.WeakValueDictionary()


def event_at(pointer: int) -> Event | None:
    """The event behind a pointer."""
    return _events.get(pointer)


class Event:
    """``cupy.cuda.Event``."""

    failed = 0
    """A status with which the device has failed before it; a test may set it. Then it is never done, and raises nothing."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.ptr = next(_pointers)
        _events[self.ptr] = self
        self.device_id = devices.current()
        self.disable_timing = disable_timing
        self.flag = threading.Event()
        self.flag.set()
        self.clock: Clock = {}
        self.recorded = False
        self.time = 0.0
        self.capture: Any = None

    def record(self, stream: Stream | None = None) -> None:
        with lock:
            line = (get_current_stream() if stream is None else stream).line
            if line.device != self.device_id:
                raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: the event was made on another device than the stream")
            line.advance()
            self.clock, self.recorded, self.capture = dict(line.clock), True, line.capture
            self.flag = flag = threading.Event()
            if line.capture is not None:
                flag.set()
                return

            def act() -> bool:
                self.time = time.perf_counter()
                flag.set()
                return True

            _launch(line, act)

    @property
    def done(self) -> bool:
        with lock:
            unsafe("cudaEventQuery")
            if self.failed:
                return False
            if self.capture is not None:
                raise CUDARuntimeError(907, "cudaErrorCapturedEvent: not permitted on an event last recorded in a capturing stream")
            let_go_on()
            if self.flag.is_set():
                seen(self.clock)
            return self.flag.is_set()

    def synchronize(self) -> None:
        synchronising("Event.synchronize")
        with lock:
            flag, clock = self.flag, self.clock
            wait_until(flag.is_set, "Event.synchronize")
            seen(clock)


EXTERNAL = 1
"""The flag of events that are not a part of the capture in which they are recorded or waited for."""


def record_external(event: int, stream: int, flags: int) -> None:
    """``cuEventRecordWithFlags``."""
    found = _events[event]

    def at_launch(line: Line) -> None:
        found.clock, found.recorded, found.capture, found.flag = dict(line.clock), True, None, threading.Event()

    def act() -> bool:
        found.time = time.perf_counter()
        found.flag.set()
        return True

    _into_graph(stream, flags, "event record", act, at_launch)


def wait_external(stream: int, event: int, flags: int) -> None:
    """``cudaStreamWaitEvent``."""
    found = _events[event]
    _into_graph(stream, flags, "event wait", lambda: found.flag.is_set(), lambda line: join(line.clock, found.clock))


def _into_graph(stream: int, flags: int, name: str, act: Callable[[], bool], at_launch: Callable[[Line], None]) -> None:
    from . import graphs

    with lock:
        line = line_of(stream)
        if flags != EXTERNAL or line.capture is None:
            raise NotImplementedError(f"the stand-in does this with flags in captures only, from outside: {name}")
        line.advance()
        line.capture.operations.append(graphs.Operation(name, act, [], at_launch))


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    for event in (start_event, end_event):
        if event.disable_timing or not event.recorded:
            raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event without timing, or never recorded")
        if not event.flag.is_set():
            raise CUDARuntimeError(600, "cudaErrorNotReady: device not ready")
    return (end_event.time - start_event.time) * 1e3


def _launch(line: Line, action: Callable[[], bool]) -> None:
    line.queue.append(action)
    if len(line.queue) == 1:
        line.run()
        if not line.queue:
            _changed.notify_all()


def submit(line: Line, name: str, action: Callable[[], bool], uses: list[tuple[Any, int, int, bool]]) -> None:
    """Launch an operation whose number was taken before: check its uses of memory, then do it, queue it, or note it in a graph.

    Parameters
    ----------
    uses : list of (Region, int, int, bool)
        Region, first byte, byte behind the last, whether it is written.
    """
    if state.calls is not None:
        state.calls.append(name)
    if line.capture is not None:
        line.capture.add(line, name, action, uses)
        return
    where = (line.uid, line.tick)
    for region, low, high, writes in uses:
        region.use(Use(low, high, *where, writes, name), line.clock, name_of)

    def act() -> bool:
        _executing.append(where)
        try:
            return action()
        finally:
            _executing.pop()

    if line.queue:
        line.queue.append(act)
        line.run()
    elif not act():
        line.queue.append(act)


@contextmanager
def held(stream: Stream) -> Iterator[None]:
    """A stream does nothing of what is launched within the with-block until its end, as if it were busy."""
    gate = threading.Event()
    with lock:
        stream.line.queue.append(gate.is_set)
    try:
        yield
    finally:
        gate.set()
        let_go_on()


def delayed(stream: Stream, seconds: float, action: Callable[[], Any] = lambda: None) -> None:
    """Let a stream be busy for a time, and then do something."""
    began: list[float] = []

    def act() -> bool:
        if not began:
            began.append(time.monotonic())
        if time.monotonic() - began[0] < seconds:
            return False
        action()
        return True

    with lock:
        _launch(stream.line, act)


def gate(stream: Stream) -> threading.Event:
    """Let a stream wait until the flag is set."""
    flag = threading.Event()
    with lock:
        _launch(stream.line, flag.is_set)
    return flag
