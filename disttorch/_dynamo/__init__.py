"""As ``torch._dynamo``, half of the compiler that is not there: what scripts call, and `config`, in which they set what they like."""

from ..compiler import disable, is_compiling, reset
from . import config, eval_frame
from .eval_frame import OptimizedModule

__all__ = ["OptimizedModule", "config", "disable", "eval_frame", "is_compiling", "reset"]
