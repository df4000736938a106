"""A softmax for many classes of which most are rare."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor
from ..ops import FUNCTIONS
from ..ops.nn.softmax import log_softmax
from ..ops.pointwise import logical_and
from .containers import ModuleList, Sequential
from .linear import Linear
from .module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

_ASMoutput = namedtuple("_ASMoutput", "output loss")


class AdaptiveLogSoftmaxWithLoss(Module):
    """Logarithms of the softmax of many classes, by clusters of how frequent they are; as ``torch.nn.AdaptiveLogSoftmaxWithLoss``.

    The head has the most frequent classes and one entry for each cluster of others; a cluster is looked at only for the
    samples that need it, through a narrower layer (Grave et al., "Efficient softmax approximation for GPUs", 2017).

    Parameters
    ----------
    in_features, n_classes : int
        Classes are numbered by falling frequency.
    cutoffs : sequence of int
        Where the first cluster, and each further one, begins.
    div_value : float
        How much narrower each cluster's layer is than the one before.
    head_bias : bool
    device, dtype : optional

    Raises
    ------
    ValueError
        If the cutoffs are not rising integers from 1 to n_classes - 1.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        given = list(cutoffs)
        if not given:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if given != sorted(set(given)) or given[0] <= 0 or given[-1] > n_classes - 1 or any(int(c) != c for c in given):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each value is between 1 "
                f"and n_classes-1, but got {given} for {n_classes} classes"
            )
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*given, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, **options)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            width = int(in_features // (div_value ** (i + 1)))
            self.tail.append(
                Sequential(Linear(in_features, width, bias=False, **options), Linear(width, high - low, bias=False, **options))
            )

    def reset_parameters(self) -> None:
        """Draw all parameters again."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> Any:
        """The log probabilities of the targets, and their negative mean.

        Parameters
        ----------
        input_ : Tensor
            (N, in_features) or (in_features,)
        target_ : Tensor
            Integer, (N,) or ().

        Returns
        -------
        named tuple
            ``output``, of the target's shape, and ``loss``.

        Raises
        ------
        RuntimeError
            If shapes do not fit or a target is no class.
        """
        input, target = input_, target_
        if target.ndim not in (0, 1):
            raise RuntimeError(f"0D or 1D target tensor expected, multi-target not supported, but got shape {list(target.shape)}")
        if target.ndim == 0 and input.ndim != 1:
            raise RuntimeError(f"0D target tensor expects 1D input tensors, but found inputs with size {list(input.shape)}")
        if target.ndim == 1:
            if input.ndim != 2:
                raise RuntimeError(f"1D target tensor expects 2D input tensors, but found inputs with size {list(input.shape)}")
            if input.shape[0] != target.shape[0]:
                raise RuntimeError("Input and target should have the same size in the batch dimension.")
        rows, classes = (input, target) if target.ndim else (input.unsqueeze(0), target.unsqueeze(0))
        if classes.numel() and not (0 <= int(classes.min()) and int(classes.max()) < self.n_classes):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range [{int(classes.min())}, {int(classes.max())}] "
                "were found. "
            )
        of_head = log_softmax(self.head(rows), 1)
        parts, order = [], []
        for i, (low, high) in enumerate(zip([0, *self.cutoffs], self.cutoffs)):
            here = logical_and(classes >= low, classes < high).nonzero().squeeze(1)
            if not here.numel():
                continue
            place = (classes[here] - low).unsqueeze(1)
            if i == 0:
                found = of_head[here].gather(1, place)
            else:
                of_cluster = log_softmax(self.tail[i - 1](rows[here]), 1)
                found = of_head[here, self.shortlist_size + i - 1].unsqueeze(1) + of_cluster.gather(1, place)
            parts.append(found.squeeze(1))
            order.append(here)
        cat = FUNCTIONS["cat"]
        output = cat(parts)[cat(order).argsort()] if parts else of_head[:, 0]
        loss = -output.mean()
        return _ASMoutput(output if target.ndim else output.squeeze(0), loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log probabilities of all classes, (N, n_classes), for (N, in_features)."""
        of_head = log_softmax(self.head(input), 1)
        parts = [of_head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            whole = of_head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(log_softmax(cluster(input), 1) + whole)
        return FUNCTIONS["cat"](parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each sample, (N,), for (N, in_features)."""
        return self.log_prob(input).argmax(1)
