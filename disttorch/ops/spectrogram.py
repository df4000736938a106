"""The short-time Fourier transform and its inverse: frames of a signal, windowed and transformed, and added up again."""

from __future__ import annotations

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from .fft import fft, ifft, irfft, rfft
from .nn.padding import pad
from .shape import cat, view_as_real
from .world import tensors

__all__ = ["istft", "stft"]

# What users find of this family, and where: see ops/public.py.
BOTH = "istft stft"


_frames = Operation(
    "frames",
    lambda xp, x, *, n, hop: xp.frames(x, n, hop),
    x=lambda g, x_shape, hop, xp: xp.overlap_add(g, hop, x_shape[-1]),
)
_overlap_add = Operation(
    "overlap_add",
    lambda xp, x, *, hop, length: xp.overlap_add(x, hop, length),
    x=lambda g, x_shape, hop, xp: xp.frames(g, x_shape[-1], hop),
)
tensors.frames = lambda x, n, hop: apply(_frames, x, n=n, hop=hop)
tensors.overlap_add = lambda x, hop, length: apply(_overlap_add, x, hop=hop, length=length)


def _frame_window(name: str, input: Tensor, n_fft: int, win_length: int, window: Tensor | None) -> Tensor | None:
    """The window in the middle of a frame of n_fft values."""
    if window is not None and (window.ndim != 1 or window.shape[0] != win_length):
        raise RuntimeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, but got window with size {list(window.shape)}"
        )
    if win_length == n_fft:
        return window
    if window is None:
        window = input.new_ones(win_length).real if input.dtype.is_complex else input.new_ones(win_length)
    left = (n_fft - win_length) // 2
    return pad(window, (left, n_fft - win_length - left))


def _padded(x: Tensor, n: int, mode: str) -> Tensor:
    """A batch of signals with n more values on both sides."""
    if mode == "reflect" and 0 < n < x.shape[-1]:
        return cat((x[:, 1 : n + 1].flip(-1), x, x[:, -n - 1 : -1].flip(-1)), -1)
    return pad(x.unsqueeze(1), (n, n), mode).squeeze(1)


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """Fourier transforms of overlapping, windowed frames of a signal; as ``torch.stft``.

    Parameters
    ----------
    input : Tensor
        (L,) or (batch, L)
    n_fft : int
        The length of a frame.
    hop_length : int, optional
        From one frame to the next; n_fft // 4 if absent.
    win_length : int, optional
        The window's length, n_fft if absent; a shorter one stands in the middle of the frame.
    window : Tensor, optional
        (win_length,); ones if absent.
    center : bool
        Whether to pad the signal, so that frame t is centred at t * hop_length rather than begins there.
    pad_mode : str
        How, as of ``nn.functional.pad``.
    normalized : bool
        Whether to divide by sqrt(n_fft).
    onesided : bool, optional
        Whether to return only frequencies 0 to n_fft // 2; so it is if absent for real input and window.
    return_complex : bool, optional
        Whether to return complex numbers or their parts in one more dimension; must be given for real input.
    align_to_window : bool, optional
        Without `center`: whether frames begin where windows do, so that there is one for each whole window.

    Returns
    -------
    Tensor
        (..., frequencies, frames)
    """
    name = "stft"
    d = input.dtype
    is_complex = d.is_complex or (window is not None and window.dtype.is_complex)
    hop_length = n_fft // 4 if hop_length is None else hop_length
    win_length = n_fft if win_length is None else win_length
    if return_complex is None:
        if not is_complex:
            raise RuntimeError(
                "stft requires the return_complex parameter be given for real inputs, and will further require that "
                "return_complex=True in a future release."
            )
        return_complex = True
    if d.category < dt.FLOAT:
        raise RuntimeError(f"{name}: expected a tensor of floating point or complex values, got {d}")
    if input.ndim not in (1, 2):
        raise RuntimeError(f"{name}: expected a 1D or 2D tensor, got {list(input.shape)}")
    if center and align_to_window is not None:
        raise RuntimeError("stft: align_to_window should only be set when center = false.")
    x = input if input.ndim == 2 else input.unsqueeze(0)
    if not center:
        x = x.clone()  # the frames are views of it, and the graph may keep them
    else:
        x = _padded(x, n_fft // 2, pad_mode)
    length = x.shape[-1]
    if not 0 < n_fft <= length:
        raise RuntimeError(f"{name}: expected 0 < n_fft <= {length}, but got n_fft={n_fft}")
    if hop_length <= 0:
        raise RuntimeError(f"{name}: expected hop_length > 0, but got hop_length={hop_length}")
    if not 0 < win_length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={win_length}")
    whole = _frame_window(name, input, n_fft, win_length, window)
    if align_to_window and win_length < n_fft:
        left = (n_fft - win_length) // 2
        x = pad(x, (left, n_fft - win_length - left))
    frames = apply(_frames, x, n=n_fft, hop=hop_length)
    if whole is not None:
        frames = frames * whole
    if onesided is None:
        onesided = not is_complex
    if onesided and is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    norm = "ortho" if normalized else None
    result = (rfft if onesided else fft)(frames, norm=norm).transpose(-2, -1)
    if input.ndim == 1:
        result = result.squeeze(0)
    return result if return_complex else view_as_real(result)


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal whose `stft` comes nearest to the given one (D. Griffin and J. Lim, IEEE Trans. ASSP 32, 1984); as ``torch.istft``.

    Parameters
    ----------
    input : Tensor
        (frequencies, frames) or (batch, frequencies, frames), complex.
    n_fft, hop_length, win_length, window, center, normalized, onesided
        As of `stft`.
    length : int, optional
        The signal's length: it is cut, or filled up with zeros.
    return_complex : bool
        Whether the signal is complex.

    Raises
    ------
    RuntimeError
        If somewhere no window reaches, so that nothing is known of the signal.
    """
    name = "istft"
    hop_length = n_fft // 4 if hop_length is None else hop_length
    win_length = n_fft if win_length is None else win_length
    if not input.dtype.is_complex:
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
        )
    if input.numel() == 0:
        raise RuntimeError(f"{name}: input tensor cannot be empty, its shape is {list(input.shape)}")
    if input.ndim not in (2, 3):
        raise RuntimeError(f"{name}: expected a tensor with 2 or 3 dimensions, but got {input.ndim}")
    x = input if input.ndim == 3 else input.unsqueeze(0)
    bins, count = x.shape[1:]
    if onesided is None:
        onesided = bins != n_fft
    expected = n_fft // 2 + 1 if onesided else n_fft
    if bins != expected:
        raise RuntimeError(
            f"{name}: expected the frequency dimension (3rd to the last) of the input tensor to match n_fft ({expected}) "
            f"when onesided={onesided}, but got {bins}"
        )
    if not 0 < hop_length <= win_length:
        raise RuntimeError(f"{name}: expected 0 < hop_length <= win_length, got {hop_length} and {win_length}")
    if not 0 < win_length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, got {win_length}")
    if window is not None and window.dtype.is_complex and not return_complex:
        raise RuntimeError("Complex windows are incompatible with return_complex=False")
    if return_complex and onesided:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    whole = _frame_window(name, input, n_fft, win_length, window)
    norm = "ortho" if normalized else None
    spectra = x.transpose(1, 2)
    frames = ifft(spectra, norm=norm) if return_complex else irfft(spectra[..., : n_fft // 2 + 1], n_fft, norm=norm)
    ones = frames.new_ones(1, 1, n_fft)
    weights = ones if whole is None else (whole * whole).reshape(1, 1, n_fft).to(dtype=frames.dtype)
    if whole is not None:
        frames = frames * whole
    total = n_fft + hop_length * (count - 1)
    signal, envelope = (
        apply(_overlap_add, f, hop=hop_length, length=total) for f in (frames, weights.expand(1, count, n_fft))
    )
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else total - n_fft // 2 if center else total
    signal, envelope = signal[:, start:end], envelope[:, start:end]
    if bool((envelope.abs() < 1e-11).any()):
        raise RuntimeError(
            f"{name}: window overlap add min: {float(envelope.detach().abs().min())} is 0: there are places that no window reaches"
        )
    signal = signal / envelope
    if end > total:
        signal = pad(signal, (0, end - total))
    return signal if input.ndim == 3 else signal.squeeze(0)
