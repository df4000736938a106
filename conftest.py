"""What holds for all tests and docstring examples."""

import signal
from importlib.util import find_spec

# Modules for hardware whose library is not here are left out.
collect_ignore = [] if find_spec("cupy") else ["disttorch/backend/cuda.py"]

# A shell starts background commands with Ctrl-C ignored, and nohup with SIGHUP; programs that tests start would inherit
# that. What has a handler is as by default in them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
