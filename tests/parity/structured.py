"""Operations whose sample inputs are not the public function's arguments, or whose gradient counts only for some matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.testing._internal.common_methods_invocations import gradcheck_wrapper_hermitian_input

#: (operation, variant) whose samples are two matrices, of which the function is given the product A B^T
OF_PRODUCT = {("svd_lowrank", ""), ("pca_lowrank", ""), ("linalg.pinv", "singular")}
#: operations that read one triangle, and of which argument: gradients at the other are PyTorch's leftovers
OF_TRIANGLE = {"cholesky_inverse": 0, "cholesky_solve": 1, "triangular_solve": 1}


def adapted(info: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Our function, called with what PyTorch's test calls its own."""
    if info.name == "einsum":
        return lambda operands, equation: function(equation, operands)
    if (info.name, info.variant_test_name) == ("linalg.lstsq", "grad_oriented"):
        return lambda *args, **options: function(*args, **options)[:2]
    if (info.name, info.variant_test_name) in OF_PRODUCT:
        return lambda a, b, *rest, **options: function(a @ b.transpose(-2, -1), *rest, **options)
    return function


def of_structured(info: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, ours or PyTorch's, of the Hermitian or triangular part of its argument, for comparing gradients: an element
    that is not read, or read as another's conjugate, has none of its own.
    """
    if info.gradcheck_wrapper is gradcheck_wrapper_hermitian_input:
        return lambda x, *rest, **options: function(x + x.transpose(-2, -1).conj(), *rest, **options)
    if info.name in OF_TRIANGLE:
        at = OF_TRIANGLE[info.name]

        def of_triangle(*args: Any, upper: bool = False, **options: Any) -> Any:
            x = args[at].triu() if upper else args[at].tril()
            return function(*args[:at], x, *args[at + 1 :], upper=upper, **options)

        return of_triangle
    return function
