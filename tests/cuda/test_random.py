"""Random numbers made by our CUDA kernels, compiled for the host and run on the stand-in."""

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

import disttorch
from tests import stand_in
from tests.stand_in import host_cuda

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture(autouse=True)
def cupy():
    with stand_in.installed() as module:
        yield module


@pytest.fixture
def philox(cupy):
    from disttorch.backend.cuda.kernels.random import Philox

    return Philox


def test_bits_are_those_of_philox(cupy, philox):
    """The known answers that come with Random123 1.14 (kat_vectors), for counter and key 0 and for the one with digits of pi."""
    source = philox(0)
    assert [int(w) for w in cupy.asnumpy(source.integers(0, 2**64, (2,), np.uint64))] == [0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8]
    source.restart(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    assert source.where() == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=lambda t: np.dtype(t).name)
def test_uniform_and_normal(cupy, philox, dtype):
    source = philox(1)
    u = cupy.asnumpy(source.random((20001,), dtype)).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    z = cupy.asnumpy(source.standard_normal((20001,), dtype)).astype(np.float64)
    if np.dtype(dtype).itemsize > 2:
        assert stats.kstest(u, "uniform").pvalue > 1e-3
        assert stats.kstest(z, "norm").pvalue > 1e-3
    else:  # of few values
        assert abs(u.mean() - 0.5) < 0.01
        assert abs(z.mean()) < 0.03
        assert abs(z.std() - 1) < 0.03


def fits(counts, chances):
    """Whether counts are likely to have come by these chances; rare values are put together."""
    counts, expected = np.asarray(counts, float), np.asarray(chances) * np.sum(counts)
    often = expected > 5
    rest = np.append(counts[often], counts[~often].sum()), np.append(expected[often], np.sum(counts) - expected[often].sum())
    keep = rest[1] > 1
    if keep.sum() < 2:  # nothing left to chance
        return not rest[0][~keep].any()
    return stats.chisquare(rest[0][keep], rest[1][keep] * rest[0][keep].sum() / rest[1][keep].sum()).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.3, 1.0, 5.0])
def test_gamma(cupy, philox, shape):
    drawn = cupy.asnumpy(philox(2).standard_gamma(cupy.full((8000,), shape)))
    assert stats.kstest(drawn, "gamma", (shape,)).pvalue > 1e-3


def test_gamma_of_shapes_at_the_edges(cupy, philox):
    drawn = cupy.asnumpy(philox(2).standard_gamma(cupy.asarray([0.0, np.inf, -1.0, np.nan, 1e300])))
    np.testing.assert_array_equal(drawn[:4], [0, np.inf, np.nan, np.nan])
    assert drawn[4] == pytest.approx(1e300)


@pytest.mark.parametrize("rate", [0.0, 0.5, 5.0, 12.0, 100.0])
def test_poisson(cupy, philox, rate):
    drawn = cupy.asnumpy(philox(3).poisson(cupy.full((20000,), rate)))
    counts = np.bincount(drawn)
    assert fits(counts, stats.poisson(rate).pmf(np.arange(len(counts))))


@pytest.mark.parametrize(("n", "p"), [(10, 0.0), (10, 0.3), (5, 0.9), (100, 0.4), (1000, 0.7), (3, 1.0)])
def test_binomial(cupy, philox, n, p):
    drawn = cupy.asnumpy(philox(4).binomial(cupy.full((20000,), n), cupy.full((20000,), p)))
    assert fits(np.bincount(drawn, minlength=n + 1), stats.binom(n, p).pmf(np.arange(n + 1)))


def test_integers(cupy, philox):
    source = philox(5)
    drawn = cupy.asnumpy(source.integers(-5, 7, (12000,)))
    assert fits(np.bincount(drawn + 5, minlength=12), np.full(12, 1 / 12))
    whole = cupy.asnumpy(source.integers(-(2**63), 2**63, (2000,)))
    assert (whole < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert cupy.asnumpy(source.integers(0, 3, (5,), np.int32)).dtype == np.int32


def test_the_grid_does_not_change_the_numbers(cupy, philox, monkeypatch):
    from disttorch.backend.cuda.kernels import arrays

    drawn = []
    for most in (8192, 3):
        monkeypatch.setattr(arrays, "MOST_BLOCKS", most)
        source = philox(6)
        numbers, counts = source.random((5003,), np.float32), source.poisson(cupy.full((2000,), 3.0))
        drawn.append([cupy.asnumpy(numbers), cupy.asnumpy(counts), source.where()])
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    assert drawn[0][2] == drawn[1][2] == (6, 1251 + 2000)


def test_dropout_says_what_it_kept(cupy, philox):
    for n in (1, 7, 8, 4099):
        x = cupy.asarray(np.arange(1, n + 1, dtype=np.float32))
        out, kept = philox(7).dropout(x, 0.25, 1 / 0.75)
        kept = cupy.asnumpy(kept)
        np.testing.assert_allclose(cupy.asnumpy(out), np.arange(1, n + 1) * kept / 0.75, rtol=1e-6)
    assert kept.mean() == pytest.approx(0.75, abs=0.03)


def test_a_generator_goes_on_where_its_state_says(cupy):
    generator = disttorch.Generator("cuda").manual_seed(8)
    first = disttorch.rand(5, generator=generator, device="cuda")
    state = generator.get_state()
    second = disttorch.randn(5, generator=generator, device="cuda")
    generator.set_state(state)
    assert (disttorch.randn(5, generator=generator, device="cuda") == second).all()
    copy = generator.clone_state()
    assert (disttorch.rand(3, generator=copy, device="cuda") == disttorch.rand(3, generator=generator, device="cuda")).all()
    generator.manual_seed(8)
    assert (disttorch.rand(5, generator=generator, device="cuda") == first).all()


def test_seeding_again_keeps_the_memory_that_captured_graphs_draw_from(cupy):
    generator = disttorch.Generator("cuda").manual_seed(9)
    generator.begin()
    address = generator._source._state.data.ptr
    generator.manual_seed(10)
    generator.set_state(generator.get_state())
    assert generator._source._state.data.ptr == address


def test_nothing_waits_for_the_device(cupy):
    x = disttorch.ones(4, 8, device="cuda", requires_grad=True)
    with stand_in.no_synchronisation(), stand_in.calls() as calls:
        disttorch.nn.functional.dropout(x, 0.5).sum().backward()
        q = x.reshape(1, 4, 8)
        disttorch.nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5).sum().backward()
        disttorch.rand(3, device="cuda")
        disttorch.bernoulli(x.detach() * 0.5)
    assert {"dropout", "where_kept", "draw_integers", "kept_by_seed", "draw_uniform"} <= set(calls)


def test_dropout_of_a_tensor_and_its_gradient(cupy):
    disttorch.manual_seed(11)
    x = disttorch.ones(50, 8, device="cuda", requires_grad=True)
    out = disttorch.nn.functional.dropout(x, 0.5)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.cpu().numpy(), out.detach().cpu().numpy())
    assert set(np.unique(out.detach().cpu().numpy())) == {0.0, 2.0}
    (again,) = disttorch.autograd.grad(disttorch.nn.functional.dropout(x, 0.5).sum(), x, create_graph=True)
    assert again.requires_grad is False or again.sum().item() > 0


def test_streams_draw_one_after_the_other(cupy, philox):
    """What two streams draw at the same time is ordered: the stand-in finds it if it is not."""
    source = philox(12)
    drawn = []
    for stream in (cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)):
        with stream:
            drawn.append(source.random((10,), np.float32))
            drawn.append(source.dropout(cupy.ones((10,), np.float32), 0.5, 2.0)[0])
    assert source.where() == (12, 2 * (3 + 4))


def test_a_kernel_that_cannot_be_compiled_says_which(cupy, monkeypatch):
    from disttorch.backend.cuda.kernels import compilation

    monkeypatch.setattr(compilation, "text_of", lambda source: "extern \"C\" __global__ void f(float* x) { *x = undefined_name; }")
    monkeypatch.setitem(compilation.VARIANTS, "wrong.cu", [{"ELEMENT": "float32"}])
    with pytest.raises(RuntimeError, match="undefined_name"):
        compilation.function("wrong.cu", "f", ELEMENT="float32")
    with pytest.raises(ValueError, match="not declared to be compiled with"):
        compilation.function("wrong.cu", "f", ELEMENT="float8")
