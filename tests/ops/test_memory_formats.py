"""Memory formats: which strides tensors get, and that results are right whatever they are."""

import copy
import pickle

import numpy as np
import pytest

import disttorch

torch = pytest.importorskip("torch")

LAST, LAST_3D = "channels_last", "channels_last_3d"
SHAPES = [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1), (1, 3, 4, 5), (2, 3, 1, 5)]
FORMS = ["contiguous_format", LAST, "preserve_format"]

#: what makes a tensor of another, with a memory format; in terms of the package ``m``
MADE = {
    "contiguous": lambda m, x, f: x.contiguous(memory_format=f),
    "to": lambda m, x, f: x.to(memory_format=f),
    "to, copied": lambda m, x, f: x.to(memory_format=f, copy=True),
    "to another dtype": lambda m, x, f: x.to(m.float64, memory_format=f),
    "double": lambda m, x, f: x.double(memory_format=f),
    "cpu": lambda m, x, f: x.cpu(memory_format=f),
    "clone": lambda m, x, f: x.clone(memory_format=f),
    "empty": lambda m, x, f: m.empty(x.shape, memory_format=f),
    "empty_like": lambda m, x, f: m.empty_like(x, memory_format=f),
    "zeros_like": lambda m, x, f: m.zeros_like(x, memory_format=f),
    "ones_like": lambda m, x, f: m.ones_like(x, memory_format=f),
    "full_like": lambda m, x, f: m.full_like(x, 2.0, memory_format=f),
    "rand_like": lambda m, x, f: m.rand_like(x, memory_format=f),
    "randn_like": lambda m, x, f: m.randn_like(x, memory_format=f),
    "randint_like": lambda m, x, f: m.randint_like(x, 5, memory_format=f),
    "zeros_like of another dtype": lambda m, x, f: m.zeros_like(x, dtype=m.int64, memory_format=f),
    "resize_": lambda m, x, f: m.zeros(120).resize_(x.shape, memory_format=f),
    "resize_ to more": lambda m, x, f: m.zeros(1).resize_(x.shape, memory_format=f),
    "resize_as_": lambda m, x, f: m.zeros(120).resize_as_(x, memory_format=f),
}

#: how the input lies
LAID = {
    "in C order": lambda m, x: x,
    "channels last": lambda m, x: x.contiguous(memory_format=m.channels_last),
    "channels last to the letter": lambda m, x: x.clone(memory_format=m.channels_last),
    "transposed": lambda m, x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "with gaps": lambda m, x: m.cat([x, x], 3)[..., ::2].contiguous(memory_format=m.channels_last)[:, : x.shape[1]],
    "expanded": lambda m, x: x[:1].expand(3, *x.shape[1:]),
}


def pair(shape, seed=0):
    """The same numbers as a tensor of ours and one of PyTorch's."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return disttorch.tensor(x.numpy()), x


def outcome(m, x, made, laid, form):
    """The shape, the strides and whether the result lies in each format; or the error."""
    try:
        y = MADE[made](m, LAID[laid](m, x), getattr(m, form))
    except (RuntimeError, TypeError) as error:
        return type(error).__name__
    return tuple(y.shape), tuple(y.stride()), [y.is_contiguous(memory_format=getattr(m, f)) for f in (FORMS[0], LAST, LAST_3D)]


def but_for(cases, name, why):
    """The names of cases, of which one is only for the CPU."""
    return [pytest.param(c, marks=pytest.mark.cpu_only(why)) if c == name else c for c in cases]


@pytest.mark.parametrize("laid", but_for(LAID, "expanded", "dimensions of size 1 may have any stride"))
@pytest.mark.parametrize("made", but_for(MADE, "cpu", "elsewhere a copy"))
def test_strides_are_pytorchs(made, laid):
    for shape in SHAPES:
        ours, theirs = pair(shape)
        for form in FORMS:
            have, want = (outcome(m, x, made, laid, form) for m, x in ((disttorch, ours), (torch, theirs)))
            assert have == want, (shape, form)
    if made in ("contiguous", "to", "clone", "to another dtype"):
        ours, theirs = pair(SHAPES[0])
        for form in FORMS[:2]:
            have = MADE[made](disttorch, LAID[laid](disttorch, ours), getattr(disttorch, form))
            want = MADE[made](torch, LAID[laid](torch, theirs), getattr(torch, form))
            assert (have.numpy() == want.numpy()).all()


REFUSED = [
    (made, shape, form)
    for made in MADE
    for shape, form in (((2, 3), LAST), ((2, 3, 4), LAST), ((2, 3, 4, 5), LAST_3D))
]


@pytest.mark.parametrize(("made", "shape", "form"), REFUSED)
def test_a_format_is_for_a_number_of_dimensions(made, shape, form):
    with pytest.raises(RuntimeError, match=rf"required rank {4 if form == LAST else 5} tensor to use {form} format"):
        MADE[made](disttorch, disttorch.zeros(shape), getattr(disttorch, form))


def test_what_is_no_memory_format_is_refused():
    x = disttorch.zeros(2, 3, 4, 5)
    for call in (x.clone, x.to, x.contiguous, x.is_contiguous, lambda memory_format: disttorch.zeros_like(x, memory_format=memory_format)):
        with pytest.raises(TypeError, match="memory_format"):
            call(memory_format=3)
    with pytest.raises(RuntimeError, match="preserve memory format is unsupported by the contiguous operator"):
        x.transpose(1, 2).contiguous(memory_format=disttorch.preserve_format)


def test_a_tensor_that_lies_so_is_itself():
    x = disttorch.zeros(2, 3, 4, 5)
    last = x.to(memory_format=disttorch.channels_last)
    assert last is not x
    assert last.to(memory_format=disttorch.channels_last) is last
    assert last.to(disttorch.channels_last) is last
    assert last.contiguous(memory_format=disttorch.channels_last) is last
    assert x.to(memory_format=disttorch.contiguous_format) is x
    assert x.to(memory_format=disttorch.preserve_format) is x
    assert last.dim_order() == (0, 2, 3, 1)


def test_five_dimensions():
    ours, theirs = pair((2, 3, 2, 4, 5))
    have, want = ours.to(memory_format=disttorch.channels_last_3d), theirs.to(memory_format=torch.channels_last_3d)
    assert have.stride() == want.stride()
    assert (have.numpy() == want.numpy()).all()
    assert have.is_contiguous(memory_format=disttorch.channels_last_3d)


def test_gradients_flow_through_conversions():
    x = disttorch.randn(2, 3, 4, 5, requires_grad=True)
    last = x.to(memory_format=disttorch.channels_last)
    (last * 2 + last.contiguous() + last.clone(memory_format=disttorch.contiguous_format)).sum().backward()
    assert (x.grad.numpy() == 4).all()


#: what copies a tensor and keeps how it lies
COPIED = {
    "clone": lambda m, x: x.clone(),
    "detach and copy": lambda m, x: copy.deepcopy(x),
    "pickle": lambda m, x: pickle.loads(pickle.dumps(x)),
    "to a half type": lambda m, x: x.to(m.bfloat16),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("copied", COPIED)
def test_copies_keep_the_strides(copied, shape):
    have, want = (COPIED[copied](m, x.to(memory_format=m.channels_last)) for m, x in zip((disttorch, torch), pair(shape)))
    assert tuple(have.stride()) == tuple(want.stride())
    assert (have.float().numpy() == want.float().numpy()).all()


@pytest.mark.cpu_only("PyTorch would want a GPU")
@pytest.mark.parametrize("shape", SHAPES)
def test_files_keep_the_strides(shape, tmp_path):
    ours, theirs = (x.to(memory_format=m.channels_last) for m, x in zip((disttorch, torch), pair(shape)))
    disttorch.save({"w": ours}, tmp_path / "ours.pt", format="torch")
    torch.save({"w": theirs}, tmp_path / "theirs.pt")
    for load in (disttorch.load, torch.load):
        for file in ("ours.pt", "theirs.pt"):
            loaded = load(tmp_path / file)["w"]
            assert tuple(loaded.stride()) == tuple(theirs.stride())
            assert (loaded.numpy() == theirs.numpy()).all()


def test_safetensors_files_hold_the_values(tmp_path):
    x = disttorch.randn(4, 3, 2, 5).to(memory_format=disttorch.channels_last)
    disttorch.save({"w": x}, tmp_path / "x.safetensors")
    assert (disttorch.load(tmp_path / "x.safetensors")["w"] == x).all()


# --- what operations hand on ------------------------------------------------------------------------------------------

W, W1, WG, WT, V = (
    torch.randn(shape, generator=torch.Generator().manual_seed(7))
    for shape in ((4, 3, 3, 3), (4, 3, 1, 1), (3, 1, 3, 3), (3, 4, 2, 2), (3,))
)


def given(m, t):
    return disttorch.tensor(t.numpy()) if m is disttorch else t


#: operations on (2, 3, 6, 6), in terms of the package ``m``; a result and its gradient at the input
HANDED_ON = {
    "conv2d": lambda m, x: m.nn.functional.conv2d(x, given(m, W), padding=1),
    "conv2d, strided": lambda m, x: m.nn.functional.conv2d(x, given(m, W), given(m, W)[:, 0, 0, 0], stride=2, padding=1),
    "conv2d, dilated": lambda m, x: m.nn.functional.conv2d(x, given(m, W), dilation=2),
    "conv2d, 1x1": lambda m, x: m.nn.functional.conv2d(x, given(m, W1)),
    "conv2d, 1x1, strided": lambda m, x: m.nn.functional.conv2d(x, given(m, W1), stride=2),
    "conv2d, depthwise": lambda m, x: m.nn.functional.conv2d(x, given(m, WG), groups=3),
    "conv2d, the weight says so": lambda m, x: m.nn.functional.conv2d(x, given(m, W).to(memory_format=m.channels_last)),
    "conv_transpose2d": lambda m, x: m.nn.functional.conv_transpose2d(x, given(m, WT), stride=2),
    "batch_norm": lambda m, x: m.nn.functional.batch_norm(x, None, None, given(m, V), given(m, V), training=True),
    "batch_norm, evaluated": lambda m, x: m.nn.functional.batch_norm(x, given(m, V), given(m, V).abs(), given(m, V)),
    "max_pool2d": lambda m, x: m.nn.functional.max_pool2d(x, 3, 2, 1),
    "max_pool2d, its indices": lambda m, x: m.nn.functional.max_pool2d(x, 2, return_indices=True)[1],
    "avg_pool2d": lambda m, x: m.nn.functional.avg_pool2d(x, 2, 1),
    "adaptive_avg_pool2d": lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, 2),
    "adaptive_avg_pool2d, unequal": lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, 4),
    "adaptive_max_pool2d": lambda m, x: m.nn.functional.adaptive_max_pool2d(x, 2),
    "nearest": lambda m, x: m.nn.functional.interpolate(x, scale_factor=2),
    "bilinear": lambda m, x: m.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "bicubic, smaller": lambda m, x: m.nn.functional.interpolate(x, size=(3, 4), mode="bicubic"),
    "pad": lambda m, x: m.nn.functional.pad(x, (1, 2, 0, 1)),
    "reflected": lambda m, x: m.nn.functional.pad(x, (1, 2, 0, 1), mode="reflect"),
    "relu": lambda m, x: x.relu(),
    "gelu": lambda m, x: m.nn.functional.gelu(x),
    "silu": lambda m, x: m.nn.functional.silu(x),
    "hardswish": lambda m, x: m.nn.functional.hardswish(x),
    "leaky_relu": lambda m, x: m.nn.functional.leaky_relu(x),
    "sigmoid": lambda m, x: x.sigmoid(),
    "elu": lambda m, x: m.nn.functional.elu(x),
    "relu6": lambda m, x: m.nn.functional.relu6(x),
    "mish": lambda m, x: m.nn.functional.mish(x),
    "prelu": lambda m, x: m.nn.functional.prelu(x, given(m, V)),
    "clamp": lambda m, x: x.clamp(0, 1),
    "pow": lambda m, x: x**2,
    "add a number": lambda m, x: x + 1,
    "add channels": lambda m, x: x + given(m, V).reshape(3, 1, 1),
    "add to channels": lambda m, x: given(m, V).reshape(3, 1, 1) + x,
    "times a gate": lambda m, x: x * x.mean((2, 3), True).sigmoid(),
    "where": lambda m, x: m.where(x > 0, x, x * 2),
    "a block's end": lambda m, x: (x * 2 + x).relu(),
    "cat": lambda m, x: m.cat([x, x], 1),
    "flip": lambda m, x: x.flip(2),
    "to a half type and back": lambda m, x: x.bfloat16().float(),
    "mean": lambda m, x: x.mean((2, 3)),
}


@pytest.mark.parametrize("operation", HANDED_ON)
def test_operations_hand_the_order_of_dimensions_on(operation):
    outcomes = []
    for m, x in zip((disttorch, torch), pair((2, 3, 6, 6))):
        x = x.to(memory_format=m.channels_last).requires_grad_()
        y = HANDED_ON[operation](m, x)
        outcome = [y]
        if y.is_floating_point() and operation != "bicubic, smaller":  # whose gradient is in C order in PyTorch
            outcome += m.autograd.grad(y, x, m.ones_like(y))
        outcomes.append(outcome)
    for have, want in zip(*outcomes, strict=True):
        np.testing.assert_allclose(have.detach().numpy(), want.detach().numpy(), rtol=2e-5, atol=2e-5)
        assert have.stride() == tuple(want.stride())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("weight_last", [False, True])
@pytest.mark.parametrize("input_last", [False, True])
def test_the_weight_or_the_input_decides(input_last, weight_last, dtype):
    lie = []
    for m in (torch, disttorch):
        x, w = m.ones(2, 3, 6, 6, dtype=getattr(m, dtype)), given(m, W).to(getattr(m, dtype))
        x = x.to(memory_format=m.channels_last) if input_last else x
        w = (w.to(memory_format=m.channels_last) if weight_last else w).detach().requires_grad_()
        y = m.nn.functional.conv2d(x, w)
        y.sum().backward()
        lie.append((tuple(y.stride()), tuple(w.grad.stride())))
    assert lie[1] == lie[0]


def test_volumes():
    outcomes = []
    for m, x in zip((disttorch, torch), pair((2, 3, 4, 5, 6))):
        x = x.to(memory_format=m.channels_last_3d).requires_grad_()
        y = m.nn.functional.conv3d(x, given(m, torch.randn(4, 3, 2, 3, 1, generator=torch.Generator().manual_seed(2))), padding=(1, 0, 0))
        y = m.nn.functional.max_pool3d(m.nn.functional.batch_norm(y, None, None, training=True).relu(), 2)
        (g,) = m.autograd.grad(y.square().sum(), x)
        outcomes.append((y, g))
    for have, want in zip(*outcomes, strict=True):
        np.testing.assert_allclose(have.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-4)
        assert have.stride() == tuple(want.stride())
