"""What the tests of NCCL on the stand-in have in common; other files have a `cupy` of their own."""

import sys

import pytest


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, with two devices. The watchdog's thread does not look: tests that are about it look themselves."""
    from collectives import watchdog
    from tests.stand_in.session import tensors

    monkeypatch.setattr(watchdog, "watch", lambda transport: None)
    with tensors(2):
        yield sys.modules["cupy"]
