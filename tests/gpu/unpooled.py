"""A plugin for `sanitize`: every array of the device has an allocation of its own.

A pool hands out parts of large blocks, in which the tools would not notice a read beyond an array's end.
"""

import cupy
import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Behind the import of disttorch's CUDA world, which chooses an allocator."""
    import disttorch.backend.cuda  # noqa: F401

    cupy.cuda.set_allocator(None)
