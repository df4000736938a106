"""Sequences of different lengths in one tensor: padded, or packed without padding; as ``torch.nn.utils.rnn``.

Packed, the batch's elements of time 0 come first, then those of time 1, and so on; since sequences are sorted by falling
length, ``batch_sizes[t]`` says how many go on at time t. Packing and padding are one gather each, which has a gradient.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

from ...autograd.several_devices import computes_with_arrays
from ...autograd.variable import Tensor, wrap
from ...backend import cpu, namespace
from ...backend import dtypes as dt
from ...ops import FUNCTIONS

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence",
    "unpack_sequence", "unpad_sequence",
]  # fmt: skip

_Fields = namedtuple("_Fields", "data batch_sizes sorted_indices unsorted_indices", defaults=(None, None))


class PackedSequence(_Fields):
    """A batch of sequences without padding; as ``torch.nn.utils.rnn.PackedSequence``. `pack_padded_sequence` makes one.

    Parameters
    ----------
    data : Tensor
        (sum of the lengths, *)
    batch_sizes : Tensor
        int64, on the CPU: how many sequences have an element at each time.
    sorted_indices : Tensor, optional
        How the batch was sorted by falling length; None if it was sorted.
    unsorted_indices : Tensor, optional
        The way back; found from `sorted_indices` unless given.
    """

    __slots__ = ()

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:  # (data, batch_sizes) as a pair
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise ValueError("PackedSequence: expected data and batch_sizes, or a pair of both")
            data, batch_sizes = data
        assert batch_sizes is not None
        if namespace(batch_sizes._array) is not cpu:
            raise ValueError(f"batch_sizes should always be on CPU, but they are on {batch_sizes.device}; see pack_padded_sequence")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def __getnewargs__(self) -> tuple:
        return tuple(self)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The sequence on another device or in another dtype; itself if nothing changes."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        indices = [None if i is None else i.to(device=data.device) for i in (self.sorted_indices, self.unsorted_indices)]
        return type(self)(data, self.batch_sizes, *indices)

    def cpu(self) -> PackedSequence:
        """The sequence on the CPU."""
        return self.to(device="cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        """The sequence on a GPU, the current one unless given."""
        return self.to(device="cuda" if device is None else device)

    def double(self) -> PackedSequence:
        """In float64."""
        return self.to(dtype=dt.float64)

    def float(self) -> PackedSequence:
        """In float32."""
        return self.to(dtype=dt.float32)

    def half(self) -> PackedSequence:
        """In float16."""
        return self.to(dtype=dt.float16)

    def long(self) -> PackedSequence:
        """In int64."""
        return self.to(dtype=dt.int64)

    def int(self) -> PackedSequence:
        """In int32."""
        return self.to(dtype=dt.int32)

    def short(self) -> PackedSequence:
        """In int16."""
        return self.to(dtype=dt.PUBLIC_DTYPES["int16"])

    def char(self) -> PackedSequence:
        """In int8."""
        return self.to(dtype=dt.PUBLIC_DTYPES["int8"])

    def byte(self) -> PackedSequence:
        """In uint8."""
        return self.to(dtype=dt.uint8)

    def pin_memory(self) -> PackedSequence:
        """The sequence with its data in page-locked memory."""
        data: Any = self.data
        return type(self)(data.pin_memory(), self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        """Whether the data is in page-locked memory."""
        data: Any = self.data
        return data.is_pinned()


@computes_with_arrays
def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another; None for None."""
    if permutation is None:
        return None
    a = permutation._array
    xp = namespace(a)
    inverse = xp.empty_like(a)
    inverse[a] = xp.arange(a.shape[0], dtype=a.dtype)
    return wrap(inverse)


def _host_lengths(lengths: Any) -> Any:
    """Lengths as an int64 array on the CPU."""
    a = lengths._array if isinstance(lengths, Tensor) else cpu.asarray([int(n) for n in lengths], dtype=dt.int64.numpy)
    return namespace(a).to_host(a).astype(dt.int64.numpy)


def _index(positions: Any, like: Tensor) -> Tensor:
    """Positions as an index tensor on the device of another."""
    return wrap(cpu.asarray(positions, dtype=dt.int64.numpy)).to(device=like.device)


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PackedSequence:
    """Padded sequences without their padding; as ``torch.nn.utils.rnn.pack_padded_sequence``.

    Parameters
    ----------
    input : Tensor
        (T, B, *), or (B, T, *) if `batch_first`.
    lengths : Tensor or sequence of int
        (B,), each from 1 to T.
    batch_first : bool
    enforce_sorted : bool
        Whether the lengths must be falling already; otherwise the batch is sorted, and `pad_packed_sequence` undoes that.

    Raises
    ------
    RuntimeError
        If there are not as many lengths as sequences, one is not positive or too large, or they are not sorted.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([[1, 2, 0], [3, 4, 5]])
    >>> packed = disttorch.nn.utils.rnn.pack_padded_sequence(x, [2, 3], batch_first=True, enforce_sorted=False)
    >>> packed.data, packed.batch_sizes
    (tensor([3, 1, 4, 2, 5]), tensor([2, 2, 1]))
    """
    a = _host_lengths(lengths)
    time, batch = (1, 0) if batch_first else (0, 1)
    count, steps = input.shape[batch], input.shape[time]
    if a.ndim != 1 or len(a) != count:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {a.size} (batch_size={count})")
    if not count:
        raise RuntimeError("Cannot pack empty tensors.")
    if int(a.min()) <= 0:
        raise RuntimeError(
            f"Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0: {int(a.min())}"
        )
    if int(a.max()) > steps:
        raise RuntimeError(
            f"pack_padded_sequence: a length is {int(a.max())}, but the input of shape {list(input.shape)} has {steps} steps"
        )
    order = None
    if enforce_sorted:
        if (a[1:] > a[:-1]).any():
            raise RuntimeError(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass `enforce_sorted=False` to "
                "pack_padded_sequence and/or pack_sequence to sidestep this requirement if you do not need ONNX exportability."
            )
        sequence = cpu.arange(count)
    else:
        sequence = cpu.argsort(-a, kind="stable")
        a = a[sequence]
        order = _index(sequence, input)
    step, place = cpu.nonzero(cpu.arange(int(a[0]))[:, None] < a)  # in the order of time
    where = sequence[place]
    flat = where * steps + step if batch_first else step * count + where
    rows = input.reshape(steps * count, *input.shape[2:])
    sizes = cpu.sum(cpu.arange(int(a[0]))[:, None] < a, axis=1)
    return PackedSequence(
        FUNCTIONS["index_select"](rows, 0, _index(flat, input)), wrap(cpu.asarray(sizes, dtype=dt.int64.numpy)), order
    )


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Packed sequences with padding; as ``torch.nn.utils.rnn.pad_packed_sequence``.

    Parameters
    ----------
    sequence : PackedSequence
    batch_first : bool
        Whether the result is (B, T, *) and not (T, B, *).
    padding_value : float
    total_length : int, optional
        T, if larger than the longest sequence.

    Returns
    -------
    Tensor
        The padded sequences, in the order in which they were packed.
    Tensor
        int64 (B,), on the CPU: their lengths.

    Raises
    ------
    ValueError
        If `total_length` is less than the longest sequence.
    """
    data, sizes = sequence.data, sequence.batch_sizes._array
    steps, count = len(sizes), int(sizes[0])
    if total_length is not None and total_length < steps:
        raise ValueError(
            f"Expected total_length to be at least the length of the longest sequence in input, but got total_length={total_length} and "
            f"max sequence length being {steps}"
        )
    total = steps if total_length is None else total_length
    lengths = cpu.sum(sizes[:, None] > cpu.arange(count), axis=0)
    order = sequence.unsorted_indices
    back = cpu.arange(count) if order is None else namespace(order._array).to_host(order._array)
    lengths = lengths[back]
    starts = cpu.cumsum(sizes, axis=0) - sizes
    # what is past its end is taken from a row of padding behind the data
    past = cpu.arange(total)[:, None] >= lengths
    at = cpu.where(past, data.shape[0], cpu.concatenate((starts, cpu.zeros(total - steps, starts.dtype)))[:, None] + back)
    padded = _gather_with_padding(data, at.T if batch_first else at, padding_value)
    return padded, wrap(cpu.asarray(lengths, dtype=dt.int64.numpy))


def _gather_with_padding(data: Tensor, at: Any, padding_value: float) -> Tensor:
    """Rows of `data` by an array of their numbers, where one more number than there are rows stands for padding."""
    extended = FUNCTIONS["cat"]([data, FUNCTIONS["full"]((1, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)])
    return FUNCTIONS["index_select"](extended, 0, _index(at.reshape(-1), data)).reshape(*at.shape, *data.shape[1:])


def pad_sequence(
    sequences: Tensor | Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Tensors of different lengths in one; as ``torch.nn.utils.rnn.pad_sequence``.

    Parameters
    ----------
    sequences : sequence of Tensor
        (L, *) each, alike but for L.
    batch_first : bool
        Whether the result is (B, T, *) and not (T, B, *), with T the largest L.
    padding_value : float
    padding_side : {"right", "left"}

    Raises
    ------
    RuntimeError
        If there are no sequences, or they differ in more than L.

    Examples
    --------
    >>> import disttorch
    >>> parts = [disttorch.tensor([1, 2, 3]), disttorch.tensor([4])]
    >>> disttorch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    tensor([[1, 2, 3],
            [4, 0, 0]])
    """
    if padding_side not in ("right", "left"):
        raise RuntimeError(f"padding_side should be either 'right' or 'left', but got {padding_side!r}")
    if isinstance(sequences, Tensor):
        sequences = list(sequences.unbind(0))
    elif not isinstance(sequences, Iterable):
        raise RuntimeError(f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}")
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("received an empty list of sequences")
    lengths = cpu.asarray([s.shape[0] for s in sequences], dtype=dt.int64.numpy)
    total = int(lengths.max())
    starts = (cpu.cumsum(lengths, axis=0) - lengths)[:, None]
    place = cpu.arange(total) - ((total - lengths)[:, None] if padding_side == "left" else 0)
    inside = (place >= 0) & (place < lengths[:, None])
    data = FUNCTIONS["cat"](sequences)
    at = cpu.where(inside, starts + place, data.shape[0])
    return _gather_with_padding(data, at if batch_first else at.T, padding_value)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """Padded sequences as a list of tensors, views; as ``torch.nn.utils.rnn.unpad_sequence``.

    Parameters
    ----------
    padded_sequences : Tensor
        (T, B, *), or (B, T, *) if `batch_first`.
    lengths : Tensor or sequence of int
        (B,)
    batch_first : bool
    """
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [rows[i, : int(n)] for i, n in enumerate(_host_lengths(lengths))]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors of different lengths, packed; as ``torch.nn.utils.rnn.pack_sequence``.

    Parameters
    ----------
    sequences : sequence of Tensor
        (L, *) each, alike but for L.
    enforce_sorted : bool
        As for `pack_padded_sequence`.
    """
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """A packed sequence as a list of tensors; as ``torch.nn.utils.rnn.unpack_sequence``."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
