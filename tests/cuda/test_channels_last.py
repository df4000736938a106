"""A network of images with channels last on the stand-in: no activation and no gradient of one is ever laid out anew."""

import numpy as np
import pytest

import disttorch
from disttorch import nn, optim
from disttorch.nn import functional as F
from tests import stand_in
from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

BATCH = 5


@pytest.fixture(autouse=True)
def on_device():
    with tensors(1):
        yield


class Block(nn.Module):
    """Two convolutions and a way around them; of other activations where they are asked for."""

    def __init__(self, channels, out, stride, act=nn.ReLU):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.around = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if stride > 1 else nn.Identity()
        self.act1, self.act2 = act(), act()

    def forward(self, x):
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(y)) + self.around(x))


def resnet(act=nn.ReLU):
    disttorch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), act(), nn.MaxPool2d(3, 2, 1), Block(8, 8, 1, act), Block(8, 16, 2, act),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def images():
    rng = np.random.default_rng(0)
    return disttorch.tensor(rng.standard_normal((BATCH, 3, 20, 24)).astype("f")), disttorch.tensor(rng.integers(0, 10, BATCH))


def step(model, optimizer, x, y, dtype):
    optimizer.zero_grad()
    with disttorch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
        loss = F.cross_entropy(model(x).float(), y)
    loss.backward()
    optimizer.step()
    return loss


def of_activations(found):
    return [f for f in found if f[1][0] == BATCH]


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ReLU6], ids=lambda a: a.__name__)
@pytest.mark.parametrize("dtype", [None, disttorch.bfloat16, disttorch.float16], ids=str)
def test_a_training_step_lays_no_activation_out_anew(dtype, act):
    model = resnet(act).cuda().to(memory_format=disttorch.channels_last)
    optimizer = optim.AdamW(model.parameters(), fused=True)
    x, y = images()
    x = x.cuda().to(memory_format=disttorch.channels_last)
    y = y.cuda()
    with stand_in.turned() as found:
        for _ in range(2):
            step(model, optimizer, x, y, dtype)
    assert of_activations(found) == []
    if dtype is None:
        assert found == []  # nor a parameter, a gradient or an optimizer's state


def test_what_is_laid_out_anew_is_seen():
    x = images()[0].cuda()
    with stand_in.turned() as found:
        last = x.to(memory_format=disttorch.channels_last)
        last * 2
        x + last
    assert len(found) == 2 and {shape for _, shape in found} == {(BATCH, 3, 20, 24)}


def test_in_evaluation_and_with_dropout():
    model = nn.Sequential(resnet()[:5], nn.Dropout(0.3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.AvgPool2d(2), nn.Conv2d(8, 4, 1))
    model = model.cuda().to(memory_format=disttorch.channels_last)
    x = images()[0].cuda().to(memory_format=disttorch.channels_last)
    with stand_in.turned() as found:
        model(x).square().mean().backward()
        out = model.eval()(x)
        out.sum().backward()
    assert of_activations(found) == []
    assert out.is_contiguous(memory_format=disttorch.channels_last)


@pytest.mark.parametrize("dtype", [None, disttorch.bfloat16], ids=str)
def test_training_gives_what_it_gives_in_c_order(dtype):
    results = []
    for last in (False, True):
        model = resnet().cuda()
        x, y = (t.cuda() for t in images())
        if last:
            model, x = model.to(memory_format=disttorch.channels_last), x.to(memory_format=disttorch.channels_last)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        losses = [step(model, optimizer, x, y, dtype).item() for _ in range(3)]
        results.append((losses, [p.detach().cpu().contiguous().numpy() for p in model.parameters()]))
    tolerance = 1e-4 if dtype is None else 3e-2
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=tolerance)
    for have, want in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def test_a_captured_step():
    model = resnet().cuda().to(memory_format=disttorch.channels_last)
    optimizer = optim.AdamW(model.parameters(), capturable=True)
    x, y = (t.cuda() for t in images())
    x = x.to(memory_format=disttorch.channels_last)
    side = disttorch.cuda.Stream()
    side.wait_stream(disttorch.cuda.current_stream())
    with disttorch.cuda.stream(side):
        for _ in range(2):
            step(model, optimizer, x, y, None)
    disttorch.cuda.current_stream().wait_stream(side)
    graph = disttorch.cuda.CUDAGraph()
    with disttorch.cuda.graph(graph):
        loss = step(model, optimizer, x, y, None)
    graph.replay()
    first = loss.item()
    for _ in range(5):
        graph.replay()
    assert loss.item() < first
    assert model[4].conv1.weight.is_contiguous(memory_format=disttorch.channels_last)


def test_a_step_of_parameters_with_channels_last_is_one_kernel():
    weights = [disttorch.randn(4, 3, 3, 3).cuda().to(memory_format=disttorch.channels_last).requires_grad_() for _ in range(3)]
    optimizer = optim.AdamW(weights)
    for w in weights:
        w.grad = disttorch.ones_like(w)
    with stand_in.calls() as calls:
        optimizer.step()
    assert calls.count("fused") == 1 and not {"multiply", "subtract", "sqrt", "astype"} & set(calls)


def test_copies_to_and_from_the_host_keep_the_order():
    x = images()[0].to(memory_format=disttorch.channels_last)
    there = x.cuda()
    assert there.stride() == x.stride()
    back = there.cpu()
    assert back.stride() == x.stride() and (back == x).all()
    pinned = x.pin_memory()
    assert pinned.stride() == x.stride()
    assert pinned.cuda(non_blocking=True).stride() == x.stride()
    place = disttorch.empty_like(there)
    place.copy_(pinned, non_blocking=True)
    assert (place.cpu() == x).all()
