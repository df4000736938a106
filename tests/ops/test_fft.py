"""Fourier transforms against NumPy's and the sum they are, spectrograms and windows against SciPy's."""

import numpy as np
import pytest
import scipy.signal

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(5)
NORMS = [None, "backward", "ortho", "forward"]


def real(*shape):
    return RNG.normal(size=shape)


def complex_(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 4, 7, 9])
@pytest.mark.parametrize("kind", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_dimension(kind, n, norm):
    a = (real if kind in ("rfft", "ihfft") else complex_)(2, 7)
    found = getattr(disttorch.fft, kind)(disttorch.tensor(a), n, norm=norm).numpy()
    expected = getattr(np.fft, kind)(a, n, norm=norm)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("s", "dim"), [(None, None), (None, (0, 2)), ((4, 3), (1, 2)), ((3, 8), None), (None, (2, 0))])
@pytest.mark.parametrize("kind", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_dimensions(kind, s, dim, norm):
    a = (real if kind == "rfftn" else complex_)(3, 5, 6)
    found = getattr(disttorch.fft, kind)(disttorch.tensor(a), s, dim, norm).numpy()
    if s is not None and dim is None:
        dim = (1, 2)  # what PyTorch does with s alone, and NumPy no longer
    np.testing.assert_allclose(found, getattr(np.fft, kind)(a, s, dim, norm), atol=1e-12)


def test_hermitian_in_several_dimensions():
    a = disttorch.tensor(complex_(3, 4))
    half = disttorch.fft.ihfft2(disttorch.fft.hfft2(a, s=(3, 7)))
    again = disttorch.fft.hfftn(half, s=(3, 7))
    np.testing.assert_allclose(again.numpy(), disttorch.fft.hfft2(a, s=(3, 7)).numpy(), atol=1e-12)
    np.testing.assert_allclose(
        disttorch.fft.hfft2(a).numpy(), np.fft.hfft(np.fft.fft(a.numpy(), axis=0), axis=1), atol=1e-12
    )


def test_it_is_the_sum_that_the_definition_says():
    a = complex_(6)
    k = np.arange(6)
    matrix = np.exp(-2j * np.pi * np.outer(k, k) / 6)
    np.testing.assert_allclose(disttorch.fft.fft(disttorch.tensor(a)).numpy(), matrix @ a, atol=1e-12)


def as_parts(x):
    return disttorch.view_as_real(x) if x.is_complex() else x


DIFFERENTIABLE = {
    "fft": (disttorch.fft.fft, complex_(2, 5)),
    "fft, longer": (lambda x: disttorch.fft.fft(x, 7, norm="ortho"), complex_(5)),
    "fft, shorter": (lambda x: disttorch.fft.fft(x, 3, 0), complex_(5, 2)),
    "fft of real": (disttorch.fft.fft, real(5)),
    "ifftn": (disttorch.fft.ifftn, complex_(2, 3)),
    "rfft, odd": (disttorch.fft.rfft, real(2, 5)),
    "rfft, even": (lambda x: disttorch.fft.rfft(x, norm="forward"), real(6)),
    "rfft2": (disttorch.fft.rfft2, real(3, 4)),
    "irfft, odd": (lambda x: disttorch.fft.irfft(x, 5), complex_(3)),
    "irfft, even": (disttorch.fft.irfft, complex_(2, 4)),
    "irfft, of one": (lambda x: disttorch.fft.irfft(x, 1), complex_(3)),
    "irfft, of two": (lambda x: disttorch.fft.irfft(x, 2), complex_(3)),
    "irfftn": (disttorch.fft.irfftn, complex_(3, 3)),
    "hfft": (disttorch.fft.hfft, complex_(4)),
    "hfftn": (disttorch.fft.hfftn, complex_(2, 3)),
    "ihfft": (disttorch.fft.ihfft, real(5)),
    "ihfft2": (disttorch.fft.ihfft2, real(3, 4)),
    "fftshift": (disttorch.fft.fftshift, real(3, 4)),
    "stft": (lambda x: disttorch.stft(x, 6, 2, window=disttorch.hann_window(6).double(), return_complex=True), real(20)),
    "stft, without center": (lambda x: disttorch.stft(x, 4, 3, center=False, onesided=False, return_complex=True), real(2, 11)),
    "istft": (lambda x: disttorch.istft(x, 6, 2, window=disttorch.hann_window(6).double()), complex_(4, 5)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    function, a = DIFFERENTIABLE[name]
    is_complex = a.dtype.kind == "c"
    x = disttorch.tensor(np.stack((a.real, a.imag), -1) if is_complex else a, requires_grad=True)

    def of_parts(x):
        return as_parts(function(disttorch.view_as_complex(x) if is_complex else x))

    assert gradcheck(of_parts, [x])
    assert gradgradcheck(of_parts, [x])


def test_dtypes():
    for name, dtype, result in [
        ("fft", disttorch.float32, disttorch.complex64), ("fft", disttorch.float64, disttorch.complex128),
        ("rfft", disttorch.int64, disttorch.complex64), ("irfft", disttorch.complex64, disttorch.float32),
        ("hfft", disttorch.bool, disttorch.float32),
    ]:  # fmt: skip
        assert getattr(disttorch.fft, name)(disttorch.ones(4, dtype=dtype)).dtype is result
    out = disttorch.empty(4, dtype=disttorch.complex64)
    assert disttorch.fft.fft(disttorch.ones(4), out=out) is out and out[0].item() == 4


REFUSED = [
    (lambda: disttorch.fft.rfft(disttorch.ones(4, dtype=disttorch.complex64)), RuntimeError, "real input.*complex64"),
    (lambda: disttorch.fft.fft(disttorch.ones(4), 0), RuntimeError, r"data points \(0\)"),
    (lambda: disttorch.fft.fft(disttorch.ones(4), norm="both"), RuntimeError, "'both'"),
    (lambda: disttorch.fft.fft(disttorch.ones(4), dim=1), IndexError, "out of range"),
    (lambda: disttorch.fft.fft(disttorch.tensor(1.0)), IndexError, "no dimensions"),
    (lambda: disttorch.fft.fft2(disttorch.ones(4, 4), dim=(0, 0)), RuntimeError, "more than once"),
    (lambda: disttorch.fft.fftn(disttorch.ones(4, 4), (4,), (0, 1)), RuntimeError, "same length"),
    (lambda: disttorch.fft.fft([1.0]), TypeError, "list"),
    (lambda: disttorch.fft.fft(disttorch.ones(4).half()), RuntimeError, "float16"),
    (lambda: disttorch.stft(disttorch.ones(9), 4), RuntimeError, "return_complex"),
    (lambda: disttorch.stft(disttorch.ones(9), 16, center=False, return_complex=True), RuntimeError, "n_fft=16"),
    (lambda: disttorch.istft(disttorch.ones(3, 2), 4), RuntimeError, "complex-valued"),
    (lambda: disttorch.signal.windows.hann(-1), ValueError, "M=-1"),
    (lambda: disttorch.signal.windows.gaussian(3, std=0), ValueError, "positive"),
    (lambda: disttorch.signal.windows.hann(3, dtype=disttorch.int64), ValueError, "int64"),
    (lambda: disttorch.hann_window(-1), RuntimeError, "window_length=-1"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refused(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_frequencies():
    np.testing.assert_allclose(disttorch.fft.fftfreq(5, 0.5).numpy(), np.fft.fftfreq(5, 0.5), rtol=1e-6)
    np.testing.assert_allclose(disttorch.fft.rfftfreq(6, 2, dtype=disttorch.float64).numpy(), np.fft.rfftfreq(6, 2))
    a = real(4, 5)
    for dim in (None, 1, (0, 1)):
        shifted = disttorch.fft.fftshift(disttorch.tensor(a), dim)
        np.testing.assert_array_equal(shifted.numpy(), np.fft.fftshift(a, dim))
        np.testing.assert_array_equal(disttorch.fft.ifftshift(shifted, dim).numpy(), a)


def test_spectrogram():
    a, window = real(2, 100), scipy.signal.get_window("hann", 16)
    found = disttorch.stft(disttorch.tensor(a), 16, 4, window=disttorch.tensor(window), return_complex=True)
    padded = np.pad(a, ((0, 0), (8, 8)), "reflect")
    frames = np.stack([padded[:, i : i + 16] * window for i in range(0, 101, 4)], 1)
    np.testing.assert_allclose(found.numpy(), np.fft.rfft(frames).swapaxes(1, 2), atol=1e-12)
    back = disttorch.istft(found, 16, 4, window=disttorch.tensor(window), length=100)
    np.testing.assert_allclose(back.numpy(), a, atol=1e-12)
    short = disttorch.tensor(window[:10].copy())
    whole = disttorch.stft(disttorch.tensor(a[0]), 16, 4, 10, short, normalized=True, onesided=False, return_complex=True)
    assert whole.shape == (16, 26)
    again = disttorch.istft(whole, 16, 4, 10, short, normalized=True, onesided=False, length=100)
    np.testing.assert_allclose(again.numpy()[8:-8], a[0][8:-8], atol=1e-10)
    with pytest.raises(RuntimeError, match="no window reaches"):
        disttorch.istft(whole, 16, 4, window=disttorch.zeros(16).double(), onesided=False)


@pytest.mark.parametrize("M", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "scipys"),
    [
        ("bartlett", {}, "bartlett"), ("blackman", {}, "blackman"), ("cosine", {}, "cosine"), ("hann", {}, "hann"),
        ("hamming", {}, "hamming"), ("nuttall", {}, "nuttall"), ("kaiser", {"beta": 8.0}, ("kaiser", 8.0)),
        ("gaussian", {"std": 2.0}, ("gaussian", 2.0)), ("exponential", {"tau": 3.0}, ("exponential", None, 3.0)),
        ("general_hamming", {"alpha": 0.6}, ("general_hamming", 0.6)),
        ("general_cosine", {"a": [0.5, 0.3, 0.2]}, ("general_cosine", [0.5, 0.3, 0.2])),
    ],
    ids=str,
)  # fmt: skip
def test_windows(name, options, scipys, sym, M):
    found = getattr(disttorch.signal.windows, name)(M, sym=sym, dtype=disttorch.float64, **options)
    expected = scipy.signal.get_window(scipys, M, fftbins=not sym) if M else np.zeros(0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_older_names_of_windows_are_periodic():
    for name in ("hann", "hamming", "blackman", "bartlett", "kaiser"):
        scipys = ("kaiser", 12.0) if name == "kaiser" else name
        function = getattr(disttorch, f"{name}_window")
        np.testing.assert_allclose(function(9, dtype=disttorch.float64).numpy(), scipy.signal.get_window(scipys, 9), atol=1e-7)
        np.testing.assert_allclose(function(9, False).numpy(), scipy.signal.get_window(scipys, 9, False), atol=1e-6)
    np.testing.assert_allclose(disttorch.hamming_window(5, True, 0.5, 0.5).numpy(), disttorch.hann_window(5).numpy(), atol=1e-7)
