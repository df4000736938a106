"""What torchrun is told of the error that ended a rank; as ``torch.distributed.elastic.multiprocessing.errors``."""

from __future__ import annotations

import functools
import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["ErrorHandler", "record"]


class ErrorHandler:
    """Writes an error to the file that the environment variable TORCHELASTIC_ERROR_FILE names, if it does."""

    def initialize(self) -> None:
        """Nothing is to be prepared: tracebacks of ranks are written by ``dlaunch``."""

    def record_exception(self, e: BaseException) -> None:
        """Write an error, with its traceback and the time, as torchrun reads it."""
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if path:
            stack = "".join(traceback.format_exception(e))
            about = {"py_callstack": stack, "timestamp": str(int(time.time()))}
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"message": {"message": f"{type(e).__name__}: {e}", "extraInfo": about}}, file)


def record(fn: Callable, error_handler: ErrorHandler | None = None) -> Callable:
    """Decorate a script's main function: an error that it raises is written down for torchrun, and goes on.

    Parameters
    ----------
    fn : callable
    error_handler : ErrorHandler, optional

    Examples
    --------
    >>> from disttorch.distributed.elastic.multiprocessing.errors import record
    >>> @record
    ... def main():
    ...     return "trained"
    >>> main()
    'trained'
    """
    handler = error_handler or ErrorHandler()

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        handler.initialize()
        try:
            return fn(*args, **kwargs)
        except SystemExit as end:
            if end.code not in (0, None):
                handler.record_exception(end)
            raise
        except Exception as error:
            handler.record_exception(error)
            raise

    return wrapper
