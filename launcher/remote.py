"""Reaches other hosts: ``--rsh COMMAND``, ssh unless it is given.

COMMAND runs a program on the host that stands for ``{host}`` in it, or that follows it: ``ssh -p 2222 {host}``,
``ip netns exec {host}``, ``docker exec -i {host}``. ssh hands its arguments to a shell over there, others do not; so
only words in which a shell finds nothing to do are sent through it, and what needs a shell goes encoded.

Run by its path, this file does the two halves of that:

    python remote.py through RSH [options] HOST COMMAND...   what MPI's process managers call in ssh's place
    python remote.py here CODED                              runs the shell command that was encoded
"""

import base64
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

# A password prompt would wait for somebody who is not there; so would an answer of a host that is gone.
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 {host}"
REACH = 20.0  # seconds after which a host that has not answered counts as gone


class RemoteError(ValueError):
    """A command cannot be sent to another host."""


def on_host(rsh: str, host: str, words: Sequence[str]) -> list[str]:
    """The command line that runs the command `words` on a host.

    Examples
    --------
    >>> on_host("ip netns exec {host}", "n2", ["hostname", "-s"])
    ['ip', 'netns', 'exec', 'n2', 'hostname', '-s']
    >>> on_host("ssh -p 2222", "n2", ["hostname"])
    ['ssh', '-p', '2222', 'n2', 'hostname']
    """
    for word in words:
        if shlex.quote(word) != word:
            raise RemoteError(f"{word!r} cannot be sent to host {host}: it has characters that mean something to a shell")
    host = host.strip("[]")
    parts = shlex.split(rsh)
    if "{host}" not in rsh:
        parts.append(host)
    return [*(part.replace("{host}", host) for part in parts), *words]


def python_on_host(rsh: str, host: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs this Python on a host, with nothing but the standard library."""
    return on_host(rsh, host, [sys.executable, "-I", "-S", *arguments])


def agent_script(rsh: str) -> str:
    """A program that MPI's process managers can call as they call ssh, but that goes the way of `rsh`."""
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(_own())} through {shlex.quote(rsh)} "$@"\n'


def unreachable(rsh: str, hosts: Iterable[str], stopped: Callable[[], bool] = lambda: False) -> dict[str, str]:
    """Which of the hosts cannot be reached, and why. All are asked at once.

    Parameters
    ----------
    rsh : str
        How they are reached.
    hosts : iterable of str
        Other hosts than this one.
    stopped : callable
        Asked again and again whether to give up; then only what is known so far is returned.
    """
    gone: dict[str, str] = {}
    asked = {}
    for host in hosts:
        said = tempfile.TemporaryFile()  # noqa: SIM115  closed below, with the process
        try:
            process = subprocess.Popen(
                on_host(rsh, host, ["true"]),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            gone[host] = str(error)
            said.close()
        else:
            asked[host] = (process, said)
    limit = time.monotonic() + REACH
    try:
        while None in [process.poll() for process, _ in asked.values()]:
            if stopped() or time.monotonic() > limit:
                break
            time.sleep(0.02)
        for host, (process, said) in asked.items():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            if process.returncode is None:
                if not stopped():
                    gone[host] = f"no answer within {REACH:.0f} s"
            elif process.returncode != 0:
                gone[host] = words[-1] if words else f"exit code {process.returncode}"
    finally:
        for process, said in asked.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said.close()
    return gone


def main(arguments: Sequence[str]) -> None:
    """Runs one of the two halves; does not return."""
    what, *rest = arguments
    if what == "here":
        os.execv("/bin/sh", ["sh", "-c", base64.urlsafe_b64decode(rest[0]).decode()])
    if what == "through":
        rsh, *call = rest
        while call and re.fullmatch(r"-\w+", call[0]):  # ssh's switches, such as -x
            del call[0]
        if len(call) < 2:
            raise SystemExit(f"dlaunch: a host and a command are expected, not {shlex.join(call)!r}")
        host, *words = call
        # As ssh does: the words joined are a line for a shell over there.
        coded = base64.urlsafe_b64encode(" ".join(words).encode()).decode()
        command = python_on_host(rsh, host, [_own(), "here", coded])
        os.execvp(command[0], command)
    raise SystemExit(f"dlaunch: unknown call {what!r}")


def _own() -> str:
    return os.path.abspath(__file__)


if __name__ == "__main__":
    main(sys.argv[1:])
