"""Between dtypes, libraries and processes; and matrix products."""

import copy
import io
import pickle

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_numpy_and_back_without_a_copy(dtype):
    x = disttorch.tensor([[0, 1], [1, 1]], dtype=getattr(disttorch, dtype))
    a = x.numpy()
    assert np.shares_memory(a, np.asarray(x)) and np.asarray(x) is not None
    a[0, 0] = 1
    assert x.tolist()[0][0] == 1
    y = disttorch.from_numpy(a)
    assert y.dtype is x.dtype and np.shares_memory(y.numpy(), a)
    assert x.t().numpy().strides == a.T.strides
    assert np.array(x).tolist() == a.tolist() and not np.shares_memory(np.array(x), a)
    if "complex" not in dtype:
        assert np.asarray(x, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "bfloat16"])
def test_dlpack_both_ways_without_a_copy(dtype):
    x = disttorch.tensor([1, 0, 1], dtype=getattr(disttorch, dtype))
    a = np.from_dlpack(x)
    assert np.shares_memory(a, x.numpy()) and x.__dlpack_device__() == (1, 0)
    y = disttorch.from_dlpack(a)
    assert y.tolist() == x.tolist() and np.shares_memory(y.numpy(), a)
    assert np.shares_memory(disttorch.from_dlpack(x).numpy(), x.numpy())
    with pytest.raises(BufferError, match="detach"):
        disttorch.ones(2, requires_grad=True).__dlpack__()


def test_dlpack_with_pytorch(torch):
    x = disttorch.arange(6).reshape(2, 3)
    t = torch.from_dlpack(x)
    t[0, 0] = 9
    assert x[0, 0].item() == 9
    back = disttorch.from_dlpack(t)
    back[0, 1] = 8
    assert np.shares_memory(back.numpy(), x.numpy()) and t[0, 1].item() == 8


def test_numpy_functions_take_tensors():
    x = disttorch.tensor([1.0, 4.0])
    assert np.sum(np.asarray(x)) == 5 and np.allclose(x, [1.0, 4.0]) and np.stack([x, x]).shape == (2, 2)
    out = np.empty(2, np.float32)
    out[:] = x
    assert out.tolist() == [1.0, 4.0]
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(disttorch.ones(2, requires_grad=True))
    assert disttorch.ones(2, requires_grad=True).numpy(force=True).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_conversion_between_dtypes(source, target, torch, same, to_torch):
    if "complex" in source and "complex" not in target:
        pytest.skip("PyTorch warns that the imaginary part is dropped")
    x = disttorch.tensor([0, 1, 1], dtype=getattr(disttorch, source))
    same(x.to(getattr(disttorch, target)), to_torch(x).to(getattr(torch, target)))


def test_to():
    x = disttorch.ones(2, requires_grad=True)
    assert x.to(disttorch.float32) is x and x.to("cpu") is x and x.to(disttorch.device("cpu"), disttorch.float32) is x
    y = x.to(disttorch.float64)
    assert y.dtype is disttorch.float64 and y.grad_fn is not None
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0] and x.grad.dtype is disttorch.float32
    assert x.to(disttorch.float32, copy=True) is not x
    assert x.to(disttorch.tensor(1, dtype=disttorch.int32)).dtype is disttorch.int32
    assert x.to(dtype=disttorch.float16, device="cpu").dtype is disttorch.float16
    assert x.type(disttorch.int64).dtype is disttorch.int64 and x.type_as(y).dtype is disttorch.float64
    for name, dtype in {
        "half": "float16",
        "bfloat16": "bfloat16",
        "float": "float32",
        "double": "float64",
        "byte": "uint8",
        "char": "int8",
        "short": "int16",
        "int": "int32",
        "long": "int64",
        "bool": "bool",
    }.items():
        assert getattr(x, name)().dtype.name == dtype
    assert disttorch.tensor([1.9, -1.9]).long().tolist() == [1, -1] and disttorch.tensor(
        [0.1, 0.0]
    ).bool().tolist() == [True, False]
    assert x.cpu() is x


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_pickling(dtype, protocol, requires_grad):
    if requires_grad and dtype in ("int64", "bool"):
        return
    x = disttorch.tensor([[1, 0], [1, 1]], dtype=getattr(disttorch, dtype), requires_grad=requires_grad)
    y = pickle.loads(pickle.dumps(x, protocol))
    assert y.tolist() == x.tolist() and y.dtype is x.dtype and y.requires_grad == requires_grad
    assert not np.shares_memory(x.detach().numpy(), y.detach().numpy()) and y.detach().numpy().flags.writeable
    with pytest.raises(RuntimeError, match=r"leaf|detach"):
        pickle.dumps(disttorch.ones(2, requires_grad=True) * 2)
    d = pickle.loads(pickle.dumps(disttorch.bfloat16))
    assert d is disttorch.bfloat16
    assert pickle.loads(pickle.dumps(disttorch.device("cuda:1"))) == disttorch.device("cuda:1")
    assert pickle.loads(pickle.dumps(disttorch.Size([1, 2]))) == (1, 2)


def test_pickles_of_views_hold_only_what_is_seen():
    x = disttorch.zeros(1000, 1000)[:2, :2]
    file = io.BytesIO()
    pickle.dump(x, file)
    assert file.tell() < 1000


def test_copies():
    x = disttorch.tensor([1.0, 2.0], requires_grad=True)
    x.sum().backward()
    x.mark = ["attribute"]
    y = copy.deepcopy(x)
    assert y.tolist() == x.tolist() and y.requires_grad and y.is_leaf and y.grad.tolist() == [1.0, 1.0]
    assert y.mark == x.mark and y.mark is not x.mark
    assert not np.shares_memory(x.detach().numpy(), y.detach().numpy())
    assert not np.shares_memory(x.grad.numpy(), y.grad.numpy())
    (y * 3).sum().backward()
    assert y.grad.tolist() == [4.0, 4.0] and x.grad.tolist() == [1.0, 1.0]
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]
    with pytest.raises(RuntimeError, match="leaves"):
        copy.deepcopy(x * 2)
    z = copy.copy(x)
    assert z.tolist() == x.tolist() and z.requires_grad
    v = disttorch.arange(4)[1:]
    assert copy.deepcopy(v)._base is None and copy.deepcopy(v).tolist() == [1, 2, 3]


def test_python_numbers():
    assert disttorch.tensor(1.5).item() == 1.5 and type(disttorch.tensor(3).item()) is int
    assert type(disttorch.tensor(True).item()) is bool and disttorch.tensor(1 + 2j).item() == 1 + 2j
    assert type(disttorch.tensor(1.5, dtype=disttorch.bfloat16).item()) is float
    assert (
        float(disttorch.tensor([2.5])) == 2.5
        and int(disttorch.tensor(2.9)) == 2
        and complex(disttorch.tensor(1.0)) == 1
    )
    assert (
        disttorch.tensor([[1.5, 2.5]], dtype=disttorch.bfloat16).tolist() == [[1.5, 2.5]]
        and disttorch.tensor(4).tolist() == 4
    )
    for wrong in (disttorch.ones(2), disttorch.zeros(0)):
        with pytest.raises(RuntimeError, match=f"{wrong.numel()} elements"):
            wrong.item()
    assert (
        f"{disttorch.tensor(1.23456):.2f}" == "1.23"
        and f"{disttorch.tensor(7):>3d}" == "  7"
        and f"{disttorch.tensor([1])}" == "tensor([1])"
    )
    assert round(disttorch.tensor(2.567).item(), 1) == 2.6


def test_identity():
    a, b = disttorch.ones(2), disttorch.ones(2)
    assert len({a, b, a}) == 2 and hash(a) != hash(b)
    assert isinstance(a, disttorch.Tensor) and disttorch.is_tensor(a) and not disttorch.is_tensor(np.ones(2))
    assert (a == None) is False and (a != None) is True and (a == "text") is False  # noqa: E711
    assert {a: 1}[a] == 1
    assert a.dtype is disttorch.float32 and a.device == disttorch.device("cpu") and not a.is_cuda
    assert a.is_floating_point() and not a.is_complex() and a.nbytes == 8 and a.itemsize == a.element_size() == 4
    assert a.data_ptr() == a.numpy().ctypes.data and a.is_contiguous() and not disttorch.ones(2, 3).t().is_contiguous()


class Meter:
    """A foreign number that knows how to meet a tensor."""

    def __radd__(self, other):
        return "radd"

    def __rmul__(self, other):
        return "rmul"

    def __rmatmul__(self, other):
        return "rmatmul"


def test_foreign_operands_get_their_turn():
    x = disttorch.ones(2)
    assert x + Meter() == "radd" and x * Meter() == "rmul"
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+: 'Tensor' and 'list'"):
        x + [1.0, 2.0]
    with pytest.raises(TypeError, match="'<' not supported between instances of 'Tensor' and 'str'"):
        x < "a"  # noqa: B015


# --- matrix products ------------------------------------------------------------------------------------------------

PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (5, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 0, 3), (3, 2)),
    ((1, 3), (3, 1)),
]


def draw(shape, seed=0):
    return disttorch.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


@pytest.mark.parametrize(("first", "second"), PRODUCTS, ids=str)
def test_matmul(first, second):
    x, y = draw(first), draw(second, 1)
    result = x @ y
    expected = np.matmul(x.detach().numpy(), y.detach().numpy())
    assert result.shape == expected.shape and isinstance(result, disttorch.Tensor)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(disttorch.matmul, (x, y))
    if result.numel() <= 24 and x.numel():
        assert gradgradcheck(disttorch.matmul, (x, y))


def test_matmul_of_strided_and_shared_operands():
    x = draw((4, 3))
    np.testing.assert_allclose((x.t() @ x).detach().numpy(), x.detach().numpy().T @ x.detach().numpy())
    assert gradcheck(lambda x: x.t() @ x, x) and gradgradcheck(lambda x: x @ x.t(), x)
    b = draw((2, 3, 4))
    assert gradcheck(lambda b: b @ b.mT, b) and gradcheck(lambda b: b.transpose(0, 1) @ b[0].t(), b)
    assert gradcheck(lambda b: b[:, ::2] @ b[0].t(), b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int64", "complex64"])
def test_dtypes_of_products(dtype, torch, same, to_torch):
    d = getattr(disttorch, dtype)
    for first, second in [((3, 4), (4, 2)), ((3,), (3,)), ((2, 3, 4), (4, 5)), ((3, 4), (4,))]:
        x = disttorch.tensor(np.random.default_rng(0).integers(-3, 4, first), dtype=d)
        y = disttorch.tensor(np.random.default_rng(1).integers(-3, 4, second), dtype=d)
        same(x @ y, to_torch(x) @ to_torch(y))


NAMED = [
    ("mm", (2, 3), (3, 4)),
    ("mv", (2, 3), (3,)),
    ("dot", (3,), (3,)),
    ("bmm", (5, 2, 3), (5, 3, 4)),
    ("outer", (3,), (4,)),
]


@pytest.mark.parametrize(("name", "first", "second"), NAMED, ids=[n for n, _, _ in NAMED])
def test_named_products(name, first, second):
    x, y = draw(first), draw(second, 1)
    expected = (
        np.outer(x.detach(), y.detach()) if name == "outer" else np.matmul(x.detach().numpy(), y.detach().numpy())
    )
    np.testing.assert_allclose(getattr(disttorch, name)(x, y).detach().numpy(), expected)
    np.testing.assert_allclose(getattr(x, name)(y).detach().numpy(), expected)
    assert gradcheck(getattr(disttorch, name), (x, y))
    if name != "outer":
        with pytest.raises(RuntimeError, match=f"{name}: expected"):
            getattr(disttorch, name)(x.unsqueeze(0), y)


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0.5, 2), (0, 1), (2, 0)])
def test_addmm(beta, alpha):
    bias, x, y = draw((4,), 2), draw((2, 3)), draw((3, 4), 1)
    expected = beta * bias.detach().numpy() + alpha * (x.detach().numpy() @ y.detach().numpy())
    function = lambda b, x, y: disttorch.addmm(b, x, y, beta=beta, alpha=alpha)  # noqa: E731
    np.testing.assert_allclose(function(bias, x, y).detach().numpy(), expected)
    assert gradcheck(function, (bias, x, y))
    nan = disttorch.full((4,), float("nan"), dtype=disttorch.float64)
    assert not disttorch.addmm(nan, x, y, beta=0).isnan().any()


def test_out_of_matmul():
    x, y, out = disttorch.ones(2, 3), disttorch.ones(3, 2), disttorch.empty(2, 2)
    assert disttorch.matmul(x, y, out=out) is out and out.tolist() == [[3.0, 3.0]] * 2
    assert disttorch.mm(x, y, out=out) is out


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: disttorch.ones(2, 3) @ disttorch.ones(4, 2), RuntimeError, r"\(2x3 and 4x2\)"),
        (lambda: disttorch.ones(3) @ disttorch.ones(4), RuntimeError, "3.*4"),
        (lambda: disttorch.ones(()) @ disttorch.ones(3), RuntimeError, "at least 1D"),
        (lambda: disttorch.ones(2, 3) @ disttorch.ones(3, 2).double(), RuntimeError, "float32 and disttorch.float64"),
        (lambda: disttorch.ones(2, 2, 3) @ disttorch.ones(3, 3, 2), RuntimeError, r"\[2, 2, 3\] and \[3, 3, 2\]"),
        (lambda: disttorch.bmm(disttorch.ones(1, 2, 3), disttorch.ones(2, 3, 2)), RuntimeError, "batch"),
        (lambda: disttorch.matmul(disttorch.ones(2), 3), TypeError, "int"),
        (lambda: disttorch.ones(2) @ 3, TypeError, "int"),
    ],
)
def test_errors_of_products(call, error, message):
    with pytest.raises(error, match=message):
        call()
