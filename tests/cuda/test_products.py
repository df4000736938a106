"""Matrix products through cuBLAS: against NumPy in float64, without copies of what cuBLAS can read, in the stream and to the precision
that was asked for. On the stand-in for the device, whose cuBLAS reads raw addresses.
"""

import itertools
import threading
from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

from tests import stand_in
from tests.stand_in import cublas as library
from tests.stand_in import devices, host_cuda
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

DTYPES = {
    "float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-14, "complex64": 1e-6, "complex128": 1e-14,
}  # fmt: skip
FLOAT32, TF32, FLOAT64 = 68, 77, 70


@pytest.fixture(scope="module")
def torch():
    with tensors() as module:
        yield module


@pytest.fixture(scope="module")
def products(torch):
    return import_module("disttorch.backend.cuda.products")


@pytest.fixture(scope="module")
def cupy(torch):
    return import_module("cupy")


@pytest.fixture(autouse=True)
def _no_calls_yet():
    library.CublasHandle.calls.clear()


def dtype_of(name):
    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if np.dtype(dtype_of(dtype)).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype_of(dtype))


def exact(a):
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def check(found, expected, tolerance):
    assert found.shape == expected.shape
    np.testing.assert_allclose(exact(found.get()), expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


# --- matmul -----------------------------------------------------------------------------------------------------------------

SHAPES = [
    ((3, 4), (4, 5)), ((1, 4), (4, 1)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)),
    ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (1, 6, 4, 5)), ((2, 6, 3, 4), (6, 4, 5)),
    ((7, 1, 1, 4), (4, 3)), ((1, 1, 1), (1, 1, 1)), ((3, 2, 2, 5, 4), (2, 1, 4, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tolerance"), DTYPES.items())
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_shapes(products, cupy, a, b, name, tolerance):
    x, y = numbers(a, name, 1), numbers(b, name, 2)
    found = products.matmul(cupy.asarray(x), cupy.asarray(y))
    assert found.dtype == x.dtype
    check(found, np.matmul(exact(x), exact(y)), tolerance)


@pytest.mark.parametrize(
    ("a", "b"), [((0, 4), (4, 5)), ((3, 0), (0, 5)), ((3, 4), (4, 0)), ((0, 3, 4), (4, 5)), ((2, 3, 0), (2, 0, 5)), ((0,), (0,))]
)
def test_nothing_to_add_up_is_zero(products, cupy, a, b):
    check(products.matmul(cupy.ones(a, "f"), cupy.ones(b, "f")), np.matmul(np.ones(a), np.ones(b)), 0)
    assert not library.CublasHandle.calls


#: how the last two dimensions of an operand lie in memory
LAYOUTS = {
    "rows": lambda cupy, a: cupy.asarray(a),
    "columns": lambda cupy, a: cupy.asarray(np.ascontiguousarray(a.swapaxes(-1, -2))).swapaxes(-1, -2),
    "rows of a wider matrix": lambda cupy, a: cupy.asarray(np.concatenate([a, a, a], -1))[..., : a.shape[-1]],
    "columns of a wider matrix": lambda cupy, a: cupy.asarray(
        np.ascontiguousarray(np.concatenate([a, a], -2).swapaxes(-1, -2))
    ).swapaxes(-1, -2)[..., : a.shape[-2], :],
    "heads behind positions": lambda cupy, a: (
        cupy.asarray(np.ascontiguousarray(np.moveaxis(a, -3, -2))).swapaxes(-3, -2) if a.ndim > 2 else cupy.asarray(a)
    ),
    "repeated": lambda cupy, a: cupy.broadcast_to(cupy.asarray(a[:1]), a.shape) if a.ndim > 2 else cupy.asarray(a),
}
COPIED = {
    "every other column": lambda cupy, a: cupy.asarray(np.repeat(a, 2, -1))[..., ::2],
    "backwards": lambda cupy, a: cupy.asarray(np.ascontiguousarray(a[..., ::-1]))[..., ::-1],
    "one row repeated": lambda cupy, a: cupy.broadcast_to(cupy.asarray(a[..., :1, :]), a.shape),
}


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((6, 3, 4), (6, 4, 5)), ((2, 3, 3, 4), (2, 3, 4, 5)), ((2, 3, 4), (4, 5))], ids=str)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_layouts_are_read_where_they_lie(products, cupy, shapes, first, second):
    x, y = (numbers(s, "float32", i) for i, s in enumerate(shapes))
    a, b = LAYOUTS[first](cupy, x), LAYOUTS[second](cupy, y)
    expected = np.matmul(exact(a.get()), exact(b.get()))
    with stand_in.calls() as launched:
        found = products.matmul(a, b)
    assert set(launched) == {"cublasGemm"}
    check(found, expected, 1e-6)


@pytest.mark.parametrize("how", COPIED)
@pytest.mark.parametrize("side", [0, 1])
def test_what_cublas_cannot_read_is_copied(products, cupy, how, side):
    operands = [cupy.asarray(numbers((5, 3, 4), "float64", 1)), cupy.asarray(numbers((5, 4, 3), "float64", 2))]
    operands[side] = COPIED[how](cupy, operands[side].get())
    check(products.matmul(*operands), np.matmul(*(a.get() for a in operands)), 1e-14)


def test_one_matrix_for_a_batch_is_one_product(products, cupy):
    products.matmul(cupy.ones((7, 5, 3, 4), "f"), cupy.ones((4, 6), "f"))
    assert library.CublasHandle.calls == [(0, 0, 6, 7 * 5 * 3, 4, 1, 0, FLOAT32, 0)]


def test_a_batch_is_one_call(products, cupy):
    products.matmul(cupy.ones((7, 5, 3, 4), "f"), cupy.ones((7, 5, 6, 4), "f").swapaxes(-1, -2))
    assert library.CublasHandle.calls == [(1, 0, 6, 3, 4, 35, 0, FLOAT32, 0)]


def test_batches_at_unequal_distances_take_few_calls(products, cupy):
    q = cupy.asarray(numbers((40, 5, 6, 4), "float32")).swapaxes(1, 2)  # 40 sequences of 6 heads, positions before heads
    k = cupy.asarray(numbers((40, 6, 5, 4), "float32", 1)).swapaxes(-1, -2)
    check(products.matmul(q, k), np.matmul(exact(q.get()), exact(k.get())), 1e-6)
    assert [call[5] for call in library.CublasHandle.calls] == [40] * 6
    library.CublasHandle.calls.clear()
    q = cupy.asarray(numbers((40, 5, 30, 4), "float32")).swapaxes(1, 2)  # 30 heads would be 30 calls: copied
    k = cupy.asarray(numbers((40, 30, 5, 4), "float32", 1)).swapaxes(-1, -2)
    check(products.matmul(q, k), np.matmul(exact(q.get()), exact(k.get())), 1e-6)
    assert [call[5] for call in library.CublasHandle.calls] == [1200]


def test_other_types(products, cupy):
    whole = cupy.asarray(np.arange(6).reshape(2, 3))
    check(products.matmul(whole, whole.T), np.arange(6).reshape(2, 3) @ np.arange(6).reshape(2, 3).T, 0)
    mixed = products.matmul(cupy.ones((2, 3), "f"), cupy.ones((3, 2), "d"))
    assert mixed.dtype == np.float64
    assert not [call for call in library.CublasHandle.calls if call[6] != 1]


def test_shapes_that_do_not_fit(products, cupy):
    for a, b in (((2, 3), (4, 5)), ((2, 3, 4), (3, 4, 5)), ((3,), (4,))):
        with pytest.raises(ValueError, match=r"fit|broadcast"):
            products.matmul(cupy.ones(a, "f"), cupy.ones(b, "f"))


# --- linear -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tolerance"), DTYPES.items())
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (4,), (0, 4)], ids=str)
@pytest.mark.parametrize("bias", [None, (5,), ()], ids=str)
def test_linear(products, cupy, shape, bias, name, tolerance):
    x, weight = numbers(shape, name, 1), numbers((5, 4), name, 2)
    b = None if bias is None else numbers(bias, name, 3)
    found = products.linear(cupy.asarray(x), cupy.asarray(weight), None if b is None else cupy.asarray(b))
    expected = exact(x) @ exact(weight).T + (0 if b is None else exact(b))
    assert found.dtype == x.dtype
    check(found, expected, tolerance)


def test_linear_is_one_product_on_the_bias_and_rounds_once(products, cupy):
    x, weight, bias = np.float16([[2048]]), np.float16([[1]]), np.float16([1.5])  # 2049.5, of which float16 has 2048 and 2050
    with stand_in.calls() as launched:
        found = products.linear(cupy.asarray(x), cupy.asarray(weight), cupy.asarray(bias))
    assert found.get() == 2050
    assert [name for name in launched if "from_host" not in name] == ["cublasLtMatmul"]
    # rounded twice, 2048 + 1.5 would come to 2050 too: three quarters tell it apart
    x, bias = np.float16([[2048, 0.75]]), np.float16([0.5])
    weight = np.float16([[1, 1]])
    assert products.linear(cupy.asarray(x), cupy.asarray(weight), cupy.asarray(bias)).get() == 2050


def test_without_an_algorithm_the_product_is_added_to_the_bias(products, cupy, monkeypatch):
    monkeypatch.setattr(library.CublasHandle, "without_algorithm", {(11, 3, 13)})
    x, weight, bias = (cupy.asarray(numbers(s, "float16", i)) for i, s in enumerate([(3, 13), (11, 13), (11,)]))
    for _ in range(2):
        check(products.linear(x, weight, bias), exact(x.get()) @ exact(weight.get()).T + exact(bias.get()), 2e-3)
    assert [call[-1] for call in library.CublasHandle.calls] == [0, 0]
    assert [asked[:3] for asked in library.CublasHandle.asked].count((11, 3, 13)) == 1


def test_descriptions_are_kept_and_limited(products, cupy, monkeypatch):
    monkeypatch.setattr("disttorch.backend.cuda.cublas_lt.MOST", 2)
    library.CublasHandle.asked.clear()
    for rows in (101, 102, 101, 103, 101, 102):
        products.linear(cupy.ones((rows, 4), "f"), cupy.ones((5, 4), "f"), cupy.ones(5, "f"))
    assert [asked[1] for asked in library.CublasHandle.asked] == [101, 102, 103, 102]


def test_layouts_of_a_linear_map(products, cupy):
    x, weight, bias = numbers((6, 4), "float32", 1), numbers((5, 4), "float32", 2), numbers((40,), "float32", 3)
    for first, second in itertools.product(("rows", "columns", "rows of a wider matrix"), repeat=2):
        a, b = LAYOUTS[first](cupy, x), LAYOUTS[second](cupy, weight)
        for shift in (cupy.asarray(bias)[:5], cupy.asarray(bias)[1:6], cupy.asarray(bias)[::8]):  # 16 bytes, 4 bytes; not contiguous
            check(products.linear(a, b, shift), exact(x) @ exact(weight).T + exact(shift.get()), 1e-6)
    odd = cupy.asarray(numbers((6 * 4 + 1,), "float32"))[1:].reshape(6, 4)  # not at a multiple of 16 bytes
    found = products.linear(odd, cupy.asarray(weight), cupy.asarray(bias)[:5])
    check(found, exact(odd.get()) @ exact(weight).T + exact(bias[:5]), 1e-6)


def test_half_types_are_added_up_in_float32(products, cupy):
    ones = cupy.ones((1, 5000), "e")
    assert products.matmul(ones, ones.T).get() == 5000  # float16 would stay at 2048


# --- what users choose ------------------------------------------------------------------------------------------------------


def restore(torch):
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True


def test_tf32_by_choice(torch, products, cupy):
    x, y = numbers((30, 40), "float32", 1), numbers((40, 50), "float32", 2)
    expected = exact(x) @ exact(y)

    def error():
        return np.abs(products.matmul(cupy.asarray(x), cupy.asarray(y)).get() - expected).max()

    try:
        assert error() < 1e-5
        torch.backends.cuda.matmul.allow_tf32 = True
        assert torch.get_float32_matmul_precision() == "high"
        assert 1e-4 < error() < 0.1
        torch.set_float32_matmul_precision("medium")
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert 1e-4 < error() < 0.1
        products.matmul(cupy.ones((2, 2), "d"), cupy.ones((2, 2), "d"))
        products.matmul(cupy.ones((2, 2), "e"), cupy.ones((2, 2), "e"))
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        assert error() < 1e-5
    finally:
        restore(torch)
    assert [call[7] for call in library.CublasHandle.calls] == [FLOAT32, TF32, TF32, FLOAT64, FLOAT32, FLOAT32]
    with pytest.raises(RuntimeError, match="fp32_precision must be"):
        torch.backends.cuda.matmul.fp32_precision = "fast"


def test_reductions_in_half_types_by_choice(torch, products, cupy):
    half, brain = cupy.ones((2, 2), "e"), cupy.ones((2, 2), ml_dtypes.bfloat16)
    try:
        products.matmul(half, half)
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        products.matmul(half, half)
        products.matmul(brain, brain)
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = (False, True)
        products.matmul(brain, brain)
    finally:
        restore(torch)
    assert [call[8] for call in library.CublasHandle.calls] == [0, 16, 0, 16]
    with pytest.raises(TypeError, match="expects a bool"):
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = "no"


def test_devices_without_bfloat16_compute_in_float32(monkeypatch, products, cupy):
    properties = devices.properties
    monkeypatch.setattr("tests.stand_in.devices.properties", lambda number: {**properties(number), "major": 7, "minor": 0})
    monkeypatch.setattr(import_module("disttorch.backend.cuda.cublas").handle(), "has_bfloat16", False)
    x, y = numbers((3, 4), "bfloat16", 1), numbers((4, 5), "bfloat16", 2)
    found = products.matmul(cupy.asarray(x), cupy.asarray(y))
    assert found.dtype == ml_dtypes.bfloat16
    check(found, exact(x) @ exact(y), 1e-2)
    found = products.linear(cupy.asarray(x), cupy.asarray(y.T), cupy.asarray(y[0]))
    assert found.dtype == ml_dtypes.bfloat16
    assert {call[6] for call in library.CublasHandle.calls} == {0}


def test_a_handle_knows_its_device(products, cupy, monkeypatch):
    cublas = import_module("disttorch.backend.cuda.cublas")
    properties = devices.properties(0)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda number: {**properties, "major": 7, "minor": 0})
    assert not cublas.Handle(0).has_bfloat16
    assert cublas.Handle(0).workspace_size < cublas.handle().workspace_size == 32 << 20


# --- streams and captures ---------------------------------------------------------------------------------------------------


def test_products_go_to_the_current_stream(products, cupy):
    x = cupy.asarray(numbers((3, 3), "float32"))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, pytest.raises(RuntimeError, match="nothing orders"):  # it reads x before x is there
        products.matmul(x, x)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        found = products.matmul(x, x)
    with pytest.raises(stand_in.OrderError):
        found + 1
    cupy.cuda.get_current_stream().wait_event(stream.record())
    check(found, exact(x.get()) @ exact(x.get()), 1e-6)


def test_a_captured_product_is_computed_again(torch):
    x = torch.ones(3, 3, device="cuda")
    torch.mm(x, x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        y = torch.nn.functional.linear(torch.mm(x, x), x, x[0])
    x.fill_(2)
    graph.replay()
    assert y.tolist() == [[3 * 3 * 2 * 2 * 2 + 2] * 3] * 3


def test_threads_that_begin_have_the_handles_of_those_that_have_ended(products, cupy, monkeypatch):
    cublas = import_module("disttorch.backend.cuda.cublas")
    x, used = cupy.ones((2, 2), "f"), []

    def multiply():
        products.matmul(x, x)
        used.append(cublas.handle())

    multiply()
    for _ in range(5):
        thread = threading.Thread(target=multiply)
        thread.start()
        thread.join()
    ours, *theirs = used
    assert len(set(map(id, theirs))) == 1 and ours not in theirs


def test_errors_name_the_call(products, cupy, monkeypatch):
    cublas = import_module("disttorch.backend.cuda.cublas")
    x = cupy.ones((2, 2), "f")
    with pytest.raises(cublas.CublasError, match=r"cublasGemmEx of m, n, k = \(2, 2, 2\): the leading dimension of A, 1, is less"):
        cublas.product((2, 2, 2), (0, x.data.ptr, 1), (0, x.data.ptr, 2), (x.data.ptr, 2), 0, FLOAT32, False)
