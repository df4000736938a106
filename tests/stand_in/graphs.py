"""Stream capture: what is launched on a captured stream is noted and not carried out; a graph carries it out, on the same addresses."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from . import streams
from .driver import RELAXED, open_captures
from .memory import taken_in_captures
from .order import Clock, OrderError, Region, Use, join, lock
from .streams import CUDARuntimeError, Line, Stream, get_current_stream, line_of, name_of, submit

__all__ = ["Capture", "Graph", "begin", "end"]

_pointers = itertools.count(0x6000_0000_1000, 0x1000)


class Operation:
    """One noted operation."""

    def __init__(
        self, name: str, action: Callable[[], bool], uses: list[tuple[Region, int, int, bool]],
        at_launch: Callable[[Line], None] = lambda line: None,
    ):  # fmt: skip
        self.name, self.action, self.uses, self.at_launch = name, action, uses, at_launch
        self.owners = [region.owner for region, *_ in uses]


class Capture:
    """Streams being captured into one graph."""

    def __init__(self, origin: Line, mode: int):
        self.origin, self.mode = origin, mode
        self.thread = threading.get_ident()
        self.lines: list[Line] = []
        self.operations: list[Operation] = []
        self.uses: dict[int, tuple[Region, list[Use]]] = {}
        self.broken = ""
        self.comms: set[Any] = set()
        """NCCL's communicators whose operations are noted."""
        self.joined(origin)

    def joined(self, line: Line) -> None:
        """Another stream waits for an event of a captured one, and is captured too."""
        line.capture = self
        self.lines.append(line)

    def add(self, line: Line, name: str, action: Callable[[], bool], uses: list[tuple[Region, int, int, bool]]) -> None:
        for region, low, high, writes in uses:
            use = Use(low, high, line.uid, line.tick, writes, name)
            _, before = self.uses.setdefault(id(region), (region, []))
            for other in before:
                overlap = other.low < high and low < other.high and (writes or other.writes)
                if overlap and other.stream != line.uid and line.clock.get(other.stream, 0) < other.tick:
                    raise OrderError(
                        f"{name} on {name_of(line.uid)} and {other.name} on {name_of(other.stream)} use the same memory in one capture, "
                        "and nothing orders one behind the other"
                    )
            before.append(use)
        self.operations.append(Operation(name, action, uses))


def begin(stream: Stream, mode: int | None = None) -> None:
    with lock:
        line = stream.line
        if line.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if line.capture is not None:
            raise CUDARuntimeError(1, "cudaErrorIllegalState: the stream is being captured already")
        streams.wait_until(lambda: not line.busy, "begin_capture")
        capture = Capture(line, RELAXED if mode is None else mode)
        open_captures.append(capture)


def forbidden(what: str) -> None:
    """Raised by what synchronises while this thread captures, or any does in global mode."""
    for capture in open_captures:
        own = capture.mode == 1 and capture.thread == threading.get_ident()
        if capture.mode == 0 or own or get_current_stream().line.capture is capture:
            capture.broken = what
            raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing ({what})")


def end(stream: Stream) -> Graph:
    with lock:
        line = stream.line
        capture = line.capture
        if capture is None:
            raise CUDARuntimeError(1, "cudaErrorIllegalState: the stream is not being captured")
        if capture.origin is not line:
            raise CUDARuntimeError(904, "cudaErrorStreamCaptureUnmatched: the capture was begun on another stream")
        open_captures.remove(capture)
        for each in capture.lines:
            each.capture = None
        if capture.broken:
            raise CUDARuntimeError(901, f"cudaErrorStreamCaptureInvalidated: {capture.broken} was called within the capture")
        for each in capture.lines:
            last = max((use.tick for _, uses in capture.uses.values() for use in uses if use.stream == each.uid), default=0)
            if line.clock.get(each.uid, 0) < last:
                raise CUDARuntimeError(904, f"cudaErrorStreamCaptureUnjoined: {name_of(each.uid)} was not joined to the original stream")
        graph = Graph(capture.operations)
        for comm in capture.comms:
            comm.graphs.add(graph)
        return graph


class Graph:
    """``cupy.cuda.Graph``."""

    def __init__(self, operations: list[Operation]):
        self.operations = operations
        self.graph, self.graphExec = next(_pointers), next(_pointers)
        _graphs[self.graph] = self
        self.owners = {owner for each in operations for owner in each.owners}

    def launch(self, stream: Any = None) -> None:
        with lock:
            line = (get_current_stream() if stream is None else stream).line
            uses = []
            for each in self.operations:
                for (region, low, high, writes), owner in zip(each.uses, each.owners):
                    known = not region.owner or region.owner == owner or region.owner in self.owners or region.owner in taken_in_captures
                    if not (region.alive and known):
                        raise OrderError(f"a graph is launched whose {each.name} uses memory that belongs to somebody else now")
                    uses.append((region, low, high, writes))
            line.advance()
            for each in self.operations:
                each.at_launch(line)
            waiting = list(self.operations)

            def act() -> bool:
                todo = waiting
                while todo and todo[0].action():
                    todo.pop(0)
                return not todo

            submit(line, "graph", act, _merged(uses))

    def upload(self, stream: Any = None) -> None:
        """Bring it to the device, which happens anyway."""

    def debug_dot_str(self, flags: int | None = None) -> str:
        return "digraph {" + "; ".join(each.name for each in self.operations) + "}"


_graphs: weakref.WeakValueDictionary[int, Graph] = weakref.WeakValueDictionary()
executables: dict[int, Graph] = {}
"""By their pointers: those that were not made by CuPy."""


def instantiate(graph: int) -> int:
    """A graph as it is now, to be launched."""
    found, pointer = _graphs[graph], next(_pointers)
    executables[pointer] = Graph(list(found.operations))
    return pointer


def executable(pointer: int) -> Graph:
    try:
        return executables[pointer]
    except KeyError:
        raise CUDARuntimeError(400, f"cudaErrorInvalidResourceHandle: {pointer:#x} is no graph to be launched") from None


def destroy(pointer: int) -> None:
    executable(pointer)
    del executables[pointer]


def _merged(uses: list[tuple[Region, int, int, bool]]) -> list[tuple[Region, int, int, bool]]:
    seen: dict[tuple[int, int, int], tuple[Region, int, int, bool]] = {}
    for region, low, high, writes in uses:
        key = (id(region), low, high)
        seen[key] = (region, low, high, writes or (key in seen and seen[key][3]))
    return list(seen.values())


def clock_of(pointer: int) -> Clock:
    clock: Clock = {}
    join(clock, line_of(pointer).clock)
    return clock
