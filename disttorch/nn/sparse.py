"""Embedding and EmbeddingBag: rows of a learned table, and sums of them."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.creation import empty
from ..ops.nn.embedding import embedding
from ..ops.nn.embedding_bag import embedding_bag
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(Module):
    """Rows of a learned table by their number; as ``torch.nn.Embedding``.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    padding_idx : int, optional
        A row that is 0 at first and gets no gradient.
    max_norm : float, optional
        The largest norm a row may have when it is looked up; larger ones are scaled down, in place.
    norm_type : float
        Which norm that is.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often it was looked up.
    sparse : bool
        Accepted as in PyTorch; the gradient is dense all the same.
    device, dtype : optional

    Attributes
    ----------
    weight : Parameter
        (num_embeddings, embedding_dim), normally distributed at first.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.Embedding(10, 3)(disttorch.tensor([[1, 2], [4, 5]])).shape
    disttorch.Size([2, 2, 3])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"padding_idx must be within num_embeddings, but is {padding_idx} of {num_embeddings}")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if _weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype), not _freeze)
            self.reset_parameters()
        else:
            if tuple(_weight.shape) != (num_embeddings, embedding_dim):
                raise ValueError(
                    f"Embedding: the shape of weight, {list(_weight.shape)}, is not [num_embeddings, embedding_dim], "
                    f"[{num_embeddings}, {embedding_dim}]"
                )
            self.weight = Parameter(_weight, not _freeze)

    def reset_parameters(self) -> None:
        """Draw the table again."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Embedding:
        """An Embedding on a given table.

        Parameters
        ----------
        embeddings : Tensor
            (num_embeddings, embedding_dim); its memory is used.
        freeze : bool
            Whether it shall not be trained.
        **options
            Others of the constructor.
        """
        if embeddings.ndim != 2:
            raise ValueError(f"Embeddings parameter is expected to be 2-dimensional, but has shape {list(embeddings.shape)}")
        rows, columns = embeddings.shape
        return cls(rows, columns, _weight=embeddings, _freeze=freeze, **options)

    def forward(self, input: Tensor) -> Tensor:
        """Map (*) to (*, embedding_dim)."""
        return embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def extra_repr(self) -> str:
        shown = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, usual in (("padding_idx", None), ("max_norm", None), ("norm_type", 2), ("scale_grad_by_freq", False)):
            value = getattr(self, name)
            if value != usual:
                shown += f", {name}={value}"
        return shown


class EmbeddingBag(Module):
    """Sums, means or maxima of bags of a learned table's rows; as ``torch.nn.EmbeddingBag``.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    max_norm, norm_type : float, optional
        As for `Embedding`.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often it was looked up.
    mode : {"mean", "sum", "max"}
    sparse : bool
        Accepted as in PyTorch; the gradient is dense all the same.
    include_last_offset : bool
        Whether the offsets have one more entry, the end of the last bag.
    padding_idx : int, optional
        A row that is left out of its bags.
    device, dtype : optional

    Attributes
    ----------
    weight : Parameter
        (num_embeddings, embedding_dim), normally distributed at first.

    Examples
    --------
    >>> import disttorch
    >>> bags = disttorch.nn.EmbeddingBag(10, 3, mode="sum")
    >>> bags(disttorch.tensor([1, 2, 4, 5]), disttorch.tensor([0, 3])).shape
    disttorch.Size([2, 3])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"padding_idx must be within num_embeddings, but is {padding_idx} of {num_embeddings}")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx
        if _weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
            self.reset_parameters()
        else:
            if tuple(_weight.shape) != (num_embeddings, embedding_dim):
                raise ValueError(
                    f"EmbeddingBag: the shape of weight, {list(_weight.shape)}, is not [num_embeddings, embedding_dim], "
                    f"[{num_embeddings}, {embedding_dim}]"
                )
            self.weight = Parameter(_weight)

    def reset_parameters(self) -> None:
        """Draw the table again."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> EmbeddingBag:
        """An EmbeddingBag on a given table.

        Parameters
        ----------
        embeddings : Tensor
            (num_embeddings, embedding_dim); its memory is used.
        freeze : bool
            Whether it shall not be trained.
        **options
            Others of the constructor.
        """
        if embeddings.ndim != 2:
            raise ValueError(f"Embeddings parameter is expected to be 2-dimensional, but has shape {list(embeddings.shape)}")
        rows, columns = embeddings.shape
        made = cls(rows, columns, _weight=embeddings, **options)
        made.weight.requires_grad = not freeze
        return made

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Map bags, (B, N) or (M,) with offsets (B,), to (B, embedding_dim)."""
        return embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, usual in (("max_norm", None), ("norm_type", 2), ("scale_grad_by_freq", False)):
            if getattr(self, name) != usual:
                shown += f", {name}={getattr(self, name)}"
        return f"{shown}, mode={self.mode!r}" + (f", padding_idx={self.padding_idx}" if self.padding_idx is not None else "")
