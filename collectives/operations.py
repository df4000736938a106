"""The collective operations on arrays, whatever carries them.

Every call passes through these methods. They check the arguments and take away what every transport would otherwise repeat:
arrays that are not contiguous, empty arrays, sums of half precision, averages, outputs that overlap inputs. What watches over
the calls stands in `collectives.group`; what carries them is a `Transport`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .arguments import check_array, check_counts, check_dtypes, check_only_on_root, check_parts, check_rank, check_rows
from .devices import device_transport
from .group import Group
from .reductions import REDUCTIONS, Reduction, is_half, reduction_for
from .staging import Array, average, copy_back, staged, there
from .transport import Transport
from .work import Work

__all__ = ["CollectiveOperations"]

_SUM = REDUCTIONS["sum"]


class CollectiveOperations(Group):
    """What all ranks of a group call together; the part of a `Communicator` that moves and reduces arrays."""

    # Reductions ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: str | Reduction = "sum", *, async_op: bool = False) -> Work:
        """Combine the ranks' arrays element by element; every rank receives the result in place.

        Parameters
        ----------
        array : ndarray
            Any shape; overwritten by the result.
        op : str or Reduction, default "sum"
            A name of the table `collectives.REDUCTIONS`, or `collectives.scaled_sum`.
        async_op : bool, default False
            Return at once with a Work to wait for.

        Raises
        ------
        TypeError
            If `array` is no array, or its dtype does not allow `op`.
        ValueError
            If `op` is unknown or `array` is read-only.
        CommunicationError
            If the operation fails: a rank is gone, does not come (`CollectiveTimeoutError`), or calls something else
            (`CollectiveMismatchError`).

        Notes
        -----
        MPI-4.1, section 6.9.6; PyTorch: ``torch.distributed.all_reduce``.

        Examples
        --------
        >>> from collectives import connect
        >>> values = np.array([3, 4])
        >>> connect("local").all_reduce(values, "max")
        <Work all_reduce: complete>
        """
        if type(array) is np.ndarray and array.flags.carray and (plan := self._plans.get((op, array.dtype))) is not None:
            # Small arrays are many, so what was found out once about a reduction of a dtype is kept.
            note = self._call("all_reduce", array, plan[0])
            if array.size:
                return self._begin(note, self._transport.all_reduce(array, plan[1]), async_op, None, array)
            return self._nothing(note, array)
        transport = self._transport_for("all_reduce", "array", array, written=True)
        reduction = reduction_for("all_reduce", op, array.dtype)
        note = self._call("all_reduce", array, reduction)
        if array.size == 0:
            return self._nothing(note, array)
        plain, wide = _plain(transport, reduction)
        buffer = staged(array, wide=wide and is_half(array.dtype))
        if buffer is array and plain is reduction and transport is self._transport:
            self._plans[op, array.dtype] = reduction, plain
        if reduction.factor is not None:
            with there(buffer):
                buffer *= reduction.factor
        work = transport.all_reduce(buffer, plain)
        return self._begin(note, work, async_op, self._finish_reduction(array, buffer, reduction, plain), array)

    def reduce(self, array: Array, root: int = 0, op: str | Reduction = "sum", *, async_op: bool = False) -> Work:
        """Combine the ranks' arrays element by element; `root` receives the result in place.

        The arrays of the other ranks are left as they were. Parameters and errors as in `all_reduce`; a `root` outside
        of the group is a ValueError. MPI-4.1, section 6.9.1; PyTorch: ``torch.distributed.reduce``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").reduce(np.ones(2), root=0)
        <Work reduce: complete>
        """
        check_rank(self, "reduce", "root", root)
        receives = self.rank == root
        transport = self._transport_for("reduce", "array", array, written=receives)
        reduction = reduction_for("reduce", op, array.dtype)
        note = self._call("reduce", array, reduction, root=root)
        if array.size == 0:
            return self._nothing(note, array if receives else None)
        plain, wide = _plain(transport, reduction)
        buffer = _scaled(staged(array, wide=wide and is_half(array.dtype)), array, reduction)
        finish = self._finish_reduction(array, buffer, reduction, plain) if receives else None
        return self._begin(note, transport.reduce(buffer, root, plain), async_op, finish, array if receives else None)

    def reduce_scatter(
        self,
        array: Array,
        source: Array,
        op: str | Reduction = "sum",
        *,
        counts: Sequence[int] | None = None,
        async_op: bool = False,
    ) -> Work:
        """Combine the ranks' `source` arrays element by element; rank r receives part r of the result in `array`.

        Parameters
        ----------
        array : ndarray
            Any shape; overwritten by this rank's part. May be a row of `source`.
        source : ndarray, shape (size, *array.shape), or (sum(counts), *array.shape[1:])
            What this rank contributes to each rank's result.
        op, async_op
            As in `all_reduce`.
        counts : sequence of int, optional
            Rows of each rank's part; `array` has ``counts[rank]``.

        Raises
        ------
        TypeError, ValueError, CommunicationError
            As in `all_reduce`, and where shapes or dtypes do not fit together.

        Notes
        -----
        MPI-4.1, section 6.10; PyTorch: ``torch.distributed.reduce_scatter_tensor``.

        Examples
        --------
        >>> from collectives import connect
        >>> part = np.empty(2)
        >>> connect("local").reduce_scatter(part, np.array([[5.0, 6.0]])).result()
        array([5., 6.])
        """
        name = "reduce_scatter"
        transport = self._transport_for(name, "array", array, written=True)
        check_array(self, name, "source", source)
        elements = self._check_whole(name, "source", source, array, counts)
        reduction = reduction_for(name, op, array.dtype)
        note = self._call(name, source, reduction)
        if source.size == 0:
            return self._nothing(note, array)
        plain, wide = _plain(transport, reduction)
        wide = wide and is_half(array.dtype)
        contribution = _scaled(staged(source, wide=wide), source, reduction)
        buffer = staged(array, wide=wide, apart_from=contribution)
        work = transport.reduce_scatter(buffer, contribution, plain, elements)
        return self._begin(note, work, async_op, self._finish_reduction(array, buffer, reduction, plain), array)

    # Movement --------------------------------------------------------------------------------------------------------

    def broadcast(self, array: Array, root: int = 0, *, async_op: bool = False) -> Work:
        """Overwrite every rank's `array` with that of `root`, which may be read-only there.

        Errors as in `reduce`. MPI-4.1, section 6.4; PyTorch: ``torch.distributed.broadcast``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").broadcast(np.zeros((2, 2)), root=0)
        <Work broadcast: complete>
        """
        check_rank(self, "broadcast", "root", root)
        transport = self._transport_for("broadcast", "array", array, written=self.rank != root)
        note = self._call("broadcast", array, root=root)
        if array.size == 0:
            return self._nothing(note, array)
        buffer = staged(array)
        work = transport.broadcast(buffer, root)
        return self._begin(note, work, async_op, copy_back(array, buffer, self.rank != root), array)

    def all_gather(
        self, out: Array, array: Array, *, counts: Sequence[int] | None = None, async_op: bool = False
    ) -> Work:
        """Collect the ranks' arrays: every rank receives that of rank r as part r of `out`.

        Parameters
        ----------
        out : ndarray, shape (size, *array.shape), or (sum(counts), *array.shape[1:])
            Overwritten; the dtype is that of `array`.
        array : ndarray
            What this rank contributes; may be its part of `out`.
        counts : sequence of int, optional
            Rows of each rank's array.
        async_op : bool, default False
            Return at once with a Work to wait for.

        Raises
        ------
        TypeError
            If one of them is no array, or their dtypes differ.
        ValueError
            If their shapes do not fit together, or `out` is read-only.
        CommunicationError
            As in `all_reduce`.

        Notes
        -----
        MPI-4.1, section 6.7; PyTorch: ``torch.distributed.all_gather_into_tensor``.

        Examples
        --------
        >>> from collectives import connect
        >>> rows = np.empty((1, 2))
        >>> connect("local").all_gather(rows, np.array([1.0, 2.0])).result()
        array([[1., 2.]])
        """
        name = "all_gather"
        transport = self._transport_for(name, "out", out, written=True)
        check_array(self, name, "array", array)
        elements = self._check_whole(name, "out", out, array, counts)
        note = self._call(name, out)
        if out.size == 0:
            return self._nothing(note, out)
        buffer = staged(out)
        work = transport.all_gather(buffer, staged(array, apart_from=buffer), elements)
        return self._begin(note, work, async_op, copy_back(out, buffer), out)

    def gather(
        self,
        out: Array | None,
        array: Array,
        root: int = 0,
        *,
        counts: Sequence[int] | None = None,
        async_op: bool = False,
    ) -> Work:
        """Collect the ranks' arrays on `root`, that of rank r as part r of `out`.

        Parameters and errors as in `all_gather`, but `out` is None on all ranks other than `root`. MPI-4.1,
        section 6.5; PyTorch: ``torch.distributed.gather``.

        Examples
        --------
        >>> from collectives import connect
        >>> rows = np.empty((1, 2))
        >>> connect("local").gather(rows, np.array([1.0, 2.0])).result()
        array([[1., 2.]])
        """
        name = "gather"
        check_rank(self, name, "root", root)
        transport = self._transport_for(name, "array", array)
        check_only_on_root(self, name, "out", out, root, array, written=True)
        elements = self._check_whole(name, "out", out, array, counts)
        note = self._call(name, array, root=root, shape=_common(array, counts))
        if array.size == 0 if counts is None else sum(counts) == 0:
            return self._nothing(note, out)
        if out is None:
            return self._begin(note, transport.gather(None, staged(array), root, elements), async_op)
        buffer = staged(out)
        work = transport.gather(buffer, staged(array, apart_from=buffer), root, elements)
        return self._begin(note, work, async_op, copy_back(out, buffer), out)

    def scatter(
        self,
        array: Array,
        source: Array | None,
        root: int = 0,
        *,
        counts: Sequence[int] | None = None,
        async_op: bool = False,
    ) -> Work:
        """Hand out the parts of the `source` of `root`: rank r receives part r in `array`.

        Parameters
        ----------
        array : ndarray
            Any shape; overwritten.
        source : ndarray, shape (size, *array.shape) or (sum(counts), *array.shape[1:]), or None
            On `root` what is handed out, None on the other ranks.
        root : int, default 0
            The rank that hands out.
        counts : sequence of int, optional
            Rows of each rank's part.
        async_op : bool, default False
            Return at once with a Work to wait for.

        Raises
        ------
        TypeError
            If one of them is no array, or their dtypes differ.
        ValueError
            If their shapes do not fit together, `array` is read-only or `root` is outside of the group.
        CommunicationError
            As in `all_reduce`.

        Notes
        -----
        MPI-4.1, section 6.6; PyTorch: ``torch.distributed.scatter``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").scatter(np.empty(2), np.array([[5.0, 6.0]])).result()
        array([5., 6.])
        """
        name = "scatter"
        check_rank(self, name, "root", root)
        transport = self._transport_for(name, "array", array, written=True)
        check_only_on_root(self, name, "source", source, root, array)
        elements = self._check_whole(name, "source", source, array, counts)
        note = self._call(name, array, root=root, shape=_common(array, counts))
        if array.size == 0 if counts is None else sum(counts) == 0:
            return self._nothing(note, array)
        rows = None if source is None else staged(source)
        buffer = staged(array, apart_from=rows)
        work = transport.scatter(buffer, rows, root, elements)
        return self._begin(note, work, async_op, copy_back(array, buffer), array)

    def all_to_all(
        self,
        out: Array,
        array: Array,
        *,
        out_counts: Sequence[int] | None = None,
        counts: Sequence[int] | None = None,
        async_op: bool = False,
    ) -> Work:
        """Send part r of `array` to rank r; part r of `out` is what rank r sent here.

        Parameters
        ----------
        out, array : ndarray, shape (size, ...), or (sum(out_counts), ...) and (sum(counts), ...)
            One dtype, and one shape but for the first dimension; `out` is overwritten.
        out_counts, counts : sequence of int, optional
            Rows that come from, and go to, each rank. Unlike in other operations each rank has its own. Both or none.
        async_op : bool, default False
            Return at once with a Work to wait for.

        Raises
        ------
        TypeError, ValueError, CommunicationError
            As in `all_gather`.

        Notes
        -----
        MPI-4.1, section 6.8; PyTorch: ``torch.distributed.all_to_all_single``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").all_to_all(np.empty((1, 2)), np.array([[1.0, 2.0]])).result()
        array([[1., 2.]])
        """
        name = "all_to_all"
        transport = self._transport_for(name, "out", out, written=True)
        check_array(self, name, "array", array)
        check_dtypes(name, "out", out, array)
        given = taken = None
        if (counts is None) != (out_counts is None):
            raise ValueError(f"{name}: counts and out_counts are given both or not at all")
        if counts is None or out_counts is None:
            if array.shape[:1] != (self.size,) or out.shape != array.shape:
                raise ValueError(
                    f"{name}: out and array must have one shape that begins with the {self.size} ranks; "
                    f"out has {out.shape}, array {array.shape}"
                )
            note = self._call(name, array)
            if array.size == 0:
                return self._nothing(note, out)
        else:
            given = check_counts(self, name, "counts", counts, "array", array)
            taken = check_counts(self, name, "out_counts", out_counts, "out", out)
            if out.shape[1:] != array.shape[1:]:
                raise ValueError(
                    f"{name}: out and array must have one shape but for the first dimension; out has {out.shape}, "
                    f"array {array.shape}"
                )
            if counts[self.rank] != out_counts[self.rank]:
                raise ValueError(
                    f"{name}: rank {self.rank} sends itself {counts[self.rank]} rows, but expects {out_counts[self.rank]}"
                )
            note = self._call(name, array, shape=("*", *array.shape[1:]))  # type: ignore[arg-type]
        buffer = staged(out)
        work = transport.all_to_all(buffer, staged(array, apart_from=buffer), taken, given)
        return self._begin(note, work, async_op, copy_back(out, buffer), out)

    # What every transport would otherwise repeat ---------------------------------------------------------------------

    def _transport_for(self, name: str, role: str, array: Array, written: bool = False) -> Transport:
        """What carries an array of this type; refuses what is none, or cannot be written where it must be."""
        if self._closed or self._failed is not None:
            self._refuse(name)
        if type(array) is np.ndarray:
            if array.dtype.hasobject or (written and not array.flags.writeable):
                check_array(self, name, role, array, written)
            return self._transport
        check_array(self, name, role, array, written)
        if isinstance(array, np.ndarray):
            return self._transport
        return device_transport(self, array)

    def _check_open(self, name: str) -> None:
        if self._closed or self._failed is not None:
            self._refuse(name)

    def _check_whole(
        self, name: str, role: str, whole: Array | None, array: Array, counts: Sequence[int] | None
    ) -> list[int] | None:
        """See that the array of all parts fits this rank's part; the parts' numbers of elements, where they differ."""
        if counts is None:
            if whole is not None:
                check_rows(self, name, role, whole, array)
            return None
        return check_parts(self, name, role, whole, array, counts)

    def _finish_reduction(
        self, array: Array, buffer: Array, reduction: Reduction, plain: Reduction
    ) -> Callable[[], None] | None:
        back = copy_back(array, buffer)
        if reduction.name == "avg" and plain.name != "avg" and self.size > 1:
            return partial(average, buffer, self.size, back)
        return back


def _plain(transport: Transport, reduction: Reduction) -> tuple[Reduction, bool]:
    """The reduction that a transport is asked for, and whether half types come to it in float32."""
    if reduction.factor is not None:
        # What is multiplied before need not be rounded to a half type.
        return _SUM, True
    if reduction.name == "avg" and not transport.averages:
        return _SUM, not transport.accumulates_half
    return reduction, not transport.accumulates_half


def _scaled(buffer: Array, array: Array, reduction: Reduction) -> Array:
    """The buffer multiplied with a scaled sum's factor; a copy where it is the caller's own array."""
    if reduction.factor is None:
        return buffer
    with there(buffer):
        if buffer is array:
            return buffer * buffer.dtype.type(reduction.factor)
        buffer *= reduction.factor
    return buffer


def _common(array: Array, counts: Sequence[int] | None) -> tuple[Any, ...]:
    """The shape as far as it is the same on all ranks."""
    return array.shape if counts is None else ("*", *array.shape[1:])
