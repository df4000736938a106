"""Streams of a device, queues of work, and events, marks in them; through CuPy."""

from __future__ import annotations

from typing import Any

import cupy

from .devices import using

__all__ = ["Event", "Stream", "current_stream", "default_stream"]


class Stream:
    """A queue of work on a device; as ``torch.cuda.Stream``."""

    def __init__(self, device: Any = None, priority: int = 0, *, of: Any = None):
        if of is None:
            with using(device):
                of = cupy.cuda.Stream(non_blocking=True, priority=priority)
        self._stream = of

    @property
    def cuda_stream(self) -> int:
        """The driver's pointer."""
        return self._stream.ptr

    def synchronize(self) -> None:
        """Wait until it is empty."""
        self._stream.synchronize()

    def query(self) -> bool:
        """Whether it is empty."""
        return self._stream.done

    def record_event(self, event: Event | None = None) -> Event:
        """An event that happens when what is queued now is done."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let what is queued from now on wait for an event."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """Let what is queued from now on wait for what is queued in another stream now."""
        self.wait_event(stream.record_event())

    def __enter__(self) -> Stream:
        self._stream.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stream.__exit__(*exception)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)


class Event:
    """A mark in a stream; as ``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self._event = cupy.cuda.Event(block=blocking, disable_timing=not enable_timing, interprocess=interprocess)

    def record(self, stream: Stream | None = None) -> None:
        """Put it into a stream."""
        self._event.record(None if stream is None else stream._stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait for it."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether it has happened."""
        return self._event.done

    def synchronize(self) -> None:
        """Wait until it has happened."""
        self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this to another."""
        return cupy.cuda.get_elapsed_time(self._event, end_event._event)


def current_stream() -> Stream:
    """The stream that work goes to."""
    return Stream(of=cupy.cuda.get_current_stream())


def default_stream() -> Stream:
    """The driver's own stream."""
    return Stream(of=cupy.cuda.Stream.null)
