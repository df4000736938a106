"""What the reducer says about parameters that have changed, gradients that arrive when they must not, and those that do not arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .buckets import Entry
from .model_state import said

__all__ = ["check_parameters", "missing_gradients", "unexpected_gradient"]


def check_parameters(entries: Sequence[Entry], rank: int, may_be_unused: bool) -> list[Entry]:
    """Refuse parameters that have changed since the model was wrapped.

    Returns
    -------
    list of Entry
        Those that were frozen for a while, and ask for their gradients by another node now.

    Raises
    ------
    RuntimeError
        If one has another shape or dtype, or, unless it `may_be_unused`, asks for no gradient any more while others do.
    """
    changed, frozen, back = [], [], []
    for e in entries:
        p = e.parameter
        if p._array.shape != e.shape or p._array.dtype != e.dtype:
            changed.append(f"{e.name} (was {e.dtype} of shape {list(e.shape)}, is {p._array.dtype} of shape {list(p._array.shape)})")
        elif p._node is None:
            if not e.is_delayed:
                frozen.append(e.name)
        elif p._node is not e.node:
            back.append(e)
    where = f"DistributedDataParallel: on rank {rank}"
    if changed:
        raise RuntimeError(f"{where} parameters have changed since the model was wrapped; wrap it again: {said(changed)}")
    if frozen and not may_be_unused and len(frozen) < sum(not e.is_delayed for e in entries):
        raise RuntimeError(
            f"{where} requires_grad of {len(frozen)} parameter(s) was switched off after the model was wrapped; wrap it again, "
            f"or use find_unused_parameters=True: {said(frozen)}"
        )
    return back


def unexpected_gradient(e: Entry, static: bool) -> RuntimeError:
    """Why a gradient must not arrive now."""
    if static:
        return RuntimeError(
            f"DistributedDataParallel: the gradient of {e.name} arrived {e.firings - e.left} time(s) in one backward pass, but "
            f"{e.firings} time(s) in the first; with static_graph=True all passes must be alike"
        )
    if e.is_left_out:
        return RuntimeError(
            f"DistributedDataParallel: a gradient arrived for {e.name}, which the graph of this backward pass does not reach. "
            "A backward inside of a backward hides parameters: use checkpoint(..., use_reentrant=False), or static_graph=True"
        )
    if e.bucket is None:
        return RuntimeError(
            f"DistributedDataParallel: a gradient arrived for {e.name}, which no rank used in the first pass; "
            "skip_all_reduce_unused_params=True is for parameters that are never used"
        )
    return RuntimeError(
        f"DistributedDataParallel: the gradient of {e.name} arrived a second time in one backward pass. A backward inside of a "
        "backward, such as that of reentrant checkpoints of a layer that is used twice, needs static_graph=True"
    )


def missing_gradients(missing: Iterable[tuple[int, Sequence[str]]], size: int, static: bool) -> RuntimeError:
    """Which parameters got no gradient on which rank.

    Parameters
    ----------
    missing : iterable of (rank, names)
    size : int
        The number of ranks.
    static : bool
        Whether all passes must be like the first.

    Examples
    --------
    >>> str(missing_gradients([(0, ["a"]), (2, ["a"])], 3, static=True)).split(": ", 1)[1]
    '1 parameter(s) got no gradient in this backward pass on ranks 0, 2: a. With static_graph=True all passes must be alike.'
    """
    by_names: dict[tuple[str, ...], list[str]] = {}
    for rank, names in missing:
        by_names.setdefault(tuple(names), []).append(str(rank))
    where = "; ".join(
        f"{len(names)} parameter(s) got no gradient in this backward pass on {_words(ranks, size)}: {said(names)}"
        for names, ranks in by_names.items()
    )
    advice = (
        "With static_graph=True all passes must be alike"
        if static
        else "If that is meant, use find_unused_parameters=True; else see that all parameters take part in computing the loss"
    )
    return RuntimeError(f"DistributedDataParallel: {where}. {advice}.")


def _words(ranks: Sequence[str], size: int) -> str:
    if len(ranks) == size > 1:
        return "every rank"
    return f"rank{'s' if len(ranks) > 1 else ''} {said(ranks)}"
