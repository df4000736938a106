"""What is set for the whole process, by PyTorch's names, and small questions about objects.

Where a setting of PyTorch's changes nothing here, its function says why; what it was set to can still be asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from .autograd.variable import Tensor
from .backend import cuda_is_available, set_default_device
from .backend.choices import CHOICES
from .backend.dtypes import PUBLIC_DTYPES, set_default_dtype

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_deterministic_debug_mode",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "is_complex",
    "is_deterministic_algorithms_warn_only_enabled",
    "is_floating_point",
    "is_nonzero",
    "is_same_size",
    "is_signed",
    "is_storage",
    "is_warn_always_enabled",
    "numel",
    "set_default_tensor_type",
    "set_deterministic_debug_mode",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "set_warn_always",
    "typename",
    "use_deterministic_algorithms",
]


class _Set:
    """What was set."""

    deterministic = "default"
    interop_threads = 1
    type_of_gpus = False
    warn_always = False


_DEBUG_MODES = ("default", "warn", "error")


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for operations that give the same bits again for the same input; as ``torch.use_deterministic_algorithms``.

    On the CPU all operations do, for one number of threads and one machine, so nothing is switched there; on a GPU the sums that
    repeated indices make (``index_add``, ``scatter_add``, the gradient of an embedding) are done by atomic additions.

    Parameters
    ----------
    mode : bool
    warn_only : bool
        Accepted as in PyTorch.
    """
    _set_deterministic(("warn" if warn_only else "error") if mode else "default")


def _set_deterministic(mode: str) -> None:
    _Set.deterministic = mode
    CHOICES.deterministic = mode != "default"


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms` was called with True."""
    return _Set.deterministic != "default"


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether it was called with ``warn_only=True``."""
    return _Set.deterministic == "warn"


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """`use_deterministic_algorithms` by "default", "warn" or "error", or 0, 1 or 2.

    Raises
    ------
    RuntimeError
        For anything else.
    """
    if isinstance(debug_mode, str) and debug_mode in _DEBUG_MODES:
        _set_deterministic(debug_mode)
    elif isinstance(debug_mode, int) and debug_mode in range(3):
        _set_deterministic(_DEBUG_MODES[debug_mode])
    else:
        raise RuntimeError(f"invalid value of debug_mode, expected one of {_DEBUG_MODES} or 0 to 2, but got {debug_mode!r}")


def get_deterministic_debug_mode() -> int:
    """What `set_deterministic_debug_mode` has set, as 0, 1 or 2."""
    return _DEBUG_MODES.index(_Set.deterministic)


def set_float32_matmul_precision(precision: str) -> None:
    """Say how exact float32 matrix products must be: "highest", "high" or "medium"; as ``torch.set_float32_matmul_precision``.

    On CUDA devices of compute capability 8.0 and later, "high" and "medium" let cuBLAS round the factors to TF32 (10 bits of mantissa)
    before it multiplies them. The CPU computes in float32 whatever it says.

    Raises
    ------
    ValueError
        For another word.
    """
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"the precision of float32 matrix products is 'highest', 'high' or 'medium', not {precision!r}")
    CHOICES.float32_products = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` has set; "highest" before."""
    return CHOICES.float32_products


def set_num_interop_threads(count: int, /) -> None:
    """Accepted as in PyTorch: operations do not run beside each other here."""
    if not isinstance(count, int) or count < 1:
        raise RuntimeError(f"set_num_interop_threads expects a positive integer, got {count!r}")
    _Set.interop_threads = count


def get_num_interop_threads() -> int:
    """What `set_num_interop_threads` has set; 1 before."""
    return _Set.interop_threads


def set_flush_denormal(mode: bool) -> bool:
    """Whether denormal numbers could be switched off: False, for NumPy's libraries keep them."""
    return False


def set_warn_always(b: bool, /) -> None:
    """Show warnings that would be shown once every time; as ``torch.set_warn_always``."""
    _Set.warn_always = bool(b)
    if b:
        warnings.simplefilter("always", UserWarning, append=True)


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` has set."""
    return _Set.warn_always


def set_default_tensor_type(t: Any, /) -> None:
    """Set the default dtype by a tensor type or its name, such as "torch.DoubleTensor"; as ``torch.set_default_tensor_type``.

    With a type of GPUs' tensors, such as "torch.cuda.FloatTensor", tensors are made there until another type is set.

    Raises
    ------
    TypeError
        If it is no type of floating-point tensors, or there is no GPU for it.
    """
    name = t if isinstance(t, str) else getattr(t, "name", repr(t))
    short = name.rpartition(".")[2].removesuffix("Tensor").lower()
    if short not in PUBLIC_DTYPES or not PUBLIC_DTYPES[short].is_floating_point or not name.endswith("Tensor"):
        raise TypeError(f"only floating-point types are supported as the default type, not {name}")
    on_gpu = ".cuda." in name
    if on_gpu and not cuda_is_available():
        raise TypeError(f"type {name} is not available: there is no CUDA device")
    set_default_dtype(PUBLIC_DTYPES[short])
    if on_gpu or _Set.type_of_gpus:  # what set_default_device said stays, unless a type said so before
        set_default_device("cuda" if on_gpu else "cpu")
    _Set.type_of_gpus = on_gpu


def typename(obj: Any, /) -> str:
    """The type of an object with its module; of a tensor, such as "torch.FloatTensor". As ``torch.typename``."""
    if isinstance(obj, Tensor):
        return obj.type()
    kind = obj if isinstance(obj, type) or hasattr(obj, "__qualname__") else type(obj)
    module = getattr(kind, "__module__", None) or ""
    name = getattr(kind, "__qualname__", type(obj).__name__)
    return name if module in ("", "builtins") else f"{module}.{name}"


def is_storage(obj: Any, /) -> bool:
    """Whether an object is a storage, the memory of tensors without shape; as ``torch.is_storage``."""
    return type(obj).__name__ in ("UntypedStorage", "TypedStorage") and type(obj).__module__.startswith("disttorch.")


# --- questions to a tensor, as functions --------------------------------------------------------------------------------


def _question(name: str, answer: Callable[[Tensor], Any], doc: str) -> Callable[[Tensor], Any]:
    def function(input: Tensor) -> Any:
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
        return answer(input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}; as ``torch.{name}``."
    return function


numel = _question("numel", lambda x: x._array.size, "How many elements a tensor has")
is_floating_point = _question("is_floating_point", lambda x: x.dtype.is_floating_point, "Whether its elements are floating point")
is_complex = _question("is_complex", lambda x: x.dtype.is_complex, "Whether its elements are complex")
is_signed = _question("is_signed", lambda x: x.dtype.is_signed, "Whether its elements have a sign")
is_nonzero = _question("is_nonzero", bool, "Whether the one element of a tensor is not zero")


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape; as ``torch.is_same_size``."""
    return input._array.shape == other._array.shape
