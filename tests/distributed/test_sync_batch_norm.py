"""SyncBatchNorm against batch normalization of the joined batch, on whatever number of ranks the job has."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn

pytestmark = pytest.mark.mpi(min_size=1)


def joined(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(1.5, 2.0, shape).astype(dtype)


def part(array, counts):
    """This rank's samples of the joined batch."""
    start = sum(counts[: dist.get_rank()])
    return array[start : start + counts[dist.get_rank()]]


def by_formula(x, g, weight, bias, eps):
    """Result and gradients of normalizing the joined batch, in float64."""
    x, g = x.astype(np.float64), g.astype(np.float64)
    axes, column = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    mean, var = x.mean(axes), x.var(axes)
    rstd = 1 / np.sqrt(var + eps)
    h = (x - mean.reshape(column)) * rstd.reshape(column)
    out = h * weight.reshape(column) + bias.reshape(column)
    count = x.size // x.shape[1]
    gx = g - (g.sum(axes) / count).reshape(column) - h * ((g * h).sum(axes) / count).reshape(column)
    return out, gx * (rstd * weight).reshape(column), (g * h).sum(axes), g.sum(axes), mean, var * count / (count - 1)


@pytest.mark.parametrize("has", [{}, {"bias": False}, {"affine": False}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rest", [(5,), (5, 3), (5, 3, 4), (5, 2, 3, 2)], ids=len)
@pytest.mark.parametrize("uneven", [False, True])
def test_is_the_normalization_of_the_joined_batch(dtype, rest, uneven, has):
    ranks = dist.get_world_size()
    counts = [r * 2 if uneven and ranks > 1 else 3 for r in range(ranks)]  # rank 0 may have nothing
    x, g = joined((sum(counts), *rest), dtype), joined((sum(counts), *rest), dtype, 1)
    layer = nn.SyncBatchNorm(rest[0], momentum=0.3, eps=1e-3, **has).to(getattr(disttorch, dtype))
    weight, bias = np.ones(rest[0]), np.zeros(rest[0])
    for parameter, values, to in ((layer.weight, weight, (0.5, 2)), (layer.bias, bias, (-1, 1))):
        if parameter is not None:
            values[...] = np.linspace(*to, rest[0])
            parameter.data.copy_(disttorch.tensor(values))
    own = disttorch.tensor(part(x, counts), requires_grad=True)
    result = layer(own)
    result.backward(disttorch.tensor(part(g, counts)))
    for parameter in layer.parameters():
        dist.all_reduce(parameter.grad)
    out, gx, gw, gb, mean, var = by_formula(x, g, weight, bias, 1e-3)
    close = {"rtol": 1e-3, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(result.detach().numpy(), part(out, counts), **close)
    np.testing.assert_allclose(own.grad.numpy(), part(gx, counts), **close)
    for parameter, expected in ((layer.weight, gw), (layer.bias, gb)):
        if parameter is not None:
            np.testing.assert_allclose(parameter.grad.numpy(), expected, **close)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.3 * mean, **close)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.7 + 0.3 * var, **close)
    assert layer.num_batches_tracked.item() == 1


def test_half_types_keep_their_dtype():
    layer = nn.SyncBatchNorm(2).half()
    x = disttorch.tensor(joined((4, 2, 3), "float16"), requires_grad=True)
    result = layer(x)
    result.sum().backward()
    assert result.dtype == x.grad.dtype == disttorch.float16


@pytest.mark.parametrize(("tracks", "expected"), [(True, [1, 3]), (False, [-1, 1])])
def test_evaluation_asks_no_one(tracks, expected):
    layer = nn.SyncBatchNorm(1, track_running_stats=tracks).eval()
    if dist.get_rank() == 0:  # the others are not needed
        out = layer(disttorch.tensor([[1.0], [3.0]])).detach().numpy().ravel()
        np.testing.assert_allclose(out, np.array(expected) / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_conversion_keeps_parameters_and_state():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.ReLU()), nn.BatchNorm2d(2, affine=False))
    before = dict(net.named_parameters()), list(net.state_dict())
    changed = nn.SyncBatchNorm.convert_sync_batchnorm(net.eval())
    assert changed is net
    assert [type(m).__name__ for m in net.modules() if "Norm" in type(m).__name__] == ["SyncBatchNorm", "SyncBatchNorm"]
    assert list(net.state_dict()) == before[1]
    assert all(p is before[0][n] for n, p in net.named_parameters())
    assert not any(m.training for m in net.modules())
    assert net[1][0].momentum is None


@pytest.mark.parametrize("shape, options, error, message", [
    ((3,), {}, ValueError, "at least 2D"),
    ((4, 2), {}, RuntimeError, r"running_mean should contain 2 elements.*\[4, 2\], not be of size \[3\]"),
    ((4, 2), {"track_running_stats": False}, RuntimeError, "weight should contain 2 elements"),
])  # fmt: skip
def test_inputs_that_are_refused(shape, options, error, message):
    with pytest.raises(error, match=message):
        nn.SyncBatchNorm(3, **options)(disttorch.ones(shape))
