"""PowerSGD: gradients compressed to low rank (Vogels, Karimireddy & Jaggi, NeurIPS 2019, arXiv:1905.13727).

A layer's gradient is a matrix M of n rows and m columns. One step of subspace iteration, begun with the Q of the step before
(warm start), gives its approximation of rank r; only P and Q, (n + m) r numbers, are averaged over the ranks:

    P = mean(M Q);  P = orthogonalize(P);  Q = mean(M^T P);  M ~ P Q^T

What a rank's M lacks is kept and added to its next gradient (error feedback), so that nothing is lost for good.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import ceil, sqrt
from typing import Any

from ....autograd.variable import Tensor, wrap
from ....backend import namespace
from ....futures import Future
from ....ops.creation import randn
from ....ops.random import Generator as RandomStream
from ...buckets import GradBucket
from ...groups import joined
from ...steps import Steps
from .default_hooks import communicator_of, mean

__all__ = ["PowerSGDState", "batched_powerSGD_hook", "powerSGD_hook"]


class PowerSGDState:
    """What `powerSGD_hook` and `batched_powerSGD_hook` are told, and keep.

    Parameters
    ----------
    process_group : ProcessGroup or None
        The world unless given.
    matrix_approximation_rank : int
        The rank r.
    start_powerSGD_iter : int
        Backward passes in which gradients are averaged as they are, as the beginning of training is the most sensitive. At
        least 2 with error feedback or warm start: buckets are filled anew after the first.
    min_compression_rate : float
        A matrix is compressed if (n + m) r times this is less than n m.
    use_error_feedback, warm_start : bool
    orthogonalization_epsilon : float
        Added to the norms of columns, for gradients that may be 0. (A column of zeros stays one, also without.)
    random_seed : int
        Of the first Q, the same on all ranks.
    compression_stats_logging_frequency : int
        Accepted as in PyTorch; `compression_stats` says the same at any time.
    batch_tensors_with_same_shape : bool
        Multiply matrices of one shape together: faster for many small ones.

    Attributes
    ----------
    iter : int
        Backward passes so far.
    error_dict : dict of int to Tensor
        For each bucket what its gradients lacked on this rank.

    Raises
    ------
    ValueError
        If `start_powerSGD_iter` is less than it must be, or a rank or rate not greater than 0.
    """

    def __init__(
        self,
        process_group: Any,
        matrix_approximation_rank: int = 1,
        start_powerSGD_iter: int = 1_000,
        min_compression_rate: float = 2,
        use_error_feedback: bool = True,
        warm_start: bool = True,
        orthogonalization_epsilon: float = 0,
        random_seed: int = 0,
        compression_stats_logging_frequency: int = 10_000,
        batch_tensors_with_same_shape: bool = False,
    ):
        if (use_error_feedback or warm_start) and start_powerSGD_iter <= 1:
            raise ValueError(
                "Expect `start_powerSGD_iter` > 1 if `use_error_feedback` or `warm_start` is enabled, because buckets are filled anew "
                f"after the first backward pass; got {start_powerSGD_iter}"
            )
        if matrix_approximation_rank < 1 or min_compression_rate <= 0:
            raise ValueError(
                f"PowerSGD: the rank must be at least 1 and the rate greater than 0, got {matrix_approximation_rank} and "
                f"{min_compression_rate}"
            )
        self.process_group = process_group
        self.matrix_approximation_rank = matrix_approximation_rank
        self.start_powerSGD_iter = start_powerSGD_iter
        self.min_compression_rate = min_compression_rate
        self.use_error_feedback = use_error_feedback
        self.warm_start = warm_start
        self.orthogonalization_epsilon = orthogonalization_epsilon
        self.compression_stats_logging_frequency = compression_stats_logging_frequency
        self.batch_tensors_with_same_shape = batch_tensors_with_same_shape
        self.rng = RandomStream().manual_seed(random_seed)
        self.iter = 0
        self.error_dict: dict[int, Tensor] = {}
        self.p_memory_dict: dict[int, list[Tensor]] = {}
        self.q_memory_dict: dict[int, list[Tensor]] = {}
        self.total_numel_before_compression = 0
        self.total_numel_after_compression = 0

    def maybe_increase_iter(self, bucket: GradBucket) -> None:
        """Count a backward pass when its last bucket comes."""
        if bucket.is_last():
            self.iter += 1

    def compression_stats(self) -> tuple[float, int, int]:
        """Elements before compression for each one after it; elements before; elements after. Of all passes so far."""
        before, after = self.total_numel_before_compression, self.total_numel_after_compression
        return (before / after if after else 0.0), before, after

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "process_group"}
        state["rng"] = self.rng.get_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The process group is the world; set another one afterwards."""
        self.__dict__.update(state)
        self.process_group = joined(None)
        self.rng = RandomStream()
        self.rng.set_state(state["rng"])


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Future:
    """The mean over the ranks of the gradients as matrices of low rank, layer by layer.

    What is not worth it, such as biases, is averaged as it is.

    Parameters
    ----------
    state : PowerSGDState
    bucket : GradBucket

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(64, 64))
    >>> state = PowerSGDState(process_group=None, matrix_approximation_rank=2, start_powerSGD_iter=2)
    >>> model.register_comm_hook(state, powerSGD_hook)
    >>> for _ in range(3):
    ...     model(disttorch.randn(8, 64)).pow(2).sum().backward()
    >>> state.compression_stats()  # 64 x 64 numbers in 2 x 2 x 64; the bias as it is
    (13.0, 4160, 320)
    >>> dist.destroy_process_group()
    """
    if state.iter < state.start_powerSGD_iter:
        state.maybe_increase_iter(bucket)
        return mean(state.process_group, bucket.buffer())
    return Steps(_by_layers(state, bucket))


def batched_powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Future:
    """The mean over the ranks of all gradients of a bucket as one square matrix of low rank.

    Faster than `powerSGD_hook` and less exact, as the matrix has no structure of its own. Parameters as there.
    """
    if state.iter < state.start_powerSGD_iter:
        state.maybe_increase_iter(bucket)
        return mean(state.process_group, bucket.buffer())
    return Steps(_as_square(state, bucket))


_Reduction = Generator[Any, Any, Tensor]


def _by_layers(state: PowerSGDState, bucket: GradBucket) -> _Reduction:
    flat = bucket.buffer()._array
    xp = namespace(flat)
    _add_error(state, bucket.index(), flat)
    sent = xp.array(flat)
    matrices, others, copied = [], [], []
    for gradient, own in zip(bucket.parts_of(flat), bucket.parts_of(sent)):
        matrix = gradient.reshape(gradient.shape[0], -1) if gradient.ndim > 1 and gradient.size else None
        count = 0 if matrix is None else sum(matrix.shape) * min(state.matrix_approximation_rank, *matrix.shape)
        if matrix is None or count * state.min_compression_rate >= matrix.size:
            others.append((gradient, own))
            count = gradient.size
        else:
            matrices.append(matrix)
            if not gradient.flags.c_contiguous:  # a parameter with channels last, whose gradient is no matrix in memory
                copied.append((gradient, matrix))
        state.total_numel_before_compression += gradient.size
        state.total_numel_after_compression += count
    state.maybe_increase_iter(bucket)
    communicator = communicator_of(state.process_group)
    plain = xp.concatenate([xp.zeros(0, flat.dtype), *(g.reshape(-1) for g, _ in others)])
    plain_work = communicator.all_reduce(plain, "avg", async_op=True)
    yield from _approximate(state, bucket.index(), matrices, communicator)
    for gradient, matrix in copied:
        gradient[...] = matrix.reshape(gradient.shape)
    yield plain_work
    start = 0
    for gradient, own in others:
        stop = start + gradient.size
        gradient[...] = own[...] = plain[start:stop].reshape(gradient.shape)  # nothing of it is lost
        start = stop
    _keep_error(state, bucket.index(), sent, flat)
    return bucket.buffer()


def _as_square(state: PowerSGDState, bucket: GradBucket) -> _Reduction:
    flat = bucket.buffer()._array
    xp = namespace(flat)
    side = ceil(sqrt(flat.size))
    padded = xp.zeros(side * side, flat.dtype)
    padded[: flat.size] = flat
    _add_error(state, bucket.index(), padded)
    sent = xp.array(padded)
    state.total_numel_before_compression += flat.size
    state.total_numel_after_compression += 2 * side * min(state.matrix_approximation_rank, side)
    state.maybe_increase_iter(bucket)
    yield from _approximate(state, bucket.index(), [padded.reshape(side, side)], communicator_of(state.process_group))
    _keep_error(state, bucket.index(), sent, padded)
    flat[...] = padded[: flat.size]
    return bucket.buffer()


def _add_error(state: PowerSGDState, index: int, flat: Any) -> None:
    error = state.error_dict.get(index)
    if state.use_error_feedback and error is not None:
        flat += error._array


def _keep_error(state: PowerSGDState, index: int, sent: Any, received: Any) -> None:
    if state.use_error_feedback:
        sent -= received
        state.error_dict[index] = wrap(sent)


def _approximate(state: PowerSGDState, index: int, matrices: Sequence[Any], communicator: Any) -> Generator[Any, Any, None]:
    """Overwrite matrices, in place, by the approximation of their mean over the ranks."""
    if not matrices:
        return
    xp = namespace(matrices[0])
    dtype = matrices[0].dtype
    wide = "float32" if dtype.itemsize < 4 else dtype  # half types are only sent
    groups = _groups(matrices, state.batch_tensors_with_same_shape)
    shapes = [(len(g), *g[0].shape, min(state.matrix_approximation_rank, *g[0].shape)) for g in groups]
    stacked = [xp.asarray(xp.stack(g) if len(g) > 1 else g[0][None], dtype=wide) for g in groups]

    all_p = xp.empty(sum(k * n * r for k, n, m, r in shapes), dtype)
    ps = _parts(all_p, [(k, n, r) for k, n, m, r in shapes])
    kept = state.q_memory_dict.get(index)
    for i, (p, (k, _, m, r)) in enumerate(zip(ps, shapes)):
        q = xp.asarray(_standard_normal(state, (k, m, r)) if kept is None else kept[i]._array, dtype=wide)
        p[...] = xp.matmul(stacked[i], _orthogonal(xp, q, state.orthogonalization_epsilon))
    yield communicator.all_reduce(all_p, "avg", async_op=True)

    bases = [_orthogonal(xp, xp.asarray(p, dtype=wide), state.orthogonalization_epsilon) for p in ps]
    all_q = xp.empty(sum(k * m * r for k, n, m, r in shapes), dtype)
    qs = _parts(all_q, [(k, m, r) for k, n, m, r in shapes])
    for matrix, p, q in zip(stacked, bases, qs):
        q[...] = xp.matmul(xp.swapaxes(matrix, 1, 2), p)
    yield communicator.all_reduce(all_q, "avg", async_op=True)

    for group, p, q in zip(groups, bases, qs):
        for matrix, approximation in zip(group, xp.matmul(p, xp.swapaxes(xp.asarray(q, dtype=wide), 1, 2))):
            matrix[...] = approximation
    if state.warm_start:
        state.p_memory_dict[index] = [wrap(p) for p in bases]
        state.q_memory_dict[index] = [wrap(q) for q in qs]


def _groups(matrices: Sequence[Any], by_shape: bool) -> list[list[Any]]:
    """Matrices that are multiplied together: those of one shape, or each alone."""
    if not by_shape:
        return [[m] for m in matrices]
    groups: dict[tuple[int, ...], list[Any]] = {}
    for m in matrices:
        groups.setdefault(m.shape, []).append(m)
    return list(groups.values())


def _parts(flat: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    parts, start = [], 0
    for k, rows, columns in shapes:
        stop = start + k * rows * columns
        parts.append(flat[start:stop].reshape(k, rows, columns))
        start = stop
    return parts


def _standard_normal(state: PowerSGDState, shape: tuple[int, ...]) -> Any:
    """The same numbers on all ranks, and others at every call."""
    return randn(*shape, generator=state.rng)._array


def _orthogonal(xp: Any, matrices: Any, epsilon: float) -> Any:
    """Matrices whose columns are orthonormal and span the same space (modified Gram-Schmidt); those that vanish are 0.

    Parameters
    ----------
    matrices : ndarray, shape (k, n, r)
    epsilon : float
        Added to the columns' norms.
    """
    matrices = xp.array(matrices)
    for i in range(matrices.shape[2]):
        column = matrices[:, :, i : i + 1]
        norm = xp.sqrt(xp.sum(column * column, axis=1, keepdims=True)) + epsilon
        column /= xp.where(norm == 0, 1, norm)
        rest = matrices[:, :, i + 1 :]
        rest -= column * xp.sum(column * rest, axis=1, keepdims=True)
    return matrices
