"""Plans: graphs of cuDNN that are built, for certain shapes, strides and types, and kept.

`run` takes a key that says all that the graph depends on, a function that builds it, and the arrays; the rest is done here: choosing
among cuDNN's engines by its heuristics or by trying them, as users have chosen, workspace, and noting what cuDNN has no plan for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import cupy

from ...choices import CHOICES
from .. import capturing
from . import library

__all__ = ["Unsupported", "data_type", "run", "tensor"]

#: Plans that a thread keeps; the one that was not used for longest goes first.
MOST_PLANS = 512
#: Engines with larger numbers are not cuDNN's own but kernels that the frontend compiles when they are first used.
FIRST_FOREIGN_ENGINE = 10_000
#: How often a plan is run to see how long it takes, after once for the sake of what is done only the first time.
TRIES = 3


class Unsupported(Exception):
    """cuDNN has no plan for this; the plain kernel is to be taken."""


class Plan:
    """A built graph and which of its engines is used.

    Attributes
    ----------
    graph : cudnn.pygraph
    index : int
        The engine's place in the graph's list.
    workspace : int
        Bytes that it needs.
    """

    __slots__ = ("graph", "index", "workspace")

    def __init__(self, graph: Any, index: int):
        self.graph, self.index = graph, index
        self.workspace = int(graph.get_workspace_size_plan_at_index(index))

    def __call__(self, pointers: dict[int, int], handle: Any) -> None:
        # from the pool of the current stream, which gives it again only to what follows there
        memory = cupy.cuda.alloc(self.workspace)
        self.graph.execute_plan_at_index(pointers, memory.ptr, self.index, handle)


def run(key: Hashable, build: Callable[[Any, Any], Any], arrays: dict[int, Any], exact: bool = False) -> None:
    """Compute a graph, which is built when it is first needed.

    Parameters
    ----------
    key : hashable
        All that the graph depends on but for what users have chosen.
    build : callable
        Given the module ``cudnn`` and a handle, returns the graph.
    arrays : dict
        From a tensor's number in the graph to the array, whose memory is read or written.
    exact : bool
        Whether the engines must not use tensor cores: of float32, these round the factors to TF32.

    Raises
    ------
    Unsupported
        If cuDNN has no plan for it.
    """
    device = cupy.cuda.runtime.getDevice()
    handle = library.handle(device)
    deterministic = CHOICES.cudnn_deterministic or CHOICES.deterministic
    benchmark = CHOICES.cudnn_benchmark and capturing.here() is None
    key = (device, exact, deterministic, CHOICES.cudnn_benchmark, key)
    pointers = {number: array.data.ptr for number, array in arrays.items()}
    plans = library.of_thread().plans
    if key in plans:
        plans.move_to_end(key)
        plan = plans[key]
    else:
        with capturing.may_call_the_driver():
            plan = _planned(build, pointers, handle, exact, deterministic, benchmark)
        if benchmark == CHOICES.cudnn_benchmark:  # what a capture chose untried is tried the next time
            plans[key] = plan
            if len(plans) > MOST_PLANS:
                plans.popitem(last=False)
    if plan is None:
        raise Unsupported
    capture = capturing.here()
    if capture is not None:
        capture.kept.append(plan)
    plan(pointers, handle)


def _planned(build: Any, pointers: dict[int, int], handle: Any, exact: bool, deterministic: bool, benchmark: bool) -> Plan | None:
    """The plan for a graph; None if there is none."""
    cudnn = library.cudnn()
    assert cudnn is not None
    try:
        graph = build(cudnn, handle)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    except cudnn.cudnnGraphNotSupportedError:
        return None
    except RuntimeError as error:  # what cuDNN's own functions say, of a type of elements that they do not have here, for instance
        warnings.warn(f"cuDNN refuses an operation, which is computed without it: {error}", RuntimeWarning, 3)
        return None
    notes = [cudnn.numerical_note.TENSOR_CORE, cudnn.numerical_note.DOWN_CONVERT_INPUTS] if exact else []
    if deterministic:
        notes.append(cudnn.numerical_note.NONDETERMINISTIC)
    if notes:
        graph.deselect_numeric_notes(notes)
    plans = _built(cudnn, graph)
    if not benchmark:
        return next(plans, None)
    limit = CHOICES.cudnn_benchmark_limit
    several = [plan for plan, _ in zip(plans, range(limit))] if limit else list(plans)
    return min(several, key=lambda plan: _milliseconds(plan, pointers, handle), default=None)


def _built(cudnn: Any, graph: Any) -> Iterator[Plan]:
    """Plans in the order of cuDNN's heuristics, of those engines that can be built."""
    refused = ""
    found = False
    for index in range(graph.get_execution_plan_count()):
        if _is_foreign(graph, index):
            continue
        try:
            graph.build_plan_at_index(index)
            plan = Plan(graph, index)
        except cudnn.cudnnGraphNotSupportedError:
            continue
        except RuntimeError as error:  # an engine that the heuristics offer and that then fails to build
            refused = str(error)
            continue
        found = True
        yield plan
    if refused and not found:
        warnings.warn(f"cuDNN could build none of its engines for an operation, which is computed without it: {refused}", RuntimeWarning, 3)


def _is_foreign(graph: Any, index: int) -> bool:
    """Whether a plan is a kernel of the frontend's; versions before 1.28 have no such kernels in the list."""
    ask = getattr(graph, "get_engine_and_knobs_at_index", None)
    return ask is not None and ask(index)[0] >= FIRST_FOREIGN_ENGINE


def _milliseconds(plan: Plan, pointers: dict[int, int], handle: Any) -> float:
    """How long a plan takes, on these arrays: inputs stay as they are, outputs are written again and again."""
    try:
        plan(pointers, handle)
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        for _ in range(TRIES):
            plan(pointers, handle)
        end.record()
        end.synchronize()
    except cupy.cuda.memory.OutOfMemoryError:
        return float("inf")
    return cupy.cuda.get_elapsed_time(begin, end)


def data_type(cudnn: Any, dtype: Any) -> Any:
    """cuDNN's name of a dtype."""
    return getattr(cudnn.data_type, {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}[dtype.name])


def tensor(cudnn: Any, graph: Any, uid: int, array: tuple[tuple[int, ...], tuple[int, ...], Any]) -> Any:
    """An input of a graph: of this shape, strides (in elements) and dtype."""
    shape, strides, dtype = array
    return graph.tensor(name=f"t{uid}", dim=list(shape), stride=list(strides), data_type=data_type(cudnn, dtype), uid=uid)
