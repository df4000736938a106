"""Operations of neural networks, one family a file: what ``nn.functional`` offers, with their derivatives."""

from . import (
    activation,
    bilinear,
    classification,
    convolution,
    distance,
    dropout,
    embedding,
    loss,
    normalization,
    padding,
    pooling,
    softmax,
)

__all__ = [
    "activation",
    "bilinear",
    "classification",
    "convolution",
    "distance",
    "dropout",
    "embedding",
    "loss",
    "normalization",
    "padding",
    "pooling",
    "softmax",
]
