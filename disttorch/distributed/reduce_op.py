"""ReduceOp: how the ranks' values are combined."""

from __future__ import annotations

from typing import Any, ClassVar

import collectives

from ..autograd.variable import Tensor

__all__ = ["ReduceOp", "reduce_op", "reduction_for", "supports_complex"]

_MEMBERS = ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM")


class ReduceOp(str):
    """How the ranks' values are combined, element by element; as ``torch.distributed.ReduceOp``.

    Each is also the text by which `collectives` knows it: ``ReduceOp.SUM == "sum"``. Functions take either.

    Attributes
    ----------
    SUM, AVG, PRODUCT, MIN, MAX : ReduceOp
        AVG is the sum divided by the number of ranks. Of truth values the sum is "any" and the product "all".
    BAND, BOR, BXOR : ReduceOp
        Bit by bit, of integers and truth values.
    PREMUL_SUM : ReduceOp
        Called with a number: the sum of the values multiplied by it, which may be another one on each rank.
    factor : float or None
        That number.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.ReduceOp.SUM, dist.ReduceOp.PREMUL_SUM(0.5).factor
    (<RedOpType.SUM: 0>, 0.5)
    """

    RedOpType: ClassVar[type[ReduceOp]]
    SUM: ClassVar[ReduceOp]
    AVG: ClassVar[ReduceOp]
    PRODUCT: ClassVar[ReduceOp]
    MIN: ClassVar[ReduceOp]
    MAX: ClassVar[ReduceOp]
    BAND: ClassVar[ReduceOp]
    BOR: ClassVar[ReduceOp]
    BXOR: ClassVar[ReduceOp]
    PREMUL_SUM: ClassVar[ReduceOp]

    factor: float | None

    def __new__(cls, op: str, factor: float | None = None) -> ReduceOp:
        name = str.__str__(op).lower() if isinstance(op, str) else ""
        if name.upper() not in _MEMBERS:
            raise TypeError(f"ReduceOp: {op!r} is none of {', '.join(_MEMBERS)}")
        new = super().__new__(cls, name)
        new.factor = getattr(op, "factor", None) if factor is None else factor
        return new

    def __call__(self, factor: float | Tensor) -> ReduceOp:
        if self != "premul_sum":
            raise TypeError(f"{self} takes no factor; PREMUL_SUM does")
        return _make_nccl_premul_sum(factor)

    def __reduce__(self) -> tuple:
        return ReduceOp, (str.__str__(self), self.factor)

    @property
    def name(self) -> str:
        """Its name: ``"SUM"``."""
        return self.upper()

    @property
    def value(self) -> int:
        """Its number."""
        return _MEMBERS.index(self.name)

    @property
    def op(self) -> ReduceOp:
        """The reduction without its factor."""
        return getattr(ReduceOp, self.name)

    def __str__(self) -> str:
        return f"RedOpType.{self.name}"

    def __repr__(self) -> str:
        return f"<RedOpType.{self.name}: {self.value}>"


ReduceOp.RedOpType = ReduceOp
for _member in _MEMBERS:
    setattr(ReduceOp, _member, ReduceOp(_member))


class _ReduceOps:
    """The older name of `ReduceOp`'s values, as ``torch.distributed.reduce_op``."""

    SUM, PRODUCT, MIN, MAX = ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp.MIN, ReduceOp.MAX


reduce_op = _ReduceOps()


def _make_nccl_premul_sum(factor: float | Tensor) -> ReduceOp:
    return ReduceOp("premul_sum", float(factor.item() if isinstance(factor, Tensor) else factor))


def supports_complex(reduceOp: ReduceOp) -> bool:
    """Whether PyTorch applies a reduction to complex numbers: the sums.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> dist.supports_complex(dist.ReduceOp.SUM), dist.supports_complex(dist.ReduceOp.MAX)
    (True, False)
    """
    return reduceOp in ("sum", "avg", "premul_sum")


def reduction_for(name: str, op: Any, *tensors: Tensor) -> Any:
    """What `collectives` calls a reduction of some tensors.

    Raises
    ------
    TypeError
        If it is no reduction.
    ValueError
        If it needs an order or bits and the numbers are complex, or a factor is missing.
    """
    if not isinstance(op, str):
        raise TypeError(f"{name}: op must be a ReduceOp, not {type(op).__name__}")
    for tensor in tensors:
        if tensor.dtype.is_complex and op in ("min", "max", "band", "bor", "bxor"):
            raise ValueError(f"{name} does not support {op!s} on complex tensors")
    if op == "premul_sum":
        factor = getattr(op, "factor", None)
        if factor is None:
            raise ValueError(f"{name}: PREMUL_SUM wants its factor: ReduceOp.PREMUL_SUM(0.5)")
        return collectives.scaled_sum(factor)
    if tensors and tensors[0]._array.dtype.kind == "b":
        op = {"sum": "bor", "product": "band"}.get(op, op)
    return str.__str__(op)
