"""A stand-in for the module ``cudnn`` (nvidia-cudnn-frontend): graphs of convolution and attention that NumPy computes.

Names of functions, arguments and members are those of the real module, which `tests.cuda.test_names` checks. A graph checks what it is
given as cuDNN does: numbers, shapes, strides and types, what has been built before it is used, workspace, and the order of uses of memory.
It offers several engines with different properties, so that choosing among them can be tested: `Engine`.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from . import devices
from .cublas import rounded_to_tf32
from .cudnn_operations import dgrad, fprop, sdpa, sdpa_backward, wgrad
from .driver import unsafe
from .order import lock, region_at
from .streams import line_of, submit

__all__ = ["Engine", "Graph", "module"]


class cudnnGraphNotSupportedError(Exception):
    """cuDNN has no engine for the graph."""


def _enumeration(name: str, members: str) -> Any:
    return enum.Enum(name, {member: number for number, member in enumerate(members.split())})


data_type = _enumeration("data_type", "NOT_SET FLOAT DOUBLE HALF INT8 INT32 UINT8 BFLOAT16 INT64 BOOLEAN")
heur_mode = _enumeration("heur_mode", "A B FALLBACK OPENSOURCE")
numerical_note = _enumeration(
    "numerical_note", "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD STRICT_NAN_PROP"
)
diagonal_alignment = _enumeration("diagonal_alignment", "TOP_LEFT BOTTOM_RIGHT")
TYPES = {"FLOAT": np.float32, "DOUBLE": np.float64, "HALF": np.float16, "BFLOAT16": ml_dtypes.bfloat16}


class Engine(NamedTuple):
    """An engine of the stand-in: its number, what is said of it, the bytes it needs, whether building it fails, and how long it takes."""

    number: int
    notes: frozenset[Any] = frozenset()
    workspace: int = 0
    fails: bool = False
    seconds: float = 0.0


_T, _N = numerical_note.TENSOR_CORE, numerical_note.NONDETERMINISTIC
#: What every graph is offered, in this order; the second is a kernel of the frontend's own. Tests may exchange the list.
ENGINES = [Engine(3, frozenset({_T, _N}), 4096), Engine(20510, frozenset({_T})), Engine(1, frozenset({_T}), 512), Engine(0, frozenset(), 0)]


class Handle:
    """As ``create_handle`` returns it."""

    def __init__(self) -> None:
        unsafe("cudnnCreate")
        self.device, self.stream = devices.current(), 0


class Tensor:
    """A tensor of a graph; what sets something returns the tensor."""

    def __init__(self, dim: Any = None, stride: Any = None, data_type: Any = None, uid: int | None = None, name: str = ""):
        self.dim, self.stride, self.data_type, self.uid, self.name = dim, stride, data_type, uid, name
        self.is_output = False

    def _set(self, name: str, value: Any) -> Tensor:
        setattr(self, name, value)
        return self

    def set_uid(self, uid: int) -> Tensor:
        return self._set("uid", uid)

    def set_output(self, value: bool) -> Tensor:
        return self._set("is_output", value)

    def set_data_type(self, dtype: Any) -> Tensor:
        return self._set("data_type", dtype)

    def set_dim(self, dim: list[int]) -> Tensor:
        return self._set("dim", list(dim))

    def set_stride(self, stride: list[int]) -> Tensor:
        return self._set("stride", list(stride))

    def check(self) -> None:
        """As ``validate`` does."""
        if type(self.uid) is not int or not isinstance(self.data_type, data_type) or self.data_type.name not in TYPES:
            raise cudnnGraphNotSupportedError(f"tensor {self.name!r}: uid {self.uid}, type {self.data_type}")
        if not self.dim or not self.stride or len(self.dim) != len(self.stride) or len(self.dim) < 3:
            raise cudnnGraphNotSupportedError(f"tensor {self.name!r}: dim {self.dim}, stride {self.stride}")
        if any(type(n) is not int or n < 1 for n in self.dim) or any(type(s) is not int or s < 0 for s in self.stride):
            raise cudnnGraphNotSupportedError(f"tensor {self.name!r}: dim {self.dim}, stride {self.stride}")

    @property
    def dtype(self) -> Any:
        return np.dtype(TYPES[self.data_type.name])

    def on(self, pointer: int) -> tuple[Any, tuple[Any, int, int]]:
        """The array at an address, and the use of its memory."""
        item = self.dtype.itemsize
        if type(pointer) is not int or pointer % item:
            raise ValueError(f"tensor {self.uid}: {pointer!r} is no address of {self.dtype}")
        region = region_at(pointer, f"cudnn, tensor {self.uid}")
        low = pointer - region.pointer
        high = low + (sum((n - 1) * s for n, s in zip(self.dim, self.stride)) + 1) * item
        if high > region.size:
            raise ValueError(f"tensor {self.uid} of dim {self.dim} and stride {self.stride} leaves its block of memory")
        array: Any = np.ndarray(tuple(self.dim), self.dtype, region.bytes, low, tuple(s * item for s in self.stride))
        return array, (region, pointer, region.pointer + high)


class Operation(NamedTuple):
    """A node of a graph."""

    inputs: dict[str, Tensor]
    outputs: tuple[Tensor, ...]
    check: Callable[..., None]
    compute: Callable[..., tuple[Any, ...]]
    parameters: dict[str, Any]


class Graph:
    """``cudnn.pygraph``."""

    #: (operation, engine) of every execution since somebody cleared it
    executed: list[tuple[str, int]] = []  # noqa: RUF012
    built: list[str] = []  # noqa: RUF012

    def __init__(
        self,
        name: str = "test_graph",
        io_data_type: Any = None,
        intermediate_data_type: Any = None,
        compute_data_type: Any = None,
        handle: Any = None,
    ):
        if not isinstance(handle, Handle) or handle.device != devices.current():
            raise RuntimeError("a graph is made with a handle of the current device")
        self.name, self.handle = name, handle
        self.io, self.intermediate, self.sums = io_data_type, intermediate_data_type, compute_data_type
        self.tensors: list[Tensor] = []
        self.operation: Operation | None = None
        self.stage = ""
        self.barred: set[Any] = set()
        self.plans: set[int] = set()
        Graph.built.append(name)

    # Building ----------------------------------------------------------------------------------------------------------

    def tensor(
        self,
        dim: list[int],
        stride: list[int] | None = None,
        data_type: Any = None,
        is_virtual: bool = False,
        is_pass_by_value: bool = False,
        name: str = "",
        uid: int | None = None,
    ) -> Tensor:
        if any(type(x) is not list for x in (dim, stride)):
            raise TypeError("dim and stride are lists")
        made = Tensor(dim, stride, data_type, uid, name)
        self.tensors.append(made)
        return made

    def _add(self, inputs: dict[str, Any], count: int, check: Any, compute: Any, **parameters: Any) -> tuple[Tensor, ...]:
        if self.operation is not None or self.stage:
            raise NotImplementedError("the stand-in has graphs of one operation")
        given = {name: t for name, t in inputs.items() if t is not None}
        for name, t in given.items():
            if t not in self.tensors:
                raise TypeError(f"{name} is no tensor of this graph")
        outputs = tuple(Tensor(data_type=self.io) for _ in range(count))
        self.operation = Operation(given, outputs, check, compute, parameters)
        return outputs

    def conv_fprop(
        self, image: Tensor, weight: Tensor, padding: Any = (), stride: Any = (), dilation: Any = (), compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:  # fmt: skip
        inputs = {"image": image, "weight": weight}
        return self._add(inputs, 1, _check_conv, fprop, padding=padding, stride=stride, dilation=dilation)[0]

    def conv_dgrad(
        self, loss: Tensor, filter: Tensor, padding: Any = (), stride: Any = (), dilation: Any = (), compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:  # fmt: skip
        inputs = {"loss": loss, "filter": filter}
        return self._add(inputs, 1, _check_conv, dgrad, padding=padding, stride=stride, dilation=dilation)[0]

    def conv_wgrad(
        self, image: Tensor, loss: Tensor, padding: Any = (), stride: Any = (), dilation: Any = (), compute_data_type: Any = None,
        name: str = "",
    ) -> Tensor:  # fmt: skip
        inputs = {"image": image, "loss": loss}
        return self._add(inputs, 1, _check_conv, wgrad, padding=padding, stride=stride, dilation=dilation)[0]

    def sdpa(
        self, q: Tensor, k: Tensor, v: Tensor, attn_scale: float | None = None, bias: Tensor | None = None,
        diagonal_alignment: Any = diagonal_alignment.TOP_LEFT, diagonal_band_right_bound: int | None = None, compute_data_type: Any = None,
        name: str = "", generate_stats: bool | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        if generate_stats is not True:
            raise ValueError("generate_stats must be set")
        inputs = {"q": q, "k": k, "v": v, "bias": bias}
        return self._add(inputs, 2, _check_sdpa, sdpa, scale=attn_scale, causal=_is_causal(diagonal_alignment, diagonal_band_right_bound))

    def sdpa_backward(
        self, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dO: Tensor, stats: Tensor, attn_scale: float | None = None,
        bias: Tensor | None = None, diagonal_alignment: Any = diagonal_alignment.TOP_LEFT, diagonal_band_right_bound: int | None = None,
        use_deterministic_algorithm: bool = False, compute_data_type: Any = None, name: str = "",
    ) -> tuple[Tensor, ...]:  # fmt: skip
        inputs = {"q": q, "k": k, "v": v, "o": o, "dO": dO, "stats": stats, "bias": bias}
        causal = _is_causal(diagonal_alignment, diagonal_band_right_bound)
        return self._add(inputs, 3, _check_sdpa_backward, sdpa_backward, scale=attn_scale, causal=causal)

    # Planning ----------------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        assert self.operation is not None
        for t in self.operation.outputs:
            if not t.is_output:
                raise cudnnGraphNotSupportedError("an output that is not marked")
        everything = (*self.operation.inputs.values(), *self.operation.outputs)
        for t in everything:
            t.check()
        if len({t.uid for t in everything}) != len(everything):
            raise cudnnGraphNotSupportedError(f"uids are given twice: {[t.uid for t in everything]}")
        self.operation.check(self.operation)
        self._advance("", "validated")

    def _advance(self, before: str, after: str) -> None:
        if self.stage != before:
            raise RuntimeError(f"the graph is {self.stage or 'new'}, not {before or 'new'}")
        self.stage = after

    def build_operation_graph(self) -> None:
        self._advance("validated", "operation graph")

    def create_execution_plans(self, heuristics: Any) -> None:
        if not heuristics or not all(isinstance(mode, heur_mode) for mode in heuristics):
            raise TypeError("a list of heur_mode")
        self._advance("operation graph", "planned")

    def deselect_numeric_notes(self, notes: Any) -> Graph:
        if self.stage != "planned":
            raise RuntimeError("notes are filtered after the plans are created")
        self.barred.update(numerical_note(note) for note in notes)
        return self

    def get_execution_plan_count(self) -> int:
        return len(ENGINES) if self.stage == "planned" else 0

    def get_engine_and_knobs_at_index(self, index: int) -> tuple[int, dict[Any, int]]:
        return ENGINES[index].number, {}

    def build_plan_at_index(self, index: int) -> Graph:
        engine = ENGINES[index]
        if engine.notes & self.barred:
            raise cudnnGraphNotSupportedError(f"plan {index} is deselected")
        if engine.fails:
            raise RuntimeError(f"plan {index}: CUDNN_STATUS_INTERNAL_ERROR")
        self.plans.add(index)
        return self

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        if index not in self.plans:
            raise RuntimeError(f"plan {index} is not built")
        return ENGINES[index].workspace

    # Execution ---------------------------------------------------------------------------------------------------------

    def execute_plan_at_index(self, tensor_dict: dict[int, int], workspace: int, index: int, handle: Any) -> None:
        if index not in self.plans:
            raise RuntimeError(f"plan {index} is not built")
        if not isinstance(handle, Handle) or handle.device != devices.current():
            raise RuntimeError("a handle of another device")
        operation, engine = self.operation, ENGINES[index]
        assert operation is not None
        expected = {t.uid for t in (*operation.inputs.values(), *operation.outputs)}
        if set(tensor_dict) != expected:
            raise ValueError(f"the variant pack has the tensors {sorted(tensor_dict)}, the graph {sorted(expected)}")
        with lock:
            line = line_of(handle.stream)
            uses = []
            arrays: dict[str, Any] = {}
            results = []
            for name, t in operation.inputs.items():
                arrays[name], use = t.on(tensor_dict[t.uid])
                uses.append((*use, False))
            for t in operation.outputs:
                array, use = t.on(tensor_dict[t.uid])
                results.append(array)
                uses.append((*use, True))
            if engine.workspace:
                region = region_at(workspace, "cudnn, workspace")
                if workspace + engine.workspace > region.pointer + region.size:
                    raise ValueError("the workspace is too small")
                uses.append((region, workspace, workspace + engine.workspace, True))

            def act() -> bool:
                wide = np.float64 if self.sums is data_type.DOUBLE else np.float32
                given = {name: a.astype(wide) for name, a in arrays.items()}
                if _T in engine.notes and next(iter(arrays.values())).dtype == np.float32:
                    given = {name: rounded_to_tf32(a) for name, a in given.items()}
                for into, values in zip(results, operation.compute(**given, **operation.parameters, shape=results[0].shape)):
                    into[...] = values.astype(into.dtype)
                return True

            Graph.executed.append((self.name, engine.number))
            line.advance()
            submit(line, self.name, act, uses)


# --- convolution ------------------------------------------------------------------------------------------------------------


def _check_conv(operation: Operation) -> None:
    first, second = operation.inputs.values()
    out = operation.outputs[0]
    if operation.compute is fprop:
        x, w, y = first, second, out
    elif operation.compute is dgrad:
        x, w, y = out, second, first
    else:
        x, w, y = first, out, second
    window = [operation.parameters[name] for name in ("padding", "stride", "dilation")]
    spatial = len(x.dim) - 2
    if spatial not in (2, 3) or any(type(values) is not list or len(values) != spatial for values in window):
        raise cudnnGraphNotSupportedError(f"{spatial} spatial dimensions with {operation.parameters}")
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, s, d in zip(x.dim[2:], w.dim[2:], *window)]
    if y.dim != [x.dim[0], w.dim[0], *sizes] or x.dim[1] % w.dim[1]:
        raise cudnnGraphNotSupportedError(f"convolution of {x.dim} with {w.dim} gives {sizes}, not {y.dim}")
    if len({t.data_type for t in (x, w, y)}) != 1:
        raise cudnnGraphNotSupportedError("types of a convolution differ")
    for t in (x, w, y):
        if not _is_dense(t):
            raise cudnnGraphNotSupportedError(f"strides {t.stride} of {t.dim} are neither contiguous nor channels last")


def _is_dense(t: Tensor) -> bool:
    for order in ([*range(len(t.dim))], [0, *range(2, len(t.dim)), 1]):
        step, fits = 1, True
        for axis in reversed(order):
            fits &= t.stride[axis] == step
            step *= t.dim[axis]
        if fits:
            return True
    return False


# --- attention --------------------------------------------------------------------------------------------------------------


def _is_causal(alignment: Any, right: int | None) -> bool:
    if right not in (None, 0) or alignment is not diagonal_alignment.TOP_LEFT:
        raise NotImplementedError("the stand-in knows full and causal attention")
    return right == 0


def _check_sdpa(operation: Operation) -> None:
    q, k, v = (operation.inputs[name] for name in "qkv")
    out, stats = operation.outputs
    _check_heads(q, k, v, out)
    if stats.data_type is not data_type.FLOAT or stats.dim != [*q.dim[:3], 1]:
        raise cudnnGraphNotSupportedError(f"stats of {stats.dim} and {stats.data_type}")
    _check_bias(operation)


def _check_sdpa_backward(operation: Operation) -> None:
    q, k, v, o, g, stats = (operation.inputs[name] for name in ("q", "k", "v", "o", "dO", "stats"))
    _check_heads(q, k, v, o, g)
    if stats.data_type is not data_type.FLOAT or stats.dim != [*q.dim[:3], 1]:
        raise cudnnGraphNotSupportedError(f"stats of {stats.dim} and {stats.data_type}")
    for t, gradient in zip((q, k, v), operation.outputs):
        if t.dim != gradient.dim or gradient.stride[-1] != 1:
            raise cudnnGraphNotSupportedError(f"a gradient of {gradient.dim}, {gradient.stride} for {t.dim}")
    _check_bias(operation)


def _check_heads(q: Tensor, k: Tensor, v: Tensor, *outs: Tensor) -> None:
    for t in (q, k, v, *outs):
        if len(t.dim) != 4 or t.data_type not in (data_type.HALF, data_type.BFLOAT16) or t.data_type is not q.data_type:
            raise cudnnGraphNotSupportedError(f"attention of {t.dim} and {t.data_type}")
        if t.stride[-1] != 1 or t.dim[-1] % 8 or t.dim[-1] > 128 or any(s % 8 for s in t.stride[:-1]) or 0 in t.stride:
            raise cudnnGraphNotSupportedError(f"attention of {t.dim} with strides {t.stride}")
    fits = q.dim[0] == k.dim[0] == v.dim[0] and k.dim[1] == v.dim[1] and not q.dim[1] % k.dim[1]
    fits &= q.dim[3] == k.dim[3] and k.dim[2] == v.dim[2] and all(t.dim == [*q.dim[:3], v.dim[3]] for t in outs)
    if not fits:
        raise cudnnGraphNotSupportedError(f"attention of {q.dim}, {k.dim} and {v.dim} with results {[t.dim for t in outs]}")


def _check_bias(operation: Operation) -> None:
    bias = operation.inputs.get("bias")
    if bias is None:
        return
    q, k = operation.inputs["q"], operation.inputs["k"]
    wanted = [*q.dim[:3], k.dim[2]]
    if bias.dim[2:] != wanted[2:] or any(n not in (1, m) for n, m in zip(bias.dim, wanted)) or bias.data_type is not q.data_type:
        raise cudnnGraphNotSupportedError(f"a bias of {bias.dim} and {bias.data_type} for scores of {wanted}")


# --- the module -------------------------------------------------------------------------------------------------------------


def set_stream(handle: Any, stream: int) -> None:
    if not isinstance(handle, Handle) or type(stream) is not int:
        raise TypeError("a handle and the address of a stream")
    line_of(stream)
    handle.stream = stream


def module() -> types.ModuleType:
    """``cudnn``."""
    made = types.ModuleType("cudnn")
    made.__dict__.update(
        backend_version=lambda: 91000,
        create_handle=Handle,
        set_stream=set_stream,
        pygraph=Graph,
        cudnnGraphNotSupportedError=cudnnGraphNotSupportedError,
        data_type=data_type,
        heur_mode=heur_mode,
        numerical_note=numerical_note,
        diagonal_alignment=diagonal_alignment,
    )
    return made
