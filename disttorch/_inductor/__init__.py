"""As ``torch._inductor``, the other half of the compiler that is not there: `config`, in which scripts set what they like."""

from . import config

__all__ = ["config"]
