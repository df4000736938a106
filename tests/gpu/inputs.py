"""PyTorch's own sample inputs, from which operations and modules on a device are compared with the CPU's."""

from __future__ import annotations

import sys
import unittest
from importlib.util import find_spec
from types import ModuleType

from tests.gpu.machine import import_quietly

#: in the order in which time is spent on them
DTYPES = ("float32", "bfloat16", "float16", "float64", "complex64", "int64", "bool")


def are_here() -> bool:
    """Whether PyTorch is installed, whose package of tests has them."""
    if find_spec("torch") is None:
        return False
    if find_spec("expecttest") is None:
        # That package imports it for a base class of PyTorch's own tests, which are not run here.
        stub = ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        stub.assert_expected_inline = None  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    import_quietly("torch.testing._internal.common_methods_invocations")
    return True


def operations() -> list[str]:
    """The names of operations that are built and have sample inputs."""
    if not are_here():
        return []
    from tests.parity import operations as parity

    names = dict.fromkeys([*parity.vocabulary("first: operations"), *parity.vocabulary("second: operations")])
    return [n for n in names if n in parity.infos() and parity.function_of(n) is not None]


def modules() -> list[str]:
    """The names of modules that are built and have sample inputs."""
    if not are_here():
        return []
    import disttorch
    from tests.parity import modules as parity

    return [n for n in parity.names() if isinstance(getattr(disttorch.nn, n, None), type)]
