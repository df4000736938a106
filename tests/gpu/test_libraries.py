"""NVIDIA's libraries beside the plain implementations: with cuDNN and without it, with TF32 and without it."""

from contextlib import contextmanager

import numpy as np
import pytest

import disttorch
from disttorch import backends, nn
from tests.gpu.agreement import exact

F = nn.functional
TOLERANCE = {"float32": 2e-4, "float16": 1e-2, "bfloat16": 6e-2}


@pytest.fixture(autouse=True)
def float32_means_float32():
    """In convolutions, too, where by default, as in PyTorch, it may be TF32."""
    before = backends.cudnn.allow_tf32
    backends.cudnn.allow_tf32 = False
    yield
    backends.cudnn.allow_tf32 = before


@contextmanager
def plain():
    """Without cuDNN."""
    before = backends.cudnn.enabled
    backends.cudnn.enabled = False
    try:
        yield
    finally:
        backends.cudnn.enabled = before


def drawn(*shapes, dtype, device):
    rng = np.random.default_rng(0)
    return [disttorch.tensor(rng.standard_normal(s)).to(device, getattr(disttorch, dtype)).requires_grad_() for s in shapes]


CONVOLUTIONS = [
    # input, weight, options
    ((2, 8, 12, 10), (16, 8, 3, 3), {"padding": 1}),
    ((2, 8, 13, 11), (16, 8, 3, 2), {"stride": 2, "padding": (1, 0)}),
    ((2, 8, 12, 10), (8, 1, 3, 3), {"groups": 8, "padding": 1}),
    ((2, 8, 16, 10), (16, 4, 3, 3), {"groups": 2, "dilation": 2}),
    ((2, 8, 30), (16, 8, 5), {"padding": 2}),
    ((1, 4, 6, 7, 8), (8, 4, 3, 3, 3), {"padding": 1}),
    ((3, 3, 9, 9), (5, 3, 1, 1), {}),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "weight", "options"), CONVOLUTIONS, ids=str)
def test_convolution_is_the_plain_one(shape, weight, options, dtype, device):
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(shape)]
    channels_last = [False, True] if len(shape) == 4 else [False]
    x, w = drawn(shape, weight, dtype=dtype, device=device)
    (b,) = drawn((weight[0],), dtype=dtype, device=device)
    with plain():
        expected = convolve(x, w, b, **options)
        g = disttorch.ones_like(expected)
        expected_gradients = disttorch.autograd.grad(expected, [x, w, b], g)
    for last in channels_last:
        given = x.to(memory_format=disttorch.channels_last) if last else x
        found = convolve(given, w, b, **options)
        assert not last or found.is_contiguous(memory_format=disttorch.channels_last)
        gradients = disttorch.autograd.grad(found, [x, w, b], g)
        for f, e in zip([found, *gradients], [expected, *expected_gradients]):
            scale = max(1.0, float(np.abs(exact(e)).max()))
            np.testing.assert_allclose(exact(f), exact(e), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


ATTENTIONS = [
    # query, key and value, options
    ((2, 4, 64, 32), (2, 4, 64, 32), {}),
    ((2, 4, 64, 32), (2, 4, 64, 32), {"is_causal": True}),
    ((1, 8, 128, 64), (1, 8, 200, 64), {}),
    ((2, 8, 65, 64), (2, 2, 65, 64), {"is_causal": True, "enable_gqa": True}),
    ((1, 2, 33, 128), (1, 2, 33, 128), {"scale": 0.05}),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("query", "key", "options"), ATTENTIONS, ids=str)
def test_attention_is_the_plain_one(query, key, options, dtype, device):
    q, k, v = drawn(query, key, key, dtype=dtype, device=device)
    with plain():
        expected = F.scaled_dot_product_attention(q, k, v, **options)
        expected_gradients = disttorch.autograd.grad(expected, [q, k, v], disttorch.ones_like(expected))
    found = F.scaled_dot_product_attention(q, k, v, **options)
    gradients = disttorch.autograd.grad(found, [q, k, v], disttorch.ones_like(found))
    for f, e in zip([found, *gradients], [expected, *expected_gradients]):
        scale = max(1.0, float(np.abs(exact(e)).max()))
        np.testing.assert_allclose(exact(f), exact(e), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_pooling_is_the_plain_one(pool, dtype, device):
    (x,) = drawn((2, 4, 13, 10), dtype=dtype, device=device)
    run = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pool]
    with plain():
        expected = run(x, 3, 2, 1)
        (expected_gradient,) = disttorch.autograd.grad(expected.sum(), [x])
    found = run(x, 3, 2, 1)
    (gradient,) = disttorch.autograd.grad(found.sum(), [x])
    np.testing.assert_allclose(exact(found), exact(expected), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(exact(gradient), exact(expected_gradient), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.real
def test_tf32_is_by_choice(device):
    """Products in float32 are exact to float32's rounding unless TF32 is allowed, and then to ten bits."""
    if disttorch.cuda.get_device_capability(device)[0] < 8:
        pytest.skip("this GPU has no TF32")
    a, b = (t.detach() for t in drawn((512, 512), (512, 512), dtype="float32", device=device))
    reference = exact(a.double() @ b.double())
    before = backends.cuda.matmul.allow_tf32
    try:
        errors = []
        for allowed in (False, True):
            backends.cuda.matmul.allow_tf32 = allowed
            errors.append(np.linalg.norm(exact(a @ b) - reference) / np.linalg.norm(reference))
    finally:
        backends.cuda.matmul.allow_tf32 = before
    assert errors[0] < 1e-6, errors
    assert 1e-5 < errors[1] < 2e-3, errors


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: (a, b),
        lambda a, b: (a.transpose(-2, -1).contiguous().transpose(-2, -1), b),
        lambda a, b: (a, b.transpose(-2, -1).contiguous().transpose(-2, -1)),
        lambda a, b: (a[:, ::2], b),
        lambda a, b: (a[:1].expand(4, -1, -1), b),
    ],
    ids=["plain", "transposed left", "transposed right", "every second row", "broadcast"],
)
def test_products_accumulate_in_float32(make, dtype, device):
    """The error is that of rounding the result once, also over 4096 additions, whatever the operands' strides."""
    a, b = (t.detach() for t in drawn((4, 8, 4096), (4, 4096, 16), dtype=dtype, device=device))
    a, b = make(a, b)
    reference = exact(a) @ exact(b)
    relative = np.linalg.norm(exact(a @ b) - reference) / np.linalg.norm(reference)
    assert relative < {"float16": 5e-4, "bfloat16": 4e-3, "float32": 2e-6}[dtype], relative
