"""Collectives in which every rank has a part for each rank: reduce_scatter and all_to_all; in place, outside of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor, bump_version
from .groups import check_tensor, check_tensors, communicator_for, member
from .parts import Parts, check_own, check_whole, written
from .reduce_op import ReduceOp, reduction_for
from .work import Work, begin

__all__ = [
    "all_to_all",
    "all_to_all_single",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_tensor",
]


def reduce_scatter(
    output: Tensor, input_list: Sequence[Tensor], op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Combine the ranks' lists; rank r gets the r-th result. As ``torch.distributed.reduce_scatter``.

    Parameters
    ----------
    output : Tensor
        Overwritten.
    input_list : list of Tensor
        What this rank contributes to each rank's result; shapes may differ from rank to rank.
    op, group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If the list has another length, this rank's tensor in it another shape than `output`, or the dtypes differ.
    """
    check_tensor("reduce_scatter", "output", output)
    inputs = check_tensors("reduce_scatter", "input_list", input_list)
    joint = member("reduce_scatter", group)
    if joint is None:
        return None
    communicator = communicator_for("reduce_scatter", joint, output, *inputs)
    how = reduction_for("reduce_scatter", op, output)
    check_own("reduce_scatter", "input_list", inputs, joint, output, "output is")
    parts = Parts("reduce_scatter", "input_list", inputs, joint).filled()
    own, finish = written(output, output._array.shape if parts.counts is None else (output._array.size,))
    work = communicator.reduce_scatter(own, parts.array, how, counts=parts.counts, async_op=True)
    return begin(joint, work, async_op, [output], finish)


def reduce_scatter_single(output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """Combine the ranks' inputs; each rank gets its own part of the result.

    As ``torch.distributed.reduce_scatter_single``, and as `reduce_scatter_tensor`, its older name.

    Parameters
    ----------
    output : Tensor
        Overwritten, of one shape on all ranks.
    input : Tensor
        As many elements as all outputs together; the first of them are rank 0's.
    op, group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If the input has not as many elements as all outputs together.
    """
    return _reduce_scatter_single("reduce_scatter_single", output, input, op, group, async_op)


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """As `reduce_scatter_single`."""
    return _reduce_scatter_single("reduce_scatter_tensor", output, input, op, group, async_op)


def _reduce_scatter_single(name: str, output: Tensor, input: Tensor, op: Any, group: Any, async_op: bool) -> Work | None:
    check_tensor(name, "output", output)
    check_tensor(name, "input", input)
    joint = member(name, group)
    if joint is None:
        return None
    check_whole(name, "input", input, output, joint.size())
    communicator = communicator_for(name, joint, output, input)
    how = reduction_for(name, op, output)
    rows = input._array.reshape((joint.size(), *output._array.shape))
    work = communicator.reduce_scatter(output._array, rows, how, async_op=True)
    bump_version(output)
    return begin(joint, work, async_op, [output])


def all_to_all(
    output_tensor_list: Sequence[Tensor], input_tensor_list: Sequence[Tensor], group: Any = None, async_op: bool = False
) -> Work | None:
    """Send each rank a tensor and receive one from each. As ``torch.distributed.all_to_all``.

    Parameters
    ----------
    output_tensor_list : list of Tensor
        Overwritten; the r-th has as many elements as rank r sends here.
    input_tensor_list : list of Tensor
        What each rank gets; shapes may differ.
    group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If a list has another length than the group, what this rank sends itself another shape, or dtypes differ.
    """
    outputs = check_tensors("all_to_all", "output_tensor_list", output_tensor_list)
    inputs = check_tensors("all_to_all", "input_tensor_list", input_tensor_list)
    joint = member("all_to_all", group)
    if joint is None:
        return None
    sent = Parts("all_to_all", "input_tensor_list", inputs, joint, flat=True)
    found = Parts("all_to_all", "output_tensor_list", outputs, joint, flat=True)
    communicator = communicator_for("all_to_all", joint, *inputs, *outputs)
    assert sent.counts is not None
    assert found.counts is not None
    if sent.counts[joint.rank()] != found.counts[joint.rank()]:
        raise ValueError(
            f"all_to_all: this rank ({joint.rank()}) sends itself a tensor of shape {list(inputs[joint.rank()].shape)} and expects one of "
            f"shape {list(outputs[joint.rank()].shape)}"
        )
    work = communicator.all_to_all(
        found.array, sent.filled().array, out_counts=found.counts, counts=sent.counts, async_op=True
    )
    return begin(joint, work, async_op, outputs, found.received())


def all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Any = None,
    async_op: bool = False,
) -> Work | None:
    """Send each rank its part of the first dimension. As ``torch.distributed.all_to_all_single``.

    Parameters
    ----------
    output, input : Tensor
        What is received, overwritten, and what is sent; the same but for the first dimension. Without sizes of one number of
        elements.
    output_split_sizes, input_split_sizes : list of int, optional
        How many rows come from and go to each rank; equally many unless given. Given on all ranks or on none.
    group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If sizes do not add up to the first dimension, or it cannot be split evenly.
    """
    check_tensor("all_to_all_single", "output", output)
    check_tensor("all_to_all_single", "input", input)
    joint = member("all_to_all_single", group)
    if joint is None:
        return None
    communicator = communicator_for("all_to_all_single", joint, input, output)
    uneven = bool(output_split_sizes or input_split_sizes)
    alike = output.shape[1:] == input.shape[1:] if uneven else output._array.size == input._array.size
    if not alike or not output.ndim or not input.ndim:
        raise ValueError(
            f"all_to_all_single: output of shape {list(output.shape)} and input of shape {list(input.shape)} must be the same but for "
            "the first dimension" + ("" if uneven else ", and without sizes have as many elements")
        )
    sizes = [
        _split_sizes(argument, t, given, joint.size())
        for argument, t, given in (("output", output, output_split_sizes), ("input", input, input_split_sizes))
    ]
    if uneven:
        out, finish = written(output, output._array.shape)
        work = communicator.all_to_all(out, input._array, out_counts=sizes[0], counts=sizes[1], async_op=True)
    else:
        rows = (joint.size(), input._array.size // joint.size())
        out, finish = written(output, rows)
        work = communicator.all_to_all(out, input._array.reshape(rows), async_op=True)
    return begin(joint, work, async_op, [output], finish)


def _split_sizes(argument: str, tensor: Tensor, given: Sequence[int] | None, ranks: int) -> list[int]:
    rows = tensor._array.shape[0]
    if given:
        sizes = [int(n) for n in given]
        if len(sizes) != ranks or min(sizes) < 0 or sum(sizes) != rows:
            raise ValueError(
                f"all_to_all_single: {argument}_split_sizes {sizes} must be {ranks} numbers that add up to {rows}, the first dimension of "
                f"{argument}"
            )
        return sizes
    if rows % ranks:
        raise ValueError(f"all_to_all_single: the first dimension of {argument}, {rows}, does not divide evenly among {ranks} ranks")
    return [rows // ranks] * ranks
