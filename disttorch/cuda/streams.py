"""Streams, queues of work for a device, and events, marks in them; as ``torch.cuda.streams``."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..backend.device import device as device_type
from ._room import room

__all__ = ["Event", "ExternalStream", "Stream", "StreamContext", "current_stream", "default_stream", "set_stream", "stream"]


class Stream:
    """A queue of work on a device; as ``torch.cuda.Stream``. In a with-block it is the current stream.

    Parameters
    ----------
    device : device, str or int, optional
        The current one unless given.
    priority : int
        Streams with lower numbers go first; -1 and 0 are there on every device.

    Notes
    -----
    Streams come from a pool of 32 for each device and priority, one after the other, as in PyTorch.
    """

    def __init__(self, device: Any = None, priority: int = 0):
        self._stream, self.device_index = room("streams").from_pool(device, priority)

    @classmethod
    def _of(cls, stream: Any, index: int) -> Stream:
        """CuPy's stream of a device as one of ours."""
        self = object.__new__(Stream)
        self._stream, self.device_index = stream, index
        return self

    @property
    def device(self) -> device_type:
        """Where its work is done."""
        return device_type("cuda", self.device_index)

    @property
    def cuda_stream(self) -> int:
        """The driver's pointer."""
        return self._stream.ptr

    stream_id = cuda_stream

    @property
    def priority(self) -> int:
        """The lower, the sooner."""
        return self._stream.priority

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """The lowest and the highest priority that are there on every device."""
        return 0, -1

    def __cuda_stream__(self) -> tuple[int, int]:
        """For other libraries: the protocol's version and the driver's pointer."""
        return 0, self._stream.ptr

    def synchronize(self) -> None:
        """Wait until it is empty."""
        with room("devices").using(self.device_index):  # all default streams have one pointer, which means the current device's
            self._stream.synchronize()

    def query(self) -> bool:
        """Whether it is empty."""
        with room("devices").using(self.device_index):
            return self._stream.done

    def record_event(self, event: Event | None = None) -> Event:
        """An event that happens when what is queued now is done."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let what is queued from now on wait for an event."""
        with room("devices").using(self.device_index):
            if event._event is None and event._external and self._stream.is_capturing():
                event._make(self.device_index)  # it may be recorded before a replay
            if event._event is not None:  # one that was never recorded has happened, as in PyTorch
                room("streams").wait(self._stream, event._event, event._external)

    def wait_stream(self, stream: Stream) -> None:
        """Let what is queued from now on wait for what is queued in another stream now."""
        self.wait_event(stream.record_event())

    def __enter__(self) -> Stream:
        _push(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device_index, self.cuda_stream) == (other.device_index, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream that another library made, and will destroy; as ``torch.cuda.ExternalStream``.

    Parameters
    ----------
    stream_ptr : int
        The driver's pointer.
    device : device, str or int, optional
        Whose stream it is; the current one's unless given.
    """

    def __init__(self, stream_ptr: int, device: Any = None):
        self.device_index = room("devices").number(device)
        self._stream = room("streams").ForeignStream(stream_ptr, self.device_index)


class Event:
    """A mark in a stream; as ``torch.cuda.Event``.

    Parameters
    ----------
    enable_timing : bool
        Whether the time is noted, for `elapsed_time`.
    blocking : bool
        Whether `synchronize` sleeps, instead of asking again and again.
    interprocess : bool
        Whether other processes may be told of it; without timing.
    external : bool
        What it means to record it, or to wait for it, while a CUDA graph is captured: each replay does so, which lets a graph and what is
        outside of it wait for each other. Otherwise it orders the streams of the capture.

    Raises
    ------
    ValueError
        If it is to have timing and be for other processes.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False, external: bool = False):
        if interprocess and enable_timing:
            raise ValueError("an event for other processes cannot have timing: enable_timing and interprocess exclude each other")
        room("devices")  # an event without a device is refused at once, not when it is recorded
        self._options = {"block": blocking, "disable_timing": not enable_timing, "interprocess": interprocess}
        self._external = external
        self._event: Any = None
        self._index = -1

    @property
    def device(self) -> device_type | None:
        """Of the stream that it was recorded in; None before."""
        return None if self._event is None else device_type("cuda", self._index)

    @property
    def cuda_event(self) -> int:
        """The driver's pointer; 0 before it was recorded."""
        return 0 if self._event is None else self._event.ptr

    def record(self, stream: Stream | None = None) -> None:
        """Put it into a stream; the current one unless given.

        Raises
        ------
        RuntimeError
            If it belongs to another device's stream.
        """
        stream = current_stream() if stream is None else stream
        with room("devices").using(stream.device_index):
            if self._event is None:
                self._make(stream.device_index)
            if self._index != stream.device_index:
                raise RuntimeError(f"Event device {self._index} does not match recording stream's device {stream.device_index}.")
            room("streams").record(self._event, stream._stream, self._external)

    def _make(self, index: int) -> None:
        """Have it made by the driver, on the current device."""
        self._event, self._index = room("streams").new_event(self._options), index

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait for it; the current one unless given."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether it has happened, or was never recorded."""
        return self._event is None or self._event.done

    def synchronize(self) -> None:
        """Wait until it has happened."""
        if self._event is not None:
            self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this to another.

        Raises
        ------
        ValueError
            If one of them has no timing, or was not recorded.
        """
        for event in (self, end_event):
            if event._options["disable_timing"]:
                raise ValueError("Both events must be created with argument 'enable_timing=True'.")
            if event._event is None:
                raise ValueError("Both events must be recorded before calculating elapsed time.")
        return room("streams").milliseconds(self._event, end_event._event)

    def __repr__(self) -> str:
        return f"<torch.cuda.Event {self.cuda_event:#x}>" if self._event is not None else "<torch.cuda.Event uninitialized>"


class StreamContext:
    """A stream, and its device, as the current ones in a with-block; None leaves them. As ``torch.cuda.StreamContext``.

    Parameters
    ----------
    stream : Stream or None
    """

    def __init__(self, stream: Stream | None):
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            _push(self.stream)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.stream is not None:
            _pop()


def stream(stream: Stream | None) -> StreamContext:
    """A stream as the current one in a with-block; None leaves it."""
    return StreamContext(stream)


def current_stream(device: Any = None) -> Stream:
    """The stream that a device's work goes to in this thread."""
    return Stream._of(*room("streams").current(device))


def default_stream(device: Any = None) -> Stream:
    """A device's default stream."""
    return Stream._of(*room("streams").default(device))


def set_stream(stream: Stream | None) -> None:
    """Let this thread's work go to a stream, and its device, from now on; None changes nothing."""
    if stream is not None:
        room("streams").make_current(stream._stream, stream.device_index)


def _push(stream: Stream) -> None:
    room("streams").push(stream._stream, stream.device_index)


def _pop() -> None:
    room("streams").pop()
