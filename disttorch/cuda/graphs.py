"""CUDA graphs: work of a stream that is recorded once and replayed; as ``torch.cuda.graphs``. `graphed` does it for parts of a network.

What a graph reads and writes lies at the same addresses in every replay: new data is copied into the tensors that were used in the capture,
and results are read from those it made. While it is captured nothing is computed, so nothing may look at a value.
"""

from __future__ import annotations

import gc
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from ..ops import random
from ._room import room
from .liveness import InputsOfCapture
from .streams import Stream, StreamContext

__all__ = ["CUDAGraph", "graph", "graph_pool_handle", "is_current_stream_capturing"]

Handle = tuple[int, int]


def is_current_stream_capturing() -> bool:
    """Whether the current stream is being captured; False without a device."""
    from . import is_available

    return is_available() and room("graphs").is_capturing()


def graph_pool_handle() -> Handle:
    """A name for a pool of memory that several graphs shall share: those that are replayed in the order in which they were captured."""
    return room("graphs").new_handle()


class CUDAGraph:
    """A recorded piece of work; as ``torch.cuda.CUDAGraph``. `graph` and `make_graphed_callables` capture one.

    Parameters
    ----------
    keep_graph : bool
        Whether the driver's graph, `raw_cuda_graph`, may be changed before it is replayed. Then it is made ready by `instantiate`, or by
        the first `replay`, and not at the end of the capture.

    Notes
    -----
    Random numbers are new in every replay: a device's generator counts on in the device's memory, in the kernels themselves.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        self._recorded = room("graphs").RecordedGraph(keep_graph)
        self._inputs: InputsOfCapture | None = None

    def capture_begin(
        self, pool: Handle | None = None, capture_error_mode: str = "global", check_input_liveness: bool = False
    ) -> None:
        """Record what the current stream is given from now on.

        Parameters
        ----------
        pool : tuple, optional
            The memory that is used: another graph's `pool`, or a `graph_pool_handle`. Its own unless given.
        capture_error_mode : {"global", "thread_local", "relaxed"}
            Whose actions are errors if they could disturb the capture: those of all threads, of this one, or nobody's.
        check_input_liveness : bool
            Whether `replay` shall refuse to run when a tensor from outside that the capture used is gone.

        Raises
        ------
        RuntimeError
            On a default stream, or if this object has a graph already.
        """
        self.register_generator_state(random.default_generator(room("world").cuda.check_device(random.device("cuda"))))
        self._recorded.begin(pool, capture_error_mode)
        self._inputs = InputsOfCapture(self._recorded) if check_input_liveness else None

    def register_generator_state(self, generator: random.Generator) -> None:
        """Make sure that a generator's state is in the device's memory before the capture: a replay would write it anew."""
        generator.begin()

    def capture_end(self) -> None:
        """End the recording; from then on there is `replay`."""
        self._stop_listening()
        self._recorded.end()

    def instantiate(self) -> None:
        """Make a graph that is kept for changes ready as it is now; may be repeated.

        Raises
        ------
        RuntimeError
            Before `capture_end`, or if the graph is not kept.
        """
        self._recorded.instantiate()

    def raw_cuda_graph(self) -> int:
        """The driver's pointer (a ``cudaGraph_t``) to a graph that is kept for changes.

        Raises
        ------
        RuntimeError
            Before `capture_end`, or if the graph is not kept.
        """
        return self._recorded.raw()

    def raw_cuda_graph_exec(self) -> int:
        """The driver's pointer (a ``cudaGraphExec_t``) to what is launched, until the next `instantiate`.

        Raises
        ------
        RuntimeError
            Before `capture_end`; of a graph that is kept, before `instantiate`.
        """
        return self._recorded.raw_executable()

    def replay(self) -> None:
        """Launch the recorded work on the current stream.

        Raises
        ------
        RuntimeError
            If nothing was captured; if a tensor that the graph uses is gone, and the capture was begun with ``check_input_liveness``.
        """
        if self._inputs is not None:
            self._inputs.check()
        self._recorded.replay()

    def reset(self) -> None:
        """Forget the recorded work. Its memory is free as soon as no tensor and no other graph uses it."""
        self._stop_listening()
        self._inputs = None
        self._recorded.reset()

    def _stop_listening(self) -> None:
        if self._inputs is not None:
            self._inputs.stop()

    def pool(self) -> Handle:
        """The name of the memory that was used, for other graphs to share.

        Raises
        ------
        RuntimeError
            Before `capture_begin`.
        """
        if self._recorded.handle is None:
            raise RuntimeError("pool(): this CUDAGraph has not begun a capture")
        return self._recorded.handle

    def enable_debug_mode(self) -> None:
        """Accepted as in PyTorch: `debug_dump` works in any case."""

    def debug_dump(self, debug_path: str) -> None:
        """Write the recorded work to a file in the language of Graphviz."""
        Path(debug_path).write_text(self._recorded.description())


class graph:
    """Captures what is done in a with-block in a `CUDAGraph`; as ``torch.cuda.graph``.

    Parameters
    ----------
    cuda_graph : CUDAGraph
    pool : tuple, optional
        The memory that is used: another graph's `pool`, or a `graph_pool_handle`.
    stream : Stream, optional
        The current one meanwhile; one for all captures unless given.
    capture_error_mode : {"global", "thread_local", "relaxed"}
        See `CUDAGraph.capture_begin`.
    enable_annotations : bool
        PyTorch's marks on kernels, for its own tools; there are none here, so only False is taken.
    check_input_liveness : bool
        See `CUDAGraph.capture_begin`.

    Examples
    --------
    A whole training step::

        for _ in range(3):  # what is made when it is first needed is made before
            step(static_input, static_target)
        g = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(g):
            static_loss = step(static_input, static_target)
        for x, y in loader:
            static_input.copy_(x)
            static_target.copy_(y)
            g.replay()
    """

    default_capture_stream: ClassVar[Stream | None] = None

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Handle | None = None, stream: Stream | None = None, capture_error_mode: str = "global",
        enable_annotations: bool = False, check_input_liveness: bool = False,
    ):  # fmt: skip
        if enable_annotations:
            raise NotImplementedError("cuda.graph: enable_annotations marks kernels for PyTorch's own tools, which cannot read our graphs")
        if stream is None:
            if graph.default_capture_stream is None:
                graph.default_capture_stream = Stream()
            stream = graph.default_capture_stream
        self.pool, self.capture_stream, self.capture_error_mode = pool, stream, capture_error_mode
        self.cuda_graph, self.check_input_liveness = cuda_graph, check_input_liveness
        self.stream_ctx = StreamContext(stream)

    def __enter__(self) -> None:
        room("devices").synchronize()
        gc.collect()
        room("memory").empty_cache()
        self.stream_ctx.__enter__()
        try:
            self.cuda_graph.capture_begin(self.pool, self.capture_error_mode, self.check_input_liveness)
        except BaseException:
            self.stream_ctx.__exit__(None, None, None)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                self.cuda_graph.capture_end()
                return
            self.cuda_graph._stop_listening()
            self.cuda_graph._recorded.give_up()
        finally:
            self.stream_ctx.__exit__(kind, error, traceback)
        reason = room("graphs").explained(error, traceback)
        if reason:
            raise RuntimeError(f"cuda.graph: {reason}") from error
