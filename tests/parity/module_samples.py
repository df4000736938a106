"""Inputs for the modules that PyTorch has no ModuleInfo of, and more for some that it has few of.

    SAMPLES[name] = [((args, kwargs) of the constructor, function of a dtype that returns (args, kwargs) of forward), ...]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Constructor = tuple[tuple[Any, ...], dict[str, Any]]
Forward = Callable[[torch.dtype], tuple[tuple[Any, ...], dict[str, Any]]]


def made(*args: Any, **kwargs: Any) -> Constructor:
    return args, kwargs


def on(*shapes: tuple[int, ...]) -> Forward:
    """Called with random tensors of these shapes, which ask for gradients."""
    return lambda dtype: (tuple(torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes), {})


def unpooled(ndim: int, shape: tuple[int, ...], *window: int, **kwargs: Any) -> Forward:
    """Called with what a max pool returned, and where it found it."""

    def forward(dtype: torch.dtype) -> Any:
        pool = getattr(torch.nn.functional, f"max_pool{ndim}d")
        out, indices = pool(torch.randn(shape, dtype=dtype), *window, return_indices=True)
        return (out.detach().requires_grad_(), indices), kwargs

    return forward


def padded(name: str, ndim: int) -> list[tuple[Constructor, Forward]]:
    """Every padding mode of a convolution."""
    shape = (2, 4, 6, 5, 7)[: ndim + 2]
    return [
        (made(*channels, 3, padding=padding, padding_mode=mode, dilation=dilation), on(shape))
        for channels in ([(6,)] if name.startswith("Lazy") else [(4, 6)])
        for mode in ("reflect", "replicate", "circular")
        for padding, dilation in ((1, 1), ("same", 2), (2, 1))
    ]


def over(ndims: tuple[int, ...], name: str, *cases: tuple[Constructor, Callable[[int], Forward]]) -> dict[str, Any]:
    return {f"{name}{n}d": [(constructor, forward(n)) for constructor, forward in cases] for n in ndims}


def spatial(*sizes: int) -> Callable[[int], Forward]:
    """(3, 4, *sizes of as many dimensions as the module has)."""
    return lambda ndim: on((3, 4, *sizes[:ndim]))


SAMPLES: dict[str, list[tuple[Constructor, Forward]]] = {
    "ChannelShuffle": [(made(2), on((2, 6, 3, 4))), (made(3), on((6, 3, 4)))],
    "CosineSimilarity": [(made(), on((3, 4), (3, 4))), (made(dim=0, eps=1e-3), on((3, 4), (3, 4)))],
    "Flatten": [(made(), on((2, 3, 4))), (made(0, 1), on((2, 3, 4)))],
    "Fold": [
        (made((4, 5), 2), on((2, 12, 12))),
        (made((6, 5), (3, 2), padding=1, stride=(2, 1)), on((12, 18))),
        (made((6, 5), (3, 2), dilation=(1, 2), padding=1, stride=(2, 1)), on((2, 12, 15))),
    ],
    "Hardsigmoid": [(made(), on((2, 3)))],
    "Identity": [(made(5, unused=3), on((2, 3)))],
    "LazyLinear": [(made(4), on((2, 3))), (made(4, bias=False), on((2, 2, 5)))],
    "MaxUnpool1d": [(made(2), unpooled(1, (2, 3, 8), 2)), (made(3, 2, 1), unpooled(1, (2, 3, 9), 3, 2, 1))],
    "MaxUnpool2d": [
        (made(2), unpooled(2, (2, 3, 8, 6), 2)),
        (made((3, 2), stride=(2, 1)), unpooled(2, (3, 9, 6), (3, 2), (2, 1))),  # type: ignore[arg-type]
        (made(2, stride=2), unpooled(2, (2, 3, 5, 7), 2, 2, output_size=(5, 7))),
    ],
    "MaxUnpool3d": [(made(2), unpooled(3, (2, 3, 4, 6, 4), 2)), (made(3, 2, 1), unpooled(3, (3, 5, 5, 7), 3, 2, 1))],
    "PairwiseDistance": [(made(), on((3, 4), (3, 4))), (made(p=1.0, keepdim=True), on((3, 4), (3, 4)))],
    "PixelShuffle": [(made(2), on((2, 8, 3, 4))), (made(3), on((9, 2, 2)))],
    "PixelUnshuffle": [(made(2), on((2, 3, 4, 6))), (made(3), on((2, 6, 3)))],
    "SyncBatchNorm": [(made(3, momentum=0.3), on((2, 3, 4, 5))), (made(3, affine=False, eps=1e-3), on((4, 3)))],
    "TripletMarginLoss": [
        (made(), on((3, 4), (3, 4), (3, 4))),
        (made(margin=2.0, p=1.0, swap=True, reduction="none"), on((3, 4), (3, 4), (3, 4))),
    ],
    "Unflatten": [(made(1, (2, 3)), on((4, 6))), (made(-1, (-1, 2)), on((4, 6)))],
    "Unfold": [
        (made(2), on((2, 3, 5, 4))),
        (made((2, 3), dilation=2, padding=(1, 2), stride=(2, 1)), on((2, 3, 7, 6))),
        (made(2), on((3, 5, 4))),
    ],
    "Upsample": [
        (made(size=(5, 7)), on((2, 3, 4, 6))),
        (made(scale_factor=2.0, mode="bilinear", align_corners=True), on((2, 3, 4, 6))),
        (made(scale_factor=(1.5, 2.0), mode="bicubic"), on((2, 3, 4, 6))),
        (made(scale_factor=1.7, mode="linear", recompute_scale_factor=True), on((2, 3, 9))),
        (made(scale_factor=2, mode="trilinear"), on((2, 3, 4, 3, 2))),
    ],
    "UpsamplingBilinear2d": [(made(scale_factor=2), on((2, 3, 4, 6))), (made(size=7), on((2, 3, 4, 6)))],
    "UpsamplingNearest2d": [(made(scale_factor=2), on((2, 3, 4, 6))), (made((5, 7)), on((2, 3, 4, 6)))],
    **over((1, 2, 3), "LazyBatchNorm", (made(), spatial(5, 4, 3)), (made(affine=False, momentum=None), spatial(5, 4, 3))),
    **over((1, 2, 3), "LazyInstanceNorm", (made(affine=True, track_running_stats=True), spatial(5, 4, 3)), (made(), spatial(5, 4, 3))),
    **over(
        (1, 2, 3),
        "BatchNorm",
        (made(4, bias=False), spatial(5, 4, 3)),
        (made(4, momentum=None), spatial(5, 4, 3)),
        (made(4, track_running_stats=False, eps=1e-3), spatial(5, 4, 3)),
    ),
    **{f"{name}{n}d": padded(name, n) for name in ("Conv", "LazyConv") for n in (1, 2, 3)},
}
