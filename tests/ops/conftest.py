"""What the specifications of the operations share: comparing a tensor of ours with PyTorch's."""

import warnings
from typing import Any

import numpy as np
import pytest

import disttorch

#: Relative tolerance for a result that is rounded once or a few times in a dtype.
TOLERANCE = {
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
    "float32": 2e-6,
    "float64": 1e-12,
    "complex64": 2e-6,
    "complex128": 1e-12,
}


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch, where it is installed."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def same() -> Any:
    """``same(ours, theirs)``: shape, dtype and values agree; `theirs` is a PyTorch tensor, or a tuple of them."""

    def compare(ours: Any, theirs: Any, factor: float = 4.0, what: Any = "") -> None:
        if isinstance(theirs, (tuple, list)):
            assert len(ours) == len(theirs), what
            for a, b in zip(ours, theirs):
                compare(a, b, factor, what)
            return
        if not hasattr(theirs, "detach"):
            assert type(ours) is type(theirs) and ours == theirs, (what, ours, theirs)
            return
        name = str(theirs.dtype).removeprefix("torch.")
        assert str(ours.dtype) == f"disttorch.{name}", (what, ours.dtype, theirs.dtype)
        assert tuple(ours.shape) == tuple(theirs.shape), (what, ours.shape, theirs.shape)
        wide = "complex128" if "complex" in name else "float64" if "float" in name else name
        a = ours.detach().to(dtype=getattr(disttorch, wide)).numpy()
        theirs = theirs.detach().resolve_conj().resolve_neg()
        b = theirs.to(getattr(__import__("torch"), wide)).numpy()
        tolerance = TOLERANCE.get(name, 0) * factor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=str(what))

    return compare


@pytest.fixture(scope="session")
def to_torch(torch: Any) -> Any:
    """A tensor of ours as PyTorch's: the same values, dtype and wish for a gradient, other memory."""

    def convert(value: Any) -> Any:
        if isinstance(value, disttorch.Tensor):
            a = value.detach().numpy()
            if a.dtype == disttorch.bfloat16.numpy:
                result = torch.from_numpy(a.astype(np.float32)).to(torch.bfloat16)
            else:
                result = torch.from_numpy(a.copy())
            return result.requires_grad_() if value.requires_grad else result
        if isinstance(value, (tuple, list)):
            return type(value)(convert(v) for v in value)
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        if isinstance(value, disttorch.dtype):
            return getattr(torch, value.name)
        return value

    return convert
