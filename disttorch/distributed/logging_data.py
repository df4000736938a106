"""What DistributedDataParallel says of itself: ``_get_ddp_logging_data``, under PyTorch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data_parallel import DistributedDataParallel

__all__ = ["logging_data"]


def logging_data(model: DistributedDataParallel) -> dict[str, Any]:
    """What was asked for, the buckets, and how long reductions take; times in nanoseconds."""
    r = model.reducer
    first, rebuilt = (", ".join(str(n) for n in sizes) for sizes in (r.layout.first_sizes, r.layout.sizes() if r.rebuilt else []))
    return {
        "world_size": model._communicator.size,
        "rank": model._communicator.rank,
        "module_name": type(model.module).__name__,
        "backend_name": model.process_group.name(),
        "broadcast_buffers": model.forward_sync_buffers,
        "bucket_cap_bytes": model._bucket_bytes[-1],
        "find_unused_parameters": model.find_unused_parameters,
        "gradient_as_bucket_view": model.gradient_as_bucket_view,
        "static_graph": model.static_graph,
        "comm_hook": r.reductions.hook_name,
        "num_parameter_tensors": len(r.entries),
        "total_parameter_size_bytes": sum(e.parameter._array.nbytes for e in r.entries),
        "iteration": r.passes,
        "initial_bucket_sizes": first,
        "bucket_sizes": first,
        "has_rebuilt_buckets": r.rebuilt,
        "rebuilt_bucket_sizes": rebuilt,
        "can_set_static_graph": r.used_alike,
        "backward_comm_time": int(r.reductions.times.total * 1e9),
        "backward_compute_comm_overlap_time": int(max(0.0, r.reductions.times.total - r.reductions.times.exposed) * 1e9),
    }
