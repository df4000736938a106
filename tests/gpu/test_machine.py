"""Whether there is a GPU, and what the tests of this folder say of the machine."""

import pytest

from tests.gpu.machine import described


def test_there_is_a_cuda_device():
    import disttorch

    try:
        disttorch.backend.for_device("cuda:0")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"tests/gpu needs a CUDA device: {error}")
    print(described())
    assert disttorch.cuda.device_count() >= 1
    assert disttorch.cuda.get_device_capability(0) >= (7, 0), "compute capability 7.0 and up is supported"
