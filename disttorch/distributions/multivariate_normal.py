"""The normal distribution of vectors."""

from __future__ import annotations

import math
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from . import constraints
from .distribution import Distribution, checked, lazy_property, noise_like

__all__ = ["MultivariateNormal"]


class MultivariateNormal(Distribution):
    """The normal distribution of vectors; as ``torch.distributions.MultivariateNormal``.

    Parameters
    ----------
    loc : Tensor
        The mean, (..., n).
    covariance_matrix, precision_matrix, scale_tril : Tensor, optional
        One of them, (..., n, n): the covariance, its inverse, or the covariance's lower Cholesky factor, which is the fastest.

    Raises
    ------
    ValueError
        If none or several of the matrices are given, or one is not positive definite (the factor: not lower triangular).
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        given = {name: matrix for name, matrix in given.items() if matrix is not None}
        if len(given) != 1:
            raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        ((name, matrix),) = given.items()
        assert matrix is not None
        if matrix.dim() < 2:
            raise ValueError(f"{name} must be at least two-dimensional, with optional leading batch dimensions")
        batch_shape = torch.broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        self.__dict__[name] = matrix.expand(batch_shape + matrix.shape[-2:])
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        super().__init__(batch_shape, self.loc.shape[-1:], validate_args=validate_args)
        if name != "scale_tril":  # now, so that what cannot be factored is refused here
            self.__dict__["_factor"] = factor_of_inverse(matrix) if name == "precision_matrix" else torch.linalg.cholesky(matrix)

    @property
    def _unbroadcasted_scale_tril(self) -> Tensor:
        """The factor that computations use, without repetitions over the batch where it came without."""
        return self.__dict__["_factor"] if "_factor" in self.__dict__ else self.__dict__["scale_tril"]

    def _matrix(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self._batch_shape + self._event_shape + self._event_shape)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._matrix(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        factor = self._unbroadcasted_scale_tril
        return self._matrix(factor @ factor.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return self._matrix(torch.cholesky_inverse(self._unbroadcasted_scale_tril))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._unbroadcasted_scale_tril.pow(2).sum(-1).expand(self._batch_shape + self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        normal = torch.randn(self._extended_shape(sample_shape), **noise_like(self.loc))
        return self.loc + (self._unbroadcasted_scale_tril @ normal.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        factor = self._unbroadcasted_scale_tril
        square = squared_distance(factor, value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + square) - half_log_det(factor)

    def entropy(self) -> Tensor:
        constant = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi))
        return (constant + half_log_det(self._unbroadcasted_scale_tril)).expand(self._batch_shape)


def factor_of_inverse(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of a matrix's inverse, from the factor of the matrix with its rows and columns reversed."""
    reversed_factor = torch.linalg.cholesky(torch.flip(matrix, (-2, -1)))
    upper = torch.flip(reversed_factor, (-2, -1))  # matrix = upper @ upper.mT
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve_triangular(upper.mT, identity.expand(matrix.shape), upper=False)


def squared_distance(factor: Tensor, difference: Tensor) -> Tensor:
    """The square of the Mahalanobis distance, for a covariance of that lower factor."""
    matrices = torch.broadcast_shapes(factor.shape[:-2], difference.shape[:-1])
    right = difference.expand((*matrices, difference.shape[-1])).unsqueeze(-1)
    extra = len(matrices) - (factor.dim() - 2)
    if all(n == 1 for n in factor.shape[:-2]):  # one factor for all: one solution with many right sides
        flat = right.reshape(-1, difference.shape[-1]).mT
        solved = torch.linalg.solve_triangular(factor.reshape(factor.shape[-2:]), flat, upper=False)
        return solved.pow(2).sum(0).reshape(matrices)
    solved = torch.linalg.solve_triangular(factor[(None,) * extra].expand(matrices + factor.shape[-2:]), right, upper=False)
    return solved.pow(2).sum((-2, -1))


def half_log_det(factor: Tensor) -> Tensor:
    """Half the logarithm of the determinant of a covariance, from its factor."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
