"""`autocast`: a block in which matrix products and convolutions compute in low precision, and losses in float32.

Which functions are meant, and how they are made to convert their arguments, stands in ``disttorch/ops/autocast.py``.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import decorated
from ..autograd.variable import Tensor
from ..backend import cuda_is_available
from ..backend.dtypes import FLOATING, as_dtype, bfloat16, dtype, float16, float64
from ..ops import conversion
from ..ops.autocast import LOW_PRECISIONS, Mode, blocks, mode

__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

_counting = threading.Lock()
DEFAULTS: dict[str, dtype] = {"cpu": bfloat16, "cuda": float16}


def is_autocast_available(device_type: str) -> bool:
    """Whether there is an autocast for a type of device; as ``torch.amp.is_autocast_available``."""
    return device_type in LOW_PRECISIONS


class autocast:
    """Compute what may be computed in low precision so, in a with-block or in each call of a function; as ``torch.amp.autocast``.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        Where the tensors are for which it shall hold.
    dtype : dtype, optional
        The low precision: bfloat16 or float16. Unless given, what a block around it named, else bfloat16 on the CPU and float16 on a GPU.
    enabled : bool
        False switches it off inside an outer block.
    cache_enabled : bool, optional
        Whether a weight that is used several times in the outermost block is converted once.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.ones(2, 2)
    >>> with disttorch.autocast("cpu"):
    ...     print((x @ x).dtype, (x + x).dtype)
    disttorch.bfloat16 disttorch.float32

    Notes
    -----
    On the CPU without bfloat16 arithmetic in NumPy it saves memory, not time. It is set for the thread that enters the block.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None):
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if device_type not in LOW_PRECISIONS:
            raise RuntimeError(f"User specified an unsupported autocast device_type {device_type!r}; there are {', '.join(LOW_PRECISIONS)}")
        self.device = device_type
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else as_dtype(dtype)
        self._cache_enabled = True if cache_enabled is None else bool(cache_enabled)
        self._enabled = bool(enabled)
        if self._enabled and device_type == "cuda" and not cuda_is_available():
            warnings.warn("User provided device_type of 'cuda', but CUDA is not available. Disabling", UserWarning, stacklevel=2)
            self._enabled = False
        if self._enabled and self.fast_dtype not in LOW_PRECISIONS[device_type]:
            known = " and ".join(str(d) for d in LOW_PRECISIONS[device_type])
            warnings.warn(
                f"autocast on {device_type!r} knows {known}, not {self.fast_dtype}. Disabling autocast.", UserWarning, stacklevel=2
            )
            self._enabled = False
        self._tokens: list[Any] = []

    def __enter__(self) -> autocast:
        outer = mode.get()
        precision = {} if outer is None else dict(outer.precision)
        named = {**({} if outer is None else outer.named), self.device: self.fast_dtype}
        precision.pop(self.device, None)
        if self._enabled:
            precision[self.device] = self.fast_dtype
        cached: dict | None = (outer.cached if outer is not None and outer.cached is not None else {}) if self._cache_enabled else None
        with _counting:
            blocks.count += 1
        self._tokens.append(mode.set(Mode(precision, cached, named)))
        return self

    def __exit__(self, *exception: Any) -> None:
        mode.reset(self._tokens.pop())
        with _counting:
            blocks.count -= 1

    def __call__(self, function: Callable) -> Callable:
        return decorated(function, lambda: self)


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on in this thread, for a type of device ("cuda" unless given); as ``torch.is_autocast_enabled``."""
    now = mode.get()
    return now is not None and (device_type or "cuda") in now.precision


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast is on for the CPU in this thread."""
    return is_autocast_enabled("cpu")


def is_autocast_cache_enabled() -> bool:
    """Whether weights that autocast has converted are kept until the outermost block ends."""
    now = mode.get()
    return now is None or now.cached is not None


def clear_autocast_cache() -> None:
    """Forget the weights that autocast has converted; as ``torch.clear_autocast_cache``."""
    now = mode.get()
    if now is not None and now.cached is not None:
        now.cached.clear()


def get_autocast_dtype(device_type: str) -> dtype:
    """The low precision of the innermost block, on or off, or the default one; as ``torch.get_autocast_dtype``."""
    now = mode.get()
    return DEFAULTS[device_type] if now is None else now.named.get(device_type, DEFAULTS[device_type])


def get_autocast_cpu_dtype() -> dtype:
    """`get_autocast_dtype` of the CPU."""
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> dtype:
    """`get_autocast_dtype` of the GPU."""
    return get_autocast_dtype("cuda")


def custom_fwd(fwd: Callable | None = None, *, device_type: str, cast_inputs: Any = None) -> Callable:
    """Decorates the forward of an ``autograd.Function`` for use under autocast; as ``torch.amp.custom_fwd``.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
    cast_inputs : dtype, optional
        What floating-point arguments on that device are converted to; the forward then runs without autocast. Unless given, it
        runs with the autocast that is on.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **options: Any) -> Any:
        ctx._dtype = get_autocast_dtype(device_type)
        on = is_autocast_enabled(device_type)
        if cast_inputs is None:
            ctx._fwd_used_autocast = on
            return fwd(ctx, *args, **options)
        ctx._fwd_used_autocast = False
        if not on:
            return fwd(ctx, *args, **options)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *_cast(args, device_type, cast_inputs), **_cast(options, device_type, cast_inputs))

    return forward


def custom_bwd(bwd: Callable | None = None, *, device_type: str) -> Callable:
    """Decorates the backward of an ``autograd.Function`` whose forward has `custom_fwd`: it runs with the forward's autocast.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
    """
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *args: Any, **options: Any) -> Any:
        with autocast(device_type, enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return bwd(ctx, *args, **options)

    return backward


def _cast(value: Any, device_type: str, to: Any) -> Any:
    if isinstance(value, Tensor):
        floating = value._array.dtype in FLOATING and value._array.dtype != float64.numpy
        return conversion.to(value, dtype=to) if floating and value.device.type == device_type else value
    if isinstance(value, dict):
        return {k: _cast(v, device_type, to) for k, v in value.items()}
    return type(value)(_cast(v, device_type, to) for v in value) if type(value) in (list, tuple) else value
