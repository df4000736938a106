"""Every module of the vocabulary does what PyTorch's does: arguments, state, text, results, gradients, errors."""

import pytest

pytest.importorskip("torch")

from tests.parity import modules
from tests.parity.exceptions import MODULES_NOT_AGREED


@pytest.mark.parametrize("name", modules.names())
def test_module(name):
    failures = {}
    compared = set()

    def report(kind, case, failure):
        compared.add(kind)
        if failure and (name, kind) not in MODULES_NOT_AGREED:
            failures.setdefault(kind, []).append(f"{case}\n{failure}")

    modules.check(name, report)
    assert {"state", "repr", "train", "eval"} <= compared or failures, f"only {compared} was compared"
    assert not failures, "\n\n".join(f"[{kind}] {len(texts)} times, first: {texts[0]}" for kind, texts in failures.items())
