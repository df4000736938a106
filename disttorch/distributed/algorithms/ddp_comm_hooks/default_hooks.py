"""Communication hooks that reduce a bucket as it is, or in half precision; as PyTorch's module of the same name."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import collectives

from ....autograd.variable import Tensor
from ....backend.dtypes import bfloat16, float16
from ....futures import Future
from ...buckets import BuiltinCommHookType, GradBucket
from ...groups import joined
from ...steps import Steps

__all__ = [
    "BUILTIN",
    "allreduce_hook",
    "bf16_compress_hook",
    "bf16_compress_wrapper",
    "fp16_compress_hook",
    "fp16_compress_wrapper",
]

Hook = Callable[[Any, GradBucket], Future]


def communicator_of(process_group: Any) -> collectives.Communicator:
    """What a hook calls collectives of: a group's, the world's unless given, beside the program's own.

    Parameters
    ----------
    process_group : ProcessGroup, Communicator or None

    Raises
    ------
    ValueError
        If this rank is no member.
    """
    if isinstance(process_group, collectives.Communicator):
        return process_group
    group = joined(process_group)
    if group is None:
        raise ValueError("a communication hook was given a process group that this rank is not a member of")
    return group.lane


def mean(process_group: Any, tensor: Tensor) -> Future:
    """A future of a tensor, in place, as the mean over the ranks of a group."""

    def steps() -> Generator[Any, Any, Tensor]:
        yield communicator_of(process_group).all_reduce(tensor._array, "avg", async_op=True)
        return tensor

    return Steps(steps())


def allreduce_hook(process_group: Any, bucket: GradBucket) -> Future:
    """The mean over the ranks: what is done without a hook.

    Parameters
    ----------
    process_group : ProcessGroup or None
        The world unless given.
    bucket : GradBucket
    """
    return mean(process_group, bucket.buffer())


def fp16_compress_hook(process_group: Any, bucket: GradBucket) -> Future:
    """The mean over the ranks of the gradients rounded to float16; half the bytes.

    Sums are formed in float32 and rounded once.

    Parameters
    ----------
    process_group : ProcessGroup or None
        The world unless given.
    bucket : GradBucket
    """
    return _compressed(float16, allreduce_hook, process_group, bucket)


def bf16_compress_hook(process_group: Any, bucket: GradBucket) -> Future:
    """As `fp16_compress_hook`, with bfloat16, which has float32's range."""
    return _compressed(bfloat16, allreduce_hook, process_group, bucket)


BUILTIN = {BuiltinCommHookType.ALLREDUCE: allreduce_hook, BuiltinCommHookType.FP16_COMPRESS: fp16_compress_hook}


def fp16_compress_wrapper(hook: Hook) -> Hook:
    """A hook that gives another hook the gradients in float16, and what it makes of them back in their own dtype.

    Examples
    --------
    >>> from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    >>> halved = fp16_compress_wrapper(allreduce_hook)  # is fp16_compress_hook
    """
    return _wrapped(float16, hook, "fp16_compress_wrapper_hook")


def bf16_compress_wrapper(hook: Hook) -> Hook:
    """As `fp16_compress_wrapper`, with bfloat16."""
    return _wrapped(bfloat16, hook, "bf16_compress_wrapper_hook")


def _wrapped(dtype: Any, hook: Hook, name: str) -> Hook:
    def wrapper(state: Any, bucket: GradBucket) -> Future:
        return _compressed(dtype, hook, state, bucket)

    wrapper.__name__ = wrapper.__qualname__ = name
    wrapper.synchronizes = getattr(hook, "synchronizes", True)  # type: ignore[attr-defined]
    return wrapper


def _compressed(dtype: Any, hook: Hook, state: Any, bucket: GradBucket) -> Future:
    whole = bucket.buffer()

    def steps() -> Generator[Any, Any, Tensor]:
        bucket.set_buffer(whole.to(dtype))
        reduced = yield hook(state, bucket)
        whole._array[...] = reduced._array
        bucket.set_buffer(whole)
        return whole

    return Steps(steps())
