"""Communication hooks: what they are called with, what is made of their results, and the hooks that come along."""

import pickle
import threading

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.algorithms import ddp_comm_hooks
from disttorch.distributed.algorithms.ddp_comm_hooks import debugging_hooks, default_hooks
from disttorch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from disttorch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import (
    PowerSGDState,
    batched_powerSGD_hook,
    powerSGD_hook,
)
from disttorch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from disttorch.distributed.buckets import BuiltinCommHookType, GradBucket
from disttorch.distributed.data_parallel import BufferCommHookLocation
from disttorch.futures import Future
from disttorch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.mpi(min_size=1)

f64 = disttorch.float64
TINY = 1 / 2**20


class Given(nn.Module):
    """A model whose gradients are whatever is given."""

    def __init__(self, shapes, dtype=f64):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(disttorch.zeros(*shape, dtype=dtype)) for shape in shapes)

    def forward(self, gradients):
        return sum((p * disttorch.tensor(g, dtype=p.dtype)).sum() for p, g in zip(self.parts, gradients))


def gradients_of(rank, step, shapes):
    rng = np.random.default_rng([rank, step])
    return [rng.standard_normal(s) for s in shapes]


def mean_gradients(step, shapes):
    ranks = dist.get_world_size()
    return [np.mean(parts, axis=0) for parts in zip(*(gradients_of(r, step, shapes) for r in range(ranks)))]


SHAPES = [(4, 3), (3,), (2, 2, 2)]


def done(tensor):
    future = Future()
    future.set_result(tensor)
    return future


def test_what_a_hook_sees():
    seen = []

    def hook(state, bucket):
        assert state == "state"
        assert isinstance(bucket, GradBucket)
        seen.append((bucket.index(), bucket.is_last(), bucket.buffer().tolist(), [g.shape for g in bucket.gradients()]))
        assert [p.shape for p in bucket.parameters()] == [g.shape for g in bucket.gradients()]
        np.testing.assert_array_equal(np.concatenate([g.numpy().ravel() for g in bucket.gradients()]), bucket.buffer().numpy())
        return done(bucket.buffer())

    hook.synchronizes = False
    model = DistributedDataParallel(Given(SHAPES), bucket_cap_mb=TINY)
    model.register_comm_hook("state", hook)
    own = gradients_of(dist.get_rank(), 0, SHAPES)
    model(own).backward()
    assert [s[:2] for s in seen] == [(0, False), (1, False), (2, True)]
    assert [tuple(s[3][0]) for s in seen] == SHAPES[::-1]
    assert [s[2] for s in seen] == [g.ravel().tolist() for g in own[::-1]]
    assert [p.grad.tolist() for p in model.module.parts] == [g.tolist() for g in own]  # the hook leaves each rank its own


def completed_by_a_callback(bucket, collectives):
    """Nothing but callbacks leads from the collectives, here of zeros, to the future."""
    result, mine = Future(), bucket.buffer().clone()

    def start(left):
        work = dist.all_reduce(disttorch.zeros(bucket.buffer().shape, dtype=f64), async_op=True)
        work.get_future().add_done_callback(
            lambda f: start(left - 1) if left > 1 else result.set_result(f.value()[0] + 2 * mine)
        )

    start(collectives)
    return result


def completed_by_a_thread(bucket):
    result = Future()
    threading.Timer(0.05, lambda: result.set_result(bucket.buffer() * 2)).start()
    return result


RESULTS = [
    ("the bucket itself, changed", lambda b: done(b.buffer().mul_(2))),
    ("another tensor", lambda b: done(b.buffer() * 2)),
    ("completed by a callback", lambda b: completed_by_a_callback(b, 1)),
    ("completed by a callback of what a callback began", lambda b: completed_by_a_callback(b, 2)),
    ("completed by a thread", lambda b: completed_by_a_thread(b)),
    ("a chain of callbacks", lambda b: done(b.buffer()).then(lambda f: f.value() * 4).then(lambda f: f.value() / 2)),
    ("views of it changed", lambda b: [g.mul_(2) for g in b.gradients()] and done(b.buffer())),
]


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize("make", [r[1] for r in RESULTS], ids=[r[0] for r in RESULTS])
def test_what_a_hook_returns_is_taken(make, as_view):
    model = DistributedDataParallel(Given(SHAPES), gradient_as_bucket_view=as_view)
    model.register_comm_hook(None, lambda state, bucket: make(bucket))
    for step in range(3):
        model.zero_grad()
        own = gradients_of(dist.get_rank(), step, SHAPES)
        model(own).backward()
        for p, g in zip(model.module.parts, own):
            np.testing.assert_allclose(p.grad.numpy(), 2 * g, rtol=1e-14)


def test_a_hook_that_calls_collectives_of_the_users_own():
    """As PyTorch's documentation has it: all_reduce, then divide."""

    def hook(state, bucket):
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda f: f.value()[0] / dist.get_world_size())

    model = DistributedDataParallel(Given(SHAPES), bucket_cap_mb=TINY)
    model.register_comm_hook(None, hook)
    for step in range(2):
        model.zero_grad()
        model(gradients_of(dist.get_rank(), step, SHAPES)).backward()
        for p, g in zip(model.module.parts, mean_gradients(step, SHAPES)):
            np.testing.assert_allclose(p.grad.numpy(), g, rtol=1e-12, atol=1e-15)


def wrong_bucket(state, bucket: int):
    return None


def wrong_result(state, bucket) -> int:
    return 1


def one_argument(state):
    return None


def annotated(state: object, bucket: GradBucket) -> Future[disttorch.Tensor]:
    return done(bucket.buffer())


def test_annotations_that_are_right():
    model = DistributedDataParallel(nn.Linear(1, 1))
    model.register_comm_hook(None, annotated)
    model(disttorch.ones(1, 1)).sum().backward()


BAD = [
    (3, TypeError, "must be callable"),
    (wrong_bucket, ValueError, "bucket annotation should be"),
    (wrong_result, ValueError, "return annotation should be"),
    (one_argument, ValueError, "called with a state and a bucket"),
]


@pytest.mark.parametrize(("hook", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_hooks(hook, error, message):
    with pytest.raises(error, match=message):
        DistributedDataParallel(nn.Linear(1, 1)).register_comm_hook(None, hook)


BAD_RESULTS = [
    (lambda b: None, "must return a Future that holds a Tensor, not NoneType"),
    (lambda b: done(3), "elements, not int"),
    (lambda b: done(disttorch.ones(1)), "one Tensor of the bucket's 23 elements, not one of 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD_RESULTS, ids=[b[1] for b in BAD_RESULTS])
def test_bad_results_of_hooks(make, message):
    model = DistributedDataParallel(Given(SHAPES))
    model.register_comm_hook(None, lambda state, bucket: make(bucket))
    with pytest.raises(TypeError, match=message):
        model(gradients_of(0, 0, SHAPES)).backward()
    dist.barrier()


def test_a_future_that_nobody_completes(monkeypatch):
    model = DistributedDataParallel(Given(SHAPES))
    monkeypatch.setattr(model.process_group.lane, "timeout", 0.2)
    model.register_comm_hook(None, lambda state, bucket: Future())
    with pytest.raises(TimeoutError, match=r"not complete after 0.2 s.*must call set_result: .*<lambda>"):
        model(gradients_of(0, 0, SHAPES)).backward()
    dist.barrier()


def test_only_one_hook():
    model = DistributedDataParallel(nn.Linear(1, 1))
    model.register_comm_hook(None, default_hooks.allreduce_hook)
    with pytest.raises(RuntimeError, match="can only be called once"):
        model._register_builtin_comm_hook(BuiltinCommHookType.ALLREDUCE)


def test_set_buffer_is_checked():
    def hook(state, bucket):
        with pytest.raises(ValueError, match=r"the bucket has shape \[23\], the tensor \[2\]"):
            bucket.set_buffer(disttorch.ones(2))
        with pytest.raises(TypeError, match="a Tensor is wanted"):
            bucket.set_buffer([1.0])
        return done(bucket.buffer())

    model = DistributedDataParallel(Given(SHAPES))
    model.register_comm_hook(None, hook)
    model(gradients_of(0, 0, SHAPES)).backward()


TYPES = ddp_comm_hooks.DDPCommHookType
MEANS = [
    # how a hook is registered, and to what precision it gives the mean
    ("allreduce", lambda m: ddp_comm_hooks.register_ddp_comm_hook(TYPES.ALLREDUCE, m), 1e-12),
    ("fp16", lambda m: ddp_comm_hooks.register_ddp_comm_hook(TYPES.FP16_COMPRESS, m), 2e-3),
    ("bf16", lambda m: ddp_comm_hooks.register_ddp_comm_hook(TYPES.BF16_COMPRESS, m), 2e-2),
    ("fp16 of allreduce", lambda m: m.register_comm_hook(None, default_hooks.fp16_compress_wrapper(default_hooks.allreduce_hook)), 2e-3),
    ("bf16 of allreduce", lambda m: m.register_comm_hook(None, default_hooks.bf16_compress_wrapper(default_hooks.allreduce_hook)), 2e-2),
    ("builtin allreduce", lambda m: m._register_builtin_comm_hook(BuiltinCommHookType.ALLREDUCE), 1e-12),
    ("builtin fp16", lambda m: m._register_builtin_comm_hook(BuiltinCommHookType.FP16_COMPRESS), 2e-3),
    ("PowerSGD before it starts", lambda m: ddp_comm_hooks.register_ddp_comm_hook(TYPES.POWER_SGD, m), 1e-12),
    ("post-local SGD before it starts", lambda m: m.register_comm_hook(PostLocalSGDState(None, None, 10), post_localSGD_hook), 1e-12),
    (
        "PowerSGD of full rank",
        lambda m: m.register_comm_hook(PowerSGDState(None, 8, 2, min_compression_rate=1e-3), powerSGD_hook), 1e-9,
    ),
    (
        "PowerSGD of full rank in float16",
        lambda m: m.register_comm_hook(
            PowerSGDState(None, 8, 2, min_compression_rate=1e-3), default_hooks.fp16_compress_wrapper(powerSGD_hook)
        ), 1e-2,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("register", "precision"), [m[1:] for m in MEANS], ids=[m[0] for m in MEANS])
@pytest.mark.parametrize("cap", [TINY, 1.0])
def test_hooks_that_give_the_mean(register, precision, cap):
    model = DistributedDataParallel(Given(SHAPES), bucket_cap_mb=cap)
    register(model)
    for step in range(4):
        model.zero_grad()
        model(gradients_of(dist.get_rank(), step, SHAPES)).backward()
        for p, g in zip(model.module.parts, mean_gradients(step, SHAPES)):
            np.testing.assert_allclose(p.grad.numpy(), g, rtol=precision, atol=precision)
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, p.grad.numpy().tobytes())
            assert all(other == everyone[0] for other in everyone)


def test_float16_is_really_sent():
    model = DistributedDataParallel(Given([(1,)]))
    model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    model([np.array([1 + 2.0**-12])]).backward()
    assert model.module.parts[0].grad.item() == 1  # float16 has 10 bits behind the point


def test_a_hook_without_communication():
    rank = dist.get_rank()
    model = DistributedDataParallel(Given(SHAPES))
    model.register_comm_hook(None, debugging_hooks.noop_hook)
    for _ in range(2 + (rank == 0)):  # also after the others have stopped
        model.zero_grad()
        if model.reducer.passes < 2:
            loss = model(gradients_of(rank, 0, SHAPES))
        else:
            loss = model.module(gradients_of(rank, 0, SHAPES))
        loss.backward()
        assert model.module.parts[0].grad.tolist() == gradients_of(rank, 0, SHAPES)[0].tolist()


# PowerSGD ----------------------------------------------------------------------------------------------------------------


def power_sgd(state_seed, shape, rank, steps, begin, error_feedback=True, warm_start=True, epsilon=0.0):
    """Algorithms 1 and 2 of Vogels et al. 2019 on all ranks' gradients at once: what each step sends, in float64."""
    ranks = dist.get_world_size()
    draw = disttorch.Generator().manual_seed(state_seed)
    errors = [np.zeros(shape) for _ in range(ranks)]
    q = None
    for step in range(begin, steps):
        deltas = [gradients_of(r, step, [shape])[0] + errors[r] for r in range(ranks)]
        if q is None or not warm_start:
            q = disttorch.randn(1, shape[1], rank, generator=draw).numpy()[0].astype(np.float64)
        p, _ = np.linalg.qr(np.mean([d @ q for d in deltas], axis=0))
        q = np.mean([d.T @ p for d in deltas], axis=0)
        if error_feedback:
            errors = [d - p @ q.T for d in deltas]
        yield step, p @ q.T


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("error_feedback", [True, False])
@pytest.mark.parametrize("warm_start", [True, False])
def test_power_sgd_is_the_papers(rank, error_feedback, warm_start):
    shape, begin, steps = (9, 7), 2, 8
    model = DistributedDataParallel(Given([shape, (5,)]))
    state = PowerSGDState(
        None, rank, begin, min_compression_rate=1, use_error_feedback=error_feedback, warm_start=warm_start, random_seed=4
    )
    model.register_comm_hook(state, powerSGD_hook)
    expected = dict(power_sgd(4, shape, rank, steps, begin, error_feedback, warm_start))
    for step in range(steps):
        model.zero_grad()
        bias = np.full(5, float(dist.get_rank() + step))
        model([*gradients_of(dist.get_rank(), step, [shape]), bias]).backward()
        wanted = expected.get(step, mean_gradients(step, [shape])[0])
        np.testing.assert_allclose(model.module.parts[0].grad.numpy(), wanted, rtol=1e-8, atol=1e-10)
        # a vector is not compressed
        np.testing.assert_allclose(model.module.parts[1].grad.numpy(), np.mean(np.arange(dist.get_world_size())) + step)
    sent = (steps - begin) * (16 * rank + 5)
    assert state.compression_stats() == (pytest.approx((steps - begin) * 68 / sent), (steps - begin) * 68, sent)


@pytest.mark.parametrize("hook", [powerSGD_hook, batched_powerSGD_hook])
@pytest.mark.parametrize("error_feedback", [True, False])
def test_error_feedback_loses_nothing_for_good(hook, error_feedback):
    """What has been sent and the mean of what the ranks keep are together all that there was; so, of the same gradient again
    and again, the mean of what is sent comes to it as 1 / steps. Without feedback it does not.
    """
    shapes = [(12, 10), (6, 8)]
    model = DistributedDataParallel(Given(shapes))
    state = PowerSGDState(None, 1, 2, use_error_feedback=error_feedback, min_compression_rate=1)
    model.register_comm_hook(state, hook)
    own, true = gradients_of(dist.get_rank(), 0, shapes), mean_gradients(0, shapes)
    sums = [np.zeros(s) for s in shapes]
    away = {}
    for step in range(2 + 160):
        model.zero_grad()
        model(own).backward()
        steps = step - 1
        if steps < 1:
            continue
        for total, p in zip(sums, model.module.parts):
            total += p.grad.numpy()
        away[steps] = max(np.linalg.norm(total / steps - t) / np.linalg.norm(t) for total, t in zip(sums, true))
        if error_feedback and steps in (1, 2, 80, 160):
            (bucket,) = model.reducer.buckets
            kept = state.error_dict[0].clone()
            dist.all_reduce(kept, dist.ReduceOp.AVG)
            sent = np.concatenate([sums[e.number].ravel() for e in bucket.entries])
            all_of_it = steps * np.concatenate([true[e.number].ravel() for e in bucket.entries])
            np.testing.assert_allclose(sent + kept.numpy()[: sent.size], all_of_it, rtol=1e-9, atol=1e-9)
    if error_feedback:
        assert away[160] < 0.15
        assert away[160] < 0.5 * away[40]  # a quarter, but what is kept is not always the same
    else:
        assert away[160] > 0.5
        assert away[160] > 0.9 * away[40]


def test_matrices_of_one_shape_together_are_as_one_by_one():
    shapes = [(9, 7), (7, 9), (9, 7), (4, 3, 3)]
    results = []
    for together in (False, True):
        model = DistributedDataParallel(Given(shapes))
        state = PowerSGDState(None, 2, 2, min_compression_rate=1, batch_tensors_with_same_shape=together, warm_start=True)
        model.register_comm_hook(state, powerSGD_hook)
        for _ in range(30):
            model.zero_grad()
            model(gradients_of(dist.get_rank(), 0, shapes)).backward()
        assert state.iter == 30
        results.append([p.grad.numpy() for p in model.module.parts])
        assert all(np.isfinite(g).all() for g in results[-1])
    # they begin with other random numbers, and come to the same subspaces
    for g, true in zip(results[1], mean_gradients(0, shapes)):
        assert np.linalg.matrix_rank(g.reshape(len(g), -1), tol=1e-9) <= 2
        assert np.linalg.norm(g) < 3 * np.linalg.norm(true)


def test_gradients_of_zeros_stay_zeros():
    model = DistributedDataParallel(Given([(9, 7)]))
    model.register_comm_hook(PowerSGDState(None, 2, 2, min_compression_rate=1), powerSGD_hook)
    for _ in range(4):
        model.zero_grad()
        model([np.zeros((9, 7))]).backward()
        assert not model.module.parts[0].grad.numpy().any()


def test_the_state_of_power_sgd():
    for options, message in (
        ({"start_powerSGD_iter": 1}, "Expect `start_powerSGD_iter` > 1"),
        ({"matrix_approximation_rank": 0}, "the rank must be at least 1"),
        ({"min_compression_rate": 0}, "the rate greater than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PowerSGDState(None, **options)
    state = PowerSGDState(None, 2, 1, use_error_feedback=False, warm_start=False, random_seed=5)
    again = pickle.loads(pickle.dumps(state))
    assert again.process_group is dist.group.WORLD
    assert again.matrix_approximation_rank == 2
    first, second = (disttorch.randn(3, generator=s.rng).tolist() for s in (state, again))
    assert first == second


@pytest.mark.parametrize("as_view", [True, False])
def test_training_with_power_sgd_learns(as_view):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64 * ranks, 16))
    y = x @ rng.standard_normal((16, 4))
    disttorch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4)).double(), gradient_as_bucket_view=as_view)
    model.register_comm_hook(PowerSGDState(None, 1, 5, min_compression_rate=1), powerSGD_hook)
    optimizer = disttorch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    part = slice(64 * rank, 64 * rank + 64)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = ((model(disttorch.tensor(x[part])) - disttorch.tensor(y[part])) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


# Post-local SGD ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", ["nothing", "alone", "node"])
def test_post_local_sgd(later):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    groups = [dist.new_group([r]) for r in range(ranks)]
    state = PostLocalSGDState(None, groups[rank] if later == "alone" else None, 2, later != "nothing")
    model = DistributedDataParallel(Given(SHAPES), bucket_cap_mb=TINY)
    model.register_comm_hook(state, post_localSGD_hook)
    for step in range(4):
        model.zero_grad()
        own = gradients_of(rank, step, SHAPES)
        model(own).backward()
        # all ranks of a test are on one node
        expected = mean_gradients(step, SHAPES) if step < 2 or later == "node" else own
        for p, g in zip(model.module.parts, expected):
            np.testing.assert_allclose(p.grad.numpy(), g, rtol=1e-12, atol=1e-15)
    assert state.iter == 4
    dist.destroy_process_group(groups[rank])


def test_models_are_averaged_from_time_to_time():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    layer = nn.Linear(2, 2).double()
    layer.unused = nn.Parameter(disttorch.zeros(1))
    averager = PeriodicModelAverager(period=2, warmup_steps=1)
    optimizer = disttorch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(4):
        for p in layer.parameters():
            p.data.fill_(float(rank))
        for p in (layer.weight, layer.bias):
            p.grad = disttorch.zeros_like(p)
        averager.average_parameters(layer.parameters() if step < 2 else optimizer.param_groups)
        expected = (ranks - 1) / 2 if step in (1, 3) else rank
        assert layer.weight.tolist() == [[expected] * 2] * 2
        assert layer.unused.item() == rank  # has no gradient
    assert averager.step == 4
    optimizer.zero_grad()
    averager.average_parameters(optimizer.param_groups)  # not in this step
    with pytest.raises(ValueError, match=r"no parameter has a gradient.*zero_grad\(\)"):
        averager.average_parameters(optimizer.param_groups)
    with pytest.raises(ValueError, match="``period`` must be a positive"):
        PeriodicModelAverager(0)
    with pytest.raises(ValueError, match="``warmup_steps`` must be a non-negative"):
        PeriodicModelAverager(1, -1)


# Buffers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", list(BufferCommHookLocation))
def test_a_hook_for_buffers(where):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    called = []

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.register_buffer("seen", disttorch.zeros(1))

        def forward(self, x):
            called.append("forward")
            self.seen += rank
            return self.layer(x)

    def add_up(state, buffers):
        called.append(state)
        assert list(buffers) == ["seen"]
        return [dist.all_reduce(b, async_op=True).get_future() for b in buffers.values()]

    model = DistributedDataParallel(Counts())
    model._register_buffer_comm_hook("hook", add_up, where)
    model(disttorch.ones(1, 1)).sum().backward()
    before = where is BufferCommHookLocation.PRE_FORWARD
    assert called == (["hook", "forward"] if before else ["forward", "hook"])
    if not before:
        assert model.module.seen.item() == sum(range(ranks))
