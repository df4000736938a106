"""How much memory tensors use on a device, and how much they may; as ``torch.cuda.memory``. Without a device all counts are 0.

Three things are counted: what tensors hold ("allocated"), that and what other streams still use of freed tensors ("active"), and what was
taken from the driver ("reserved"): the rest of it is kept for tensors to come. Sizes are rounded up to 512 bytes, except where
it says "requested".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import cuda_is_available as is_available
from ..backend.memory import OutOfMemoryError
from ._room import room

__all__ = [
    "OutOfMemoryError", "empty_cache", "get_allocator_backend", "get_per_process_memory_fraction", "max_memory_allocated",
    "max_memory_cached", "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_cached", "memory_reserved", "memory_stats",
    "memory_stats_as_nested_dict", "memory_summary", "reset_accumulated_memory_stats", "reset_max_memory_allocated",
    "reset_max_memory_cached", "reset_peak_memory_stats", "set_per_process_memory_fraction",
]  # fmt: skip

_NOTHING = dict.fromkeys(("current", "peak", "allocated", "freed"), 0)


def _counts(device: Any) -> Any:
    """A device's statistics."""
    return room("memory").statistics(room("devices").number(device))


def empty_cache() -> None:
    """Give memory that no tensor uses back to the driver."""
    if is_available():
        room("memory").empty_cache()


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors hold on a device."""
    return _counts(device).allocated if is_available() else 0


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors held at a time, since the beginning or the last `reset_peak_memory_stats`."""
    return _counts(device).allocated_peak if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """Bytes that were taken from the driver and not given back."""
    return _counts(device).reserved if is_available() else 0


def max_memory_reserved(device: Any = None) -> int:
    """The most of them, since the beginning or the last `reset_peak_memory_stats`."""
    return _counts(device).reserved_peak if is_available() else 0


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let peaks count from what there is now."""
    if is_available():
        _counts(device).reset_peaks()


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Let sums over time ("allocated" and "freed" in `memory_stats`, tries and failures) count from now."""
    if is_available():
        _counts(device).reset_sums()


def memory_stats_as_nested_dict(device: Any = None) -> dict[str, Any]:
    """`memory_stats` as nested dicts."""
    if not is_available():
        return {}
    c = _counts(device)
    waiting, waiting_blocks = c.waiting, c.waiting_blocks

    def stat(now: int, peak: int, ever: int) -> dict[str, dict[str, int]]:
        return {"all": {"current": now, "peak": peak, "allocated": ever, "freed": ever - now}}

    return {
        "allocation": stat(c.blocks, c.blocks_peak, c.blocks_ever),
        "allocated_bytes": stat(c.allocated, c.allocated_peak, c.allocated_ever),
        "requested_bytes": stat(c.requested, c.requested_peak, c.requested_ever),
        "active": stat(c.blocks + waiting_blocks, c.active_blocks_peak, c.blocks_ever),
        "active_bytes": stat(c.allocated + waiting, c.active_peak, c.allocated_ever),
        "segment": stat(c.segments, c.segments_peak, c.segments_ever),
        "reserved_bytes": stat(c.reserved, c.reserved_peak, c.reserved_ever),
        "inactive_split": {"all": dict(_NOTHING)},
        "inactive_split_bytes": {"all": dict(_NOTHING)},
        "num_alloc_retries": c.retries,
        "num_ooms": c.out_of_memory,
        "num_sync_all_streams": 0,
        "num_device_alloc": c.segments_ever,
        "num_device_free": c.segments_ever - c.segments,
        "max_split_size": -1,
    }


def memory_stats(device: Any = None) -> dict[str, int]:
    """All that is counted, by PyTorch's keys such as ``"allocated_bytes.all.peak"``, in their order.

    Notes
    -----
    There is one pool for tensors of all sizes, so of PyTorch's three kinds of each key there is "all"; and CuPy's pool cuts every
    segment as needed without counting the rest, so "inactive_split" is 0.
    """
    flat: dict[str, int] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", memory_stats_as_nested_dict(device))
    return dict(sorted(flat.items()))


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """What is counted on a device, as a table.

    Parameters
    ----------
    device : device, str or int, optional
    abbreviated : bool
        Whether to leave out the numbers of blocks.
    """
    if not is_available():
        return "no CUDA device: no memory is counted"
    index, stats, readable = room("devices").number(device), memory_stats(device), room("memory").readable
    rows: list[tuple[str, str, Callable[[int], str]]] = [
        ("held by tensors", "allocated_bytes", readable),
        ("  as they asked for it", "requested_bytes", readable),
        ("  with what streams still use", "active_bytes", readable),
        ("taken from the driver", "reserved_bytes", readable),
    ]
    if not abbreviated:
        rows += [("blocks of tensors", "allocation", str), ("segments of the driver", "segment", str)]
    columns = ("current", "peak", "allocated", "freed")
    line = "+" + "-" * 32 + ("+" + "-" * 14) * 4 + "+"
    lines = [
        f"Memory of {room('devices').properties(index).name} (device {index})",
        line,
        "| " + "".ljust(30) + " |" + "|".join(f"{title:>13} " for title in ("now", "at most", "ever taken", "ever freed")) + "|",
        line,
    ]
    lines += [f"| {title:<30} |" + "|".join(f"{show(stats[f'{key}.all.{c}']):>13} " for c in columns) + "|" for title, key, show in rows]
    lines.append(line)
    free, total = mem_get_info(device)
    kept = stats["reserved_bytes.all.current"] - stats["active_bytes.all.current"]
    lines += [
        f"kept for tensors to come: {readable(max(kept, 0))}; free on the device: {readable(free)} of {readable(total)}",
        f"second tries: {stats['num_alloc_retries']}; failures: {stats['num_ooms']}",
    ]
    return "\n".join(lines)


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes that the driver has free, and all."""
    return room("devices").free_and_total(device)


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Set how much of a device's memory may be taken from the driver.

    Parameters
    ----------
    fraction : float
        In parts of all memory, from 0 to 1. More than that is an `OutOfMemoryError`.
    device : device, str or int, optional

    Raises
    ------
    TypeError
        If `fraction` is no float.
    ValueError
        If it is not from 0 to 1.
    """
    if not isinstance(fraction, float):
        raise TypeError("Invalid type for fraction argument, must be `float`")
    if not 0 <= fraction <= 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    room("memory").set_limit(fraction, room("devices").number(device))


def get_per_process_memory_fraction(device: Any = None) -> float:
    """What `set_per_process_memory_fraction` has set; 1 if nothing."""
    return room("memory").limit_fraction(room("devices").number(device))


def get_allocator_backend() -> str:
    """PyTorch's name for a pool that takes its memory by cudaMalloc."""
    return "native"
