"""Connectionist temporal classification: the probability of a label sequence over all its alignments with an input.

Graves et al., "Connectionist temporal classification", ICML 2006. A label sequence l of length S is extended by blanks to
l' = (blank, l1, blank, l2, ..., blank) of length L = 2S + 1. alpha[t, s] is the logarithm of the probability of all ways to
have passed s of l' at time t, beta[t, s] of all ways from there to the end; both count the output at time t.

What is impossible has the logarithm `IMPOSSIBLE` and not -inf, so that no difference of two is nan, and the recursions are
differentiable everywhere. One step of a recursion is the same for all samples and all places; the only loop is over time.
"""

from __future__ import annotations

from typing import Any

from . import kernel

__all__ = ["ctc_loss", "ctc_loss_backward"]

#: so far below all that is possible that nothing is left of it, and far from overflow after any number of steps
IMPOSSIBLE = -1e30


def _extended(xp: Any, targets: Any, target_lengths: Any, blank: int) -> tuple[Any, Any, Any]:
    """The extended labels (N, L); which places belong to a sample's sequence; and which may be reached from two before."""
    count, longest = targets.shape
    places = xp.arange(2 * longest + 1)
    if longest:
        label = xp.where(places % 2 == 1, targets[:, xp.minimum(places // 2, longest - 1)], blank)
    else:
        label = xp.zeros((count, 1), targets.dtype) + blank
    inside = places < 2 * target_lengths[:, None] + 1
    # a blank between two labels can be left out unless they are the same
    differs = label[:, 2:] != label[:, :-2] if longest else label[:, :0] != 0
    never = xp.zeros((count, min(2, 2 * longest + 1)), bool)
    skips = xp.concatenate((never, xp.logical_and(differs, places[2:] % 2 == 1)), axis=1)
    return label, inside, skips


def _sum3(xp: Any, a: Any, b: Any, c: Any) -> Any:
    """log(exp(a) + exp(b) + exp(c))"""
    top = xp.maximum(xp.maximum(a, b), c)
    return xp.log(xp.exp(a - top) + xp.exp(b - top) + xp.exp(c - top)) + top


def _emissions(xp: Any, log_probs: Any, label: Any, inside: Any) -> Any:
    """The logarithm of the probability of each place's label at each time, (T, N, L)."""
    index = xp.broadcast_to(label[None], (log_probs.shape[0], *label.shape))
    found = xp.take_along_axis(log_probs, index, axis=2)
    return xp.where(inside[None], xp.maximum(found, xp.full_like(found, IMPOSSIBLE)), IMPOSSIBLE)


def _shifted(xp: Any, row: Any, by: int) -> Any:
    """``row[:, s - by]`` at s, and the impossible where there is none; `by` may be negative."""
    size = min(abs(by), row.shape[1])
    edge = xp.zeros((row.shape[0], size), row.dtype) + IMPOSSIBLE
    if by > 0:
        return xp.concatenate((edge, row[:, : row.shape[1] - size]), axis=1)
    return xp.concatenate((row[:, size:], edge), axis=1)


def _recursion(xp: Any, emissions: Any, starts: Any, from_two: Any, backward: bool) -> list[Any]:
    """The rows alpha[t] (or beta[t], in the order of time).

    Parameters
    ----------
    emissions : array (T, N, L)
    starts : array (T, N, L) of bool
        Where and when ways may begin (end, for beta).
    from_two : array (N, L) of bool
        Which places may be reached over a left-out blank.
    """
    by = -1 if backward else 1
    times = range(emissions.shape[0])
    rows: list[Any] = []
    for t in reversed(times) if backward else times:
        begin = xp.where(starts[t], 0.0, IMPOSSIBLE)
        if rows:
            before = rows[-1]
            two = xp.where(from_two, _shifted(xp, before, 2 * by), IMPOSSIBLE)
            begin = xp.where(starts[t], 0.0, _sum3(xp, before, _shifted(xp, before, by), two))
        rows.append(xp.maximum(xp.asarray(begin, dtype=emissions.dtype) + emissions[t], xp.full_like(emissions[t], 2 * IMPOSSIBLE)))
    return rows[::-1] if backward else rows


@kernel
def ctc_loss(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int
) -> tuple[Any, Any]:
    """The loss of each sample, as https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html.

    Parameters
    ----------
    log_probs : array (T, N, C)
    targets : integer array (N, S)
        What is behind a sample's own length is not looked at, but must be a class.
    input_lengths, target_lengths : integer array (N,)
    blank : int

    Returns
    -------
    losses : array (N,)
        Infinite where a target does not fit into its input.
    alpha : array (T, N, L)
    """
    label, inside, skips = _extended(xp, targets, target_lengths, blank)
    emissions = _emissions(xp, log_probs, label, inside)
    if not log_probs.shape[0]:
        alpha = emissions
        likelihood = xp.where(target_lengths == 0, xp.zeros(target_lengths.shape, log_probs.dtype), IMPOSSIBLE)
    else:
        times, places = xp.arange(log_probs.shape[0])[:, None, None], xp.arange(label.shape[1])
        starts = xp.broadcast_to(xp.logical_and(times == 0, places < 2), emissions.shape)
        alpha = xp.stack(_recursion(xp, emissions, starts, skips, False))
        last = xp.maximum(input_lengths - 1, 0)[None, :, None]
        final = xp.take_along_axis(alpha, xp.broadcast_to(last, (1, *label.shape)), axis=0)[0]
        ends = _ends(xp, label.shape[1], target_lengths)
        final = xp.where(ends, final, IMPOSSIBLE)
        top = xp.max(final, axis=1, keepdims=True)
        likelihood = (xp.log(xp.sum(xp.exp(final - top), axis=1, keepdims=True)) + top)[:, 0]
        empty = xp.where(target_lengths == 0, 0.0, IMPOSSIBLE)
        likelihood = xp.where(input_lengths == 0, empty, likelihood)
    losses = xp.where(likelihood < IMPOSSIBLE / 2, float("inf"), -likelihood)
    return xp.asarray(losses, dtype=log_probs.dtype), alpha


def _ends(xp: Any, places: int, target_lengths: Any) -> Any:
    """The places where a sequence may end, (N, L): its last label and the blank behind it."""
    place, end = xp.arange(places), 2 * target_lengths[:, None]
    return xp.logical_or(place == end, place == end - 1)


@kernel
def ctc_loss_backward(
    xp: Any,
    g: Any,
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    losses: Any,
    alpha: Any,
    blank: int,
    zero_infinity: bool,
) -> Any:
    """The gradient (T, N, C) at the log probabilities of `ctc_loss`, for the gradient `g` (N,) at the losses.

    As in PyTorch it is that at the logits of a log_softmax, ``exp(log_probs) - posterior``: what log_softmax makes of
    ``-posterior``, the derivative proper, and of it is the same.
    """
    if not log_probs.shape[0]:
        return xp.zeros_like(log_probs)
    steps, _, classes = log_probs.shape
    label, inside, skips = _extended(xp, targets, target_lengths, blank)
    emissions = _emissions(xp, log_probs, label, inside)
    times = xp.arange(steps)[:, None, None]
    last = times == input_lengths[None, :, None] - 1
    ends = xp.logical_and(last, _ends(xp, label.shape[1], target_lengths)[None])
    over_two = xp.concatenate((skips[:, 2:], skips[:, : min(2, skips.shape[1])] & False), axis=1)
    beta = xp.stack(_recursion(xp, emissions, ends, over_two, True))
    infinite = xp.isinf(losses)
    finite = xp.where(infinite, xp.zeros_like(losses), losses)[None, :, None]
    within = xp.logical_and(xp.logical_and(inside[None], times < input_lengths[None, :, None]), xp.logical_not(infinite)[None, :, None])
    exponent = xp.where(within, alpha + beta - emissions + finite, IMPOSSIBLE)
    ways = xp.swapaxes(xp.exp(exponent), 0, 1)  # (N, T, L)
    # blanks are every second place; a label's class collects all its places
    blanks = xp.sum(ways[:, :, 0::2], axis=2)[:, :, None] * xp.asarray(xp.arange(classes) == blank, dtype=ways.dtype)
    chosen = xp.asarray(targets[:, :, None] == xp.arange(classes), dtype=ways.dtype)
    posterior = xp.swapaxes(xp.matmul(ways[:, :, 1::2], chosen) + blanks, 0, 1)
    unknown = 0.0 if zero_infinity else float("nan")
    grad = xp.where(infinite[None, :, None], unknown, xp.exp(log_probs) - posterior) * g[None, :, None]
    return xp.where(times < input_lengths[None, :, None], grad, 0.0)
