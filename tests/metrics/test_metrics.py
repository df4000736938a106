"""Metrics against formulas in NumPy on the samples of all ranks joined, with uneven shares, on any number of ranks."""

import functools
import math
import operator
import time

import numpy as np
import pytest

import disttorch as torch
import disttorch.distributed as dist
from disttorch import metrics
from disttorch.metrics import (
    Accuracy,
    ConfusionMatrix,
    F1Score,
    Mean,
    MetricCollection,
    Precision,
    R2Score,
    Recall,
    Throughput,
)

CLASSES, SAMPLES = 5, 203
AVERAGES = ["micro", "macro", "weighted", None]


@pytest.fixture(params=["alone", pytest.param("ranks", marks=pytest.mark.mpi(min_size=1))])
def ranks(request):
    """(rank, number of ranks): without a process group, or in the world's."""
    if request.param == "alone":
        yield 0, 1
        return
    dist.init_process_group()
    yield dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()


def data():
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((SAMPLES, CLASSES)), 1)  # with ties
    scores[:, 4] -= 9  # a class that nothing is taken for
    target = rng.integers(0, 5, SAMPLES)
    target[target == 2] = 1  # and one that nothing is of
    return scores, target


def share(ranks, *arrays):
    """Batches of this rank's part: the first rank has the most, and of three ranks or more the last has none."""
    rank, count = ranks
    cuts = [SAMPLES * (count - 1 - r) // (2 * count) if r else 0 for r in range(count)]
    cuts = sorted(SAMPLES - c for c in cuts if c)
    begin, end = ([0, *cuts][rank], [*cuts, SAMPLES][rank]) if rank <= len(cuts) else (SAMPLES, SAMPLES)
    for start in range(begin, end, 37):
        yield [torch.tensor(a[start : min(start + 37, end)]) for a in arrays]


def counted(ranks, metric, *arrays):
    for batch in share(ranks, *arrays):
        metric.update(*batch)
    return metric.compute()


def test_the_shares_are_all_samples():
    for count in (1, 2, 3, 4):
        rows = [b.tolist() for rank in range(count) for (b,) in share((rank, count), np.arange(SAMPLES))]
        assert sorted(functools.reduce(operator.iadd, rows, [])) == list(range(SAMPLES))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy(ranks, k):
    scores, target = data()
    order = np.argsort(-scores, 1, kind="stable")[:, :k]
    expected = np.mean((order == target[:, None]).any(1))
    assert counted(ranks, Accuracy(k), scores, target).item() == pytest.approx(expected, abs=1e-15)
    kept = target != 1
    expected = np.mean((order == target[:, None]).any(1)[kept])
    assert counted(ranks, Accuracy(k, ignore_index=1), scores, target).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_confusion(ranks, normalize):
    scores, target = data()
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(counts, (target, scores.argmax(1)), 1)
    whole = {None: 1, "true": counts.sum(1, keepdims=True), "pred": counts.sum(0, keepdims=True), "all": counts.sum()}
    found = counted(ranks, ConfusionMatrix(CLASSES, normalize), scores, target)
    np.testing.assert_allclose(found.numpy(), counts / np.maximum(whole[normalize], 1), rtol=1e-15)
    assert found.dtype == (torch.int64 if normalize is None else torch.float64)


def by_formula(kind, pred, target, average):
    """Precision, recall and F1 as scikit-learn defines them, in loops."""

    def one(right, taken, there):
        if kind == "precision":
            return right / taken if taken else 0.0
        if kind == "recall":
            return right / there if there else 0.0
        return 2 * right / (taken + there) if taken + there else 0.0

    rows = [(np.sum((pred == c) & (target == c)), np.sum(pred == c), np.sum(target == c)) for c in range(CLASSES)]
    if average == "micro":
        return one(*np.sum(rows, 0))
    each = [one(*row) for row in rows]
    if average is None:
        return each
    if average == "weighted":
        return np.average(each, weights=[there for _, _, there in rows])
    return np.mean([e for e, (_, taken, there) in zip(each, rows, strict=True) if taken or there])


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("metric", "kind"), [(Precision, "precision"), (Recall, "recall"), (F1Score, "f1")])
def test_ratios_by_class(ranks, metric, kind, average):
    scores, target = data()
    found = counted(ranks, metric(CLASSES, average), scores, target)
    np.testing.assert_allclose(found.numpy(), by_formula(kind, scores.argmax(1), target, average), rtol=1e-14)


def test_numbers(ranks):
    rng = np.random.default_rng(1)
    target = 1e6 + rng.standard_normal(SAMPLES)
    pred = target + 0.3 * rng.standard_normal(SAMPLES)
    error = pred - target
    expected = {
        "mse": np.mean(error**2),
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "r2": 1 - np.sum(error**2) / np.sum((target - target.mean()) ** 2),
    }
    found = counted(
        ranks,
        MetricCollection(
            mse=metrics.MeanSquaredError(), rmse=metrics.MeanSquaredError(squared=False), mae=metrics.MeanAbsoluteError(), r2=R2Score()
        ),
        pred,
        target,
    )
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-9)


def test_means(ranks):
    rng = np.random.default_rng(2)
    values, weights = rng.standard_normal(SAMPLES), rng.random(SAMPLES)
    assert counted(ranks, Mean(), values, weights).item() == pytest.approx(np.average(values, weights=weights), rel=1e-12)
    logits, target = data()
    target = np.where(target == 1, -100, target)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    kept = target != -100
    expected = math.exp(-np.mean(log_p[kept, target[kept]]))
    assert counted(ranks, metrics.Perplexity(), logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_throughput_is_of_the_slowest_rank(ranks):
    rank, count = ranks
    speed = Throughput()
    time.sleep(0.02 * (rank + 1))
    speed.update(10)
    speed.pause()
    seconds = speed.state_dict()["seconds"].item()
    slowest = torch.tensor(seconds, dtype=torch.float64)
    if count > 1:
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
    time.sleep(0.05)  # not counted
    assert speed.compute().item() == pytest.approx(10 * count / slowest.item())
    assert seconds >= 0.02 * (rank + 1)


def test_in_the_middle_of_an_epoch_and_again(ranks):
    """Computing changes nothing, and a saved state goes on where it was."""
    scores, target = data()
    whole = Accuracy()
    expected = counted(ranks, whole, scores, target).item()
    assert whole.compute().item() == expected
    first, batches = Accuracy(), list(share(ranks, scores, target))
    for batch in batches[:1]:
        first.update(*batch)
    first.compute()
    second = Accuracy()
    second.load_state_dict(first.state_dict())
    for batch in batches[1:]:
        second.update(*batch)
    assert second.compute().item() == expected
    second.reset()
    assert math.isnan(second.compute().item())


@pytest.mark.mpi(min_size=1)
def test_a_collection_reduces_once(monkeypatch):
    dist.init_process_group()
    calls = []
    reduce = dist.all_reduce
    monkeypatch.setattr(dist, "all_reduce", lambda *a, **k: calls.append(1) or reduce(*a, **k))
    scores, target = data()
    collection = MetricCollection(a=Accuracy(), f=F1Score(CLASSES), c=ConfusionMatrix(CLASSES))
    counted((dist.get_rank(), dist.get_world_size()), collection, scores, target)
    assert len(calls) == (dist.get_world_size() > 1)
    dist.destroy_process_group()


def test_shapes_of_predictions():
    right = Accuracy()
    right.update(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]))  # probabilities
    right.update(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))  # (N, C, d)
    assert right.compute().item() == 1 and right.state_dict()["count"].item() == 10
    scores = torch.tensor([[math.nan, 0.0], [0.0, math.nan]])
    lost = Accuracy(2)
    lost.update(scores, torch.tensor([0, 1]))
    assert lost.compute().item() == 0


REFUSED = [
    (lambda: Accuracy(0), ValueError, "top_k must be 1 or more, got 0"),
    (lambda: Accuracy(2).update(torch.zeros(3), torch.zeros(3)), ValueError, "top_k=2 needs scores"),
    (lambda: Accuracy().update(torch.zeros(3, 2), torch.zeros(4)), ValueError, r"\[3, 2\] for targets of shape \[4\]"),
    (lambda: ConfusionMatrix(2).update(torch.tensor([2]), torch.tensor([0])), ValueError, "prediction is between 0 and 1, got 2 to 2"),
    (lambda: ConfusionMatrix(2, "rows"), ValueError, "normalize must be"),
    (lambda: F1Score(2, "mean"), ValueError, "average must be one of"),
    (lambda: MetricCollection(), ValueError, "one process group"),
    (lambda: Mean().load_state_dict({"x": torch.zeros(())}), KeyError, "its sums are"),
    (lambda: R2Score().update(torch.zeros(2), torch.zeros(3)), ValueError, r"\[2\] for targets of shape \[3\]"),
    (lambda: metrics.Perplexity().update(torch.zeros(2, 3), torch.zeros(3)), ValueError, "expected"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
