"""How closely collectives are looked at."""

from __future__ import annotations

import enum
import os

__all__ = ["DebugLevel", "get_debug_level", "set_debug_level", "set_debug_level_from_env"]


class DebugLevel(enum.Enum):
    """As ``torch.distributed.DebugLevel``. With DETAIL `init_process_group` has the ranks' calls compared before data moves."""

    OFF = 0
    INFO = 1
    DETAIL = 2


_level = DebugLevel.OFF


def get_debug_level() -> DebugLevel:
    """The level; at the start that of the environment variable TORCH_DISTRIBUTED_DEBUG."""
    return _level


def set_debug_level(level: DebugLevel) -> None:
    """Set the level, for the process group that `init_process_group` makes next, and its parts."""
    global _level
    _level = DebugLevel(level)


def set_debug_level_from_env() -> None:
    """Set the level to OFF, INFO or DETAIL, as the environment variable TORCH_DISTRIBUTED_DEBUG says.

    Raises
    ------
    ValueError
        If it says anything else.
    """
    name = os.environ.get("TORCH_DISTRIBUTED_DEBUG", "") or "OFF"
    if name.upper() not in DebugLevel.__members__:
        raise ValueError(f"TORCH_DISTRIBUTED_DEBUG={name!r}: The value of TORCH_DISTRIBUTED_DEBUG must be `OFF`, `INFO`, or `DETAIL`")
    set_debug_level(DebugLevel[name.upper()])


set_debug_level_from_env()
