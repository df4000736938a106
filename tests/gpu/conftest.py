"""What runs on a real GPU: ``python3 -m pytest tests/gpu``, in less than eight minutes.

Where there is no CUDA device the folder is one skipped test, whose reason says what is missing. The same tests run on the stand-in
for a device, so that they are sound before they meet a GPU: ``python -m pytest -p tests.stand_in.plugin --device=stand-in tests/gpu``.

DISTTORCH_GPU_SECONDS (420) is the time after which nothing more is begun, DISTTORCH_GPU_PROCESSES the number of processes that compare
operations beside the tests.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.machine import OF_LIBRARIES

BEGUN = time.time()
SECONDS = float(os.environ.get("DISTTORCH_GPU_SECONDS", "420"))
#: Suites of other folders that run with the device selected, the most telling first.
SUITES = ("backend", "ops", "nn", "optim", "autograd", "amp", "func")
#: What the chosen tests ask the pool for, and how it ended.
WANTED: pytest.StashKey[list[tuple[str, str, str]]] = pytest.StashKey()
OUTCOMES: pytest.StashKey[Counter[str]] = pytest.StashKey()


def missing() -> str:
    """Why there is no CUDA device; empty where there is one."""
    try:
        import disttorch

        disttorch.backend.for_device("cuda:0")
    except (ImportError, RuntimeError) as error:
        return str(error) or type(error).__name__
    return ""


MISSING = missing()
# Without a device only the file is collected that says so. The other modules are processes' and no tests.
collect_ignore_glob = ["[!t]*.py"]
if MISSING:
    collect_ignore_glob += [p.name for p in Path(__file__).parent.glob("test_*.py") if p.name != "test_machine.py"]


def device_option(config: pytest.Config) -> str:
    """``stand-in`` where the tests run on the stand-in, else ``cuda``."""
    return "stand-in" if config.getoption("--device", default=None) == "stand-in" else "cuda"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: measures times, so nothing else may use the GPU: before the pool is started")
    config.addinivalue_line("markers", "real: needs a GPU; the stand-in does not have what is tested")
    if device_option(config) == "cuda":
        for line in OF_LIBRARIES:
            config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What measures times comes first, what the pool computes last."""
    here = [i for i in items if Path(i.path).parent == Path(__file__).parent]
    if not here:
        return
    if device_option(config) == "stand-in":
        for item in here:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU: the stand-in does not have what is tested"))

    def order(item: pytest.Item) -> int:
        if item.get_closest_marker("alone"):
            return 0
        return 2 if "outcome" in getattr(item, "fixturenames", ()) else 1  # `pool` is every test's

    here_ids = {id(i) for i in here}
    rest = [i for i in items if id(i) not in here_ids]
    items[:] = rest + sorted(here, key=order)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """The stand-in's plugin makes tensors on the device; here tests say themselves what is on it, as on a GPU."""
    import disttorch

    disttorch.set_default_device(None)
    return (yield)


@pytest.fixture(scope="session")
def device() -> Any:
    """The first GPU."""
    import disttorch

    return disttorch.device("cuda:0")


@pytest.fixture(scope="session")
def is_real(pytestconfig: pytest.Config) -> bool:
    """Whether it is a GPU, and not the stand-in."""
    return device_option(pytestconfig) == "cuda"


@pytest.fixture(scope="session")
def pool_of_session(pytestconfig: pytest.Config) -> Any:
    """The processes that compare operations and modules and run other folders' suites."""
    from tests.gpu import inputs
    from tests.gpu.pool import ROOT, Piece, Pool, pieces

    def suites(folder: str) -> list[Piece]:
        return [Piece("suite", "", [str(p.relative_to(ROOT))]) for p in sorted((ROOT / "tests" / folder).glob("test_*.py"))]

    first, *others = inputs.DTYPES
    operations, modules = inputs.operations(), inputs.modules()
    work = pieces("operations", [first], operations) + pieces("modules", [first], modules)
    for folder in SUITES:
        work += suites(folder)
    for dtype in others:
        work += pieces("operations", [dtype], operations)
        if dtype in ("bfloat16", "float16", "float64"):
            work += pieces("modules", [dtype], modules)
    wanted = set(pytestconfig.stash.get(WANTED, ()))
    work = [Piece(p.kind, p.dtype, [n for n in p.names if (p.kind, p.dtype, n) in wanted]) for p in work]
    slots = int(os.environ.get("DISTTORCH_GPU_PROCESSES", max(1, min(14, (os.cpu_count() or 1) - 2))))
    pool = Pool(device_option(pytestconfig), BEGUN + SECONDS, [p for p in work if p.names], slots)
    yield pool
    pool.end()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Only what the chosen tests ask for is computed."""
    session.config.stash[WANTED] = [
        i.callspec.params["piece"] for i in session.items if "piece" in getattr(getattr(i, "callspec", None), "params", {})
    ]


@pytest.fixture(autouse=True)
def pool(request: pytest.FixtureRequest) -> Any:
    """Started before the first test that may run beside it; None where no test asks for what it computes."""
    if request.node.get_closest_marker("alone") or not request.config.stash.get(WANTED, []):
        return None
    return request.getfixturevalue("pool_of_session")


@pytest.fixture
def outcome(request: pytest.FixtureRequest, pool: Any) -> Any:
    """Fails, passes or skips a test with what the pool has found."""

    def judge(piece: tuple[str, str, str]) -> None:
        found = pool.outcome(*piece)
        counts = request.config.stash.setdefault(OUTCOMES, Counter())
        if not found.reached:
            counts["not reached"] += 1
            pytest.skip("not reached: the time was over (DISTTORCH_GPU_SECONDS)")
        counts[piece[0]] += 1
        counts[piece[0] + " compared"] += found.compared
        counts["same dtype"] += found.same_dtype
        if found.failures:
            shown = "\n\n".join(found.failures[:3])
            pytest.fail(f"{len(found.failures)} of {found.compared} differ; first:\n{shown}", pytrace=False)

    return judge


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line: the machine, what was compared, and how it ended."""
    if MISSING:
        return
    from tests.gpu.machine import described

    counts = config.stash.get(OUTCOMES, Counter())
    stats = terminalreporter.stats
    ended = ", ".join(f"{len(stats[k])} {k}" for k in ("passed", "failed", "error", "skipped") if stats.get(k))
    terminalreporter.write_line(
        f"tests/gpu on {described()}: {ended or 'nothing ran'}; "
        f"{counts['operations compared']:,} calls of operations, {counts['modules compared']:,} of modules and "
        f"{counts['suite compared']:,} tests of other suites compared ({counts['same dtype']:,} with the same dtype only), "
        f"{counts['not reached']:,} not reached; {time.time() - BEGUN:.0f} s"
    )
