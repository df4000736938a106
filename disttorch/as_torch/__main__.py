"""``python -m disttorch.as_torch script.py [arguments]``, or ``-m module [arguments]``: the script as Python would run it."""

from __future__ import annotations

import os
import sys
from types import ModuleType, TracebackType
from typing import Any

from disttorch.as_torch import explain, install

USAGE = """\
usage: python -m disttorch.as_torch script.py [arguments]
       python -m disttorch.as_torch -m package.module [arguments]

Runs a Python script that was written for PyTorch: what it imports as torch is disttorch.
"""
# Nothing else refers to this file's module while the script is __main__.
_kept: list[ModuleType] = []


def main() -> None:
    """Run the script or module that the arguments name, in the module ``__main__``."""
    del sys.argv[0]
    if not sys.argv or sys.argv[0] in ("-h", "--help") or sys.argv == ["-m"]:
        asked = bool(sys.argv) and sys.argv[0] != "-m"
        print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    is_module = sys.argv[0] == "-m"
    if is_module:
        del sys.argv[0]
    elif not os.path.isfile(sys.argv[0]):
        print(f"disttorch.as_torch: there is no script {sys.argv[0]} (current directory: {os.getcwd()})", file=sys.stderr)
        sys.exit(2)
    # Python has put the current directory there; a script finds what is beside it.
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.realpath(sys.argv[0]))
    install()
    _show_from_the_script_on()
    if is_module:
        import runpy

        _fresh_main()
        # The function behind `python -m`: unlike run_module it leaves the module in place for exit functions and pickles.
        runpy._run_module_as_main(sys.argv[0])  # type: ignore[attr-defined]
    else:
        _run_file(sys.argv[0])


def _run_file(path: str) -> None:
    import io
    from importlib.machinery import SourceFileLoader

    path = os.path.abspath(path)
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec")
    module = _fresh_main()
    # What `python script.py` puts into __main__.
    module.__dict__.update(
        __file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path), __annotations__={}
    )
    exec(code, module.__dict__)


def _fresh_main() -> ModuleType:
    """Make an empty __main__, so that nothing of this file is in the script's namespace."""
    module = ModuleType("__main__")
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    return module


def _show_from_the_script_on() -> None:
    """Let tracebacks begin with the script's first line, as they do under Python itself."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        error.__traceback__ = _without_us(trace)
        explain(error)
        return shown(kind, error, error.__traceback__)

    sys.excepthook = hook


def _without_us(trace: TracebackType | None) -> TracebackType | None:
    ours = (__file__, "<frozen runpy>", "<frozen importlib._bootstrap>")
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename in ours:
        start = start.tb_next
    return start if start is not None or trace is None else None


if __name__ == "__main__":
    main()
