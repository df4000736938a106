"""As ``torch._dynamo``, half of the compiler that is not there: what scripts call, and `config`, in which they set what they like."""

from ..compiler import disable, is_compiling, reset
from . import config

__all__ = ["OptimizedModule", "config", "disable", "is_compiling", "reset"]


class OptimizedModule:
    """What ``torch.compile`` makes of a module there; here it gives the module itself, so nothing is one."""
