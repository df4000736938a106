"""Asks a Python process, or another program, and never waits long for its answer."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

PATIENCE = 60.0  # seconds: a first import from a busy file server may take that long


class ProbeError(RuntimeError):
    """There is no answer; the message says why."""


def ask(python: str, program: str, environ: Mapping[str, str], patience: float = PATIENCE) -> Any:
    """What a Python program prints as JSON on its last line.

    Raises
    ------
    ProbeError
        It failed; the message is the last line of its traceback, or the signal that ended it.
    """
    # -P: not what lies in the current directory.
    out = say([python, "-P", "-c", program], environ, patience).strip().splitlines()
    try:
        return json.loads(out[-1])
    except (IndexError, ValueError):
        raise ProbeError(f"it printed {out[-1]!r}" if out else "it printed nothing") from None


def say(command: Sequence[str], environ: Mapping[str, str], patience: float = PATIENCE) -> str:
    """What a program prints on stdout.

    Raises
    ------
    ProbeError
        There is no such program, or it ended with another exit code than 0, or not at all.
    """
    try:
        done = subprocess.run(
            list(command),
            env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=patience, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer in {patience:g} s") from None
    except OSError as error:
        raise ProbeError(f"{command[0]}: {error.strerror}") from None
    if done.returncode < 0:
        raise ProbeError(f"killed by {signal.Signals(-done.returncode).name}")
    if done.returncode > 0:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ProbeError(words[-1].strip() if words else f"exit code {done.returncode}")
    return done.stdout


def size(number: float) -> str:
    """Bytes as a reader wants them.

    Examples
    --------
    >>> size(67108864), size(50_000_000_000), size(8192)
    ('64 MiB', '46.6 GiB', '8 KiB')
    """
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{number:.0f} B"
