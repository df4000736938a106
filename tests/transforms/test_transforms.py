"""Transforms of images: what each one does, on one image and on each of a batch by itself."""

import numpy as np
import pytest

import disttorch as torch
from disttorch import transforms as T
from disttorch.nn import functional as F


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=12, channels=3, height=9, width=7, dtype=torch.float32):
    """Every pixel has its own value."""
    x = torch.arange(n * channels * height * width).reshape(n, channels, height, width)
    return x.to(dtype) if dtype != torch.uint8 else (x % 251).to(dtype)


def same(a, b):
    np.testing.assert_array_equal(a.numpy() if isinstance(a, torch.Tensor) else a, b.numpy() if isinstance(b, torch.Tensor) else b)


ALL = {
    "Pad": lambda g: T.Pad(2),
    "CenterCrop": lambda g: T.CenterCrop(5),
    "RandomCrop": lambda g: T.RandomCrop(5, padding=2, generator=g),
    "RandomHorizontalFlip": lambda g: T.RandomHorizontalFlip(generator=g),
    "RandomVerticalFlip": lambda g: T.RandomVerticalFlip(generator=g),
    "RandomErasing": lambda g: T.RandomErasing(0.8, generator=g),
    "Cutout": lambda g: T.Cutout(3, generator=g),
    "Resize": lambda g: T.Resize((4, 5)),
    "RandomResizedCrop": lambda g: T.RandomResizedCrop(6, generator=g),
    "RandomRotation": lambda g: T.RandomRotation(40, "bilinear", generator=g),
    "ColorJitter": lambda g: T.ColorJitter(0.4, 0.4, 0.4, 0.2, generator=g),
    "Grayscale": lambda g: T.Grayscale(3),
    "RandomApply": lambda g: T.RandomApply([T.RandomVerticalFlip(1)], generator=g),
    "RandomChoice": lambda g: T.RandomChoice([T.RandomVerticalFlip(1), T.RandomHorizontalFlip(1)], generator=g),
}
RANDOM = [name for name in ALL if "generator" in ALL[name](generator()).__dict__]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("name", ALL)
def test_shapes_dtypes_and_the_input_stays(name, dtype):
    x = images(dtype=dtype)
    x = x / x.max() if dtype != torch.uint8 else x
    before = x.clone()
    y = ALL[name](generator())(x)
    one = ALL[name](generator())(x[0])
    assert y.dtype == one.dtype == dtype and y.shape[1:] == one.shape and len(y) == 12
    assert ALL[name](generator())(x[:0]).shape == (0, *y.shape[1:])
    y.fill_(0)
    same(x, before)


@pytest.mark.parametrize("name", RANDOM)
def test_a_generator_decides_and_each_image_is_drawn_for(name):
    x = images(1, height=16, width=16).expand(24, 3, 16, 16).contiguous() / 800
    first, again, other = (ALL[name](generator(s))(x) for s in (1, 1, 2))
    same(first, again)
    assert (first != other).any()
    assert len({row.tobytes() for row in first.numpy()}) > 1
    torch.manual_seed(1)
    same(ALL[name](None)(x), first)  # the default generator, from the same seed


def test_pad():
    x = images(2, 1, 3, 4)
    for mode in ("constant", "edge", "reflect", "symmetric"):
        same(T.Pad((1, 2), padding_mode=mode)(x), np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (1, 1)), mode=mode))
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 4), (1, 3)), constant_values=7)
    same(T.Pad((1, 2, 3, 4), fill=7)(x), expected)
    same(T.Pad(1, fill=(1, 2, 3))(images())[:, :, 0, 0], np.tile([1, 2, 3], (12, 1)))


def test_center_crop():
    x = images(2, 1, 9, 7)
    same(T.CenterCrop((3, 5))(x), x[:, :, 3:6, 1:6])
    larger = T.CenterCrop((3, 9))(x)
    same(larger[..., 1:8], x[:, :, 3:6])
    assert larger[..., [0, 8]].abs().sum() == 0


@pytest.mark.parametrize("part", [slice(None), slice(3, 20, 2)])
def test_random_crop_is_a_part_of_each_image(part):
    x = images(200, 2, 6, 5)[part]
    y = T.RandomCrop((4, 3), generator=generator())(x)
    seen = set()
    for before, after in zip(x.numpy(), y.numpy(), strict=True):
        top, left = (int(v[0]) for v in np.nonzero(before[0] == after[0, 0, 0]))
        same(after, before[:, top : top + 4, left : left + 3])
        seen.add((top, left))
    assert len(seen) == 9 or len(x) < 100
    padded = T.RandomCrop((8, 5), pad_if_needed=True, generator=generator())(x)
    assert padded.shape[2:] == (8, 5)
    with pytest.raises(ValueError, match=r"crop size \(7, 3\) is larger than input image size \(6, 5\)"):
        T.RandomCrop((7, 3))(x)


@pytest.mark.parametrize(("flip", "axis"), [(T.RandomHorizontalFlip, 3), (T.RandomVerticalFlip, 2)])
def test_flips(flip, axis):
    x = images(400)
    y = flip(0.25, generator=generator())(x).numpy()
    turned = np.flip(x.numpy(), axis)
    flipped = (y == turned).all((1, 2, 3))
    same(y[~flipped], x.numpy()[~flipped])
    assert 60 < flipped.sum() < 140
    same(flip(1)(x), turned)
    same(flip(0)(x), x)


def test_erasing():
    x = torch.ones(400, 3, 20, 30)
    y = T.RandomErasing(0.5, scale=(0.1, 0.2), ratio=(0.5, 2), value=(5, 6, 7), generator=generator())(x).numpy()
    erased = y != 1
    assert 150 < erased.any((1, 2, 3)).sum() < 250
    for image, mask in zip(y, erased, strict=True):
        if not mask.any():
            continue
        same(mask[0], mask[2])
        rows, columns = mask[0].any(1), mask[0].any(0)
        same(mask[0], rows[:, None] & columns)  # a rectangle
        assert 0.07 < rows.sum() * columns.sum() / 600 < 0.23 and 0.4 < rows.sum() / columns.sum() < 2.4
        assert [image[c][mask[c]].min() for c in range(3)] == [5, 6, 7]
    drawn = T.RandomErasing(1, value="random", generator=generator())(x)
    assert 0.9 < drawn[drawn != 1].std() < 1.1
    T.RandomErasing(1, inplace=True, generator=generator())(x)
    assert (x == 0).any()


def test_cutout():
    y = T.Cutout(4, value=0, generator=generator())(torch.ones(500, 1, 8, 8)).numpy()[:, 0] == 0
    sizes = {(m.any(1).sum(), m.any(0).sum()) for m in y}
    assert sizes == {(h, w) for h in (2, 3, 4) for w in (2, 3, 4)}  # squares that stick out are cut off


def test_resize():
    x = images(2, 3, 8, 12) / 500
    same(T.Resize(4)(x), F.interpolate(x, (4, 6), mode="bilinear", antialias=True))
    same(T.Resize((5, 6), "nearest")(x), F.interpolate(x, (5, 6), mode="nearest"))
    same(T.Resize(4, antialias=False)(x), F.interpolate(x, (4, 6), mode="bilinear"))
    assert T.Resize(6, max_size=7)(x).shape[2:] == (4, 7)
    assert T.Resize(4)(x.transpose(2, 3)).shape[2:] == (6, 4)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (20, 30)])
def test_resized_crop_is_a_crop_that_is_resized(size, antialias):
    x = torch.rand(20, 2, 12, 16, dtype=torch.float64)
    y = T.RandomResizedCrop(size, scale=(0.2, 0.9), antialias=antialias, generator=generator(3))(x)
    boxes = T.RandomResizedCrop(size, scale=(0.2, 0.9), generator=generator(3)).boxes(20, 12, 16)
    for i, (top, left, h, w) in enumerate(zip(*boxes, strict=True)):
        part = x[i : i + 1, :, top : top + h, left : left + w]
        expected = F.interpolate(part, size, mode="bilinear", antialias=antialias)[0]
        np.testing.assert_allclose(y[i].numpy(), expected.numpy(), atol=1e-6)
        assert 0.12 < h * w / 192 <= 1 and 0.6 < w / h < 1.6


def test_resized_crop_with_nearest():
    x = images(10)
    y = T.RandomResizedCrop(4, interpolation="nearest", generator=generator(3))(x)
    boxes = T.RandomResizedCrop(4, generator=generator(3)).boxes(10, 9, 7)
    for i, (top, left, h, w) in enumerate(zip(*boxes, strict=True)):
        same(y[i], F.interpolate(x[i : i + 1, :, top : top + h, left : left + w], 4, mode="nearest")[0])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_by_right_angles(quarters, interpolation):
    """Counter-clockwise, as rot90."""
    x = torch.rand(3, 2, 8, 8)
    y = T.RandomRotation((90 * quarters,) * 2, interpolation)(x)
    np.testing.assert_allclose(y.numpy(), np.rot90(x.numpy(), quarters, (2, 3)), atol=1e-5)


def test_rotation_by_any_angle():
    """A linear function of the place, turned about the middle, is one still; and what comes in is `fill`."""
    height, width, angle = 14, 20, 25.0
    rows, columns = np.mgrid[:height, :width] + 0.5
    x = torch.tensor(columns - width / 2)[None, None]
    y = T.RandomRotation((angle, angle), "bilinear", fill=99)(x.expand(2, 3, height, width).contiguous()).numpy()[1, 2]
    a = np.radians(angle)
    u, v = columns - width / 2, rows - height / 2
    source_x, source_y = np.cos(a) * u - np.sin(a) * v, np.sin(a) * u + np.cos(a) * v
    inside = (abs(source_x) <= width / 2 - 0.5) & (abs(source_y) <= height / 2 - 0.5)
    outside = (abs(source_x) > width / 2 + 0.5) | (abs(source_y) > height / 2 + 0.5)
    assert inside.sum() > 100 and outside.sum() > 10
    np.testing.assert_allclose(y[inside], source_x[inside], atol=1e-9)
    same(y[outside], np.full(outside.sum(), 99.0))
    fixed = torch.rand(1, 1, 9, 9)
    about = T.RandomRotation((90, 90), center=(2.5, 6.5))(fixed)
    assert about[0, 0, 6, 2] == fixed[0, 0, 6, 2] and about[0, 0, 4, 2] == fixed[0, 0, 6, 4]


def test_normalize():
    x = torch.rand(4, 3, 5, 6, dtype=torch.float64)
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    expected = (x.numpy() - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(T.Normalize(mean, std)(x).numpy(), expected, rtol=1e-14)
    T.Normalize(mean, std, inplace=True)(x[0])
    np.testing.assert_allclose(x[0].numpy(), expected[0], rtol=1e-14)


def test_to_tensor_and_conversion():
    a = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    same(T.ToTensor()(a), (a.transpose(2, 0, 1) / np.float32(255)).astype(np.float32))
    assert T.ToTensor()(np.stack([a, a])).shape == (2, 3, 4, 5)
    assert T.ToTensor()(a[..., 0]).shape == (1, 4, 5)
    assert T.ToTensor()(a.astype(np.int32)).dtype == torch.int32
    every = torch.arange(256).to(torch.uint8).reshape(1, 16, 16)
    as_float = T.ConvertImageDtype(torch.float32)(every)
    np.testing.assert_allclose(as_float.numpy(), every.numpy() / 255, rtol=1e-6)
    same(T.ConvertImageDtype(torch.uint8)(as_float), every)
    wide = T.ConvertImageDtype(torch.int16)(every)
    assert wide.max() == 255 * 128 and wide.dtype == torch.int16
    same(T.ConvertImageDtype(torch.uint8)(wide), every)
    with pytest.raises(RuntimeError, match="cannot be performed safely"):
        T.ConvertImageDtype(torch.int32)(as_float)


def by_colorsys(x, turn):
    import colorsys

    def one(pixel):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((h + turn) % 1, s, v)

    return np.apply_along_axis(one, 1, x)


def test_color_jitter():
    x = torch.rand(3, 3, 5, 4, dtype=torch.float64)
    a = x.numpy()
    gray = (a * np.reshape([0.2989, 0.587, 0.114], (3, 1, 1))).sum(1, keepdims=True)
    cases = [
        ({"brightness": (1.5, 1.5)}, np.clip(a * 1.5, 0, 1)),
        ({"contrast": (0.5, 0.5)}, 0.5 * a + 0.5 * gray.mean((1, 2, 3), keepdims=True)),
        ({"saturation": (1.7, 1.7)}, np.clip(1.7 * a - 0.7 * gray, 0, 1)),
        ({"hue": (0.3, 0.3)}, by_colorsys(a, 0.3)),
        ({"hue": (-0.5, -0.5)}, by_colorsys(a, -0.5)),
        ({}, a),
    ]
    for options, expected in cases:
        np.testing.assert_allclose(T.ColorJitter(**options)(x).numpy(), expected, atol=1e-12)
    same(T.Grayscale()(x), gray)
    assert T.ColorJitter(0.4, 0.4, 0.4, 0.1)(x[:, :1]).shape == (3, 1, 5, 4)
    rounded = T.ColorJitter(brightness=(0.5, 0.5))(torch.full((1, 3, 1, 1), 201, dtype=torch.uint8))
    assert rounded.flatten().tolist() in ([100] * 3, [101] * 3)


def test_some_and_one_of_several():
    x = images(300, 1, 4, 4)
    up, left = x.numpy()[:, :, ::-1], x.numpy()[..., ::-1]
    y = T.RandomApply([T.RandomVerticalFlip(1)], 0.3, generator())(x).numpy()
    assert 60 < (y == up).all((1, 2, 3)).sum() < 120
    y = T.RandomChoice([T.RandomVerticalFlip(1), T.RandomHorizontalFlip(1)], [1, 3], generator())(x).numpy()
    first, second = (y == up).all((1, 2, 3)).sum(), (y == left).all((1, 2, 3)).sum()
    assert first + second == 300 and 45 < first < 105
    double = T.Lambda(lambda img: img * 2)
    orders = {T.RandomOrder([double, T.Lambda(lambda img: img + 1)], generator(s))(torch.ones(1, 1, 1)).item() for s in range(20)}
    assert orders == {3, 4}
    same(T.Compose([double, double])(x), x * 4)


REFUSED = [
    (lambda: T.RandomCrop(3)(np.zeros((3, 4, 4))), TypeError, "expected a Tensor image, got ndarray"),
    (lambda: T.Pad(1)(torch.zeros(4, 4)), ValueError, r"got shape \[4, 4\]"),
    (lambda: T.Pad((1, 2, 3)), ValueError, "3 element tuple"),
    (lambda: T.Pad(1, padding_mode="wrap"), ValueError, "padding_mode must be one of"),
    (lambda: T.CenterCrop(0), ValueError, "size must be a positive int"),
    (lambda: T.RandomHorizontalFlip(1.5), ValueError, "p must be between 0 and 1, got 1.5"),
    (lambda: T.Normalize(0, 0), ValueError, "std evaluated to zero"),
    (lambda: T.Normalize([0, 0], 1)(torch.zeros(3, 2, 2)), ValueError, "mean has 2 numbers, for 3 channels"),
    (lambda: T.Normalize(0, 1)(torch.zeros(3, 2, 2, dtype=torch.uint8)), TypeError, "should be a float tensor"),
    (lambda: T.ColorJitter(hue=0.6), ValueError, "between -0.5 and 0.5"),
    (lambda: T.ColorJitter(brightness=-1), ValueError, "must be non negative"),
    (lambda: T.ColorJitter()(torch.zeros(2, 3, 3)), ValueError, "these have 2"),
    (lambda: T.RandomErasing(value="noise"), ValueError, "should be 'random'"),
    (lambda: T.RandomRotation(-3), ValueError, "must be positive"),
    (lambda: T.RandomResizedCrop(3, interpolation="cubic"), ValueError, "must be 'bilinear' or 'nearest'"),
    (lambda: T.Resize(4, max_size=4), ValueError, "max_size = 4 must be strictly greater"),
    (lambda: T.RandomApply([T.Pad(1)], 1)(torch.zeros(2, 1, 3, 3)), ValueError, r"would be \[1, 5, 5\]"),
    (lambda: T.RandomChoice([T.Pad(1)], [1, 2]), ValueError, "1 transforms with the weights"),
    (lambda: T.ToTensor()([1, 2]), TypeError, "should be PIL Image or ndarray. Got list"),
    (lambda: T.ToTensor()(np.zeros(3)), ValueError, "Got 1 dimensions"),
    (lambda: T.Lambda(3), TypeError, "should be callable, got int"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
