"""How long a collective may wait, unless said otherwise."""

from datetime import timedelta

__all__ = ["default_pg_timeout"]

#: As ``torch.distributed.default_pg_timeout``.
default_pg_timeout: timedelta = timedelta(minutes=30)
