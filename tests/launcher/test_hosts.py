"""The lists of hosts, who gets which ranks, and the way to another host."""

import base64
import os
import socket
import subprocess
import sys

import pytest

from launcher import remote
from launcher.hosts import Host, HostsError, Share, expand, is_here, master_of, parse_hosts, place, read_hostfile

LISTS = [
    # --hosts, (name, slots) of each
    ("a", [("a", None)]),
    ("a,b", [("a", None), ("b", None)]),
    ("a,b:4", [("a", 1), ("b", 4)]),
    ("a:2, b:2", [("a", 2), ("b", 2)]),
    ("a,a,b", [("a", 2), ("b", 1)]),
    ("a:2,b,a:3", [("a", 5), ("b", 1)]),
    ("10.0.0.1:2,ada@n2.site:1", [("10.0.0.1", 2), ("ada@n2.site", 1)]),
    ("[fd00::1]:2,[fd00::2]", [("[fd00::1]", 2), ("[fd00::2]", 1)]),
]


@pytest.mark.parametrize(("text", "expected"), LISTS)
def test_lists(text, expected):
    assert parse_hosts(text) == [Host(*host) for host in expected]


FILES = [
    ("a\nb\n", [("a", None), ("b", None)]),
    ("# a comment\n\na:2   # of four cores\nb:3\n", [("a", 2), ("b", 3)]),  # MPICH, Intel MPI
    ("a slots=4\n  b slots=2\n", [("a", 4), ("b", 2)]),  # Open MPI
    ("a\na\nb\n", [("a", 2), ("b", 1)]),  # one line a rank: PBS
    ("a\nb slots=4", [("a", 1), ("b", 4)]),
    ("\ufeffa:2\r\nb:3\r\n", [("a", 2), ("b", 3)]),  # written on Windows
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_files(tmp_path, text, expected):
    path = tmp_path / "hosts"
    path.write_text(text)
    assert read_hostfile(str(path)) == [Host(*host) for host in expected]


WRONG = [
    ("a,,b", "'' is no host"),
    ("a:x", "'a:x' is no host"),
    ("a:0", "'a:0' has no slots"),
    ("a;reboot", "'a;reboot' is no host"),
    ("a b", "'a b' is no host"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_lists(text, message):
    with pytest.raises(HostsError, match=f"--hosts .*{message}"):
        parse_hosts(text)


WRONG_FILES = [
    ("a\nb cores=4\n", "line 2: 'cores=4' is not understood; a line is host, host:4 or host slots=4"),
    ("a\n\nb:x\n", "line 3: 'b:x' is no host"),
    ("# nothing\n", "names no host"),
    (None, "cannot be read: .*No such file"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "hosts"
    if text is not None:
        path.write_text(text)
    with pytest.raises(HostsError, match=f"--hostfile {path}.*{message}"):
        read_hostfile(str(path))


PLACES = [
    # hosts, ranks, oversubscribe, (host, first rank, ranks) of each
    ("a,b", 4, False, [("a", 0, 2), ("b", 2, 2)]),
    ("a,b,c", 7, False, [("a", 0, 3), ("b", 3, 2), ("c", 5, 2)]),
    ("a,b,c", 2, False, [("a", 0, 1), ("b", 1, 1)]),
    ("a:2,b:4", 6, False, [("a", 0, 2), ("b", 2, 4)]),
    ("a:2,b:4", 3, False, [("a", 0, 2), ("b", 2, 1)]),
    ("a:2,b:4", 2, False, [("a", 0, 2)]),
    ("a:2,b:4", None, False, [("a", 0, 2), ("b", 2, 4)]),
    ("a:1,b:1", 5, True, [("a", 0, 3), ("b", 3, 2)]),
    ("a:1,b:1", 5, False, "-n 5 does not fit: the hosts take 2 ranks"),
    ("a:1", 5, False, r"-n 5 does not fit: the hosts take 1 rank \(a:1\)"),
    ("a,b", None, False, "-n is missing"),
]


@pytest.mark.parametrize(("hosts", "ranks", "oversubscribe", "expected"), PLACES)
def test_places(hosts, ranks, oversubscribe, expected):
    if isinstance(expected, str):
        with pytest.raises(HostsError, match=expected):
            place(parse_hosts(hosts), ranks, oversubscribe)
    else:
        assert place(parse_hosts(hosts), ranks, oversubscribe) == [Share(*share) for share in expected]


SLURM = [
    ("n1,n2", ["n1", "n2"]),
    ("n[1-3]", ["n1", "n2", "n3"]),
    ("gpu[07-08,11],login", ["gpu07", "gpu08", "gpu11", "login"]),
    ("rack[1-2]node[09-10]", ["rack1node09", "rack1node10", "rack2node09", "rack2node10"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), SLURM)
def test_lists_of_slurm(text, expected):
    assert expand(text) == expected


def test_which_hosts_are_this_one(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "n7.site.org")
    here = {"localhost", "127.0.0.1", "[::1]", "ada@127.0.0.1", "n7", "n7.site.org", "N7", "n7.Site.ORG.", "LocalHost"}
    elsewhere = {"n8", "n7.other.org", "192.0.2.7", "[2001:db8::1]"}
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        here.discard("[::1]")
    assert {name for name in here | elsewhere if is_here(name)} == here


MASTERS = [
    (["n1", "n2"], "n1"),
    (["ada@n1", "n2"], "n1"),
    (["[2001:db8::1]", "n2"], "2001:db8::1"),
    (["localhost"], "127.0.0.1"),
    (["127.0.0.1", "n2"], "n7"),  # as the others know it
    (["n7", "n2"], "n7"),
]


@pytest.mark.parametrize(("hosts", "address"), MASTERS)
def test_the_address_of_rank_0(monkeypatch, hosts, address):
    monkeypatch.setattr(socket, "gethostname", lambda: "n7")
    assert master_of([Share(host, rank, 1) for rank, host in enumerate(hosts)]) == address


ways = pytest.mark.parametrize(
    ("rsh", "host", "expected"),
    [
        ("ssh", "n1", ["ssh", "n1"]),
        ("ssh -p 2222 {host}", "n1", ["ssh", "-p", "2222", "n1"]),
        ("ip netns exec {host}", "n1", ["ip", "netns", "exec", "n1"]),
        ("docker exec -i 'train {host}'", "n1", ["docker", "exec", "-i", "train n1"]),
        ("ssh {host}", "[2001:db8::1]", ["ssh", "2001:db8::1"]),
    ],
)


@ways
def test_ways_to_a_host(rsh, host, expected):
    assert remote.on_host(rsh, host, ["hostname", "-s"]) == [*expected, "hostname", "-s"]


def test_words_that_a_shell_would_change_are_not_sent():
    with pytest.raises(remote.RemoteError, match="n1: it has characters that mean something to a shell"):
        remote.on_host("ssh", "n1", ["/opt/my python/bin/python"])


# A way that hands its words to a shell, as ssh does, and one that does not, as ip netns exec.
SHELL = "#!/bin/sh\nshift\nexec sh -c \"$*\"\n"
EXEC = '#!/bin/sh\nshift\nexec "$@"\n'


@pytest.mark.parametrize("way", [SHELL, EXEC], ids=["shell", "exec"])
@pytest.mark.parametrize("switches", [[], ["-x"]], ids=["plain", "-x"])
def test_a_process_manager_reaches_a_host_as_by_ssh(tmp_path, way, switches):
    rsh, agent = tmp_path / "way to", tmp_path / "agent"
    rsh.write_text(way)
    agent.write_text(remote.agent_script(f"'{rsh}' {{host}}"))
    for path in (rsh, agent):
        path.chmod(0o700)
    words = ["A='x  y';", "echo", '"$A"', "\"it's\"", "&&", "exit", "3"]
    said = subprocess.run([agent, *switches, "n1", *words], capture_output=True, text=True, timeout=30, check=False)
    assert (said.stdout, said.stderr, said.returncode) == ("x  y it's\n", "", 3)


def test_the_coded_half_runs_a_shell_command(tmp_path):
    coded = base64.urlsafe_b64encode(b"echo $((6 * 7))").decode()
    said = subprocess.check_output([sys.executable, remote.__file__, "here", coded], text=True, timeout=30)
    assert said == "42\n"


def test_which_hosts_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "REACH", 10.0)  # in which the others have answered, on a machine with other work, too
    rsh = tmp_path / "rsh"
    rsh.write_text(
        "#!/bin/sh\ncase $1 in\n  good) shift; exec \"$@\";;\n  mute) exec sleep 60;;\n  silent) exit 7;;\n"
        "  *) echo first >&2; echo \"no route to $1\" >&2; exit 255;;\nesac\n"
    )
    rsh.chmod(0o700)
    assert remote.unreachable(str(rsh), ["good", "bad", "mute", "silent"]) == {
        "bad": "no route to bad",
        "mute": "no answer within 10 s",
        "silent": "exit code 7",
    }
    assert "No such file" in remote.unreachable("/nowhere/rsh", ["good"])["good"]
