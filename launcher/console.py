"""Prints a report, also to a reader that has seen enough of it (``| head``)."""

import os
import sys


def show(text: str) -> None:
    """Prints to stdout; that nobody reads on is no error."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
