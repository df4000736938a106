"""Streams and events of the CPU, on which every operation has finished when it returns: nothing is ever waited for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..backend.device import device as device_type

__all__ = ["Event", "Stream", "StreamContext", "current_stream", "stream"]


class Stream:
    """As ``torch.cpu.Stream``.

    Parameters
    ----------
    priority : int
        Accepted as in PyTorch.
    """

    device = device_type("cpu")
    device_index, stream_id = -1, 0

    def __init__(self, priority: int = -1):
        self.priority = priority

    def synchronize(self) -> None:
        """Its work is done."""

    def query(self) -> bool:
        """Its work is done."""
        return True

    def record_event(self, event: Event | None = None) -> Event:
        """An event, which has happened."""
        return Event() if event is None else event

    def wait_event(self, event: Event) -> None:
        """It has happened."""

    def wait_stream(self, stream: Stream) -> None:
        """Its work is done."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Event:
    """As ``torch.cpu.Event``.

    Parameters
    ----------
    enable_timing, blocking, interprocess : bool
        Accepted as in PyTorch.
    """

    device = device_type("cpu")

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        pass

    def record(self, stream: Stream | None = None) -> None:
        """It happens at once."""

    def wait(self, stream: Stream | None = None) -> None:
        """It has happened."""

    def query(self) -> bool:
        """It has happened."""
        return True

    def synchronize(self) -> None:
        """It has happened."""

    def elapsed_time(self, end_event: Event) -> float:
        """Refused, as by PyTorch.

        Raises
        ------
        RuntimeError
            Always: time.perf_counter measures what the CPU does.
        """
        raise RuntimeError("elapsed_time: the CPU has no events with a time; time.perf_counter() measures what it does")


_the_stream = Stream()


def current_stream(device: Any = None) -> Stream:
    """The CPU's only stream."""
    return _the_stream


class StreamContext:
    """A with-block in which nothing is another; as ``torch.cpu.StreamContext``."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def stream(stream: Stream | None) -> AbstractContextManager[None]:
    """A with-block in which a stream is the current one; of the CPU's there is only one."""
    return nullcontext() if stream is None else StreamContext(stream)
