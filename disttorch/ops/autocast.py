"""Automatic mixed precision: which functions compute in low precision, which in float32, while `autocast` is on.

The lists are those of https://docs.pytorch.org/docs/stable/amp.html (for the CPU as PyTorch 2.13 behaves). A listed function is
replaced, in the file it stands in and in those that use it, by one that converts its arguments first. While no `autocast` block
is open in any thread that costs one look at a number. What `amp.autocast` is stands in ``disttorch/amp``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from ..autograd.grad_mode import recording
from ..autograd.graph import AccumulateGrad
from ..autograd.variable import Tensor
from ..backend import NAMESPACES
from ..backend.dtypes import FLOATING, bfloat16, float16, float32, float64
from . import conversion
from .elementwise import OPERATORS

__all__ = ["Mode", "again", "blocks", "install", "mode"]

_PRODUCTS = set(
    """
    addbmm addmm baddbmm bmm chain_matmul conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear matmul mm
    multi_dot multi_head_attention_forward prelu scaled_dot_product_attention vecdot
    """.split()
)
_LOSSES = set(
    """
    binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy ctc_loss hinge_embedding_loss huber_loss
    kl_div l1_loss linear_cross_entropy margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss poisson_nll_loss
    smooth_l1_loss soft_margin_loss triplet_margin_loss
    """.split()
)
#: in the low precision on a device of this type; "file.name" where other files have another function of the name
LOW = {"cpu": _PRODUCTS, "cuda": _PRODUCTS | {"addmv", "addr", "mv", "recurrent.layer", "recurrent.stack"}}
#: in float32
FLOAT32 = {
    "cpu": _LOSSES | set(
        """
        adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d cdist cholesky cholesky_ex cholesky_inverse cholesky_solve cond eig eigh
        eigvals eigvalsh fft fft2 fftn fractional_max_pool2d fractional_max_pool3d geqrf grid_sample hfft hfft2 hfftn householder_product
        ifft ifft2 ifftn ihfft ihfft2 ihfftn inv inv_ex irfft irfft2 irfftn lstsq lu_solve matrix_rank max_pool3d max_unpool1d max_unpool2d
        max_unpool3d nanquantile ormqr pinv polar prod qr quantile rfft rfft2 rfftn solve stft svd svdvals trace triangular_solve
        view_as_complex
        """.split()
    ),
    "cuda": _LOSSES | set(
        """
        acos asin cdist cosh cosine_similarity cumprod cumsum dist erfinv exp expm1 group_norm interpolate layer_norm log log10 log1p
        log2 log_softmax logsumexp matrix_norm norm normalize nuclear_norm pdist pow prod reciprocal reflected_division renorm rms_norm
        rsqrt sinh softmax softmin softplus sum tan vector_norm
        """.split()
    ),
}  # fmt: skip
#: in the widest type of their tensors, float32 if one of them has it: without autocast some of these refuse tensors of two types
WIDEST = {
    "cpu": {"index_copy"},
    "cuda": set(
        "addcdiv addcmul atan2 bilinear cross dot grid_sample index_put scatter_add tensordot vdot".split()
    ),
}
#: in what they are given: without this entry, the products that they are made of would convert it
GIVEN = {"cpu": {"addmv", "dot", "mv", "vdot"}, "cuda": set()}
#: refused on a GPU, where it overflows in float16: PyTorch asks for the variant with logits
_REFUSED = {"binary_cross_entropy"}


class Mode(NamedTuple):
    """What autocast is set to in this thread: the low precision by type of device, for those where it is on, and for all where a block
    named one, on or off, which blocks inside of it take for theirs unless they name another.
    """

    precision: dict[str, Any]
    cached: dict[int, tuple[Tensor, Tensor]] | None
    named: dict[str, Any]


class _Blocks:
    """How many autocast blocks are open in all threads together."""

    count = 0


blocks = _Blocks()
mode: ContextVar[Mode | None] = ContextVar("disttorch.autocast", default=None)


@contextmanager
def again(before: Mode | None) -> Iterator[None]:
    """For the length of a block what autocast was set to elsewhere: in a forward pass that is computed a second time."""
    token = mode.set(before if before is None or before.cached is None else before._replace(cached={}))
    blocks.count += before is not None
    try:
        yield
    finally:
        blocks.count -= before is not None
        mode.reset(token)


def install(modules: Iterable[ModuleType], for_cuda: bool) -> None:
    """Replace the listed functions in these modules by ones that convert their arguments while autocast is on.

    Parameters
    ----------
    for_cuda : bool
        Whether there can be tensors on a GPU: on the CPU, the many small functions of the GPU's list stay as they are.
    """
    listed = set().union(*(table[kind] for table in (LOW, FLOAT32, WIDEST, GIVEN) for kind in ("cpu", "cuda")[: 1 + for_cuda]))
    listed |= {*BY_ARGUMENTS["cpu"]}
    modules = list(modules)
    replaced: dict[int, tuple[Any, Callable[..., Any]]] = {}
    for module in modules:
        here = module.__name__.rpartition(".")[2]
        for name in listed & {*vars(module), *(f"{here}.{n}" for n in vars(module))}:
            function = vars(module)[name.rpartition(".")[2]]
            if isinstance(function, FunctionType) and id(function) not in replaced:
                wrapped = _casting(name, function)
                replaced[id(function)] = function, wrapped
                if function in OPERATORS:
                    OPERATORS[wrapped] = _casting(name, OPERATORS[function])
    for module in modules:
        for name, value in list(vars(module).items()):
            if id(value) in replaced:
                setattr(module, name, replaced[id(value)][1])


def _casting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    tables = ("LOW", "FLOAT32", "WIDEST", "GIVEN", "BY_ARGUMENTS")
    choices = {kind: table for table in tables for kind, names in globals()[table].items() if name in names}
    # Written out with the function's own parameters: passing *args and **options on would take three times as long.
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    known: dict[str, Any] = {"blocks": blocks, "function": function, "in_autocast": partial(_in_autocast, name, choices)}
    declared: list[str] = []
    positional: list[str] = []
    named: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not any(d.startswith("*") for d in declared):
            declared.append("*")
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        text = stars + parameter.name
        (named if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD) else positional).append(text)
        if parameter.default is not parameter.empty:
            known[f"default_{parameter.name}"] = parameter.default
            text += f"=default_{parameter.name}"
        declared.append(text)
    options = [n if n.startswith("*") else f"{n}={n}" for n in named]
    call = ", ".join([*positional, *options])
    exec(
        f"def cast({', '.join(declared)}):\n"
        f"    if not blocks.count:\n"
        f"        return function({call})\n"
        f"    return in_autocast(function, ({''.join(p + ', ' for p in positional)}), dict({', '.join(options)}))\n",
        known,
    )
    cast: Any = functools.wraps(function)(known["cast"])
    cast.in_autocast = True
    return cast


def _in_autocast(name: str, choices: dict[str, str], function: Callable[..., Any], args: tuple, options: dict[str, Any]) -> Any:
    now = mode.get()
    if now is None:
        return function(*args, **options)
    values = (*args, *options.values())
    kind = _device_type(values)
    precision, choice = now.precision.get(kind), choices.get(kind)
    if precision is None or choice is None:
        return function(*args, **options)
    if name in _REFUSED and kind == "cuda":
        raise RuntimeError(
            f"{name} is unsafe to autocast: use binary_cross_entropy_with_logits or BCEWithLogitsLoss, or an autocast(enabled=False) block"
        )
    target = None
    if options.get("out") is None:  # a tensor to write to is not converted, and neither is what is computed for it
        target = _target(name, choice, kind, precision, values)
    if target is not None:
        args = tuple([_converted(a, target, now.cached) for a in args])
        options = {k: _converted(v, target, now.cached) for k, v in options.items()}
    token = mode.set(None)  # what the function is made of computes in what it is given
    try:
        return function(*args, **options)
    finally:
        mode.reset(token)


def _target(name: str, choice: str, kind: str, low: Any, values: tuple) -> Any:
    """The dtype to convert to; None to leave the values as they are."""
    if choice == "BY_ARGUMENTS":
        return BY_ARGUMENTS[kind][name](low, *values)
    if choice == "WIDEST":
        return float32 if len(_types(values)) > 1 else None
    return {"LOW": low, "FLOAT32": float32, "GIVEN": None}[choice]


def _recurrent_layer(low: Any, mode: str, x: Tensor, h: Tensor, *others: Any) -> Any:
    """PyTorch adds up the gates of GRUs and of single LSTM steps as tensors, so their results are of the state's type."""
    return low if mode.startswith("RNN") else h.dtype


def _recurrent_stack(low: Any, mode: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Any, sizes: Any, *others: Any) -> Any:
    """Sequences of several lengths PyTorch gives an LSTM step by step, too, if it has no projection."""
    by_steps = mode == "GRU" or (c is not None and c.shape == h.shape and len(set(sizes)) > 1)
    return h.dtype if by_steps else low


def _padding(low: Any, input: Tensor, pad: Any, mode: str, value: Any) -> Any:
    """PyTorch lists reflection_pad1d, reflection_pad2d and replication_pad1d to 3d."""
    return float32 if mode == "replicate" or (mode == "reflect" and len(pad) <= 4) else None


#: a function of the low precision and of the arguments says which dtype it is
BY_ARGUMENTS: dict[str, dict[str, Callable[..., Any]]] = {
    "cpu": {"recurrent.layer": _recurrent_layer, "recurrent.stack": _recurrent_stack, "padding.pad": _padding},
    "cuda": {},
}


def _types(values: Iterable[Any]) -> set[Any]:
    """The types that the tensors would be converted from: floating-point ones but float64. Of two, float32 is wide enough for both."""
    found: set[Any] = set()
    for value in values:
        if isinstance(value, Tensor):
            dtype = value._array.dtype
            if dtype in FLOATING and dtype != float64.numpy:
                found.add(dtype)
        elif value.__class__ in (list, tuple):
            found |= _types(value)
    return found


def _device_type(values: Iterable[Any]) -> str:
    for value in values:
        if isinstance(value, Tensor):
            name = NAMESPACES[value._array.__class__].name
            return name if name in LOW else value.device.type  # a batch under vmap is where its samples are
        if value.__class__ in (list, tuple):
            found = _device_type(value)
            if found:
                return found
    return ""


def _converted(value: Any, target: Any, cached: dict[int, tuple[Tensor, Tensor]] | None) -> Any:
    if not isinstance(value, Tensor):
        return value.__class__([_converted(v, target, cached) for v in value]) if value.__class__ in (list, tuple) else value
    dtype = value._array.dtype
    if dtype not in FLOATING or dtype == float64.numpy or dtype == target.numpy:
        return value
    # A weight is converted once for all its uses in the block; the gradient reaches it through the one conversion.
    keeps = cached is not None and target is not float32 and value._node.__class__ is AccumulateGrad and recording.get()
    if keeps and cached is not None and id(value) in cached:
        return cached[id(value)][1]
    result = conversion.to(value, dtype=target)
    if keeps and cached is not None:
        cached[id(value)] = value, result
    return result


LOW_PRECISIONS = {"cpu": (bfloat16, float16), "cuda": (float16, bfloat16)}
