"""Jobs of these tests run under whichever MPI this environment's mpi4py loads, and without one."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from launcher.mpi import find_mpi
from tests.faults.jobs import Jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """A `Jobs` in the test's temporary directory; what a failed test leaves running is ended by its process id."""
    jobs = Jobs(tmp_path, find_mpi("auto", os.environ).mpiexec)
    yield jobs
    jobs.end_all()


class Hosts(NamedTuple):
    """Two hosts and the wire between them."""

    names: tuple[str, str]
    """Of the network namespaces; each is its address."""
    wires: tuple[str, str]
    """The devices at the ends of the wire."""

    def cut(self) -> None:
        """Take the wire away: nothing passes any more, and nobody is told."""
        ip("-n", self.names[0], "link", "set", self.wires[0], "down")

    def on(self, host: int) -> list[str]:
        """What runs a command on one of them."""
        return ["ip", "netns", "exec", self.names[host]]


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two network namespaces of our own, which are hosts to everybody in them; only root makes these."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip(8) to make network namespaces with")
    net = f"10.{128 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
    names = (f"{net}.1", f"{net}.2")
    # Each end is alone in its namespace, so both have one name, by which MPI libraries can be told to use nothing else.
    wires = (f"df{secrets.token_hex(3)}",) * 2
    with contextlib.ExitStack() as cleaning:
        try:
            for name in names:
                ip("netns", "add", name)
                cleaning.callback(ip, "netns", "del", name)  # the wire goes with them
            ip("link", "add", wires[0], "netns", names[0], "type", "veth", "peer", "name", wires[1], "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces with a wire between them can be made here: {error.stderr.strip()}")
        for name, wire in zip(names, wires):
            ip("-n", name, "addr", "add", f"{name}/24", "dev", wire)
            for device in ("lo", wire):
                ip("-n", name, "link", "set", device, "up")
        yield Hosts(names, wires)
