"""Invertible functions and the logarithms of their Jacobian determinants; as ``torch.distributions.transforms``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from ..ops.dims import Size
from ..ops.nn.activation import logsigmoid
from . import constraints
from .distribution import tiny
from .independent import sum_rightmost

__all__ = [
    "AbsTransform", "AffineTransform", "ComposeTransform", "CorrCholeskyTransform", "ExpTransform", "IndependentTransform",
    "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "ReshapeTransform", "SigmoidTransform",
    "SoftmaxTransform", "SoftplusTransform", "StickBreakingTransform", "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip


class Transform:
    """A function with an inverse; as ``torch.distributions.transforms.Transform``.

    A subclass says ``domain``, ``codomain``, ``bijective``, and has the methods ``_call(x)``, ``_inverse(y)`` and
    ``log_abs_det_jacobian(x, y)``.

    Parameters
    ----------
    cache_size : int
        1 keeps the last pair, so that the inverse of what was just computed is exact and costs nothing; 0 does not.
    """

    bijective = False
    domain: Any = constraints.real
    codomain: Any = constraints.real
    #: whether it rises (1) or falls (-1)
    sign: Any = None

    def __init__(self, cache_size: int = 0):
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size must be 0 or 1, got {cache_size}")
        self._cache_size = cache_size
        self._last: tuple[Any, Any] = None, None

    @property
    def inv(self) -> Transform:
        """The inverse, a transform too."""
        return _Inverse(self)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same with another `cache_size`."""
        if self._cache_size == cache_size:
            return self
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__, _cache_size=cache_size, _last=(None, None))
        return new

    def __call__(self, x: Tensor) -> Tensor:
        if self._cache_size == 0:
            return self._call(x)
        if x is not self._last[0]:
            self._last = x, self._call(x)
        return self._last[1]

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size == 0:
            return self._inverse(y)
        if y is not self._last[1]:
            self._last = self._inverse(y), y
        return self._last[0]

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _call")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the function at x, whose value is y."""
        raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian")

    def forward_shape(self, shape: Any) -> Any:
        """The shape of the values for arguments of a shape."""
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        """The shape of the arguments for values of a shape."""
        return shape

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(_same(value, other.__dict__[name]) for name, value in self.__dict__.items() if name not in ("_cache_size", "_last"))

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
    return bool(a == b)


class _Inverse(Transform):
    """The inverse of a transform."""

    def __init__(self, forward: Transform):
        super().__init__()
        self._forward = forward

    bijective = property(lambda self: self._forward.bijective)
    domain = property(lambda self: self._forward.codomain)
    codomain = property(lambda self: self._forward.domain)
    sign = property(lambda self: self._forward.sign)
    inv = property(lambda self: self._forward)

    def __call__(self, x: Tensor) -> Tensor:
        return self._forward._inv_call(x)

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self._forward.with_cache(cache_size).inv

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._forward.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Any) -> Any:
        return self._forward.inverse_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._forward.forward_shape(shape)

    def __repr__(self) -> str:
        return f"_InverseTransform({self._forward!r})"


class ComposeTransform(Transform):
    """Several transforms one after the other; as PyTorch's."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0):
        super().__init__(cache_size)
        self.parts = [part.with_cache(cache_size) for part in parts] if cache_size else list(parts)

    @property
    def domain(self) -> Any:
        if not self.parts:
            return constraints.real
        need = 0
        for part in reversed(self.parts):
            need = max(need + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
        return _raised(self.parts[0].domain, need)

    @property
    def codomain(self) -> Any:
        if not self.parts:
            return constraints.real
        have = self.domain.event_dim
        for part in self.parts:
            have += part.codomain.event_dim - part.domain.event_dim
        return _raised(self.parts[-1].codomain, have)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(part.bijective for part in self.parts)

    @property
    def sign(self) -> Any:
        sign = 1
        for part in self.parts:
            sign = sign * part.sign
        return sign

    @property
    def inv(self) -> Transform:
        return ComposeTransform([part.inv for part in reversed(self.parts)])

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if cache_size == self._cache_size else ComposeTransform(self.parts, cache_size)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inv_call(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inv_call(y) if not isinstance(part, _Inverse) else part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.parts:
            return torch.zeros_like(x)
        event_dim = self.domain.event_dim
        values = [x]
        for part in self.parts[:-1]:
            values.append(part(values[-1]))
        values.append(y)
        total: Any = 0
        for part, before, after in zip(self.parts, values, values[1:]):
            total = total + sum_rightmost(part.log_abs_det_jacobian(before, after), event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim
        return total

    def forward_shape(self, shape: Any) -> Any:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        return "ComposeTransform(\n    " + ",\n    ".join(repr(part) for part in self.parts) + "\n)"


identity_transform = ComposeTransform([])


def _raised(constraint: Any, event_dim: int) -> Any:
    """A constraint on values of at least so many dimensions."""
    return constraint if event_dim <= constraint.event_dim else constraints.independent(constraint, event_dim - constraint.event_dim)


class IndependentTransform(Transform):
    """A transform whose Jacobian is summed over some more dimensions; as PyTorch's."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0):
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform.with_cache(cache_size), reinterpreted_batch_ndims

    domain = property(lambda self: constraints.independent(self.base_transform.domain, self.reinterpreted_batch_ndims))
    codomain = property(lambda self: constraints.independent(self.base_transform.codomain, self.reinterpreted_batch_ndims))
    bijective = property(lambda self: self.base_transform.bijective)
    sign = property(lambda self: self.base_transform.sign)

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class ReshapeTransform(Transform):
    """The last dimensions in another shape; as PyTorch's."""

    bijective = True

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if self.in_shape.numel() != self.out_shape.numel():
            raise ValueError(f"in_shape, out_shape have different numbers of elements: {in_shape}, {out_shape}")

    domain = property(lambda self: constraints.independent(constraints.real, len(self.in_shape)))
    codomain = property(lambda self: constraints.independent(constraints.real, len(self.out_shape)))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[: x.dim() - len(self.in_shape)] + self.out_shape)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(y.shape[: y.dim() - len(self.out_shape)] + self.in_shape)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(x.shape[: x.dim() - len(self.in_shape)], dtype=x.dtype, device=x.device)

    def forward_shape(self, shape: Any) -> Any:
        return self._exchanged(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._exchanged(shape, self.out_shape, self.in_shape)

    @staticmethod
    def _exchanged(shape: Any, old: Size, new: Size) -> Any:
        cut = len(shape) - len(old)
        if cut < 0 or tuple(shape[cut:]) != tuple(old):
            raise ValueError(f"Shape mismatch: expected {tuple(old)} at the end of {tuple(shape)}")
        return Size(shape[:cut]) + new


# --- of single numbers ------------------------------------------------------------------------------------------------


def _elementwise(
    name: str, call: Callable[..., Tensor], inverse: Callable[..., Tensor], slope: Callable[..., Tensor], codomain: Any, doc: str
) -> Any:
    """A rising function of numbers: value, inverse, and the logarithm of its derivative from argument and value."""
    body = {
        "_call": lambda self, x: call(x),
        "_inverse": lambda self, y: inverse(y),
        "log_abs_det_jacobian": lambda self, x, y: slope(x, y),
        "codomain": codomain,
        "bijective": True,
        "sign": 1,
        "__doc__": doc,
        "__module__": __name__,
    }
    return type(name, (Transform,), body)


def _softplus(x: Tensor) -> Tensor:
    return -logsigmoid(-x)


def _sigmoid_inverse(y: Tensor) -> Tensor:
    y = y.clamp(min=tiny(y), max=1 - torch.finfo(y.dtype).eps)
    return y.log() - (-y).log1p()


ExpTransform = _elementwise("ExpTransform", torch.exp, torch.log, lambda x, y: x, constraints.positive, "exp(x)")
SigmoidTransform = _elementwise(
    "SigmoidTransform",
    lambda x: torch.sigmoid(x).clamp(min=tiny(x), max=1 - torch.finfo(x.dtype).eps),
    _sigmoid_inverse,
    lambda x, y: logsigmoid(x) + logsigmoid(-x),
    constraints.unit_interval,
    "sigmoid(x)",
)
SoftplusTransform = _elementwise(
    "SoftplusTransform",
    _softplus,
    lambda y: (-torch.exp(-y)).log1p() + y,
    lambda x, y: logsigmoid(x),
    constraints.positive,
    "log(1 + exp(x))",
)
# log(1 - tanh(x)^2) without the cancellation
TanhTransform = _elementwise(
    "TanhTransform",
    torch.tanh,
    torch.atanh,
    lambda x, y: 2.0 * (math.log(2.0) - x - _softplus(-2.0 * x)),
    constraints.interval(-1.0, 1.0),
    "tanh(x)",
)


class AffineTransform(Transform):
    """loc + scale * x, on values of `event_dim` dimensions; as ``torch.distributions.AffineTransform``."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim

    @property
    def event_dim(self) -> int:
        """How many dimensions make one value."""
        return self._event_dim

    domain = codomain = property(lambda self: _raised(constraints.real, self._event_dim))

    @property
    def sign(self) -> Any:
        return self.scale.sign() if isinstance(self.scale, Tensor) else (self.scale > 0) - (self.scale < 0)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        slope = torch.log(torch.abs(self.scale)) if isinstance(self.scale, Tensor) else torch.full_like(x, math.log(abs(self.scale)))
        return sum_rightmost(slope.expand(torch.broadcast_shapes(slope.shape, x.shape)), self._event_dim)

    def forward_shape(self, shape: Any) -> Any:
        return torch.broadcast_shapes(shape, getattr(self.loc, "shape", ()), getattr(self.scale, "shape", ()))

    inverse_shape = forward_shape


class PowerTransform(Transform):
    """x ** exponent, of positive numbers; as PyTorch's."""

    bijective, domain, codomain = True, constraints.positive, constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.exponent = torch.as_tensor(exponent)

    @property
    def sign(self) -> Any:
        return self.exponent.sign()

    def _call(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.exponent * y / x).abs().log()

    def forward_shape(self, shape: Any) -> Any:
        return torch.broadcast_shapes(shape, self.exponent.shape)

    inverse_shape = forward_shape


class AbsTransform(Transform):
    """abs(x), whose inverse is the identity; as PyTorch's."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


# --- of vectors and matrices ------------------------------------------------------------------------------------------


class SoftmaxTransform(Transform):
    """Shares proportional to exp(x), whose inverse is the logarithm; not one to one; as PyTorch's."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()


class StickBreakingTransform(Transform):
    """n - 1 numbers to n shares: each breaks its part off what is left of a stick; as PyTorch's."""

    bijective, domain, codomain = True, constraints.real_vector, constraints.simplex

    def _offset(self, n: int, like: Tensor) -> Tensor:
        return torch.arange(n, 0, -1, dtype=like.dtype, device=like.device).log()

    def _call(self, x: Tensor) -> Tensor:
        z = x - self._offset(x.shape[-1], x)
        part, left = torch.sigmoid(z), torch.cumsum(logsigmoid(-z), -1).exp()
        ones = torch.ones_like(left[..., :1])
        return torch.cat([part, ones], -1) * torch.cat([ones, left], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        head = y[..., :-1]
        left = (1 - head.cumsum(-1)).clamp(min=tiny(y))
        return head.log() - left.log() + self._offset(head.shape[-1], y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        z = x - self._offset(x.shape[-1], x)
        return (logsigmoid(z) - z + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        return Size((*shape[:-1], shape[-1] - 1))


class LowerCholeskyTransform(Transform):
    """Any square matrix to a lower triangle of positive diagonal; as PyTorch's."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class PositiveDefiniteTransform(Transform):
    """Any square matrix to a positive definite one, through its Cholesky factor; as PyTorch's."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(torch.linalg.cholesky(y))


class CorrCholeskyTransform(Transform):
    """n (n - 1) / 2 numbers to the Cholesky factor of a correlation matrix, by canonical partial correlations; as PyTorch's.

    D. Lewandowski, D. Kurowicka and H. Joe (2009), "Generating random correlation matrices based on vines and extended onion method".
    """

    bijective, domain, codomain = True, constraints.real_vector, constraints.corr_cholesky

    def _call(self, x: Tensor) -> Tensor:
        n = self._size(x.shape[-1])
        eps = torch.finfo(x.dtype).eps
        partial = torch.tanh(x).clamp(min=-1 + eps, max=1 - eps)
        rows, columns = torch.tril_indices(n, n, -1, device=x.device)
        r = torch.zeros((*x.shape[:-1], n, n), dtype=x.dtype, device=x.device)
        r[..., rows, columns] = partial
        left = (1 - r.square()).sqrt().cumprod(-1)
        shifted = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)
        return (r + torch.eye(n, dtype=x.dtype, device=x.device)) * shifted

    def _inverse(self, y: Tensor) -> Tensor:
        n = y.shape[-1]
        left = (1 - y.square().cumsum(-1)).clamp(min=tiny(y))
        shifted = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)
        rows, columns = torch.tril_indices(n, n, -1, device=y.device)
        return (y / shifted.sqrt())[..., rows, columns].atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        n = y.shape[-1]
        rows, columns = torch.tril_indices(n, n, -1, device=y.device)
        left = (1 - y.square().cumsum(-1)).clamp(min=tiny(y))
        before = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)[..., rows, columns]
        # an entry is tanh(x) times the root of what its row has left
        return (0.5 * before.log() + 2 * (math.log(2.0) - x - _softplus(-2 * x))).sum(-1)

    @staticmethod
    def _size(numbers: int) -> int:
        n = round((0.25 + 2 * numbers) ** 0.5 + 0.5)
        if n * (n - 1) // 2 != numbers:
            raise ValueError(f"Input is not a flattened lower-diagonal matrix: {numbers} numbers")
        return n

    def forward_shape(self, shape: Any) -> Any:
        n = self._size(shape[-1])
        return Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Any) -> Any:
        if shape[-1] != shape[-2]:
            raise ValueError(f"Input is not square: {tuple(shape)}")
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))
