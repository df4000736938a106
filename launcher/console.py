"""Prints a report, also to a reader that has seen enough of it (``| head``), and tells the user what happens."""

import os
import sys

from launcher.output import write_all


def show(text: str) -> None:
    """Prints to stdout; that nobody reads on is no error."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(*lines: str) -> None:
    """Writes lines to stderr; where that is impossible, as on a full disk, the job goes on."""
    if sys.stderr is None:  # closed by whoever started this process
        return
    sys.stderr.flush()
    write_all(2, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
