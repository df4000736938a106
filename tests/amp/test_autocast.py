"""`autocast`: which functions compute in which precision, blocks in blocks, gradients, threads."""

import threading
import warnings

import numpy as np
import pytest

import disttorch as torch
import disttorch.nn.functional as F
from disttorch.amp import custom_bwd, custom_fwd

BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.fixture
def x():
    return torch.arange(12, dtype=FP32).reshape(3, 4) / 7


LOW = {
    "matmul": lambda x: x @ x.mT,
    "method": lambda x: x.matmul(x.mT),
    "mm": lambda x: torch.mm(x, x.mT),
    "bmm": lambda x: torch.bmm(x[None], x.mT[None]),
    "addmm": lambda x: torch.addmm(torch.zeros(3, 3), x, x.mT),
    "linear": lambda x: F.linear(x, torch.ones(2, 4), torch.ones(2)),
    "module": lambda x: torch.nn.Linear(4, 2)(x),
    "conv1d": lambda x: F.conv1d(x[None], torch.ones(2, 3, 2)),
    "conv2d": lambda x: torch.nn.Conv2d(1, 2, 2)(x[None, None]),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x[None, None], torch.ones(1, 2, 2, 2)),
    "prelu": lambda x: F.prelu(x, torch.ones(1)),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "lstm": lambda x: torch.nn.LSTM(4, 2)(x)[0],
    "rnn cell": lambda x: torch.nn.RNNCell(4, 2)(x),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "tensordot": lambda x: torch.tensordot(x, x, ([1], [1])),
    "inner": lambda x: torch.inner(x, x),
}
HIGH = {
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])),
    "mse_loss": lambda x: F.mse_loss(x, x * 2),
    "l1 module": lambda x: torch.nn.L1Loss()(x, x * 2),
    "prod": lambda x: x.prod(),
    "cdist": lambda x: torch.cdist(x, x),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, x),
    "reflection_pad1d": lambda x: F.pad(x, (1, 1), "reflect"),
    "inv_ex": lambda x: torch.linalg.inv_ex(x[:, :3] + 2 * torch.eye(3, dtype=x.dtype))[0],
    "triangular_solve": lambda x: torch.triangular_solve(x, torch.eye(3, dtype=x.dtype) * 2)[0],
    "replication_pad3d": lambda x: F.pad(x[None, None], (1, 1, 0, 0, 0, 0), "replicate"),
}
SAME = {
    "add": lambda x: x + x,
    "exp": torch.exp,
    "sum": torch.sum,
    "softmax": lambda x: F.softmax(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "relu": F.relu,
    "group_norm": lambda x: F.group_norm(x[None], 1, torch.ones(3), torch.ones(3)) if x.dtype is not torch.float64 else x,
    "mv": lambda x: torch.mv(x, x[0]),
    "addmv": lambda x: torch.addmv(x[:, 0], x, x[0]),
    "dot": lambda x: torch.dot(x[0], x[1]),
    "vdot": lambda x: torch.vdot(x[0], x[1]),
    "inner product of vectors": lambda x: torch.inner(x[0], x[1]),
    "tensordot over everything": lambda x: torch.tensordot(x, x, 2),
    "einsum of one": lambda x: torch.einsum("ij->i", x),
    "einsum without a sum": lambda x: torch.einsum("i,j->ij", x[0], x[1]),
    "elementwise einsum": lambda x: torch.einsum("ij,j->ij", x, x[0]),
    "zeros around": lambda x: F.pad(x, (1, 1)),
    "circular": lambda x: F.pad(x, (1, 1), "circular"),
    "reflection_pad3d": lambda x: F.pad(x.expand(1, 3, 3, 4), (1, 1, 1, 1, 1, 1), "reflect"),
}


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("name", LOW)
def test_low_precision(x, name, dtype):
    with torch.autocast("cpu", dtype=dtype):
        assert LOW[name](x).dtype is dtype
        assert LOW[name](x.to(dtype)).dtype is dtype  # with weights that are still float32
    torch.manual_seed(0)
    assert LOW[name](x).dtype is FP32


@pytest.mark.parametrize("name", HIGH)
def test_float32(x, name):
    with torch.autocast("cpu"):
        low = HIGH[name](x.bfloat16())
    assert low.dtype is FP32
    np.testing.assert_allclose(low.numpy(), HIGH[name](x).numpy(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", SAME)
def test_the_others_compute_in_what_they_are_given(x, name):
    with torch.autocast("cpu"):
        for dtype in (FP32, BF16, FP64):
            assert SAME[name](x.to(dtype)).dtype is dtype


def test_float64_and_integers_are_left(x):
    with torch.autocast("cpu"):
        assert (x.double() @ x.double().mT).dtype is FP64
        assert (torch.ones(2, 2, dtype=torch.int64) @ torch.ones(2, 2, dtype=torch.int64)).dtype is torch.int64


@pytest.mark.filterwarnings("ignore:torch.triangular_solve")
def test_what_pytorch_does(x):
    theirs = pytest.importorskip("torch")
    y = theirs.from_numpy(x.numpy())
    for table, start in ((LOW, FP32), (HIGH, BF16), (SAME, FP32), (SAME, BF16)):
        for name, call in table.items():
            if name in ("conv2d", "module", "l1 module", "lstm", "rnn cell"):
                continue  # the modules are ours
            names = {**globals(), "torch": theirs, "F": theirs.nn.functional}
            function = type(call)(call.__code__, names) if call.__code__.co_name == "<lambda>" else getattr(theirs, name)
            with theirs.autocast("cpu"), torch.autocast("cpu"):
                want, got = function(y.to(getattr(theirs, start.name))), call(x.to(start))
            assert str(want.dtype)[6:] == got.dtype.name, name
            np.testing.assert_allclose(got.float().numpy(), want.float().numpy(), rtol=0.02, atol=0.02, err_msg=name)


@pytest.mark.parametrize("name, steps", [("GRU", True), ("GRUCell", False), ("LSTMCell", False)])
def test_gates_that_are_added_as_tensors_are_of_the_states_type(name, steps):
    def states(library, input, state):
        libraries = library.manual_seed(0), getattr(library.nn, name)(4, 2)
        x, h = (library.ones(1, 4 if i == 0 else 2, dtype=getattr(library, t)) for i, t in enumerate((input, state)))
        with library.autocast("cpu"):
            given = () if input == state and not steps else ((h, h) if name == "LSTMCell" else h,)
            result = libraries[1](x, *given)
        return [str(t.dtype).rpartition(".")[2] for t in (result if isinstance(result, tuple) else (result,))]

    for input, state in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")):
        got = states(torch, input, state)
        assert set(got) == {state}
    theirs = pytest.importorskip("torch")
    assert states(theirs, "float32", "float32") == states(torch, "float32", "float32")


@pytest.mark.parametrize("lengths", [[3, 3], [3, 1]])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("input, state", [("float32", None), ("bfloat16", "float32"), ("bfloat16", None)])
def test_packed_sequences_are_of_pytorch_s_type(name, lengths, input, state):
    def types(library):
        model, x = getattr(library.nn, name)(4, 2), library.ones(3, 2, 4, dtype=getattr(library, input))
        packed = library.nn.utils.rnn.pack_padded_sequence(x, library.tensor(lengths))
        h = None if state is None else library.zeros(1, 2, 2, dtype=getattr(library, state))
        with library.autocast("cpu"):
            y, last = model(packed, (h, h) if name == "LSTM" and h is not None else h)
        return [str(t.dtype).rpartition(".")[2] for t in (y.data, *(last if isinstance(last, tuple) else (last,)))]

    assert types(torch) == types(pytest.importorskip("torch"))


def test_what_is_written_to_a_tensor_is_not_converted(x):
    out, low = torch.zeros(3, 3), torch.zeros(3, 3, dtype=BF16)
    with torch.autocast("cpu"):
        for function in (torch.mm, torch.matmul):
            assert function(x, x.mT, out=out) is out
    np.testing.assert_array_equal(out.numpy(), (x @ x.mT).numpy())
    with torch.autocast("cpu"):
        assert torch.addmm(low, x.bfloat16(), x.mT.bfloat16(), out=low) is low
    assert low.abs().sum() > 0


def test_within_vmap(x):
    with torch.autocast("cpu"):
        assert torch.vmap(lambda a: a @ a.mT)(x.expand(2, 3, 4)).dtype is BF16
        assert torch.vmap(F.mse_loss)(x.bfloat16(), x.bfloat16()).dtype is FP32
        gradients = torch.vmap(torch.func.grad(lambda w, a: F.linear(a, w).float().sum()), in_dims=(None, 0))(x[:, :3], x[:, :3])
    assert (gradients.dtype, gradients.shape) == (FP32, (3, 3, 3))


def test_view_as_complex():
    with torch.autocast("cpu"):
        assert torch.view_as_complex(torch.ones(3, 2, dtype=BF16)).dtype is torch.complex64


def test_a_block_inside_computes_as_the_one_around_it(x):
    with torch.autocast("cpu", dtype=FP16):
        with torch.autocast("cpu"):
            assert (x @ x.mT).dtype is FP16
        with torch.autocast("cpu", enabled=False):
            assert torch.get_autocast_dtype("cpu") is FP16
            with torch.autocast("cpu"):
                assert (x @ x.mT).dtype is FP16
        with torch.autocast("cpu", dtype=BF16):
            assert torch.get_autocast_dtype("cpu") is BF16
    assert torch.get_autocast_dtype("cpu") is BF16


def test_blocks_in_blocks(x):
    def dtype():
        return (x @ x.mT).dtype

    with torch.autocast("cpu"):
        assert dtype() is BF16
        with torch.autocast("cpu", enabled=False):
            assert dtype() is FP32
            with torch.autocast("cpu", dtype=FP16):
                assert dtype() is FP16
            assert dtype() is FP32
        assert dtype() is BF16
        with pytest.raises(ZeroDivisionError), torch.autocast("cpu", enabled=False):
            1 / 0  # noqa: B018
        assert dtype() is BF16
        assert (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled(), torch.get_autocast_dtype("cpu")) == (True, False, BF16)
    assert dtype() is FP32
    assert not torch.is_autocast_cpu_enabled()
    block = torch.autocast("cpu")
    with block, block:  # one object, twice
        assert dtype() is BF16
    assert dtype() is FP32


def test_as_a_decorator(x):
    @torch.autocast("cpu", dtype=FP16)
    def product():
        return (x @ x.mT).dtype

    assert product() is FP16
    assert (x @ x.mT).dtype is FP32


def test_a_step_of_training():
    """Gradients come back in the parameters' type, near those of float32; a weight is converted once."""
    rng = np.random.default_rng(0)
    data, target = torch.from_numpy(rng.standard_normal((16, 8)).astype("f")), torch.from_numpy(rng.integers(0, 3, 16))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

    def gradients(**options):
        model.zero_grad()
        with torch.autocast("cpu", **options):
            out = model(data) + model(data)
            loss = F.cross_entropy(out, target)
        assert loss.dtype is FP32
        assert out.dtype is (FP32 if not options.get("enabled", True) else BF16)
        loss.backward()
        return [p.grad.numpy().copy() for p in model.parameters()]

    exact = gradients(enabled=False)
    for options in ({}, {"cache_enabled": False}):
        for got, want in zip(gradients(**options), exact):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max() + 1e-4, rtol=0.05)


def test_weights_are_converted_once():
    w = torch.ones(2, 2, requires_grad=True)
    casts = set()

    def note(use):
        (w @ torch.ones(2, 2)).sum().backward() if use == "graph" else None

    with torch.autocast("cpu"):
        outs = [F.linear(torch.ones(1, 2), w) for _ in range(3)]
        for out in outs:
            edges = [e for e in out.grad_fn.next_functions if e[0] is not None]
            casts.add(id(edges[0][0]))
        with torch.autocast("cpu"):
            F.linear(torch.ones(1, 2), w)
        torch.clear_autocast_cache()
        fresh = F.linear(torch.ones(1, 2), w)
    assert len(casts) == 1
    assert id(fresh.grad_fn.next_functions[1][0]) not in casts or id(fresh.grad_fn.next_functions[0][0]) not in casts
    note("graph")
    assert w.grad.tolist() == [[2, 2], [2, 2]]


def test_other_threads_have_their_own(x):
    found = []
    with torch.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append((x @ x.mT).dtype))
        thread.start()
        thread.join()
    assert found == [FP32]


def test_what_is_refused():
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'"):
        torch.autocast("tpu")
    with pytest.raises(ValueError, match="of type `str`"):
        torch.autocast(torch.device("cpu"))
    with pytest.warns(UserWarning, match="not disttorch.float64. Disabling"), torch.autocast("cpu", dtype=FP64):
        assert not torch.is_autocast_enabled("cpu")
    assert torch.amp.is_autocast_available("cuda")
    assert not torch.amp.is_autocast_available("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(x):
    for block in (lambda: torch.autocast("cuda"), torch.cuda.amp.autocast):
        with pytest.warns(UserWarning, match="CUDA is not available"), block():
            assert (x @ x.mT).dtype is FP32


def test_older_names(x):
    with torch.cpu.amp.autocast():
        assert (x @ x.mT).dtype is BF16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.cuda.amp.autocast(enabled=False)


def test_custom_functions(x):
    seen = []

    class Product(torch.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu")
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            seen.append(torch.is_autocast_enabled("cpu"))
            return g @ b.mT, a.mT @ g

    class Cast(torch.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu", cast_inputs=FP32)
        def forward(ctx, a):
            seen.append((a.dtype, torch.is_autocast_enabled("cpu")))
            return a * 2

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, g):
            seen.append(torch.is_autocast_enabled("cpu"))
            return g * 2

    x.requires_grad_()
    with torch.autocast("cpu"):
        out = Product.apply(x, x.detach().mT)
        assert out.dtype is BF16
    out.sum().backward()
    assert seen == [True]
    assert x.grad.dtype is FP32
    seen.clear()
    with torch.autocast("cpu"):
        out = Cast.apply(x.bfloat16())
    assert out.dtype is FP32
    out.sum().backward()
    assert seen == [(FP32, False), False]


def test_nothing_is_left_open():
    from disttorch.ops.autocast import blocks

    assert blocks.count == 0


def test_every_listed_function_that_there_is_converts():
    from disttorch.ops.autocast import FLOAT32, LOW, WIDEST

    plain = [
        f"{place.__name__}.{name}"
        for place in (torch, torch.linalg, F, torch.Tensor)
        for name in LOW["cpu"] | FLOAT32["cpu"] | WIDEST["cpu"]
        if callable(getattr(place, name, None)) and not marked(getattr(place, name))
    ]
    assert plain == []


def marked(function):
    while not hasattr(function, "in_autocast"):
        function = getattr(function, "__wrapped__", None)
        if function is None:
            return False
    return True


ON_A_GPU = """
import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, *more: object() if name == "cupy" else found(name, *more)
import disttorch as torch, disttorch.nn.functional as F
from disttorch.amp import autocast_mode
util.find_spec = found
from disttorch.ops import autocast
half, x = torch.ones(2, 2, dtype=torch.float16), torch.ones(2, 2)
assert (torch.exp(half).dtype, (half**2).dtype) == (torch.float16, torch.float16)
autocast._device_type = lambda values: "cuda"  # the tensors of this process pass for a GPU's
autocast_mode.cuda_is_available = lambda: True
vector, index, ones = x[0], torch.tensor([[0, 1]]), torch.ones(1, 2, 2, 2)
with torch.autocast("cuda"):
    low = [x @ x, F.linear(x, x), torch.mm(x, half), torch.mv(x, vector), torch.addmv(vector, x, vector), torch.addr(x, vector, vector),
           torch.nn.LSTMCell(2, 2)(x)[0], torch.nn.GRUCell(2, 2)(x), torch.einsum("ij,kj->ik", x, x), torch.linalg.vecdot(x, x)]
    high = [torch.exp(half), half.log(), half**2, torch.pow(half, 2), 2**half, 1 / half, half.sum(), F.softmax(half, 1),
            F.layer_norm(half, (2,)), half.prod(), F.mse_loss(half, x), half.norm(), torch.linalg.vector_norm(half), half.cumsum(0),
            torch.cdist(half, half), F.interpolate(ones.half(), scale_factor=2), half.reciprocal()]
    same = [half + 1, torch.relu(half), torch.sigmoid(half), half.amax(), torch.tensordot(half, half), torch.dot(half[0], half[0]),
            torch.addcmul(half, half, half), torch.atan2(half, half), half / 2]
    widest = [torch.tensordot(x, half), torch.dot(vector, half[0]), torch.vdot(half[0], vector), torch.addcdiv(half, half, x),
              torch.addcmul(x, half, half), torch.atan2(half, x), torch.scatter_add(half, 0, index, x), half.scatter_add(0, index, x),
              torch.index_put(half, (torch.tensor([0]),), x[:1]), F.bilinear(half, half, ones[0]), F.grid_sample(ones.half(), ones),
              torch.cross(torch.ones(3), torch.ones(3).half(), dim=0), torch.linalg.cross(torch.ones(3), torch.ones(3).half())]
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype=dtype):
            try:
                F.binary_cross_entropy(half / 2, half)
            except RuntimeError as error:
                print(error)
print({t.dtype for t in low}, {t.dtype for t in high}, {t.dtype for t in same}, {t.dtype for t in widest})
"""


def test_the_list_of_gpus():
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", ON_A_GPU], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    refused, again, dtypes = done.stdout.splitlines()
    assert "unsafe to autocast" in refused
    assert again == refused
    assert dtypes == "{disttorch.float16} {disttorch.float32} {disttorch.float16} {disttorch.float32}"
