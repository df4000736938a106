"""Prints a report, also to a reader that has seen enough of it (``| head``), and tells the user what happens."""

import os
import sys

from launcher.output import write_all


def open_what_is_closed() -> None:
    """Gives /dev/null to those of stdin, stdout and stderr that are closed, as where a daemon starts this process.

    Their numbers would else go to the next files and pipes that are opened, and what is written there to stdout or stderr.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(fd, True)


def show(text: str) -> None:
    """Prints to stdout; that nobody reads on is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(*lines: str) -> None:
    """Writes lines to stderr; where that is impossible, as on a full disk, the job goes on."""
    if sys.stderr is None:  # closed by whoever started this process
        return
    sys.stderr.flush()
    write_all(2, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
