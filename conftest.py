"""What holds for all tests and docstring examples."""

import os
import signal
import tempfile
from importlib.util import find_spec

# Modules for hardware whose library is not here are left out, and what has no examples but an effect or a need when it is
# imported: the stand-in for PyTorch, what compares with it, programs that tests run.
collect_ignore_glob = [] if find_spec("cupy") else ["disttorch/backend/cuda/*"]
collect_ignore_glob += [
    "disttorch/as_torch/path/*", "tests/parity/[!t]*.py", "tests/parity/translate.py", "tests/programs/scripts/*",
    "tests/faults/train.py",
]  # fmt: skip

# Ranks clean up after themselves when they end, all at once, and would trip over each other in one folder.
RANK = os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK")
if RANK is not None:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.path.join(tempfile.gettempdir(), f"pytest-rank-{RANK}")
    os.makedirs(os.environ["PYTEST_DEBUG_TEMPROOT"], mode=0o700, exist_ok=True)

# A shell starts background commands with Ctrl-C ignored, and nohup with SIGHUP; programs that tests start would inherit
# that. What has a handler is as by default in them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
