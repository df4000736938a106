"""Transforms made of transforms: one after the other, sometimes, one of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, namespace
from ..ops.random import Generator
from .transform import RandomTransform, check_probability, there

__all__ = ["Compose", "Lambda", "RandomApply", "RandomChoice", "RandomOrder"]


class Compose:
    """Transforms one after the other.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch import transforms as T
    >>> augment = T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.Normalize(0.5, 0.25)])
    >>> augment(disttorch.rand(128, 3, 32, 32)).shape
    disttorch.Size([128, 3, 32, 32])
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


class Lambda:
    """Any function as a transform."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)


class RandomApply(RandomTransform):
    """Transforms one after the other, with a probability; in a batch for some of the images.

    Parameters
    ----------
    transforms : sequence of callable
        They must keep shape and dtype.
    p : float
    generator : Generator, optional
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5, generator: Generator | None = None) -> None:
        super().__init__(generator)
        self.transforms, self.p = list(transforms), check_probability("RandomApply", p)

    def _batch(self, a: Any) -> Any:
        return _to_some("RandomApply", a, [(self._chosen(len(a), self.p), Compose(self.transforms))])


class RandomChoice(RandomTransform):
    """One of several transforms, chosen for each image.

    Parameters
    ----------
    transforms : sequence of callable
        They must keep shape and dtype.
    p : sequence of float, optional
        Weights; equal unless given.
    generator : Generator, optional
    """

    def __init__(
        self, transforms: Sequence[Callable[[Any], Any]], p: Sequence[float] | None = None, generator: Generator | None = None
    ) -> None:
        super().__init__(generator)
        self.transforms = list(transforms)
        self.p = [1.0] * len(self.transforms) if p is None else list(p)
        if len(self.p) != len(self.transforms) or not self.p or min(self.p) < 0 or sum(self.p) <= 0:
            raise ValueError(f"RandomChoice: {len(self.transforms)} transforms with the weights {p}")

    def _batch(self, a: Any) -> Any:
        ends = cpu.cumsum(cpu.array(self.p)) / sum(self.p)
        which = cpu.minimum(cpu.searchsorted(ends, self._uniform(len(a)), "right"), len(self.p) - 1)
        return _to_some("RandomChoice", a, [(which == i, t) for i, t in enumerate(self.transforms)])


class RandomOrder(RandomTransform):
    """Transforms in a random order, the same for all images of a batch."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], generator: Generator | None = None) -> None:
        super().__init__(generator)
        self.transforms = list(transforms)

    def __call__(self, img: Tensor) -> Tensor:
        for i in cpu.argsort(self._uniform(len(self.transforms))).tolist():
            img = self.transforms[i](img)
        return img


def _to_some(name: str, a: Any, chosen: list[tuple[Any, Callable[[Any], Any]]]) -> Any:
    """A batch with transforms applied, each to the images of its mask."""
    result = namespace(a).ascontiguousarray(a).copy()
    for mask, transform in chosen:
        if not mask.any():
            continue
        places = there(cpu.nonzero(mask)[0], a)
        new = transform(wrap(a[places]))._array
        if new.shape[1:] != a.shape[1:] or new.dtype != a.dtype:
            raise ValueError(
                f"{name}: in a batch some images would be {list(new.shape[1:])} of {new.dtype}, and the others "
                f"{list(a.shape[1:])} of {a.dtype}"
            )
        result[places] = new
    return result
