"""Convolution and attention by cuDNN: what the graphs compute, against the plain kernels in float64; how plans are chosen, kept and run;
and what happens where cuDNN has no plan, or is not there. On the stand-in for the device and for cuDNN.
"""

import sys
import threading
import warnings
from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend.cpu import cpu
from disttorch.backend.kernels import PLAIN
from tests import stand_in
from tests.stand_in import cudnn as library
from tests.stand_in import devices, host_cuda
from tests.stand_in.cudnn import Engine, Graph, numerical_note
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-13}


@pytest.fixture
def torch():
    with tensors() as module:
        Graph.executed.clear()
        Graph.built.clear()
        yield module


@pytest.fixture
def kernels(torch):
    return import_module("disttorch.backend.cuda.cudnn").CUDNN_KERNELS


@pytest.fixture
def cupy(torch):
    return import_module("cupy")


@pytest.fixture
def exact(torch):
    """Without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def engines_used():
    return [number for _, number in Graph.executed]


def numbers(shape, dtype, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def wide(a):
    return a if a is None or a.dtype == bool else a.astype(np.float64)


def close(found, expected, tolerance):
    found = found.get() if hasattr(found, "get") else found
    assert found.shape == expected.shape
    np.testing.assert_allclose(wide(found), expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max(initial=0)))


# --- convolution ------------------------------------------------------------------------------------------------------------

#: input, weight, stride, padding, dilation, groups
WINDOWS = {
    "one dimension": ((2, 3, 11), (4, 3, 3), (2,), (1,), (1,), 1),
    "plain": ((2, 3, 6, 7), (4, 3, 3, 2), (1, 1), (0, 0), (1, 1), 1),
    "all at once": ((2, 4, 9, 8), (6, 2, 3, 2), (2, 1), (1, 2), (2, 3), 2),
    "each channel": ((2, 4, 6, 6), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    "stride leaves a rest": ((1, 2, 8, 8), (3, 2, 3, 3), (3, 3), (0, 0), (1, 1), 1),
    "pointwise": ((3, 4, 5, 5), (2, 4, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "one channel": ((2, 1, 5, 5), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "three dimensions": ((2, 2, 5, 4, 6), (4, 1, 2, 3, 2), (1, 2, 1), (1, 0, 1), (2, 1, 1), 2),
}


def channels_last(cupy, a):
    return cupy.moveaxis(cupy.asarray(np.ascontiguousarray(np.moveaxis(a, 1, -1))), -1, 1)


def lies_channels_last(a):
    return np.moveaxis(a._a, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("last", [False, True], ids=["in order", "channels last"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", WINDOWS)
def test_convolution_and_its_gradients(kernels, cupy, exact, case, dtype, last):
    x_shape, w_shape, *window = WINDOWS[case]
    place = channels_last if last else lambda cupy, a: cupy.asarray(a)
    x, w = numbers(x_shape, dtype, 1), numbers(w_shape, dtype, 2)
    on_device, weight = place(cupy, x), cupy.asarray(w)
    out = kernels["convolution"](on_device, weight, *window)
    expected = PLAIN["convolution"](cpu, wide(x), wide(w), *window)
    g = numbers(expected.shape, dtype, 3)
    gx = kernels["convolution_input"](place(cupy, g), weight, x_shape, *window)
    gw = kernels["convolution_weight"](place(cupy, g), on_device, w_shape, *window)
    assert [name for name, _ in Graph.executed] == ["conv_fprop", "conv_dgrad", "conv_wgrad"]
    assert out.dtype == gx.dtype == gw.dtype == x.dtype
    close(out, expected, TOLERANCE[dtype])
    close(gx, PLAIN["convolution_input"](cpu, wide(g), wide(w), x_shape, *window), TOLERANCE[dtype])
    close(gw, PLAIN["convolution_weight"](cpu, wide(g), wide(x), w_shape, *window), TOLERANCE[dtype])
    if last and (x_shape[1] > 1 or len(x_shape) > 3):
        assert lies_channels_last(out)
        assert lies_channels_last(gx)
    else:
        assert out.flags.c_contiguous


def test_other_layouts_are_copied(kernels, cupy, exact):
    x, w = numbers((2, 3, 6, 8), "float32"), numbers((2, 3, 3, 3), "float32")
    window = ((1, 1), (1, 1), (1, 1), 1)
    for a in (cupy.asarray(np.repeat(x, 2, 3))[..., ::2], cupy.asarray(x.swapaxes(2, 3).copy()).swapaxes(2, 3)):
        close(kernels["convolution"](a, cupy.asarray(w), *window), PLAIN["convolution"](cpu, wide(x), wide(w), *window), 1e-5)
    assert len(Graph.executed) == 2


@pytest.mark.parametrize("case", ["no images", "two types", "integers"])
def test_what_is_not_cudnns_goes_the_plain_way(kernels, cupy, case):
    x, w = cupy.ones((0 if case == "no images" else 2, 3, 5, 5), "f"), cupy.ones((2, 3, 3, 3), "d" if case == "two types" else "f")
    if case == "integers":
        x, w = x.astype("i8"), w.astype("i8")
    out = kernels["convolution"](x, w, (1, 1), (0, 0), (1, 1), 1)
    assert out.shape == (len(x), 2, 3, 3)
    assert (out.get() == 27).all()
    assert not Graph.executed


def test_shapes_that_do_not_fit(kernels, cupy):
    with pytest.raises(RuntimeError, match="with groups=1, a weight of shape"):
        kernels["convolution"](cupy.ones((1, 2, 5, 5), "f"), cupy.ones((1, 3, 3, 3), "f"), (1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(RuntimeError, match="the convolution's output has the shape"):
        kernels["convolution_input"](cupy.ones((1, 1, 9, 9), "f"), cupy.ones((1, 3, 3, 3), "f"), (1, 3, 5, 5), (1, 1), (0, 0), (1, 1), 1)


def test_modules_train_on_it(torch):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3, padding=1, device="cuda", dtype=torch.float64)
    x = torch.randn(2, 3, 5, 5, device="cuda", dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert {name for name, _ in Graph.executed} == {"conv_fprop", "conv_dgrad", "conv_wgrad"}


# --- plans ------------------------------------------------------------------------------------------------------------------

CONVOLUTION = ((2, 3, 5, 5), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1)


def convolve(kernels, cupy, dtype="float32", seed=1):
    x_shape, w_shape, *window = CONVOLUTION
    x, w = numbers(x_shape, dtype, seed), numbers(w_shape, dtype, seed + 1)
    out = kernels["convolution"](cupy.asarray(x), cupy.asarray(w), *window)
    return np.abs(wide(out.get()) - PLAIN["convolution"](cpu, wide(x), wide(w), *window)).max()


def test_a_plan_is_built_once(kernels, cupy):
    for seed in range(3):
        convolve(kernels, cupy, seed=seed)
    convolve(kernels, cupy, "float16")
    assert Graph.built == ["conv_fprop"] * 2
    assert len(Graph.executed) == 4


def test_plans_kept_are_limited(kernels, cupy, monkeypatch):
    plans = import_module("disttorch.backend.cuda.cudnn.plans")
    monkeypatch.setattr(plans, "MOST_PLANS", 2)
    for dtype in ("float32", "float16", "float32", "float64", "float32", "float16"):
        convolve(kernels, cupy, dtype)
    assert len(Graph.built) == 4  # float16, which was not used for longest, went when float64 came, and was built again
    assert len(import_module("disttorch.backend.cuda.cudnn.library").of_thread().plans) == 2


def test_tf32_by_choice(torch, kernels, cupy):
    assert torch.backends.cudnn.allow_tf32
    assert 1e-4 < convolve(kernels, cupy) < 1e-1
    torch.backends.cudnn.allow_tf32 = False
    assert convolve(kernels, cupy) < 1e-5
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert convolve(kernels, cupy) > 1e-4
    assert engines_used() == [3, 0, 3]
    convolve(kernels, cupy, "float16")
    assert engines_used()[-1] == 3  # tensor cores are exact for half types


def test_only_deterministic_engines_by_choice(torch, kernels, cupy):
    convolve(kernels, cupy)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        convolve(kernels, cupy)
    torch.use_deterministic_algorithms(True)
    try:
        convolve(kernels, cupy)
    finally:
        torch.use_deterministic_algorithms(False)
    convolve(kernels, cupy)
    assert engines_used() == [3, 1, 1, 3]


def test_not_at_all_by_choice(torch, kernels, cupy):
    with torch.backends.cudnn.flags(enabled=False):
        assert convolve(kernels, cupy) < 1e-5
    assert not Graph.built
    assert torch.backends.cudnn.enabled


def test_the_fastest_by_choice(torch, kernels, cupy, monkeypatch):
    times = iter([5.0, 1.0, 9.0])
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda begin, end: next(times))
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        assert convolve(kernels, cupy) < 1
        tried = engines_used()
        assert sorted(set(tried)) == [0, 1, 3]
        assert tried[-1] == 1
        convolve(kernels, cupy)
        assert engines_used() == [*tried, 1]
    times = iter([2.0, 7.0])
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda begin, end: next(times))
    Graph.executed.clear()
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, benchmark_limit=2):
        convolve(kernels, cupy, "float16")
    assert set(engines_used()) == {3, 1}
    assert engines_used()[-1] == 3


def test_engines_that_fail_to_build_are_passed_over(kernels, cupy, monkeypatch):
    monkeypatch.setattr(library, "ENGINES", [Engine(5, fails=True), Engine(20510), Engine(2)])
    assert convolve(kernels, cupy) < 1e-5
    assert engines_used() == [2]


def test_no_engine_that_builds_is_said(kernels, cupy, monkeypatch):
    monkeypatch.setattr(library, "ENGINES", [Engine(5, fails=True)])
    with pytest.warns(RuntimeWarning, match="could build none of its engines .* CUDNN_STATUS_INTERNAL_ERROR"):
        assert convolve(kernels, cupy) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and not again
        assert convolve(kernels, cupy) < 1e-5
    assert len(Graph.built) == 1


def test_what_cudnn_itself_refuses_is_said(kernels, cupy, monkeypatch):
    """The frontend tells most of what there is no engine for by an exception of its own; what cuDNN's calls say is a RuntimeError."""
    monkeypatch.setattr(Graph, "build_operation_graph", fails(RuntimeError("CUDNN_BACKEND_API_FAILED: CUDNN_STATUS_NOT_SUPPORTED")))
    with pytest.warns(RuntimeWarning, match="computed without it: .*CUDNN_STATUS_NOT_SUPPORTED"):
        assert convolve(kernels, cupy) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convolve(kernels, cupy) < 1e-5


def test_no_engine_at_all_is_remembered(kernels, cupy, monkeypatch):
    monkeypatch.setattr(library, "ENGINES", [Engine(20510), Engine(3, frozenset({numerical_note.NONDETERMINISTIC}))][:1])
    for _ in range(2):
        assert convolve(kernels, cupy) < 1e-5
    assert Graph.built == ["conv_fprop"]


def test_each_thread_and_stream(torch, kernels, cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    x, w = cupy.asarray(numbers(CONVOLUTION[0], "float32")), cupy.asarray(numbers(CONVOLUTION[1], "float32"))
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        out = kernels["convolution"](x, w, *CONVOLUTION[2:])
    with pytest.raises(stand_in.OrderError, match="nothing orders"):
        out + 1
    cupy.cuda.get_current_stream().wait_event(stream.record())
    again = kernels["convolution"](x, w, *CONVOLUTION[2:])
    assert (out == again).all()
    assert Graph.built == ["conv_fprop"]


def test_threads_that_begin_have_what_those_that_have_ended_made(torch, kernels, cupy):
    x, w = cupy.asarray(numbers(CONVOLUTION[0], "float32")), cupy.asarray(numbers(CONVOLUTION[1], "float32"))
    for _ in range(4):
        thread = threading.Thread(target=lambda: kernels["convolution"](x, w, *CONVOLUTION[2:]))
        thread.start()
        thread.join()
    assert Graph.built == ["conv_fprop"]


def test_captured_and_replayed(torch):
    x = torch.ones(1, 1, 4, 4, device="cuda")
    w = torch.ones(1, 1, 3, 3, device="cuda")
    torch.nn.functional.conv2d(x, w)
    graph = torch.cuda.CUDAGraph()
    with torch.backends.cudnn.flags(enabled=True, benchmark=True), torch.cuda.graph(graph, capture_error_mode="relaxed"):
        y = torch.nn.functional.conv2d(x, w)  # nothing is tried while a graph is captured
    x.fill_(2)
    graph.replay()
    assert y.tolist() == [[[[18, 18], [18, 18]]]]


def test_the_first_of_all_is_captured(torch):
    """The handle is made within the capture, and takes memory from the driver."""
    x, w = torch.ones(1, 1, 4, 4, device="cuda"), torch.ones(1, 1, 3, 3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = torch.nn.functional.conv2d(x, w)
    graph.replay()
    assert y.tolist() == [[[[9, 9], [9, 9]]]]
    assert len(Graph.built) == 1


# --- attention --------------------------------------------------------------------------------------------------------------


def operands(dtype, heads=(2, 3), length=5, keys=7, size=8, columns=16):
    shapes = ((*heads, length, size), (*heads, keys, size), (*heads, keys, columns), (*heads, length, columns))
    return [numbers(s, dtype, i) for i, s in enumerate(shapes)]


MASKS = {
    "none": lambda rng, heads, length, keys: None,
    "keys": lambda rng, heads, length, keys: rng.random((1,) * len(heads) + (1, keys)) < 0.7,
    "all": lambda rng, heads, length, keys: rng.random((*heads, length, keys)) < 0.6,
    "rows without keys": lambda rng, heads, length, keys: np.broadcast_to(
        (np.arange(length) % 2 == 0)[:, None], (1,) * len(heads) + (length, keys)
    ).copy(),
    "added": lambda rng, heads, length, keys: rng.standard_normal((1,) * len(heads) + (length, keys)).astype("f"),
    "minus infinity": lambda rng, heads, length, keys: np.where(rng.random((*heads, length, keys)) < 0.6, 0.5, -np.inf).astype("f"),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("heads", [(2, 3), (3,), (), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("mask", ["none", "causal", *(m for m in MASKS if m != "none")])
def test_attention_and_its_gradients(kernels, cupy, dtype, heads, mask):
    q, k, v, g = operands(dtype, heads)
    causal = mask == "causal"
    m = None if causal else MASKS[mask](np.random.default_rng(5), heads, 5, 7)
    given = [cupy.asarray(a) for a in (q, k, v)]
    m_there = None if m is None else cupy.asarray(m)
    out, lse = kernels["attention"](*given, m_there, causal, 0.3, 0.0, 0)
    wanted, wanted_lse = PLAIN["attention"](cpu, wide(q), wide(k), wide(v), wide(m), causal, 0.3, 0.0, 0)
    tolerance = TOLERANCE[dtype]
    assert out.dtype == q.dtype
    assert lse.dtype == np.float32
    close(out, wanted, tolerance)
    close(lse, wanted_lse, tolerance)
    found = kernels["attention_backward"](cupy.asarray(g), *given, m_there, out, lse, causal, 0.3, 0.0, 0, False)
    expected = PLAIN["attention_backward"](
        cpu, wide(g), wide(q), wide(k), wide(v), wide(m), wanted, wanted_lse, causal, 0.3, 0.0, 0, False
    )
    assert [name for name, _ in Graph.executed] == ["attention", "attention_backward"]
    assert found[3] is None
    for ours, theirs in zip(found[:3], expected[:3]):
        assert ours.dtype == q.dtype
        close(ours, theirs, 3 * tolerance)


def test_heads_behind_positions_are_read_where_they_lie(kernels, cupy):
    q, k, v, g = (cupy.asarray(np.ascontiguousarray(a.swapaxes(1, 2))).swapaxes(1, 2) for a in operands("float16"))
    with stand_in.calls() as launched:
        out, lse = kernels["attention"](q, k, v, None, True, 0.3, 0.0, 0)
        gradients = kernels["attention_backward"](g, q, k, v, None, out, lse, True, 0.3, 0.0, 0, False)
    assert launched == ["attention", "attention_backward"]
    for a in (out, *gradients[:3]):  # and so are the results written
        assert a.swapaxes(1, 2).flags.c_contiguous


@pytest.mark.parametrize("case", ["float32", "dropout", "causal and mask", "gradient at the mask", "size", "no keys", "forbidden"])
def test_attention_that_is_not_cudnns(torch, kernels, cupy, case):
    size, keys = 12 if case == "size" else 8, 0 if case == "no keys" else 7
    q, k, v, g = operands("float32" if case == "float32" else "float16", size=size, keys=keys)
    mask = np.ones((1, 1, 5, 7), bool) if "mask" in case else None
    causal, p = case == "causal and mask", 0.5 if case == "dropout" else 0.0
    given = [cupy.asarray(a) for a in (q, k, v)]
    there = None if mask is None else cupy.asarray(mask)
    if case == "forbidden":
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
    try:
        out, lse = kernels["attention"](*given, there, causal, 0.3, p, 0)
        need = case == "gradient at the mask"
        if case != "dropout":
            kernels["attention_backward"](cupy.asarray(g), *given, there, out, lse, causal, 0.3, p, 0, need)
            close(out, PLAIN["attention"](cpu, wide(q), wide(k), wide(v), mask, causal, 0.3, p, 0)[0], 4e-3)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
        torch.backends.cuda.enable_flash_sdp(True)
    assert [name for name, _ in Graph.executed] == (["attention"] if case == "gradient at the mask" else [])


def test_sdpa_kernel_chooses(torch):
    attention = import_module("disttorch.nn.attention")
    q = torch.ones(1, 1, 4, 8, device="cuda", dtype=torch.float16)
    with attention.sdpa_kernel(attention.SDPBackend.MATH):
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert not Graph.executed
    for allowed in (attention.SDPBackend.FLASH_ATTENTION, attention.SDPBackend.CUDNN_ATTENTION):
        with attention.sdpa_kernel(allowed):
            torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert len(Graph.executed) == 2
    assert torch.backends.cuda.math_sdp_enabled()


# --- without cuDNN ----------------------------------------------------------------------------------------------------------


def fails(error):
    def raises(*_):
        raise error

    return raises


@pytest.mark.parametrize("case", ["no package", "no library", "too old", "old device"])
def test_what_is_missing_is_said_once_and_done_without(torch, cupy, kernels, monkeypatch, case):
    if case == "no package":
        monkeypatch.setitem(sys.modules, "cudnn", None)
        why = "import of cudnn halted"
    elif case == "no library":
        monkeypatch.setattr(sys.modules["cudnn"], "backend_version", fails(RuntimeError("Unable to find symbol cudnnGetVersion")))
        why = "Unable to find symbol cudnnGetVersion"
    elif case == "too old":
        monkeypatch.setattr(sys.modules["cudnn"], "backend_version", lambda: 8907)
        why = "version 8907 of cuDNN is too old"
    else:
        monkeypatch.setattr(sys.modules["cudnn"], "backend_version", lambda: 92000)
        properties = devices.properties(0)
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda number: {**properties, "major": 7, "minor": 0})
        why = "no kernels for device 0 of compute capability 7.0"
    with pytest.warns(RuntimeWarning, match=rf"without cuDNN, .*{why}.*pip install"):
        assert convolve(kernels, cupy) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q, k, v, _ = (cupy.asarray(a) for a in operands("float16"))
        kernels["attention"](q, k, v, None, True, 0.3, 0.0, 0)
        assert convolve(kernels, cupy) < 1e-5
        if case != "old device":
            assert torch.backends.cudnn.version() is None
            assert not torch.backends.cudnn.is_available()
    assert not Graph.built


def test_version(torch):
    assert torch.backends.cudnn.version() == 91000
    assert torch.backends.cudnn.is_available()
    assert torch.backends.cudnn.is_acceptable(torch.ones(1, device="cuda"))
    assert not torch.backends.cudnn.is_acceptable(torch.ones(1, device="cpu"))
    assert not torch.backends.cudnn.is_acceptable(torch.ones(1, device="cuda", dtype=torch.int64))
