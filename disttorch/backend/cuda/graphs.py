"""CUDA graphs: what a stream is given is recorded once and launched as a whole, as often as one likes.

A capture takes its memory from a pool of its own (`memory.GraphPool`), whose blocks stay where they are for as long as a graph may write
to them. Graphs that are replayed in the order in which they were captured may share a pool. What a capture does not allow, the driver
refuses with a number; `explained` says in words what it was and who asked.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import cupy

from . import capturing
from .memory import Block, GraphPool, after_captures
from .origin import asking, innermost

__all__ = ["RecordedGraph", "explained", "is_capturing", "new_handle"]

Handle = tuple[int, int]
_numbers = itertools.count(1)
#: pools of graphs that are captured or shall be; one lives as long as a graph, or a tensor on it, does
_pools: weakref.WeakValueDictionary[Handle, GraphPool] = weakref.WeakValueDictionary()


def new_handle() -> Handle:
    """A name for a pool that several graphs shall share."""
    return 0, next(_numbers)


def is_capturing() -> bool:
    """Whether the current stream is being captured."""
    return cupy.cuda.get_current_stream().is_capturing()


class Executable:
    """A graph of the driver's in the form in which it is launched: one of our own where it may have been changed since its capture."""

    def __init__(self, graph: Any):
        self.pointer = cupy.cuda.runtime.graphInstantiate(graph.graph)

    def __del__(self, destroy: Callable[[int], None] = cupy.cuda.runtime.graphExecDestroy) -> None:
        if hasattr(self, "pointer"):
            destroy(self.pointer)


class RecordedGraph:
    """A graph, from the beginning of its capture to its last replay.

    Parameters
    ----------
    keep : bool
        Whether users may change the driver's graph before it is launched.
    """

    def __init__(self, keep: bool = False) -> None:
        self._keep = keep
        self._executable: Executable | None = None
        self._capture: capturing.Capture | None = None
        self._graph: Any = None
        self._stream: Any = None
        self._pool: GraphPool | None = None
        self._kept: list[Any] = []
        self.handle: Handle | None = None

    def begin(self, handle: Handle | None, mode: str) -> None:
        """Record what the current stream is given from now on.

        Raises
        ------
        RuntimeError
            If there is a graph already, or the stream is a default stream, which cannot be captured.
        ValueError
            If there is no such mode.
        """
        if self._graph is not None or self._capture is not None:
            raise RuntimeError("This CUDAGraph instance already owns a captured graph. To capture a new graph, create a new instance.")
        if mode not in capturing.MODES:
            raise ValueError(f"capture_error_mode must be one of {', '.join(capturing.MODES)}, got {mode!r}")
        stream = cupy.cuda.get_current_stream()
        if stream.ptr in (0, cupy.cuda.runtime.streamLegacy, cupy.cuda.runtime.streamPerThread):
            raise RuntimeError(
                "CUDA graphs must be captured on a non-default stream. (However, after capture, it's ok to replay them on the default "
                "stream.)"
            )
        capturing.refuse_second()
        cupy.cuda.Device().synchronize()  # what was made until now is there, whichever stream the graph is replayed on
        self.handle = new_handle() if handle is None else handle
        pool = _pools.get(self.handle)
        if pool is None:
            pool = _pools[self.handle] = GraphPool()
        capture = capturing.Capture(pool, capturing.MODES[mode])
        capturing.start(capture)
        try:
            stream.begin_capture(capture.mode)
        except BaseException:
            capturing.leave(capture)
            raise
        self._capture, self._stream, self._pool = capture, stream, pool

    def end(self) -> None:
        """End the capture and make the graph ready.

        Raises
        ------
        RuntimeError
            If something in between made the capture invalid.
        """
        capture = self._capture
        if capture is None:
            raise RuntimeError("capture_end() was called, but no capture is under way in this CUDAGraph")
        try:
            self._graph = self._stream.end_capture()
            self._kept = capture.kept
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(explained(error) or f"capture_end: {error}") from error
        finally:
            self._capture = self._stream = None
            capturing.leave(capture)
            after_captures()

    def memory_outside(self, array: Any) -> Any:
        """What an array lies on, if that is ours and does not belong to this graph's pool; else None."""
        block = array.data.mem
        return block if isinstance(block, Block) and block.pool is not self._pool else None

    def give_up(self) -> None:
        """End a capture in which something failed. What it failed with is known; that the driver says so again is no news."""
        capture = self._capture
        if capture is None:
            return
        try:
            self._stream.end_capture()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status not in _MEANINGS:
                raise
        finally:
            self._capture = self._stream = self._pool = None
            capturing.leave(capture)
            after_captures()

    def replay(self) -> None:
        """Launch the graph on the current stream.

        Raises
        ------
        RuntimeError
            If nothing was captured.
        """
        if self._graph is None:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        stream = cupy.cuda.get_current_stream()
        if not self._keep:
            self._graph.launch(stream)
            return
        if self._executable is None:
            self.instantiate()
        assert self._executable is not None
        cupy.cuda.runtime.graphLaunch(self._executable.pointer, stream.ptr)

    def instantiate(self) -> None:
        """Make the graph, as it is now, ready to be launched.

        Raises
        ------
        RuntimeError
            If nothing was captured, or the graph is not kept for changes.
        """
        if self._graph is None:
            raise RuntimeError("instantiate() was called before capture_end()")
        if not self._keep:
            raise RuntimeError("instantiate() is for graphs that are kept to be changed: CUDAGraph(keep_graph=True)")
        self._executable = Executable(self._graph)

    def raw(self) -> int:
        """The driver's pointer to the graph.

        Raises
        ------
        RuntimeError
            If nothing was captured, or the graph is not kept for changes.
        """
        if not self._keep:
            raise RuntimeError("the driver's graph can be had of a CUDAGraph(keep_graph=True) only")
        if self._graph is None:
            raise RuntimeError("raw_cuda_graph() was called before capture_end()")
        return int(self._graph.graph)

    def raw_executable(self) -> int:
        """The driver's pointer to what is launched.

        Raises
        ------
        RuntimeError
            If nothing was captured, or what is kept for changes was not made ready.
        """
        if self._graph is None:
            raise RuntimeError("raw_cuda_graph_exec() was called before capture_end()")
        if not self._keep:
            return int(self._graph.graphExec)
        if self._executable is None:
            raise RuntimeError("raw_cuda_graph_exec() was called before instantiate()")
        return self._executable.pointer

    def reset(self) -> None:
        """Forget the graph; its memory is free when no tensor lies on it, and no other graph shares it."""
        self._graph = self._pool = self._executable = None
        self._kept = []

    def description(self) -> str:
        """The graph in the language of Graphviz.

        Raises
        ------
        RuntimeError
            If nothing was captured.
        """
        if self._graph is None:
            raise RuntimeError("Called CUDAGraph::debug_dump without a preceding successful capture.")
        return self._graph.debug_dot_str()


#: cudaErrorStreamCapture..., and what they mean for who captures
_MEANINGS = {
    900: "this is not possible while a CUDA graph is captured: it waits for the device, or reads values of it on the host",
    901: "the capture was made invalid by an earlier error in it",
    902: "two captures were joined by an event: only one may be under way on streams that wait for each other",
    903: "the capture was not begun on this stream",
    904: "the capture has work on another stream that does not lead back: let the capturing stream wait for it (wait_stream) at the end",
    905: "the captured work depends on work from before the capture: let streams wait for each other before it begins",
    906: "the default stream was used, which waits for the stream that is captured",
    907: "an event of the capture was asked whether it has happened, or waited for outside of it",
    908: "the capture was begun by another thread",
}


#: The same number where CuPy asks the driver for a kernel, by a function that can only fail by loading it.
_LOADING = "a kernel is used for the first time, and cannot be loaded while a CUDA graph is captured: do once before what is captured"


def explained(error: BaseException | None, traceback: TracebackType | None = None) -> str:
    """What a driver's error about captures means, and who caused it; empty for any other error."""
    status = getattr(error, "status", None)
    by_driver = isinstance(error, cupy.cuda.driver.CUDADriverError)  # as CuPy's launches fail; all else by the runtime's
    if not (by_driver or isinstance(error, cupy.cuda.runtime.CUDARuntimeError)) or status not in _MEANINGS:
        return ""
    frame = innermost(traceback)
    who = f"; it was asked for by {asking(frame)}" if frame is not None else ""
    return f"{_LOADING if by_driver and status == 900 else _MEANINGS[status]}{who} ({error})"
