"""Weights with a norm of their own, of norm 1, or orthogonal; as ``torch.nn.utils.parametrizations``."""

from __future__ import annotations

from typing import Any

from ...autograd.grad_mode import no_grad
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...ops import FUNCTIONS
from ...ops.linalg.functions import matrix_exp
from ...ops.linalg.orthogonal import geqrf, householder_product, qr
from ...ops.linalg.solves import solve
from ...ops.nn.distance import normalize
from ..convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..module import Module
from .norms import norm_except_dim, power_iteration, singular_value, start_vectors
from .parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    """``g * v / norm(v)``, of the norms g and the directions v along a dimension."""

    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight."""
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The norms, and the weight itself for directions."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train a weight's norms and directions apart; as ``torch.nn.utils.parametrizations.weight_norm``.

    Salimans and Kingma, "Weight normalization", 2016. ``original0`` are the norms, ``original1`` the directions.

    Parameters
    ----------
    module : Module
    name : str
        Of the weight.
    dim : int, optional
        Along which there is one norm each; None for one norm altogether.

    Returns
    -------
    Module
        The module.

    Examples
    --------
    >>> import disttorch
    >>> layer = disttorch.nn.utils.parametrizations.weight_norm(disttorch.nn.Linear(20, 40))
    >>> layer.parametrizations.weight.original0.shape
    disttorch.Size([40, 1])
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def from_hooks(self: Module, state_dict: dict, prefix: str, *_: Any) -> None:
        """Take the keys that weight_norm had when it was made of hooks."""
        for old, new in (("g", 0), ("v", 1)):
            if f"{prefix}{name}_{old}" in state_dict:
                state_dict[f"{prefix}parametrizations.{name}.original{new}"] = state_dict.pop(f"{prefix}{name}_{old}")

    module.register_load_state_dict_pre_hook(from_hooks)
    return module


class _SpectralNorm(Module):
    """A weight divided by its largest singular value, which a power iteration in training follows."""

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12):
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{weight.ndim}, {weight.ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError(f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}")
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            with no_grad():
                matrix = self._as_matrix(weight.detach())
                u, v = power_iteration(matrix, *start_vectors(matrix, eps), 15, eps)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """The normalized weight."""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = self._as_matrix(weight)
        if self.training:
            with no_grad():
                u, v = power_iteration(matrix.detach(), self._u, self._v, self.n_power_iterations, self.eps)
                self._u.copy_(u)
                self._v.copy_(v)
        return weight / singular_value(matrix, self._u.clone(), self._v.clone())

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value: its norm is divided away whatever it is."""
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value; as ``torch.nn.utils.parametrizations.spectral_norm``.

    Miyato et al., "Spectral normalization for generative adversarial networks", 2018.

    Parameters
    ----------
    module : Module
    name : str
        Of the weight.
    n_power_iterations : int
        Steps for each forward pass in training.
    eps : float
        The least norm to divide by.
    dim : int, optional
        The dimension of the outputs: 0, and 1 for transposed convolutions, unless given.

    Returns
    -------
    Module
        The module.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if dim is None:
        dim = 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


class _Orthogonal(Module):
    """Any matrix made one with orthonormal columns (or rows, where it is wide)."""

    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, *, use_trivialization: bool = True):
        super().__init__()
        if weight.is_complex() and orthogonal_map == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        self.trivialized = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        """The matrix with orthonormal columns or rows."""
        wide = X.shape[-2] < X.shape[-1]
        X = X.mT if wide else X
        n, k = X.shape[-2:]
        if self.orthogonal_map == "householder":
            A = X.tril(-1)
            tau = 2.0 / ((A * A).sum(-2) + 1.0)
            Q = householder_product(A, tau) * X.diagonal(0, -2, -1).detach().trunc().unsqueeze(-2)
        else:
            X = X.tril()
            if n != k:
                X = FUNCTIONS["cat"]([X, X.new_zeros((*X.shape[:-2], n, n - k))], -1)
            A = X - X.mT.conj()
            if self.orthogonal_map == "matrix_exp":
                Q = matrix_exp(A)
            else:
                identity = FUNCTIONS["eye"](n, dtype=A.dtype, device=A.device)
                Q = solve(identity - A * 0.5, identity + A * 0.5)
            Q = Q[..., :k] if n != k else Q
        if self.trivialized and self.base is not None:
            Q = self.base @ Q
        return Q.mT if wide else Q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """What the map makes a matrix of, or, if that is not orthogonal, the nearest by its QR decomposition.

        Raises
        ------
        ValueError
            If the shape is another.
        NotImplementedError
            For the matrix exponential and Cayley's map without trivialization.
        """
        if Q.shape != self.shape:
            raise ValueError(f"Expected a matrix or batch of matrices of shape {list(self.shape)}. Got a tensor of shape {list(Q.shape)}.")
        given = Q
        wide = Q.shape[-2] < Q.shape[-1]
        Q = Q.mT if wide else Q
        n, k = Q.shape[-2:]
        if not self.trivialized:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley parametrizations when use_trivialization=False."
                )
            A, tau = geqrf(Q)
            # the sign of each column is kept on the diagonal, where the reflectors have their 1
            diagonal = A.diagonal(0, -2, -1).sgn()
            diagonal = FUNCTIONS["where"](tau == 0, -diagonal, diagonal)
            A = A.tril(-1) + A.triu(1) + FUNCTIONS["eye"](n, k, dtype=A.dtype, device=A.device) * diagonal.unsqueeze(-2)
            return A.mT if wide else A
        if n != k:
            Q = FUNCTIONS["cat"]([Q, FUNCTIONS["randn"](*Q.shape[:-2], n, n - k, dtype=Q.dtype, device=Q.device)], -1)
        self.base = Q.clone() if n == k and _is_orthogonal(Q) else _made_orthogonal(Q)
        rows, columns = given.shape[-2:]
        identity = FUNCTIONS["eye"](rows, columns, dtype=given.dtype, device=given.device)
        return FUNCTIONS["zeros_like"](given) - identity


def _is_orthogonal(Q: Tensor) -> bool:
    k = Q.shape[-1]
    product = Q.mT.conj() @ Q
    identity = FUNCTIONS["eye"](k, dtype=Q.dtype, device=Q.device)
    return bool(((product - identity).abs() <= 10 * Q.shape[-2] * dt.finfo(Q.dtype).eps).all())


def _made_orthogonal(A: Tensor) -> Tensor:
    """Q of the QR decomposition in which R has a positive diagonal."""
    Q, R = qr(A)
    return Q * R.diagonal(0, -2, -1).sgn().unsqueeze(-2)


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keep a weight's columns (or rows, where it is wide) orthonormal; as ``torch.nn.utils.parametrizations.orthogonal``.

    Parameters
    ----------
    module : Module
    name : str
        Of a weight (..., m, n).
    orthogonal_map : {"matrix_exp", "cayley", "householder"}, optional
        How any matrix is made an orthogonal one: the exponential or Cayley's map of its antisymmetric part, or a product of
        reflections. ``"matrix_exp"`` for square matrices and complex ones, else ``"householder"``, unless given.
    use_trivialization : bool
        Whether the map is taken around the present value, so that any orthogonal matrix can be assigned (Lezcano Casado,
        "Trivializations for gradient-based optimization on manifolds", 2019).

    Returns
    -------
    Module
        The module.

    Raises
    ------
    ValueError
        If there is no such weight, it is no matrix, or no such map.

    Examples
    --------
    >>> import disttorch
    >>> layer = disttorch.nn.utils.parametrizations.orthogonal(disttorch.nn.Linear(4, 4))
    >>> bool(disttorch.allclose(layer.weight @ layer.weight.T, disttorch.eye(4), atol=1e-5))
    True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] or weight.is_complex() else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}')
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
