"""Two hosts with a wire between them: two network namespaces, which are hosts to everybody in them. Only root makes these."""

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

__all__ = ["Hosts", "two_hosts"]


class Hosts(NamedTuple):
    """Two hosts and the wire between them."""

    names: tuple[str, str]
    """Of the namespaces; each is its address, so that a list of hosts says where ``ip netns exec`` goes and where ranks meet."""
    wire: str
    """The device at either end. Each is alone in its namespace, so one name can tell MPI libraries to use nothing else."""

    def cut(self) -> None:
        """Take the wire away: nothing passes any more, and nobody is told."""
        ip("-n", self.names[0], "link", "set", self.wire, "down")

    def on(self, host: int) -> list[str]:
        """What runs a command on one of them."""
        return ["ip", "netns", "exec", self.names[host]]


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make them; they and the wire are gone afterwards. A test that needs them is skipped where they cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip(8) to make network namespaces with")
    net = f"10.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
    hosts = Hosts((f"{net}.1", f"{net}.2"), f"dt{secrets.token_hex(3)}")
    here, there = hosts.names
    with contextlib.ExitStack() as cleaning:
        try:
            for name in hosts.names:
                ip("netns", "add", name)
                cleaning.callback(ip, "netns", "del", name)  # the wire goes with them
            ip("link", "add", hosts.wire, "netns", here, "type", "veth", "peer", "name", hosts.wire, "netns", there)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces with a wire between them can be made here: {error.stderr.strip()}")
        for name in hosts.names:
            ip("-n", name, "addr", "add", f"{name}/24", "dev", hosts.wire)
            for device in ("lo", hosts.wire):
                ip("-n", name, "link", "set", device, "up")
        for name in hosts.names:
            _wait_for_carrier(name, hosts.wire)
        yield hosts


def _wait_for_carrier(host: str, wire: str) -> None:
    """A device that was set up carries a moment later; until then MPICH's UCX leaves it out."""
    limit = time.monotonic() + 10
    while "state UP" not in (shown := ip("-n", host, "link", "show", "dev", wire)):
        if time.monotonic() > limit:
            raise TimeoutError(f"the wire {wire} of {host} does not come up: {shown}")
        time.sleep(0.01)


def ip(*arguments: str) -> str:
    """Run ip(8)."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout
