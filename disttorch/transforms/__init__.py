"""Transforms of images, one or a batch at a time, with torchvision's names (https://docs.pytorch.org/vision/stable/transforms.html).

Images are tensors (C, H, W), batches (N, C, H, W). In a batch each image is drawn for by itself, in array expressions, so
augmenting whole batches (in a ``collate_fn``, or in the training loop) is many times as fast as augmenting samples.
"""

from .arrangement import Compose, Lambda, RandomApply, RandomChoice, RandomOrder
from .color import ColorJitter, ConvertImageDtype, Grayscale, Normalize, ToTensor
from .cropping import CenterCrop, Pad, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from .erasing import Cutout, RandomErasing
from .resampled import RandomResizedCrop, RandomRotation, Resize
from .transform import RandomTransform, Transform

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "ConvertImageDtype",
    "Cutout",
    "Grayscale",
    "Lambda",
    "Normalize",
    "Pad",
    "RandomApply",
    "RandomChoice",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomOrder",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomTransform",
    "RandomVerticalFlip",
    "Resize",
    "ToTensor",
    "Transform",
]
