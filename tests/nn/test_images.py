"""Resizing, sampling, folding, padding and irregular pooling: values from their definitions, derivatives from differences."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

F = disttorch.nn.functional


def normal(*shape, seed=7):
    return np.random.default_rng(seed).normal(size=shape)


def leaf(array):
    return disttorch.tensor(array, requires_grad=True)


# name, shapes of the inputs that ask for gradients, other arguments
DERIVATIVES = [
    ("interpolate", [(1, 2, 5)], {"size": 8}),
    ("interpolate", [(1, 2, 5)], {"size": 3, "mode": "nearest-exact"}),
    ("interpolate", [(1, 2, 7)], {"size": 3, "mode": "area"}),
    ("interpolate", [(1, 2, 5)], {"scale_factor": 1.7, "mode": "linear"}),
    ("interpolate", [(1, 2, 3, 4)], {"size": (5, 2), "mode": "bilinear", "align_corners": True}),
    ("interpolate", [(1, 1, 7, 6)], {"size": (3, 9), "mode": "bilinear", "antialias": True}),
    ("interpolate", [(1, 1, 4, 5)], {"size": (7, 3), "mode": "bicubic"}),
    ("interpolate", [(1, 1, 9, 8)], {"size": (4, 5), "mode": "lanczos", "antialias": True}),
    ("interpolate", [(1, 1, 2, 3, 2)], {"scale_factor": (2, 1, 1.5), "mode": "trilinear"}),
    ("pad", [(1, 2, 4, 5)], {"pad": (2, 1, 1, 3), "mode": "reflect"}),
    ("pad", [(1, 2, 4)], {"pad": (3, -1), "mode": "replicate"}),
    ("pad", [(1, 4, 5)], {"pad": (-1, 4, 0, 2), "mode": "circular"}),
    ("pad", [(2, 3)], {"pad": (-1, 2, 1, 0), "value": 1.5}),
    ("unfold", [(2, 2, 4, 5)], {"kernel_size": (2, 3), "padding": 1, "stride": (1, 2)}),
    ("fold", [(1, 8, 8)], {"output_size": (4, 5), "kernel_size": 2, "dilation": (2, 1), "stride": (1, 2), "padding": (1, 0)}),
    ("pixel_shuffle", [(1, 8, 2, 3)], {"upscale_factor": 2}),
    ("pixel_unshuffle", [(2, 4, 6)], {"downscale_factor": 2}),
    ("channel_shuffle", [(2, 6, 3)], {"groups": 3}),
    ("adaptive_max_pool1d", [(2, 2, 7)], {"output_size": 3}),
    ("adaptive_max_pool2d", [(1, 2, 5, 6)], {"output_size": (3, None)}),
    ("adaptive_max_pool3d", [(1, 4, 3, 5)], {"output_size": 2}),
    ("local_response_norm", [(2, 5, 3)], {"size": 3, "alpha": 0.5}),
    ("local_response_norm", [(1, 4, 2, 3)], {"size": 2}),
]
MODES = [(m, p, a) for m in ("bilinear", "nearest", "bicubic") for p in ("zeros", "border", "reflection") for a in (False, True)]


@pytest.mark.parametrize(("name", "shapes", "options"), DERIVATIVES, ids=lambda v: str(v).replace(" ", ""))
def test_derivatives(name, shapes, options):
    inputs = [leaf(normal(*s)) for s in shapes]
    assert gradcheck(lambda *x: getattr(F, name)(*x, **options), inputs)
    assert gradgradcheck(lambda *x: getattr(F, name)(*x, **options), inputs)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_derivatives_of_power_means(ndim):
    x = leaf(np.abs(normal(2, 2, *(4, 5, 4)[:ndim])) + 0.2)
    assert gradcheck(lambda x: getattr(F, f"lp_pool{ndim}d")(x, 3, 2, ceil_mode=True), [x])
    assert gradgradcheck(lambda x: getattr(F, f"lp_pool{ndim}d")(x, 3, 2, ceil_mode=True), [x])


@pytest.mark.parametrize(("mode", "padding", "corners"), MODES)
def test_derivatives_of_sampling(mode, padding, corners):
    image = leaf(normal(2, 1, 3, 4))
    # beyond the image too, but not where a derivative jumps
    grid = np.random.default_rng(3).uniform(-1.4, 1.4, (2, 2, 1, 2))
    inputs = [image, leaf(grid)]
    assert gradcheck(lambda x, g: F.grid_sample(x, g, mode, padding, corners), inputs)
    if mode != "nearest":
        assert gradgradcheck(lambda x, g: F.grid_sample(x, g, mode, padding, corners), inputs)


def test_derivatives_of_sampling_volumes():
    inputs = [leaf(normal(1, 2, 3, 4, 3)), leaf(np.random.default_rng(3).uniform(-1.2, 1.2, (1, 2, 2, 1, 3)))]
    assert gradcheck(lambda x, g: F.grid_sample(x, g, align_corners=False), inputs)
    assert gradgradcheck(lambda x, g: F.grid_sample(x, g, align_corners=False), inputs)
    assert gradcheck(lambda t: F.affine_grid(t, (2, 1, 3, 2, 2)), [leaf(normal(2, 3, 4))])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_unpooling_is_the_transpose_of_gathering(ndim):
    x = disttorch.tensor(normal(2, 2, *(6, 4, 4)[:ndim]))
    out, indices = getattr(F, f"max_pool{ndim}d")(x, 2, return_indices=True)
    back = getattr(F, f"max_unpool{ndim}d")(out, indices, 2)
    expected = np.zeros(x.shape).reshape(2, 2, -1)
    np.put_along_axis(expected, indices.numpy().reshape(2, 2, -1), out.numpy().reshape(2, 2, -1), 2)
    np.testing.assert_array_equal(back.numpy().reshape(2, 2, -1), expected)
    assert gradcheck(lambda y: getattr(F, f"max_unpool{ndim}d")(y, indices, 2), [leaf(normal(*out.shape))])
    assert gradgradcheck(lambda y: getattr(F, f"max_unpool{ndim}d")(y, indices, 2), [leaf(normal(*out.shape))])


@pytest.mark.parametrize(("mode", "corners"), [("linear", False), ("linear", True), ("cubic", False)])
def test_interpolation_by_definition(mode, corners):
    size, length = 7, 11
    x = normal(size)
    step = (size - 1) / (length - 1) if corners else size / length

    def keys(t, a=-0.75):
        t = abs(t)
        return (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    expected = []
    for i in range(length):
        at = i * step if corners else (i + 0.5) * step - 0.5
        if mode == "linear":
            expected.append(np.interp(at, np.arange(size), x))
        else:
            near = range(int(np.floor(at)) - 1, int(np.floor(at)) + 3)
            expected.append(sum(keys(at - j) * x[min(max(j, 0), size - 1)] for j in near))
    image = disttorch.tensor(x).reshape(1, 1, 1, size)
    found = F.interpolate(image, size=(1, length), mode={"linear": "bilinear", "cubic": "bicubic"}[mode], align_corners=corners)
    np.testing.assert_allclose(found.numpy()[0, 0, 0], expected, rtol=1e-12, atol=1e-12)


def test_nearest_by_definition():
    x = disttorch.arange(10.0).reshape(1, 1, 10)
    for length in range(1, 25):
        floor = [i * 10 // length for i in range(length)]
        exact = [min(9, int(np.floor((i + 0.5) * 10 / length))) for i in range(length)]
        assert F.interpolate(x, size=length).numpy()[0, 0].astype(int).tolist() == floor
        assert F.interpolate(x, size=length, mode="nearest-exact").numpy()[0, 0].astype(int).tolist() == exact


def test_an_infinity_stays_where_it_is():
    x = np.zeros((1, 1, 1, 8))
    x[..., 2] = np.inf
    found = F.interpolate(disttorch.tensor(x), scale_factor=(1, 2), mode="bilinear").numpy()[0, 0, 0]
    assert np.isinf(found[3:7]).all()
    assert (found[[0, 1, 2, 7, 8, 15]] == 0).all()


@pytest.mark.parametrize("kind", ["reflect", "replicate", "circular"])
def test_padding_as_numpy(kind):
    x = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[kind]
    for dtype in ("int64", "uint8", "float32", "bfloat16"):
        t = disttorch.tensor(x).to(getattr(disttorch, dtype))
        found = F.pad(t, (3, 2, 1, 3), mode=kind)
        assert found.dtype == t.dtype
        np.testing.assert_array_equal(found.to(disttorch.int64).numpy(), np.pad(x, ((0, 0), (1, 3), (3, 2)), mode=mode))


def test_bilinear_sampling_as_scipy():
    from scipy.ndimage import map_coordinates

    image, grid = normal(1, 1, 6, 7), np.random.default_rng(5).uniform(-1.3, 1.3, (1, 4, 5, 2))
    at = (grid[0, ..., 1] + 1) / 2 * 5, (grid[0, ..., 0] + 1) / 2 * 6
    for padding, name in (("border", "nearest"), ("zeros", "grid-constant")):
        expected = map_coordinates(image[0, 0], at, order=1, mode=name)
        found = F.grid_sample(disttorch.tensor(image), disttorch.tensor(grid), padding_mode=padding, align_corners=True)
        np.testing.assert_allclose(found.numpy()[0, 0], expected, rtol=1e-10, atol=1e-12)


def test_an_identity_map_samples_the_image():
    image = disttorch.tensor(normal(2, 3, 4, 5))
    theta = disttorch.tensor([[1.0, 0, 0], [0, 1, 0]]).double().expand(2, 2, 3)
    for corners in (False, True):
        grid = F.affine_grid(theta, (2, 3, 4, 5), align_corners=corners)
        found = F.grid_sample(image, grid, align_corners=corners)
        np.testing.assert_allclose(found.numpy(), image.numpy(), rtol=1e-12, atol=1e-12)


def test_points_that_are_no_numbers_break_nothing():
    grid = disttorch.tensor([[[[float("nan"), 0.0], [1e30, 0.0], [-float("inf"), 0.0]]]])
    for mode in ("bilinear", "nearest", "bicubic"):
        found = F.grid_sample(disttorch.ones(1, 1, 3, 3), grid, mode, align_corners=False)
        assert (found.numpy() == 0).all(), mode


def test_folding_counts_the_windows():
    x = disttorch.ones(1, 1, 4, 5)
    columns = F.unfold(x, (2, 3))
    assert tuple(columns.shape) == (1, 6, 9)
    rows, width = [1, 2, 2, 1], [1, 2, 3, 2, 1]
    np.testing.assert_array_equal(F.fold(columns, (4, 5), (2, 3)).numpy()[0, 0], np.outer(rows, width))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 6), (7, 9)])
def test_adaptive_maxima_by_definition(shape):
    x = normal(2, 2, 5, 6)
    x[0, 0, 2, 3] = np.nan
    found, indices = F.adaptive_max_pool2d(disttorch.tensor(x), shape, return_indices=True)
    for i in range(shape[0]):
        for j in range(shape[1]):
            rows = slice(i * 5 // shape[0], -(-(i + 1) * 5 // shape[0]))
            columns = slice(j * 6 // shape[1], -(-(j + 1) * 6 // shape[1]))
            np.testing.assert_array_equal(found.numpy()[:, :, i, j], x[:, :, rows, columns].max((2, 3)))
    flat = x.reshape(2, 2, -1)
    np.testing.assert_array_equal(np.take_along_axis(flat, indices.numpy().reshape(2, 2, -1), 2).reshape(found.shape), found.numpy())


@pytest.mark.parametrize("ndim", [2, 3])
def test_fractional_windows_cover_and_hold_their_maxima(ndim):
    disttorch.manual_seed(1)
    x = disttorch.tensor(normal(2, 3, *(9,) * ndim))
    function = getattr(F, f"fractional_max_pool{ndim}d")
    out, indices = function(x, 2, output_ratio=0.55, return_indices=True)
    assert tuple(out.shape) == (2, 3, *(4,) * ndim)
    np.testing.assert_array_equal(
        np.take_along_axis(x.numpy().reshape(2, 3, -1), indices.numpy().reshape(2, 3, -1), 2).reshape(out.shape), out.numpy()
    )
    # windows lie in order, begin at the beginning and end at the end
    first = indices.numpy().reshape(2, 3, 4, -1) // 9 ** (ndim - 1)
    assert (np.diff(first.min(3), axis=2) >= 0).all()
    assert (first[:, :, 0] <= 1).all()
    assert (first[:, :, -1] >= 7).all()
    few = leaf(normal(1, 2, *(4,) * ndim))
    assert gradcheck(lambda x: function(x, 2, output_size=2, _random_samples=disttorch.full((1, 2, ndim), 0.3).double()), [few])


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ValueError, lambda x: F.interpolate(x)),
        (ValueError, lambda x: F.interpolate(x, size=3, scale_factor=2)),
        (ValueError, lambda x: F.interpolate(x, size=3, align_corners=True)),
        (ValueError, lambda x: F.interpolate(x, size=(3, 3, 3))),
        (ValueError, lambda x: F.interpolate(x, size=3, antialias=True)),
        (ValueError, lambda x: F.interpolate(x, size=3, mode="lanczos")),
        (NotImplementedError, lambda x: F.interpolate(x, size=3, mode="linear")),
        (NotImplementedError, lambda x: F.interpolate(x, size=3, mode="sharp")),
        (RuntimeError, lambda x: F.interpolate(x, size=0)),
        (TypeError, lambda x: F.interpolate(x, size=(2.5, 2))),
        (ValueError, lambda x: F.grid_sample(x, x, mode="linear")),
        (RuntimeError, lambda x: F.grid_sample(x, disttorch.zeros(1, 2, 2, 3))),
        (RuntimeError, lambda x: F.grid_sample(x, disttorch.zeros(2, 2, 2, 2))),
        (RuntimeError, lambda x: F.fold(x[0], (4, 4), 2)),
        (RuntimeError, lambda x: F.unfold(x, 9)),
        (RuntimeError, lambda x: F.pixel_shuffle(x, 2)),
        (RuntimeError, lambda x: F.channel_shuffle(x, 2)),
        (RuntimeError, lambda x: F.max_unpool2d(x, disttorch.full(x.shape, 64), 2)),
        (ValueError, lambda x: F.max_unpool2d(x, disttorch.zeros(*x.shape, dtype=disttorch.int64), 2, output_size=(99, 8))),
        (ValueError, lambda x: F.fractional_max_pool2d(x, 2)),
        (RuntimeError, lambda x: F.fractional_max_pool2d(x, 3, output_size=4)),
        (RuntimeError, lambda x: F.pad(x, (4, 0), mode="reflect")),
        (NotImplementedError, lambda x: F.pad(x, (1, 0), mode="mirror")),
        (ValueError, lambda x: F.local_response_norm(x[0, 0], 2)),
    ],
)
def test_errors(error, call):
    with pytest.raises(error):
        call(disttorch.ones(1, 3, 4, 4))
