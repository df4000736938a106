"""Every operation of the vocabulary that is built does what PyTorch's does, on the inputs that PyTorch tests its own with."""

import pytest

pytest.importorskip("torch")

from tests.parity import operations
from tests.parity.exceptions import NOT_AGREED

FIRST = [name for name in operations.vocabulary("first: operations") if name in operations.infos()]
SECOND = [name for name in operations.vocabulary("second: operations") if name in operations.infos()]
BUILT = FIRST + [name for name in SECOND if operations.function_of(name) is not None]


@pytest.mark.parametrize("name", BUILT)
def test_operation(name):
    failures = {}
    compared = 0

    def report(kind, case, failure):
        nonlocal compared
        compared += 1
        if failure and (name, kind) not in NOT_AGREED:
            failures.setdefault(kind, []).append(f"{case}\n{failure}")

    operations.check(name, report)
    assert compared, "nothing was compared"
    assert not failures, "\n\n".join(
        f"[{kind}] {len(texts)} times, first: {texts[0]}" for kind, texts in failures.items()
    )
