"""Training in which ranks run out of inputs at different times."""

import pickle

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from disttorch.distributed.algorithms.join import Join, Joinable, JoinHook
from disttorch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.mpi(min_size=1)

f64 = disttorch.float64
TINY = 1 / 2**20
LR = 0.1


def inputs_of(rank, first_most=False):
    """Rank r has 2 + 2 r of them; or the first rank the most."""
    count = 2 + 2 * ((dist.get_world_size() - 1 - rank) if first_most else rank)
    return [np.random.default_rng([rank, i]).standard_normal((2, 3)) for i in range(count)]


def net():
    disttorch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def by_hand(by_initial, first_most):
    """The same training in one process: the sum of the gradients of the ranks that have inputs, divided by a number of ranks."""
    ranks = dist.get_world_size()
    model = net()
    everything = [inputs_of(r, first_most) for r in range(ranks)]
    for step in range(max(len(i) for i in everything)):
        active = [i[step] for i in everything if step < len(i)]
        model.zero_grad()
        for x in active:
            (model(disttorch.tensor(x)) ** 2).sum().backward()
        with disttorch.no_grad():
            for p in model.parameters():
                p -= LR * p.grad / (ranks if by_initial else len(active))
    return model


OPTIONS = [
    {}, {"bucket_cap_mb": TINY}, {"find_unused_parameters": True}, {"static_graph": True},
    {"gradient_as_bucket_view": False, "bucket_cap_mb": TINY},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("by_initial", [True, False])
@pytest.mark.parametrize("first_most", [True, False])
def test_trains_with_uneven_inputs(options, by_initial, first_most):
    model = DistributedDataParallel(net(), **options)
    with model.join(divide_by_initial_world_size=by_initial):
        for x in inputs_of(dist.get_rank(), first_most):
            model.zero_grad()
            (model(disttorch.tensor(x)) ** 2).sum().backward()
            with disttorch.no_grad():
                for p in model.parameters():
                    p -= LR * p.grad
    for found, expected in zip(model.parameters(), by_hand(by_initial, first_most).parameters()):
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-9)
    # afterwards everything is as before
    model.zero_grad()
    model(disttorch.ones(1, 3, dtype=f64)).sum().backward()
    assert model.module[2].bias.grad.item() == pytest.approx(1)


ORDERS = {
    "both forward, then both backward": lambda a, b, x: ((a(x) ** 2).sum() + (b(x) ** 2).sum()).backward(),
    "one after the other": lambda a, b, x: ((a(x) ** 2).sum().backward(), (b(x) ** 2).sum().backward()),
    "backward in the order of forward": lambda a, b, x: [loss.backward() for loss in [(a(x) ** 2).sum(), (b(x) ** 2).sum()]],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2], OPTIONS[4]], ids=str)
@pytest.mark.parametrize("by_initial", [True, False])
def test_two_models_in_one_block(order, options, by_initial):
    both = [DistributedDataParallel(net(), **options) for _ in range(2)]
    both[1](disttorch.ones(1, 3, dtype=f64)).sum().backward()  # its buckets are there already
    for _ in range(2):  # the second time each has what it needs
        for model in both:
            model.module.load_state_dict(net().state_dict())
        with Join(both, divide_by_initial_world_size=by_initial):
            for x in inputs_of(dist.get_rank()):
                for model in both:
                    model.zero_grad()
                ORDERS[order](*both, disttorch.tensor(x))
                with disttorch.no_grad():
                    for p in [p for model in both for p in model.parameters()]:
                        p -= LR * p.grad
        expected = by_hand(by_initial, False)
        for model in both:
            for found, wanted in zip(model.parameters(), expected.parameters()):
                np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-9)
    again = pickle.loads(pickle.dumps(both[1]))
    again(disttorch.ones(1, 3, dtype=f64)).sum().backward()
    assert again.module[2].bias.grad.item() == pytest.approx(1)


def test_ranks_without_any_input():
    rank = dist.get_rank()
    model = DistributedDataParallel(net(), bucket_cap_mb=TINY)
    last = dist.get_world_size() - 1
    with model.join(divide_by_initial_world_size=False):
        for _ in range(3 if rank == last else 0):
            model.zero_grad()
            model(disttorch.ones(1, 3, dtype=f64)).sum().backward()
    if rank == last:
        assert model.module[2].bias.grad.item() == pytest.approx(1)
    assert model.reducer.passes == 3


def test_accumulation_inside():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False).double())
    with model.join():
        for _ in range(1 + (rank == 0)):
            model.zero_grad()
            with model.no_sync():
                model(disttorch.ones(1, 1, dtype=f64)).sum().backward()
            model(disttorch.ones(1, 1, dtype=f64)).sum().backward()
    if rank == 0:
        assert model.module.weight.grad.item() == pytest.approx(2 / ranks)  # of the last pass, which only rank 0 had


def test_buffers_are_those_of_a_rank_with_inputs():
    rank = dist.get_rank()
    model = DistributedDataParallel(nn.BatchNorm1d(1, momentum=1.0).double())
    with model.join():
        for step in range(1 + (rank == 0) * 2):
            model(disttorch.tensor([[float(step)], [step + 2.0]], dtype=f64) + 10 * rank).sum().backward()
    # the last to go on was rank 0, in its third step
    assert model.module.running_mean.item() == pytest.approx(3)


def test_with_a_hook():
    rank = dist.get_rank()
    model = DistributedDataParallel(net(), bucket_cap_mb=TINY)
    model.register_comm_hook(None, fp16_compress_hook)
    with model.join():
        for _ in range(1 + rank):
            model.zero_grad()
            model(disttorch.ones(1, 3, dtype=f64)).sum().backward()
    if rank == dist.get_world_size() - 1:
        assert model.module[2].bias.grad.item() == pytest.approx(1 / dist.get_world_size(), rel=1e-3)


@pytest.mark.mpi(min_size=2)
def test_early_termination_is_thrown_on_all_ranks():
    rank = dist.get_rank()
    model = DistributedDataParallel(net())
    done = 0
    message = "Rank 0 exhausted all inputs" if rank == 0 else "Detected at least one rank that exhausted inputs"
    with pytest.raises(RuntimeError, match=message), model.join(throw_on_early_termination=True):
        for _ in range(2 if rank == 0 else 5):
            model(disttorch.ones(1, 3, dtype=f64)).sum().backward()
            done += 1
    assert done == 2
    model(disttorch.ones(1, 3, dtype=f64)).sum().backward()


def test_even_inputs_and_no_join_at_all():
    model = DistributedDataParallel(net())
    for enable in (True, False):
        with model.join(enable=enable):
            model(disttorch.ones(1, 3, dtype=f64)).sum().backward()


def test_an_error_inside_is_not_hidden():
    model = DistributedDataParallel(net())
    with pytest.raises(ZeroDivisionError), model.join():
        1 / 0  # noqa: B018
    assert not model._join_config.enable


class Counter(Joinable):
    """Adds up, over all ranks, how many inputs there are: what PyTorch's tutorial on the generic Join does."""

    def __init__(self, group=None):
        super().__init__()
        self.total = 0
        self.last = None
        self.group = group or dist.group.WORLD

    def count(self, n=1):
        Join.notify_join_context(self)
        ones = disttorch.full((1,), n, dtype=disttorch.int64)
        dist.all_reduce(ones, group=self.group)
        self.total += ones.item()

    def join_hook(self, **kwargs):
        return CounterHook(self, kwargs.get("sync", False))

    @property
    def join_device(self):
        return disttorch.device("cpu")

    @property
    def join_process_group(self):
        return self.group


class CounterHook(JoinHook):
    def __init__(self, counter, sync):
        self.counter, self.sync = counter, sync

    def main_hook(self):
        dist.all_reduce(disttorch.zeros(1, dtype=disttorch.int64))

    def post_hook(self, is_last_joiner):
        self.counter.last = is_last_joiner
        if self.sync:
            total = disttorch.tensor([self.counter.total])
            dist.all_reduce(total, dist.ReduceOp.MAX)
            self.counter.total = total.item()


def test_joinables_of_the_users_own():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    first, second = Counter(), Counter()
    with Join([first, second], sync=True):
        for _ in range(1 + rank):
            first.count()
            second.count(2)
    assert first.total == sum(range(1, ranks + 1))
    assert second.total == 2 * first.total
    assert first.last == (rank == ranks - 1)


def test_long_waits_are_said():
    from disttorch.distributed.algorithms import join

    rank = dist.get_rank()
    counter = Counter()
    before, join.WARN_AFTER = join.WARN_AFTER, 3
    try:
        if rank == 0 and dist.get_world_size() > 1:
            with pytest.warns(UserWarning, match="rank 0 has at least 3 fewer inputs"), Join([counter]):
                pass
        else:
            with Join([counter]):
                for _ in range(6):
                    counter.count()
    finally:
        join.WARN_AFTER = before


def test_bad_use():
    with pytest.raises(ValueError, match="at least one joinable"):
        Join([])
    group = dist.new_group()
    with pytest.raises(ValueError, match="multiple process groups"):
        Join([Counter(), Counter(group)])
    dist.destroy_process_group(group)
    with pytest.raises(AssertionError, match="calls the ``Joinable`` constructor"):
        Join.notify_join_context(object())
