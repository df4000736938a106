"""vmap over a choice of operations, one or two of each family, on PyTorch's sample inputs; `tests/parity/vmap.py` runs all."""

import pytest

pytest.importorskip("torch")

from tests.parity import vmap

NAMES = """
    add div pow atan2 where clamp sum var prod amax argmax cumsum logsumexp sort topk gather scatter_add index_select take
    index_put masked_fill cat stack split reshape permute roll tril diagonal as_strided matmul einsum linalg.solve linalg.svdvals
    linalg.norm fft.fft nn.functional.linear nn.functional.conv2d nn.functional.conv_transpose2d nn.functional.max_pool2d
    nn.functional.layer_norm nn.functional.batch_norm nn.functional.cross_entropy nn.functional.embedding nn.functional.pad
    nn.functional.scaled_dot_product_attention nn.functional.grid_sample nn.functional.gelu softmax
""".split()


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_at_once_are_the_samples_one_by_one(name, monkeypatch):
    monkeypatch.setattr(vmap, "LIMIT", 5)
    failures = []
    count, _ = vmap.run(name, failures.append)
    assert count and not failures, "\n".join(failures)
